//! What the guard remembers and tells of its receiver: a gap over restarts, an old primary, clocks that are set.

use std::{
    fs,
    time::{Duration, Instant},
};

use model::{EventKind, Lsn};
use scratch::ScratchCluster;
use serde_json::Value;

use crate::{
    guarded_wal::{durable, named, place, sql},
    harness::{Guard, PATIENCE, Place, newest, oxpecker, said},
    wal_fault_moments::libfaketime,
};

fn is_gap(status: &Value) -> bool {
    status["receive"]["gap"].is_object()
}

/// A server that keeps next to nothing for its slot.
fn forgetful() -> Option<ScratchCluster> {
    let builder = ScratchCluster::builder(&newest()?).initdb_args(["--wal-segsize=1"]).setting("autovacuum", "off");
    let builder = builder.setting("max_slot_wal_keep_size", "1MB").setting("wal_keep_size", "0");
    Some(builder.setting("max_wal_size", "2MB").setting("min_wal_size", "2MB").start().unwrap())
}

async fn give_up_the_slot(cluster: &ScratchCluster) {
    let lost = "select wal_status = 'lost' from pg_replication_slots";
    let began = Instant::now();
    while sql(cluster, lost).await != "t" {
        assert!(began.elapsed() < PATIENCE, "the server keeps it: {}", cluster.log_tail());
        sql(cluster, "create table if not exists filler (x text)").await;
        sql(cluster, "insert into filler select repeat('x', 1000) from generate_series(1, 1000)").await;
        sql(cluster, "select pg_switch_wal()").await;
        sql(cluster, "checkpoint").await;
    }
}

#[tokio::test]
async fn a_gap_is_known_to_the_next_guard_until_a_backup_begins_behind_it() {
    let Some(cluster) = forgetful() else { return };
    let place = place(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    place.await_status("the first WAL", |s| durable(s).is_some());
    assert!(guard.stop().success(), "{}", place.log());
    give_up_the_slot(&cluster).await;
    let guard = Guard::start(&place);
    place.await_status("the gap", is_gap);
    guard.kill9();
    let guard = Guard::start(&place);
    let status = place.await_status("the gap as it was", |s| is_gap(s) && s["receive"]["receiving"] == true);
    assert!(said(&place.ask(&["status"])).contains("MISSING from"), "{status}");
    assert_eq!(named(&place, "wal_missing").len(), 1, "told once");
    assert!(guard.stop().success(), "{}", place.log());
    // Made by hand, while no guard runs; it has a slot of its own, for which there must be room.
    sql(&cluster, "alter system set max_slot_wal_keep_size = '1GB'").await;
    sql(&cluster, "select pg_reload_conf()").await;
    let made = place.ask(&["backup", "create"]);
    assert!(made.status.success(), "{}\n{}", said(&made), cluster.log_tail());
    let guard = Guard::start(&place);
    place.await_status("no gap", |s| s["receive"]["receiving"] == true && s["receive"]["gap"].is_null());
    assert!(guard.stop().success(), "{}", place.log());
}

#[tokio::test]
async fn an_old_primary_that_came_back_is_told() {
    let Some(cluster) = crate::harness::cluster(&[("max_slot_wal_keep_size", "1GB")]) else { return };
    let place = place(&cluster.url("postgres"), "");
    // Of a server that was promoted: its history, as its archive command would push it.
    let elsewhere = place.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("pg_wal")).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(cluster.data_dir().join("global")).arg(&elsewhere).status();
    assert!(copied.unwrap().success());
    let now: Lsn = sql(&cluster, "select pg_current_wal_lsn()").await.parse().unwrap();
    let history = elsewhere.join("pg_wal/00000002.history");
    fs::write(&history, format!("1\t{now}\tno recovery target specified\n")).unwrap();
    let pushed = place.ask(&["wal", "push", history.to_str().unwrap()]);
    assert!(pushed.status.success(), "{}", said(&pushed));
    let guard = Guard::start(&place);
    let told = |s: &Value| s["receive"]["last_error"].as_str().is_some_and(|error| error.contains("an old primary"));
    let status = place.await_status("that it is old", |s| told(s) && s["receive"]["receiving"] == true);
    assert_eq!(status["receive"]["timeline"], 1, "{status}");
    let problems = named(&place, "repository_problem");
    let EventKind::RepositoryProblem { problem, .. } = &problems[0] else { unreachable!() };
    assert!(problem.contains("timeline 1") && problem.contains("a newer one, 2"), "{problem}");
    assert!(guard.stop().success(), "{}", place.log());
}

