//! What this host remembers of the repository, outside of it: without that, an old copy put in its place would look right.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Digest, LogError};
use crate::id::RepositoryId;

/// Largest file that is read, in bytes; it has about 200.
const MEMORY_BYTES_MAX: u64 = 4096;

/// A record that was the newest once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// The repository.
    pub repository: RepositoryId,
    /// The record's number.
    pub n: u64,
    /// The hash of its sealed bytes.
    pub digest: Digest,
}

/// A small local file with the newest record that was ever seen. Replaced by rename, so whole after a crash. Processes that share it
/// never bring it back to an older record, but for two that write in the same instant.
#[derive(Clone, Debug)]
pub struct TipMemory {
    path: PathBuf,
}

impl TipMemory {
    /// In the file `path`, whose directory must be there. The file need not be.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, what: &'static str, source: io::Error) -> LogError {
        LogError::Memory { what, path: self.path.clone(), source }
    }

    /// What is remembered; `None` where nothing is yet.
    ///
    /// # Errors
    /// Where the file can't be read or is no memory: then nobody can say whether the repository went back.
    pub fn load(&self) -> Result<Option<Tip>, LogError> {
        let read = || {
            if fs::metadata(&self.path)?.len() > MEMORY_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large to be ours"));
            }
            fs::read(&self.path)
        };
        match read() {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| self.failed("understanding", error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("reading", error)),
        }
    }

    /// Remembers `tip`, unless a newer one of the same repository is remembered.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn store(&self, tip: Tip) -> Result<(), LogError> {
        if self.load()?.is_some_and(|old| old.repository == tip.repository && old.n >= tip.n) {
            return Ok(());
        }
        let write = || {
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(&mut file, &tip)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            fs::File::open(dir)?.sync_all()
        };
        write().map_err(|error| self.failed("writing", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = TipMemory::new(dir.path().join("tip"));
        assert_eq!(memory.load().unwrap(), None);
        let tip = |n, repository| Tip { repository: RepositoryId([repository; 16]), n, digest: Digest::of(b"x") };
        for (stored, remembered) in
            [(tip(3, 1), tip(3, 1)), (tip(2, 1), tip(3, 1)), (tip(4, 1), tip(4, 1)), (tip(0, 2), tip(0, 2))]
        {
            memory.store(stored).unwrap();
            assert_eq!(memory.load().unwrap(), Some(remembered));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_memory_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let memory = TipMemory::new(dir.path().join("tip"));
        for bad in ["", "{", "{\"n\":1}", &" ".repeat(5000)] {
            fs::write(memory.path(), bad).unwrap();
            assert!(matches!(memory.load(), Err(LogError::Memory { .. })), "{bad}");
        }
    }
}
