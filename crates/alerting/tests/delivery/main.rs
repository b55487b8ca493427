//! Delivery through a real worker process to a real HTTP server. The test binary starts itself again as worker and as guard.

// The helpers of an integration test are not inside a test function, where clippy allows these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod alertmanager;
mod carriers;
#[path = "../common/mod.rs"]
mod common;
mod email;
mod hush;
mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use alerting::{
    Carrier, Delivery, DeliveryOptions, Route, Secret, Started, Webhook, WorkerCommand, delivery::OUTBOX_ROUTE,
};
use common::now;
use model::{Alert, AlertKey, AlertState, EventKind, Moment, RuleId, Severity};
use rustix::process::{Pid, Signal, kill_process};
use support::*;
use tokio::sync::mpsc;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{body_partial_json, header, method, path},
};

const ROLE: &str = "ALERTING_TEST_ROLE";
const PIDS: &str = "ALERTING_TEST_PIDS";
const OUTBOX: &str = "ALERTING_TEST_OUTBOX";
const URL: &str = "ALERTING_TEST_URL";

/// The part of every test URL that must never be seen anywhere.
const SECRET_PATH: &str = "/hooks/s3cr3t-path";
const SECRET_TOKEN: &str = "t0ken-s3cr3t";

/// For what should take milliseconds, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test of its own: the worker process of the others.
#[test]
fn worker_process() {
    if env::var(ROLE).as_deref() != Ok("worker") {
        return;
    }
    if let Ok(path) = env::var(PIDS) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{}", std::process::id()).unwrap();
    }
    let code = i32::from(alerting::deliver::main().is_err());
    std::process::exit(code);
}

/// Not a test of its own: the guard process that `kill -9` ends.
#[test]
fn guard_process() {
    if env::var(ROLE).as_deref() != Ok("guard") {
        return;
    }
    let outbox = PathBuf::from(env::var(OUTBOX).unwrap());
    let routes = vec![route("ops", &env::var(URL).unwrap())];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let started = start(&outbox, routes, worker(Path::new(&env::var(PIDS).unwrap())));
        started.delivery.submit(alert("killed-guard", AlertState::Firing));
        std::future::pending::<()>().await;
    });
}

fn myself(role: &str) -> (PathBuf, Vec<String>) {
    // With two threads libtest writes nothing on the line that the worker writes on.
    let args = ["--exact", role, "--nocapture", "--test-threads=2"];
    (env::current_exe().unwrap(), args.map(str::to_owned).to_vec())
}

fn worker(pids: &Path) -> WorkerCommand {
    let (program, args) = myself("worker_process");
    let env = [(ROLE, "worker"), (PIDS, pids.to_str().unwrap()), ("NO_PROXY", "*")];
    WorkerCommand {
        program,
        args: args.into_iter().map(Into::into).collect(),
        env: env.map(|(name, value)| (name.into(), value.into())).to_vec(),
    }
}

fn route(name: &str, origin: &str) -> Route {
    let webhook = Webhook {
        url: Secret::new(format!("{origin}{SECRET_PATH}")),
        bearer: Some(Secret::new(SECRET_TOKEN)),
        headers: BTreeMap::from([("x-team".to_owned(), "db".to_owned())]),
        template: None,
    };
    Route {
        name: name.into(),
        min_severity: Severity::Warning,
        matches: BTreeMap::new(),
        escalate_after: None,
        members: false,
        carrier: Carrier::Webhook(webhook),
    }
}

