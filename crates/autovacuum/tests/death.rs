//! Whoever dies, the throttle goes within five seconds: the guard alone (the release worker's and the switch's case), guard and release
//! worker together (the switch alone), and what is left for the next start.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod rig;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use autovacuum::{Governor, host_process, include_file};
use model::{EventKind, Mode, Pid, ProcessId, event::ReleaseReason};
use rig::{
    PACE, PATIENCE, ROWS, Rig, Server, allow_vacuum, cluster, connect, cpu_over, endless_table, large_table, options,
    release_worker, server, this_binary,
};
use rustix::process::{Signal, kill_process};

/// The promise.
const WITHIN: Duration = Duration::from_secs(5);
const URL: &str = "OXPECKER_TEST_URL";
const INCLUDE: &str = "OXPECKER_TEST_INCLUDE";
const STATE: &str = "OXPECKER_TEST_STATE";
const ENGAGED: &str = "stand-in: the throttle holds";

#[tokio::test(flavor = "current_thread")]
#[ignore = "started by the other tests as the guard"]
async fn guard_stand_in() {
    let Ok(url) = std::env::var(URL) else { return };
    let (include, state) = (std::env::var(INCLUDE).unwrap(), std::env::var(STATE).unwrap());
    let options = options(Mode::Act, Path::new(&include), Path::new(&state), release_worker());
    let mut rig = Rig::with(&url, options, tempfile::tempdir().unwrap()).await;
    rig.until_true("a lever", |rig| rig.governor.status().lever.is_some()).await;
    rig.busy = 1.0;
    rig.until("obedience", |e| matches!(e, EventKind::ThrottleVerified { obeyed: true, .. })).await;
    println!("{ENGAGED}");
    // Relief, so that it is held until somebody kills us.
    rig.busy = 0.8;
    rig.run_for(PATIENCE).await;
}

/// A guard in another process, killed when dropped.
struct StandIn {
    child: Child,
    state: tempfile::TempDir,
}

impl StandIn {
    fn start(url: &str, include: &Path) -> Self {
        let state = tempfile::tempdir().unwrap();
        let command = this_binary("guard_stand_in");
        let child = Command::new(command.program)
            .args(command.arguments)
            .env(URL, url)
            .env(INCLUDE, include)
            .env(STATE, state.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, state }
    }

    fn pid(&self) -> Pid {
        Pid(i32::try_from(self.child.id()).unwrap())
    }

    /// Blocks until it holds somebody.
    fn wait_engaged(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        let found = lines.by_ref().map_while(Result::ok).any(|line| {
            let hit = line == ENGAGED;
            seen.push(line);
            hit
        });
        assert!(found, "the stand-in ended: {seen:#?}");
        // Kept open, or its next line of output would kill it before we do.
        std::thread::spawn(move || lines.for_each(drop));
    }

    fn release_worker(&self) -> Pid {
        let children: Vec<Pid> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid))
            .filter(|pid| host_process::stat(*pid).is_some_and(|stat| stat.parent == self.pid()))
            .collect();
        assert_eq!(children.len(), 1, "the guard's children");
        children[0]
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Fails only where it was killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: Pid, signal: Signal) {
    kill_process(rustix::process::Pid::from_raw(pid.0).unwrap(), signal).unwrap();
}

fn is_neutral(include: &Path) -> bool {
    std::fs::read_to_string(include).map_or(true, |text| text.lines().all(|line| line.starts_with('#')))
}

async fn the_worker(client: &tokio_postgres::Client) -> ProcessId {
    let all = rig::vacuums(client).await;
    all.iter().find(|v| v.table.as_ref().is_some_and(|t| t.as_str() == "big")).unwrap().process
}

