//! A worker as a child process: its start, its pipes, its end.

use std::{io, process::Stdio, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::lines::read;

/// Orders that wait to be written: a pause and a resume alternate, so that few ever wait.
const ORDERS: usize = 16;
/// Words of a worker that wait to be read.
const SAID: usize = 64;
/// How long a worker that closed its output may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes known of a worker.
#[derive(Debug)]
pub enum Said<M> {
    /// It said so.
    Message(M),
    /// It ended, or its pipe did; how, in words.
    Gone(String),
}

/// A running worker that says messages of one kind. Dropping it kills it.
#[derive(Debug)]
pub struct Process<M> {
    orders: Option<mpsc::Sender<Vec<u8>>>,
    said: mpsc::Receiver<Said<M>>,
    task: JoinHandle<()>,
}

impl<M> Drop for Process<M> {
    fn drop(&mut self) {
        // The task owns the child, which is killed on drop.
        self.task.abort();
    }
}

impl<M: DeserializeOwned + Send + 'static> Process<M> {
    /// Starts `oxpecker worker NAME` and greets it. `/proc/self/exe` stays the same binary while the one on disk is replaced.
    ///
    /// # Errors
    /// Where the process can't be started.
    pub fn start(name: &str, hello: Vec<u8>) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["worker", name])
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
        let task = tokio::spawn(drive(child, stdin, stdout, hello, orders_rx, said_tx));
        Ok(Self { orders: Some(orders), said, task })
    }

    /// Tells it a line. One that takes no orders any more is on its way out, and that is heard.
    pub fn tell(&self, line: Vec<u8>) {
        if self.orders.as_ref().is_none_or(|orders| orders.try_send(line).is_err()) {
            tracing::debug!("the worker takes no orders");
        }
    }

    /// What it says next.
    pub async fn hear(&mut self) -> Said<M> {
        self.said.recv().await.unwrap_or_else(|| Said::Gone("its supervision ended".to_owned()))
    }

    /// Ends its input: it stops in good order, also where it stands back.
    pub fn finish(&mut self) {
        self.orders = None;
    }
}

async fn drive<M: DeserializeOwned>(
    mut child: Child,
    mut stdin: ChildStdin,
    stdout: ChildStdout,
    hello: Vec<u8>,
    mut orders: mpsc::Receiver<Vec<u8>>,
    said: mpsc::Sender<Said<M>>,
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
