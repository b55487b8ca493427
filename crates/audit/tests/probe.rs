//! Servers on this machine, asked as `--probe` asks them.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use audit::{Options, Report, Severity, facts::Collector, source::probe};
use jiff::{ToSpan as _, Zoned, civil::Date};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

fn today() -> Date {
    Zoned::now().date()
}

/// Serves one connection after another until the test's process ends.
fn serve(talk: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            talk(stream);
        }
    });
    address
}

fn page(answer: &'static str) -> impl Fn(&mut dyn ReadWrite) {
    move |stream| {
        // All of the head: what is closed with something unread may lose its answer.
        let (mut head, mut buffer) = (Vec::new(), [0; 1_024]);
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        _ = stream.write_all(answer.as_bytes());
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A server with a certificate of its own making that ends in so many days.
fn encrypted(host: &str, days: i64, talk: impl Fn(&mut dyn ReadWrite) + Send + 'static) -> SocketAddr {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    let end = today().saturating_add(days.days());
    // Noon, so that no midnight between here and there makes it another day.
    params.not_after =
        rcgen::date_time_ymd(end.year().into(), u8::try_from(end.month()).unwrap(), u8::try_from(end.day()).unwrap());
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        talk(&mut stream);
        stream.conn.send_close_notify();
        _ = stream.flush();
    })
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn audit(files: &[(&str, &str)], elsewhere: &[(&str, u16, SocketAddr)]) -> Report {
    let mut collector = Collector::new(today());
    for (name, text) in files {
        collector.add(name, text);
    }
    let (questions, left_out) = collector.questions();
    let elsewhere = elsewhere.iter().map(|(host, port, address)| (((*host).to_owned(), *port), *address)).collect();
    collector.probes(probe::ask(questions, &elsewhere), left_out);
    audit::audit(collector, &Options::default())
}

fn said(report: &Report, check: &str) -> BTreeSet<String> {
    report.findings.iter().filter(|finding| finding.check == check).map(|finding| finding.message.clone()).collect()
}

fn one<'a>(report: &'a Report, check: &str, object: &str) -> &'a audit::Finding {
    let found = report.findings.iter().find(|finding| finding.check == check && finding.object.contains(object));
    found.unwrap_or_else(|| panic!("no {check} of {object}:\n{}", audit::render::text(report)))
}

#[test]
fn certificates_and_redirects_are_seen() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let moved = "HTTP/1.1 301 Moved Permanently\r\nLocation: https://example.org/new/x\r\n\r\n";
    let hosts: [(&str, i64, &str); 5] = [
        ("soon.example.org", 3, ok),
        ("ended.example.org", -40, ok),
        ("late.example.org", 14, moved),
        ("elsewhere.example.org", 300, moved),
        ("broken.example.org", 300, "HTTP/1.1 503 Service Unavailable\r\n\r\n"),
    ];
    let mut elsewhere: Vec<(&str, u16, SocketAddr)> =
        hosts.iter().map(|(host, days, answer)| (*host, 443, encrypted(host, *days, page(answer)))).collect();
    elsewhere.extend(hosts.iter().map(|(host, ..)| (*host, 80, nobody())));
    let plain = serve(|mut stream| page("HTTP/1.0 308 x\r\nlocation: https://plain.example.org/\r\n\r\n")(&mut stream));
    elsewhere.extend([
        ("plain.example.org", 443, nobody()),
        ("plain.example.org", 80, plain),
        ("gone.example.org", 443, nobody()),
        ("gone.example.org", 80, nobody()),
    ]);
    let expected = "soon.example.org\nended.example.org\nlate.example.org -> https://example.org/new\nelsewhere.example.org -> https://example.org/other\n\
                    broken.example.org\nplain.example.org -> https://plain.example.org\ngone.example.org\n";
    let report = audit(&[("expected-routes.txt", expected)], &elsewhere);

    assert_eq!(one(&report, "certificate-expires", "soon").severity, Severity::High);
    assert!(
        one(&report, "certificate-expires", "ended").message.contains("ended on"),
        "read though nobody would believe it"
    );
    assert_eq!(one(&report, "certificate-expires", "late").severity, Severity::Medium);
    assert_eq!(said(&report, "certificate-expires").len(), 3);
    assert!(one(&report, "redirect-wrong", "elsewhere").message.contains("to https://example.org/new/x"));
    assert_eq!(said(&report, "redirect-wrong").len(), 1, "{:?}", said(&report, "redirect-wrong"));
    assert!(one(&report, "host-does-not-answer", "broken").message.contains("503"));
    assert!(one(&report, "host-does-not-answer", "gone").evidence[0].place.file.as_ref() == "expected-routes.txt");
    assert_eq!(said(&report, "host-does-not-answer").len(), 2, "{:?}", said(&report, "host-does-not-answer"));
    // Whether the others are told as untrusted depends on whether this machine has any roots; the ended one never is.
    assert!(said(&report, "certificate-untrusted").iter().all(|message| !message.contains("ended.")));
}

