//! What a driver tells a keeper and a keeper its launcher, each as one line of JSON, and what comes back.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Read},
    path::PathBuf,
    time::Duration,
};

use model::ServiceName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Declared;

/// The longest order, in bytes: an environment is in it.
const ORDER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The longest reply, in bytes.
pub(super) const REPLY_BYTES_MAX: u64 = 16 * 1024;

/// To a keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Where the files are.
    pub(super) dir: PathBuf,
    /// The service.
    pub(super) service: ServiceName,
    /// What precedes the role in the arguments of our own program.
    pub(super) arguments: Vec<String>,
    /// Whether to start it where it doesn't run; else only a running one is kept.
    pub(super) start: bool,
    /// What to run.
    pub(super) command: Vec<String>,
    pub(super) directory: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) environment_files: Vec<String>,
    /// The number of the signal that asks it to stop.
    pub(super) stop_signal: i32,
    pub(super) stop_within: Duration,
    pub(super) log_bytes: u64,
    /// The run to start; set by the keeper.
    pub(super) run: u64,
}

/// From a keeper, or from a launcher that did not become its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The service runs and is kept.
    Kept,
    /// Another keeper has it.
    Other,
    /// It doesn't run, and nobody said that it should.
    Down,
    /// Not allowed.
    Denied { why: String, hint: String },
    /// Something is not there.
    Absent { why: String, hint: String },
    /// It failed.
    Failed { why: String, hint: String },
}

impl Reply {
    /// What an error of the system means. `what` was to be done.
    pub(super) fn of(what: &str, error: &io::Error, hint: &str) -> Self {
        let (why, hint) = (format!("{what}: {error}"), hint.to_owned());
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { why, hint },
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent { why, hint },
            _ => Self::Failed { why, hint },
        }
    }
}

impl Order {
    pub(super) fn new(dir: &std::path::Path, arguments: &[String], declared: &Declared, start: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            service: declared.name.clone(),
            arguments: arguments.to_vec(),
            start,
            command: declared.command.clone(),
            directory: declared.directory.clone(),
            user: declared.user.clone(),
            environment: declared.environment.clone(),
            environment_files: declared.environment_files.clone(),
            stop_signal: declared.stop_signal.number(),
            stop_within: declared.stop_within.min(super::STOP_WITHIN_MAX),
            log_bytes: declared.log_bytes,
            run: 0,
        }
    }
}

/// One line of JSON.
pub(super) fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one line of JSON; `None` where nothing came before the end.
pub(super) fn read_line<T: DeserializeOwned>(from: impl Read) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    io::BufReader::new(from.take(ORDER_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
