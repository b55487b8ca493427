//! Tests with a network or file systems of their own: they run as a child in namespaces of its own, so that nothing that they mount or cut
//! concerns anybody else, and nothing of it stays, whatever becomes of them.

use std::{env, path::Path, process::Command};

use crate::{wal_fault_disk, wal_fault_network};

/// Tells the child which test, of which major version.
const TASK: &str = "OXPECKER_TEST_APART";

/// Not a test: what runs apart.
#[test]
#[ignore = "run by the other tests"]
fn child() {
    let Ok(task) = env::var(TASK) else { return };
    let (what, major) = task.split_once(' ').unwrap();
    let major = major.parse().unwrap();
    match what {
        "cut" => wal_fault_network::cut(major),
        "half-open" => wal_fault_network::half_open(major),
        "slow" => wal_fault_network::slow(major),
        "store-full" => wal_fault_disk::store_full(major),
        "store-read-only" => wal_fault_disk::store_read_only(major),
        "pg-wal-full" => wal_fault_disk::pg_wal_full(major),
        _ => panic!("what is {task:?}?"),
    }
}

/// Runs a test of [`child`]'s apart. Where that is not possible it says so and is content.
pub fn apart(what: &str, major: u32) {
    if !rustix_is_root() {
        println!("skipped: only root has namespaces, and may start a server as another user");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private"]).arg(env::current_exe().unwrap());
    command.args(["--exact", "apart::child", "--ignored", "--nocapture"]).env(TASK, format!("{what} {major}"));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: unshare: {error} (package util-linux)"),
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    if said.contains("unshare: ") {
        return println!("skipped: no namespaces are to be had here");
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn rustix_is_root() -> bool {
    // Who owns what a process opens is the one that it runs as.
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// Runs a program; false, and said why, where it does not do it.
pub fn ran(program: &str, words: &str) -> bool {
    match Command::new(program).args(words.split(' ')).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("{program} {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("{program}: {error}");
            false
        }
    }
}

/// A file system in memory.
pub fn mounted(at: &Path, options: &str) -> bool {
    ran("mount", &format!("-t tmpfs -o {options} tmpfs {}", at.display()))
}
