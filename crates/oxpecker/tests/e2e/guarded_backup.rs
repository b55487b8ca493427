//! Backups that the guard makes: due, made, proven, remembered, shown; and a worker that is killed on the way.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    sync::mpsc,
    time::{Duration, Instant},
};

use jiff::{Timestamp, ToSpan as _};
use model::{EventKind, Moment, event::BackupTask};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Guard, Place, cluster, oxpecker, said};

/// A proof restores, starts a server and looks at everything; the next attempt after a failure waits a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// A schedule that no test meets by accident.
const SCHEDULE: &str = "0 3 29 2 * UTC";

/// A place with a repository, of which a guard knew before a run that was then missed: the next guard makes up for it at once.
pub fn place(url: &str) -> Place {
    let place = Place::new();
    let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let address = format!("file://{}", repository.display());
    let sections = format!(
        "\n[repository]\nurl = {address:?}\nkey_file = {key:?}\n[backup]\nschedule = {SCHEDULE:?}\njitter = \"0s\"\n"
    );
    place.configure(url, &sections);
    let made = place.ask(&["backup", "init"]);
    assert!(made.status.success(), "{}", said(&made));
    let state = journal::StateDir::claim(&place.state_dir()).unwrap();
    let journal = journal::Journal::open(state.path(), journal::JournalOptions::default()).unwrap();
    let years_ago = Timestamp::now().checked_sub((24 * 365 * 5).hours()).unwrap();
    let kind = EventKind::RepositoryDeclared { repository: address, schedule: Some(SCHEDULE.into()), max_age: None };
    drop(journal.append(Moment { wall: years_ago, boot_us: 0 }, &kind));
    journal.close(Duration::from_secs(10)).unwrap();
    place
}

fn await_event(place: &Place, what: &str, is_it: impl Fn(&EventKind) -> bool) -> EventKind {
    let started = Instant::now();
    loop {
        if let Some(event) = place.events().into_iter().find(|event| is_it(&event.kind)) {
            return event.kind;
        }
        assert!(started.elapsed() < PATIENCE, "{what} was not recorded: {:?}\n{}", place.event_names(), place.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The guard's children that are backup workers.
fn workers(guard: &Guard) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", guard.pid())).unwrap_or_default();
    let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"worker\0backup\0"))
    })
    .collect()
}