#[tokio::test]
async fn an_alert_reaches_its_webhook_whole() {
    let (log, _guard) = Log::capture();
    let server = MockServer::start().await;
    let body = serde_json::json!({
        "schema": 1, "source": "oxpecker", "key": "k1", "rule": "vacuum-starves-host", "state": "firing", "severity": "critical",
        "summary": "summary of k1", "next_steps": ["look"], "labels": {"cluster": "main"},
    });
    Mock::given(method("POST"))
        .and(path(SECRET_PATH))
        .and(header("authorization", format!("Bearer {SECRET_TOKEN}").as_str()))
        .and(header("x-team", "db"))
        .and(header("x-oxpecker-key", "k1/firing"))
        .and(header("content-type", "application/json"))
        .and(body_partial_json(body))
        .respond_with(ResponseTemplate::new(204))
        .expect(1)
        .mount(&server)
        .await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k1", AlertState::Firing));
    let mut info = alert("k2", AlertState::Firing);
    info.severity = Severity::Info;
    started.delivery.submit(info);
    let (key, name, attempt, latency) = delivered(&mut started.outcomes).await;
    assert_eq!((key.as_str(), name.as_str(), attempt), ("k1", "ops", 1));
    assert!(latency > Duration::ZERO && latency < PATIENCE, "{latency:?}");
    started.delivery.shutdown().await;
    assert_eq!(place.undelivered(), Vec::<String>::new());
    assert!(place.content().contains("\"k1\""), "its episode is open");

    // Short-lived though it was: the sample of a warm connection asked for the origin only.
    let requests = server.received_requests().await.unwrap();
    assert!(requests.iter().all(|r| r.method.as_str() == "POST" || r.url.path() == "/"));
    assert!(posts(&server).await[0].body.windows(8).any(|w| w == b"\"since\":"));
    let log = log.text();
    assert!(log.contains("ALERT: summary of k1") && log.contains("ALERT: summary of k2"), "{log}");
    assert_no_secret(&log);
    assert_no_secret(&place.content());
}

