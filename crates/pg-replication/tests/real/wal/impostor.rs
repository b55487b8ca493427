//! What a server sends that is none, or a broken one.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use model::Lsn;
use pg_replication::{Connection, Error, Host, SslMode, StreamEnd, StreamOptions, Target, WalEvent};

use super::GLANCE;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

fn wal(start: u64, bytes: &[u8]) -> Vec<u8> {
    message(b'd', &[b"w", &start.to_be_bytes()[..], &(1u64 << 40).to_be_bytes(), &[0; 8], bytes].concat())
}

fn keepalive(end: u64, reply: bool) -> Vec<u8> {
    message(b'd', &[b"k", &end.to_be_bytes()[..], &[0; 8], &[u8::from(reply)]].concat())
}

fn row(columns: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        body.extend(i32::try_from(column.len()).unwrap().to_be_bytes());
        body.extend(column.as_bytes());
    }
    message(b'D', &body)
}

fn read_message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).ok()?;
    let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
    stream.read_exact(&mut body).ok()?;
    Some((header[0], body))
}

/// A server of 17 that begins to stream and then does this.
fn server(act: impl FnOnce(TcpStream) + Send + 'static) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        stream.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize - 4]).unwrap();
        let hello = [message(b'R', &[0; 4]), message(b'S', b"server_version\x0017.1\0"), message(b'Z', b"I")].concat();
        stream.write_all(&hello).unwrap();
        assert!(read_message(&mut stream).unwrap().1.starts_with(b"SHOW wal_sender_timeout"));
        let shown = [message(b'T', &[0; 2]), row(&["1min"]), message(b'C', b"SHOW\0"), message(b'Z', b"I")].concat();
        stream.write_all(&shown).unwrap();
        assert!(read_message(&mut stream).unwrap().1.starts_with(b"START_REPLICATION"));
        stream.write_all(&message(b'W', &[0; 3])).unwrap();
        act(stream);
    });
    let mut target = Target::new(Host::Tcp("127.0.0.1".to_owned(), port), "me");
    target.ssl_mode = SslMode::Disable;
    Connection::open(&target).unwrap()
}

/// A server that sends this and then listens.
fn says(bytes: Vec<u8>) -> Connection {
    server(move |mut stream| {
        stream.write_all(&bytes).unwrap();
        while read_message(&mut stream).is_some() {}
    })
}

fn options() -> StreamOptions {
    StreamOptions::new(Lsn(1 << 24), 1)
}

fn fails(connection: &mut Connection, options: &StreamOptions) -> Error {
    let mut stream = connection.stream_wal(options).unwrap();
    for _ in 0..1000 {
        if let Err(error) = stream.next(GLANCE) {
            return error;
        }
    }
    panic!("it was taken");
}

#[test]
fn garbage_and_gaps_are_refused() {
    let start = 1 << 24;
    for (bytes, why) in [
        (wal(start + 8, b"x"), "WAL from 0/1000008 came where 0/1000000 was due"),
        ([wal(start, b"abc"), wal(start, b"abc")].concat(), "came where 0/1000003 was due"),
        ([wal(start, b"abc"), wal(start + 4, b"d")].concat(), "came where 0/1000003 was due"),
        (message(b'd', b"x12345678901234567890"), "unknown kind"),
        (message(b'd', b""), "unknown kind"),
        (message(b'd', b"w123"), "unknown kind"),
        (wal(u64::MAX, b"xx"), "unknown kind"),
        (message(b'G', &[0; 3]), "a message 'G' came"),
        (b"d\xFF\xFF\xFF\xFF".to_vec(), "a message of 4294967295 bytes"),
    ] {
        let error = fails(&mut says(bytes), &options());
        assert!(matches!(&error, Error::Protocol { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let (sent, seen) = mpsc::channel();
    let mut connection = server(move |mut stream| {
        while let Some((tag, body)) = read_message(&mut stream) {
            // Its last byte asks for an answer.
            let _ = sent.send((tag, *body.last().unwrap()));
        }
    });
    let silence_max = Duration::from_millis(600);
    let error = fails(&mut connection, &StreamOptions { silence_max, ..options() });
    assert!(error.is_passing() && error.to_string().contains("silent"), "{error}");
    drop(connection);
    let seen: Vec<(u8, u8)> = seen.iter().collect();
    assert_eq!(seen, [(b'd', 0), (b'd', 1)]);
}

#[test]
fn pieces_of_messages_are_put_together() {
    let bytes = [wal(1 << 24, b"abc"), keepalive(1 << 30, true), wal((1 << 24) + 3, &[7; 5000])].concat();
    let mut connection = server(move |mut stream| {
        for piece in bytes.chunks(997).flat_map(|chunk| [&chunk[..1], &chunk[1..]]) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(3));
        }
        // Until our side is done; then its own end, and that of the command.
        while read_message(&mut stream).is_some_and(|(tag, _)| tag != b'c') {}
        let end = [wal((1 << 24) + 5003, b"late"), message(b'c', b""), message(b'T', &[0; 2])].concat();
        stream.write_all(&end).unwrap();
        let end =
            [row(&["2", "0/1000002"]), message(b'C', b"X\0"), message(b'C', b"X\0"), message(b'Z', b"I")].concat();
        stream.write_all(&end).unwrap();
    });
    let mut stream = connection.stream_wal(&options()).unwrap();
    let mut received = Vec::new();
    let mut asked = false;
    while received.len() < 5003 {
        // Less than a message takes: nothing of it may get lost.
        match stream.next(Duration::from_millis(1)).unwrap() {
            WalEvent::Wal { bytes, .. } => received.extend(bytes),
            WalEvent::KeepAlive => asked = true,
            WalEvent::Nothing => {}
            WalEvent::End => panic!("the end"),
        }
    }
    assert!(asked && received.starts_with(b"abc\x07") && !stream.is_caught_up());
    assert_eq!(stream.server_end(), Lsn(1 << 40));
    assert_eq!(stream.finish().unwrap(), StreamEnd::NextTimeline { timeline: 2, switch: Lsn(0x0100_0002) });
}
