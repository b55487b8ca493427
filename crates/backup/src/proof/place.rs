//! The directory that a proof works in, and the clean-up of those whose prover was killed.
//!
//! Each directory has a record in a registry directory: where it is, and which process (id, start time, boot) owns it. A record whose
//! owner is gone is what a killed prover left: the next proof kills what still works there and removes it. The directory carries the
//! same token as its record, so that nothing is ever removed that merely lies at the recorded place.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::{
    error::{ProveError, file},
    identity::Identity,
};

/// How the directories are named.
const PREFIX: &str = "oxproof-";
/// The file in the directory that says whose it is.
const MARKER: &str = "owner.json";
/// A unix socket's path may have 107 bytes and a closing zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// The socket that PostgreSQL makes for our port, and its lock.
const SOCKET_NAME: &str = "run/.s.PGSQL.5432.lock";
/// How long processes in a directory get to go once they were killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a control group may stay busy.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);
/// How many records a clean-up looks at in one go: a bound, more than a few are never there.
const RECORDS_MAX: usize = 1000;

/// A process that can't be mistaken for a later one with its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat` (proc(5)).
    start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    boot_id: String,
}

impl Owner {
    fn ourselves() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { pid, start_time: start_time_of(pid)?, boot_id: boot_id()? })
    }

    fn lives(&self) -> bool {
        // Without /proc nothing is known: better to leave a directory than to pull it away under a living prover.
        boot_id().is_none_or(|boot| boot == self.boot_id)
            && start_time_of(self.pid)
                .map_or_else(|| !Path::new("/proc/self/stat").exists(), |it| it == self.start_time)
    }
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn start_time_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie owns nothing any more.
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What the registry and the directory's marker both say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    token: String,
    dir: PathBuf,
    owner: Option<Owner>,
    /// A control group made for the server, to be removed with the directory.
    #[serde(default)]
    cgroup: Option<PathBuf>,
}

/// A proof's directory. Removed, with its record, when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    record_path: PathBuf,
    record: Record,
}

impl Place {
    /// Makes a directory below `parent` and registers it. What killed provers left is removed first.
    pub(crate) fn create(parent: &Path, registry: &Path, identity: &Identity) -> Result<Self, ProveError> {
        for dir in [parent, registry] {
            fs::create_dir_all(dir).map_err(file("create", dir))?;
        }
        let parent = fs::canonicalize(parent).map_err(file("resolve", parent))?;
        let mut made = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(8)
            .tempdir_in(&parent)
            .map_err(file("make a directory in", &parent))?;
        let dir = made.path().to_owned();
        if dir.join(SOCKET_NAME).as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ProveError::PathTooLong { path: parent });
        }
        let token = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let record = Record { token, dir: dir.clone(), owner: Owner::ourselves(), cgroup: None };
        let record_path = registry.join(format!("{}.json", record.token));
        // The record first: killed in between, the clean-up finds a record and a directory without a marker, empty, and removes both.
        write_record(&record_path, &record)?;
        write_record(&dir.join(MARKER), &record)?;
        made.disable_cleanup(true);
        let place = Self { dir, record_path, record };
        for path in [place.run(), place.conf(), place.tablespaces(), place.tool(), place.root()] {
            fs::create_dir(&path).map_err(file("create", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(file("close", &path))?;
        }
        for path in [place.dir.clone(), place.run(), place.conf(), place.tablespaces(), place.tool()] {
            identity.own(&path).map_err(file("change the owner of", &path))?;
        }
        Ok(place)
    }

    /// All of it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the data directory is restored to. Not there at first.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The server's socket.
    pub(crate) fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The server's configuration.
    pub(crate) fn conf(&self) -> PathBuf {
        self.dir.join("conf")
    }

    /// Where tablespaces live.
    pub(crate) fn tablespaces(&self) -> PathBuf {
        self.dir.join("tablespaces")
    }

    /// `{scratch}` of a restore command.
    pub(crate) fn tool(&self) -> PathBuf {
        self.dir.join("tool")
    }

    /// Where the fence builds the server's own root directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The server's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Remembers a control group, so that it goes when we can't see to it.
    pub(crate) fn note_cgroup(&mut self, cgroup: &Path) -> Result<(), ProveError> {
        self.record.cgroup = Some(cgroup.to_owned());
        write_record(&self.record_path, &self.record)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if clear(&self.record) {
            // Left behind, it is removed next time.
            let _ = fs::remove_file(&self.record_path);
        }
    }
}

fn write_record(path: &Path, record: &Record) -> Result<(), ProveError> {
    let text = serde_json::to_vec(record).map_err(std::io::Error::from).map_err(file("write", path))?;
    // In one go by rename: a torn record would never be cleaned up.
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(file("write", &new))?;
    fs::rename(&new, path).map_err(file("name", path))
}

/// What a clean-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Directories of killed provers that were removed.
    pub removed: Vec<PathBuf>,
    /// Directories that could not be removed; the next proof tries again.
    pub left: Vec<PathBuf>,
}

/// Removes what provers that were killed have left: their servers, directories and control groups. Every proof begins with it; who
/// starts after a crash may call it too. Proofs that still run are left alone.
///
/// # Errors
/// When the registry can't be read; one that does not exist is empty.
pub fn clean_up(registry: &Path) -> Result<Swept, ProveError> {
    let mut swept = Swept::default();
    let entries = match fs::read_dir(registry) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(swept),
        Err(error) => return Err(file("read", registry)(error)),
    };
    for entry in entries.take(RECORDS_MAX) {
        let path = entry.map_err(file("read", registry))?.path();
        if path.extension() != Some("json".as_ref()) {
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else {
            tracing::warn!(path = %path.display(), "a record of a proof can't be read; it is left alone");
            continue;
        };
        if record.owner.as_ref().is_some_and(Owner::lives) {
            continue;
        }
        if clear(&record) {
            let _ = fs::remove_file(&path);
            swept.removed.push(record.dir);
        } else {
            swept.left.push(record.dir);
        }
    }
    Ok(swept)
}

