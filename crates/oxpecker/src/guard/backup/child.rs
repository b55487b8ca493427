//! The backup worker as a child process: its start, its pipes, its end.

use std::{io, process::Stdio, time::Duration};

use model::Moment;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::protocol::{Job, PROTOCOL, ToGuard, ToWorker, read, to_line};
use crate::config::Config;

/// Orders that wait to be written: a pause and a resume alternate, so that few ever wait.
const ORDERS: usize = 16;
/// Words of a worker that wait to be read.
const SAID: usize = 64;
/// How long a worker that closed its output may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes known of a worker.
#[derive(Debug)]
pub enum Said {
    /// It said so.
    Message(ToGuard),
    /// It ended, or its pipe did; how, in words.
    Gone(String),
}

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    /// What it was started for.
    pub job: Job,
    /// When.
    pub began: Moment,
    /// When it last said anything.
    pub heard: Moment,
    /// What it said that decides how the run ended.
    pub stage: Stage,
    orders: Option<mpsc::Sender<Vec<u8>>>,
    said: mpsc::Receiver<Said>,
    task: JoinHandle<()>,
}

/// How far a run has come: what is blamed when the worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its backup was not made yet, or, where it was only to prove, nothing was said yet.
    Begun,
    /// The backup is there; its proof or the retention is under way.
    Created,
    /// What it was started for ended, well or not, and was said.
    Concluded,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The task owns the child, which is killed on drop.
        self.task.abort();
    }
}

impl Worker {
    /// Starts one. `/proc/self/exe` stays the same binary while the one on disk is replaced.
    ///
    /// # Errors
    /// Where the process can't be started.
    pub fn start(job: Job, config: &Config, now: Moment) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["worker", "backup"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal goes to the guard's group; the worker ends in good order when the guard ends its input.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("its pipes are missing"))?;
        let (orders, orders_rx) = mpsc::channel(ORDERS);
        let (said_tx, said) = mpsc::channel(SAID);
        let hello = to_line(&ToWorker::Begin { protocol: PROTOCOL, job, config: Box::new(config.clone()) });
        let task = tokio::spawn(drive(child, stdin, stdout, hello, orders_rx, said_tx));
        Ok(Self { job, began: now, heard: now, stage: Stage::Begun, orders: Some(orders), said, task })
    }

    /// Tells it. One that takes no orders any more is on its way out, and that is heard.
    pub fn tell(&self, order: &ToWorker) {
        if self.orders.as_ref().is_none_or(|orders| orders.try_send(to_line(order)).is_err()) {
            tracing::debug!("the backup worker takes no orders");
        }
    }

    /// What it says next.
    pub async fn hear(&mut self) -> Said {
        self.said.recv().await.unwrap_or_else(|| Said::Gone("its supervision ended".to_owned()))
    }

    /// Ends its input: it stops in good order, also where it stands back.
    pub fn finish(&mut self) {
        self.orders = None;
    }
}

async fn drive(
    mut child: Child,
    mut stdin: ChildStdin,
    stdout: ChildStdout,
    hello: Vec<u8>,
    mut orders: mpsc::Receiver<Vec<u8>>,
    said: mpsc::Sender<Said>,
) {
    let listen = async {
        let mut reader = BufReader::new(stdout);
        while let Ok(Some(message)) = read(&mut reader).await {
            let _ = said.send(Said::Message(message)).await;
        }
    };
    let order = async move {
        let mut line = Some(hello);
        while let Some(text) = line {
            if stdin.write_all(&text).await.is_err() {
                break;
            }
            line = orders.recv().await;
        }
        drop(stdin);
        // Its end shows on the side that is read.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = listen => {}
        () = order => {}
    }
    let end = match timeout(END_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => format!("it can't be waited for: {error}"),
        Err(_) => "it closed its output and did not end".to_owned(),
    };
    let _ = said.send(Said::Gone(end)).await;
}
