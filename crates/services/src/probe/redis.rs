//! Redis's PING, in its protocol's simple form (RESP, redis.io/docs/reference/protocol-spec).

use std::{fs, io, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{ProbeError, Said, Trouble, net, plain};
use crate::health::{Answer, Progress};

/// The longest answer, in bytes: that of INFO is some kilobytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// The longest password file, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// PING; with a password before that AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    place: Place,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Redis {
    /// At `host:port`, or at the path of a unix socket.
    ///
    /// # Errors
    /// That is neither.
    pub fn new(address: &str) -> Result<Self, ProbeError> {
        let place = match net::split(address) {
            Some((host, port)) => Place::Tcp(host.to_owned(), port),
            None if address.starts_with('/') => Place::Unix(address.into()),
            None => {
                let hint = "write host:port, such as 127.0.0.1:6379, or the path of a socket";
                return Err(ProbeError::new(address, "it is no address", hint));
            }
        };
        Ok(Self { place, user: None, password_file: None })
    }

    /// The file that holds the password; read for each probe, so that a new one counts at once.
    #[must_use]
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password_file = Some(path.into());
        self
    }

    /// As whom, where that isn't the default user (Redis 6 and newer).
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    pub(super) async fn ask(&self, within: Duration) -> Said {
        match self.try_ask(within).await {
            Ok(said) => said,
            Err(trouble) => Err(trouble).into(),
        }
    }

    async fn try_ask(&self, within: Duration) -> Result<Said, Trouble> {
        let password = self.password()?;
        let stream: Box<dyn Stream> = match &self.place {
            Place::Tcp(host, port) => Box::new(net::connect(host, *port, within).await?),
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(|error| net::of(&error))?),
        };
        let mut stream = BufReader::new(stream);
        if let Some(password) = &password {
            let user = self.user.iter().map(String::as_str);
            let auth: Vec<&str> = ["AUTH"].into_iter().chain(user).chain([password.as_str()]).collect();
            let said = line(&mut stream, &auth).await?;
            // One that loads its data takes no AUTH either where users come from a file; PING tells.
            if !said.starts_with('+') && !said.starts_with("-LOADING") {
                return Err(refused(&said));
            }
        }
        let said = line(&mut stream, &["PING"]).await?;
        if said.starts_with("+PONG") {
            return Ok(Said::of(Answer::Healthy));
        }
        if !said.starts_with("-LOADING") {
            return Err(refused(&said));
        }
        let progress = info(&mut stream).await.ok().as_deref().and_then(loaded);
        Ok(Said { answer: Answer::Starting, progress, run: None })
    }

    fn password(&self) -> Result<Option<String>, Trouble> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let wrong = |why: String| Trouble::Probe(format!("can't use the password file {}: {why}", path.display()));
        let read = || {
            let length = fs::metadata(path)?.len();
            if length > SECRET_BYTES_MAX {
                return Err(io::Error::other("it is too long"));
            }
            fs::read_to_string(path)
        };
        let text = read().map_err(|error| wrong(error.to_string()))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() { Err(wrong("it is empty".into())) } else { Ok(Some(password.to_owned())) }
    }
}

/// Sends a command and reads the first line of what comes.
async fn line(stream: &mut BufReader<impl Stream>, words: &[&str]) -> Result<String, Trouble> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes()).await.map_err(|error| net::of(&error))?;
    stream.flush().await.map_err(|error| net::of(&error))?;
    let mut said = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_until(b'\n', &mut said).await.map_err(|error| net::of(&error))?;
    if said.is_empty() {
        return Err(Trouble::Service("the connection was closed without an answer".into()));
    }
    Ok(String::from_utf8_lossy(&said).trim_end().to_owned())
}

/// What INFO says of loading: a bulk string, its length first.
async fn info(stream: &mut BufReader<impl Stream>) -> Result<String, Trouble> {
    let length = line(stream, &["INFO", "persistence"]).await?;
    let length = length.strip_prefix('$').and_then(|length| length.parse::<u64>().ok());
    let length = length.filter(|length| *length < ANSWER_BYTES_MAX).ok_or(Trouble::Probe("no bulk string".into()))?;
    let mut text = Vec::new();
    stream.take(length).read_to_end(&mut text).await.map_err(|error| net::of(&error))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn loaded(info: &str) -> Option<Progress> {
    let bytes = info.lines().find_map(|line| line.trim().strip_prefix("loading_loaded_bytes:"))?;
    Some(Progress { phase: "loading its data".into(), done: bytes.parse().ok()? })
}

/// An error that it sent, its kind first.
fn refused(said: &str) -> Trouble {
    let text =
        said.strip_prefix('-').map_or_else(|| format!("it doesn't speak Redis's protocol: {}", plain(said)), plain);
    // That is our password, and says nothing of its health.
    let ours = ["-NOAUTH", "-WRONGPASS", "-NOPERM", "-ERR invalid password", "-ERR AUTH", "-ERR Client sent AUTH"];
    if ours.iter().any(|kind| said.starts_with(kind)) {
        return Trouble::Probe(format!("{text}; hint: look at `password_file` and `user`"));
    }
    Trouble::Service(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_errors_say() {
        for (said, of_probe) in [
            ("-NOAUTH Authentication required.", true),
            ("-WRONGPASS invalid username-password pair", true),
            ("-MISCONF Redis is configured to save RDB snapshots", false),
            ("-ERR max number of clients reached", false),
            ("HTTP/1.1 400 Bad Request", false),
            ("\u{1b}[31m", false),
        ] {
            let trouble = refused(said);
            assert_eq!(matches!(trouble, Trouble::Probe(_)), of_probe, "{trouble:?}");
            assert!(!format!("{trouble:?}").contains('\u{1b}'));
        }
        let info = "# Persistence\r\nloading:1\r\nloading_loaded_bytes:123\r\n";
        assert_eq!(loaded(info), Some(Progress { phase: "loading its data".into(), done: 123 }));
        assert_eq!(loaded("loading_loaded_bytes:x"), None);
    }

    #[test]
    fn addresses_are_checked_beforehand() {
        for (text, good) in
            [("127.0.0.1:6379", true), ("/run/redis.sock", true), ("redis", false), ("redis://x", false)]
        {
            assert_eq!(Redis::new(text).is_ok(), good, "{text}");
        }
    }
}
