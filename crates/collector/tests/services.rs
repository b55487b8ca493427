//! Health checks against real sockets that answer, refuse, hang and lie.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use collector::services::{self, Check, ServiceProbe};
use model::{EventKind, Observation, Reading, reading::Health, reading::ServiceReading};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc::{self, Receiver},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers each request with these bytes; without any it takes the connection and says nothing.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if answer.is_empty() {
                held.push(stream);
                continue;
            }
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn probe(check: Check) -> ServiceProbe {
    ServiceProbe {
        name: "site".into(),
        check,
        timeout: Duration::from_millis(500),
        interval: Duration::from_millis(100),
        impact: vec!["entry gate".to_owned()],
    }
}

fn start(probes: Vec<ServiceProbe>) -> Receiver<Observation> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(services::run(probes, sender));
    receiver
}

async fn reading(receiver: &mut Receiver<Observation>) -> ServiceReading {
    loop {
        match timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap() {
            Observation::Reading(Reading::Service(reading)) => return reading,
            _ => continue,
        }
    }
}

#[tokio::test]
async fn answers_are_judged_by_their_status() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nonly the beginning";
    for (answer, health, detail) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Health::Healthy, None),
        ("HTTP/1.1 204 No Content\r\n\r\n", Health::Healthy, None),
        (long, Health::Healthy, None),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", Health::Unhealthy, Some("status 503")),
        ("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n", Health::Unhealthy, Some("status 302")),
        ("", Health::Unhealthy, Some("no answer within 0.5 s")),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", Health::Unhealthy, Some("invalid HTTP version parsed")),
    ] {
        let address = server(answer).await;
        let mut receiver = start(vec![probe(Check::http(&format!("http://{address}/healthz?x=1")).unwrap())]);
        let reading = reading(&mut receiver).await;
        assert_eq!((reading.health, reading.detail.as_deref()), (health, detail), "{answer}");
        assert!(reading.took < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_port_that_listens_is_healthy_and_one_that_does_not_is_not() {
    let address = server("").await;
    let mut receiver = start(vec![probe(Check::tcp(&address.to_string()).unwrap())]);
    assert_eq!(reading(&mut receiver).await.health, Health::Healthy);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let mut receiver = start(vec![probe(Check::http(&format!("http://{free}/")).unwrap())]);
    let reading = reading(&mut receiver).await;
    assert_eq!((reading.health, reading.detail.as_deref()), (Health::Unhealthy, Some("connection refused")));
}

#[tokio::test]
async fn an_outage_is_two_events_with_what_people_lose() {
    let well = Arc::new(AtomicBool::new(true));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::clone(&well);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = if state.load(Ordering::SeqCst) { "200 OK" } else { "500 Oops" };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
        }
    });
    let mut receiver = start(vec![probe(Check::http(&format!("http://{address}/")).unwrap())]);
    assert_eq!(reading(&mut receiver).await.health, Health::Healthy);
    for (wanted, begins) in [(Health::Unhealthy, "status 500"), (Health::Healthy, "it was unhealthy for")] {
        well.store(wanted == Health::Healthy, Ordering::SeqCst);
        loop {
            let observation = timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap();
            let Observation::Event(_, event) = observation else { continue };
            let EventKind::ServiceChanged { service, health, detail, impact } = event else {
                panic!("unexpected: {event:?}")
            };
            assert_eq!((service.as_str(), health), ("site", wanted));
            assert!(detail.starts_with(begins), "{detail}");
            assert_eq!(impact, ["entry gate"]);
            break;
        }
    }
}

#[tokio::test]
async fn checks_end_with_their_receiver() {
    let address = server("").await;
    let probes = (0..40).map(|_| probe(Check::tcp(&address.to_string()).unwrap())).collect();
    let (sender, mut receiver) = mpsc::channel(1);
    let task = tokio::spawn(services::run(probes, sender));
    assert_eq!(reading(&mut receiver).await.health, Health::Healthy);
    drop(receiver);
    timeout(PATIENCE, task).await.unwrap().unwrap();
}
