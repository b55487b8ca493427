//! Holding and letting go on real servers, one trap of PostgreSQL's after the other.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod rig;

use std::time::{Duration, Instant};

use autovacuum::include_file;
use model::{
    EventKind, Mode,
    event::{Lever, ReleaseReason},
};
use rig::{
    PACE, PATIENCE, ROWS, Rig, Server, allow_vacuum, assert_nothing_left, cluster, connect, cpu_over, endless_table,
    large_table, release_worker, server,
};

/// The whole life of a hold: engaged within three seconds of pressure, obeyed mid-table, opened, released; meanwhile the launcher starts
/// workers for small tables, which run unthrottled; afterwards nothing is left.
async fn holds_and_opens(major: u32, lever: Lever) {
    let Some(Server { cluster: _cluster, include, url, client }) = server(major, &[]).await else { return };
    large_table(&client, "big", ROWS).await;
    let mut rig = Rig::new(&url, &include, Mode::Act, release_worker()).await;
    rig.until_true("a lever", |rig| rig.governor.status().lever == Some(lever)).await;
    assert_eq!(rig.governor.status().limitations, Vec::<String>::new());
    allow_vacuum(&client, "big").await;
    rig.until_true("a worker", |rig| rig.worker_on("big").is_some()).await;
    let worker = rig.worker_on("big").unwrap();
    let before = cpu_over(worker, Duration::from_millis(500)).await.unwrap();

    rig.busy = 1.0;
    let pressed = Instant::now();
    let engaged = rig.until("a hold", |e| matches!(e, EventKind::ThrottleEngaged { .. })).await;
    assert!(pressed.elapsed() < Duration::from_secs(4), "took {:?}", pressed.elapsed());
    let EventKind::ThrottleEngaged { workers, lever: used, reason, .. } = engaged else { unreachable!() };
    assert_eq!((workers, used), (vec![worker], lever), "{reason}");
    let verified = rig.until("obedience", |e| matches!(e, EventKind::ThrottleVerified { .. })).await;
    assert!(matches!(verified, EventKind::ThrottleVerified { obeyed: true, .. }), "{verified:?}");
    let held = cpu_over(worker, Duration::from_secs(1)).await.unwrap();
    assert!(held < before / 2.0, "before {before:.3}, held {held:.3} cores");

    // Some relief, so that the hold counts as useful, and small tables that need a worker.
    rig.busy = 0.8;
    for small in ["small_a", "small_b"] {
        // A session of its own: its counters of dead tuples are only sure to be seen when it ends.
        connect(&url)
            .await
            .batch_execute(&format!(
                "CREATE TABLE {small} AS SELECT i FROM generate_series(1, 20000) i; DELETE FROM {small}"
            ))
            .await
            .unwrap();
        let created = Instant::now();
        while !rig.was_vacuumed(small).await {
            // Changed as often as the controller may, to see whether the launcher still gets to start workers.
            rig.busy = if rig.busy > 0.85 { 0.5 } else { 0.95 };
            rig.step().await;
            assert!(created.elapsed() < PATIENCE, "{small} was not vacuumed while another table is held");
        }
        println!("{small} was vacuumed after {:?}", created.elapsed());
    }
    // On 13 to 15 a worker that starts its table rebalances all with stale values: the hold must have survived that.
    rig.busy = 0.95;
    let deadline = Instant::now() + PATIENCE;
    while cpu_over(worker, Duration::from_secs(1)).await.unwrap() > before / 2.0 {
        rig.step().await;
        assert!(Instant::now() < deadline, "the hold was lost to a worker that started its table");
    }
    assert!(rig.governor.status().engaged, "{:?}", rig.governor.status());

    rig.busy = 0.2;
    let released = rig.until("a release", |e| matches!(e, EventKind::ThrottleReleased { .. })).await;
    let reason = match released {
        EventKind::ThrottleReleased { reason, .. } => reason,
        _ => unreachable!(),
    };
    assert!(matches!(reason, ReleaseReason::PressureOver | ReleaseReason::WorkersGone), "{reason:?}");
    // At its owner's pace again, or done: how long the rest takes at that pace is the machine's business.
    let deadline = Instant::now() + PATIENCE;
    while !rig.was_vacuumed("big").await {
        if cpu_over(worker, Duration::from_secs(1)).await.is_some_and(|cpu| cpu > (held * 3.0).max(0.05)) {
            break;
        }
        rig.step().await;
        assert!(Instant::now() < deadline, "the large table's vacuum stays slow after its release");
    }
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    assert_nothing_left(&rig, &PACE.to_string(), "2ms").await;
}

