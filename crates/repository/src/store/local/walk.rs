//! Walking the directory: for listings, and for what crashed writers left.

use std::{io, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::temp::{Cleaned, TEMP_PREFIX, clean};
use crate::store::{Leftovers, ObjectName, name::MAX_PARTS};

/// Removes the temporary files of writers that died.
pub(super) fn leftovers(root: &OwnedFd) -> io::Result<Leftovers> {
    let mut found = Leftovers::default();
    walk(root, "", &mut |dir, path, name, kind, _| {
        if kind == FileType::RegularFile && name.starts_with(TEMP_PREFIX) {
            match clean(dir, name)? {
                Cleaned::Removed(bytes) => {
                    tracing::debug!(path, name, bytes, "removed the temporary file of a dead writer");
                    found.removed += 1;
                    found.bytes += bytes;
                }
                Cleaned::Kept => found.kept += 1,
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `each` with all objects whose names begin with `prefix`.
pub(super) fn objects(root: &OwnedFd, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> io::Result<()> {
    // Whole directories of the prefix are walked into; the rest of it is compared.
    let start = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
    if !start.is_empty() && ObjectName::new(start).is_err() {
        return Ok(());
    }
    walk(root, start, &mut |_, path, name, kind, size| {
        let full = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        if kind == FileType::RegularFile && full.starts_with(prefix) {
            match ObjectName::new(full) {
                Ok(name) => each(name, size),
                Err(error) => tracing::debug!(%error, "a file that is no object"),
            }
        }
        Ok(())
    })
}

type Visit<'a> = dyn FnMut(&OwnedFd, &str, &str, FileType, u64) -> io::Result<()> + 'a;

/// Visits every entry that is no directory, below `start`: the open directory, its path, the entry's name, kind and size. Symbolic
/// links are not followed; what vanishes meanwhile is passed over.
fn walk(root: &OwnedFd, start: &str, visit: &mut Visit<'_>) -> io::Result<()> {
    descend(root, start, start.split('/').filter(|part| !part.is_empty()).count(), visit)
}

fn descend(root: &OwnedFd, path: &str, depth: usize, visit: &mut Visit<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = match rustix::fs::openat(root, if path.is_empty() { "." } else { path }, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            // Nothing of ours lies deeper, nor below a name that no object can have.
            if depth + 1 < MAX_PARTS && ObjectName::new(name).is_ok() {
                let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                descend(root, &below, depth + 1, visit)?;
            }
        } else {
            visit(&dir, path, name, kind, u64::try_from(stat.st_size).unwrap_or(0))?;
        }
    }
    Ok(())
}
