//! A guard at work: it observes, alerts, remembers, and comes and goes without a trace.

use std::{collections::BTreeMap, fs, path::Path};

use model::{AlertState, EventKind};
use rustix::process::Signal;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

use crate::harness::{Guard, PATIENCE, Place, cluster, oxpecker, said};

/// Everything that a guard could have changed: the configuration files' bytes and the settings in force.
async fn fingerprint(url: &str, data_dir: &Path) -> BTreeMap<String, String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let task = tokio::spawn(connection);
    let rows =
        client.query("select name, setting || '/' || source from pg_settings where name not like 'transaction%'", &[]);
    let mut all: BTreeMap<String, String> = rows.await.unwrap().iter().map(|r| (r.get(0), r.get(1))).collect();
    for row in client.query("select relname, relkind::text from pg_class", &[]).await.unwrap() {
        all.insert(format!("relation {}", row.get::<_, String>(0)), row.get(1));
    }
    // What belongs to this session alone.
    for own in ["application_name", "client_encoding"] {
        all.remove(own);
    }
    for file in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"] {
        all.insert(file.to_owned(), fs::read_to_string(data_dir.join(file)).unwrap());
    }
    drop(client);
    task.await.unwrap().unwrap();
    all
}

#[tokio::test]
async fn with_no_configuration_it_observes_and_changes_nothing() {
    let Some(cluster) = cluster(&[]) else { return };
    let url = cluster.url("postgres");
    let before = fingerprint(&url, &cluster.data_dir()).await;
    let place = Place::new();
    // For the commands that ask; the guard itself gets no file.
    place.configure(&url, "");
    let empty = place.path().join("empty.toml");
    fs::write(&empty, "").unwrap();
    let mut command = oxpecker();
    command.env("PGHOST", cluster.socket_dir()).env("PGPORT", cluster.tcp_port().to_string()).env("PGUSER", "postgres");
    command.env("OXPECKER_CONFIG", &empty);
    let state = place.state_dir().display().to_string();
    let guard = Guard::launch(&place, command, &["run", "--state-dir", &state]);
    let status = place.await_status("readings", |s| !s["activity"].is_null() && !s["host"].is_null());
    assert_eq!(status["mode"], "observe");
    assert_eq!(status["server"]["state"], "up");
    let text = said(&place.ask(&["status"]));
    assert!(text.contains("mode observe") && text.contains("PostgreSQL"), "{text}");
    let vacuum = said(&place.ask(&["vacuum", "status"]));
    assert!(vacuum.contains("observe"), "{vacuum}");
    assert!(guard.stop().success(), "{}", place.log());
    assert_eq!(before, fingerprint(&url, &cluster.data_dir()).await);
    let names = place.event_names();
    assert_eq!((names.first(), names.last()), (Some(&"guard_started"), Some(&"guard_stopped")), "{names:?}");
}

#[tokio::test]
async fn an_alert_reaches_the_webhook_the_journal_and_the_report() {
    let Some(cluster) = cluster(&[("max_connections", "20"), ("superuser_reserved_connections", "3")]) else { return };
    let url = cluster.url("postgres");
    let sink = MockServer::start().await;
    // The first attempt meets a server in trouble: at least once means that it is tried again.
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).up_to_n_times(1).mount(&sink).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&sink).await;
    let place = Place::new();
    let secret = place.secret("hook", &format!("{}/hook/t0psecret", sink.uri()));
    place.configure(&url, &format!("\n[[alert.route]]\nname = \"hook\"\nwebhook = {{ url_file = {secret:?} }}\n"));
    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["activity"].is_null());

    let mut clients = Vec::new();
    for _ in 0..15 {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        clients.push((client, tokio::spawn(connection)));
    }
    let delivered = place.await_event("a delivery", 0, |k| matches!(k, EventKind::AlertDelivered { .. }));
    let EventKind::AlertDelivered { key, attempt, .. } = delivered.kind else { unreachable!() };
    assert!(attempt >= 2, "the first answer was 500");
    let requests = sink.received_requests().await.unwrap();
    // The connection is kept warm by requests without a body.
    let posts = requests.iter().filter(|r| r.method.as_str() == "POST");
    let bodies: Vec<serde_json::Value> = posts.map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
    assert!(bodies.iter().all(|b| b["key"] == key.0.as_str()), "{bodies:?}");
    let status = place.json(&["status"]);
    assert_eq!(status["alerts"][0]["rule"], "connections-near-limit");
    assert_eq!(place.ask(&["status"]).status.code(), Some(1));

    // Killed and started again, it goes on with the same episode, and ends it under the same key.
    let last = place.events().last().unwrap().id.0;
    guard.kill9();
    let guard = Guard::start(&place);
    place.await_event("the silence", last, |k| matches!(k, EventKind::GuardWasSilent { .. }));
    place.await_status("a reading", |s| !s["activity"].is_null());
    for (client, connection) in clients {
        drop(client);
        connection.await.unwrap().unwrap();
    }
    let resolved = place.await_event("the resolve", last, |k| {
        matches!(k, EventKind::Alerted { alert } if alert.state == AlertState::Resolved && alert.rule.0 == "connections-near-limit")
    });
    let EventKind::Alerted { alert } = resolved.kind else { unreachable!() };
    assert_eq!(alert.key, key);
    place.await_status("no alert", |s| s["alerts"].as_array().is_some_and(Vec::is_empty));
    assert!(guard.stop().success());

    let listed = place.json(&["incident", "list"]);
    assert_eq!(listed["incidents"].as_array().map(Vec::len), Some(1), "{listed}");
    let report = said(&place.ask(&["incident", "report"]));
    for part in ["## Summary", "## Detection", "## Five whys", "ot established", "[E"] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }
    let everything = format!("{report}{}{}", place.log(), serde_json::to_string(&place.events()).unwrap());
    assert!(!everything.contains("t0psecret"), "the webhook's address is a secret");
}

#[test]
fn it_reloads_on_sighup_and_keeps_going_when_the_new_file_is_wrong() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    let url = cluster.url("postgres");
    place.configure(&url, "");
    let guard = Guard::start(&place);
    place.configure(&url, "mode = \"advise\"");
    guard.signal(Signal::HUP);
    place.await_status("the new mode", |s| s["mode"] == "advise");
    place.configure(&url, "mood = \"act\"");
    guard.signal(Signal::HUP);
    let started = std::time::Instant::now();
    while !place.log().contains("going on with the old configuration") {
        assert!(started.elapsed() < PATIENCE, "{}", place.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    place.configure(&url, "mode = \"advise\"");
    place.await_status("the old mode", |s| s["mode"] == "advise");
    assert!(guard.stop().success());
}
