//! The bytes of one object of WAL. No I/O.
//!
//! ```text
//! header    magic, version, epoch, salt                         32 bytes in the clear
//! summary   where it begins, how long it is, identity, frames   sealed; 68 bytes
//! frames    length, sealed piece of the content                 each
//! ```

use super::WalError;
use crate::{
    frame::{Decoder, Encoder, Identity, encoded_max},
    id,
    seal::{Aead, Epoch, KEY_LEN, KeyRing, SealError, TAG_LEN, counter_nonce},
    store::{MAX_OBJECT_BYTES, ObjectName},
    wire::{BadBytes, Bytes, Put, len_u32},
};

const MAGIC: [u8; 8] = *b"OXPKWAL\n";
/// The only format of these objects so far.
const VERSION: u32 = 1;
const SALT_LEN: usize = 16;
const HEADER_LEN: usize = 8 + 4 + 4 + SALT_LEN;
const SUMMARY_LEN: usize = 8 + 8 + 32 + 4;
/// What tells whether an object is the same as another: every object has as many bytes.
pub(super) const FRONT_LEN: usize = HEADER_LEN + SUMMARY_LEN + TAG_LEN;
/// Plain bytes of each frame but the last: what is decompressed at a time.
const FRAME_PLAIN: usize = 1 << 20;
/// The nonce of the summary. No frame gets there: contents are bounded by [`CONTENT_MAX`].
const SUMMARY_ORDINAL: u32 = u32::MAX;
/// The most plain bytes of one object. Sealed, they stay below what a store reads as a whole.
pub(super) const CONTENT_MAX: usize = 128 << 20;
const _: () = assert!((CONTENT_MAX + (CONTENT_MAX / FRAME_PLAIN + 2) * 64 + FRONT_LEN) as u64 <= MAX_OBJECT_BYTES);

/// What an object says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Where it begins in its segment.
    pub(super) start: u64,
    /// How many bytes it has.
    pub(super) len: u64,
    /// Which bytes: their keyed hash.
    pub(super) identity: Identity,
    frames: u32,
    /// Of the master key that it is sealed with.
    pub(super) epoch: Epoch,
}

impl Summary {
    pub(super) fn of(identity_key: &[u8; KEY_LEN], start: u64, content: &[u8], epoch: Epoch) -> Self {
        let frames = len_u32(content.len().div_ceil(FRAME_PLAIN));
        Self { start, len: content.len() as u64, identity: Identity::of(identity_key, content), frames, epoch }
    }

