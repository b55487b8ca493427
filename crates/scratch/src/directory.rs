//! The directory that a cluster lives in: private, short enough for a unix socket, on tmpfs where asked and possible.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    ScratchError,
    error::prepare,
    identity::Identity,
    leftovers::{self, kill_below},
};

/// How the directories of scratch clusters are named; [`leftovers::sweep`] goes by it.
pub(crate) const PREFIX: &str = "oxscratch-";
/// A unix socket's path may have 107 bytes and a closing zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// The longest name that PostgreSQL gives its socket.
const SOCKET_NAME: &str = ".s.PGSQL.65535.lock";
/// `f_type` of tmpfs, see statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// How long removed directories' processes get to go.
const KILL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What the data lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Memory: no disk noise.
    Tmpfs,
    /// The disk of the temporary directory, and, where tmpfs was asked for, why not that.
    Disk {
        /// Why it is not tmpfs; absent where nobody asked.
        why: Option<String>,
    },
}

/// A cluster's directory: `data`, `run` (the socket), `log` and `lock` in it. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    dir: TempDir,
    /// Held as long as we live: who can lock it may sweep.
    _lock: File,
    pub(crate) storage: Storage,
    /// Somebody else's from now on.
    left: bool,
}

impl Directory {
    pub(crate) fn create(identity: &Identity, tmpfs_room_bytes: Option<u64>) -> Result<Self, ScratchError> {
        let (base, storage) = match tmpfs_room_bytes.map(tmpfs_with_room) {
            Some(Ok(base)) => (base, Storage::Tmpfs),
            Some(Err(why)) => (disk_base(identity)?, Storage::Disk { why: Some(why) }),
            None => (disk_base(identity)?, Storage::Disk { why: None }),
        };
        leftovers::sweep(&base);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(8)
            .tempdir_in(&base)
            .map_err(prepare("make a directory in", &base))?;
        let path = dir.path();
        // Locked before it gets the name that a sweeper looks for.
        let new = path.join("lock.new");
        let lock = File::create_new(&new).map_err(prepare("create", &new))?;
        lock.lock().map_err(prepare("lock", &new))?;
        fs::rename(&new, path.join("lock")).map_err(prepare("name", &new))?;
        let run = path.join("run");
        if run.join(SOCKET_NAME).as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ScratchError::PathTooLong { path: run });
        }
        fs::create_dir(&run).map_err(prepare("create", &run))?;
        for owned in [path, &run] {
            identity.own(owned).map_err(prepare("change the owner of", owned))?;
        }
        Ok(Self { dir, _lock: lock, storage, left: false })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Leaves it on disk for good; the lock goes with our process.
    pub(crate) fn leave(mut self) -> PathBuf {
        self.left = true;
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Whoever still works here would make the removal fail, or worse, write on.
        if !self.left {
            kill_below(self.dir.path(), KILL_PATIENCE);
        }
    }
}

/// A stopped cluster's data directory, for instance as a template for others. Removed when dropped.
#[derive(Debug)]
pub struct DataDir(pub(crate) Directory);

impl DataDir {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.data()
    }

    /// What it lies on.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }
}

/// The first place for temporary files that the server's user can reach.
fn disk_base(identity: &Identity) -> Result<PathBuf, ScratchError> {
    let wanted = std::env::temp_dir();
    let candidates = [wanted.clone(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
    candidates.into_iter().find(|base| base.is_dir() && identity.can_reach(&base.join(PREFIX))).ok_or(
        ScratchError::Unreachable {
            path: wanted,
            user: identity.name.clone(),
            remedy: "set TMPDIR to a directory that it can reach",
        },
    )
}

/// `/dev/shm`, if it is a tmpfs and both it and the memory behind it have room.
fn tmpfs_with_room(room_bytes: u64) -> Result<PathBuf, String> {
    let shm = Path::new("/dev/shm");
    let unreadable = |error| format!("/dev/shm: {error}");
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between platforms")]
    let kind = rustix::fs::statfs(shm).map_err(unreadable)?.f_type as i64;
    if kind != TMPFS_MAGIC {
        return Err("/dev/shm is not a tmpfs".to_owned());
    }
    let space = rustix::fs::statvfs(shm).map_err(unreadable)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize).min(memory_available_bytes().unwrap_or(u64::MAX));
    if free < room_bytes {
        let (free, wanted) = (free >> 20, room_bytes >> 20);
        return Err(format!("only {free} MiB of memory are free for /dev/shm and {wanted} are wanted"));
    }
    Ok(shm.to_owned())
}

fn memory_available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_says_so() {
        let why = tmpfs_with_room(u64::MAX).expect_err("nobody has that much");
        assert!(why.contains("/dev/shm"), "{why}");
    }

    #[test]
    fn a_killed_owners_directory_is_swept_and_a_living_ones_is_not() {
        let base = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = base.path().join(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            path
        };
        let (dead, alive, unready) = (dir("dead"), dir("alive"), dir("unready"));
        File::create(dead.join("lock")).unwrap();
        let lock = File::create(alive.join("lock")).unwrap();
        lock.lock().unwrap();
        let stranger = base.path().join("someone-elses");
        fs::create_dir(&stranger).unwrap();
        File::create(stranger.join("lock")).unwrap();
        leftovers::sweep(base.path());
        let exists = [&dead, &alive, &unready, &stranger].map(|path| path.exists());
        assert_eq!(exists, [false, true, true, true]);
    }
}
