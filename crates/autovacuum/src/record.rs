//! The record of a throttle in the state directory: written and synced *before* the first act, removed after the last step of undoing. If
//! a guard dies in between, the next start finds it.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    by_hand,
    undo::{FORMAT, UndoPlan},
};

/// The file's name in the state directory.
const NAME: &str = "throttle.json";
/// The largest record that is read, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// The record could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error(
        "could not {action} {path}: {source} (hint: the state directory must be writable, or no throttle is begun)"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The record is not one of ours.
    #[error(
        "{path} is not a record of this version: {why} (hint: check that PostgreSQL's vacuum cost settings are yours, then remove it)"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// The plan as it is kept. Reading it takes no notice of what is written for people.
#[derive(Serialize)]
struct Record<'a> {
    /// For whoever opens the file because nothing else was there to undo it.
    by_hand: String,
    #[serde(flatten)]
    plan: &'a UndoPlan,
}

/// Writes the record; it is durable when this returns.
///
/// # Errors
/// The state directory can't be written.
pub fn write(state_dir: &Path, plan: &UndoPlan) -> Result<(), RecordError> {
    let path = path(state_dir);
    let temporary = state_dir.join("throttle.json.new");
    let run = || -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&Record { by_hand: by_hand::undo(plan), plan })?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(state_dir)?.sync_all()
    };
    run().map_err(|source| RecordError::Io { action: "write", path: path.clone(), source })
}

/// The record, where there is one.
///
/// # Errors
/// It can't be read or is not one of ours.
pub fn read(state_dir: &Path) -> Result<Option<UndoPlan>, RecordError> {
    let path = path(state_dir);
    let bytes = match fs::metadata(&path).and_then(|meta| {
        if meta.len() > MAX_RECORD { Err(io::Error::other("it is too large")) } else { fs::read(&path) }
    }) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Io { action: "read", path, source }),
    };
    let foreign = |why: String| RecordError::Foreign { path: path.clone(), why };
    let plan: UndoPlan = serde_json::from_slice(&bytes).map_err(|error| foreign(error.to_string()))?;
    if plan.format != FORMAT {
        return Err(foreign(format!("its format is {}, not {FORMAT}", plan.format)));
    }
    Ok(Some(plan))
}

/// Removes the record.
///
/// # Errors
/// It is there and can't be removed.
pub fn remove(state_dir: &Path) -> Result<(), RecordError> {
    let path = path(state_dir);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RecordError::Io { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::undo::Home;

    #[test]
    fn a_record_comes_back_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let plan = UndoPlan {
            format: FORMAT,
            cluster: "main".into(),
            boot_id: "b".into(),
            home: Home::IncludeFile { path: "/run/x".into() },
            major: 18,
            owner: Some((1, 2)),
            postmaster: None,
            data_directory: None,
            launcher: None,
            workers: Vec::new(),
            open_first: None,
        };
        write(dir.path(), &plan).unwrap();
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert!(text.contains(r#""by_hand":"rm -f /run/x && psql"#), "{text}");
        assert_eq!(read(dir.path()).unwrap(), Some(plan));
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }

    #[test]
    fn strange_records_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "{\"format\":9}").unwrap();
        assert!(matches!(read(dir.path()), Err(RecordError::Foreign { .. })));
    }
}
