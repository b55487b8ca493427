//! What of a cluster is still there: processes, shared memory, directories of owners that were killed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::directory::PREFIX;

/// A process that belongs to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, arguments parted by spaces.
    pub command: String,
}

/// The processes that work below `dir` (their current directory is there: PostgreSQL's are in the data directory) or name it as
/// the data directory on their command line. Ours excepted. After a cluster is gone this must be empty.
#[must_use]
pub fn processes_below(dir: &Path) -> Vec<Process> {
    let us = std::process::id();
    let mut found: Vec<Process> = all_pids()
        .filter(|pid| *pid != us)
        .filter_map(|pid| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let raw = fs::read(proc.join("cmdline")).unwrap_or_default();
            let named = raw.split(|byte| *byte == 0).any(|arg| is_below(arg, dir));
            let works_there =
                fs::read_link(proc.join("cwd")).is_ok_and(|cwd| is_below(cwd.as_os_str().as_bytes(), dir));
            // A zombie has no current directory, and nothing left to do.
            (named || works_there).then(|| {
                let text = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
                Process { pid, command: text }
            })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `path` is `dir` or below it; also when the directory is gone already ("/dir (deleted)").
fn is_below(path: &[u8], dir: &Path) -> bool {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Path::new(std::ffi::OsStr::from_bytes(path)).starts_with(dir)
}

/// Kills what is left below `dir` and waits until it is gone; returns what would not go.
pub(crate) fn kill_below(dir: &Path, patience: Duration) -> Vec<Process> {
    let deadline = Instant::now() + patience;
    loop {
        let left = processes_below(dir);
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        for process in &left {
            kill(process.pid);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until nothing works below `dir`; false when something still does after `patience`.
pub(crate) fn await_gone(dir: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if processes_below(dir).is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone in the meantime is what we want.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// PostgreSQL's shared memory outside its directory, which a killed postmaster leaves: the System V segment that guards the data
/// directory (postmaster.pid, line 7) and the POSIX segments of dynamic shared memory.
#[derive(Debug, Default)]
pub(crate) struct SharedMemory {
    sysv_id: Option<String>,
    posix: BTreeSet<PathBuf>,
}

impl SharedMemory {
    /// Adds what the processes below `data_dir` have mapped now.
    pub(crate) fn note(&mut self, data_dir: &Path) {
        if let Ok(text) = fs::read_to_string(data_dir.join("postmaster.pid")) {
            let id = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned);
            self.sysv_id = id.or(self.sysv_id.take());
        }
        for process in processes_below(data_dir) {
            let maps = fs::read_to_string(format!("/proc/{}/maps", process.pid)).unwrap_or_default();
            let mapped = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
            self.posix.extend(mapped.filter(|path| path.starts_with("/dev/shm/PostgreSQL.")).map(PathBuf::from));
        }
    }

    /// Removes it. Only after the last process is gone.
    pub(crate) fn remove(&mut self) {
        for path in std::mem::take(&mut self.posix) {
            // A server that ended in order has removed it.
            let _ = fs::remove_file(path);
        }
        if let Some(id) = self.sysv_id.take() {
            let still_there = fs::read_to_string("/proc/sysvipc/shm")
                .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().nth(1) == Some(id.as_str())));
            if still_there {
                let _ = std::process::Command::new("ipcrm").args(["-m", &id]).output();
            }
        }
    }
}

/// Removes the directories below `base` whose owners were killed: their lock is free and nothing works in them.
pub(crate) fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) || !entry.file_type().is_ok_and(|t| t.is_dir())
        {
            continue;
        }
        let Ok(lock) = fs::OpenOptions::new().write(true).open(path.join("lock")) else { continue };
        if lock.try_lock().is_ok() && processes_below(&path).is_empty() {
            // Another sweeper may be at it as well; what can't be removed now is removed next time.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_below;

    #[test]
    fn below() {
        for (path, expected) in [
            ("/tmp/a", true),
            ("/tmp/a/data", true),
            ("/tmp/a (deleted)", true),
            ("/tmp/a/data (deleted)", true),
            ("/tmp/ab", false),
            ("/tmp", false),
            ("", false),
        ] {
            assert_eq!(is_below(path.as_bytes(), Path::new("/tmp/a")), expected, "{path}");
        }
    }
}
