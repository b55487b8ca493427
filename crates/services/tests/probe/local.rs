//! HTTP, TCP, DNS and commands: servers of the tests' own.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use services::{
    health::{Answer, Progress},
    probe::{Command, Dns, Http, Probe, Said, Tcp},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// As much as a busy machine may need.
const WITHIN: Duration = Duration::from_secs(20);

fn unhealthy(said: &Said) -> &str {
    match &said.answer {
        Answer::Unhealthy { why } => why,
        other => panic!("{other:?}"),
    }
}

fn unknown(said: &Said) -> &str {
    match &said.answer {
        Answer::Unknown { why } => why,
        other => panic!("{other:?}"),
    }
}

/// Listens and does this with each connection, once a request's head has come.
async fn serve<F: Future<Output = ()> + Send>(with: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            with(stream).await;
        }
    });
    address
}

async fn answer(text: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        let _ = stream.write_all(text.as_bytes()).await;
    })
    .await
}

fn http(address: SocketAddr) -> Http {
    Http::new(&format!("http://{address}/healthz")).unwrap()
}

#[tokio::test]
async fn http_by_status_and_body() {
    let good = answer("HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\nall is \"ok\" now").await;
    let ask = async |http: Http| Probe::Http(http).ask(WITHIN).await;
    assert_eq!(ask(http(good)).await.answer, Answer::Healthy);
    assert_eq!(ask(http(good).body("\"ok\"")).await.answer, Answer::Healthy);
    assert!(unhealthy(&ask(http(good).body("fine")).await).starts_with("status 200, but its body lacks 'fine'"));
    assert_eq!(unhealthy(&ask(http(good).status(204).unwrap()).await), "status 200");
    let bad = answer("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(unhealthy(&ask(http(bad)).await), "status 503");
    assert_eq!(ask(http(bad).status(503).unwrap()).await.answer, Answer::Healthy);
    let elsewhere = answer("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(unhealthy(&ask(http(elsewhere)).await), "status 302, which is not followed");
    let chunked = answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n").await;
    assert_eq!(ask(http(chunked).body("hello")).await.answer, Answer::Healthy);
}

#[tokio::test]
async fn http_from_hostile_servers() {
    let ask = async |http: Http, within| {
        let begin = Instant::now();
        let said = Probe::Http(http).ask(within).await;
        assert!(begin.elapsed() < within + Duration::from_secs(10), "{said:?}");
        said
    };
    let ansi = answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\x1b[31mred\x07").await;
    let said = ask(http(ansi).body("green"), WITHIN).await;
    assert!(unhealthy(&said).contains("red") && !unhealthy(&said).contains(['\u{1b}', '\u{7}']), "{said:?}");
    let mute = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream);
    })
    .await;
    assert_eq!(unhealthy(&ask(http(mute), Duration::from_millis(300)).await), "no answer within 0.3 s");
    let closes = answer("").await;
    assert_eq!(unhealthy(&ask(http(closes), WITHIN).await), "the connection was closed without an answer");
    let noise = answer("SSH-2.0-OpenSSH_9.2\r\n").await;
    unhealthy(&ask(http(noise), WITHIN).await);
    let drips = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(unhealthy(&ask(http(drips).body("end"), Duration::from_millis(500)).await), "no answer within 0.5 s");
    let heads = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-more: and more and more and more\r\n").await.is_ok() {}
    })
    .await;
    unhealthy(&ask(http(heads), WITHIN).await);
    let bodies = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert!(unhealthy(&ask(http(bodies).body("end"), WITHIN).await).contains("its body lacks 'end'"));
}

#[tokio::test]
async fn https_to_what_has_no_tls_is_unhealthy() {
    let plain = answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let probe = Probe::Http(Http::new(&format!("https://{plain}/")).unwrap());
    let said = probe.ask(Duration::from_millis(500)).await;
    assert!(!matches!(said.answer, Answer::Healthy), "{said:?}");
}

#[tokio::test]
async fn nobody_there_is_unhealthy_and_no_way_there_is_unknown() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let tcp = |address: &str| Probe::Tcp(Tcp::new(address).unwrap());
    assert_eq!(unhealthy(&tcp(&closed.to_string()).ask(WITHIN).await), "connection refused");
    assert_eq!(unhealthy(&Probe::Http(http(closed)).ask(WITHIN).await), "connection refused");
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(tcp(&open.local_addr().unwrap().to_string()).ask(WITHIN).await.answer, Answer::Healthy);
    assert!(unknown(&tcp("no-such-host.invalid:80").ask(WITHIN).await).contains("can't be resolved"));
    let named = Probe::Http(Http::new("http://no-such-host.invalid/").unwrap());
    assert!(unknown(&named.ask(WITHIN).await).contains("can't be resolved"));
}

fn shell(script: &str) -> Probe {
    Probe::Command(Command::new(["/bin/sh", "-c", script]).unwrap())
}