#[test]
fn a_run_that_is_due_makes_a_backup_proves_it_and_shows_it() {
    let Some(cluster) = cluster(&[("checkpoint_timeout", "30s")]) else { return };
    let place = place(&cluster.url("postgres"));
    let guard = Guard::start(&place);
    let started = await_event(&place, "a run", |kind| matches!(kind, EventKind::BackupStarted { .. }));
    let EventKind::BackupStarted { task, reason } = started else { unreachable!() };
    assert!(task == BackupTask::Create && reason.contains("was missed"), "{reason}");
    let worker = workers(&guard);
    if let [pid] = worker.as_slice() {
        // It steps back as its first act, which may be a moment after the event; a worker that is done has no file any more.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).is_ok_and(|score| score.trim() != "500") {
            assert!(std::time::Instant::now() < deadline, "the worker does not offer itself to the OOM killer first");
        }
    }
    let finished = await_event(&place, "a backup", |kind| matches!(kind, EventKind::BackupFinished { .. }));
    let EventKind::BackupFinished { backup, size, .. } = finished else { unreachable!() };
    assert!(size.0 > 1 << 20, "{size}");
    await_event(&place, "an end of the proof", |kind| {
        matches!(kind, EventKind::ProofFinished { .. } | EventKind::ProofFailed { .. })
    });
    let proven = place.events().into_iter().find_map(|event| match event.kind {
        EventKind::ProofFinished { backup, recovery_time, .. } => Some((backup, recovery_time)),
        _ => None,
    });
    let (proven, recovery_time) =
        proven.unwrap_or_else(|| panic!("not proven: {:?}\n{}", place.events().last(), place.log()));
    assert!(proven == backup && recovery_time.is_some(), "{recovery_time:?}");
    await_event(&place, "the retention", |kind| matches!(kind, EventKind::RetentionApplied { kept: 1, .. }));

    let status = place.await_status("the end of the run", |s| s["backup"]["running"].is_null());
    let shown = &status["backup"];
    assert_eq!(shown["proven"]["id"], backup.as_str(), "{shown}");
    assert_eq!(shown["last"]["id"], backup.as_str(), "{shown}");
    assert!(shown["proven"]["recovery_time"].is_object() && shown["failures"] == 0, "{shown}");
    assert!(shown["next_run"].as_str().is_some_and(|next| next.contains("-02-29T03:00:00")), "{shown}");
    // Both lie below the same temporary directory: named as such, always, and not well.
    assert_eq!(shown["exposures"][1]["exposure"], "same_disk", "{shown}");
    let text = place.ask(&["status"]);
    let text = (text.status.code(), said(&text));
    for part in ["last proven", "RTO measured", "RPO now", "ON THE DATABASE'S OWN DISK", "NOT CONFIRMED"] {
        assert!(text.1.contains(part), "no {part:?} in {}", text.1);
    }
    assert_eq!(text.0, Some(1), "{}", text.1);
    assert!(status["alerts"].as_array().is_some_and(|all| all.iter().any(|a| a["rule"] == "repository-unprotected")));
    let listed = place.json(&["backup", "list"]);
    assert_eq!(listed["backups"][0]["proven"], true, "{listed}");
    assert!(guard.stop().success(), "{}", place.log());

    // The next guard knows all of it again, and nothing is due.
    let guard = Guard::start(&place);
    let status = place.await_status("a look", |s| s["backup"]["looked"] == true);
    assert_eq!(status["backup"]["proven"]["id"], backup.as_str());
    assert!(guard.stop().success(), "{}", place.log());
    let runs = place.event_names().into_iter().filter(|name| *name == "backup_started").count();
    assert_eq!(runs, 1);
}