/// The clock of the guard and its worker is set back three days, and forth: nothing that is measured follows it.
#[tokio::test]
async fn slow_a_clock_that_is_set_changes_no_recovery_point() {
    let Some(library) = libfaketime() else { return };
    let Some(cluster) = crate::harness::cluster(&[("max_slot_wal_keep_size", "1GB")]) else { return };
    let place = place(&cluster.url("postgres"), "canary = \"500ms\"\n");
    let clock = place.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let mut command = oxpecker();
    command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let guard = Guard::start_with(&place, command, &["run"]);
    place.await_status("a canary", |s| s["receive"]["canary"].is_object());
    for offset in ["-3d", "+3d"] {
        fs::write(&clock, offset).unwrap();
        sql(&cluster, "create table if not exists people (i int)").await;
        sql(&cluster, "insert into people values (1)").await;
        let committed: Lsn = sql(&cluster, "select pg_current_wal_insert_lsn()").await.parse().unwrap();
        let status = place.await_status("what was committed", |s| durable(s).is_some_and(|d| d >= committed));
        let seconds = |name: &str| duration(&status["receive"][name]);
        assert!(seconds("behind") < PATIENCE && seconds("canary") < PATIENCE, "{offset}: {status}");
        assert_eq!(
            (&status["receive"]["receiving"], &status["receive"]["gap"]),
            (&true.into(), &Value::Null),
            "{status}"
        );
    }
    let text = said(&place.ask(&["status"]));
    assert!(text.contains("RPO now"), "{text}");
    assert_eq!(named(&place, "wal_interrupted"), [], "{}", place.log());
    assert!(guard.stop().success(), "{}", place.log());
}

/// As serde writes it.
fn duration(value: &Value) -> Duration {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

/// A repository that takes nothing, and a slot that may not hold much: said before the server gives it up.
#[tokio::test]
async fn slow_a_slot_that_comes_near_its_bound() {
    let Some(installation) = newest() else { return };
    let builder = ScratchCluster::builder(&installation).initdb_args(["--wal-segsize=1"]).setting("autovacuum", "off");
    let cluster = builder.setting("max_slot_wal_keep_size", "16MB").start().unwrap();
    let place = place(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    place.await_status("the first WAL", |s| durable(s).is_some());
    let (here, away) = (place.path().join("repository/wal"), place.path().join("away"));
    fs::rename(&here, &away).unwrap();
    fs::write(&here, "").unwrap();
    sql(&cluster, "create table filler (x text)").await;
    let began = Instant::now();
    let near = || {
        named(&place, "repository_problem").iter().any(|kind| {
            matches!(kind, EventKind::RepositoryProblem { problem, .. } if problem.contains("the slot oxpecker makes the server keep"))
        })
    };
    // Nine megabytes, and then no more: half of the bound.
    for _ in 0..9 {
        sql(&cluster, "insert into filler select repeat('x', 1000) from generate_series(1, 900)").await;
    }
    while !near() {
        assert!(began.elapsed() < PATIENCE, "{}", place.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fs::remove_file(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    let written: Lsn = sql(&cluster, "select pg_current_wal_insert_lsn()").await.parse().unwrap();
    let fine = |s: &Value| durable(s).is_some_and(|d| d >= written) && s["receive"]["last_error"].is_null();
    place.await_status("that all is well again", fine);
    assert_eq!((named(&place, "wal_missing"), named(&place, "wal_slot_lost")), (vec![], vec![]));
    assert!(guard.stop().success(), "{}", place.log());
}

/// The slot is dropped by somebody while the guard streams: it is told, made again, and nothing lacks.
#[tokio::test]
async fn slow_a_slot_that_somebody_drops() {
    let Some(cluster) = crate::harness::cluster(&[("max_slot_wal_keep_size", "1GB"), ("wal_keep_size", "512MB")])
    else {
        return;
    };
    let place: Place = place(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    place.await_status("the first WAL", |s| durable(s).is_some());
    let began = Instant::now();
    loop {
        sql(&cluster, "select pg_terminate_backend(pid) from pg_stat_replication").await;
        let dropped = "do $$ begin perform pg_drop_replication_slot('oxpecker'); exception when object_in_use or undefined_object then null; end $$";
        sql(&cluster, dropped).await;
        if !named(&place, "wal_slot_lost").is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{}", place.log());
    }
    sql(&cluster, "create table people (i int)").await;
    let committed: Lsn = sql(&cluster, "select pg_current_wal_insert_lsn()").await.parse().unwrap();
    place.await_status("what was committed", |s| durable(s).is_some_and(|d| d >= committed));
    assert_eq!(named(&place, "wal_missing"), []);
    assert!(guard.stop().success(), "{}", place.log());
}