#[tokio::test]
async fn a_failing_receiver_is_asked_again() {
    let (log, _guard) = Log::capture();
    let server = MockServer::start().await;
    let once = Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).up_to_n_times(1).with_priority(1);
    once.mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    started.delivery.submit(alert("k", AlertState::Resolved));
    match outcome(&mut started.outcomes).await {
        EventKind::AlertFailed { attempt: 1, error, gave_up: false, .. } => assert!(error.contains("500"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(delivered(&mut started.outcomes).await.2, 2);
    assert_eq!(delivered(&mut started.outcomes).await.2, 1);
    assert_eq!(keys(&posts(&server).await), ["k/firing", "k/firing", "k/resolved"]);
    started.delivery.shutdown().await;
    assert!(!place.content().contains("summary of k"), "its episode is over");
    assert_no_secret(&log.text());
}

#[tokio::test]
async fn a_hanging_route_holds_back_no_other() {
    let hanging = answering(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).await;
    let fine = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let routes = vec![route("hanging", &hanging.uri()), route("fine", &fine.uri())];
    let mut started = start(&place.outbox(), routes, place.worker());
    let begun = Instant::now();
    for key in ["a", "b", "c"] {
        started.delivery.submit(alert(key, AlertState::Firing));
    }
    for key in ["a", "b", "c"] {
        let (delivered, route, ..) = delivered(&mut started.outcomes).await;
        assert_eq!((delivered.as_str(), route.as_str()), (key, "fine"));
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "it waited for the hanging one: {:?}", begun.elapsed());
    match outcome(&mut started.outcomes).await {
        EventKind::AlertFailed { route, error, gave_up: false, .. } => {
            assert_eq!((route.as_str(), error.as_str()), ("hanging", "no answer within 8 s"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(place.undelivered().len(), 3);
}

#[tokio::test]
async fn what_can_never_work_is_given_up_with_a_hint() {
    let server = answering(ResponseTemplate::new(422)).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    match outcome(&mut started.outcomes).await {
        EventKind::AlertFailed { attempt: 1, error, gave_up: true, .. } => {
            assert!(error.contains("422") && error.contains("Hint: "));
        }
        other => panic!("{other:?}"),
    }
    started.delivery.shutdown().await;
    assert_eq!(posts(&server).await.len(), 1);
    assert!(place.undelivered().is_empty());
}

#[tokio::test]
async fn a_refusal_that_a_deploy_may_explain_loses_nothing() {
    let server = answering(ResponseTemplate::new(404)).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    match outcome(&mut started.outcomes).await {
        EventKind::AlertFailed { attempt: 1, error, gave_up: false, .. } => {
            assert!(error.contains("404") && error.contains("Hint: "));
        }
        other => panic!("{other:?}"),
    }
    started.delivery.shutdown().await;
    assert_eq!(place.undelivered().len(), 1, "the next guard goes on with it");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(429).insert_header("retry-after", "2");
    Mock::given(method("POST")).respond_with(busy).up_to_n_times(1).with_priority(1).mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    assert!(matches!(outcome(&mut started.outcomes).await, EventKind::AlertFailed { gave_up: false, .. }));
    let failed = Instant::now();
    assert_eq!(delivered(&mut started.outcomes).await.2, 2);
    // Without it the pause would be half a second at most.
    assert!(failed.elapsed() > Duration::from_millis(1_800), "{:?}", failed.elapsed());
}

#[tokio::test]
async fn a_receiver_that_comes_up_later_gets_its_alert() {
    let (log, _guard) = Log::capture();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &format!("http://{address}"))], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    match outcome(&mut started.outcomes).await {
        EventKind::AlertFailed { error, gave_up: false, .. } => assert!(error.contains("refused"), "{error}"),
        other => panic!("{other:?}"),
    }
    let server = MockServer::builder().listener(TcpListener::bind(address).unwrap()).start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    assert!(delivered(&mut started.outcomes).await.2 >= 2);
    assert_no_secret(&log.text());
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_is_replaced_and_the_key_stays() {
    let server = MockServer::start().await;
    let slow = ResponseTemplate::new(200).set_delay(Duration::from_secs(5));
    Mock::given(method("POST")).respond_with(slow).up_to_n_times(1).with_priority(1).mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    while posts(&server).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = place.pids()[0];
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    let killed = Instant::now();
    delivered(&mut started.outcomes).await;
    // Its end is noticed as such, not by its silence.
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!(keys(&posts(&server).await), ["k/firing", "k/firing"]);
    assert_eq!(place.pids().len(), 2);
    started.delivery.shutdown().await;
    assert!(place.undelivered().is_empty());
}

#[tokio::test]
async fn a_worker_that_is_stuck_is_replaced() {
    let server = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("a", AlertState::Firing));
    assert_eq!(delivered(&mut started.outcomes).await.0, "a");
    let stuck = place.pids()[0];
    kill_process(Pid::from_raw(stuck).unwrap(), Signal::STOP).unwrap();
    started.delivery.submit(alert("b", AlertState::Firing));
    match tokio::time::timeout(2 * PATIENCE, started.outcomes.recv()).await.unwrap().unwrap().1 {
        EventKind::AlertFailed { error, gave_up: false, .. } => assert!(error.contains("does not answer"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(delivered(&mut started.outcomes).await.0, "b");
    until("the stuck worker is killed", || !runs(stuck)).await;
}

#[tokio::test]
async fn without_a_worker_the_log_and_the_outbox_have_the_alert() {
    let (log, _guard) = Log::capture();
    let server = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let routes = || vec![route("ops", &server.uri())];
    let absent = WorkerCommand { program: place.0.path().join("absent"), ..place.worker() };
    let mut started = start(&place.outbox(), routes(), absent);
    started.delivery.submit(alert("k", AlertState::Firing));
    match outcome(&mut started.outcomes).await {
        EventKind::AlertFailed { error, gave_up: false, .. } => {
            assert!(error.contains("can't be started") && error.contains("Hint: "), "{error}");
        }
        other => panic!("{other:?}"),
    }
    started.delivery.shutdown().await;
    assert!(log.text().contains("ALERT: summary of k"));
    assert_eq!(place.undelivered().len(), 1);

    let mut next = start(&place.outbox(), routes(), place.worker());
    assert_eq!(next.open.iter().map(|a| a.key.0.as_str()).collect::<Vec<_>>(), ["k"]);
    assert_eq!(delivered(&mut next.outcomes).await.0, "k");
    next.delivery.shutdown().await;
    assert!(place.undelivered().is_empty());
    let left = start(&place.outbox(), routes(), place.worker());
    assert_eq!(left.open.len(), 1, "delivered, but not over");
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_resolve_is_dropped_and_that_is_said() {
    let place = Place::new();
    // Without an outbox, which would sync a thousand files, and without a worker: all stay on their way.
    fs::write(place.outbox(), "in the way").unwrap();
    let absent = WorkerCommand { program: place.0.path().join("absent"), ..place.worker() };
    let mut started = start(&place.outbox().join("outbox"), vec![route("ops", "http://127.0.0.1:1")], absent);
    for number in 0..=alerting::outbox::MAX_PENDING {
        let state = if number == 5 || number == 7 { AlertState::Resolved } else { AlertState::Firing };
        started.delivery.submit(alert(&format!("k{number}"), state));
    }
    loop {
        if let EventKind::AlertFailed { key, error, gave_up: true, .. } = outcome(&mut started.outcomes).await {
            assert_eq!(key.0, "k5");
            assert!(error.contains("dropped: 1000 alerts wait"), "{error}");
            break;
        }
    }
}

#[tokio::test]
async fn a_route_that_was_removed_is_given_up() {
    let place = Place::new();
    let absent = || WorkerCommand { program: place.0.path().join("absent"), ..place.worker() };
    let mut started = start(&place.outbox(), vec![route("old", "http://127.0.0.1:1")], absent());
    started.delivery.submit(alert("k", AlertState::Firing));
    outcome(&mut started.outcomes).await;
    started.delivery.shutdown().await;
    let mut next = start(&place.outbox(), Vec::new(), absent());
    assert!(matches!(outcome(&mut next.outcomes).await, EventKind::AlertFailed { gave_up: true, .. }));
    next.delivery.shutdown().await;
    assert!(place.undelivered().is_empty() && place.pids().is_empty());
}

/// Delivers with an outbox that can't be written, and says so.
async fn delivers_without_outbox(outbox: &Path, place: &Place) {
    let server = answering(ResponseTemplate::new(200)).await;
    let mut started = start(outbox, vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    let (mut arrived, mut said) = (false, false);
    while !(arrived && said) {
        match outcome(&mut started.outcomes).await {
            EventKind::AlertDelivered { .. } => arrived = true,
            EventKind::AlertFailed { route, error, gave_up: false, .. } if route == OUTBOX_ROUTE => {
                assert!(error.contains("outbox: cannot") && error.contains("Hint: "), "{error}");
                said = true;
            }
            other => panic!("{other:?}"),
        }
    }
    started.delivery.shutdown().await;
}

#[tokio::test]
async fn an_outbox_that_cannot_be_made_keeps_no_alert_back() {
    let place = Place::new();
    fs::write(place.outbox(), "in the way").unwrap();
    delivers_without_outbox(&place.outbox().join("outbox"), &place).await;
}

#[tokio::test]
async fn a_full_disk_keeps_no_alert_back() {
    let place = Place::new();
    fs::create_dir(place.outbox()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
        .arg(place.outbox())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: mounting a tmpfs is not allowed here");
        return;
    }
    fs::write(place.outbox().join("filler"), [0; 4096]).unwrap();
    let result = tokio::spawn({
        let outbox = place.outbox();
        let pids = Place(tempfile::tempdir().unwrap());
        async move { delivers_without_outbox(&outbox, &pids).await }
    })
    .await;
    assert!(Command::new("umount").arg(place.outbox()).status().unwrap().success());
    result.unwrap();
}

fn guard_child(place: &Place, url: &str) -> Child {
    let (program, args) = myself("guard_process");
    Command::new(program)
        .args(args)
        .env(ROLE, "guard")
        .env(OUTBOX, place.outbox())
        .env(PIDS, place.pids_file())
        .env(URL, url)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_a_killed_guard_had_under_way_the_next_one_delivers() {
    let server = answering(ResponseTemplate::new(503)).await;
    let place = Place::new();
    let mut guard = guard_child(&place, &server.uri());
    until("the alert is persisted", || !place.undelivered().is_empty()).await;
    while posts(&server).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    guard.kill().unwrap();
    guard.wait().unwrap();
    let orphan = place.pids()[0];
    until("the worker of the killed guard ends", || !runs(orphan)).await;

    server.reset().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let mut next = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    assert_eq!(next.open.len(), 1);
    assert_eq!(delivered(&mut next.outcomes).await.0, "killed-guard");
    assert_eq!(keys(&posts(&server).await), ["killed-guard/firing"]);
    next.delivery.shutdown().await;
}

fn runs(pid: i32) -> bool {
    // An orphan that nobody reaps stays as a zombie, which has no command line.
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.contains("worker_process"))
}

#[tokio::test]
async fn a_guard_that_stops_delivers_its_last_words() {
    let server = answering(ResponseTemplate::new(200).set_delay(Duration::from_millis(500))).await;
    let place = Place::new();
    let started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    started.delivery.submit(alert("k", AlertState::Resolved));
    started.delivery.shutdown().await;
    assert_eq!(keys(&posts(&server).await), ["k/firing", "k/resolved"]);
    assert!(place.undelivered().is_empty());
    assert!(!runs(place.pids()[0]));
}

#[tokio::test]
async fn without_root_certificates_plain_routes_work_and_tls_routes_say_why() {
    let server = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let mut worker = place.worker();
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        worker.env.push((name.into(), "/nonexistent".into()));
    }
    let routes = vec![route("tls", "https://127.0.0.1:1"), route("plain", &server.uri())];
    let mut started = start(&place.outbox(), routes, worker);
    started.delivery.submit(alert("k", AlertState::Firing));
    let (mut arrived, mut refused) = (false, false);
    while !(arrived && refused) {
        match outcome(&mut started.outcomes).await {
            EventKind::AlertDelivered { route, .. } => arrived = route == "plain",
            EventKind::AlertFailed { route, error, gave_up, .. } => {
                assert!(route == "tls" && gave_up && error.contains("ca-certificates"), "{route}: {error}");
                refused = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let problems = started.delivery.problems();
    let is_told = |told: &String| told.contains("the route tls") && told.contains("ca-certificates");
    assert!(problems.len() == 1 && problems.iter().all(is_told), "{problems:?}");
    assert_no_secret(&problems.concat());
}

#[tokio::test]
async fn signals_to_everybody_do_not_end_the_worker_and_the_end_of_its_input_does() {
    let server = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("a", AlertState::Firing));
    delivered(&mut started.outcomes).await;
    let worker = place.pids()[0];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill_process(Pid::from_raw(worker).unwrap(), signal).unwrap();
    }
    started.delivery.submit(alert("b", AlertState::Firing));
    assert_eq!(delivered(&mut started.outcomes).await.0, "b");
    assert_eq!(place.pids(), [worker], "the same worker");
    let asked = Instant::now();
    started.delivery.shutdown().await;
    until("the worker ends with its input", || !runs(worker)).await;
    assert!(asked.elapsed() < alerting::deliver::DRAIN, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn the_worker_keeps_its_starters_protection_and_shows_no_secret() {
    let server = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k", AlertState::Firing));
    delivered(&mut started.outcomes).await;
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", place.pids()[0])).unwrap();
    assert_eq!(score, fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    let environment = fs::read_to_string(format!("/proc/{}/environ", place.pids()[0])).unwrap();
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", place.pids()[0])).unwrap();
    assert_no_secret(&environment);
    assert_no_secret(&arguments);
}
