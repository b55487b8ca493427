//! Real nodes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

use std::{fs, path::Path, time::Duration};

use scratch::node::Node;

fn await_that(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn two_nodes_are_killed_and_booted_again_each_for_itself() {
    let builder = match (Node::builder(), Node::builder()) {
        (Ok(one), Ok(two)) => (one, two),
        (Err(error), _) | (_, Err(error)) => return println!("skipped: {error}"),
    };
    let unit = "[Service]\nExecStart=/bin/sleep infinity\n";
    let (mut one, two) =
        (builder.0.enabled("a.service", unit).boot().unwrap(), builder.1.unit("a.service", unit).boot().unwrap());
    let active = |node: &Node| node.systemctl(&["is-active", "a.service"]).is_ok_and(|text| text == "active\n");
    await_that("what is enabled runs", || active(&one));
    assert!(!active(&two), "what is not enabled does not");
    two.systemctl(&["start", "a.service"]).unwrap();
    let starts = one.share().join("starts");
    one.write_unit(
        "a.service",
        &format!("[Service]\nExecStart=/bin/sh -c 'echo $$$$ >>{}; sleep infinity'\n", starts.display()),
    )
    .unwrap();
    for boot in 1..=2 {
        one.kill9().unwrap();
        assert!(one.systemctl(&["is-active", "a.service"]).is_err() && one.kill9().is_err());
        one.boot_again().unwrap();
        await_that("it is started with the next boot", || lines(&starts) == boot);
    }
    assert!(active(&two), "the other one lives on");
    let (share, console) = (one.share(), one.root());
    drop(one);
    assert!(!share.exists() && !console.exists() && active(&two));
}

/// What the next test runs as another process, which is then killed.
#[test]
fn slow_owner_of_a_node() {
    let Some(note) = std::env::var_os("OXPECKER_TEST_NODE_NOTE") else { return };
    let node = Node::builder().unwrap().boot().unwrap();
    fs::write(note, node.share().display().to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_node_dies_with_its_owner() {
    if let Err(error) = Node::builder() {
        return println!("skipped: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["slow_owner_of_a_node", "--exact"])
        .env("OXPECKER_TEST_NODE_NOTE", &note)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    await_that("the owner has one", || fs::read_to_string(&note).is_ok_and(|text| !text.is_empty()));
    let share = std::path::PathBuf::from(fs::read_to_string(&note).unwrap());
    let home = share.parent().unwrap();
    assert!(!scratch::processes_below(home).is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
    await_that("nothing of it lives", || scratch::processes_below(home).is_empty());
    // What it left is swept by the next one.
    let _next = Node::builder().unwrap().boot().unwrap();
    assert!(!home.exists());
}
