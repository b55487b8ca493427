//! Delivery over TLS: the worker trusts the system's root certificates, and its connection is warm before the alert comes.

// The helpers of an integration test are not inside a test function, where clippy allows these.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use alerting::{Carrier, Delivery, DeliveryOptions, Heartbeat, Method, Route, Secret, Started, Webhook, WorkerCommand};
use model::{Alert, AlertKey, AlertState, EventKind, RuleId, Severity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
};

const ROLE: &str = "ALERTING_TEST_ROLE";

/// For what should take milliseconds, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test of its own: the worker process of the others.
#[test]
fn worker_process() {
    if env::var(ROLE).as_deref() == Ok("worker") {
        std::process::exit(i32::from(alerting::deliver::main().is_err()));
    }
}

/// A request: which connection it came on, from 1, and its first line.
type Seen = (usize, String);

/// An HTTPS server on loopback whose certificate is issued by a new authority, which is written to `authority`. It takes this many
/// connections; further ones wait for ever.
fn serve(authority: &Path, connections: usize) -> (SocketAddr, mpsc::Receiver<Seen>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(authority, issuer.pem()).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().take(connections).enumerate() {
            let (config, seen) = (config.clone(), seen.clone());
            thread::spawn(move || answer(stream.unwrap(), config, number + 1, &seen));
        }
        // Closing the listener would refuse the others.
        thread::park();
        drop(listener);
    });
    (address, requests)
}

/// Answers the requests of one connection until it ends, also by a failed handshake.
fn answer(stream: TcpStream, config: Arc<ServerConfig>, number: usize, seen: &mpsc::Sender<Seen>) -> Option<()> {
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(config).ok()?, stream));
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        reader.get_mut().flush().ok()?;
        let _ = seen.send((number, first.trim().to_owned()));
    }
}

fn start(outbox: &Path, address: SocketAddr, authority: &Path) -> Started {
    start_with(outbox, address, authority, None)
}

fn start_with(outbox: &Path, address: SocketAddr, authority: &Path, heartbeat: Option<Heartbeat>) -> Started {
    let webhook = Webhook {
        url: Secret::new(format!("https://{address}/s3cr3t")),
        bearer: None,
        headers: BTreeMap::new(),
        template: None,
    };
    let route = Route {
        name: "ops".into(),
        min_severity: Severity::Info,
        matches: BTreeMap::new(),
        escalate_after: None,
        members: false,
        carrier: Carrier::Webhook(webhook),
    };
    let args = ["--exact", "worker_process", "--nocapture", "--test-threads=2"];
    let env =
        [(ROLE, "worker"), ("SSL_CERT_FILE", authority.to_str().unwrap()), ("SSL_CERT_DIR", ""), ("NO_PROXY", "*")];
    let worker = WorkerCommand {
        program: env::current_exe().unwrap(),
        args: args.map(Into::into).to_vec(),
        env: env.map(|(name, value)| (name.into(), value.into())).to_vec(),
    };
    Delivery::start(DeliveryOptions {
        outbox_dir: outbox.to_owned(),
        routes: vec![route],
        heartbeat,
        peer: None,
        worker,
    })
}

fn alert() -> Alert {
    let moment = common::now();
    Alert {
        key: AlertKey("k".into()),
        rule: RuleId::from("cpu-saturated"),
        severity: Severity::Warning,
        state: AlertState::Firing,
        since: moment,
        decided: moment,
        summary: "CPU of db1 saturated".into(),
        details: Vec::new(),
        next_steps: Vec::new(),
        labels: BTreeMap::new(),
    }
}

async fn outcome(started: &mut Started) -> EventKind {
    tokio::time::timeout(PATIENCE, started.outcomes.recv())
        .await
        .expect("an outcome in time")
        .expect("delivery lives")
        .1
}

#[tokio::test]
async fn the_alert_goes_over_the_connection_that_was_warmed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("authority.pem");
    let (address, requests) = serve(&authority, 1);
    let mut started = start(&dir.path().join("outbox"), address, &authority);
    let (requests, warmed) = tokio::task::spawn_blocking(move || {
        let warmed = requests.recv_timeout(PATIENCE).expect("the connection is warmed");
        (requests, warmed)
    })
    .await
    .unwrap();
    assert_eq!(warmed, (1, "HEAD / HTTP/1.1".to_owned()));
    started.delivery.submit(alert());
    let event = outcome(&mut started).await;
    assert!(matches!(event, EventKind::AlertDelivered { attempt: 1, .. }), "{event:?}");
    assert_eq!(requests.try_recv(), Ok((1, "POST /s3cr3t HTTP/1.1".to_owned())));
}

#[tokio::test]
async fn a_certificate_of_a_stranger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (address, requests) = serve(&dir.path().join("stranger.pem"), 8);
    let other = dir.path().join("authority.pem");
    serve(&other, 0);
    let mut started = start(&dir.path().join("outbox"), address, &other);
    started.delivery.submit(alert());
    match outcome(&mut started).await {
        EventKind::AlertFailed { error, gave_up: false, .. } => {
            assert!(error.contains("certificate") && !error.contains("s3cr3t"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(requests.try_recv().is_err());
}

/// A delivery with a heartbeat each second to this address.
fn start_beating(outbox: &Path, address: SocketAddr, authority: &Path) -> Started {
    let second = Duration::from_secs(1);
    let url = Secret::new(format!("https://{address}/b34t"));
    let heartbeat = Heartbeat { url, method: Method::Post, every: second, timeout: second };
    start_with(outbox, address, authority, Some(heartbeat))
}

#[tokio::test]
async fn a_heartbeat_goes_over_tls_once_the_guard_senses() {
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("authority.pem");
    let (address, requests) = serve(&authority, 8);
    let started = start_beating(&dir.path().join("outbox"), address, &authority);
    let beats = tokio::task::spawn_blocking(move || {
        let warmed = requests.recv_timeout(PATIENCE).expect("the route's connection is warmed");
        // Longer than a heartbeat may take to come, were one sent by a guard that senses nothing.
        let early = requests.recv_timeout(Duration::from_secs(3));
        (requests, warmed, early)
    });
    let (requests, warmed, early) = beats.await.unwrap();
    assert_eq!(warmed.1, "HEAD / HTTP/1.1");
    assert!(early.is_err(), "a guard that has seen nothing yet is not said to live: {early:?}");
    started.delivery.senses(common::now());
    let beat = tokio::task::spawn_blocking(move || requests.recv_timeout(PATIENCE).expect("a heartbeat")).await;
    assert_eq!(beat.unwrap().1, "POST /b34t HTTP/1.1");
}

#[tokio::test]
async fn a_check_with_the_certificate_of_a_stranger_hears_nothing_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (address, requests) = serve(&dir.path().join("stranger.pem"), 64);
    let other = dir.path().join("authority.pem");
    serve(&other, 0);
    let started = start_beating(&dir.path().join("outbox"), address, &other);
    let deadline = std::time::Instant::now() + PATIENCE;
    let problem = loop {
        started.delivery.senses(common::now());
        if let Some(problem) = started.delivery.problems().pop() {
            break problem;
        }
        assert!(std::time::Instant::now() < deadline, "it is not said that the heartbeat does not arrive");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(problem.contains("the heartbeat does not arrive, 3 times in a row: cannot connect"), "{problem}");
    assert!(problem.contains("certificate") && !problem.contains("b34t"), "{problem}");
    assert!(requests.try_recv().is_err());
}
