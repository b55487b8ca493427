//! The outbox: what is not yet delivered, and which episodes are open, on disk.
//!
//! One file per undelivered alert and route, and one file with the firing alerts of the open episodes. A file is written under a
//! temporary name, synced, renamed, and its directory synced: after a crash at any instruction each is whole or absent. What is
//! damaged all the same is set aside and reported, never fatal: an alerting that can't start is the worse failure.
//!
//! Plain files rather than the journal: alerts must go out, and be remembered, while the journal can't be written, and the
//! journal's schema may be newer than this program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use model::{Alert, AlertKey, AlertState};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the files' format. A file of another version is set aside.
const FORMAT: u32 = 1;

/// Undelivered (alert, route) pairs kept; beyond it the oldest resolves are dropped first, and said so.
pub const MAX_PENDING: usize = 1_000;

/// Damaged files kept for people to look at; the oldest go.
pub const MAX_SET_ASIDE: usize = 16;

/// Largest file that is read back, in bytes. An alert is a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

const EPISODES: &str = "episodes.json";
const PENDING_SUFFIX: &str = ".alert.json";
const TEMPORARY_SUFFIX: &str = ".tmp";
const SET_ASIDE_SUFFIX: &str = ".damaged";

/// The outbox could not do what it was asked to.
#[derive(Debug, Error)]
#[error("outbox: {what} {}: {source}. Hint: see whether the disk of the state directory is full, read-only or owned by another user", path.display())]
pub struct OutboxError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OutboxError + 'a {
    move |source| OutboxError { what, path: path.to_owned(), source }
}

/// An alert that a route has not taken yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Its number in this outbox: increasing, the order of delivery.
    pub id: u64,
    /// The route's name.
    pub route: String,
    /// The alert.
    pub alert: Alert,
}

#[derive(Serialize, Deserialize)]
struct PendingFile {
    format: u32,
    #[serde(flatten)]
    pending: Pending,
}

#[derive(Serialize, Deserialize)]
struct EpisodesFile {
    format: u32,
    open: Vec<Alert>,
    /// By key: the routes that were told. Of an older program's episodes nothing is known.
    #[serde(default)]
    told: BTreeMap<AlertKey, BTreeSet<String>>,
}

/// What an earlier guard left.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Undelivered, oldest first.
    pub pending: Vec<Pending>,
    /// The firing alerts of open episodes.
    pub open: Vec<Alert>,
    /// By episode: the routes that were told, or are being told. An episode that is not here was told to all that carry it.
    pub told: BTreeMap<AlertKey, BTreeSet<String>>,
    /// What was damaged or could not be read, in words.
    pub problems: Vec<String>,
}

/// The directory, opened by the one guard that has the state directory's lock.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
    open: Vec<Alert>,
    told: BTreeMap<AlertKey, BTreeSet<String>>,
}

