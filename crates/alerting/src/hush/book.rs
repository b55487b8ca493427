//! Where it is written down: one file, changed under a lock, whole or as it was after a kill at any instruction.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hush;

/// Version of the file's format.
const FORMAT: u32 = 1;
/// Largest file that is read, in bytes: all that may be in it many times over.
const MAX_FILE_BYTES: u64 = 4 << 20;

const FILE: &str = "hush.json";
const LOCK: &str = "hush.lock";

/// It can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}. Hint: {hint}", path.display())]
pub struct HushError {
    path: PathBuf,
    why: String,
    hint: &'static str,
}

#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    #[serde(flatten)]
    hush: Hush,
}

/// The file, in the directory of the outbox.
#[derive(Clone, Debug)]
pub struct Book {
    dir: PathBuf,
}

impl Book {
    /// The one of this directory; touches nothing.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// What was said; nothing where there is no file.
    ///
    /// # Errors
    /// It can't be read, is damaged, or of another version: then nothing counts as silenced.
    pub fn read(&self) -> Result<Hush, HushError> {
        let path = self.dir.join(FILE);
        let fail = |why: String, hint| HushError { path: path.clone(), why, hint };
        let text = match fs::metadata(&path).and_then(|meta| {
            if meta.len() > MAX_FILE_BYTES {
                return Err(io::Error::other(format!("it is {} bytes long", meta.len())));
            }
            fs::read(&path)
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Hush::default()),
            Err(error) => {
                return Err(fail(error.to_string(), "read it as the user that the guard runs as, or as root"));
            }
        };
        let damaged = "remove it: silences and acknowledgements are forgotten then";
        let content: Content = serde_json::from_slice(&text).map_err(|error| fail(error.to_string(), damaged))?;
        if content.format != FORMAT {
            let why = format!("its format is {}, this program knows {FORMAT}", content.format);
            return Err(fail(why, "use the newer version that wrote it, or remove it"));
        }
        Ok(content.hush)
    }

    /// Changes it: what is over is forgotten first. Durable once this returns.
    ///
    /// # Errors
    /// As [`Book::read`], or it can't be written: then it is as it was.
    pub fn change<T>(&self, now: Timestamp, change: impl FnOnce(&mut Hush) -> T) -> Result<T, HushError> {
        let fail = |path: PathBuf| {
            move |error: io::Error| HushError {
                path,
                why: error.to_string(),
                hint: "do it as the user that the guard runs as, or as root; is the disk full?",
            }
        };
        fs::create_dir_all(&self.dir).map_err(fail(self.dir.clone()))?;
        let lock_path = self.dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(fail(lock_path.clone()))?;
        lock.lock().map_err(fail(lock_path))?;
        let mut hush = self.read()?;
        hush.prune(now);
        let answer = change(&mut hush);
        let (path, temporary) = (self.dir.join(FILE), self.dir.join(format!("{FILE}.new")));
        let text = serde_json::to_vec(&Content { format: FORMAT, hush }).map_err(|e| fail(path.clone())(e.into()))?;
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            fail(path)(error)
        })?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use model::AlertKey;

    use super::*;
    use crate::hush::Ack;

    #[test]
    fn what_many_say_at_once_is_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(&dir.path().join("outbox"));
        assert_eq!(book.read().unwrap(), Hush::default());
        std::thread::scope(|scope| {
            for n in 0..8 {
                let book = book.clone();
                scope.spawn(move || {
                    let ack = Ack { key: AlertKey(format!("k{n}")), at: Timestamp::UNIX_EPOCH, by: "eva".into() };
                    book.change(Timestamp::UNIX_EPOCH, |hush| hush.acks.push(ack)).unwrap();
                });
            }
        });
        assert_eq!(book.read().unwrap().acks.len(), 8);
    }

    #[test]
    fn a_damaged_or_newer_file_is_told_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(dir.path());
        for (text, says) in [("{", "EOF"), ("{\"format\":9,\"silences\":[],\"acks\":[]}", "its format is 9")] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = book.read().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("Hint: "), "{error}");
            book.change(Timestamp::UNIX_EPOCH, |_| ()).unwrap_err();
            assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }
}
