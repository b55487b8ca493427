//! Whoever starts a service, and its keeper, are killed at any moment: it runs once, and somebody knows it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that can't go on fails, and one that is skipped says so"
)]

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{scenario::PATIENCE, service::ScratchService};
use services::{
    driver::{Act, Driver as _},
    health::Process,
};
use stage::{Stage, kill9};

/// Whom a round kills.
#[derive(Clone, Copy, Debug)]
enum Whom {
    All,
    Worker,
    Keepers,
}

/// The processes of ours that have this word among their arguments. The service has not.
fn ours(word: &str, whom: Whom) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_it = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&str> = line.split('\0').collect();
        let is_worker = arguments.get(1) == Some(&"start");
        arguments.contains(&word)
            && match whom {
                Whom::All => true,
                Whom::Worker => is_worker,
                Whom::Keepers => !is_worker,
            }
    };
    pids.filter(of_it).collect()
}

async fn killed_after(stage: &Stage, round: usize, delay: Duration, whom: Whom) {
    // No other test's processes have it.
    let name = format!("killed-{}-{round}", std::process::id());
    let service = ScratchService::new(stage.path(), &format!("service-{round}"), &[]);
    let mut worker = Command::new(env!("CARGO_BIN_EXE_services-test-keeper"))
        .arg("start")
        .arg(stage.state())
        .arg(&name)
        .args(service.command())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(delay);
    // While one is looked for it may start another.
    let mut quiet = 0;
    while quiet < 2 {
        let found = ours(&name, whom);
        let alive = found.iter().filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.contains(") Z ")
        });
        let alive: Vec<i32> = alive.copied().collect();
        quiet = if alive.is_empty() { quiet + 1 } else { 0 };
        alive.into_iter().for_each(kill9);
    }
    worker.wait().unwrap();
    let what = format!("round {round}: {whom:?} killed after {delay:?}");
    let one = stage.again(&name, service, |_| {});
    let scene = one.scene();
    let seen = scene.look().await;
    assert!(!matches!(seen.process, Process::Unknown { .. }), "{what}: {seen:?}");
    let begin = Instant::now();
    // One that was started by whom we did not kill may hold a lock still.
    while let Err(error) = one.driver.act(&one.name, Act::Start).await {
        assert!(begin.elapsed() < PATIENCE, "{what}: {error}");
    }
    let seen = scene.until_healthy().await;
    assert_eq!((one.service.doubled(), seen.process), (0, Process::Running), "{what}");
    scene.act(Act::Stop).await;
    assert!(!one.service.runs(), "{what}: it runs on");
    let starts = one.service.starts().len();
    assert!(starts <= 2, "{what}: {starts} starts");
    let begin = Instant::now();
    while !ours(&name, Whom::All).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{what}: something is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn rounds(stage: &Stage, number: u32, step: Duration) {
    for round in 0..number {
        let whom = [Whom::All, Whom::Worker, Whom::Keepers][round as usize % 3];
        killed_after(stage, round as usize, step * round, whom).await;
    }
}

#[tokio::test]
async fn whoever_starts_it_is_killed_at_some_moments() {
    rounds(&Stage::new(), 12, Duration::from_millis(4)).await;
}

#[tokio::test]
async fn slow_whoever_starts_it_is_killed_at_many_moments() {
    // Finer than what each of the processes takes to begin.
    rounds(&Stage::new(), 180, Duration::from_micros(400)).await;
}
