//! Why a real PostgreSQL does not serve us, and that it is noticed when it does again, on every major version that is installed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic, and say why they skip")]

mod common;

use std::time::Duration;

use common::{Watch, client, quick, url_as};
use model::event::DownReason;
use rustix::process::{Pid, Signal, kill_process};
use scratch::{Installation, ScratchCluster};

on_each_major!(
    stops_crashes_and_restarts_are_told,
    out_of_connections_and_refusals_are_told,
    a_server_that_hangs_does_not_hang_us,
    recovery_and_shutdown_are_told,
);

fn signal(cluster: &ScratchCluster, signal: Signal) {
    let pid = i32::try_from(cluster.postmaster_pid().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn stops_crashes_and_restarts_are_told(installation: Installation) {
    let mut cluster = ScratchCluster::builder(&installation).start().unwrap();
    let mut watch = Watch::start(quick(cluster.url("postgres")));
    watch.up().await;
    let first = watch.activity("a reading", |_| true).await;

    cluster.stop_fast().unwrap();
    watch.down(DownReason::NotListening).await;
    assert!(watch.session.borrow().is_none(), "nobody may use a connection that is gone");
    cluster.start_again().unwrap();
    watch.up().await;
    let second = watch.activity("a reading after the restart", |_| true).await;
    assert!(second.server_started > first.server_started);
    assert!(second.own_cost.statements > first.own_cost.statements, "what was spent before still counts");

    cluster.kill9().unwrap();
    watch.down(DownReason::NotListening).await;
    cluster.start_again().unwrap();
    watch.up().await;
    watch.activity("a reading after the crash", |_| true).await;

    // Only our own session is ended, as pg_terminate_backend does: we come back by ourselves.
    let other = client(&cluster, "postgres").await;
    other
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'oxpecker'")
        .await
        .unwrap();
    watch.down(DownReason::ConnectionLost).await;
    watch.up().await;
    watch.stop().await;
}

async fn out_of_connections_and_refusals_are_told(installation: Installation) {
    let cluster = ScratchCluster::builder(&installation)
        .setting("max_connections", "5")
        .setting("superuser_reserved_connections", "1")
        .setting("max_wal_senders", "0")
        .start()
        .unwrap();
    let setup = client(&cluster, "postgres").await;
    setup.batch_execute("CREATE ROLE watcher LOGIN").await.unwrap();
    let mut others = Vec::new();
    while others.len() < 3 {
        others.push(client(&cluster, "postgres").await);
    }
    let mut watch = Watch::start(quick(url_as(&cluster, "postgres", "watcher")));
    let detail = watch.down(DownReason::OutOfConnections).await;
    assert!(!detail.is_empty());
    others.pop();
    watch.up().await;
    watch.stop().await;

    let mut watch = Watch::start(quick(cluster.url("nowhere")));
    assert!(watch.down(DownReason::Refused).await.contains("nowhere"));
    watch.stop().await;
    let mut watch = Watch::start(quick(url_as(&cluster, "postgres", "nobody")));
    assert!(watch.down(DownReason::Refused).await.contains("nobody"));
    watch.stop().await;
}

async fn a_server_that_hangs_does_not_hang_us(installation: Installation) {
    let cluster = ScratchCluster::builder(&installation).start().unwrap();
    // Connected before: the kept connection goes on working while the postmaster answers nobody new.
    let mut early = Watch::start(quick(cluster.url("postgres")));
    early.up().await;
    signal(&cluster, Signal::STOP);
    let mut late = Watch::start(quick(cluster.url("postgres")));
    late.down(DownReason::NoAnswer).await;
    early.activity("a reading while the postmaster hangs", |_| true).await;
    // Our own backend hangs too.
    let backend = early.session.borrow().as_ref().unwrap().info.backend.unwrap();
    let backend = Pid::from_raw(backend.pid.0).unwrap();
    kill_process(backend, Signal::STOP).unwrap();
    early.down(DownReason::NoAnswer).await;
    kill_process(backend, Signal::CONT).unwrap();
    early.up().await;
    let slow = early.activity("the late answer", |_| true).await;
    assert!(slow.took > Duration::ZERO);
    signal(&cluster, Signal::CONT);
    late.up().await;
    late.activity("a reading", |_| true).await;
    early.stop().await;
    late.stop().await;
}

async fn recovery_and_shutdown_are_told(installation: Installation) {
    // A standby that serves nobody stays in the state in which a server is while it recovers.
    let mut cluster = ScratchCluster::builder(&installation).setting("hot_standby", "off").start().unwrap();
    cluster.stop_fast().unwrap();
    let signal_file = cluster.data_dir().join("standby.signal");
    std::fs::write(&signal_file, "").unwrap();
    cluster.give(&signal_file).unwrap();
    cluster.start_again().unwrap();
    let mut watch = Watch::start(quick(cluster.url("postgres")));
    let detail = watch.down(DownReason::Recovering).await;
    assert!(detail.contains("the database system"), "{detail}");
    cluster.stop_fast().unwrap();
    std::fs::remove_file(&signal_file).unwrap();
    cluster.start_again().unwrap();
    watch.up().await;

    // A smart shutdown waits for its clients and takes no new ones. Our kept connection does not hold it up.
    let held = client(&cluster, "postgres").await;
    signal(&cluster, Signal::TERM);
    watch.down(DownReason::ShuttingDown).await;
    let mut late = Watch::start(quick(cluster.url("postgres")));
    late.down(DownReason::ShuttingDown).await;
    late.stop().await;
    drop(held);
    watch.down(DownReason::NotListening).await;
    watch.stop().await;
}
