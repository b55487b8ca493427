//! The state directory, of which one guard at a time is the owner.
//!
//! The lock is flock(2) on `guard.lock`: the kernel drops it with the process, however that ends. The file stays; what it says is only for
//! people and for error messages, never the proof that somebody is there.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use model::Pid;

/// The lock's file in the state directory.
pub const LOCK_FILE_NAME: &str = "guard.lock";
/// How long to wait for the lock: whoever only asks for the holder takes it for an instant.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pause between attempts meanwhile.
const RETRY: Duration = Duration::from_millis(20);
/// A pid and a line end; whatever is longer is not ours.
const LONGEST_PID: u64 = 16;

/// Why a state directory can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// Another guard has it.
    #[error(
        "another guard ({}) already uses the state directory {dir}\n  hint: stop it first, or give this one a state_dir of its own",
        pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The other guard, as it wrote itself down.
        pid: Option<Pid>,
    },
    /// Everybody may write there, so that anybody could put a journal or a lock there.
    #[error(
        "the state directory {dir} can be written by everybody (mode {mode:03o})\n  hint: `chmod 700 {dir}`, or use another one"
    )]
    Unsafe {
        /// The directory.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It can't be created or used.
    #[error("can't {doing} {path}: {source}\n  hint: {}", hint(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "create the directory for the user that the guard runs as (`install -d -m 700 -o USER DIR`), or name another state_dir"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: name a state_dir on one that can be written"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way: name a directory as state_dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or some inodes there, or name another state_dir"
        }
        io::ErrorKind::Unsupported => "the file system knows no locks: name a state_dir on a local disk",
        _ => "check the state_dir of the configuration",
    }
}

/// Who has a state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A guard that is alive, with its pid where it can be told.
    Guard(Option<Pid>),
}

/// A state directory that belongs to this process until the value is dropped or the process ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Takes a directory as the one guard of it; creates it with mode 0700 where it is missing. A full disk does not keep a guard that ran
    /// here before from starting.
    ///
    /// # Errors
    /// When another guard has it, or when it can't be created, written or trusted. Blocks for less than a second.
    pub fn claim(path: &Path) -> Result<Self, StateDirError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { doing, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create the state directory", path))?;
        let mode = fs::metadata(path).map_err(io("look at the state directory", path))?.permissions().mode() & 0o777;
        if mode & 0o002 != 0 {
            return Err(StateDirError::Unsafe { dir: path.to_owned(), mode });
        }
        let lock_path = path.join(LOCK_FILE_NAME);
        // Not truncated: until the lock is ours, what is in there is another's.
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let mut lock = options.map_err(io("open", &lock_path))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(RETRY),
                Err(TryLockError::WouldBlock) => {
                    return Err(StateDirError::Held { dir: path.to_owned(), pid: read_pid(&lock) });
                }
                Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
            }
        }
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!("can't write the pid to {}: {error}; the lock holds all the same", lock_path.display());
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a guard is alive that has this directory.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn holder(path: &Path) -> Result<Holder, StateDirError> {
        let lock_path = path.join(LOCK_FILE_NAME);
        let lock = match File::open(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(source) => return Err(StateDirError::Io { doing: "open", path: lock_path, source }),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Holder::Nobody),
            Err(TryLockError::WouldBlock) => Ok(Holder::Guard(read_pid(&lock))),
            Err(TryLockError::Error(source)) => Err(StateDirError::Io { doing: "lock", path: lock_path, source }),
        }
    }
}

fn read_pid(lock: &File) -> Option<Pid> {
    let mut text = String::new();
    lock.take(LONGEST_PID).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().map(Pid)
}
