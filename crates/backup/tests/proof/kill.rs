//! A prover that is killed: its server ends with it, and the next start removes the rest.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use backup::{
    progress::Silent,
    proof::{FenceLimits, ProofQuery, ProveOptions, Receipt, Verdict, clean_up, prove_command},
};

use crate::source::{Source, on};

/// Tells the child what to prove, as JSON-less lines.
const ORDER: &str = "OXPROOF_TEST_ORDER";
/// Where it writes the receipt; without it the proof sleeps until it is killed.
const ANSWER: &str = "OXPROOF_TEST_ANSWER";

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
    let answer = std::env::var_os(ANSWER);
    if answer.is_none() {
        let sql = "SELECT pg_sleep(600)".into();
        options.queries = vec![ProofQuery { database: "postgres".into(), sql, expect: None }];
    }
    let receipt = prove_command(&options, &format!("cp -a {backup}/. {{pgdata}}"), &Silent).unwrap();
    if let Some(answer) = answer {
        fs::write(answer, serde_json::to_vec(&receipt).unwrap()).unwrap();
    }
}

fn order(source: &Source, backup: &Path) -> String {
    let options = source.options();
    let paths = [&options.scratch, &options.registry, &options.bin_dirs[0], &backup.to_owned()];
    paths.map(|path| path.display().to_string()).join("\n")
}

fn start_prover(source: &Source, backup: &Path, own_root: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_prover_that_is_killed"])
        .env(ORDER, format!("{}\n{own_root}", order(source, backup)))
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
    for major in [13, 18] {
        on(major, |installation| {
            let source = Source::start(installation, &[]);
            let backup = source.back_up(|_| {});
            let options = source.options();
            let mut prover = start_prover(&source, &backup, own_root);
            let scratch = options.scratch.clone();
            // The postmaster and its children; one of them is the sleeping session.
            await_that("the scratch server sleeps in the query", || {
                processes_below(&scratch).iter().any(|process| {
                    fs::read(process.join("cmdline"))
                        .is_ok_and(|line| String::from_utf8_lossy(&line).contains("SELECT"))
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
}

#[test]
fn a_killed_prover_leaves_nothing() {
    a_killed_prover_leaves_nothing_after_the_next_start("yes");
}

#[test]
fn a_killed_prover_without_namespaces_leaves_nothing() {
    a_killed_prover_leaves_nothing_after_the_next_start("no");
}

/// Who is not root gets its namespaces by way of a user namespace, and Landlock.
#[test]
fn an_ordinary_user_proves_behind_a_fence_too() {
    on(15, |installation| {
        let source = Source::start(installation, &[]);
        let backup = source.back_up(|_| {});
        let owner = fs::metadata(&backup).unwrap();
        if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
            println!("skipped: this is no root, so that every other test is this one");
            return;
        }
        // Where nobody but us may look, that user could not even find this program.
        let program = std::env::current_exe().unwrap();
        let reachable =
            program.ancestors().skip(1).all(|dir| fs::metadata(dir).unwrap().permissions().mode() & 0o001 != 0);
        if !reachable {
            println!("skipped: {} can't be reached by an ordinary user", program.display());
            return;
        }
        let options = source.options();
        for dir in [&options.scratch, &options.registry] {
            fs::create_dir(dir).unwrap();
            source.cluster.give(dir).unwrap();
        }
        let answer = source.directory("answer").join("receipt");
        let status = Command::new("setpriv")
            .args([&format!("--reuid={}", owner.uid()), &format!("--regid={}", owner.gid())])
            .args(["--clear-groups", "--"])
            .arg(program)
            .args(["--exact", "kill::the_prover_that_is_killed"])
            .env(ORDER, format!("{}\nyes", order(&source, &backup)))
            .env(ANSWER, &answer)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let receipt: Receipt = serde_json::from_slice(&fs::read(&answer).unwrap()).unwrap();
        assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
        let fence = receipt.fence.as_ref().unwrap();
        // Kernels and containers differ in what they allow; whatever is missing must be said.
        assert!(!fence.own_root && !fence.gaps.is_empty(), "{fence:#?}");
        println!("{fence:?}");
        assert!(fence.own_network || fence.gaps.iter().any(|gap| gap.contains("namespaces")), "{fence:#?}");
        assert!(fence.landlock || fence.gaps.iter().any(|gap| gap.contains("Landlock")), "{fence:#?}");
        assert_eq!(fs::read_dir(&options.scratch).unwrap().count(), 0);
    });
}
