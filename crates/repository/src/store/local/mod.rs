//! Objects as files below a local directory (or a mounted share).
//!
//! An object is written under a temporary name in its own directory, synced, and then *linked* to its name: link(2) is the file
//! system's create-if-absent, and unlike rename(2) it never replaces. Then the directory is synced. Crash windows:
//! - before the link: a temporary file is left, which no reader takes for an object and [`Store::clean_leftovers`] removes;
//! - between link and sync of the directory: the object is there, and may be gone after a loss of power. Nobody was told that it is
//!   there: also `Exists` is only said after a sync of the directory;
//! - between link and removal of the temporary name: as the first.
//!
//! All paths are taken relative to the opened root, so that a share which is unmounted and another directory mounted in its place
//! never mix.

mod temp;
mod walk;

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
    process::{Gid, Uid},
};

use super::{Leftovers, MAX_OBJECT_BYTES, ObjectName, Operation, Put, Store, StoreError, StoreErrorKind};
use temp::Temp;

/// Mode of new directories, before the umask.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);

/// Most directories whose durable existence is remembered, so that they are not created and synced again for each object.
const KNOWN_MAX: usize = 100_000;

/// How often a put begins again because its temporary file was cleaned away by somebody else.
const TEMP_ATTEMPTS: u32 = 5;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: Uid,
    group: Gid,
}

impl Owner {
    /// Whose the root directory is, where that is another one than root and we are root.
    fn of(root: &OwnedFd) -> io::Result<Option<Self>> {
        let stat = rustix::fs::fstat(root)?;
        let owner = Self { user: Uid::from_raw(stat.st_uid), group: Gid::from_raw(stat.st_gid) };
        Ok((rustix::process::geteuid().is_root() && !owner.user.is_root()).then_some(owner))
    }

    /// Gives them a directory that is root's: one that was just made, or was left so by whoever died before this.
    fn take_directory(self, parent: &OwnedFd, name: &str) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if Uid::from_raw(stat.st_uid).is_root() {
            rustix::fs::chownat(parent, name, Some(self.user), Some(self.group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

/// A store in a local directory.
#[derive(Debug)]
pub struct LocalStore {
    path: PathBuf,
    root: OwnedFd,
    /// Whom new objects are given to: set where root writes into a directory of somebody else's, who must be able to read them (an archive
    /// command, a server that recovers).
    owner: Option<Owner>,
    /// Directories, relative to the root, that exist and whose parents were synced by this value.
    known: Mutex<HashSet<String>>,
}

impl LocalStore {
    /// Makes `path` and the directories above it where they are missing, each durable before the next, and opens it.
    ///
    /// # Errors
    /// Where a directory can't be made, synced or opened.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let failed = |at: &Path, error: &io::Error| {
            StoreError::from_io(Operation::Open, format!("the directory {}", at.display()), path.display(), error)
        };
        let mut missing = Vec::new();
        let absolute = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        let mut at = absolute.as_path();
        while !at.try_exists().map_err(|error| failed(at, &error))? {
            missing.push(at);
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        for at in missing.into_iter().rev() {
            match rustix::fs::mkdir(at, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(at, &error.into())),
            }
            if let Some(parent) = at.parent() {
                let synced = File::open(parent).and_then(|parent| Ok(sync_directory(&parent)?));
                synced.map_err(|error| failed(parent, &error))?;
            }
        }
        Self::open(path)
    }

    /// Opens the directory `path`, which must be there: where a share is not mounted, a store must not begin anew below its
    /// mount point.
    ///
    /// # Errors
    /// Where it is missing, no directory, or not ours to read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            let path = std::fs::canonicalize(path)?;
            let root = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let owner = Owner::of(&root)?;
            Ok(Self { path, root, owner, known: Mutex::default() })
        };
        open().map_err(|error: io::Error| StoreError::from_io(Operation::Open, "the directory", path.display(), &error))
    }

    /// The directory, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The opened root, for whoever asks which file system it lies on.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Removes the temporary files of writers that died: see [`Store::clean_leftovers`].
    ///
    /// # Errors
    /// Where a directory can't be read or a file not be removed.
    pub fn clean_leftovers(&self) -> Result<Leftovers, StoreError> {
        walk::leftovers(&self.root).map_err(|error| self.failed(Operation::Delete, "leftovers", &error))
    }

    fn failed(&self, operation: Operation, name: &str, error: &io::Error) -> StoreError {
        StoreError::from_io(operation, name, self.path.display(), error)
    }

