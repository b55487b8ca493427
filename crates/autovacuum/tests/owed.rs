//! A throttle that can't be undone: nothing that could still undo it is disarmed, it is told, and it goes as soon as it can.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod rig;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use autovacuum::{
    host_process,
    release_worker::Orders,
    undo::{FORMAT, Home, UndoPlan, undo},
};
use model::{
    EventKind, Mode, Pid,
    event::{CostSetting, ReleaseReason},
};
use rig::{PATIENCE, ROWS, Rig, Server, allow_vacuum, cluster, connect, large_table, release_worker, server};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A directory where the include file is to be can neither be replaced nor removed as a file, not even by root.
fn obstruct(include: &Path) {
    let _ = std::fs::remove_file(include);
    std::fs::create_dir(include).unwrap();
}

const THROTTLE: CostSetting = CostSetting { limit: 1, delay_ms: 10.0 };

fn plan(include: &Path, postmaster: Option<model::ProcessId>, data_directory: Option<&Path>) -> UndoPlan {
    UndoPlan {
        format: FORMAT,
        cluster: "main".into(),
        boot_id: host_process::boot_id(),
        home: Home::IncludeFile { path: include.to_owned() },
        major: 18,
        owner: None,
        postmaster,
        data_directory: data_directory.map(Path::to_owned),
        launcher: None,
        workers: Vec::new(),
        open_first: None,
    }
}

