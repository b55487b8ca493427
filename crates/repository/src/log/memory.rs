//! What this host remembers of the repository, outside of it: without that, an old copy put in its place would look right.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Digest, LogError, Nonce};
use crate::id::{RepositoryId, random};

/// Largest file that is read, in bytes; it has about 400.
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

/// A generation of keys that was the newest once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTip {
    /// Its number: the object is `key/<generation>`.
    pub generation: u32,
    /// The hash of the whole object.
    pub digest: Digest,
}

/// All that the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The newest record.
    #[serde(flatten)]
    pub tip: Tip,
    /// The newest keys. Missing in files of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeyTip>,
    /// Made by chance with the file: marks what processes of this state directory write. Missing in files of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Nonce>,
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
    pub fn load(&self) -> Result<Option<Remembered>, LogError> {
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
        let old = self.load()?;
        let mark = match old.and_then(|old| old.mark) {
            Some(mark) => mark,
            None => Nonce::from_bytes(random()?),
        };
        let new = match old.filter(|old| old.tip.repository == tip.repository) {
            Some(old) if old.tip.n >= tip.n => Remembered { mark: Some(mark), ..old },
            Some(old) => Remembered { tip, mark: Some(mark), ..old },
            None => Remembered { tip, keys: None, mark: Some(mark) },
        };
        self.replace(old, new)
    }

    /// Remembers the keys of `repository`, of which a record is remembered already, unless newer ones are.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn store_keys(&self, repository: RepositoryId, keys: KeyTip) -> Result<(), LogError> {
        let Some(old) = self.load()?.filter(|old| old.tip.repository == repository) else { return Ok(()) };
        if old.keys.is_some_and(|known| known.generation >= keys.generation) {
            return Ok(());
        }
        self.replace(Some(old), Remembered { keys: Some(keys), ..old })
    }

    fn replace(&self, old: Option<Remembered>, new: Remembered) -> Result<(), LogError> {
        if old == Some(new) {
            return Ok(());
        }
        let write = || {
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(&mut file, &new)?;
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

    fn tip(n: u64, repository: u8) -> Tip {
        Tip { repository: RepositoryId([repository; 16]), n, digest: Digest::of(b"x") }
    }

    #[test]
    fn the_newest_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = TipMemory::new(dir.path().join("tip"));
        assert_eq!(memory.load().unwrap(), None);
        for (stored, remembered) in
            [(tip(3, 1), tip(3, 1)), (tip(2, 1), tip(3, 1)), (tip(4, 1), tip(4, 1)), (tip(0, 2), tip(0, 2))]
        {
            memory.store(stored).unwrap();
            assert_eq!(memory.load().unwrap().unwrap().tip, remembered);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn keys_are_remembered_beside_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let memory = TipMemory::new(dir.path().join("tip"));
        let keys = |generation| KeyTip { generation, digest: Digest::of(b"k") };
        memory.store_keys(tip(0, 1).repository, keys(1)).unwrap();
        assert_eq!(memory.load().unwrap(), None, "keys of a repository of which nothing was seen");
        memory.store(tip(1, 1)).unwrap();
        let mark = memory.load().unwrap().unwrap().mark;
        assert!(mark.is_some());
        for (stored, remembered) in [(2, 2), (1, 2), (3, 3)] {
            memory.store_keys(tip(0, 1).repository, keys(stored)).unwrap();
            memory.store(tip(10 + u64::from(stored), 1)).unwrap();
            assert_eq!(memory.load().unwrap().unwrap().keys, Some(keys(remembered)));
        }
        memory.store_keys(tip(0, 2).repository, keys(9)).unwrap();
        assert_eq!(memory.load().unwrap().unwrap().keys, Some(keys(3)), "of another repository");
        memory.store(tip(1, 2)).unwrap();
        let other = memory.load().unwrap().unwrap();
        assert_eq!(
            (other.keys, other.mark),
            (None, mark),
            "the mark is the directory's, the keys are the repository's"
        );
    }

    #[test]
    fn the_file_of_an_earlier_program_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let memory = TipMemory::new(dir.path().join("tip"));
        fs::write(memory.path(), serde_json::to_vec(&tip(5, 1)).unwrap()).unwrap();
        assert_eq!(memory.load().unwrap(), Some(Remembered { tip: tip(5, 1), keys: None, mark: None }));
        memory.store(tip(5, 1)).unwrap();
        assert!(memory.load().unwrap().unwrap().mark.is_some());
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
