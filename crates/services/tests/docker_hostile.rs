//! What is no engine, or none that means well, on the other end of the socket.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on fails, and one that is skipped says so"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use services::{
    driver::{
        Act, ActError, Driver as _,
        docker::{Declared, Docker},
    },
    health::Process,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// More than one look may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

fn status(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

fn version(newest: &str, oldest: &str) -> Vec<u8> {
    ok(&format!(r#"{{"Version":"x","ApiVersion":"{newest}","MinAPIVersion":"{oldest}"}}"#))
}

fn listed() -> Vec<u8> {
    ok(&format!(r#"[{{"Id":"{ID}","Names":["/site"],"Labels":{{}}}}]"#))
}

/// Answers each request by its path, and counts them.
fn serve(socket: &Path, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(socket).unwrap();
    let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, counted) = (Arc::clone(&answer), Arc::clone(&counted));
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                counted.fetch_add(1, Ordering::Relaxed);
                match answer(head.split(' ').nth(1).unwrap_or_default()) {
                    Some(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.shutdown().await;
                    }
                    // Silent, and it stays.
                    None => std::future::pending().await,
                }
            });
        }
    });
    asked
}

fn driver(socket: &Path) -> Docker {
    Docker::new(socket, vec![Declared::container("site", "site"), Declared::compose("db", "p", "db")])
}

