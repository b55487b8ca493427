//! Whole small drills: with a result, cancelled, killed, with a guard that is none.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "only tests here, also outside of functions marked as such"
)]

mod common;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{descendants, started};
use drill::{ActKind, DrillResult};

/// How long a small drill may take to reach its storm on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn command(args: &[&str]) -> Option<Command> {
    let installation = common::postgres()?;
    let mut command = Command::new(common::drill());
    command.args(["--rows", "10000", "--load", "20", "--pg", &installation.major().to_string()]).args(args);
    Some(command)
}

#[test]
fn a_small_drill_measures_what_it_says() {
    let Some(mut command) = command(&["--acts", "baseline,unthrottled", "--storm", "6", "--json"]) else { return };
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let result: DrillResult = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert_eq!(output.status.success(), result.verdict.passed, "{log}");
    assert_eq!(result.acts.iter().map(|act| act.act).collect::<Vec<_>>(), [ActKind::Baseline, ActKind::Unthrottled]);
    assert_eq!(result.tables.len(), 3);
    assert!(result.tables.iter().all(|table| (table.live, table.dead) == (5_000, 5_000)), "{:?}", result.tables);
    let offered = result.load.rate_per_s;
    assert!((offered - result.load.capacity_per_s * 0.2).abs() < 0.01);
    for act in &result.acts {
        // A Poisson process: the count's standard deviation is its square root; five of them never happen.
        let expected = offered * act.window_s as f64;
        let asked = act.all.requests as f64;
        assert!((asked - expected).abs() < 5.0 * expected.sqrt() + offered, "{asked} asked, {expected} expected");
        assert_eq!(act.all.requests, act.services.iter().map(|(_, summary)| summary.requests).sum::<u64>());
        assert!(act.all.p50_ms > 0.0 && act.all.p50_ms <= act.all.p99_ms && act.all.p99_ms <= act.all.max_ms);
        assert!(act.cpu.services > 0.0 && act.cpu.postgres > 0.0, "{:?}", act.cpu);
    }
    let vacuum = result.act(ActKind::Unthrottled).unwrap().vacuum.as_ref().unwrap();
    assert!(vacuum.first_seen_s.is_some() && vacuum.tables.len() == 3, "{vacuum:?}");
    assert!(result.verdict.lines.iter().any(|line| line.claim.contains("left running") && line.passed), "{result:#?}");
}

/// The oxpecker of this build: cargo puts it beside our own tests' folder, unless only this crate is built.
fn oxpecker() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let program = test.parent()?.parent()?.join("oxpecker");
    if !program.is_file() {
        println!("skipped: {} is not built; `cargo build -p oxpecker` builds it", program.display());
        return None;
    }
    Some(program)
}

/// The act with the guard, for real and small: too small for a verdict on speed, large enough for all that is not speed.
#[test]
fn a_guarded_act_has_a_guard_that_leaves_nothing_behind() {
    let Some(oxpecker) = oxpecker() else { return };
    let oxpecker = oxpecker.to_str().unwrap().to_owned();
    let arguments = ["--acts", "guarded", "--storm", "5", "--json", "--oxpecker", &oxpecker];
    let Some(mut command) = command(&arguments) else { return };
    // The incident's report is written to where it is started.
    let dir = tempfile::tempdir().unwrap();
    let output = command.current_dir(dir.path()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let result: DrillResult = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert_eq!(output.status.success(), result.verdict.passed, "{log}");
    let act = result.act(ActKind::Guarded).unwrap();
    let guard = act.guard.as_ref().unwrap();
    assert!(guard.stopped_cleanly && guard.ready_after_s > 0.0 && guard.resident_max_bytes > 1_000_000, "{guard:?}");
    assert_eq!(guard.settings_before, guard.settings_after);
    assert_eq!(guard.remains.settings_reloaded, guard.settings_before);
    assert!(act.cpu.guard > 0.0 && act.all.requests > 0, "{:?}", act.cpu);
    assert!(guard.alerts.iter().all(|alert| !alert.key.is_empty() && alert.arrived_s >= alert.decided_s), "{guard:?}");
    assert!(act.vacuum.as_ref().unwrap().first_seen_s.is_some(), "{:?}", act.vacuum);
    for claim in ["the storm came", "put vacuum's settings back", "left no throttle behind", "nothing was left running"]
    {
        let line = result.verdict.lines.iter().find(|line| line.claim.contains(claim));
        assert!(line.is_some_and(|line| line.passed), "{claim}: {line:?}\n{log}");
    }
}

/// A drill that has reached the load of its storm, and all that it has started.
struct InTheStorm {
    child: Child,
    processes: Vec<(u32, u64)>,
    directories: BTreeSet<PathBuf>,
}

impl InTheStorm {
    fn reach() -> Option<Self> {
        let mut command = command(&["--acts", "unthrottled", "--storm", "60"])?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let begun = Instant::now();
        let mut log = String::new();
        while !log.contains("answered/s") {
            assert!(begun.elapsed() < PATIENCE, "{log}");
            log.push_str(&lines.next().unwrap_or_else(|| panic!("the drill ended: {log}")).unwrap());
            log.push('\n');
        }
        // It goes on speaking to somebody who listens.
        std::thread::spawn(move || lines.for_each(drop));
        let processes = descendants(child.id());
        let directories = processes
            .iter()
            .filter_map(|(pid, _)| std::fs::read_link(format!("/proc/{pid}/cwd")).ok())
            .filter(|dir| {
                dir.to_string_lossy().contains("oxpecker-drill-") || dir.to_string_lossy().contains("oxscratch-")
            })
            .collect();
        // Site, bot, gate, load, and a postmaster with its children.
        assert!(processes.len() >= 10, "{processes:?}");
        Some(Self { child, processes, directories })
    }

    fn alive(&self) -> Vec<String> {
        let alive = self.processes.iter().filter(|(pid, ticks)| started(*pid) == Some(*ticks));
        alive.map(|(pid, _)| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()).collect()
    }

    fn assert_gone(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.alive().is_empty() {
            assert!(Instant::now() < deadline, "left running: {:?}", self.alive());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_killed_drill_leaves_nothing_running() {
    let Some(mut drill) = InTheStorm::reach() else { return };
    drill.child.kill().unwrap();
    drill.child.wait().unwrap();
    drill.assert_gone();
    // Its files are swept by the next drill; here, to be tidy at once.
    for directory in &drill.directories {
        let home = directory.ancestors().find(|dir| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("oxpecker-drill-") || name.starts_with("oxscratch-")
        });
        let _ = std::fs::remove_dir_all(home.unwrap());
    }
}

#[test]
fn an_interrupted_drill_leaves_nothing_at_all() {
    let Some(mut drill) = InTheStorm::reach() else { return };
    let pid = rustix::process::Pid::from_raw(i32::try_from(drill.child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = drill.child.wait().unwrap();
    assert_eq!(status.code(), Some(4));
    // It has waited for them: no grace here.
    assert!(drill.alive().is_empty(), "{:?}", drill.alive());
    assert!(drill.directories.len() >= 2, "{:?}", drill.directories);
    assert!(drill.directories.iter().all(|dir| !dir.exists()), "{:?}", drill.directories);
}

#[test]
fn a_guard_that_does_not_start_is_named() {
    let Some(mut command) = command(&["--acts", "guarded", "--oxpecker", "/bin/false"]) else { return };
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(error.contains("the drill's process guard ended while it was needed"), "{error}");
}
