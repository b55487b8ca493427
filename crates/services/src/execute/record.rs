//! What the executor remembers over its own death, in one small file: what was tried in this boot, and which acts were written down and perhaps never done.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use model::ServiceName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::ExecuteError;
use crate::plan::Ledger;

/// The version of the files' form.
const FORMAT: u32 = 1;
/// The longest file that is read: a ledger of 10,000 services, each with all acts that are kept.
const BYTES_MAX: u64 = 64 << 20;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    /// Attempts of another boot are none of this one's.
    pub(super) boot: String,
    pub(super) ledger: Ledger,
    /// Acts that were begun and of whose end nothing is known.
    pub(super) begun: BTreeSet<ServiceName>,
}

impl Record {
    /// That of this boot, or an empty one.
    pub(super) fn of_boot(dir: &Path, boot: &str) -> Result<Self, ExecuteError> {
        let found: Option<Self> = read(&dir.join("recovery.json"))?;
        let of_this = found.filter(|record| record.boot == boot && record.format == FORMAT);
        Ok(of_this.unwrap_or_else(|| Self { format: FORMAT, boot: boot.to_owned(), ..Self::default() }))
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), ExecuteError> {
        write(&dir.join("recovery.json"), self)
    }
}

/// Reads a file of ours; `None` where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ExecuteError> {
    let fail = |why: String| ExecuteError::File {
        path: path.to_owned(),
        why,
        hint: "see who else writes there; moved away, budgets and approvals begin anew",
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
        Ok(metadata) if metadata.len() > BYTES_MAX => return Err(fail(format!("it has more than {BYTES_MAX} bytes"))),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(error.to_string()))
}

/// Writes a file of ours: whole or not at all, and durable before it returns.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), ExecuteError> {
    let hint =
        "see that the disk has room and this user may write there; nothing is acted on before it is written down";
    let fail = |error: io::Error| ExecuteError::File { path: path.to_owned(), why: error.to_string(), hint };
    let bytes = serde_json::to_vec(value).map_err(|error| fail(io::Error::other(error)))?;
    let new: PathBuf = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(fail)
}
