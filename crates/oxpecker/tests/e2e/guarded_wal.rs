//! WAL that the guard receives: durable within a second, measured, told when it stops, taken up again.

use std::{
    fs,
    time::{Duration, Instant},
};

use model::{EventKind, Lsn};
use rustix::process::{Pid, Signal, kill_process};
use scratch::ScratchCluster;
use serde_json::Value;

use crate::harness::{Guard, Place, cluster, said};

const PATIENCE: Duration = Duration::from_secs(90);

pub fn place(url: &str, wal: &str) -> Place {
    let place = Place::new();
    let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let sections = format!(
        "\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n[wal]\nreceive = true\n{wal}",
        repository.display()
    );
    place.configure(url, &sections);
    let made = place.ask(&["backup", "init"]);
    assert!(made.status.success(), "{}", said(&made));
    place
}

pub async fn sql(cluster: &ScratchCluster, text: &str) -> String {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answer = String::new();
    for message in client.simple_query(text).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            answer = row.get(0).unwrap_or_default().to_owned();
        }
    }
    drop(client);
    connection.await.unwrap().unwrap();
    answer
}

/// Events of a kind, in order.
pub fn named(place: &Place, name: &str) -> Vec<EventKind> {
    let events = place.events().into_iter().map(|event| event.kind);
    events.filter(|kind| kind.name() == name).collect()
}

fn await_number(place: &Place, name: &str, number: usize) {
    let started = Instant::now();
    while named(place, name).len() < number {
        assert!(started.elapsed() < PATIENCE, "no {name} number {number}: {:?}\n{}", place.event_names(), place.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn durable(status: &Value) -> Option<Lsn> {
    status["receive"]["durable"].as_str()?.parse().ok()
}

/// The guard's child that receives.
fn worker(guard: &Guard) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", guard.pid())).unwrap_or_default();
    let mut pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    let pid = pids
        .find(|pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"worker\0wal\0")));
    pid.and_then(Pid::from_raw)
}

#[tokio::test]
async fn what_is_committed_is_in_the_repository_and_an_interruption_is_told() {
    let Some(mut cluster) = cluster(&[("max_slot_wal_keep_size", "1GB")]) else { return };
    let place = place(&cluster.url("postgres"), "canary = \"500ms\"\n");
    let guard = Guard::start(&place);
    await_number(&place, "wal_receiving", 1);
    let first = named(&place, "wal_receiving");
    let EventKind::WalReceiving { timeline, slot, slot_limit, .. } = &first[0] else { unreachable!() };
    assert_eq!((*timeline, slot.as_deref(), slot_limit.map(|limit| limit.0)), (1, Some("oxpecker"), Some(1 << 30)));

    sql(&cluster, "CREATE TABLE people AS SELECT g AS id FROM generate_series(1, 1000) g").await;
    let committed: Lsn = sql(&cluster, "SELECT pg_current_wal_insert_lsn()").await.parse().unwrap();
    let status = place.await_status("the commit in the repository", |s| durable(s).is_some_and(|d| d >= committed));
    assert_eq!((&status["receive"]["receiving"], &status["receive"]["gap"]), (&true.into(), &Value::Null), "{status}");
    place.await_status("a canary", |s| s["receive"]["canary"].is_object());
    assert_eq!(sql(&cluster, "SELECT count(*) FROM oxpecker.canary").await, "1");
    let text = said(&place.ask(&["status"]));
    assert!(text.contains("streams into the repository; RPO now") && text.contains("canary: a commit"), "{text}");

    // The worker is killed: another one goes on, and nothing is missing.
    let killed = worker(&guard).unwrap();
    kill_process(killed, Signal::KILL).unwrap();
    await_number(&place, "wal_receiving", 2);
    assert!(worker(&guard).is_some_and(|pid| pid != killed));
    let interrupted = named(&place, "wal_interrupted");
    let EventKind::WalInterrupted { error, .. } = &interrupted[0] else { unreachable!() };
    assert!(error.contains("signal: 9"), "{error}");

    // The server does not wait for us when it stops, and is taken up again when it is back.
    cluster.stop_fast().unwrap();
    await_number(&place, "wal_interrupted", 2);
    cluster.start_again().unwrap();
    await_number(&place, "wal_receiving", 3);
    sql(&cluster, "INSERT INTO people VALUES (0)").await;
    let committed: Lsn = sql(&cluster, "SELECT pg_current_wal_insert_lsn()").await.parse().unwrap();
    place.await_status("what was committed then", |s| durable(s).is_some_and(|d| d >= committed));
    assert_eq!(named(&place, "wal_missing"), []);
    assert!(guard.stop().success(), "{}", place.log());
    assert_eq!(sql(&cluster, "SELECT active FROM pg_replication_slots WHERE slot_name = 'oxpecker'").await, "f");
}

#[tokio::test]
async fn a_repository_that_takes_nothing_is_an_alarm_and_not_the_servers_trouble() {
    let Some(mut cluster) = cluster(&[("max_slot_wal_keep_size", "1GB")]) else { return };
    let place = place(&cluster.url("postgres"), "max_behind = \"4s\"\ncanary = \"500ms\"\n");
    let guard = Guard::start(&place);
    await_number(&place, "wal_receiving", 1);
    place.await_status("the first WAL", |s| durable(s).is_some());
    // A directory that is none any more: what a disk that went away and a mount that failed look like to whoever writes there.
    let (here, away) = (place.path().join("repository/wal"), place.path().join("away"));
    fs::rename(&here, &away).unwrap();
    fs::write(&here, "").unwrap();
    let firing = |status: &Value| {
        status["alerts"].as_array().is_some_and(|all| all.iter().any(|alert| alert["rule"] == "wal-behind"))
    };
    let status = place.await_status("the alarm", firing);
    assert!(status["receive"]["last_error"].is_string(), "{status}");
    // A server that is asked to stop does so though its WAL is not stored: the slot keeps it.
    cluster.stop_fast().unwrap();
    cluster.start_again().unwrap();
    fs::remove_file(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    let committed: Lsn = sql(&cluster, "SELECT pg_current_wal_insert_lsn()").await.parse().unwrap();
    place.await_status("all of it", |s| durable(s).is_some_and(|d| d >= committed));
    place.await_status("the end of the alarm", |s| !firing(s));
    assert_eq!(named(&place, "wal_missing"), []);
    assert!(guard.stop().success(), "{}", place.log());
}

#[tokio::test]
async fn a_slot_that_could_fill_the_disk_is_not_made_unasked() {
    let Some(cluster) = cluster(&[("max_slot_wal_keep_size", "-1")]) else { return };
    let place = place(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    await_number(&place, "wal_interrupted", 1);
    let interrupted = named(&place, "wal_interrupted");
    let EventKind::WalInterrupted { error, .. } = &interrupted[0] else { unreachable!() };
    assert!(error.contains("max_slot_wal_keep_size") && error.contains("hint: "), "{error}");
    assert_eq!(sql(&cluster, "SELECT count(*) FROM pg_replication_slots").await, "0");
    let status = place.await_status("its words", |s| s["receive"]["last_error"].is_string());
    assert_eq!(status["receive"]["receiving"], false, "{status}");
    assert!(guard.stop().success(), "{}", place.log());
}
