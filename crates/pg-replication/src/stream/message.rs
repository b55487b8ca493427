//! What is inside the messages of a stream. Numbers are big-endian; times are microseconds since 2000.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use model::Lsn;

use super::Progress;

/// Seconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_2000: Duration = Duration::from_secs(946_684_800);
/// Of the header of a piece of WAL: its kind, three numbers.
const WAL_HEADER: usize = 25;

/// A message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A piece of WAL, which begins at `offset` in the message.
    Wal { start: Lsn, server_end: Lsn, offset: usize },
    /// A sign of life.
    KeepAlive { server_end: Lsn, reply: bool },
}

/// Reads what is in a CopyData; `None` when it is neither.
pub(super) fn parse(body: &[u8]) -> Option<Message> {
    let (kind, rest) = body.split_first()?;
    let (first, rest) = take_lsn(rest)?;
    match kind {
        b'w' => {
            let (server_end, rest) = take_lsn(rest)?;
            let (_sent_at, wal) = rest.split_first_chunk::<8>()?;
            // WAL does not go round the end of its numbers.
            first.0.checked_add(u64::try_from(wal.len()).ok()?)?;
            Some(Message::Wal { start: first, server_end, offset: WAL_HEADER })
        }
        b'k' => {
            let (_sent_at, rest) = rest.split_first_chunk::<8>()?;
            match rest {
                [reply] => Some(Message::KeepAlive { server_end: first, reply: *reply != 0 }),
                _ => None,
            }
        }
        _ => None,
    }
}

fn take_lsn(bytes: &[u8]) -> Option<(Lsn, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((Lsn(u64::from_be_bytes(*number)), rest))
}

/// A status message, ready to be sent.
pub(super) fn status(progress: Progress, now: SystemTime, reply: bool) -> BytesMut {
    let micros = now.duration_since(SystemTime::UNIX_EPOCH + EPOCH_2000).map_or(0, |since| since.as_micros());
    let mut out = BytesMut::with_capacity(39);
    out.put_u8(b'd');
    // The length counts itself: four, one, four times eight, one.
    out.put_u32(38);
    out.put_u8(b'r');
    for lsn in [progress.written, progress.flushed, progress.applied] {
        out.put_u64(lsn.0);
    }
    out.put_u64(u64::try_from(micros).unwrap_or(u64::MAX));
    out.put_u8(u8::from(reply));
    out
}

/// The message that ends our side of the stream.
pub(super) fn done() -> BytesMut {
    BytesMut::from(&b"c\0\0\0\x04"[..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_the_manual_has_it() {
        let wal = [&b"w"[..], &7u64.to_be_bytes(), &9u64.to_be_bytes(), &[0; 8], b"ab"].concat();
        assert_eq!(parse(&wal), Some(Message::Wal { start: Lsn(7), server_end: Lsn(9), offset: 25 }));
        assert_eq!(&wal[25..], b"ab");
        let alive = [&b"k"[..], &9u64.to_be_bytes(), &[0; 8], &[1]].concat();
        assert_eq!(parse(&alive), Some(Message::KeepAlive { server_end: Lsn(9), reply: true }));
        let progress = Progress { written: Lsn(3), flushed: Lsn(2), applied: Lsn(1) };
        let bytes = status(progress, SystemTime::UNIX_EPOCH + EPOCH_2000 + Duration::from_micros(5), true);
        let numbers = [3u64, 2, 1, 5].map(u64::to_be_bytes).concat();
        assert_eq!(&bytes[..], [&b"d\0\0\0\x26r"[..], &numbers, &[1]].concat());
        // A clock that stands before 2000 is wrong, but no reason to fail.
        assert_eq!(status(progress, SystemTime::UNIX_EPOCH, false)[30..], [0; 9]);
        let wraps = [&b"w"[..], &u64::MAX.to_be_bytes(), &[0; 16], b"ab"].concat();
        for bad in [&b""[..], b"w", b"x12345678", &alive[..17], &[&alive[..], b"x"].concat(), &wal[..24], &wraps] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0usize..3) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = [b'w', b'k', *first][kind];
            }
            if let Some(Message::Wal { offset, .. }) = parse(&bytes) {
                prop_assert!(offset <= bytes.len());
            }
        }
    }
}
