//! The process driver with real processes.
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
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use common::{
    scenario::{self, PATIENCE},
    service::await_that,
};
use services::{
    driver::{Act, ActError, Driver as _},
    health::Process,
};
use stage::{Stage, kill9};

#[tokio::test]
async fn acts_are_idempotent() {
    let stage = Stage::new();
    scenario::acts_are_idempotent(&stage.one("site", |_| {}).scene()).await;
}

#[tokio::test]
async fn a_restart_is_another_run() {
    let stage = Stage::new();
    scenario::a_restart_is_another_run(&stage.one("site", |_| {}).scene()).await;
}

#[tokio::test]
async fn an_end_is_seen_with_its_code() {
    let stage = Stage::new();
    scenario::an_end_is_seen_with_its_code(&stage.one("site", |_| {}).scene()).await;
}

#[tokio::test]
async fn changes_are_told() {
    let stage = Stage::new();
    scenario::changes_are_told(&stage.one("site", |_| {}).scene()).await;
}

#[tokio::test]
async fn two_agents_start_it_once() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    let other = stage.again("site", one.service.clone(), |_| {});
    scenario::two_agents_start_it_once(&one.scene(), &other.driver).await;
}

#[tokio::test]
async fn an_unknown_service_is_refused() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    scenario::an_unknown_service_is_refused(&one.driver).await;
}

#[tokio::test]
async fn it_outlives_its_driver_and_another_one_knows_it() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    one.scene().act(Act::Start).await;
    let seen = one.scene().until_healthy().await;
    let (service, pid) = (one.service.clone(), one.service.pid().unwrap());
    drop(one.driver);
    let next = stage.again("site", service, |_| {});
    let again = next.scene().look().await;
    assert_eq!((again.process, again.run, next.service.pid()), (Process::Running, seen.run, Some(pid)));
    next.scene().act(Act::Start).await;
    assert_eq!(next.service.pid(), Some(pid));
    next.scene().act(Act::Stop).await;
    assert!(!next.service.runs());
    assert!(next.log().contains("stopped in order"), "{}", next.log());
}

#[tokio::test]
async fn a_killed_keeper_is_replaced_and_takes_nothing_with_it() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    let scene = one.scene();
    scene.act(Act::Start).await;
    let seen = scene.until_healthy().await;
    // What was before.
    let _ = tokio::time::timeout(Duration::from_secs(1), one.driver.changed()).await;
    let keeper = stage.recorded("site", "kept").unwrap();
    kill9(keeper);
    tokio::time::timeout(PATIENCE, one.driver.changed()).await.expect("nobody noticed");
    // Who only watches starts nothing.
    let _ = tokio::time::timeout(Duration::from_millis(300), one.driver.changed()).await;
    assert_eq!(stage.recorded("site", "kept"), Some(keeper));
    one.driver.tend().await;
    await_that("a new keeper", PATIENCE, || stage.recorded("site", "kept").is_some_and(|new| new != keeper));
    let after = scene.look().await;
    assert_eq!((after.process, after.run, one.service.starts().len()), (Process::Running, seen.run, 1));
    one.service.ignores_term(false);
    scene.act(Act::Stop).await;
    assert!(!one.service.runs());
    assert!(one.log().contains("stopped in order"), "what it wrote after that arrived: {}", one.log());
    // Without a parent nobody is told the code.
    assert_eq!(scene.look().await.process, Process::Ended { code: None });
}

#[tokio::test]
async fn it_is_stopped_and_started_though_nobody_noticed_that_its_keeper_is_gone() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    let scene = one.scene();
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    kill9(stage.recorded("site", "kept").unwrap());
    scene.act(Act::Restart).await;
    scene.until_healthy().await;
    assert_eq!((one.service.starts().len(), one.service.doubled()), (2, 0));
    scene.act(Act::Stop).await;
}