async fn unknown(driver: &Docker) -> String {
    let listed = tokio::time::timeout(PATIENCE, driver.list()).await.expect("one look is bounded in time");
    assert_eq!(listed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["site", "db"]);
    match &listed[0].1.process {
        Process::Unknown { why } => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn answers_that_are_none_of_an_engine() {
    let dir = tempfile::tempdir().unwrap();
    let endless = || {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..40 {
            bytes.extend_from_slice(b"100000\r\n");
            bytes.resize(bytes.len() + 0x10_0000, b'[');
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    };
    type Answer = Box<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;
    let with = |list: Vec<u8>| -> Answer {
        Box::new(move |path| Some(if path == "/version" { version("1.41", "1.12") } else { list.clone() }))
    };
    let cases: Vec<(&str, Answer)> = vec![
        ("no answer from the engine", Box::new(|_| Some(vec![]))),
        ("no answer from the engine", Box::new(|_| Some(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()))),
        ("can't be read", Box::new(|_| Some(ok("not JSON")))),
        ("can't be read", Box::new(|_| Some(ok(r#"{"ApiVersion":{}}"#)))),
        ("too old", Box::new(|_| Some(version("1.24", "1.12")))),
        ("too new", Box::new(|_| Some(version("2.0", "1.99")))),
        ("answered 503", Box::new(|_| Some(status("503 Service Unavailable", "\u{1b}[31mlater\n")))),
        ("answered 301", Box::new(|_| Some(status("301 Moved", "")))),
        ("more than", with(endless())),
        ("no answer from the engine", with(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n[{".to_vec())),
        ("can't be read", with(ok(r#"[{"Names":["/site"]}]"#))),
        ("is no id", with(ok(r#"[{"Id":"../../version","Names":["/site"]}]"#))),
        ("can't be read", with(ok(&"[".repeat(100_000)))),
        ("answered 500", with(status("500 Internal Server Error", r#"{"message":"no space left on device"}"#))),
    ];
    for (number, (word, answer)) in cases.into_iter().enumerate() {
        let socket = dir.path().join(number.to_string());
        serve(&socket, answer);
        let why = unknown(&driver(&socket)).await;
        assert!(why.contains(word) && why.contains("hint: "), "{number}: {why}");
        assert!(!why.contains('\u{1b}') && why.len() < 1200, "{number}: {why}");
        let error = driver(&socket).act(&"site".into(), Act::Restart).await.unwrap_err();
        assert!(matches!(error, ActError::NoAnswer { .. } | ActError::Failed { .. }), "{number}: {error}");
    }
}

#[tokio::test]
async fn one_container_that_cannot_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let other = ID.replace('0', "f");
    serve(&socket, move |path| {
        Some(match path {
            "/version" => version("1.41", "1.12"),
            _ if path.contains("/containers/json") => ok(&format!(
                r#"[{{"Id":"{ID}","Names":["/site"]}},{{"Id":"{other}","Labels":{{"com.docker.compose.project":"p","com.docker.compose.service":"db"}}}}]"#
            )),
            _ if path.contains(ID) => ok("{}"),
            _ => ok(&format!(r#"{{"Id":"{other}","State":{{"Status":"running"}}}}"#)),
        })
    });
    let driver = driver(&socket);
    let why = unknown(&driver).await;
    assert!(why.contains("what the engine says of a container can't be read"), "{why}");
    assert_eq!(driver.list().await[1].1.process, Process::Running);
}

#[tokio::test]
async fn an_engine_that_was_replaced_is_agreed_with_anew() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let versions = AtomicUsize::new(0);
    serve(&socket, move |path| {
        Some(match path {
            "/version" if versions.fetch_add(1, Ordering::Relaxed) == 0 => version("1.41", "1.12"),
            "/version" => version("1.30", "1.12"),
            _ if path.starts_with("/v1.41/") => status(
                "400 Bad Request",
                r#"{"message":"client version 1.41 is too new. Maximum supported API version is 1.30"}"#,
            ),
            _ if path.contains("/containers/json") => listed(),
            _ => ok(&format!(r#"{{"Id":"{ID}","State":{{"Status":"running"}}}}"#)),
        })
    });
    let driver = driver(&socket);
    assert!(unknown(&driver).await.contains("too new"));
    assert_eq!(driver.list().await[0].1.process, Process::Running);
}

#[tokio::test]
async fn there_is_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let why = unknown(&driver(&socket)).await;
    assert!(why.contains("there is no engine's socket") && why.contains("systemctl start docker"), "{why}");
    let error = driver(&socket).act(&"site".into(), Act::Start).await.unwrap_err();
    assert!(matches!(error, ActError::NoAnswer { .. }), "{error}");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(unknown(&driver(&socket)).await.contains("no engine listens"));
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "a file").unwrap();
    assert!(unknown(&driver(&socket)).await.contains("no engine listens"));
    let long = dir.path().join("x".repeat(200));
    assert!(unknown(&driver(&long)).await.contains("no answer"), "no socket has such a name");
}

#[test]
fn one_who_may_not_is_told_which_group_may() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root to become somebody else");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // Debian's `daemon`, which every host has.
    let group = nix::unistd::Group::from_gid(1.into()).unwrap().map(|group| group.name);
    std::os::unix::fs::chown(&socket, Some(0), Some(1)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    let told = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        // This thread alone.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let driver = driver(&socket);
            (unknown(&driver).await, driver.act(&"site".into(), Act::Start).await.unwrap_err())
        })
    });
    let (why, error) = told.join().unwrap();
    assert!(why.contains("this user may not use the engine's socket"), "{why}");
    assert!(matches!(error, ActError::Denied { .. }), "{error}");
    if let Some(group) = group {
        assert!(why.contains(&format!("add this user to the group {group}")), "{why}");
    }
}

#[tokio::test]
async fn broken_events_are_asked_for_again_and_ever_more_seldom() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let asked = serve(&socket, |path| {
        Some(match path {
            "/version" => version("1.41", "1.12"),
            // One event that is none, and it is over.
            _ => ok("{\n"),
        })
    });
    let driver = driver(&socket);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let _ = tokio::time::timeout(Duration::from_millis(300), driver.changed()).await;
    }
    let asked = asked.load(Ordering::Relaxed);
    // 0, 0.1, 0.3, 0.7 and 1.5 s; the version is asked for once.
    assert!((2..=8).contains(&asked), "{asked} requests");
}

#[tokio::test]
async fn slow_an_engine_that_says_nothing_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (silent, half) = (dir.path().join("silent"), dir.path().join("half"));
    serve(&silent, |_| None);
    serve(&half, |path| match path {
        "/version" => Some(version("1.41", "1.12")),
        _ if path.contains("/containers/json") => Some(listed()),
        _ => None,
    });
    for socket in [silent, half] {
        let begin = Instant::now();
        assert!(unknown(&driver(&socket)).await.contains("nothing within"));
        assert!(begin.elapsed() < Duration::from_secs(25));
        let error = driver(&socket).act(&"site".into(), Act::Start).await.unwrap_err();
        assert!(matches!(error, ActError::NoAnswer { .. }), "{error}");
    }
}