macro_rules! each_major {
    ($function:ident: $($name:ident $major:literal $lever:ident),*) => {
        $(#[tokio::test(flavor = "current_thread")]
        async fn $name() {
            $function($major, Lever::$lever).await;
        })*
    };
}

each_major!(holds_and_opens:
    holds_and_opens_13 13 LauncherSignal,
    slow_holds_and_opens_14 14 LauncherSignal,
    holds_and_opens_15 15 LauncherSignal,
    holds_and_opens_16 16 WorkerSignal,
    slow_holds_and_opens_17 17 WorkerSignal,
    holds_and_opens_18 18 WorkerSignal);

/// In observe nothing is written anywhere, and the proposal names worker and command, once.
#[tokio::test(flavor = "current_thread")]
async fn observing_writes_nothing() {
    let Some(cluster) = cluster(18, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 300").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    large_table(&client, "big", ROWS).await;
    let mut rig = Rig::new(&url, &include, Mode::Observe, None).await;
    allow_vacuum(&client, "big").await;
    rig.until_true("a worker", |rig| rig.worker_on("big").is_some()).await;
    rig.busy = 1.0;
    let proposed = rig.until("a proposal", |e| matches!(e, EventKind::ThrottleProposed { .. })).await;
    let EventKind::ThrottleProposed { command, tables, .. } = proposed else { unreachable!() };
    assert_eq!(tables, vec![Some("big".into())]);
    let undo = "psql -c \"ALTER SYSTEM SET autovacuum_vacuum_cost_limit = '300'\" -c \"ALTER SYSTEM RESET \
        autovacuum_vacuum_cost_delay\" -c \"SELECT pg_reload_conf()\"";
    assert!(command.ends_with(&format!("# to undo: {undo}")), "{command}");
    // What it would signal, asked as a shell would ask.
    let (_, query) = command.split_once("psql -XAtc \"").unwrap();
    let (query, _) = query.split_once("\" | xargs -r kill -HUP").unwrap();
    let worker = rig.worker_on("big").unwrap();
    let named: Vec<i32> = client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(named, [worker.pid.0], "{query}");
    rig.run_for(Duration::from_secs(3)).await;
    let proposals = rig.events.iter().filter(|e| matches!(e, EventKind::ThrottleProposed { .. })).count();
    assert_eq!((proposals, rig.events.len()), (1, 1), "{:?}", rig.events);
    assert!(!include.exists());
    assert_eq!(std::fs::read_dir(rig.state_dir.path()).unwrap().count(), 0);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(client.query_one(locks, &[]).await.unwrap().get::<_, i64>(0), 0);

    // Pasted when that worker is gone, it names nobody.
    client.batch_execute("ALTER TABLE big SET (autovacuum_enabled = false)").await.unwrap();
    client.query_one("SELECT pg_terminate_backend($1)", &[&worker.pid.0]).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !client.query(query, &[]).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the worker stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// 13 to 15 with a resting delay of 0: what runs already is reported as not governable; what starts under our resting setting is, and is not
/// left stuck when the setting goes.
async fn resting_setting(major: u32) {
    let Some(Server { cluster: _cluster, include, url, client }) =
        server(major, &[("autovacuum_vacuum_cost_delay", "0")]).await
    else {
        return;
    };
    large_table(&client, "early", 400_000).await;
    // At the resting pace it must outlast some looks, and its rest the end of the hold.
    endless_table(&client, "late").await;
    allow_vacuum(&client, "early").await;
    let mut rig = Rig::new(&url, &include, Mode::Act, release_worker()).await;
    let deadline = Instant::now() + PATIENCE;
    while rig::vacuums(&client).await.iter().all(|v| v.relation.is_none()) {
        assert!(Instant::now() < deadline, "no worker");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.busy = 1.0;
    let changed = rig.until("a resting setting", |e| matches!(e, EventKind::RestingSettingChanged { .. })).await;
    let EventKind::RestingSettingChanged { from, .. } = changed else { unreachable!() };
    assert_eq!((from.limit, from.delay_ms), (PACE, 0.0));
    let early: Vec<_> = rig
        .governor
        .workers()
        .into_iter()
        .filter(|w| w.table.as_ref().is_some_and(|t| t.as_str() == "early"))
        .collect();
    assert_eq!(early[0].protection, Some(autovacuum::controller::Protection::StartedWithoutDelay), "{early:?}");
    assert!(!rig.events.iter().any(|e| matches!(e, EventKind::ThrottleEngaged { .. })));

    tokio::time::sleep(Duration::from_millis(1_200)).await;
    allow_vacuum(&client, "late").await;
    rig.until_true("a governable worker", |rig| {
        rig.governor
            .workers()
            .iter()
            .any(|w| w.table.as_ref().is_some_and(|t| t.as_str() == "late") && w.protection.is_none())
    })
    .await;
    rig.until("obedience", |e| matches!(e, EventKind::ThrottleVerified { obeyed: true, .. })).await;
    let worker = rig.worker_on("late").unwrap();
    let held = cpu_over(worker, Duration::from_secs(1)).await.unwrap();
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    let opened = cpu_over(worker, Duration::from_secs(1)).await;
    assert!(opened.is_none_or(|cpu| cpu > held * 2.0), "held {held:.3}, opened {opened:?} cores");
    assert_nothing_left(&rig, &PACE.to_string(), "0").await;
}

#[tokio::test(flavor = "current_thread")]
async fn resting_setting_13() {
    resting_setting(13).await;
}

#[tokio::test(flavor = "current_thread")]
async fn resting_setting_15() {
    resting_setting(15).await;
}

/// Without the include line: ALTER SYSTEM, and afterwards postgresql.auto.conf says what it said.
async fn alter_system(major: u32) {
    let Some(cluster) = cluster(major, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 300").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let auto = cluster.data_dir().join("postgresql.auto.conf");
    let former = std::fs::read_to_string(&auto).unwrap();
    large_table(&client, "big", ROWS).await;
    let mut rig = Rig::new(&url, &include, Mode::Act, release_worker()).await;
    rig.until_true("the fallback", |rig| rig.governor.status().lever == Some(Lever::AlterSystem)).await;
    allow_vacuum(&client, "big").await;
    rig.until_true("a worker", |rig| rig.worker_on("big").is_some()).await;
    rig.busy = 1.0;
    rig.until("a hold", |e| matches!(e, EventKind::ThrottleEngaged { lever: Lever::AlterSystem, .. })).await;
    assert_ne!(std::fs::read_to_string(&auto).unwrap(), former);
    let by_hand = rig.governor.status().undo_by_hand.unwrap();
    assert!(by_hand.contains("SET autovacuum_vacuum_cost_limit = '300'") && by_hand.contains("RESET"), "{by_hand}");
    rig.until("obedience", |e| matches!(e, EventKind::ThrottleVerified { obeyed: true, .. })).await;
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    assert_eq!(std::fs::read_to_string(&auto).unwrap(), former);
    assert_nothing_left(&rig, "300", "2ms").await;
}

#[tokio::test(flavor = "current_thread")]
async fn alter_system_15() {
    alter_system(15).await;
}

#[tokio::test(flavor = "current_thread")]
async fn alter_system_18() {
    alter_system(18).await;
}

/// A worker against wraparound is left alone, whatever the pressure.
async fn wraparound_is_untouched(major: u32) {
    let Some(cluster) =
        cluster(major, &[("autovacuum_freeze_max_age", "100000"), ("autovacuum_vacuum_cost_limit", "60")])
    else {
        return;
    };
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    large_table(&client, "big", 300_000).await;
    // Its own age makes it due, though its autovacuum is off.
    client
        .batch_execute("DO $$ BEGIN FOR i IN 1..101000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$")
        .await
        .unwrap();
    let mut rig = Rig::new(&url, &include, Mode::Act, release_worker()).await;
    rig.busy = 1.0;
    rig.until_true("a worker", |rig| rig.worker_on("big").is_some()).await;
    let found = rig.governor.workers();
    let worker = found.iter().find(|w| w.table.as_ref().is_some_and(|t| t.as_str() == "big")).unwrap();
    assert_eq!(worker.protection, Some(autovacuum::controller::Protection::AntiWraparound));
    rig.run_for(Duration::from_secs(5)).await;
    assert!(!rig.events.iter().any(|e| matches!(e, EventKind::ThrottleEngaged { .. })), "{:?}", rig.events);
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
}

#[tokio::test(flavor = "current_thread")]
async fn wraparound_is_untouched_15() {
    wraparound_is_untouched(15).await;
}

#[tokio::test(flavor = "current_thread")]
async fn wraparound_is_untouched_18() {
    wraparound_is_untouched(18).await;
}

/// Who has the setting on the command line keeps it.
#[tokio::test(flavor = "current_thread")]
async fn the_command_line_is_never_fought_over() {
    use std::os::unix::{fs::MetadataExt as _, process::CommandExt as _};
    let Some(mut cluster) = cluster(18, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    cluster.stop_fast().unwrap();
    let owner = std::fs::metadata(cluster.data_dir()).unwrap();
    let mut server = std::process::Command::new(cluster.installation().bin_dir.join("postgres"))
        .arg("-D")
        .arg(cluster.data_dir())
        .args(["-c", "autovacuum_vacuum_cost_limit=200"])
        .uid(owner.uid())
        .gid(owner.gid())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let url = cluster.url("postgres");
    drop(connect(&url).await);
    let mut rig = Rig::new(&url, &include, Mode::Act, None).await;
    let event = rig.until("a refusal", |e| matches!(e, EventKind::LeverUnavailable { .. })).await;
    let EventKind::LeverUnavailable { reason, .. } = event else { unreachable!() };
    assert!(reason.contains("command line"), "{reason}");
    assert_eq!(rig.governor.status().lever, None);
    let text = std::fs::read_to_string(&include).unwrap_or_default();
    assert!(text.is_empty() || text == include_file::NEUTRAL);
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::QUIT).unwrap();
    server.wait().unwrap();
}

/// One guard governs a server, and where Patroni owns the configuration none does.
#[tokio::test(flavor = "current_thread")]
async fn owners_and_other_guards_are_respected() {
    let Some(cluster) = cluster(18, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let url = cluster.url("postgres");
    connect(&url).await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let release = || release_worker();
    let mut first = Rig::new(&url, &include, Mode::Act, release()).await;
    first.until_true("a lever", |rig| rig.governor.status().lever == Some(Lever::WorkerSignal)).await;
    let mut second = Rig::new(&url, &include, Mode::Act, release()).await;
    let event = second.until("a refusal", |e| matches!(e, EventKind::LeverUnavailable { .. })).await;
    assert!(
        matches!(&event, EventKind::LeverUnavailable { reason, .. } if reason.contains("another guard")),
        "{event:?}"
    );
    second.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    first.governor.release(rig::now(), ReleaseReason::GuardStopping).await;

    let mut patroni: tokio_postgres::Config = url.parse().unwrap();
    let (_patroni, link) = patroni.application_name("Patroni").connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(link);
    let mut third = Rig::new(&url, &include, Mode::Act, release()).await;
    let event = third.until("a refusal", |e| matches!(e, EventKind::LeverUnavailable { .. })).await;
    assert!(matches!(&event, EventKind::LeverUnavailable { reason, .. } if reason.contains("Patroni")), "{event:?}");
    assert!(third.governor.status().levers.iter().all(|lever| !lever.available));
    third.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
}
