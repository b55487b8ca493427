//! The ladder's last rung on a real server whose stop is held open: whoever is killed meanwhile, nobody starts or kills a server that still writes.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::{Duration, Instant},
};

use model::{EventKind, event::SheddingStep};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use scratch::ScratchCluster;
use serde_json::Value;

use crate::{
    harness::{Guard, PATIENCE, Place, cluster, said},
    shedding::{CALM, PATIENT, PRESSED},
};

/// Longer than the ladder waits for an act to show (15 s) and than it takes until it tidies up behind (10 s).
const LONG: Duration = Duration::from_secs(30);

struct Stage {
    place: Place,
    cluster: ScratchCluster,
    /// The server's archiver waits for this file, and the end of the server for its archiver.
    open: tempfile::TempDir,
}

impl Stage {
    /// A server that is down, and ours to run.
    fn new() -> Option<Self> {
        let open = tempfile::tempdir().unwrap();
        // The server runs as another user where the tests run as root.
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let waits = format!("while [ ! -e {}/go ]; do sleep 0.1; done", open.path().display());
        let mut cluster = cluster(&[("archive_mode", "on"), ("archive_command", &waits)])?;
        fs::write(open_file(&open), "").unwrap();
        cluster.stop_fast().unwrap();
        Some(Self { place: Place::new(), cluster, open })
    }

    fn configure(&self, thresholds: &str) {
        let more = format!(
            "mode = \"observe\"\n[recovery]\nmode = \"act\"\n[shedding]\nmode = \"act\"\ncalm_for = \"1s\"\nstep_down_every = \"1s\"\n\
             stop_postgres = {{ declared = true, confirm = \"1s\", patience = \"1s\" }}\nstop_postgres_approved_by = \"eva, 2026-11-24\"\n\
             [shedding.thresholds]\n{PATIENT}\n{thresholds}\n\
             [[service]]\nname = \"site\"\ndriver = \"process\"\ndepends_on = [\"main\"]\nstable_for = \"500ms\"\ncommand = [\"/bin/sleep\", \"1000000\"]\n"
        );
        let path = self.place.configure(&self.cluster.url("postgres"), &more);
        let data = self.cluster.data_dir();
        let owner = fs::metadata(&data).unwrap().uid();
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let mut users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let owner = users.find(|fields| fields.get(2) == Some(&&*owner.to_string())).map_or("", |fields| fields[0]);
        let user = if rustix::process::geteuid().is_root() { format!("user = {owner:?}\n") } else { String::new() };
        let postgres = self.cluster.installation().bin_dir.join("postgres");
        let run = format!(
            "[postgres]\ndata_dir = {data:?}\ndriver = \"process\"\ncommand = [{postgres:?}, \"-D\", {data:?}]\n{user}"
        );
        let text = fs::read_to_string(&path).unwrap().replacen("[postgres]\n", &run, 1);
        fs::write(path, text).unwrap();
    }

    fn hold_stops(&self) {
        fs::remove_file(open_file(&self.open)).unwrap();
    }

    fn let_stop(&self) {
        fs::write(open_file(&self.open), "").unwrap();
    }

    fn await_main(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.place.await_status(what, |status| {
            let all = status["recovery"]["services"].as_array();
            all.is_some_and(|all| all.iter().any(|one| one["service"] == "main" && is_so(one)))
        });
    }

    fn postmaster(&self) -> Pid {
        let text = fs::read_to_string(self.cluster.data_dir().join("postmaster.pid")).unwrap();
        Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap()).unwrap()
    }

    /// Acts of the recovery on the server after that event.
    fn acts_after(&self, after: i64) -> Vec<String> {
        let acts = self.place.events().into_iter().filter(|event| event.id.0 > after);
        acts.filter_map(|event| match event.kind {
            EventKind::RecoveryActBegan { service, action, .. } if service.as_str() == "main" => Some(action),
            _ => None,
        })
        .collect()
    }

    /// What the server says of how it was started last.
    fn log(&self) -> String {
        let said = self.place.ask(&["service", "logs", "main"]);
        format!("{}\n{}", self.cluster.log_tail(), String::from_utf8_lossy(&said.stdout))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.let_stop();
        for name in ["site", "main"] {
            let stopped = self.place.ask(&["service", "stop", name, "--yes", "--by", "the test"]);
            if !stopped.status.success() {
                println!("{}", said(&stopped));
            }
        }
    }
}

fn open_file(open: &tempfile::TempDir) -> std::path::PathBuf {
    open.path().join("go")
}

