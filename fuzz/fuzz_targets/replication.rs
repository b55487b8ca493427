//! A server that says anything: the client does not panic, and no entry leads out of the data directory.
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
use pg_replication::{BaseBackupOptions, Connection, Event, Host, Target};

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
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    let mut target = Target::new(Host::Unix(dir.path().to_owned(), 1), "fuzz");
    target.password = Some("fuzz".to_owned());
    Server { target, answers: Mutex::new(answers), _dir: dir }
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Target>();
    }
    let [kind, bytes @ ..] = bytes else { return };
    let version = if kind & 1 == 0 { "14.1" } else { "18.1" };
    let mut answer = Vec::new();
    let mut message = |tag: u8, body: &[u8]| {
        answer.push(tag);
        answer.extend(u32::try_from(body.len() + 4).expect("short").to_be_bytes());
        answer.extend(body);
    };
    if kind & 2 == 0 {
        message(b'R', &[0; 4]);
        message(b'S', format!("server_version\0{version}\0").as_bytes());
        message(b'Z', b"I");
    }
    answer.extend(bytes);
    SERVER.answers.lock().expect("one thread").send(answer).expect("the server lives");
    let Ok(mut connection) = Connection::open(&SERVER.target) else { return };
    let Ok(mut backup) = connection.base_backup(&BaseBackupOptions::new("fuzz")) else { return };
    while let Ok(Some(event)) = backup.next() {
        if let Event::Entry(entry) = event {
            assert!(!entry.path.starts_with(b"/") && !entry.path.split(|byte| *byte == b'/').any(|part| part == b".."));
        }
    }
    let _ = backup.finish();
});