    /// Opens the directory `dir` ("" is the root) and makes it where it is missing.
    ///
    /// The first time that this value uses a directory it syncs those above, also if it exists: whoever made it may have died before
    /// its own sync.
    fn directory(&self, dir: &str) -> io::Result<OwnedFd> {
        let known = |dir: &str| self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(dir);
        if !dir.is_empty() && !known(dir) {
            let mut above = String::new();
            for part in dir.split('/') {
                let parent = self.open_directory(&above)?;
                match rustix::fs::mkdirat(&parent, part, DIRECTORY_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                if !above.is_empty() {
                    above.push('/');
                }
                above.push_str(part);
                if !known(&above) {
                    if let Some(owner) = self.owner {
                        owner.take_directory(&parent, part)?;
                    }
                    sync_directory(&parent)?;
                    let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if known.len() >= KNOWN_MAX {
                        known.clear();
                    }
                    known.insert(above.clone());
                }
            }
        }
        self.open_directory(dir)
    }

    fn open_directory(&self, dir: &str) -> io::Result<OwnedFd> {
        let path = if dir.is_empty() { "." } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.root, path, flags, Mode::empty())?)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let failed = |error: io::Error| self.failed(Operation::Put, name.as_str(), &error);
        let (dir, base) = name.split();
        let dir = self.directory(dir).map_err(failed)?;
        let sync = || sync_directory(&dir).map_err(|error| failed(error.into()));
        // Spares writing it all for nothing; what decides is the link below.
        if exists(&dir, base).map_err(failed)? {
            sync()?;
            return Ok(Put::Exists);
        }
        for _ in 0..TEMP_ATTEMPTS {
            let Some(mut temp) = Temp::create(&dir, self.owner).map_err(failed)? else { continue };
            temp.write(bytes).map_err(failed)?;
            let put = match link(&dir, temp.name(), base) {
                Ok(()) => Put::Created,
                Err(Errno::EXIST) => Put::Exists,
                // Somebody cleaned it away.
                Err(Errno::NOENT) => continue,
                Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {
                    let why = "the file system has neither hard links nor a rename that refuses to replace";
                    let kind = StoreErrorKind::NoCreateIfAbsent;
                    return Err(StoreError::new(Operation::Put, name, self.path.display(), kind, why));
                }
                Err(error) => return Err(failed(error.into())),
            };
            drop(temp);
            sync()?;
            return Ok(put);
        }
        let why = format!("its temporary file was removed {TEMP_ATTEMPTS} times while it was written");
        Err(StoreError::new(Operation::Put, name, self.path.display(), StoreErrorKind::Unavailable, why))
    }

    /// Opens an object for reading, with its length. What is no regular file is no object.
    fn open_object(&self, name: &ObjectName) -> io::Result<(File, u64)> {
        // NONBLOCK: a foreign FIFO of that name must not hang us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.root, name.as_str(), flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok((file, metadata.len()))
    }
}

/// Makes the names in a directory durable. Some file systems (of network shares) know no sync of a directory and say EINVAL: there it
/// is the server's to keep its names.
fn sync_directory(dir: &impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fsync(dir) {
        Err(Errno::INVAL | Errno::BADF) => Ok(()),
        result => result,
    }
}

fn exists(dir: &OwnedFd, base: &str) -> io::Result<bool> {
    match rustix::fs::statat(dir, base, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the temporary file its name unless that is taken. File systems without hard links (FAT on a removable disk) mostly know
/// renameat2(2) with RENAME_NOREPLACE.
fn link(dir: &impl AsFd, temp: &str, base: &str) -> Result<(), Errno> {
    match rustix::fs::linkat(dir, temp, dir, base, AtFlags::empty()) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            rustix::fs::renameat_with(dir, temp, dir, base, rustix::fs::RenameFlags::NOREPLACE)
        }
        result => result,
    }
}

impl Store for LocalStore {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put(name, bytes)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        let failed = |error: io::Error| self.failed(Operation::Get, name.as_str(), &error);
        let (mut file, size) = self.open_object(name).map_err(failed)?;
        let bound = usize::try_from(size).ok().filter(|_| size <= MAX_OBJECT_BYTES);
        let Some(size) = bound else {
            let why = format!("it has {size} bytes");
            return Err(StoreError::new(Operation::Get, name, self.path.display(), StoreErrorKind::TooLarge, why));
        };
        let mut bytes = Vec::with_capacity(size);
        (&mut file).take(MAX_OBJECT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let failed = |error: io::Error| self.failed(Operation::Get, name.as_str(), &error);
        let (mut file, size) = self.open_object(name).map_err(failed)?;
        // Before anything is allocated: the numbers may come from a damaged object.
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            let why = format!("it has {size} bytes; {len} were wanted from {offset}");
            return Err(StoreError::new(Operation::Get, name, self.path.display(), StoreErrorKind::Short, why));
        }
        let mut bytes = vec![0; len];
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        match rustix::fs::statat(&self.root, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.failed(Operation::Size, name.as_str(), &error.into())),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let failed = |error: Errno| self.failed(Operation::Delete, name.as_str(), &error.into());
        let (dir, base) = name.split();
        let dir = match self.open_directory(dir) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed(Operation::Delete, name.as_str(), &error)),
        };
        match rustix::fs::unlinkat(&dir, base, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => sync_directory(&dir).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        walk::objects(&self.root, prefix, each).map_err(|error| self.failed(Operation::List, prefix, &error))
    }

    /// The object's own bytes were synced before it got its name; what may be missing is the sync of the directory.
    fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        let failed = |error: io::Error| self.failed(Operation::Put, name.as_str(), &error);
        let dir = self.directory(name.split().0).map_err(failed)?;
        sync_directory(&dir).map_err(|error| failed(error.into()))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.root).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }

    fn clean_leftovers(&self) -> Result<Leftovers, StoreError> {
        LocalStore::clean_leftovers(self)
    }
}