#[test]
fn slow_a_killed_worker_is_an_event_and_the_next_attempt_completes() {
    let Some(cluster) = cluster(&[("checkpoint_timeout", "30s")]) else { return };
    let place = place(&cluster.url("postgres"));
    let guard = Guard::start(&place);
    await_event(&place, "a run", |kind| matches!(kind, EventKind::BackupStarted { .. }));
    place.await_status("work", |s| s["backup"]["running"]["stage"].as_str().is_some_and(|stage| stage != "beginning"));
    for pid in workers(&guard) {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    let failed = await_event(&place, "a failure", |kind| {
        matches!(kind, EventKind::BackupFailed { .. } | EventKind::ProofFailed { .. })
    });
    let (error, retry_at) = match failed {
        EventKind::BackupFailed { error, retry_at, failures: 1 } => (error, retry_at),
        EventKind::ProofFailed { reasons, retry_at, failures: 1, .. } => (reasons.join("; "), retry_at),
        other => panic!("{other:?}"),
    };
    assert!(error.contains("signal: 9") && retry_at.is_some(), "{error} {retry_at:?}");
    let shown = place.json(&["status"]);
    assert_eq!(shown["backup"]["failures"], 1, "{shown}");
    await_event(&place, "a proven backup", |kind| matches!(kind, EventKind::ProofFinished { .. }));
    let status = place.await_status("the end of the run", |s| s["backup"]["running"].is_null());
    assert_eq!(status["backup"]["failures"], 0, "{status}");
    assert!(guard.stop().success(), "{}", place.log());
}

/// Waits until the guard's worker makes a backup, and holds it there: `SIGSTOP`, so that nothing depends on how fast it is.
fn held_worker(place: &Place, guard: &Guard) -> Pid {
    await_event(place, "a run", |kind| matches!(kind, EventKind::BackupStarted { task: BackupTask::Create, .. }));
    let started = Instant::now();
    loop {
        if let [pid] = workers(guard).as_slice() {
            let pid = Pid::from_raw(*pid).unwrap();
            kill_process(pid, Signal::STOP).unwrap();
            // What becomes of it when its guard dies depends on whether it stands still by then, all its threads.
            while !stands_still(pid) {
                assert!(started.elapsed() < PATIENCE, "the worker does not stop: {}", place.log());
                std::thread::sleep(Duration::from_millis(5));
            }
            return pid;
        }
        assert!(started.elapsed() < PATIENCE, "no worker was seen: {:?}\n{}", place.event_names(), place.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stands_still(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    states.all(|stat| stat.contains(") T "))
}

fn count(place: &Place, name: &str) -> usize {
    place.event_names().into_iter().filter(|event| *event == name).count()
}

#[test]
fn a_reload_that_does_not_concern_a_running_backup_leaves_it_alone() {
    let Some(cluster) = cluster(&[("checkpoint_timeout", "30s")]) else { return };
    let place = place(&cluster.url("postgres"));
    let config = place.path().join("oxpecker.toml");
    let text = fs::read_to_string(&config).unwrap().replace("[backup]\n", "[backup]\nprove = \"never\"\n");
    fs::write(&config, &text).unwrap();
    let guard = Guard::start(&place);
    let worker = held_worker(&place, &guard);
    fs::write(&config, format!("{text}\n[journal]\nkeep_events = \"99d\"\n")).unwrap();
    guard.signal(Signal::HUP);
    let started = Instant::now();
    while count(&place, "guard_started") < 2 {
        assert!(started.elapsed() < PATIENCE, "the guard did not begin anew: {}", place.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(workers(&guard), [worker.as_raw_nonzero().get()], "{}", place.log());
    let status = place.await_status("the run that goes on", |s| !s["backup"]["running"].is_null());
    assert_eq!(status["backup"]["failures"], 0, "{status}");
    kill_process(worker, Signal::CONT).unwrap();
    await_event(&place, "the backup", |kind| matches!(kind, EventKind::BackupFinished { .. }));
    await_event(&place, "the retention", |kind| matches!(kind, EventKind::RetentionApplied { .. }));
    assert_eq!((count(&place, "backup_started"), count(&place, "backup_failed")), (1, 0), "{}", place.log());
    // One that concerns it ends what runs, and begins anew.
    fs::write(&config, text.replace("[backup]\n", "[backup]\nmax_age = \"3d\"\n")).unwrap();
    guard.signal(Signal::HUP);
    place.await_status("the new limit", |s| s["backup"]["max_age"].to_string().contains("259200"));
    assert!(guard.stop().success(), "{}", place.log());
}

#[test]
fn a_guard_that_is_killed_takes_its_worker_along_and_the_next_one_makes_the_backup() {
    let Some(cluster) = cluster(&[("checkpoint_timeout", "30s")]) else { return };
    let place = place(&cluster.url("postgres"));
    let guard = Guard::start(&place);
    let worker = held_worker(&place, &guard);
    guard.kill9();
    let started = Instant::now();
    while rustix::process::test_kill_process(worker).is_ok()
        && fs::read_to_string(format!("/proc/{worker}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    {
        assert!(started.elapsed() < PATIENCE, "the worker outlived its guard");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Whatever the dead one left in the repository is in nobody's way.
    let guard = Guard::start(&place);
    await_event(&place, "the backup", |kind| matches!(kind, EventKind::BackupFinished { .. }));
    await_event(&place, "the retention", |kind| matches!(kind, EventKind::RetentionApplied { kept: 1, .. }));
    assert!(guard.stop().success(), "{}", place.log());
    let checked = place.ask(&["backup", "check", "--deep"]);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn a_repository_out_of_reach_is_an_alarm_that_ends_when_it_is_back() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = place(&cluster.url("postgres"));
    let config = place.path().join("oxpecker.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("[repository]", "[alert.rules.backup-failing]\nfailures = 1\n[repository]");
    fs::write(&config, text).unwrap();
    let (here, away) = (place.path().join("repository"), place.path().join("away"));
    fs::rename(&here, &away).unwrap();
    let guard = Guard::start(&place);
    let problem = await_event(&place, "the problem", |kind| matches!(kind, EventKind::RepositoryProblem { .. }));
    let EventKind::RepositoryProblem { problem, .. } = problem else { unreachable!() };
    assert!(problem.contains("there is no repository"), "{problem}");
    let firing = |status: &serde_json::Value| {
        status["alerts"].as_array().is_some_and(|all| all.iter().any(|alert| alert["rule"] == "backup-failing"))
    };
    let status = place.await_status("the alarm", firing);
    assert_eq!((&status["backup"]["looked"], count(&place, "backup_started")), (&false.into(), 0), "{status}");
    let text = said(&place.ask(&["status"]));
    assert!(text.contains("there is no repository"), "{text}");
    // It is mounted again; a person does not want to wait for the next look.
    fs::rename(&away, &here).unwrap();
    guard.signal(Signal::HUP);
    await_event(&place, "the backup", |kind| matches!(kind, EventKind::BackupFinished { .. }));
    place.await_status("the end of the alarm", |status| !firing(status));
    assert!(guard.stop().success(), "{}", place.log());
}

/// What the guard does when the host starves: it tells its worker to step back, and later to go on. Here by the guard's own words.
#[test]
fn a_worker_that_is_told_to_step_back_reads_nothing_until_it_may_go_on() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = place(&cluster.url("postgres"));
    let config = &place.json(&["config", "show"])["config"];
    let mut command = oxpecker();
    command.args(["worker", "backup"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut worker = command.spawn().unwrap();
    let mut orders = worker.stdin.take().unwrap();
    let mut tell = |order: serde_json::Value| writeln!(orders, "{order}").unwrap();
    tell(serde_json::json!({ "say": "begin", "protocol": 1, "job": "create", "config": config }));
    tell(serde_json::json!({ "say": "pause" }));
    let (heard, said) = mpsc::channel();
    let stdout = BufReader::new(worker.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = heard.send(serde_json::from_str::<serde_json::Value>(&line).unwrap());
        }
    });
    let mut last = String::new();
    let mut is_said = |what: &str, stage: Option<&str>| {
        while let Ok(message) = said.recv_timeout(PATIENCE) {
            last = message.to_string();
            if message["say"] == what && stage.is_none_or(|stage| message["stage"] == stage) {
                return true;
            }
        }
        panic!("{what} was not said, but last {last}");
    };
    assert!(is_said("progress", Some("copying")));
    // Bytes that it asked the system for: quiet is it when there are no more of them.
    let read = || {
        let io = fs::read_to_string(format!("/proc/{}/io", worker.id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap()
    };
    let mut before = read();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = read();
        if now == before {
            break;
        }
        before = now;
    }
    let made = || place.json(&["backup", "list"])["backups"].as_array().map(Vec::len);
    assert_eq!(made(), Some(0), "it was made though it was to step back");
    tell(serde_json::json!({ "say": "resume" }));
    assert!(is_said("created", None) && made() == Some(1));
    // The end of its input is the end of the guard.
    drop(orders);
    worker.wait().unwrap();
}

#[test]
fn without_a_repository_there_is_a_limitation_and_no_alert() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    place.configure(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    let status = place.await_status("a reading", |s| !s["activity"].is_null());
    assert!(status["backup"].is_null());
    let limitations = status["limitations"].to_string();
    assert!(limitations.contains("no [repository] is declared"), "{limitations}");
    let text = said(&place.ask(&["status"]));
    assert!(text.contains("none is configured"), "{text}");
    assert_eq!(status["alerts"].as_array().map(Vec::len), Some(0), "{status}");
    assert!(guard.stop().success(), "{}", place.log());
}
