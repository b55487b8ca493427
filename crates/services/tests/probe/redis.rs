//! A real Redis.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use services::{
    health::Answer,
    probe::{Probe, Redis, Said},
};

const WITHIN: Duration = Duration::from_secs(20);

/// The server by either of its names, see `cargo xtask testbed`.
fn program() -> Option<PathBuf> {
    let found = ["redis-server", "redis-check-rdb"].into_iter().find_map(|name| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
    });
    if found.is_none() {
        eprintln!("skipped: there is no Redis; hint: install the package `redis-tools`");
    }
    found
}

struct Server(Child);

impl Server {
    fn start(program: &Path, dir: &Path, arguments: &[&str]) -> Self {
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(program);
        command
            .arg0("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "socket", "--loglevel", "warning"])
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn probe(dir: &Path) -> Redis {
    Redis::new(&dir.join("socket").display().to_string()).unwrap()
}

async fn until(dir: &Path, probe: &Redis, what: &str, done: impl Fn(&Said) -> bool) -> Said {
    let probe = Probe::Redis(probe.clone());
    let deadline = Instant::now() + WITHIN;
    loop {
        let said = probe.ask(WITHIN).await;
        if done(&said) {
            return said;
        }
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "not within {WITHIN:?}: {what}; last: {said:?}; {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_real_redis_answers_with_and_without_a_password() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let plain = probe(dir.path());
    assert!(
        matches!(Probe::Redis(plain.clone()).ask(WITHIN).await.answer, Answer::Unhealthy { .. }),
        "nobody is there"
    );
    let server = Server::start(&program, dir.path(), &[]);
    until(dir.path(), &plain, "PONG", |said| said.answer == Answer::Healthy).await;
    drop(server);
    let secret = dir.path().join("password");
    fs::write(&secret, "s3cr3t words\n").unwrap();
    let with = plain.clone().password_file(&secret);
    let _server = Server::start(&program, dir.path(), &["--requirepass", "s3cr3t words"]);
    until(dir.path(), &with, "PONG", |said| said.answer == Answer::Healthy).await;
    let refused = |said: &Said, words: &str| {
        let Answer::Unknown { why } = &said.answer else { panic!("{said:?}") };
        assert!(why.contains(words) && !why.contains("s3cr3t"), "{why}");
    };
    refused(&Probe::Redis(plain.clone()).ask(WITHIN).await, "NOAUTH");
    refused(&Probe::Redis(with.clone().user("nobody")).ask(WITHIN).await, "WRONGPASS");
    fs::write(&secret, "wr0ng").unwrap();
    refused(&Probe::Redis(with.clone()).ask(WITHIN).await, "WRONGPASS");
    fs::remove_file(&secret).unwrap();
    refused(&Probe::Redis(with).ask(WITHIN).await, "password file");
}

#[tokio::test]
async fn a_real_redis_that_loads_its_data_is_starting_and_advances() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let plain = probe(dir.path());
    let keys = {
        use std::{
            io::{Read as _, Write as _},
            os::unix::net::UnixStream,
        };
        let _server = Server::start(&program, dir.path(), &[]);
        until(dir.path(), &plain, "PONG", |said| said.answer == Answer::Healthy).await;
        let mut stream = UnixStream::connect(dir.path().join("socket")).unwrap();
        let keys = 3000;
        for key in 0..keys {
            write!(stream, "SET key{key} {}\r\n", "x".repeat(40)).unwrap();
        }
        write!(stream, "SAVE\r\n").unwrap();
        let mut said = Vec::new();
        let mut byte = [0; 4096];
        while said.iter().filter(|byte| **byte == b'\n').count() <= keys {
            let read = stream.read(&mut byte).unwrap();
            said.extend_from_slice(&byte[..read]);
        }
        assert!(!said.contains(&b'-'), "{}", String::from_utf8_lossy(&said));
        keys
    };
    // A pause for each key, and answers all the while.
    let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let _server = Server::start(&program, dir.path(), &slow);
    let loading = |said: &Said| said.answer == Answer::Starting && said.progress.is_some();
    let first = until(dir.path(), &plain, "it loads", loading).await.progress.unwrap();
    assert_eq!(first.phase, "loading its data");
    let more = |said: &Said| said.progress.as_ref().is_some_and(|progress| progress.done > first.done);
    until(dir.path(), &plain, "it advances", more).await;
    until(dir.path(), &plain, "it has loaded", |said| said.answer == Answer::Healthy).await;
    assert_eq!(keys, 3000);
}

#[tokio::test]
async fn what_is_no_redis_is_unhealthy() {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "doesn't speak"),
        (b"", "closed without an answer"),
        (b"-MASTERDOWN \x1b[31m Link with MASTER is down\r\n", "MASTERDOWN"),
        (&[b'x'; 100_000], "doesn't speak"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
            let _ = stream.write_all(answer).await;
        });
        let said = Probe::Redis(Redis::new(&address).unwrap()).ask(WITHIN).await;
        let Answer::Unhealthy { why } = &said.answer else { panic!("{said:?}") };
        assert!(why.contains(words) && !why.contains('\u{1b}') && why.len() < 300, "{why}");
    }
}
