//! A directory with scratch services and the process driver that runs them; all is ended with it.

#![allow(dead_code, clippy::unwrap_used, reason = "not all is used by each test; a test that can't go on fails")]

use std::{fs, path::Path};

use model::ServiceName;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use services::driver::process::{Declared, ProcessDriver};

use crate::common::{scenario::Scene, service::ScratchService};

/// Where a test's services live.
pub struct Stage {
    dir: tempfile::TempDir,
}

/// One of them, and a driver that has it.
pub struct One {
    /// The driver.
    pub driver: ProcessDriver,
    /// Its name.
    pub name: ServiceName,
    /// What runs.
    pub service: ScratchService,
}

impl One {
    /// What the generic scenarios want.
    pub fn scene(&self) -> Scene<'_> {
        Scene { driver: &self.driver, name: self.name.clone(), service: &self.service }
    }

    /// The newest part of its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.driver.log_path(&self.name)).unwrap_or_default()
    }
}

impl Stage {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Services that run as somebody else get to their files.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the driver keeps what it remembers.
    pub fn state(&self) -> std::path::PathBuf {
        self.path().join("state")
    }

    pub fn driver(&self, declared: Vec<Declared>) -> ProcessDriver {
        ProcessDriver::new(&self.state(), declared)
            .with_keeper(Path::new(env!("CARGO_BIN_EXE_services-test-keeper")), ["keep"])
    }

    /// A scratch service, and how it is declared changed by `change`.
    pub fn one(&self, name: &str, change: impl FnOnce(&mut Declared)) -> One {
        let service = ScratchService::new(self.path(), "scratch-service", &[]);
        self.again(name, service, change)
    }

    /// Another driver for a service that is there.
    pub fn again(&self, name: &str, service: ScratchService, change: impl FnOnce(&mut Declared)) -> One {
        let mut declared = Declared::new(name, service.command());
        change(&mut declared);
        One { driver: self.driver(vec![declared]), name: name.into(), service }
    }

    /// A record's process.
    pub fn recorded(&self, name: &str, what: &str) -> Option<i32> {
        let text = fs::read(self.state().join(format!("{name}.{what}"))).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let process = value.get("process").unwrap_or(&value);
        process.get("pid")?.as_i64()?.try_into().ok()
    }
}

/// Kills a process of ours that is known by its pid.
pub fn kill9(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end();
    }
}

impl Stage {
    /// Kills all that a test that failed left running.
    pub fn end(&self) {
        let Ok(entries) = fs::read_dir(self.state()) else { return };
        let records: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for (suffix, group) in [(".kept", false), (".run", true)] {
            for name in records.iter().filter_map(|record| record.strip_suffix(suffix)) {
                let Some(pid) = self.recorded(name, &suffix[1..]).and_then(Pid::from_raw) else { continue };
                // Only what still is one of ours: a keeper by its name, a service by its session.
                let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
                if stat.contains(&format!(") S 1 {0} {0} ", pid.as_raw_nonzero())) || stat.contains("(services-test") {
                    let _ = kill_process(pid, Signal::KILL);
                }
                if group {
                    let _ = kill_process_group(pid, Signal::KILL);
                }
            }
        }
    }
}
