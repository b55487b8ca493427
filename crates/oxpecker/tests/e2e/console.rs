//! The console, asked over HTTP as a browser, Prometheus, somebody else's page and a slow client would ask.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Guard, PATIENCE, Place, oxpecker};

/// Nothing listens there; the guard guards all the same.
const NOWHERE: &str = "postgresql:///postgres?host=/nonexistent&user=nobody";
const TOKEN: &str = "0123456789abcdef0123";

/// A running console.
struct Console {
    child: Child,
    address: SocketAddr,
}

impl Console {
    fn start(place: &Place) -> Self {
        let mut child = oxpecker()
            .current_dir(place.path())
            .args(["--config", &place.path().join("oxpecker.toml").display().to_string(), "console"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        // It says where it listens, or ends.
        let address = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).expect("a pipe") > 0, "the console does not listen: {said}");
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.trim().trim_end_matches('/').parse().expect("an address");
            }
            said.push_str(&line);
        };
        Self { child, address }
    }

    /// What a request gets: status, head and body.
    fn send(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        // One that was refused in the middle of its body may see a reset after the answer.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, head.to_owned(), body.to_owned())
    }

    fn get_with(&self, path: &str, more: &str) -> (u16, String, String) {
        let port = self.address.port();
        // HTTP/1.0 without keep-alive: the answer ends with the connection.
        self.send(&format!("GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\n{more}\r\n"))
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.get_with(path, "")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place(more: &str) -> Place {
    let place = Place::new();
    place.configure(NOWHERE, &format!("\n[console]\nlisten = \"127.0.0.1:0\"\n{more}"));
    place
}

#[test]
fn the_console_shows_what_the_guard_and_the_journal_know() {
    let place = place("");
    let guard = Guard::start(&place);
    place.await_status("an alert of the server that is not there", |s| {
        s["alerts"].as_array().is_some_and(|alerts| alerts.iter().any(|a| a["rule"] == "postgres-down"))
    });
    let console = Console::start(&place);

    let (status, head, body) = console.get("/");
    assert_eq!(status, 200, "{head}\n{body}");
    let head = head.to_ascii_lowercase();
    for wanted in [
        "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "content-type: text/html",
    ] {
        assert!(head.contains(wanted), "{wanted} in\n{head}");
    }
    assert!(!head.contains("unsafe-inline"), "{head}");
    assert!(body.contains("NOT WELL") && body.contains("Open alerts") && body.contains("PostgreSQL"), "{body}");

    let (status, _, body) = console.get("/api/now");
    let now: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &now["now"]["well"]), (200, &Value::Bool(false)), "{body}");
    assert_eq!(now["now"]["figures"]["server_up"], false, "{body}");

    // The alert is in the journal a moment after the guard has said it.
    let started = Instant::now();
    let incidents = loop {
        let (status, _, body) = console.get("/api/incidents");
        let incidents: Value = serde_json::from_str(&body).unwrap();
        if status == 200 && incidents["count"] == 1 {
            break incidents;
        }
        assert!(started.elapsed() < PATIENCE, "no incident: {body}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let id = incidents["incidents"][0]["id"].as_str().unwrap().to_owned();
    let (status, _, body) = console.get("/incidents");
    assert!(status == 200 && body.contains(&format!("href=\"/incidents/{id}\"")), "{body}");
    let (status, _, body) = console.get(&format!("/incidents/{id}"));
    assert_eq!(status, 200, "{body}");
    for heading in ["Summary", "Impact", "Detection", "Blameless root cause", "Timeline"] {
        assert!(body.contains(heading), "{heading} in {body}");
    }
    let (status, _, body) = console.get(&format!("/api/incidents/{id}"));
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, report["incident"]["id"].as_str()), (200, Some(&*id)), "{body}");
    let (status, head, body) = console.get(&format!("/incidents/{id}.md"));
    assert!(status == 200 && head.contains("text/plain") && body.contains("## Summary"), "{head}\n{body}");
    assert_eq!(console.get("/incidents/I-0").0, 404);
    assert_eq!(console.get("/incidents/%3Cscript%3E").2, "there is no such incident\n");
    assert_eq!(console.get("/nothing").0, 404);

    let (status, head, body) = console.get("/metrics");
    assert!(status == 200 && head.contains("application/openmetrics-text"), "{head}");
    assert!(body.contains("oxpecker_guard_up 1.0") && body.contains("oxpecker_postgres_up 0.0"), "{body}");
    for (path, kind) in [("/console.css", "text/css"), ("/console.js", "text/javascript")] {
        let (status, head, _) = console.get(path);
        assert!(status == 200 && head.contains(kind), "{path}: {head}");
    }

    // A live view hears of the first state at once.
    let mut stream = TcpStream::connect(console.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let heard = BufReader::new(stream).lines().map_while(Result::ok).find(|l| l.starts_with("event:"));
    assert_eq!(heard.as_deref(), Some("event: changed"));

    // Killed, it is not missed; and a guard that is gone is said, while the past stays readable.
    drop(console);
    place.await_status("a guard that goes on", |s| s["pid"] == guard.pid());
    assert!(guard.stop().success(), "{}", place.log());
    let console = Console::start(&place);
    let (status, _, body) = console.get("/");
    assert!(status == 503 && body.contains("no guard answers"), "{body}");
    assert!(console.get("/metrics").2.contains("oxpecker_guard_up 0.0"));
    assert_eq!(console.get(&format!("/incidents/{id}")).0, 200);
}

