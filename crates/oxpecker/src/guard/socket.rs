//! The guard's local socket: whoever may enter the state directory may ask.
//!
//! One JSON line in, one JSON document out, then the connection is closed. The socket is a file in the state directory (mode
//! 0700), so the file system decides who may ask; it tells nothing that the journal beside it would not tell.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The socket's name in the state directory.
const FILE: &str = "guard.sock";
/// The longest request in bytes.
const MAX_REQUEST_BYTES: u64 = 4096;
/// How long a client may take to ask, and to read.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions that wait for the guard's loop at once; more are turned away.
const MAX_WAITING: usize = 8;
/// How long a command waits for the guard's answer: a starved host is slow, and then its answer matters most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Everything that `status` and `vacuum status` show.
    Status,
}

/// A request with the place for its answer, a JSON document.
pub type Question = (Request, oneshot::Sender<String>);

/// Listens; questions come out of the receiver. The file goes when the returned value is dropped.
///
/// # Errors
/// When the socket can't be made (a path of more than 107 bytes, no permission).
pub fn listen(state_dir: &Path) -> io::Result<(Listening, mpsc::Receiver<Question>)> {
    let path = state_dir.join(FILE);
    // We hold the state directory's lock, so a file that is there is a dead guard's.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        // A client that breaks off harms only itself.
                        let _ = timeout(CLIENT_TIMEOUT + ANSWER_TIMEOUT, serve(stream, sender)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the local socket can't accept; trying again");
                    tokio::time::sleep(CLIENT_TIMEOUT).await;
                }
            }
        }
    });
    Ok((Listening { path, task }, receiver))
}

/// A listening socket.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(stream: tokio::net::UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(CLIENT_TIMEOUT, BufReader::new(read.take(MAX_REQUEST_BYTES)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Err(error) => refusal(&format!("not a request: {error}")),
        Ok(request) => {
            let (sender, receiver) = oneshot::channel();
            match questions.try_send((request, sender)) {
                Ok(()) => receiver.await.unwrap_or_else(|_| refusal("the guard is stopping")),
                Err(_) => refusal("too many questions at once; ask again"),
            }
        }
    };
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await
}

fn refusal(error: &str) -> String {
    serde_json::json!({ "error": error }).to_string()
}

/// Why the guard did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens: no guard runs on this state directory.
    #[error("no guard answers at {0}")]
    NoGuard(PathBuf),
    /// The socket can't be used.
    #[error("can't talk to the guard at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It answered something else: another version.
    #[error("the guard at {path} answered something that this version can't read: {detail}")]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        detail: String,
    },
}

/// Asks the guard of a state directory.
///
/// # Errors
/// See [`AskError`].
pub fn ask<T: DeserializeOwned>(state_dir: &Path, request: Request) -> Result<T, AskError> {
    use io::{Read as _, Write as _};
    let path = state_dir.join(FILE);
    let io_error = |source| AskError::Io { path: path.clone(), source };
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NoGuard(path.clone()),
        _ => io_error(source),
    })?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(io_error)?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT)).map_err(io_error)?;
    let mut line = serde_json::to_string(&request).map_err(|e| io_error(e.into()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(io_error)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(io_error)?;
    serde_json::from_str(&answer).map_err(|error| {
        let refused = serde_json::from_str::<serde_json::Value>(&answer)
            .ok()
            .and_then(|v| v["error"].as_str().map(str::to_owned));
        AskError::Strange { path, detail: refused.unwrap_or_else(|| error.to_string()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_question_is_answered_and_nonsense_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (listening, mut questions) = listen(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let asked = tokio::task::spawn_blocking(move || ask::<serde_json::Value>(&path, Request::Status));
        let (request, answer) = questions.recv().await.unwrap();
        assert_eq!(request, Request::Status);
        answer.send("{\"fine\":true}".to_owned()).unwrap();
        assert_eq!(asked.await.unwrap().unwrap()["fine"], true);

        let path = dir.path().join(FILE);
        let refused = tokio::task::spawn_blocking(move || {
            use io::{Read as _, Write as _};
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert!(refused.await.unwrap().contains("not a request"));

        drop(listening);
        assert!(matches!(ask::<serde_json::Value>(dir.path(), Request::Status), Err(AskError::NoGuard(_))));
    }
}