#[test]
fn addresses_in_variables_are_asked() {
    let postgres = serve(|mut stream| {
        let mut request = [0; 8];
        _ = stream.read_exact(&mut request);
        _ = stream.write_all(b"N");
    });
    let other = serve(|mut stream| page("HTTP/1.1 400 Bad Request\r\n\r\n")(&mut stream));
    let env = "DATABASE_URL=postgres://site:hunter2@db.example.org/site\nOTHER_URL=postgres://site:hunter2@web.example.org/site\n\
               SENTRY_DSN=https://key@errors.example.org/1\nINSIDE_URL=postgres://site@postgres/site\nHOOK_URL=https://hook.example.org/delete\n";
    let elsewhere = [
        ("db.example.org", 5432, postgres),
        ("web.example.org", 5432, other),
        ("errors.example.org", 443, nobody()),
        ("postgres", 5432, nobody()),
    ];
    let report = audit(&[("site.env", env)], &elsewhere);
    let found: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.check == "dsn-does-not-answer")
        .map(|finding| finding.object.as_str())
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(one(&report, "dsn-does-not-answer", "OTHER_URL").message.contains("no PostgreSQL"));
    assert!(one(&report, "dsn-does-not-answer", "SENTRY_DSN").message.contains("refused"));
    assert!(
        report.not_assessed.iter().any(|open| open.what.contains("INSIDE_URL")),
        "a name of the inside is not judged from outside"
    );
    let text = audit::render::text(&report);
    assert!(!text.contains("hunter2") && !text.contains("hook.example.org"), "{text}");
}

#[test]
fn slow_one_that_never_answers_holds_nobody_up() {
    // Takes the connection, says nothing, and lets go only with the test.
    let silent = serve(|stream| {
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(120));
            drop(stream);
        });
    });
    let names: Vec<String> = (0..40).map(|index| format!("h{index}.example.org")).collect();
    let elsewhere: Vec<(&str, u16, SocketAddr)> =
        names.iter().flat_map(|name| [(name.as_str(), 443, silent), (name.as_str(), 80, nobody())]).collect();
    let begin = Instant::now();
    let report = audit(&[("expected-routes.txt", &names.join("\n"))], &elsewhere);
    assert_eq!(said(&report, "host-does-not-answer").len(), 40);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn without_being_told_nothing_is_asked() {
    let mut collector = Collector::new(today());
    collector.add("expected-routes.txt", "a.example.org\n");
    let report = audit::audit(collector, &Options::default());
    assert!(
        report.not_assessed.iter().any(|open| open.what == "answers over the network" && open.why.contains("--probe"))
    );
    assert!(report.not_assessed.iter().any(|open| open.what == "host-does-not-answer"));
}

#[test]
fn certificates_in_files_are_read() {
    let mut params = CertificateParams::new(["a.example.org".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2021, 3, 4);
    let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let data = data_encoding::BASE64.encode(pem.as_bytes());
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls}}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: {data}\n"
    );
    let report = audit(&[("secret.yaml", &secret)], &[]);
    let finding = one(&report, "certificate-expires", "Secret/tls");
    assert!(finding.message.contains("2021-03-04") && finding.evidence[0].place.line == 6, "{finding:?}");
}
