//! Services for tests of drivers and of recoveries: a shell script whose health, start and faults are said by files.
//!
//! They run as processes, as units and (with their directory mounted at the same path) in containers. Use it from another crate's tests with
//! `#[path = "../../services/tests/common/service.rs"] mod service;`.

#![allow(dead_code, clippy::unwrap_used, reason = "not all is used by each test; a test that can't go on fails")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A scratch service. The value is a handle: dropping it stops nothing.
#[derive(Clone, Debug)]
pub struct ScratchService {
    dir: PathBuf,
}

/// One start of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// What tells it from all others.
    pub run: String,
    /// Seconds since the boot.
    pub at: f64,
}

impl ScratchService {
    /// Writes its scripts to `parent/name`. It exits with code 1 (see [`Self::early`]) when it gets ready and one of `needs` isn't healthy.
    pub fn new(parent: &Path, name: &str, needs: &[&Self]) -> Self {
        let dir = parent.join(name);
        fs::create_dir_all(&dir).unwrap();
        let service = Self { dir };
        service.write("service.sh", include_str!("service.sh"));
        service.write("health.sh", include_str!("health.sh"));
        service.write("function.sh", include_str!("function.sh"));
        service.write("alive", "");
        service.write("needs", &needs.iter().map(|need| format!("{}\n", need.dir.display())).collect::<String>());
        service
    }

    /// A handle for one that is there.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What starts it. Needs `sh`, `flock`, `cat`, `sleep`, `tee`, `mv`, `rm` and `grep`.
    pub fn command(&self) -> Vec<String> {
        self.script("service.sh")
    }

    /// A health probe: 0 healthy, 75 starting, with `progress: starting N` on its standard output.
    pub fn health(&self) -> Vec<String> {
        self.script("health.sh")
    }

    /// A functional probe: fails while its pool is stale.
    pub fn function(&self) -> Vec<String> {
        self.script("function.sh")
    }

    fn script(&self, name: &str) -> Vec<String> {
        vec!["/bin/sh".into(), self.dir.join(name).display().to_string(), self.dir.display().to_string()]
    }

    /// How long it takes to get ready from the next start on, in tenths of a second.
    pub fn starts_in(&self, tenths: u32) -> &Self {
        self.write("starts_in", &tenths.to_string());
        self
    }

    /// Whether it never gets ready; also while it starts.
    pub fn never(&self, yes: bool) -> &Self {
        self.flag("never", yes)
    }

    /// Whether its health probe fails.
    pub fn unhealthy(&self, yes: bool) -> &Self {
        self.flag("unhealthy", yes)
    }

    /// Whether its health probe fails while one of its needs is down.
    pub fn deep(&self, yes: bool) -> &Self {
        self.flag("deep", yes)
    }

    /// Whether it keeps a pool that goes stale when a need is restarted.
    pub fn pool(&self, yes: bool) -> &Self {
        self.flag("pool", yes)
    }

    /// Whether it ignores SIGTERM, from the next start on.
    pub fn ignores_term(&self, yes: bool) -> &Self {
        self.flag("ignores_term", yes)
    }

    /// It ends itself with code 9 so many tenths of a second after it got healthy, from the next start on.
    pub fn flaps_after(&self, tenths: Option<u32>) -> &Self {
        match tenths {
            Some(tenths) => self.write("flaps_after", &tenths.to_string()),
            None => self.remove("flaps_after"),
        }
        self
    }

    /// It ends itself with this code, now and after each start.
    pub fn crashes(&self, code: Option<u8>) -> &Self {
        match code {
            Some(code) => self.write("crash", &code.to_string()),
            None => self.remove("crash"),
        }
        self
    }

    /// All its starts, the first one first.
    pub fn starts(&self) -> Vec<Start> {
        let text = self.read("starts").unwrap_or_default();
        let starts = text.lines().filter_map(|line| line.split_once(' '));
        starts.map(|(run, at)| Start { run: run.to_owned(), at: at.parse().unwrap_or_default() }).collect()
    }

    /// How often it got ready before all that it needs was healthy: 0 where the order was kept.
    pub fn early(&self) -> usize {
        self.read("early").unwrap_or_default().lines().count()
    }

    /// How often it was started while it ran: 0 where nobody acted twice.
    pub fn doubled(&self) -> usize {
        self.read("doubled").unwrap_or_default().lines().count()
    }

    /// The pid of its latest start, as its own pid namespace has it.
    pub fn pid(&self) -> Option<i32> {
        self.read("pid")?.trim().parse().ok()
    }

    /// Whether it runs: it holds a lock as long as it lives, whatever its pid namespace.
    pub fn runs(&self) -> bool {
        File::open(self.dir.join("alive")).is_ok_and(|file| file.try_lock_shared().is_err())
    }

    /// Whether it is ready in its latest run.
    pub fn is_healthy(&self) -> bool {
        self.runs() && self.read("healthy").is_some() && self.read("healthy") == self.read("run")
    }

    /// Whether its pool went stale in this run.
    pub fn is_stale(&self) -> bool {
        self.read("stale").is_some() && self.read("stale") == self.read("run")
    }

    fn flag(&self, name: &str, yes: bool) -> &Self {
        if yes {
            self.write(name, "");
        } else {
            self.remove(name);
        }
        self
    }

    fn write(&self, name: &str, text: &str) {
        let new = self.dir.join(format!("{name}.tmp"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.dir.join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.dir.join(name));
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }
}

/// Waits until `done` says so; panics with `what` after `patience`.
pub fn await_that(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