/// Waits until the worker runs freely again; it must within the promise.
async fn assert_opened(worker: ProcessId, held: f64, include: &Path, killed: Instant) {
    loop {
        let cpu = cpu_over(worker, Duration::from_millis(400)).await;
        let open = cpu.is_none_or(|cpu| cpu > (held * 3.0).max(0.05));
        if open && is_neutral(include) {
            println!("opened {:?} after the kill; held {held:.3}, then {cpu:?} cores", killed.elapsed());
            return;
        }
        assert!(
            killed.elapsed() < WITHIN,
            "still held after {:?}: {held:.3}, then {cpu:?} cores; file: {:?}",
            killed.elapsed(),
            std::fs::read_to_string(include)
        );
    }
}

async fn settings_are(url: &str, limit: &str, delay: &str) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let client = connect(url).await;
        let row = client
            .query_one(
                "SELECT current_setting('autovacuum_vacuum_cost_limit'), current_setting('autovacuum_vacuum_cost_delay'), \
                    (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'oxpecker%')",
                &[],
            )
            .await
            .unwrap();
        let found = (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, i64>(2));
        if found == (limit.to_owned(), delay.to_owned(), 0) {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The cluster's include file as the guards of these tests use it.
fn include_of(cluster: &scratch::ScratchCluster) -> PathBuf {
    cluster.directory().join("throttle.conf")
}

/// A cluster whose large table's vacuum is allowed from now on.
async fn a_vacuum(major: u32) -> Option<(scratch::ScratchCluster, PathBuf, std::sync::Arc<tokio_postgres::Client>)> {
    let cluster = cluster(major, &[])?;
    let include = include_of(&cluster);
    cluster.include_line(&include).unwrap();
    let client = connect(&cluster.url("postgres")).await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    large_table(&client, "big", ROWS).await;
    allow_vacuum(&client, "big").await;
    Some((cluster, include, client))
}

/// The guard alone: the release worker and the server itself are left to let go.
async fn killed(major: u32) {
    let Some((cluster, include, client)) = a_vacuum(major).await else { return };
    let url = cluster.url("postgres");
    let mut guard = StandIn::start(&url, &include);
    guard.wait_engaged();
    let worker = the_worker(&client).await;
    let held = cpu_over(worker, Duration::from_millis(500)).await.unwrap();
    let killed = Instant::now();
    signal(guard.pid(), Signal::KILL);
    assert_opened(worker, held, &include, killed).await;
    settings_are(&url, &PACE.to_string(), "2ms").await;
}

/// The guard and its child together: only the server itself is left to let go.
async fn killed_with_its_child(major: u32) {
    let Some((cluster, include, client)) = a_vacuum(major).await else { return };
    let url = cluster.url("postgres");
    let mut guard = StandIn::start(&url, &include);
    guard.wait_engaged();
    let worker = the_worker(&client).await;
    let held = cpu_over(worker, Duration::from_millis(500)).await.unwrap();
    let helper = guard.release_worker();
    signal(guard.pid(), Signal::STOP);
    let killed = Instant::now();
    signal(helper, Signal::KILL);
    signal(guard.pid(), Signal::KILL);
    assert_opened(worker, held, &include, killed).await;
    settings_are(&url, &PACE.to_string(), "2ms").await;

    // The record is still there; the next start finds it and tidies up.
    assert!(autovacuum::record::read(guard.state.path()).unwrap().is_some());
    let mut next = Governor::new(options(Mode::Observe, &include, guard.state.path(), None));
    let events = next.step(rig::now()).await;
    assert!(
        matches!(events[..], [EventKind::ThrottleReleased { reason: ReleaseReason::LeftBehind, .. }]),
        "{events:?}"
    );
    assert_eq!(autovacuum::record::read(guard.state.path()).unwrap(), None);
    assert!(!include.exists());
}

macro_rules! each_major {
    ($function:ident: $($name:ident $major:literal),*) => {
        $(#[tokio::test(flavor = "current_thread")]
        async fn $name() {
            $function($major).await;
        })*
    };
}

each_major!(killed: killed_13 13, slow_killed_14 14, slow_killed_15 15, killed_16 16, slow_killed_17 17, killed_18 18);
each_major!(killed_with_its_child:
    killed_with_its_child_13 13,
    slow_killed_with_its_child_14 14,
    slow_killed_with_its_child_15 15,
    killed_with_its_child_16 16,
    slow_killed_with_its_child_17 17,
    killed_with_its_child_18 18);

/// ALTER SYSTEM can't be undone from within the server: the release worker does it through a connection of its own.
#[tokio::test(flavor = "current_thread")]
async fn killed_with_alter_system() {
    let Some(cluster) = cluster(18, &[]) else { return };
    let include = include_of(&cluster);
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 300").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let auto = cluster.data_dir().join("postgresql.auto.conf");
    let former = std::fs::read_to_string(&auto).unwrap();
    large_table(&client, "big", ROWS).await;
    allow_vacuum(&client, "big").await;
    let guard = StandIn::start(&url, &include);
    // Killed in the very moment when postgresql.auto.conf is ours.
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(&auto).unwrap() == former {
        assert!(Instant::now() < deadline, "no throttle");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal(guard.pid(), Signal::KILL);
    let killed = Instant::now();
    while std::fs::read_to_string(&auto).unwrap() != former {
        assert!(killed.elapsed() < WITHIN, "postgresql.auto.conf: {}", std::fs::read_to_string(&auto).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    settings_are(&url, "300", "2ms").await;
}

/// With a resting delay of 0 on 13 to 15 the workers must be opened before the setting goes, or they stay stuck: also from within the server.
async fn killed_with_resting_setting(major: u32) {
    let Some(Server { cluster: _cluster, include, url, client }) =
        server(major, &[("autovacuum_vacuum_cost_delay", "0")]).await
    else {
        return;
    };
    endless_table(&client, "big").await;
    let mut guard = StandIn::start(&url, &include);
    let deadline = Instant::now() + PATIENCE;
    while is_neutral(&include) {
        assert!(Instant::now() < deadline, "no resting setting");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    allow_vacuum(&client, "big").await;
    guard.wait_engaged();
    let worker = the_worker(&client).await;
    let held = cpu_over(worker, Duration::from_millis(500)).await.unwrap();
    let helper = guard.release_worker();
    signal(guard.pid(), Signal::STOP);
    let killed = Instant::now();
    signal(helper, Signal::KILL);
    signal(guard.pid(), Signal::KILL);
    assert_opened(worker, held, &include, killed).await;
    settings_are(&url, &PACE.to_string(), "0").await;
}

each_major!(killed_with_resting_setting: killed_with_resting_setting_13 13, killed_with_resting_setting_15 15);

/// A pid that came to belong to another process is never signalled, whatever that process calls itself.
#[test]
fn a_recycled_pid_is_never_signalled() {
    use std::os::unix::process::CommandExt as _;
    let mut impostor = Command::new("sleep")
        .arg0("postgres: autovacuum worker postgres")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid(i32::try_from(impostor.id()).unwrap());
    let deadline = Instant::now() + PATIENCE;
    let is_up = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.starts_with(b"postgres:"));
    while !is_up() {
        assert!(Instant::now() < deadline, "the impostor did not start");
    }
    let now = host_process::identify(pid).unwrap();
    let before = ProcessId { start_ticks: now.start_ticks - 1, ..now };
    assert!(host_process::hang_up(before, host_process::Role::Worker).is_err());
    let unknown = ProcessId { start_ticks: 0, ..now };
    assert!(host_process::hang_up(unknown, host_process::Role::Worker).is_err());
    assert!(host_process::hang_up(now, host_process::Role::Launcher).is_err());
    assert!(impostor.try_wait().unwrap().is_none());
    // The check can fail: the same process under its own start time does get the signal, and dies of it.
    host_process::hang_up(now, host_process::Role::Worker).unwrap();
    assert!(!impostor.wait().unwrap().success());
    assert!(host_process::hang_up(now, host_process::Role::Worker).is_err());
    assert!(include_file::NEUTRAL.starts_with('#'));
}
