//! The guard as the unit that we ship, on a node of its own: what it runs lives on when it is restarted or killed, and comes back when the node does.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use scratch::node::Node;

use crate::harness::PATIENCE;

const SHIPPED: &str = include_str!("../../../../deploy/oxpecker.service");
const UNIT: &str = "oxpecker.service";

/// The unit as it is shipped, but for the program's place and a user that the node has.
fn unit(program: &Path) -> String {
    let text =
        SHIPPED.replace("/usr/bin/oxpecker", &program.display().to_string()).replace("User=postgres", "User=root");
    assert!(text.contains("KillMode=process") && text.contains("Type=notify"), "{text}");
    text
}

fn boot() -> Option<Node> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_oxpecker"));
    let builder = Node::builder().map_err(|error| println!("skipped: {error}")).ok()?;
    let builder = builder.bind_read_only(program.parent().unwrap()).enabled(UNIT, &unit(&program));
    Some(builder.boot().unwrap())
}

/// Runs once more than before, and by which pid of the node.
fn await_start(node: &Node, starts: usize) -> String {
    let file = node.share().join("starts");
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let pids: Vec<&str> = text.lines().collect();
        assert!(pids.len() <= starts, "started again: {text}");
        if pids.len() == starts {
            return pids[starts - 1].to_owned();
        }
        let log = || node.run("journalctl", &["-u", UNIT, "--no-pager", "-n", "50"]).unwrap_or_default();
        assert!(began.elapsed() < PATIENCE, "it was not started:\n{}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn main_pid(node: &Node) -> String {
    node.systemctl(&["show", "-P", "MainPID", UNIT]).unwrap().trim().to_owned()
}

/// Waits until another guard than `before` is ready.
fn await_guard(node: &Node, before: &str) -> String {
    let began = Instant::now();
    loop {
        let state = node.systemctl(&["show", "-P", "ActiveState", UNIT]).unwrap();
        let pid = main_pid(node);
        if state.trim() == "active" && pid != "0" && pid != before {
            return pid;
        }
        assert!(began.elapsed() < PATIENCE, "no guard: {state}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn lives(node: &Node, pid: &str) -> bool {
    node.run("kill", &["-0", pid]).is_ok()
}

#[test]
fn slow_what_the_shipped_unit_runs_outlives_the_guard_and_comes_back_with_the_node() {
    let Some(mut node) = boot() else { return };
    let share = node.share();
    let (starts, script) = (share.join("starts"), share.join("site.sh"));
    fs::write(&script, format!("#!/bin/sh\necho $$ >> {}\nexec sleep 1000000\n", starts.display())).unwrap();
    let etc = node.root().join("etc/oxpecker");
    fs::create_dir_all(&etc).unwrap();
    let config = format!(
        "mode = \"act\"\n[postgres]\nname = \"main\"\nurl = \"postgresql:///postgres?host=/nonexistent\"\n\
         [[service]]\nname = \"site\"\ndriver = \"process\"\nstable_for = \"500ms\"\ncommand = [\"/bin/sh\", {:?}]\n",
        script.display().to_string()
    );
    fs::write(etc.join("oxpecker.toml"), config).unwrap();
    node.systemctl(&["restart", UNIT]).unwrap();
    let site = await_start(&node, 1);

    // Restarted in good order, then killed: nothing of it reaches the service.
    let first = await_guard(&node, "");
    node.systemctl(&["restart", UNIT]).unwrap();
    let second = await_guard(&node, &first);
    node.run("kill", &["-9", &second]).unwrap();
    let third = await_guard(&node, &second);
    assert!(lives(&node, &site), "the service lives on");
    assert_eq!(await_start(&node, 1), site, "and was started once");
    // Protected as the unit says.
    let score = node.run("cat", &[&format!("/proc/{third}/oom_score_adj")]).unwrap();
    let memory = node.run("grep", &["VmLck", &format!("/proc/{third}/status")]).unwrap();
    println!("oom_score_adj {}, {}", score.trim(), memory.trim());
    let score = node.run("cat", &[&format!("/proc/{site}/oom_score_adj")]).unwrap();
    assert_eq!(score.trim(), "0", "the service is nobody special");

    // The node loses power: the next boot's guard brings it back by itself, and knows that it was another boot.
    node.kill9().unwrap();
    node.boot_again().unwrap();
    await_guard(&node, "");
    let again = await_start(&node, 2);
    assert!(lives(&node, &again));
    node.systemctl(&["stop", UNIT]).unwrap();
    assert!(lives(&node, &again), "a guard that is stopped leaves it running");
}
