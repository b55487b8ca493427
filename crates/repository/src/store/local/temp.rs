//! Temporary files: what an object is before it has its name.
//!
//! The writer holds flock(2) on its file, so whoever cleans can tell a crashed writer's leftover from work in progress, also over
//! NFS. Should a file system lie about locks, the worst is that a put begins again: the link fails when the file is gone.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
};

use data_encoding::HEXLOWER;
use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::Owner;

/// What temporary files' names begin with; no object's name has a part that begins with a dot.
pub(super) const TEMP_PREFIX: &str = ".tmp-";

/// Mode of new files, before the umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// A temporary file; its name is removed when the value is dropped.
#[derive(Debug)]
pub(super) struct Temp<'a> {
    dir: &'a OwnedFd,
    name: String,
    file: File,
}

impl<'a> Temp<'a> {
    /// A new one in `dir`; `None` where somebody who cleans was quicker than our lock: try again.
    pub(super) fn create(dir: &'a OwnedFd, owner: Option<Owner>) -> io::Result<Option<Self>> {
        let random = crate::id::random::<16>().map_err(io::Error::other)?;
        let name = format!("{TEMP_PREFIX}{}", HEXLOWER.encode(&random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::openat(dir, name.as_str(), flags, FILE_MODE)?);
        let temp = Self { dir, name, file };
        if let Some(Owner { user, group }) = owner {
            rustix::fs::fchown(&temp.file, Some(user), Some(group))?;
        }
        Ok(match rustix::fs::flock(&temp.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => None,
            // No locks on this file system: whoever cleans finds none either and leaves everything alone.
            Ok(()) | Err(_) => Some(temp),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes all bytes and makes them durable.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        match rustix::fs::unlinkat(self.dir, self.name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(name = self.name, %error, "a temporary file stays until it is cleaned up"),
        }
    }
}

/// What became of a leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleaned {
    /// It is gone; so many bytes.
    Removed(u64),
    /// Its writer lives, or nobody can tell.
    Kept,
}

/// Removes the temporary file `name` in `dir` if its writer is dead.
pub(super) fn clean(dir: &OwnedFd, name: &str) -> io::Result<Cleaned> {
    // For writing: NFS grants exclusive locks only then.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Cleaned::Removed(0)),
        Err(error) => return Err(error.into()),
    };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(Cleaned::Kept);
    }
    let bytes = file.metadata()?.len();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Cleaned::Removed(bytes)),
        Err(error) => Err(error.into()),
    }
}