#[tokio::test]
async fn commands_by_their_exit_code() {
    let ask = async |script: &str| shell(script).ask(WITHIN).await;
    assert_eq!(ask("exit 0").await.answer, Answer::Healthy);
    let starting = ask("echo 'progress: loading 3'; echo 'progress: loading 4'; exit 75").await;
    let progress = Progress { phase: "loading".into(), done: 4 };
    assert_eq!(starting, Said { answer: Answer::Starting, progress: Some(progress), run: None });
    assert_eq!(unhealthy(&ask("echo one; printf 'no \\033[31mluck\\n\\n' >&2; exit 3").await), "code 3: no  [31mluck");
    assert!(unknown(&ask("no-such-program-anywhere").await).starts_with("it could not be run (code 127)"));
    assert!(unknown(&ask("kill -9 $$").await).starts_with("it was killed"));
    let clean = ask("test -z \"$CARGO_PKG_NAME\" && read -r line; test $? = 1").await;
    assert_eq!(clean.answer, Answer::Healthy, "nothing of ours, nothing to read: {clean:?}");
    let absent = Probe::Command(Command::new(["/no/such/program"]).unwrap());
    assert!(unknown(&absent.ask(WITHIN).await).starts_with("can't run /no/such/program: "));
    let forbidden = Probe::Command(Command::new(["/etc/passwd"]).unwrap());
    assert!(unknown(&forbidden.ask(WITHIN).await).contains("ermission denied"));
}

#[tokio::test]
async fn commands_are_ended_with_all_that_they_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let gone = || {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        text.lines().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    let begin = Instant::now();
    let left = shell(&format!("sleep 1000 & echo $! >>{}; exit 0", pids.display())).ask(WITHIN).await;
    assert_eq!(left.answer, Answer::Healthy);
    let hangs = shell(&format!("sleep 1000 & echo $! >>{0}; echo $$ >>{0}; sleep 1000", pids.display()));
    assert_eq!(unhealthy(&hangs.ask(Duration::from_millis(500)).await), "no answer within 0.5 s");
    let floods = shell("yes").ask(Duration::from_millis(500)).await;
    assert_eq!(unhealthy(&floods), "no answer within 0.5 s");
    while !gone() {
        assert!(begin.elapsed() < WITHIN, "something is left: {:?}", std::fs::read_to_string(&pids));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_to_string(&pids).unwrap().lines().count(), 3);
}

/// A server of names that answers every query with this: flags, and one record.
async fn names(flags: [u8; 2], record: &'static [u8]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let mut answer = query[..length].to_vec();
            // Somebody else's, and noise, first.
            let _ = socket.send_to(b"noise", from).await;
            answer[0] ^= 0xff;
            let _ = socket.send_to(&answer, from).await;
            answer[0] ^= 0xff;
            answer[2..4].copy_from_slice(&flags);
            answer[7] = u8::from(!record.is_empty());
            answer.extend_from_slice(record);
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

#[tokio::test]
async fn names_resolve_or_not() {
    const RECORD: &[u8] = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01";
    let ask = async |server: SocketAddr, expected: Option<&str>| {
        let dns = Dns::new("site.example").unwrap().server(&server.to_string()).unwrap();
        let dns = expected.map_or(dns.clone(), |ip| dns.expects(ip.parse().unwrap()));
        Probe::Dns(dns).ask(WITHIN).await
    };
    let good = names([0x81, 0x80], RECORD).await;
    assert_eq!(ask(good, None).await.answer, Answer::Healthy);
    assert_eq!(ask(good, Some("10.0.0.1")).await.answer, Answer::Healthy);
    assert_eq!(unhealthy(&ask(good, Some("10.0.0.2")).await), "site.example is 10.0.0.1 and not 10.0.0.2");
    let none = names([0x81, 0x83], b"").await;
    assert!(unhealthy(&ask(none, None).await).contains("NXDOMAIN"));
    let empty = names([0x81, 0x80], b"").await;
    assert_eq!(unhealthy(&ask(empty, None).await), "site.example has no address");
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dns = Dns::new("a").unwrap().server(&silent.local_addr().unwrap().to_string()).unwrap();
    assert_eq!(unhealthy(&Probe::Dns(dns).ask(Duration::from_millis(1500)).await), "no answer within 1.5 s");
    let closed = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    assert_eq!(unhealthy(&ask(closed, None).await), "connection refused");
    let local = Probe::Dns(Dns::new("localhost").unwrap());
    assert_eq!(local.ask(WITHIN).await.answer, Answer::Healthy);
}

#[tokio::test]
async fn several_are_asked_at_once() {
    let slow = || shell("sleep 0.5");
    let begin = Instant::now();
    let said = Probe::ask_all(&[slow(), slow(), slow(), slow(), slow(), slow(), slow(), slow()], WITHIN).await;
    assert_eq!(said.answer, Answer::Healthy);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let bad = Probe::ask_all(&[shell("exit 0"), shell("exit 1")], WITHIN).await;
    assert_eq!(unhealthy(&bad), "code 1");
}
