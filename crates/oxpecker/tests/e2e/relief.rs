//! Relief when connections run short: whose idle sessions are ended, whose are not, and how many.

use std::collections::BTreeMap;

use model::{
    EventKind,
    event::{ReliefOutcome, RelievedSession},
};
use rustix::process::Signal;
use scratch::{Installation, ScratchCluster};
use tokio_postgres::{Client, NoTls};

use crate::harness::{Guard, Place, said};

/// The oldest and the newest that are fully supported.
fn installations() -> Vec<Installation> {
    let mut found: Vec<_> =
        scratch::installations().into_iter().filter(|one| (13..=18).contains(&one.major())).collect();
    found.sort_by_key(Installation::major);
    let newest = found.pop();
    let both: Vec<_> = found.into_iter().take(1).chain(newest).collect();
    if both.is_empty() {
        println!("skipped: no PostgreSQL 13 to 18 is installed; `cargo xtask testbed` fetches them");
    }
    both
}

/// A session of that role, and its pid.
async fn session(cluster: &ScratchCluster, role: &str) -> (i32, Client) {
    let mut config: tokio_postgres::Config = cluster.url("postgres").parse().unwrap();
    let (client, connection) = config.user(role).application_name("pool").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    (pid, client)
}

fn relieved(place: &Place) -> Vec<RelievedSession> {
    let kinds = place.events().into_iter().map(|event| event.kind);
    kinds
        .filter_map(|kind| if let EventKind::SessionRelieved { session } = kind { Some(*session) } else { None })
        .collect()
}

/// Seventeen connections for clients, of which the guard takes one or two.
async fn crowded(installation: &Installation) -> (ScratchCluster, BTreeMap<i32, (&'static str, Client)>) {
    let cluster = ScratchCluster::builder(installation).setting("max_connections", "20").start().unwrap();
    let (_, admin) = session(&cluster, "postgres").await;
    admin.batch_execute("CREATE ROLE site LOGIN; CREATE ROLE bot LOGIN").await.unwrap();
    drop(admin);
    let mut open = BTreeMap::new();
    for _ in 0..2 {
        let (pid, client) = session(&cluster, "site").await;
        client.batch_execute("BEGIN; SELECT 1").await.unwrap();
        open.insert(pid, ("in a transaction", client));
    }
    for _ in 0..10 {
        let (pid, client) = session(&cluster, "site").await;
        open.insert(pid, ("idle", client));
    }
    for _ in 0..4 {
        let (pid, client) = session(&cluster, "bot").await;
        open.insert(pid, ("another's", client));
    }
    (cluster, open)
}

fn declared(mode: &str, per_minute: u32) -> String {
    format!(
        "\n[relief]\nmode = {mode:?}\nper_minute = {per_minute}\n\n[[relief.role]]\nname = \"site\"\nidle = \"2s\"\nidle_in_transaction = \"1s\"\n"
    )
}

#[tokio::test]
async fn idle_sessions_of_a_named_role_end_while_connections_are_short_and_no_others() {
    for installation in installations() {
        let (cluster, open) = crowded(&installation).await;
        let place = Place::new();
        place.configure(&cluster.url("postgres"), &declared("act", 3));
        let guard = Guard::start(&place);

        // The minute's bound holds, though there are too many still.
        let status = place.await_status("three are ended", |s| s["relief"]["ended"] == 3);
        assert!(!status["relief"]["shortage"].is_null(), "{status}");
        place.await_status("another look", |s| s["activity"]["at"] != status["activity"]["at"]);
        let first = relieved(&place);
        assert_eq!(first.len(), 3, "{first:#?}");
        for (index, one) in first.iter().enumerate() {
            assert_eq!((one.role.as_str(), one.application.as_str()), ("site", "pool"));
            assert_eq!((one.outcome.clone(), one.in_transaction), (ReliefOutcome::Ended, index < 2), "{first:#?}");
            assert!(one.cause.ends_with("of 17 connections in use"), "{}", one.cause);
        }
        let shown = said(&place.ask(&["status"]));
        assert!(shown.contains("relief") && shown.contains("3 in the last minute of 3 that may be"), "{shown}");
        assert!(place.log().contains("Ended the session of site in database postgres"), "{}", place.log());

        // With room for more, as many as are too many and none beyond.
        place.configure(&cluster.url("postgres"), &declared("act", 60));
        guard.signal(Signal::HUP);
        place.await_status("connections enough", |s| {
            s["relief"]["per_minute"] == 60 && s["relief"]["shortage"].is_null()
        });
        let ended: Vec<i32> = relieved(&place).iter().map(|one| one.pid.0).collect();
        let mut left = 0;
        for (pid, (what, client)) in &open {
            let answers = client.simple_query("SELECT 1").await.is_ok();
            assert_eq!(answers, !ended.contains(pid), "{what}: {ended:?}");
            assert!(answers || *what != "another's");
            left += u32::from(answers);
        }
        // Of 17, 80 % begins at 14: 13 stay, with one or two of the guard
        assert!((11..=12).contains(&left), "{left} of 16 are left");
        assert!(guard.stop().success());
    }
}

#[tokio::test]
async fn who_may_not_act_proposes_each_once() {
    let Some(installation) = installations().pop() else { return };
    let (cluster, open) = crowded(&installation).await;
    let place = Place::new();
    place.configure(&cluster.url("postgres"), &declared("advise", 60));
    let guard = Guard::start(&place);
    let is_proposal =
        |kind: &EventKind| matches!(kind, EventKind::SessionRelieved { session } if !session.in_transaction);
    place.await_event("a proposal for an idle one", 0, is_proposal);
    let before = place.await_status("a reading", |s| !s["relief"]["shortage"].is_null());
    place.await_status("another look", |s| s["activity"]["at"] != before["activity"]["at"]);
    let proposed = relieved(&place);
    let mut pids: Vec<i32> = proposed.iter().map(|one| one.pid.0).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), proposed.len(), "each once: {proposed:#?}");
    assert!(proposed.iter().all(|one| one.outcome == ReliefOutcome::Proposed));
    for (what, client) in open.values() {
        assert!(client.simple_query("SELECT 1").await.is_ok(), "{what}");
    }
    assert!(guard.stop().success());
}

#[tokio::test]
async fn a_guard_that_may_not_signal_says_so() {
    let Some(installation) = installations().pop() else { return };
    let (cluster, mut open) = crowded(&installation).await;
    // Room for a guard that is no superuser.
    let (_, admin) = session(&cluster, "postgres").await;
    admin.batch_execute("CREATE ROLE guard LOGIN; GRANT pg_monitor TO guard").await.unwrap();
    for _ in 0..2 {
        let (pid, _) = open.pop_first().unwrap();
        admin.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await.unwrap();
    }
    drop(admin);
    let place = Place::new();
    place.configure(&cluster.url("postgres").replace("user=postgres", "user=guard"), &declared("act", 60));
    let guard = Guard::start(&place);
    place.await_event(
        "the refusal",
        0,
        |kind| matches!(kind, EventKind::SessionRelieved { session } if matches!(&session.outcome, ReliefOutcome::Failed(why) if why.contains("pg_signal_backend"))),
    );
    let shown = said(&place.ask(&["status"]));
    assert!(shown.contains("FAILED") && shown.contains("pg_signal_backend"), "{shown}");
    assert!(guard.stop().success());
}
