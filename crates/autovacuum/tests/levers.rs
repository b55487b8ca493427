//! Which levers there are on real servers, for those who may not do everything: said plainly, and nothing is fought over.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod rig;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use autovacuum::{GovernorStatus, include_file};
use model::{
    EventKind, Mode,
    event::{Lever, ReleaseReason},
};
use rig::{PACE, ROWS, Rig, allow_vacuum, cluster, connect, large_table};
use rustix::{process::Uid, thread::set_thread_res_uid};
use scratch::ScratchCluster;

fn lever(status: &GovernorStatus, lever: Lever) -> (bool, String) {
    let found = status.levers.iter().find(|found| found.lever == lever).unwrap();
    (found.available, found.reason.clone())
}

/// What the governor finds with that address; it lets go and ends.
async fn found(url: &str, include: &Path) -> (GovernorStatus, Vec<EventKind>) {
    let mut rig = Rig::new(url, include, Mode::Act, None).await;
    rig.until_true("the levers", |rig| !rig.governor.status().levers.is_empty()).await;
    let status = rig.governor.status();
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    (status, rig.events)
}

/// From 17 on a server's manager can forbid ALTER SYSTEM. A line in postgresql.conf is the owner's consent all the same.
async fn alter_system_is_forbidden(major: u32) {
    let Some(cluster) = cluster(major, &[("allow_alter_system", "off")]) else { return };
    let include = cluster.directory().join("throttle.conf");
    let url = cluster.url("postgres");
    let (status, events) = found(&url, &include).await;
    assert_eq!(status.lever, None, "{status:?}");
    let (available, reason) = lever(&status, Lever::AlterSystem);
    assert!(!available && reason.contains("allow_alter_system is off"), "{reason}");
    let told = events.iter().any(
        |e| matches!(e, EventKind::LeverUnavailable { lever: None, reason } if reason.contains("allow_alter_system is off")),
    );
    assert!(told, "{events:?}");
    assert!(!include.exists());

    cluster.include_line(&include).unwrap();
    let (status, _) = found(&url, &include).await;
    assert_eq!(status.lever, Some(Lever::WorkerSignal), "{status:?}");
    assert!(!lever(&status, Lever::AlterSystem).0);
}

#[tokio::test(flavor = "current_thread")]
async fn alter_system_is_forbidden_17() {
    alter_system_is_forbidden(17).await;
}

#[tokio::test(flavor = "current_thread")]
async fn alter_system_is_forbidden_18() {
    alter_system_is_forbidden(18).await;
}

/// The address of a role that is no superuser.
async fn role(cluster: &ScratchCluster, grants: &str) -> String {
    let client = connect(&cluster.url("postgres")).await;
    client.batch_execute(&format!("CREATE ROLE guard LOGIN; {grants}")).await.unwrap();
    cluster.url("postgres").replace("user=postgres", "user=guard")
}

const FILES: &str =
    "GRANT SELECT ON pg_file_settings TO guard; GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO guard;";
const ALTER: &str =
    "GRANT ALTER SYSTEM ON PARAMETER autovacuum_vacuum_cost_limit, autovacuum_vacuum_cost_delay TO guard;";