impl Outbox {
    /// Opens it, creating it where it is absent, and reads what is there.
    ///
    /// # Errors
    /// Where the directory can't be made or listed. Single files that can't be read are problems, not errors.
    pub fn open(dir: &Path) -> Result<(Self, Recovered), OutboxError> {
        fs::create_dir_all(dir).map_err(failed("cannot create", dir))?;
        let mut recovered = Recovered::default();
        let mut set_aside = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed("cannot list", dir))? {
            let path = entry.map_err(failed("cannot list", dir))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(TEMPORARY_SUFFIX) {
                // A write that a crash cut short: its alert was not yet persisted.
                let _ = fs::remove_file(&path);
            } else if name.ends_with(SET_ASIDE_SUFFIX) {
                set_aside.push(path);
            } else if name == EPISODES {
                match read::<EpisodesFile>(&path).and_then(|file| known(file.format, (file.open, file.told))) {
                    Ok((open, told)) => (recovered.open, recovered.told) = (open, told),
                    Err(why) => recovered.problems.push(aside(&path, &why, &mut set_aside)),
                }
            } else if name.ends_with(PENDING_SUFFIX) {
                let pending = read::<PendingFile>(&path).and_then(|file| known(file.format, file.pending));
                match pending {
                    Ok(pending) if name == file_name(pending.id) => recovered.pending.push(pending),
                    Ok(pending) => {
                        let why = format!("it holds number {}", pending.id);
                        recovered.problems.push(aside(&path, &why, &mut set_aside));
                    }
                    Err(why) => recovered.problems.push(aside(&path, &why, &mut set_aside)),
                }
            }
        }
        recovered.pending.sort_by_key(|pending| pending.id);
        set_aside.sort();
        let excess = set_aside.len().saturating_sub(MAX_SET_ASIDE);
        for path in &set_aside[..excess] {
            let _ = fs::remove_file(path);
        }
        let (open, told) = (recovered.open.clone(), recovered.told.clone());
        Ok((Self { dir: dir.to_owned(), open, told }, recovered))
    }

    /// Makes an undelivered alert durable: it is when this returns.
    ///
    /// # Errors
    /// Where it can't be written; then no trace of it is left.
    pub fn put(&self, pending: &Pending) -> Result<(), OutboxError> {
        write(&self.dir, &file_name(pending.id), &PendingFile { format: FORMAT, pending: pending.clone() })
    }

    /// Forgets an alert that was delivered or given up. One that is not there is fine.
    ///
    /// # Errors
    /// Where the file can't be removed: the next guard delivers it once more.
    pub fn remove(&self, id: u64) -> Result<(), OutboxError> {
        let path = self.dir.join(file_name(id));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("cannot remove", &path)(error)),
            // Not synced: after a crash the alert may be delivered once more, with the same key.
            _ => Ok(()),
        }
    }

    /// Notes that an episode began, was told to another route, or ended, durably.
    ///
    /// # Errors
    /// Where it can't be written; it is noted in memory and written with the next change.
    pub fn note(&mut self, alert: &Alert, told: &BTreeSet<String>) -> Result<(), OutboxError> {
        self.open.retain(|open| open.key != alert.key);
        self.told.remove(&alert.key);
        if alert.state == AlertState::Firing {
            self.open.push(alert.clone());
            self.told.insert(alert.key.clone(), told.clone());
        }
        let file = EpisodesFile { format: FORMAT, open: self.open.clone(), told: self.told.clone() };
        write(&self.dir, EPISODES, &file)
    }
}

/// What an outbox holds, for people: reads only, and takes what a guard is just writing for not there.
///
/// # Errors
/// The directory can't be listed, for another reason than that there is none.
pub fn peek(dir: &Path) -> Result<Recovered, OutboxError> {
    let mut found = Recovered::default();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed("cannot list", dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed("cannot list", dir))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name == EPISODES {
            match read::<EpisodesFile>(&path).and_then(|file| known(file.format, (file.open, file.told))) {
                Ok((open, told)) => (found.open, found.told) = (open, told),
                Err(why) => found.problems.push(format!("{}: {why}", path.display())),
            }
        } else if name.ends_with(PENDING_SUFFIX) {
            let pending = read::<PendingFile>(&path).and_then(|file| known(file.format, file.pending));
            // One that can't be read may have been delivered and removed meanwhile.
            found.pending.extend(pending.ok());
        }
    }
    found.pending.sort_by_key(|pending| pending.id);
    Ok(found)
}

/// Sorted by name is sorted by number.
fn file_name(id: u64) -> String {
    format!("{id:020}{PENDING_SUFFIX}")
}

fn known<T>(format: u32, content: T) -> Result<T, String> {
    if format == FORMAT { Ok(content) } else { Err(format!("its format is {format}, this program knows {FORMAT}")) }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let length = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("it is {length} bytes long"));
    }
    let text = fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

/// Renames a damaged file out of the way; says so.
fn aside(path: &Path, why: &str, set_aside: &mut Vec<PathBuf>) -> String {
    let mut name = path.as_os_str().to_owned();
    name.push(SET_ASIDE_SUFFIX);
    let target = PathBuf::from(name);
    match fs::rename(path, &target) {
        Ok(()) => {
            let said = format!("outbox: {} is damaged ({why}): set aside as {}", path.display(), target.display());
            set_aside.push(target);
            said
        }
        Err(error) => format!("outbox: {} is damaged ({why}) and can't be set aside: {error}", path.display()),
    }
}

