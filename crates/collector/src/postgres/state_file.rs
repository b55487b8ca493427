//! `postmaster.pid`, which alone tells sessions that are open that the server is stopping. A smart shutdown waits until its clients
//! leave, so we must.
//!
//! The file lies on the database's disk, which may hang: it is read on another thread, waited for but a moment, and never twice at a
//! time, however many connections come and go meanwhile.

use std::{io, path::PathBuf, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

/// How long a reading is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long the file is left alone after a reading that failed or was too slow.
const REST: Duration = Duration::from_secs(60);

/// The postmaster's state file.
#[derive(Debug)]
pub struct StateFile {
    /// `None` where the server's data directory is not ours to see.
    path: Option<PathBuf>,
    /// The reading that was too slow and may still be under way.
    slow: Option<JoinHandle<io::Result<String>>>,
    not_before: Option<Instant>,
    rest: Duration,
}

impl Default for StateFile {
    fn default() -> Self {
        Self { path: None, slow: None, not_before: None, rest: REST }
    }
}

impl StateFile {
    /// From now on this data directory's. What it costs when it can't be read, for people.
    pub async fn follow(&mut self, data_directory: Option<PathBuf>) -> Option<String> {
        self.path = data_directory.map(|directory| directory.join("postmaster.pid"));
        self.not_before = None;
        let path = self.path.as_ref()?.display().to_string();
        match self.read().await? {
            Ok(_) => None,
            Err(error) => Some(format!(
                "a smart shutdown waits for our session: {path} can't be read ({error}); stop the server with mode fast, as pg_ctl \
                 and systemd do, or let our user read that file"
            )),
        }
    }

    /// Whether the postmaster is stopping, as far as can be told: the file's eighth line (10+; src/include/utils/pidfile.h).
    pub async fn is_stopping(&mut self) -> bool {
        matches!(self.read().await, Some(Ok(text)) if text.lines().nth(7).is_some_and(|state| state.trim() == "stopping"))
    }

    /// `None` where it is not to be had now.
    async fn read(&mut self) -> Option<io::Result<String>> {
        let path = self.path.clone()?;
        if self.not_before.is_some_and(|moment| Instant::now() < moment)
            || self.slow.as_ref().is_some_and(|reading| !reading.is_finished())
        {
            return None;
        }
        // What a slow reading found in the end is of long ago. The new one is kept at once: whoever waits here may be cancelled.
        let reading = self.slow.insert(tokio::task::spawn_blocking(move || std::fs::read_to_string(path)));
        let result = timeout(PATIENCE, reading).await.ok();
        if result.is_some() {
            self.slow = None;
        }
        let result = result.map(|result| result.unwrap_or_else(|error| Err(io::Error::other(error))));
        self.not_before = match result {
            Some(Ok(_)) => None,
            _ => Some(Instant::now() + self.rest),
        };
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    const STOPPING: &str = "1\n/data\n1\n5432\n/tmp\nlocalhost\n1 2\nstopping\n";

    #[tokio::test]
    async fn a_state_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::default();
        assert_eq!(file.follow(None).await, None);
        assert!(!file.is_stopping().await);
        for (text, expected) in
            [(STOPPING.replace("stopping", "ready   "), false), ("1\n".into(), false), (STOPPING.into(), true)]
        {
            fs::write(dir.path().join("postmaster.pid"), &text).unwrap();
            assert_eq!(file.follow(Some(dir.path().to_owned())).await, None);
            assert_eq!(file.is_stopping().await, expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_a_limitation_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        // A directory: to root, permissions deny nothing.
        fs::create_dir(&path).unwrap();
        let mut file = StateFile { rest: Duration::from_millis(300), ..StateFile::default() };
        let limitation = file.follow(Some(dir.path().to_owned())).await.unwrap();
        assert!(limitation.starts_with("a smart shutdown waits for our session: "), "{limitation}");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, STOPPING).unwrap();
        until_stopping(&mut file).await;
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_asked_once_at_a_time_and_again_when_it_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postmaster.pid");
        // Opening a FIFO blocks until somebody writes to it.
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut file = StateFile { rest: Duration::ZERO, ..StateFile::default() };
        assert_eq!(file.follow(Some(dir.path().to_owned())).await, None);
        let hanging = file.slow.as_ref().unwrap().id();
        let asked = Instant::now();
        for _ in 0..100 {
            assert!(!file.is_stopping().await);
        }
        assert!(asked.elapsed() < PATIENCE, "it is not waited for again: {:?}", asked.elapsed());
        // Another connection changes nothing about that.
        assert_eq!(file.follow(Some(dir.path().to_owned())).await, None);
        assert_eq!(file.slow.as_ref().unwrap().id(), hanging);

        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, STOPPING).unwrap();
        writer.write_all(b"1\n").unwrap();
        drop(writer);
        until_stopping(&mut file).await;
    }

    async fn until_stopping(file: &mut StateFile) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !file.is_stopping().await {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