#[tokio::test]
async fn all_is_killed_and_started_again() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    let scene = one.scene();
    for run in 1..=3 {
        scene.act(Act::Start).await;
        scene.until_healthy().await;
        kill9(stage.recorded("site", "kept").unwrap());
        kill9(stage.recorded("site", "run").unwrap());
        let seen = scene.until("its end", |seen| seen.process != Process::Running).await;
        assert_eq!((seen.process, seen.run), (Process::Ended { code: None }, Some(run)));
        await_that("it is gone", PATIENCE, || !one.service.runs());
    }
    assert_eq!((one.service.starts().len(), one.service.doubled()), (3, 0));
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_in_time() {
    let stage = Stage::new();
    let one = stage.one("site", |declared| declared.stop_within = Duration::from_millis(300));
    one.service.ignores_term(true);
    let scene = one.scene();
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    scene.act(Act::Stop).await;
    assert!(!one.service.runs());
    assert_eq!(scene.look().await.process, Process::Ended { code: None });
    assert!(one.log().contains("did not stop within 300ms"), "{}", one.log());
}

#[tokio::test]
async fn the_host_going_down_stops_it_in_order() {
    let stage = Stage::new();
    let one = stage.one("site", |_| {});
    let scene = one.scene();
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    // As init does, to everybody.
    let keeper = rustix::process::Pid::from_raw(stage.recorded("site", "kept").unwrap()).unwrap();
    rustix::process::kill_process(keeper, rustix::process::Signal::TERM).unwrap();
    let seen = scene.until("its end", |seen| seen.process != Process::Running).await;
    assert_eq!(seen.process, Process::Ended { code: Some(0) });
    await_that("its word", PATIENCE, || one.log().contains("stopped in order"));
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn what_it_leaves_behind_is_ended_too() {
    let stage = Stage::new();
    let (marks, file) = (stage.path().to_owned(), stage.path().join("pids"));
    // One in its group, one in a session of its own, one that would not go.
    let script = format!(
        "cd {}; (sleep 1000 & echo $! >>pids; setsid sh -c 'echo $$ >>pids; trap \"\" TERM; while :; do sleep 0.2; done' & exec sleep 1000) & \
         while [ $(cat pids | wc -l) -lt 2 ]; do sleep 0.05; done; echo ready; exit 3",
        marks.display()
    );
    fs::write(&file, "").unwrap();
    let one = stage.one("forks", |declared| declared.command = shell(&script));
    let scene = one.scene();
    scene.act(Act::Start).await;
    let seen = scene.until("its end", |seen| seen.process != Process::Running).await;
    assert_eq!(seen.process, Process::Ended { code: Some(3) });
    let pids: Vec<i32> = fs::read_to_string(&file).unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    await_that("they are gone", PATIENCE, || {
        pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[tokio::test]
async fn a_flood_of_output_has_a_bound() {
    let stage = Stage::new();
    let one = stage.one("floods", |declared| {
        declared.command = shell("exec yes 'the same line again and again'");
        declared.log_bytes = 64 * 1024;
    });
    let scene = one.scene();
    scene.act(Act::Start).await;
    let log = one.driver.log_path(&one.name);
    let oldest = log.with_extension("log.3");
    await_that("three rotations", PATIENCE, || oldest.exists());
    let begin = Instant::now();
    scene.act(Act::Stop).await;
    assert!(begin.elapsed() < PATIENCE, "a flood holds up no stop");
    let sizes = fs::read_dir(stage.state()).unwrap().flatten();
    let sizes: Vec<u64> = sizes
        .filter(|file| file.file_name().to_string_lossy().contains(".log"))
        .map(|file| file.metadata().unwrap().len())
        .collect();
    assert!(sizes.len() <= 4 && sizes.iter().all(|size| *size <= 80 * 1024), "{sizes:?}");
}

#[tokio::test]
async fn what_can_not_be_started_says_why() {
    let stage = Stage::new();
    let plain = stage.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    let text = |path: &std::path::Path| path.display().to_string();
    let no_program = text(&stage.path().join("nothing"));
    for (what, command, user, files, expected) in [
        ("no program", vec![no_program], None, vec![], "Absent: starting"),
        ("none in the path", vec!["no-such-program-anywhere".to_owned()], None, vec![], "Absent: starting"),
        ("not executable", vec![text(&plain)], None, vec![], "Denied: starting"),
        ("a directory", vec!["/etc".to_owned()], None, vec![], "Denied: starting"),
        ("no command", vec![], None, vec![], "Failed: its command is empty"),
        ("no such user", shell("true"), Some("no-such-user"), vec![], "Absent: there is no user no-such-user"),
        (
            "no such file",
            shell("true"),
            None,
            vec!["/no/such/file"],
            "Absent: reading the environment file /no/such/file",
        ),
        ("a strange file", shell("true"), None, vec!["/bin/sh"], "Failed: reading the environment file /bin/sh"),
        ("NUL", vec!["/bin/sh".to_owned(), "a\0b".to_owned()], None, vec![], "Failed: starting"),
    ] {
        let one = stage.one(what, |declared| {
            declared.command = command;
            declared.user = user.map(str::to_owned);
            declared.environment_files = files.into_iter().map(str::to_owned).collect();
        });
        let error = one.driver.act(&one.name, Act::Start).await.unwrap_err();
        let (kind, why) = match &error {
            ActError::Absent { why, .. } => ("Absent", why),
            ActError::Denied { why, .. } => ("Denied", why),
            ActError::Failed { why, .. } => ("Failed", why),
            ActError::NoAnswer { why, .. } => ("NoAnswer", why),
        };
        let said = format!("{kind}: {why}");
        assert!(said.starts_with(expected), "{what}: {said}");
        assert!(error.to_string().contains("\nhint: "), "{error}");
        assert_ne!(one.scene().look().await.process, Process::Running, "{what}");
    }
}

#[tokio::test]
async fn what_was_removed_is_provisioned_as_far_as_it_can_be() {
    let stage = Stage::new();
    let home = stage.path().join("var/site");
    let one = stage.one("site", |declared| declared.directory = Some(home.clone()));
    let scene = one.scene();
    assert_eq!(scene.look().await.process, Process::Removed);
    let error = one.driver.act(&one.name, Act::Start).await.unwrap_err();
    assert!(matches!(error, ActError::Absent { .. }), "{error}");
    scene.act(Act::Provision).await;
    scene.until_healthy().await;
    scene.act(Act::Provision).await;
    assert_eq!(one.service.starts().len(), 1);
    scene.act(Act::Stop).await;
    let gone = stage.one("gone", |declared| declared.command = vec!["/no/such/program".into()]);
    assert_eq!(gone.scene().look().await.process, Process::Removed);
    let error = gone.driver.act(&gone.name, Act::Provision).await.unwrap_err();
    assert!(matches!(&error, ActError::Absent { hint, .. } if hint.contains("install")), "{error}");
}

#[tokio::test]
async fn a_service_gets_what_is_declared_and_nothing_of_ours() {
    let stage = Stage::new();
    let file = stage.path().join("variables");
    fs::write(&file, "FROM_FILE=1\nBOTH=file\n").unwrap();
    // A descriptor of ours that survives an exec.
    let leaked = fs::File::open("/etc/passwd").unwrap();
    let keep = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(&leaked, keep).unwrap();
    let script = "ls -l /proc/self/fd; env; pwd; umask; cut -d' ' -f4-6 /proc/$$/stat; echo pid $$; cat /proc/self/oom_score_adj; echo end";
    let one = stage.one("looks", |declared| {
        declared.command = shell(script);
        declared.directory = Some("/usr".into());
        declared.environment.insert("BOTH".into(), "declared".into());
        declared.environment.insert("WORDS".into(), "two words".into());
        declared.environment_files = vec![file.display().to_string(), "-/no/such/file".into()];
    });
    one.scene().act(Act::Start).await;
    await_that("its last word", PATIENCE, || one.log().contains("Z end\n"));
    let log = one.log();
    let lines: Vec<&str> = log.lines().filter_map(|line| line.split_once("Z ")).map(|(_, said)| said).collect();
    for said in ["FROM_FILE=1", "BOTH=declared", "WORDS=two words", "/usr", "0022"] {
        assert!(lines.contains(&said), "{said}: {log}");
    }
    for ours in ["CARGO", "NEXTEST", "/etc/passwd", "socket:"] {
        assert!(!log.contains(ours), "{ours}: {log}");
    }
    assert!(log.contains("0 -> /dev/null"), "{log}");
    let pid = lines.iter().find_map(|line| line.strip_prefix("pid ")).unwrap();
    assert!(
        lines.iter().any(|line| line.ends_with(&format!(" {pid} {pid}"))),
        "a group and a session of its own: {log}"
    );
}

#[tokio::test]
async fn it_runs_as_whom_it_should() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root starts services as somebody else");
        return;
    }
    let stage = Stage::new();
    let one = stage.one("nobody", |declared| {
        declared.command =
            shell("id -u; echo $USER; grep ^Groups /proc/self/status; echo again >/dev/stdout; echo end");
        declared.user = Some("nobody".into());
    });
    one.scene().act(Act::Start).await;
    await_that("its last word", PATIENCE, || one.log().contains("Z end\n"));
    let log = one.log();
    for said in ["Z 65534\n", "Z nobody\n", "Z again\n"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(!log.contains("Groups:\t0"), "{log}");
    let secret = stage.path().join("closed");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    let refused = stage.one("refused", |declared| {
        declared.user = Some("nobody".into());
        declared.directory = Some(secret);
    });
    let error = refused.driver.act(&refused.name, Act::Start).await.unwrap_err();
    assert!(matches!(&error, ActError::Denied { why, .. } if why.contains("entering its directory")), "{error}");
}

#[tokio::test]
async fn hostile_names_are_names() {
    let stage = Stage::new();
    let long = "x".repeat(300);
    for (number, name) in ["../../escape", ".", "a b\u{1b}[31m", "--help", "keep", "ä/ö", &long].into_iter().enumerate()
    {
        let service = common::service::ScratchService::new(stage.path(), &format!("service{number}"), &[]);
        let one = stage.again(name, service, |_| {});
        one.scene().act(Act::Start).await;
        one.scene().until_healthy().await;
        one.scene().act(Act::Stop).await;
        assert!(!one.service.runs(), "{name:?}");
    }
    let names: Vec<_> = fs::read_dir(stage.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 8, "all is in the state directory: {names:?}");
}

#[tokio::test]
async fn a_full_disk_loses_output_and_says_so_and_starts_nothing_unrecorded() {
    let stage = Stage::new();
    let state = stage.state();
    fs::create_dir(&state).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&state).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    }
    struct Unmount<'a>(&'a Stage);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            self.0.end();
            let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.state()).status();
        }
    }
    let count = stage.path().join("count");
    let script =
        format!("i=0; while :; do i=$((i+1)); printf '%01000d\\n' $i; echo $i >{}; sleep 0.01; done", count.display());
    let one = stage.one("site", |declared| declared.command = shell(&script));
    let written = || fs::read_to_string(&count).ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(0);
    let _unmount = Unmount(&stage);
    let scene = one.scene();
    scene.act(Act::Start).await;
    await_that("its first word", PATIENCE, || one.log().contains("00001\n"));
    let ballast = state.join("ballast");
    let fill = || {
        use std::io::Write as _;
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[b'x'; 512]).is_ok() {}
    };
    fill();
    // More than the last page of the disk and the FIFO hold together.
    let before = written();
    await_that("it writes on", PATIENCE, || written() >= before + 100);
    assert_eq!(scene.look().await.process, Process::Running, "it lives with that");
    let other = stage.again("other", one.service.clone(), |_| {});
    let error = other.driver.act(&other.name, Act::Start).await.unwrap_err();
    assert!(matches!(&error, ActError::Failed { why, .. } if why.contains("No space left")), "{error}");
    assert!(!other.service.runs());
    fs::remove_file(&ballast).unwrap();
    await_that("what was lost is said", PATIENCE, || {
        one.log().contains("bytes of the output were lost: No space left")
    });
    scene.act(Act::Stop).await;
    other.scene().act(Act::Start).await;
    other.scene().until_healthy().await;
    other.scene().act(Act::Stop).await;
}
