//! Whom we stopped ourselves: the engine does not say who stopped a container, and those that a person stopped are left alone.
//!
//! One small file per service, written before the stop. It names runs, not containers: one that somebody starts and stops later is that somebody's.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use model::ServiceName;
use serde::{Deserialize, Serialize};

/// The largest file that is read, in bytes.
const BYTES_MAX: u64 = 256 * 1024;
/// Runs that are remembered of one service: those of all its containers, and no more.
const STOPS_MAX: usize = 1024;

/// A run of a container that we stopped, or were about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stop {
    /// The container's id.
    pub(super) id: String,
    /// When that run was started, in nanoseconds since 1970.
    pub(super) started: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Memory {
    dir: PathBuf,
}

impl Memory {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, service: &ServiceName) -> PathBuf {
        // Any name makes a name of a file.
        let hash = blake3::hash(service.as_str().as_bytes()).to_hex();
        self.dir.join(format!("{}.stops", &hash[..32]))
    }

    /// What is remembered; nothing where that can't be read.
    pub(super) fn stops(&self, service: &ServiceName) -> Vec<Stop> {
        let read = |path: &Path| -> io::Result<Vec<Stop>> {
            let mut text = Vec::new();
            fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
            Ok(serde_json::from_slice(&text)?)
        };
        let path = self.path(service);
        match read(&path) {
            Ok(stops) => stops,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let file = path.display();
                tracing::warn!(%service, %file, %error, "what was stopped by us can't be read; it counts as stopped by somebody");
                Vec::new()
            }
        }
    }

    /// Remembers these instead of what was remembered.
    pub(super) fn set(&self, service: &ServiceName, stops: &[Stop]) -> io::Result<()> {
        let (path, stops) = (self.path(service), &stops[..stops.len().min(STOPS_MAX)]);
        fs::create_dir_all(&self.dir)?;
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(stops)?)?;
        fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_remembered_per_service() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path().join("made/then"));
        let (site, other) = ("../site".into(), "other".into());
        assert_eq!(memory.stops(&site), []);
        let stop = Stop { id: "ab".into(), started: u64::MAX };
        memory.set(&site, std::slice::from_ref(&stop)).unwrap();
        assert_eq!((memory.stops(&site), memory.stops(&other)), (vec![stop], vec![]));
        fs::write(memory.path(&site), "torn").unwrap();
        assert_eq!(memory.stops(&site), []);
    }
}
