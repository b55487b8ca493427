//! Act 3, small: everything killed, brought back without an order and in order; and the drill itself killed in it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "only tests here, also outside of functions marked as such"
)]

mod common;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{descendants, started};
use drill::{ColdKind, ColdStart};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

#[test]
fn all_come_back_without_an_order_and_in_order() {
    if common::postgres().is_none() {
        return;
    }
    let output = Command::new(common::drill()).args(["cold-start", "25"]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let played: ColdStart = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert!(output.status.success(), "{log}");
    assert!(played.wal_bytes.unwrap() > 5_000_000, "{:?}", played.wal_bytes);
    let [unordered, ordered] = [ColdKind::Unordered, ColdKind::Ordered].map(|how| played.side(how).unwrap());
    for side in [unordered, ordered] {
        // 16 services, and PostgreSQL's own processes.
        assert!(side.killed > 18 && side.lanes.len() == 16, "{}\n{log}", side.killed);
        assert!(side.stable_s.unwrap() >= played.stable_for_s && side.gave_up.is_none(), "{log}");
        let limit = side.limit_s.unwrap();
        assert!(side.how != ColdKind::Ordered || side.stable_s.unwrap() >= limit, "{limit}\n{log}");
        for lane in &side.lanes {
            let last = lane.runs.last().unwrap();
            assert!(last.ended_s.is_none() && last.ready_s.unwrap() >= last.started_s, "{lane:?}\n{log}");
        }
    }
    assert_eq!((ordered.wasted, ordered.early), (0, 0), "{log}");
    // What is needed is not there when all begin at once.
    assert!(unordered.wasted > 0 && unordered.early > 0, "{log}");
}

#[test]
fn a_drill_that_is_killed_in_it_leaves_nothing_running() {
    if common::postgres().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(common::drill());
    // Slow, so that it is in the midst of it.
    command.args(["cold-start", "5"]).env("TMPDIR", dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut drill = command.spawn().unwrap();
    let below = || scratch::processes_below(dir.path());
    let deadline = Instant::now() + PATIENCE;
    let processes = loop {
        let services = below();
        let all: Vec<(u32, u64)> = services.iter().flat_map(|one| descendants(one.pid)).collect();
        // All services, and PostgreSQL's own processes below one of them.
        if services.len() >= 16 && all.len() >= 4 {
            break all;
        }
        assert!(Instant::now() < deadline && drill.try_wait().unwrap().is_none(), "{services:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    drill.kill().unwrap();
    drill.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let alive = || processes.iter().any(|(pid, ticks)| started(*pid) == Some(*ticks));
    while !below().is_empty() || alive() {
        assert!(Instant::now() < deadline, "left running: {:?}", below());
        std::thread::sleep(Duration::from_millis(20));
    }
}
