//! What the executor remembers over its own death, in small files: each is replaced as a whole, says its format, and is durable before anything is done on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use model::ServiceName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ExecuteError, approval::Use};
use crate::plan::Ledger;

/// The version of the files' form.
const FORMAT: u32 = 2;
/// The longest file that is read: a ledger of 10,000 services, each with all acts that are kept.
const BYTES_MAX: u64 = 64 << 20;
/// How long one who changes a file waits for another who does. Each takes as long as a small write to disk.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often that is tried.
const LOCK_RETRY: Duration = Duration::from_millis(5);

const RECORD: &str = "recovery.json";
const HINT: &str = "see who else writes there; moved away, budgets begin anew, and approvals that were used up count again until they expire";

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Attempts of another boot are none of this one's.
    pub(super) boot: String,
    pub(super) ledger: Ledger,
    /// Approvals that acts were begun on.
    pub(super) used: BTreeSet<Use>,
    /// Of acts whose end nobody knows yet: what they were approved by.
    pub(super) begun_on: BTreeMap<ServiceName, Use>,
}

impl Record {
    /// That of this boot, or an empty one. What was approved and used up stays so in all boots.
    pub(super) fn of_boot(dir: &Path, boot: &str) -> Result<Self, ExecuteError> {
        let found: Option<Self> = read(&dir.join(RECORD), HINT)?;
        Ok(match found {
            Some(record) if record.boot == boot => record,
            other => {
                let used = other.map(|record| record.used).unwrap_or_default();
                Self { boot: boot.to_owned(), used, ..Self::default() }
            }
        })
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), ExecuteError> {
        write(&dir.join(RECORD), self)
    }

    /// What tells one state of the file from another; `None` where there is none.
    pub(super) fn mark(dir: &Path) -> Option<(u64, std::time::SystemTime)> {
        let metadata = fs::metadata(dir.join(RECORD)).ok()?;
        Some((std::os::unix::fs::MetadataExt::ino(&metadata), metadata.modified().ok()?))
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Formatted<T> {
    format: u32,
    holds: T,
}

/// Reads a file of ours; `None` where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path, hint: &'static str) -> Result<Option<T>, ExecuteError> {
    let fail = |why: String, hint| ExecuteError::File { path: path.to_owned(), why, hint };
    let unreadable = |error: io::Error| fail(error.to_string(), "see that this user may read it");
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if metadata.len() > BYTES_MAX => {
            return Err(fail(format!("it is damaged: it has more than {BYTES_MAX} bytes"), hint));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let damaged = |error: serde_json::Error| fail(format!("it is damaged: {error}"), hint);
    let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format != FORMAT {
        let why = format!("it is of format {format}, and this program knows format {FORMAT} only");
        let hint = "use the program that wrote it; or, once nothing of it matters any more, move the file away";
        return Err(fail(why, hint));
    }
    let read: Formatted<T> = serde_json::from_slice(&bytes).map_err(damaged)?;
    Ok(Some(read.holds))
}

/// Writes a file of ours: whole or not at all, and durable before it returns. One writer at a time.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), ExecuteError> {
    let hint =
        "see that the disk has room and this user may write there; nothing is acted on before it is written down";
    let fail = |error: io::Error| ExecuteError::File { path: path.to_owned(), why: error.to_string(), hint };
    let bytes = serde_json::to_vec(&Formatted { format: FORMAT, holds: value })
        .map_err(|error| fail(io::Error::other(error)))?;
    let new = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(fail)
}

/// Changes a file that several processes write, under its lock. Makes its directory.
pub(super) fn change<T: Default + Serialize + DeserializeOwned, R>(
    path: &Path,
    hint: &'static str,
    change: impl FnOnce(&mut T) -> R,
) -> Result<R, ExecuteError> {
    let lock_path = path.with_extension("lock");
    let fail = |why: String| ExecuteError::File {
        path: lock_path.clone(),
        why,
        hint: "see that this user may write there, and what else holds it",
    };
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(|error| fail(error.to_string()))?;
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.map_err(|error| fail(error.to_string()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while let Err(error) = lock.try_lock() {
        match error {
            fs::TryLockError::Error(error) => return Err(fail(error.to_string())),
            fs::TryLockError::WouldBlock if Instant::now() >= deadline => {
                return Err(fail(format!("somebody held it for {} s", LOCK_PATIENCE.as_secs())));
            }
            fs::TryLockError::WouldBlock => thread::sleep(LOCK_RETRY),
        }
    }
    let mut value = read(path, hint)?.unwrap_or_default();
    let result = change(&mut value);
    write(path, &value)?;
    Ok(result)
}
