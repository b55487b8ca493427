//! Which cluster's WAL it is, and what its stream in the repository is called.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use pg_format::{
    ControlFile,
    control::{self, ControlError},
    wal::{BadSegmentSize, SegmentSize},
};
use repository::{
    Repository,
    wal::{Wal, WalError},
};

/// How often a control file is read that the server may be writing at the moment.
const CONTROL_READS_MAX: u32 = 10;
/// How long is waited between two of these.
const CONTROL_PAUSE: Duration = Duration::from_millis(20);

/// What names a stream of WAL, and into what it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Made by initdb, the same in the cluster, its standbys and its backups.
    pub system_identifier: u64,
    /// The size of its WAL segments.
    pub segment: SegmentSize,
}

/// The control file does not tell.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It can't be read.
    #[error(
        "can't read {}: {source}; hint: give the path as PostgreSQL does (%p), run from the data directory, or name that with --data-dir",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is damaged, or of a version that is not known.
    #[error("{}: {source}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ControlError,
    },
    /// No cluster has segments of that size.
    #[error(transparent)]
    Segment(#[from] BadSegmentSize),
}

impl Cluster {
    /// Reads it from the control file below `data_dir`, which may be that of a running server.
    ///
    /// # Errors
    /// The file is not there, or is damaged at each of several looks.
    pub fn of_data_dir(data_dir: &Path) -> Result<Self, ClusterError> {
        let path = data_dir.join(control::PATH);
        let mut reads = 0;
        loop {
            let bytes = fs::read(&path).map_err(|source| ClusterError::Unreadable { path: path.clone(), source })?;
            reads += 1;
            match ControlFile::parse(&bytes) {
                Ok(control) => {
                    let segment = SegmentSize::new(control.wal_segment_size.into())?;
                    return Ok(Self { system_identifier: control.system_identifier, segment });
                }
                // The server writes it in place: half of the new one may be read.
                Err(_) if reads < CONTROL_READS_MAX => thread::sleep(CONTROL_PAUSE),
                Err(source) => return Err(ClusterError::Bad { path, source }),
            }
        }
    }

    /// The name of its stream in the repository: the system identifier in decimal digits, as PostgreSQL prints it.
    #[must_use]
    pub fn stream(&self) -> String {
        self.system_identifier.to_string()
    }

    /// Its WAL in the repository.
    ///
    /// # Errors
    /// Segments of this size can't be stored.
    pub fn open(&self, repository: &Repository) -> Result<Wal, WalError> {
        repository.wal(self.stream().as_bytes(), self.segment.bytes())
    }
}

/// The data directory to which a path in `pg_wal` belongs, as PostgreSQL gives it to its commands: `pg_wal/RECOVERYXLOG`, from the data
/// directory. Symbolic links are left alone: `pg_wal` may be one.
#[must_use]
pub fn data_dir_of(path: &Path) -> PathBuf {
    let above = path.parent().and_then(Path::parent);
    match above {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_of_a_path() {
        for (path, expected) in [
            ("pg_wal/RECOVERYXLOG", "."),
            ("/srv/data/pg_wal/000000010000000000000001", "/srv/data"),
            ("x", "."),
            ("./pg_wal/x", "."),
        ] {
            assert_eq!(data_dir_of(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn what_is_no_data_directory_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Cluster::of_data_dir(dir.path()).unwrap_err();
        assert!(missing.to_string().contains("; hint: "), "{missing}");
        fs::create_dir(dir.path().join("global")).unwrap();
        fs::write(dir.path().join(control::PATH), [7; 8192]).unwrap();
        assert!(matches!(Cluster::of_data_dir(dir.path()), Err(ClusterError::Bad { .. })));
    }
}