fn write<T: Serialize>(dir: &Path, name: &str, content: &T) -> Result<(), OutboxError> {
    let target = dir.join(name);
    let temporary = dir.join(format!("{name}{TEMPORARY_SUFFIX}"));
    let text = serde_json::to_vec(content).map_err(|e| failed("cannot encode", &target)(e.into()))?;
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, &target));
    if let Err(error) = renamed {
        // On a full disk the half-written file would hold the space that the next one needs.
        let _ = fs::remove_file(&temporary);
        return Err(failed("cannot write", &target)(error));
    }
    // The rename is durable once the directory is.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("cannot sync", dir))
}

/// Which of `pending` is dropped when there is one more than [`MAX_PENDING`]: the oldest resolve, or without one the oldest.
/// An unknown firing is worse than an unknown end.
pub(crate) fn victim<'a>(pending: impl Iterator<Item = &'a Pending>) -> Option<u64> {
    pending.min_by_key(|p| (p.alert.state != AlertState::Resolved, p.id)).map(|p| p.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::alert;

    fn pending(id: u64) -> Pending {
        Pending { id, route: "ops".into(), alert: alert("k", AlertState::Firing) }
    }

    #[test]
    fn what_was_put_is_there_for_the_next_guard_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let (mut outbox, recovered) = Outbox::open(&path).unwrap();
        assert!(recovered.pending.is_empty() && recovered.open.is_empty() && recovered.problems.is_empty());
        for id in [11, 2, 7] {
            outbox.put(&pending(id)).unwrap();
        }
        outbox.remove(7).unwrap();
        outbox.remove(7).unwrap();
        let told = BTreeSet::from(["ops".to_owned()]);
        outbox.note(&alert("a", AlertState::Firing), &told).unwrap();
        outbox.note(&alert("b", AlertState::Firing), &told).unwrap();
        outbox.note(&alert("a", AlertState::Resolved), &told).unwrap();
        let seen = peek(&path).unwrap();
        drop(outbox);

        let (_, recovered) = Outbox::open(&path).unwrap();
        assert_eq!(recovered.pending, [pending(2), pending(11)]);
        assert_eq!(recovered.open, [alert("b", AlertState::Firing)]);
        assert_eq!(recovered.told, BTreeMap::from([(AlertKey("b".into()), told)]));
        assert_eq!(recovered.problems, Vec::<String>::new());
        assert_eq!((seen.pending, seen.open, seen.told), (recovered.pending, recovered.open, recovered.told));
        assert!(peek(&dir.path().join("none")).unwrap().open.is_empty());
    }

    #[test]
    fn damaged_files_are_set_aside_bounded_and_not_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let (outbox, _) = Outbox::open(path).unwrap();
        outbox.put(&pending(1)).unwrap();
        fs::write(path.join(EPISODES), "{\"format\":9,\"open\":[]}").unwrap();
        fs::write(path.join("00000000000000000003.alert.json.tmp"), "half").unwrap();
        fs::copy(path.join(file_name(1)), path.join(file_name(5))).unwrap();
        for id in 10..40 {
            fs::write(path.join(file_name(id)), "{").unwrap();
        }
        let (_, recovered) = Outbox::open(path).unwrap();
        assert_eq!(recovered.pending, [pending(1)]);
        assert_eq!(recovered.problems.len(), 32, "{:?}", recovered.problems);
        assert!(recovered.problems.iter().any(|p| p.contains("its format is 9")));
        let left: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(left.iter().filter(|n| n.ends_with(SET_ASIDE_SUFFIX)).count(), MAX_SET_ASIDE);
        assert!(!left.iter().any(|n| n.ends_with(TEMPORARY_SUFFIX)));
    }

    #[test]
    fn resolves_are_dropped_before_firings() {
        let of = |id, state| Pending { id, route: "ops".into(), alert: alert("k", state) };
        let all = [of(1, AlertState::Firing), of(2, AlertState::Resolved), of(3, AlertState::Resolved)];
        assert_eq!(victim(all.iter()), Some(2));
        assert_eq!(victim(all[..1].iter()), Some(1));
        assert_eq!(victim([].iter()), None);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Outbox::open(&file.join("outbox")).unwrap_err().to_string();
        assert!(error.contains("cannot create") && error.contains("Hint: "), "{error}");
    }
}
