//! What keeps the guard and its alarms alive on a host that is short of everything, and that nobody else gets it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, time::Instant};

use crate::harness::{Guard, PATIENCE, Place, oxpecker};

/// Without what is asked for here, `guard::protect` has nothing to work with.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root may protect itself without a service manager's help");
    }
    root
}

/// Containers' root mostly may not.
fn may_be_spared() -> bool {
    let held = rustix::thread::capabilities(None).unwrap().effective;
    let may = held.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    if !may {
        println!("skipped in part: without CAP_SYS_RESOURCE nobody lowers oom_score_adj");
    }
    may
}

fn of(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// A line of `/proc/PID/status`, its first figure.
fn figure(pid: i32, name: &str) -> u64 {
    let status = of(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {status}"));
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// Field 19 of `/proc/PID/stat`, of the first thread.
fn niceness(pid: i32) -> i32 {
    let stat = of(pid, "stat");
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    behind_name.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// The guard's worker of that name, once it runs.
fn worker(guard: i32, name: &str) -> i32 {
    let started = Instant::now();
    loop {
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut children = processes.filter(|pid: &i32| of(*pid, "status").contains(&format!("\nPPid:\t{guard}\n")));
        if let Some(pid) = children.find(|pid| of(*pid, "cmdline").ends_with(&format!("\0worker\0{name}\0"))) {
            return pid;
        }
        assert!(started.elapsed() < PATIENCE, "no worker {name}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn await_file(path: &Path, log: impl Fn() -> String) -> String {
    let started = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        assert!(started.elapsed() < PATIENCE, "{} was not written:\n{}", path.display(), log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn the_guard_and_its_alarms_are_protected_and_nothing_else_is() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let told = place.path().join("told");
    let script = place.path().join("tell");
    // What it is told comes after it was made ordinary: its input is awaited first.
    let text = format!(
        "#!/bin/sh\ncat > /dev/null\ncat /proc/$$/oom_score_adj > {told}.new\nawk '{{print $19}}' /proc/$$/stat >> {told}.new\nmv {told}.new {told}\n",
        told = told.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    place.configure(
        "postgresql:///postgres?host=/nonexistent&user=nobody",
        &format!(
            "\n[[alert.route]]\nname = \"script\"\ncommand = [{:?}]\n\
             [[service]]\nname = \"site\"\ndriver = \"process\"\ncommand = [\"/bin/sleep\", \"1000\"]\n\
             health = {{ command = [\"/bin/true\"] }}\n",
            script.display().to_string()
        ),
    );
    let guard = Guard::start(&place);
    assert_eq!(await_file(&told, || place.log()), "0\n0\n", "a command is nobody special");
    let alarm = worker(guard.pid(), "deliver");
    let score =
        if may_be_spared() { "-900\n".to_owned() } else { fs::read_to_string("/proc/self/oom_score_adj").unwrap() };
    for pid in [guard.pid(), alarm] {
        assert_eq!(of(pid, "oom_score_adj"), score);
        assert_eq!(niceness(pid), -10);
        assert!(figure(pid, "VmLck") > 0, "{}", of(pid, "status"));
    }
    let recovery = worker(guard.pid(), "recovery");
    let started = Instant::now();
    while (of(recovery, "oom_score_adj").as_str(), niceness(recovery)) != ("0\n", 0) {
        assert!(started.elapsed() < PATIENCE, "{}", of(recovery, "oom_score_adj"));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(figure(recovery, "VmLck"), 0);
    let status = place.await_status("a status", |s| s["limitations"].is_array());
    assert_eq!(status["limitations"].to_string().contains("the kernel may kill the guard"), !may_be_spared());
    for word in ["swapped", "priority"] {
        assert!(!status["limitations"].to_string().contains(word), "{}", status["limitations"]);
    }
    assert!(guard.stop().success());
}

#[test]
fn what_protection_lacks_is_said_with_its_cost() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent&user=nobody", "");
    let program = oxpecker().get_program().to_owned();
    let mut command = Command::new("prlimit");
    command
        .args(["--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock,-sys_resource,-sys_nice"])
        .arg("--inh-caps=-ipc_lock,-sys_resource,-sys_nice")
        .arg(program)
        .args(["--config", &place.path().join("oxpecker.toml").display().to_string()]);
    let guard = Guard::launch(&place, command, &["run"]);
    let status = place.await_status("a reading", |s| !s["host"].is_null());
    let text = status["limitations"].to_string();
    for (what, hint) in [
        ("the kernel may kill the guard", "OOMScoreAdjust=-900"),
        ("swapped out (at most 64 KiB may be locked)", "LimitMEMLOCK=infinity"),
        ("deciding and delivering have no raised priority", "LimitNICE=-10"),
        ("the sampling thread has no raised priority", "LimitNICE=-10"),
    ] {
        assert!(text.contains(what) && text.contains(hint), "{what}: {text}");
    }
    assert_eq!(figure(guard.pid(), "VmLck"), 0);
    assert!(guard.stop().success());
}