/// Each right by itself: what it opens, and what the lack of the others closes.
async fn rights_are_told_apart(major: u32) {
    let Some(cluster) = cluster(major, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    let url = role(&cluster, "").await;
    let client = connect(&cluster.url("postgres")).await;
    let mut said = Vec::new();
    for (grant, chosen, alter) in [
        ("", None, "may not read pg_file_settings"),
        // The view alone is not enough, for it calls the function in its reader's name.
        ("GRANT SELECT ON pg_file_settings TO guard;", None, "may not read pg_file_settings"),
        (FILES, None, "GRANT ALTER SYSTEM ON PARAMETER"),
        (ALTER, Some(Lever::AlterSystem), "fallback"),
        // The server's manager may tell us where its files are; that changes nothing while no line reads ours.
        ("GRANT pg_monitor TO guard;", Some(Lever::AlterSystem), "fallback"),
    ] {
        client.batch_execute(grant).await.unwrap();
        let (status, events) = found(&url, &include).await;
        let (available, reason) = lever(&status, Lever::AlterSystem);
        assert_eq!((status.lever, available), (chosen, chosen.is_some()), "{grant}: {status:?}");
        assert!(reason.contains(alter), "{grant}: {reason}");
        let refused = events.iter().any(|e| matches!(e, EventKind::LeverUnavailable { .. }));
        assert_eq!(refused, chosen.is_none(), "{grant}: {events:?}");
        said.push(reason);
    }
    println!("{said:#?}");

    // With the line the signals are there as well, whatever the role may do in SQL: they need the host's rights.
    cluster.include_line(&include).unwrap();
    let (status, _) = found(&url, &include).await;
    assert_eq!(status.lever, Some(Lever::WorkerSignal), "{status:?}");
    let (available, reason) = lever(&status, Lever::FullReload);
    assert!(!available && reason.contains("pg_reload_conf()"), "{reason}");
    let switch = status.limitations.iter().find(|l| l.contains("dead man's switch"));
    assert!(switch.is_some_and(|l| l.contains("pg_reload_conf()")), "{:?}", status.limitations);
}

#[tokio::test(flavor = "current_thread")]
async fn rights_are_told_apart_16() {
    rights_are_told_apart(16).await;
}

#[tokio::test(flavor = "current_thread")]
async fn rights_are_told_apart_18() {
    rights_are_told_apart(18).await;
}

/// Before 15 nobody but a superuser may; on 15 the launcher must be seen as well, or a worker that starts meanwhile stays slow.
#[tokio::test(flavor = "current_thread")]
async fn old_servers_want_more() {
    for (major, grants, wanted) in [
        (14, FILES.to_owned(), "needs a superuser before 15"),
        (15, format!("{FILES}{ALTER}"), "launcher was not found"),
    ] {
        let Some(cluster) = cluster(major, &[]) else { continue };
        let include = cluster.directory().join("throttle.conf");
        let url = role(&cluster, &grants).await;
        let (status, _) = found(&url, &include).await;
        assert_eq!(status.lever, None, "{major}: {status:?}");
        let (_, reason) = lever(&status, Lever::AlterSystem);
        assert!(reason.contains(wanted), "{major}: {reason}");
        if major == 15 {
            connect(&cluster.url("postgres")).await.batch_execute("GRANT pg_monitor TO guard").await.unwrap();
            let (status, _) = found(&url, &include).await;
            assert_eq!(status.lever, Some(Lever::AlterSystem), "{status:?}");
        }
    }
}

/// The rights suffice for a whole hold, without a superuser.
#[tokio::test(flavor = "current_thread")]
async fn a_role_with_grants_holds_and_writes_back() {
    let Some(cluster) = cluster(18, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    let owner = connect(&cluster.url("postgres")).await;
    owner.batch_execute("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 300").await.unwrap();
    owner.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let url = role(&cluster, &format!("{FILES}{ALTER} GRANT pg_monitor TO guard;")).await;
    let auto = cluster.data_dir().join("postgresql.auto.conf");
    let former = std::fs::read_to_string(&auto).unwrap();
    large_table(&owner, "big", ROWS).await;
    let mut rig = Rig::new(&url, &include, Mode::Act, rig::release_worker()).await;
    rig.until_true("the fallback", |rig| rig.governor.status().lever == Some(Lever::AlterSystem)).await;
    allow_vacuum(&owner, "big").await;
    rig.until_true("a worker", |rig| rig.worker_on("big").is_some()).await;
    rig.busy = 1.0;
    rig.until("obedience", |e| matches!(e, EventKind::ThrottleVerified { obeyed: true, .. })).await;
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    assert_eq!(std::fs::read_to_string(&auto).unwrap(), former);
    rig.url = cluster.url("postgres");
    rig::assert_nothing_left(&rig, "300", "2ms").await;
}

/// Patroni is known by its files, also to a role that may not know where they are; nothing of the server is changed then.
#[tokio::test(flavor = "current_thread")]
async fn patroni_is_known_by_its_files() {
    for (name, superuser) in [("patroni.dynamic.json", true), ("postgresql.base.conf", false)] {
        let Some(cluster) = cluster(18, &[]) else { return };
        let include = cluster.directory().join("throttle.conf");
        cluster.include_line(&include).unwrap();
        let guard = role(&cluster, "").await;
        let url = if superuser { cluster.url("postgres") } else { guard };
        let file = cluster.data_dir().join(name);
        std::fs::write(&file, "{}").unwrap();
        let auto = std::fs::read_to_string(cluster.data_dir().join("postgresql.auto.conf")).unwrap();
        let mut rig = Rig::new(&url, &include, Mode::Act, None).await;
        rig.busy = 1.0;
        let event = rig.until("a refusal", |e| matches!(e, EventKind::LeverUnavailable { .. })).await;
        assert!(
            matches!(&event, EventKind::LeverUnavailable { reason, .. } if reason.contains("Patroni")),
            "{event:?}"
        );
        rig.run_for(Duration::from_secs(2)).await;
        let status = rig.governor.status();
        assert!(status.lever.is_none() && status.levers.iter().all(|l| l.reason.contains("Patroni")), "{status:?}");
        assert!(!rig.events.iter().any(|e| matches!(e, EventKind::ThrottleEngaged { .. })), "{:?}", rig.events);
        assert_eq!(std::fs::read_to_string(cluster.data_dir().join("postgresql.auto.conf")).unwrap(), auto);
        let text = std::fs::read_to_string(&include).unwrap_or_default();
        assert!(text.is_empty() || text == include_file::NEUTRAL, "{text}");
        rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    }
}

/// This thread as a user whom the server's processes are out of reach for, until it is dropped. Threads have their own user ids; the
/// runtime's others are made by this one.
struct AsNobody;

impl AsNobody {
    fn uid() -> Uid {
        Uid::from_raw(65_534)
    }

    fn become_nobody() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can become a user who may not signal the server");
            return None;
        }
        set_thread_res_uid(Uid::ROOT, Self::uid(), Uid::ROOT).unwrap();
        Some(Self)
    }
}

