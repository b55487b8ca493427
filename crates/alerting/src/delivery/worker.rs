//! The worker as a child process: its start, its pipes, its end.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    lines::{read_line, to_line},
    outbox::MAX_PENDING,
    protocol::{ToGuard, ToWorker},
};

/// Lines on their way to the worker: all that may be pending, with room for what is forgotten and for pings.
const WAITING_LINES: usize = 2 * MAX_PENDING + 64;

/// How often a worker is asked whether it is there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A worker that let this many pings in a row unanswered is taken for stuck. Pings rather than time: a guard that was starved or
/// stopped itself has asked nothing meanwhile.
pub(super) const MAX_UNANSWERED: u32 = 4;

/// How to start the worker.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program: mostly `/proc/self/exe`, which stays the same binary while the one on disk is replaced.
    pub program: PathBuf,
    /// Its arguments: `worker deliver`.
    pub args: Vec<OsString>,
    /// Variables beside those of the guard.
    pub env: Vec<(OsString, OsString)>,
}

/// What becomes known of a worker.
pub(super) enum Said {
    Message(ToGuard),
    /// It ended, or its pipe did.
    Gone(String),
}

/// A running worker. Dropping it kills it.
pub(super) struct Worker {
    /// Tells its messages from those of the worker before.
    pub(super) generation: u64,
    pub(super) started: Instant,
    /// Pings since it last said anything.
    pub(super) unanswered: u32,
    lines: Option<mpsc::Sender<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The task owns the child, which is killed on drop.
        self.task.abort();
    }
}

impl Worker {
    /// # Errors
    /// Where the process can't be started.
    pub(super) fn start(
        command: &WorkerCommand,
        hello: &ToWorker,
        generation: u64,
        said: mpsc::Sender<(u64, Said)>,
    ) -> io::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal goes to the guard's group: the worker must outlive it to deliver what the guard says last.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("its pipes are missing"))?;
        let (lines, lines_rx) = mpsc::channel(WAITING_LINES);
        let hello = to_line(hello);
        let task = tokio::spawn(drive(child, stdin, stdout, hello, lines_rx, generation, said));
        Ok(Self { generation, started: Instant::now(), unanswered: 0, lines: Some(lines), task })
    }

    /// Whether the worker could be told; if not, it is stuck or gone.
    pub(super) fn tell(&self, message: &ToWorker) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.try_send(to_line(message)).is_ok())
    }

    /// Ends its input once all lines are written: it delivers what it has and ends.
    pub(super) fn finish(&mut self) {
        self.lines = None;
    }
}

async fn drive(
    mut child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    hello: Vec<u8>,
    lines: mpsc::Receiver<Vec<u8>>,
    generation: u64,
    said: mpsc::Sender<(u64, Said)>,
) {
    let read = async {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while let Ok(true) = read_line(&mut reader, &mut line).await {
            match serde_json::from_slice(&line) {
                Ok(message) => {
                    let _ = said.send((generation, Said::Message(message))).await;
                }
                Err(_) => {
                    tracing::debug!(bytes = line.len(), "deliver worker: said something that is not our protocol");
                }
            }
        }
    };
    // Both sides at once: a worker that is not read from does not read either. Its end shows on the side that is read; the other
    // one may end before, when it is told to finish.
    let write = async {
        write_lines(stdin, hello, lines).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    let end = match tokio::time::timeout(Duration::from_secs(2), child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => format!("it can't be waited for: {error}"),
        Err(_) => "it closed its pipe and did not end".to_owned(),
    };
    let _ = said.send((generation, Said::Gone(end))).await;
}

async fn write_lines(mut stdin: ChildStdin, hello: Vec<u8>, mut lines: mpsc::Receiver<Vec<u8>>) {
    let mut line = Some(hello);
    while let Some(text) = line {
        if stdin.write_all(&text).await.is_err() {
            return;
        }
        line = lines.recv().await;
    }
}
