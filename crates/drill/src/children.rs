//! The drill's own processes: started so that they end when the drill does, however it ends.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{DrillError, http::Announcement, options::HelperCommand};

/// How long a helper may take to announce itself.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a process may take to end after it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a process that is dropped may take before it is killed.
const DROP_PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether it is gone.
const DROP_POLL: Duration = Duration::from_millis(5);
/// How much of a process's standard error an error shows.
const LOG_TAIL_BYTES: usize = 2_000;

/// A running process of the drill. Dropped, it is killed and waited for.
pub(crate) struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
    pub(crate) pid: i32,
    pub(crate) port: u16,
}

impl Process {
    /// Starts a helper and waits for its announcement.
    pub(crate) async fn helper(
        helper: &HelperCommand,
        kind: &str,
        spec: &impl Serialize,
        dir: &Path,
    ) -> Result<Self, DrillError> {
        let spec = serde_json::to_string(spec).map_err(|error| DrillError::helper(kind, error.to_string()))?;
        let mut command = Command::new(&helper.program);
        command.args(&helper.args).arg(kind).arg(spec).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Self::start(kind, command, dir)?;
        let announced: Option<Announcement> = tokio::time::timeout(ANNOUNCE_PATIENCE, process.line())
            .await
            .unwrap_or_else(|_| Err(process.error(format!("did not announce itself within {ANNOUNCE_PATIENCE:?}"))))?;
        match announced {
            Some(announcement) if announcement.helper == kind => {
                process.port = announcement.port;
                Ok(process)
            }
            _ => Err(process.error("ended instead of announcing itself".into())),
        }
    }

    /// Starts any program with its standard error in `dir/NAME.log`.
    pub(crate) fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self, DrillError> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(DrillError::file("creating", &log))?;
        // Its directory tells that it is ours when left-overs are looked for.
        command.current_dir(dir).stderr(file).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| DrillError::Child {
            name: name.to_owned(),
            what: format!("did not start: {error}"),
            log: String::new(),
            hint: "is the program there and executable?".into(),
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let input = child.stdin.take();
        let output = child.stdout.take().map(|output| BufReader::new(output).lines());
        Ok(Self { name: name.to_owned(), child, input, output, log, pid, port: 0 })
    }

    /// The next line of its standard output; none when it has no more to say.
    pub(crate) async fn line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DrillError> {
        let Some(output) = self.output.as_mut() else { return Ok(None) };
        let line = output.next_line().await;
        match line {
            Ok(None) => Ok(None),
            Ok(Some(line)) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|error| self.error(format!("said something that can't be read ({error})"))),
            Err(error) => Err(self.error(format!("can't be heard: {error}"))),
        }
    }

    /// Gives it the word.
    pub(crate) async fn tell(&mut self, line: &str) -> Result<(), DrillError> {
        let told = match self.input.as_mut() {
            Some(input) => input.write_all(line.as_bytes()).await,
            None => Ok(()),
        };
        told.map_err(|error| self.error(format!("can't be told to begin: {error}")))
    }

    /// Completes when it ends, which is an error while it is needed.
    pub(crate) async fn died(&mut self) -> DrillError {
        let what = match self.child.wait().await {
            Ok(status) => format!("ended while it was needed ({status})"),
            Err(error) => format!("was lost: {error}"),
        };
        self.error(what)
    }

    /// Closes its standard input and asks it to end; kills it when it does not. Tells whether it ended by itself, well.
    pub(crate) async fn stop(mut self) -> bool {
        drop(self.input.take());
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Gone already is as good: the wait below tells how it ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => status.success(),
            _ => {
                // Bounded: SIGKILL can't be refused.
                let _ = self.child.kill().await;
                false
            }
        }
    }

    pub(crate) fn error(&self, what: String) -> DrillError {
        DrillError::Child {
            name: self.name.clone(),
            what,
            log: tail(&self.log),
            hint: "run the drill again with --keep to look around".into(),
        }
    }
}

impl Drop for Process {
    /// Only on the way out of an error or a cancellation. Blocks a little: what follows removes the directory it works in, and
    /// a guard that is killed at once leaves its children to find out by themselves.
    fn drop(&mut self) {
        drop(self.input.take());
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.pid) {
            // It may end between the two calls; its pid stays its own until it is waited for.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + DROP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline + DROP_PATIENCE {
                break;
            }
            if Instant::now() >= deadline {
                let _ = self.child.start_kill();
            }
            std::thread::sleep(DROP_POLL);
        }
    }
}

/// The end of a log file.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}
