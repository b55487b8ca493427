//! A real container engine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

use std::{fs, path::PathBuf, time::Duration};

use scratch::{
    ScratchError,
    engine::{Engine, IMAGE},
};

fn await_that(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn engine() -> Option<Engine> {
    match Engine::start() {
        Ok(engine) => Some(engine),
        Err(error @ ScratchError::NoEngine { .. }) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn slow_an_engine_is_killed_with_its_containers_and_started_again() {
    let Some(mut engine) = engine() else { return };
    let share = engine.share().display().to_string();
    let bind = format!("{share}:{share}");
    let beats = engine.share().join("beats");
    let beat = format!("while :; do echo x >>{}; sleep 0.1; done", beats.display());
    let run = |name: &str, restart: &str| {
        let mut arguments =
            vec!["run", "--detach", "--network=host", "--name", name, "--restart", restart, "-v", &bind];
        let binds = Engine::binds();
        arguments.extend(binds.iter().flat_map(|bind| ["-v", bind.as_str()]));
        arguments.extend([IMAGE, "/bin/sh", "-c", &beat]);
        engine.docker(&arguments).unwrap();
    };
    run("stays", "no");
    run("returns", "always");
    let lines = || fs::read_to_string(&beats).unwrap_or_default().lines().count();
    await_that("the containers run", || lines() > 3);
    engine.kill9().unwrap();
    let at = lines();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(lines(), at, "nothing of it lives");
    assert!(engine.docker(&["ps"]).is_err() && engine.kill9().is_err());
    engine.start_again().unwrap();
    let names = engine.docker(&["ps", "--format", "{{.Names}}"]).unwrap();
    assert_eq!(names, "returns\n", "{}", engine.log_tail());
    await_that("it beats again", || lines() > at);
    let home = engine.share();
    drop(engine);
    assert!(!home.exists());
}

/// What the next test runs as another process, which is then killed.
#[test]
fn slow_owner_of_an_engine() {
    let Some(note) = std::env::var_os("OXPECKER_TEST_ENGINE_NOTE") else { return };
    let engine = Engine::start().unwrap();
    fs::write(note, engine.share().display().to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn slow_an_engine_dies_with_its_owner() {
    if engine().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["slow_owner_of_an_engine", "--exact"])
        .env("OXPECKER_TEST_ENGINE_NOTE", &note)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    await_that("the owner has one", || fs::read_to_string(&note).is_ok_and(|text| !text.is_empty()));
    let share = PathBuf::from(fs::read_to_string(&note).unwrap());
    let home = share.parent().unwrap();
    assert!(!scratch::processes_below(home).is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
    await_that("nothing of it lives", || scratch::processes_below(home).is_empty());
    // What it left is swept by the next one.
    let _next = engine();
    assert!(!home.exists());
}
