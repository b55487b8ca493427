//! A throttle that can't be undone: nothing that could still undo it is disarmed, it is told, and it goes as soon as it can.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod rig;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use model::{
    EventKind, Mode,
    event::{CostSetting, ReleaseReason},
};
use rig::{PATIENCE, ROWS, Rig, allow_vacuum, cluster, connect, large_table, this_binary};
use rustix::fs::{CWD, RenameFlags, renameat_with};

#[tokio::test(flavor = "current_thread")]
#[ignore = "started by the other tests as the release worker"]
async fn release_worker_stand_in() {
    autovacuum::release_worker::run(tokio::io::BufReader::new(tokio::io::stdin())).await.unwrap();
}

/// A directory where the include file is to be can neither be replaced nor removed as a file, not even by root.
fn obstruct(include: &Path) {
    let _ = std::fs::remove_file(include);
    std::fs::create_dir(include).unwrap();
}

/// Puts a throttle back where the obstacle was, in one step: whoever looks finds the one or the other.
fn clear_the_way(include: &Path) {
    let throttle = include.with_extension("test");
    let text = autovacuum::include_file::content(CostSetting { limit: 1, delay_ms: 10.0 }, "a test's throttle");
    std::fs::write(&throttle, text).unwrap();
    renameat_with(CWD, &throttle, CWD, include, RenameFlags::EXCHANGE).unwrap();
    std::fs::remove_dir(&throttle).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn an_undo_that_failed_stays_armed() {
    let Some(cluster) = cluster(18, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    large_table(&client, "big", ROWS).await;
    allow_vacuum(&client, "big").await;
    let mut rig = Rig::new(&url, &include, Mode::Act, Some(this_binary("release_worker_stand_in"))).await;
    rig.until_true("a lever", |rig| rig.governor.status().lever.is_some()).await;
    rig.busy = 1.0;
    rig.until("a hold", |e| matches!(e, EventKind::ThrottleEngaged { .. })).await;

    obstruct(&include);
    let events = rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    let told = events.iter().filter(|e| matches!(e, EventKind::LeverUnavailable { .. })).count();
    assert_eq!(told, 1, "{events:?}");
    let says = |rig: &Rig| rig.governor.status().limitations.iter().any(|l| l.contains("still in place"));
    assert!(says(&rig), "{:?}", rig.governor.status());
    assert!(autovacuum::record::read(rig.state_dir.path()).unwrap().is_some());

    // The switch in the server fails on the same obstacle and ends; from then on only the release worker is left.
    let deadline = Instant::now() + PATIENCE;
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    while client.query_one(query, &[&autovacuum::switch::APPLICATION_NAME]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "the switch stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    clear_the_way(&include);
    let cleared = Instant::now();
    while include.exists() {
        assert!(cleared.elapsed() < Duration::from_secs(10), "the release worker was disarmed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("undone by the release worker {:?} after the way was clear", cleared.elapsed());

    let mut after = Vec::new();
    while says(&rig) {
        after.extend(rig.governor.step(rig::now()).await);
        assert!(Instant::now() < deadline, "{after:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        after.iter().any(|e| matches!(e, EventKind::ThrottleReleased { reason: ReleaseReason::LeftBehind, .. })),
        "{after:?}"
    );
    assert_eq!(autovacuum::record::read(rig.state_dir.path()).unwrap(), None);
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
}
