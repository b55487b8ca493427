//! A server that streams anything: the client does not panic, WAL has no gap, and only what came is acknowledged.
//!
//! Over a real socket, for the client has no other door.
#![no_main]

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    sync::{LazyLock, Mutex, mpsc},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use model::Lsn;
use pg_replication::{Connection, Host, StreamOptions, Target, WalEvent};

struct Server {
    target: Target,
    answers: Mutex<mpsc::Sender<Vec<u8>>>,
    _dir: tempfile::TempDir,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = UnixListener::bind(dir.path().join(".s.PGSQL.1")).expect("a socket");
    let (answers, answers_in) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        while let Ok(answer) = answers_in.recv() {
            let (mut stream, _) = listener.accept().expect("the client");
            // The startup message, so that nothing is unread when the socket closes.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            // Statuses, until the client is gone.
            while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        }
    });
    let mut target = Target::new(Host::Unix(dir.path().to_owned(), 1), "fuzz");
    target.password = Some("fuzz".to_owned());
    Server { target, answers: Mutex::new(answers), _dir: dir }
});

const START: Lsn = Lsn(1 << 24);

fuzz_target!(|bytes: &[u8]| {
    let [kind, bytes @ ..] = bytes else { return };
    let mut answer = Vec::new();
    let mut message = |tag: u8, body: &[u8]| {
        answer.push(tag);
        answer.extend(u32::try_from(body.len() + 4).expect("short").to_be_bytes());
        answer.extend(body);
    };
    message(b'R', &[0; 4]);
    message(b'S', b"server_version\018.1\0");
    message(b'Z', b"I");
    message(b'T', &[0; 2]);
    message(b'D', b"\0\x01\0\0\0\x031ms");
    message(b'C', b"SHOW\0");
    message(b'Z', b"I");
    if kind & 1 == 0 {
        message(b'W', &[0; 3]);
    }
    if kind & 2 == 0 {
        // The input cut into messages of the stream, or else nearly all would fail at their first byte.
        let mut at = START.0;
        for piece in bytes.chunks(usize::from(*kind).max(8)) {
            match piece[0] & 3 {
                0 => message(b'd', &[b"k", &piece[..8.min(piece.len())], &[0; 8], &[piece[0] >> 2 & 1]].concat()),
                1 => message(piece[0], piece),
                _ => {
                    message(b'd', &[b"w", &at.to_be_bytes()[..], &[0; 16], piece].concat());
                    at += piece.len() as u64;
                }
            }
        }
    } else {
        answer.extend(bytes);
    }
    SERVER.answers.lock().expect("one thread").send(answer).expect("the server lives");
    let Ok(mut connection) = Connection::open(&SERVER.target) else { return };
    let Ok(mut stream) = connection.stream_wal(&StreamOptions::new(START, 1)) else { return };
    let status = stream.status();
    let mut end = START;
    loop {
        match stream.next(Duration::from_millis(100)) {
            Ok(WalEvent::Wal { start, bytes }) => {
                assert!(start == end && !bytes.is_empty());
                end = Lsn(start.0 + bytes.len() as u64);
                assert!(status.flushed(Lsn(end.0 + 1)).is_err());
                let _ = status.flushed(end);
            }
            Ok(WalEvent::KeepAlive | WalEvent::Nothing) => {}
            Ok(WalEvent::End) | Err(_) => break,
        }
    }
    assert!(status.progress().flushed <= end && stream.received() == end);
    let _ = stream.finish();
});
