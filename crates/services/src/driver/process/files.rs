//! What is remembered of each service, one small file for each fact and one writer for each file.
//!
//! ```text
//! NAME.act    locked by whoever acts on the service
//! NAME.keep   locked by its keeper as long as that lives
//! NAME.kept   who that keeper is           written by the keeper, once it has the lock
//! NAME.run    the latest run               written by the process that becomes the service, before it does
//! NAME.end    how a run ended              written by the keeper, while the ended process is still a zombie
//! NAME.out    a FIFO: what the service writes to its standard output and error
//! NAME.log, NAME.log.1 ...                 written by the keeper
//! ```
//!
//! Records are replaced by rename(2): whoever is killed at any point leaves the old one or the new one. They are not synced: a record of another boot says no
//! more than that all has ended, and one that a crash of the host tore says the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use model::ServiceName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::identity::{Identity, read_bounded};

/// A record is shorter than this, in bytes.
const RECORD_BYTES_MAX: u64 = 16 * 1024;
/// The length of a file's name up to which a service's name is written out, in bytes; file systems allow 255.
const NAME_BYTES_MAX: usize = 160;

/// One run of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Counts from one; never used again for the same service.
    pub(super) number: u64,
    /// Its process; also the id of its session and its group.
    pub(super) process: Identity,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// Which.
    pub(super) run: u64,
    /// The exit code; `None` where it was killed, or its keeper could not see how it ended.
    pub(super) code: Option<i32>,
    /// The signal that killed it.
    pub(super) signal: Option<i32>,
    /// Whether it had been told to stop.
    pub(super) asked: bool,
}

/// The files of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    dir: PathBuf,
    name: String,
}

impl Files {
    pub(super) fn new(dir: &Path, service: &ServiceName) -> Self {
        Self { dir: dir.to_owned(), name: file_name(service.as_str()) }
    }

    pub(super) fn path(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    /// The service's name, fit for a file and for a list of processes.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn run(&self) -> io::Result<Option<Run>> {
        read(&self.path("run"))
    }

    pub(super) fn end(&self) -> io::Result<Option<End>> {
        read(&self.path("end"))
    }

    pub(super) fn kept(&self) -> io::Result<Option<Identity>> {
        read(&self.path("kept"))
    }

    pub(super) fn write<T: Serialize>(&self, what: &str, record: &T) -> io::Result<()> {
        let new = self.path(&format!("{what}.new"));
        let mut text = serde_json::to_vec(record)?;
        text.push(b'\n');
        let written =
            options().write(true).create(true).truncate(true).open(&new).and_then(|mut file| file.write_all(&text));
        written.and_then(|()| fs::rename(&new, self.path(what))).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// Opens a file that is only locked.
    pub(super) fn lock_file(&self, what: &str) -> io::Result<File> {
        options().write(true).create(true).truncate(false).open(self.path(what))
    }

    /// Whether a keeper of it lives, by its lock.
    pub(super) fn is_kept(&self) -> bool {
        File::open(self.path("keep"))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }
}

/// Files of ours may hold what only their owner may see.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes the directory of all files.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match read_bounded(path, RECORD_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Any name as that of a file: percent-encoded, so that different names have different files. Of a long one the rest is hashed.
fn file_name(service: &str) -> String {
    // A leading hyphen would make it an option.
    let plain = |at: usize, byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (byte == b'-' && at > 0);
    let encoded: String = service
        .bytes()
        .enumerate()
        .map(|(at, byte)| if plain(at, byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if !encoded.is_empty() && encoded.len() <= NAME_BYTES_MAX {
        return encoded;
    }
    // FNV-1a (draft-eastlake-fnv): the same in each version of the program.
    let hash = service
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let kept: String = encoded.chars().take(NAME_BYTES_MAX - 17).collect();
    format!("{kept}~{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_file_of_its_own_and_none_leaves_the_directory() {
        let long = "x".repeat(400);
        let longer = "x".repeat(401);
        let names =
            ["site", "Site", "", ".", "..", "../../etc/passwd", "a/b", "a%2Fb", "a b\u{1b}[31m\0", "ä", &long, &longer];
        let files: std::collections::BTreeSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        for file in files {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_%~".contains(&byte);
            assert!(!file.is_empty() && file.len() < 200 && file.bytes().all(fine), "{file}");
        }
        assert_eq!((file_name("site-1"), file_name("--help")), ("site-1".to_owned(), "%2D-help".to_owned()));
    }

    #[test]
    fn a_torn_record_is_an_error_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), &"site".into());
        assert_eq!(files.run().unwrap(), None);
        let run = Run { number: 3, process: Identity::this().unwrap() };
        files.write("run", &run).unwrap();
        assert_eq!(files.run().unwrap(), Some(run));
        for text in ["", "{", "{\"number\": 1}", &"x".repeat(100_000)] {
            fs::write(files.path("run"), text).unwrap();
            files.run().unwrap_err();
        }
    }
}