/// systemd signals the whole control group, release worker included.
#[test]
fn the_release_worker_ends_by_its_input_only() {
    let dir = tempfile::tempdir().unwrap();
    let include = dir.path().join("throttle.conf");
    std::fs::write(&include, autovacuum::include_file::content(THROTTLE, "a test's throttle")).unwrap();
    let command = release_worker().unwrap();
    let mut child = Command::new(command.program)
        .args(command.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // No server runs on this data directory, so the file is all that is to be undone.
    let gone = host_process::identify(Pid(1)).map(|id| model::ProcessId { start_ticks: id.start_ticks + 1, ..id });
    let orders = Orders { plan: Some(plan(&include, gone, Some(dir.path()))), connection: String::new() };
    writeln!(input, "{}", serde_json::to_string(&orders).unwrap()).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // Signalled before it takes them it would rightly die: wait until it catches all three (proc(5): SigCgt, bit N-1 for signal N).
    let caught = |mask: u64| [1, 2, 15].iter().all(|signal| mask & (1 << (signal - 1)) != 0);
    let deadline = Instant::now() + PATIENCE;
    let mask = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    while !caught(mask()) {
        assert!(Instant::now() < deadline, "it does not catch the signals: {:x}", mask());
        std::thread::sleep(Duration::from_millis(20));
    }
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP] {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    assert!(include.exists());
    drop(input);
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert!(!include.exists());
}

/// A restarted server may have read the throttle: that the old postmaster is gone is not enough.
#[tokio::test(flavor = "current_thread")]
async fn the_successor_of_a_gone_postmaster_is_reloaded() {
    let Some(mut cluster) = cluster(18, &[]) else { return };
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let before = host_process::identify(Pid(cluster.postmaster_pid().unwrap().try_into().unwrap())).unwrap();
    cluster.stop_immediate().unwrap();
    let data = cluster.data_dir().to_owned();
    std::fs::write(&include, autovacuum::include_file::content(THROTTLE, "a test's throttle")).unwrap();

    cluster.start_again().unwrap();
    let client = connect(&cluster.url("postgres")).await;
    let show = "SELECT reset_val FROM pg_settings WHERE name = 'autovacuum_vacuum_cost_limit'";
    assert_eq!(client.query_one(show, &[]).await.unwrap().get::<_, &str>(0), "1");
    let unknown = undo(&plan(&include, Some(before), None), None).await;
    assert!(!unknown.complete(), "{unknown:?}");
    let done = undo(&plan(&include, Some(before), Some(&data)), None).await;
    assert!(done.complete(), "{done:?}");
    let deadline = Instant::now() + PATIENCE;
    let limit = rig::PACE.to_string();
    while client.query_one(show, &[]).await.unwrap().get::<_, &str>(0) != limit {
        assert!(Instant::now() < deadline, "it was not reloaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // With no server at all there is nobody to be told, whatever a crash left of its pid file.
    cluster.stop_immediate().unwrap();
    for left in [None, Some("2147483646\n"), Some("1\n")] {
        if let Some(text) = left {
            std::fs::write(data.join("postmaster.pid"), text).unwrap();
        }
        assert!(undo(&plan(&include, Some(before), Some(&data)), None).await.complete(), "{left:?}");
    }
    std::fs::write(data.join("postmaster.pid"), "").unwrap();
    assert!(!undo(&plan(&include, Some(before), Some(&data)), None).await.complete());
    std::fs::remove_file(data.join("postmaster.pid")).unwrap();
}

/// Puts a throttle back where the obstacle was, in one step: whoever looks finds the one or the other.
fn clear_the_way(include: &Path) {
    let throttle = include.with_extension("test");
    let text = autovacuum::include_file::content(THROTTLE, "a test's throttle");
    std::fs::write(&throttle, text).unwrap();
    renameat_with(CWD, &throttle, CWD, include, RenameFlags::EXCHANGE).unwrap();
    std::fs::remove_dir(&throttle).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn an_undo_that_failed_stays_armed() {
    let Some(Server { cluster: _cluster, include, url, client }) = server(18, &[]).await else { return };
    large_table(&client, "big", ROWS).await;
    allow_vacuum(&client, "big").await;
    let mut rig = Rig::new(&url, &include, Mode::Act, release_worker()).await;
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

/// The backends of dead man's switches that are at work.
async fn switches(client: &tokio_postgres::Client) -> Vec<i32> {
    let query =
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'DO %' AND state = 'active'";
    let rows = client.query(query, &[&autovacuum::switch::APPLICATION_NAME]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Steps until exactly one switch watches that is not `other`.
async fn another_switch(rig: &mut Rig, client: &tokio_postgres::Client, other: i32) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let [switch] = switches(client).await[..]
            && switch != other
            && rig.governor.status().resting.is_some()
        {
            return switch;
        }
        assert!(Instant::now() < deadline, "no switch; {:?}", rig.governor.status());
        rig.step().await;
    }
}

/// What armed the switch stays, so must the switch: also after an administrator ended its session, or the guard's.
#[tokio::test(flavor = "current_thread")]
async fn a_switch_that_ended_is_replaced() {
    // 15 with a delay of 0 needs a resting setting, for which the switch is armed without any vacuum.
    let Some(Server { cluster: _cluster, include, url, client }) =
        server(15, &[("autovacuum_vacuum_cost_delay", "0")]).await
    else {
        return;
    };
    let mut rig = Rig::new(&url, &include, Mode::Act, release_worker()).await;
    let first = another_switch(&mut rig, &client, 0).await;

    client.query_one("SELECT pg_terminate_backend($1)", &[&first]).await.unwrap();
    let second = another_switch(&mut rig, &client, first).await;
    let limitations = rig.governor.status().limitations;
    assert!(!limitations.iter().any(|l| l.contains("switch")), "{limitations:?}");

    // The guard's session: the switch gets the lock and lets go, which takes it a moment; then all is as before.
    let own: i32 = rig.client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    client.query_one("SELECT pg_terminate_backend($1)", &[&own]).await.unwrap();
    let lost = Instant::now();
    while !rig.client.is_closed() {
        assert!(lost.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.governor.on_client(None, &url);
    rig.governor.step(rig::now()).await;
    rig.client = connect(&url).await;
    rig.governor.on_client(Some(std::sync::Arc::clone(&rig.client)), &url);
    another_switch(&mut rig, &client, second).await;
    println!("governed again {:?} after the session was lost", lost.elapsed());
    assert!(lost.elapsed() < Duration::from_secs(15), "{:?}", lost.elapsed());
    assert!(!rig.events.iter().any(|e| matches!(e, EventKind::LeverUnavailable { .. })), "{:?}", rig.events);
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    assert_eq!(switches(&client).await, Vec::<i32>::new());
}
