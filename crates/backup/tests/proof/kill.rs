//! A prover that is killed: its server ends with it, and the next start removes the rest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use backup::{
    progress::Silent,
    proof::{FenceLimits, ProofQuery, ProveOptions, clean_up, prove_command},
};

use crate::source::{Source, on};

/// Tells the child what to prove, as JSON-less lines.
const ORDER: &str = "OXPROOF_TEST_ORDER";

/// Not a test: the prover that is killed, when this program is started as such.
#[test]
fn the_prover_that_is_killed() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let mut lines = order.lines();
    let mut next = || lines.next().unwrap();
    let (scratch, registry, bin_dir, backup, own_root) = (next(), next(), next(), next(), next());
    let mut options = ProveOptions::new(scratch, registry);
    options.bin_dirs = vec![PathBuf::from(bin_dir)];
    options.fence = FenceLimits { no_namespaces: own_root == "no", no_landlock: false };
    options.queries =
        vec![ProofQuery { database: "postgres".into(), sql: "SELECT pg_sleep(600)".into(), expect: None }];
    let _ = prove_command(&options, &format!("cp -a {backup} {{pgdata}}"), &Silent);
}

fn start_prover(source: &Source, backup: &Path, own_root: &str) -> Child {
    let options = source.options();
    let bin_dir = &options.bin_dirs[0];
    let order = [&options.scratch, &options.registry, bin_dir, &backup.to_owned()]
        .map(|path| path.display().to_string())
        .join("\n");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_prover_that_is_killed"])
        .env(ORDER, format!("{order}\n{own_root}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Processes that work below `dir`.
fn processes_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let paths = entries
        .map(|entry| entry.path())
        .filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)));
    paths.collect()
}

fn await_that(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_killed_prover_leaves_nothing_after_the_next_start(own_root: &str) {
    on(&[13, 18], |installation| {
        let source = Source::start(installation, &[]);
        let backup = source.back_up(|_| {});
        let options = source.options();
        let mut prover = start_prover(&source, &backup, own_root);
        let scratch = options.scratch.clone();
        // The postmaster and its children; one of them is the sleeping session.
        await_that("the scratch server sleeps in the query", || {
            processes_below(&scratch).iter().any(|process| {
                fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains("SELECT"))
            })
        });
        let oom: Vec<String> = processes_below(&scratch)
            .iter()
            .filter_map(|process| fs::read_to_string(process.join("oom_score_adj")).ok())
            .collect();
        assert!(oom.len() > 2 && oom.iter().all(|score| score.trim() == "500"), "{oom:?}");
        // While it lives nobody takes it away.
        assert_eq!(clean_up(&options.registry).unwrap().removed.len(), 0);
        prover.kill().unwrap();
        prover.wait().unwrap();
        if own_root == "yes" {
            await_that("the scratch server ends with its prover", || processes_below(&scratch).is_empty());
        }
        let left: Vec<PathBuf> = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 1);
        let swept = clean_up(&options.registry).unwrap();
        assert_eq!((swept.removed, swept.left), (left.clone(), vec![]));
        assert!(processes_below(&scratch).is_empty());
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&options.registry).unwrap().count(), 0);
        let name = left[0].file_name().unwrap();
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name"]).arg(name).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&groups.stdout), "");
    });
}

#[test]
fn a_killed_prover_leaves_nothing() {
    a_killed_prover_leaves_nothing_after_the_next_start("yes");
}

#[test]
fn a_killed_prover_without_namespaces_leaves_nothing() {
    a_killed_prover_leaves_nothing_after_the_next_start("no");
}