#[test]
fn the_console_refuses_strangers_writes_and_other_names() {
    let place = place("");
    let token = place.secret("token", TOKEN);
    place.configure(
        NOWHERE,
        &format!("\n[console]\nlisten = \"127.0.0.1:0\"\ntoken_file = {:?}", token.display().to_string()),
    );
    let console = Console::start(&place);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/", "/api/now", "/incidents", "/metrics", "/live", "/console.css", "/nothing"] {
        let (status, head, body) = console.get(path);
        let head = head.to_ascii_lowercase();
        assert_eq!(status, 401, "{path}: {head}\n{body}");
        assert!(head.contains("www-authenticate: basic") && head.contains("content-security-policy"), "{head}");
        assert_eq!(console.get_with(path, "Authorization: Bearer 0123456789abcdef0124\r\n").0, 401, "{path}");
    }
    assert_eq!(console.get_with("/console.css", &bearer).0, 200);
    // No guard runs here, and that is what it says.
    assert_eq!(console.get_with("/", &bearer).0, 503);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Length: 1000000000\r\n\r\nx=1");
        assert_eq!(console.send(&request).0, 405, "{method}");
    }
    for host in ["evil.example", "localhost.evil.example", "169.254.169.254"] {
        let (status, ..) = console.send(&format!("GET / HTTP/1.0\r\nHost: {host}\r\n{bearer}\r\n"));
        assert_eq!(status, 421, "{host}");
    }
    let (status, ..) = console.send(&format!("GET http://evil.example/ HTTP/1.0\r\nHost: localhost\r\n{bearer}\r\n"));
    assert_eq!(status, 421);
    let (status, ..) =
        console.send(&format!("GET / HTTP/1.0\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000)));
    assert!([0, 431].contains(&status), "{status}");
    assert_eq!(console.send("\u{16}\u{3}\u{1} no HTTP at all\r\n\r\n").0, 400);
    assert_eq!(console.get_with("/console.css", &bearer).0, 200);
}

#[test]
fn a_slow_client_is_dropped() {
    let console = Console::start(&place(""));
    let mut slow = TcpStream::connect(console.address).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let mut rest = Vec::new();
    // The end of the connection, in whatever way; without one the read would time out.
    let ended = slow.read_to_end(&mut rest);
    assert!(ended.map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |_| true), "still connected");
    assert_eq!(console.get("/console.css").0, 200);
}

#[test]
fn an_open_console_is_refused() {
    for (more, says) in [
        ("listen = \"0.0.0.0:0\"", "nobody has to show who they are"),
        ("listen = \"[::]:0\"", "nobody has to show who they are"),
        ("token_file = \"/nonexistent\"", "can't read the token"),
        ("trusted_header = \"no header\"", "no name of a header"),
    ] {
        let place = Place::new();
        place.configure(NOWHERE, &format!("\n[console]\n{more}"));
        let output = place.ask(&["console"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more}: {said}");
        assert!(said.contains(says) && said.contains("hint"), "{more}: {said}");
    }
}