/// Ends what works in a proof's directory and removes it; whether nothing is left.
fn clear(record: &Record) -> bool {
    let ours = match fs::read(record.dir.join(MARKER)) {
        Ok(bytes) => serde_json::from_slice::<Record>(&bytes).is_ok_and(|marker| marker.token == record.token),
        // Made and not yet marked: an empty directory of that name. Not there: nothing to do.
        Err(_) => {
            let _ = fs::remove_dir(&record.dir);
            return !record.dir.exists();
        }
    };
    if !ours {
        return false;
    }
    kill_below(&record.dir);
    remove_shared_memory(&record.dir.join("data"));
    if let Some(cgroup) = &record.cgroup {
        remove_cgroup(cgroup);
    }
    // Does not follow links: what tablespace links lead to stays as it is.
    let _ = fs::remove_dir_all(&record.dir);
    !record.dir.exists()
}

/// Removes a control group. It is busy for a moment after its last process ended.
pub(crate) fn remove_cgroup(dir: &Path) {
    let deadline = Instant::now() + CGROUP_PATIENCE;
    while let Err(error) = fs::remove_dir(dir) {
        if error.kind() == std::io::ErrorKind::NotFound || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills every process whose current directory is below `dir` (a server's is its data directory), ours excepted, and waits for it.
pub(crate) fn kill_below(dir: &Path) {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = pids_below(dir);
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        for pid in left {
            if let Some(pid) = Pid::from_raw(pid) {
                // Gone in the meantime is what we want.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pids_below(dir: &Path) -> Vec<i32> {
    let us = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != us)
        .filter(|pid| {
            let Ok(cwd) = fs::read_link(format!("/proc/{pid}/cwd")) else { return false };
            let bytes = cwd.as_os_str().as_bytes();
            let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
            Path::new(std::ffi::OsStr::from_bytes(bytes)).starts_with(dir)
        })
        .collect()
}

/// Removes the System V segment by which PostgreSQL guards a data directory (postmaster.pid, line 7), where the server could not do so
/// itself. All else is memory of its processes, or a file in its directory (`dynamic_shared_memory_type = mmap`).
pub(crate) fn remove_shared_memory(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else { return };
    let Ok(key) = text.lines().nth(6).and_then(|line| line.split_whitespace().next()).unwrap_or("").parse::<i64>()
    else {
        return;
    };
    // In a namespace of its own it went with the last process, and that number is somebody else's here: the key must fit too, and nobody
    // may be attached.
    let ours = fs::read_to_string("/proc/sysvipc/shm").is_ok_and(|table| {
        table.lines().any(|line| {
            let mut fields = line.split_whitespace();
            let same = fields.next().and_then(|it| it.parse().ok()) == Some(key) && fields.next() == Some(id);
            same && fields.nth(4) == Some("0")
        })
    });
    if ours {
        let _ = std::process::Command::new("ipcrm").args(["-m", id]).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(base: &Path, name: &str, owner: Option<Owner>) -> Record {
        let dir = base.join(name);
        fs::create_dir(&dir).unwrap();
        let record = Record { token: name.to_owned(), dir, owner, cgroup: None };
        write_record(&record.dir.join(MARKER), &record).unwrap();
        record
    }

    #[test]
    fn a_killed_provers_directory_is_removed_and_a_living_ones_and_a_strangers_are_not() {
        let base = tempfile::tempdir().unwrap();
        let registry = base.path().join("registry");
        fs::create_dir(&registry).unwrap();
        let us = Owner::ourselves().unwrap();
        let gone = Owner { start_time: us.start_time + 1, ..us.clone() };
        let before_boot = Owner { boot_id: "another".into(), ..us };
        let stranger = base.path().join("stranger");
        fs::create_dir(&stranger).unwrap();
        fs::write(stranger.join("data"), "precious").unwrap();
        let records = [
            record(base.path(), "alive", Some(us)),
            record(base.path(), "dead", Some(gone.clone())),
            record(base.path(), "rebooted", Some(before_boot)),
            Record { token: "x".into(), dir: stranger.clone(), owner: Some(gone), cgroup: None },
        ];
        for (index, record) in records.iter().enumerate() {
            write_record(&registry.join(format!("{index}.json")), record).unwrap();
        }
        fs::write(registry.join("torn.json"), "{").unwrap();
        let mut swept = clean_up(&registry).unwrap();
        swept.removed.sort();
        assert_eq!(swept.removed, [base.path().join("dead"), base.path().join("rebooted")]);
        assert_eq!(swept.left, std::slice::from_ref(&stranger));
        assert!(base.path().join("alive").exists() && stranger.join("data").exists());
        assert_eq!(clean_up(&base.path().join("nowhere")).unwrap(), Swept::default());
    }

    #[test]
    fn a_place_is_private_and_goes() {
        let base = tempfile::tempdir().unwrap();
        let identity = Identity::choose().unwrap();
        let place = Place::create(&base.path().join("p"), &base.path().join("r"), &identity).unwrap();
        let dir = place.dir().to_owned();
        assert_eq!(fs::metadata(place.run()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(base.path().join("r")).unwrap().count(), 1);
        drop(place);
        assert!(!dir.exists());
        assert_eq!(fs::read_dir(base.path().join("r")).unwrap().count(), 0);
    }
}