fn stable(one: &Value) -> bool {
    one["well"] == true && one["runs"] == true
}

fn stops(one: &Value) -> bool {
    one["stopped_by"] == "the shedding ladder" && one["runs"] == true && one["stops"] == true
}

/// Somebody's `oxpecker worker recovery`: a child of that guard.
fn worker_of(guard: &Guard) -> Pid {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", guard.pid())).unwrap();
    let is_it = |pid: &&str| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("worker\0recovery")
    };
    Pid::from_raw(children.split_whitespace().find(is_it).unwrap().parse().unwrap()).unwrap()
}

#[test]
fn a_server_that_still_writes_is_left_to_end_over_kills_of_the_worker_and_of_the_guard() {
    let Some(stage) = Stage::new() else { return };
    stage.configure(CALM);
    let guard = Guard::start(&stage.place);
    stage.await_main("the server", stable);
    let before = stage.postmaster();
    stage.hold_stops();

    stage.configure(PRESSED);
    guard.signal(Signal::HUP);
    let taken = stage.place.await_event("the last rung", 0, |kind| {
        matches!(kind, EventKind::SheddingStepped { step: SheddingStep::Taken, rung: Some(rung), .. } if rung == "stop PostgreSQL")
    });
    stage.await_main("the stop", stops);
    assert!(
        said(&stage.place.ask(&["status"])).contains("stop PostgreSQL: being carried out since"),
        "{}",
        said(&stage.place.ask(&["status"]))
    );

    // The worker that ordered the stop is killed, then the guard; the pressure lasts longer than either is waited for.
    kill_process(worker_of(&guard), Signal::KILL).unwrap();
    stage.await_main("another worker that sees it", stops);
    guard.kill9();
    let guard = Guard::start(&stage.place);
    stage.await_main("another guard that sees it", stops);
    let began = Instant::now();
    while began.elapsed() < LONG {
        assert!(test_kill_process(before).is_ok() && stage.postmaster() == before, "{}", stage.log());
        assert_eq!(stage.acts_after(taken.id.0), Vec::<String>::new(), "{}", stage.place.log());
        std::thread::sleep(Duration::from_millis(250));
    }
    stage.await_main("it is still ours", stops);

    // Once it has written all it ends; and comes back, in order, once there is calm.
    stage.let_stop();
    stage.await_main("its end", |one| one["stopped_by"] == "the shedding ladder" && one["runs"] == false);
    stage.configure(CALM);
    guard.signal(Signal::HUP);
    stage.place.await_event("given back", taken.id.0, |kind| {
        matches!(kind, EventKind::SheddingStepped { step: SheddingStep::GivenBack, rung: Some(rung), .. } if rung == "stop PostgreSQL")
    });
    stage.await_main("the server again", stable);
    assert_eq!(stage.acts_after(taken.id.0), ["start"], "{}", stage.place.log());
    let log = stage.log();
    assert!(log.contains("database system was shut down at"), "{log}");
    assert!(!log.contains("not properly shut down") && !log.contains("was interrupted"), "{log}");
    assert!(guard.stop().success());
}

#[test]
fn a_server_that_is_given_back_while_it_still_writes_is_started_only_when_it_is_gone() {
    let Some(stage) = Stage::new() else { return };
    stage.configure(CALM);
    let guard = Guard::start(&stage.place);
    stage.await_main("the server", stable);
    let before = stage.postmaster();
    stage.hold_stops();
    // Stopped by a person's hand, and meant to run.
    kill_process(before, Signal::INT).unwrap();
    stage.await_main("that it shuts down", |one| one["stops"] == true && one["state"] == "shutting down");
    let shown = said(&stage.place.ask(&["service", "plan"]));
    assert!(shown.contains("shutting down"), "{shown}");
    let began = stage.place.events().last().map_or(0, |event| event.id.0);
    // As long as what answers badly is given to find back, and some rounds more.
    let until = Instant::now() + PATIENCE / 6;
    while Instant::now() < until {
        assert!(test_kill_process(before).is_ok(), "{}", stage.log());
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(stage.acts_after(began), Vec::<String>::new(), "{}", stage.place.log());
    stage.let_stop();
    stage.await_main("the server again", |one| stable(one) && stage.postmaster() != before);
    assert_eq!(stage.acts_after(began), ["start"]);
    let log = stage.log();
    assert!(!log.contains("not properly shut down") && !log.contains("was interrupted"), "{log}");
    assert!(guard.stop().success());
}
