//! A real guard beside a real PostgreSQL.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use scratch::{Installation, ScratchCluster};
use serde_json::Value;

/// How long anything that must happen may take on a busy machine. Not a bound on speed: tests await events, not times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub fn oxpecker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oxpecker"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OXPECKER_") || text.starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

/// Runs a command to its end in an empty folder.
pub fn run_in(dir: &Path, arguments: &[&str]) -> Output {
    oxpecker().current_dir(dir).args(arguments).output().expect("the program starts")
}

/// Both streams and the code, as a snapshot would show them.
pub fn said(output: &Output) -> String {
    format!(
        "exit {}\nstdout:\n{}\nstderr:\n{}",
        output.status.code().map_or_else(|| "none".to_owned(), |c| c.to_string()),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The newest installed PostgreSQL of a major version that is fully supported.
pub fn newest() -> Option<Installation> {
    let found = scratch::installations().into_iter().find(|i| (13..=18).contains(&i.major()));
    if found.is_none() {
        println!("skipped: no PostgreSQL 13 to 18 is installed; `cargo xtask testbed` fetches them");
    }
    found
}

/// A guard's folder: configuration, state directory, log.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("oxp-e2e").tempdir().expect("a temporary folder") }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Writes a secret file and gives its path.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// Writes the configuration: `state_dir`, the server's address, then `more`. The machine that runs the tests may be as busy as
    /// it likes: that is no finding here.
    pub fn configure(&self, url: &str, more: &str) -> PathBuf {
        let path = self.path().join("oxpecker.toml");
        let (top, sections) =
            more.split_once("\n[").map_or((more, String::new()), |(top, rest)| (top, format!("[{rest}")));
        // What the host under the tests is like, and what other tests do to it, is not what is tested.
        let of_the_host = [
            "cpu-saturated",
            "memory-low",
            "memory-filling",
            "oom-killed",
            "disk-filling",
            "pressure-stalled",
            "cpu-stolen",
            "clock-off",
        ];
        let off: String = of_the_host.iter().map(|rule| format!("[alert.rules.{rule}]\nenabled = false\n")).collect();
        let text = format!(
            "state_dir = {:?}\n{top}\n[postgres]\nname = \"main\"\nurl = {url:?}\n{off}{sections}\n",
            self.state_dir().display().to_string()
        );
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("guard.log")).unwrap_or_default()
    }

    /// A command on this place's configuration.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let config = self.path().join("oxpecker.toml").display().to_string();
        run_in(self.path(), &[&["--config", &config][..], arguments].concat())
    }

    /// A command's JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ask(&[arguments, &["--output", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e} in {}\n{}", said(&output), self.log()))
    }

    /// The journal's events.
    pub fn events(&self) -> Vec<model::Event> {
        self.try_events().expect("the journal is readable")
    }

    fn try_events(&self) -> Result<Vec<model::Event>, journal::JournalError> {
        let all = journal::EventQuery { limit: 100_000, ..journal::EventQuery::default() };
        Ok(journal::Reader::open(&self.state_dir())?.events(&all)?.events)
    }

    /// Names of the journal's events, in order.
    pub fn event_names(&self) -> Vec<&'static str> {
        self.events().iter().map(|e| e.kind.name()).collect()
    }

    /// Waits until the status is as `is_so` says.
    pub fn await_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let output = self.ask(&["status", "--output", "json"]);
            if let Ok(status) = serde_json::from_slice(&output.stdout)
                && is_so(&status)
            {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{what} did not come about:\n{}\n{}", said(&output), self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for an event that `is_it` recognises, after the event numbered `after`.
    pub fn await_event(&self, what: &str, after: i64, is_it: impl Fn(&model::EventKind) -> bool) -> model::Event {
        let started = Instant::now();
        loop {
            if let Ok(events) = self.try_events()
                && let Some(event) = events.into_iter().find(|e| e.id.0 > after && is_it(&e.kind))
            {
                return event;
            }
            assert!(started.elapsed() < PATIENCE, "{what} was not recorded:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A running guard.
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Starts a guard on the place's configuration and waits until it says READY=1.
    pub fn start(place: &Place) -> Self {
        Self::start_with(place, oxpecker(), &["run"])
    }

    /// As [`Guard::start`] with another command and other arguments.
    pub fn start_with(place: &Place, mut command: Command, arguments: &[&str]) -> Self {
        command.args(["--config", &place.path().join("oxpecker.toml").display().to_string()]);
        Self::launch(place, command, arguments)
    }

    /// Starts `command` as it is, with its log in the place, and waits until it says READY=1.
    pub fn launch(place: &Place, command: Command, arguments: &[&str]) -> Self {
        Self::launch_heard(place, command, arguments).0
    }

    /// As [`Guard::launch`], with the socket on which it goes on talking to its service manager. Whoever keeps it must read it: a full one
    /// stops the guard.
    pub fn launch_heard(place: &Place, mut command: Command, arguments: &[&str]) -> (Self, UnixDatagram) {
        let socket_path = place.path().join("notify.sock");
        let _ = fs::remove_file(&socket_path);
        let socket = UnixDatagram::bind(&socket_path).expect("a short path");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let log = fs::OpenOptions::new().create(true).append(true).open(place.path().join("guard.log")).expect("a log");
        let child = command
            .current_dir(place.path())
            .arg("-v")
            .args(arguments)
            .env("NOTIFY_SOCKET", &socket_path)
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let guard = Self { child };
        let mut buffer = [0; 1024];
        loop {
            let read =
                socket.recv(&mut buffer).unwrap_or_else(|e| panic!("the guard is not ready: {e}\n{}", place.log()));
            if String::from_utf8_lossy(&buffer[..read]).contains("READY=1") {
                return (guard, socket);
            }
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids fit")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a real pid");
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    /// Asks it to stop and waits for it.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Kills it at once.
    pub fn kill9(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the guard does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scratch cluster of the newest version.
pub fn cluster(settings: &[(&str, &str)]) -> Option<ScratchCluster> {
    let installation = newest()?;
    let mut builder = ScratchCluster::builder(&installation);
    for (key, value) in settings {
        builder = builder.setting(*key, *value);
    }
    Some(builder.start().expect("a scratch cluster starts"))
}
