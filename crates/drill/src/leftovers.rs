//! The drill's own directory, and the look for what is still there when all should be gone.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::DrillError;

/// How the drill's directories are named.
const PREFIX: &str = "oxpecker-drill-";
/// How long processes may take to notice that they are alone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked.
const POLL: Duration = Duration::from_millis(20);

/// Logs, configuration and state directory of the drill. Dropped, it ends what still works in it and is removed.
pub(crate) struct WorkDir {
    dir: TempDir,
    _lock: File,
}

impl WorkDir {
    /// Makes one below `base`, and removes those whose drills were killed.
    pub(crate) fn create(base: &Path) -> Result<Self, DrillError> {
        sweep(base);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(base)
            .map_err(DrillError::file("making a directory in", base))?;
        // Locked under another name first, so that no sweeper meets it unlocked.
        let (new, lock) = (dir.path().join("lock.new"), dir.path().join("lock"));
        let file = File::create_new(&new).map_err(DrillError::file("creating", &new))?;
        file.lock().map_err(DrillError::file("locking", &new))?;
        fs::rename(&new, &lock).map_err(DrillError::file("naming", &lock))?;
        Ok(Self { dir, _lock: file })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if await_gone(&[self.path().to_owned()], PATIENCE).is_empty() {
            return;
        }
        for process in scratch::processes_below(self.path()) {
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                // Gone in the meantime is what we want.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        await_gone(&[self.path().to_owned()], PATIENCE);
    }
}

fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let abandoned = || File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if ours && abandoned() {
            // Somebody else's that we may not remove stays theirs.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What the drill has made and must be gone at the end.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) ports: Vec<u16>,
}

impl Made {
    /// What is still there, in words; waits a little for what is on its way out.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = await_gone(&self.directories, PATIENCE)
            .into_iter()
            .map(|process| format!("process {} ({})", process.pid, process.command))
            .collect();
        // The standard library sets SO_REUSEADDR: only somebody who listens makes this fail.
        let listening = self.ports.iter().filter(|&&port| TcpListener::bind(("127.0.0.1", port)).is_err());
        left.extend(listening.map(|port| format!("somebody listens on 127.0.0.1:{port}")));
        left
    }
}

fn await_gone(directories: &[PathBuf], patience: Duration) -> Vec<scratch::Process> {
    let deadline = Instant::now() + patience;
    loop {
        let left: Vec<_> = directories.iter().flat_map(|directory| scratch::processes_below(directory)).collect();
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found() {
        let base = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(base.path()).spawn().unwrap();
        let made = Made { directories: vec![base.path().to_owned()], ports: vec![port] };
        let left = made.left();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(listener);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].contains("sleep") && left[1].contains(&port.to_string()), "{left:?}");
        assert!(made.left().is_empty());
    }

    #[test]
    fn a_killed_drills_directory_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let dead = base.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        File::create(dead.join("lock")).unwrap();
        let first = WorkDir::create(base.path()).unwrap();
        assert!(!dead.exists());
        let second = WorkDir::create(base.path()).unwrap();
        assert!(first.path().exists() && second.path().exists());
    }
}
