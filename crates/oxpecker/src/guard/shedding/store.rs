//! The ladder's state on disk: replaced as a whole, and durable before anything is done on it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use model::Moment;
use policy::State;
use serde::{Deserialize, Serialize};

/// The version of the file's form.
const FORMAT: u32 = 1;
/// The longest file that is read: far above any real one.
const BYTES_MAX: u64 = 4 << 20;

/// Below the state directory.
const FILE: &str = "shedding.json";

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// The boot clock begins anew with each boot.
    boot_id: String,
    state: State,
}

/// Where the ladder's state is.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    boot_id: String,
}

impl Store {
    pub fn new(state_dir: &Path, boot_id: &str) -> Self {
        Self { path: state_dir.join(FILE), boot_id: boot_id.to_owned() }
    }

    /// What the guard before left, as of `now`; `None` where there was none.
    ///
    /// # Errors
    /// In words: it can't be read, or is none of ours. What is in force is recognised all the same.
    pub fn load(&self, now: Moment) -> Result<Option<State>, String> {
        let fail = |why: String| format!("{}: {why}; what the ladder has in force is looked for", self.path.display());
        let bytes = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > BYTES_MAX => return Err(fail("it is too long to be ours".to_owned())),
            _ => fs::read(&self.path).map_err(|error| fail(error.to_string()))?,
        };
        let damaged = |error: serde_json::Error| fail(format!("it is damaged: {error}"));
        let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(fail(format!("it is of format {format}, and this program knows {FORMAT} only")));
        }
        let stored: Stored = serde_json::from_slice(&bytes).map_err(damaged)?;
        let same_boot = !self.boot_id.is_empty() && stored.boot_id == self.boot_id;
        Ok(Some(stored.state.restarted(now, same_boot)))
    }

    /// Writes it: whole or not at all, and durable before it returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, state: &State) -> io::Result<()> {
        let stored = Stored { format: FORMAT, boot_id: self.boot_id.clone(), state: state.clone() };
        let bytes = serde_json::to_vec(&stored).map_err(io::Error::other)?;
        let new = self.path.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_ours_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "boot");
        let now = Moment { wall: "2026-11-23T10:00:00Z".parse().unwrap(), boot_us: 5_000_000 };
        assert_eq!(store.load(now), Ok(None));
        store.save(&State::default()).unwrap();
        assert_eq!(store.load(now), Ok(Some(State::default())));
        for text in ["", "{", "{\"format\":9}", "{\"format\":1}"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(store.load(now).unwrap_err().contains(FILE), "{text}");
        }
    }
}