    /// The same bytes at the same place, whatever they are sealed with.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.start, self.len, self.identity) == (other.start, other.len, other.identity)
    }

    /// Where it ends in its segment.
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Why an object can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadObject {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Form(#[from] BadBytes),
}

/// Seals `content`, which is at most [`CONTENT_MAX`], for the object `name`, with the master key of the summary's epoch.
pub(super) fn seal(
    ring: &KeyRing,
    name: &ObjectName,
    summary: &Summary,
    content: &[u8],
    encoder: &mut Encoder,
) -> Result<Vec<u8>, WalError> {
    let salt: [u8; SALT_LEN] = id::random()?;
    let epoch = summary.epoch;
    let key = ring.wal_object(epoch, &salt, name.as_str())?;
    let mut out = Vec::with_capacity(FRONT_LEN + content.len() / 2);
    out.put(&MAGIC);
    out.put_u32(VERSION);
    out.put_u32(epoch);
    out.put(&salt);
    let header: [u8; HEADER_LEN] = std::array::from_fn(|at| out[at]);
    let mut text = Vec::with_capacity(SUMMARY_LEN + TAG_LEN);
    text.put_u64(summary.start);
    text.put_u64(summary.len);
    text.put(&summary.identity.0);
    text.put_u32(summary.frames);
    key.seal_vec(counter_nonce(SUMMARY_ORDINAL), &header, &mut text);
    out.put(&text);
    for (ordinal, piece) in (0_u32..).zip(content.chunks(FRAME_PLAIN)) {
        let at = out.len() + 4;
        out.resize(at + encoded_max(piece.len()), 0);
        let len = encoder.encode(piece, &mut out[at..]);
        out.truncate(at + len);
        let tag = key.seal(counter_nonce(ordinal), &header, &mut out[at..]);
        out.put(&tag);
        out[at - 4..at].copy_from_slice(&len_u32(len + TAG_LEN).to_le_bytes());
    }
    Ok(out)
}

/// The key and the summary of an object, from its first [`FRONT_LEN`] bytes.
fn front(
    ring: &KeyRing,
    name: &ObjectName,
    bytes: &mut Bytes<'_>,
) -> Result<(Aead, [u8; HEADER_LEN], Summary), BadObject> {
    let header: [u8; HEADER_LEN] = bytes.array()?;
    let mut clear = Bytes::new(&header);
    clear.magic(&MAGIC, "it does not begin like an object of WAL")?;
    if clear.u32()? != VERSION {
        return Err(BadBytes("it is an object of WAL of an unknown version").into());
    }
    let (epoch, salt) = (clear.u32()?, clear.array()?);
    let key = ring.wal_object(epoch, &salt, name.as_str())?;
    let mut sealed: [u8; SUMMARY_LEN + TAG_LEN] = bytes.array()?;
    let mut text = Bytes::new(key.open(counter_nonce(SUMMARY_ORDINAL), &header, &mut sealed)?);
    let (start, len) = (text.u64()?, text.u64()?);
    let summary = Summary { start, len, identity: Identity(text.array()?), frames: text.u32()?, epoch };
    let fits = usize::try_from(len).is_ok_and(|len| {
        len <= CONTENT_MAX && summary.frames as usize == len.div_ceil(FRAME_PLAIN) && start <= CONTENT_MAX as u64
    });
    if !fits {
        return Err(BadBytes("its summary breaks the bounds").into());
    }
    Ok((key, header, summary))
}

/// What an object says of itself, from its first [`FRONT_LEN`] bytes.
pub(super) fn summary(ring: &KeyRing, name: &ObjectName, front_bytes: &[u8]) -> Result<Summary, BadObject> {
    front(ring, name, &mut Bytes::new(front_bytes)).map(|(_, _, summary)| summary)
}

/// The content of an object: authenticated, whole, and compared with its identity.
pub(super) fn open(
    ring: &KeyRing,
    name: &ObjectName,
    object: &[u8],
    decoder: &mut Decoder,
) -> Result<(Summary, Vec<u8>), BadObject> {
    let mut bytes = Bytes::new(object);
    let (key, header, summary) = front(ring, name, &mut bytes)?;
    let len = usize::try_from(summary.len).map_err(|_| BadBytes("it is too large"))?;
    let mut content = Vec::with_capacity(len);
    for ordinal in 0..summary.frames {
        let plain_len = FRAME_PLAIN.min(len - content.len());
        let sealed_len = bytes.count(1)?;
        if sealed_len > encoded_max(FRAME_PLAIN) + TAG_LEN {
            return Err(BadBytes("a frame is too long").into());
        }
        let mut sealed = bytes.take(sealed_len)?.to_vec();
        let encoded = key.open(counter_nonce(ordinal), &header, &mut sealed)?;
        let plain = decoder.decode(encoded, plain_len).ok_or(BadBytes("a frame does not decompress to its length"))?;
        content.extend_from_slice(&plain);
    }
    bytes.end()?;
    if Identity::of(&ring.wal_identity(), &content) != summary.identity {
        return Err(BadBytes("its content is not what its writer hashed").into());
    }
    Ok((summary, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{RepositoryId, frame::COMPRESSION_LEVEL, seal::MasterKey};

    fn ring(repository: u8, epochs: u8) -> KeyRing {
        let masters = (0..epochs).map(|epoch| MasterKey(Zeroizing::new([epoch; KEY_LEN]))).collect();
        KeyRing::new(RepositoryId([repository; 16]), masters)
    }

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    fn sealed(ring: &KeyRing, object: &str, start: u64, content: &[u8]) -> Vec<u8> {
        let summary = Summary::of(&ring.wal_identity(), start, content, ring.newest());
        seal(ring, &name(object), &summary, content, &mut Encoder::new(COMPRESSION_LEVEL).unwrap()).unwrap()
    }

    fn opened(ring: &KeyRing, object: &str, bytes: &[u8]) -> Result<(u64, Vec<u8>), BadObject> {
        let (summary, content) = open(ring, &name(object), bytes, &mut Decoder::new().unwrap())?;
        assert_eq!(super::summary(ring, &name(object), &bytes[..FRONT_LEN]), Ok(summary));
        Ok((summary.start, content))
    }

    #[test]
    fn contents_come_back_under_their_name_only() {
        let ours = ring(1, 2);
        for len in [0, 1, FRAME_PLAIN - 1, FRAME_PLAIN, 2 * FRAME_PLAIN + 5] {
            let content: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
            let bytes = sealed(&ours, "wal/a", 8192, &content);
            assert_eq!(opened(&ours, "wal/a", &bytes), Ok((8192, content)));
            assert_eq!(opened(&ours, "wal/b", &bytes), Err(SealError::Forged.into()));
            assert_eq!(opened(&ring(2, 2), "wal/a", &bytes), Err(SealError::Forged.into()));
            let newer = SealError::NewerEpoch { epoch: 1, newest: 0 };
            assert_eq!(opened(&ring(1, 1), "wal/a", &bytes), Err(newer.into()));
        }
        // Identities outlive rotations; sealed bytes never repeat.
        assert_ne!(sealed(&ours, "wal/a", 0, b"same"), sealed(&ours, "wal/a", 0, b"same"));
        let key = |epochs| ring(1, epochs).wal_identity();
        assert_eq!(Summary::of(&key(1), 0, b"same", 0), Summary::of(&key(2), 0, b"same", 0));
    }

    #[test]
    fn every_change_is_found() {
        let ours = ring(1, 1);
        let bytes = sealed(&ours, "wal/a", 0, b"some content of a segment");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&ours, &name("wal/a"), &changed, &mut Decoder::new().unwrap()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(open(&ours, &name("wal/a"), &bytes[..len], &mut Decoder::new().unwrap()).is_err());
        }
        assert!(open(&ours, &name("wal/a"), &[&bytes[..], b"x"].concat(), &mut Decoder::new().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4], &bytes].concat();
            prop_assert!(open(&ring(1, 1), &name("wal/a"), &bytes, &mut Decoder::new().unwrap()).is_err());
        }
    }
}