impl Drop for AsNobody {
    fn drop(&mut self) {
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).unwrap();
    }
}

/// A directory in which nobody writes and the server reads.
fn nobodys_directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let include = directory.path().join("throttle.conf");
    (directory, include)
}

/// Where no process of the server can be signalled, a reload of all is what is left from 16 on: used, undone, and said to be coarse.
#[tokio::test(flavor = "current_thread")]
async fn without_signals_all_are_reloaded() {
    let Some(cluster) = cluster(18, &[]) else { return };
    // Over TCP: the socket lies in a directory of the cluster's own.
    let url = cluster.tcp_url("postgres");
    let client = connect(&url).await;
    large_table(&client, "big", ROWS).await;
    // Dropped last of all: the cluster is stopped by whoever started it.
    let Some(nobody) = AsNobody::become_nobody() else { return };
    let (directory, include) = nobodys_directory();
    let worker = rig::release_worker().unwrap();
    if std::fs::File::open(&worker.program).is_err() {
        drop((directory, nobody));
        println!("skipped: nobody may not run {}", worker.program.display());
        return;
    }
    let line = include_file::line(&include);
    let config = cluster.data_dir().join("postgresql.conf");
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n{line}\n")).unwrap();
    set_thread_res_uid(Uid::ROOT, AsNobody::uid(), Uid::ROOT).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    let mut rig = Rig::new(&url, &include, Mode::Act, Some(worker)).await;
    rig.until_true("a lever", |rig| rig.governor.status().lever == Some(Lever::FullReload)).await;
    let status = rig.governor.status();
    assert!(status.limitations.iter().any(|l| l.contains("can't be signalled")), "{status:?}");
    allow_vacuum(&client, "big").await;
    rig.until_true("a worker", |rig| rig.worker_on("big").is_some()).await;
    rig.busy = 1.0;
    rig.until("obedience", |e| matches!(e, EventKind::ThrottleVerified { obeyed: true, .. })).await;
    assert_ne!(rig.show("autovacuum_vacuum_cost_limit").await, PACE.to_string());
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    rig::assert_nothing_left(&rig, &PACE.to_string(), "2ms").await;
    drop(rig);
    drop((directory, nobody));
}
