//! Who runs the scratch server.

use std::{
    fs,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

use super::error::{Halt, ProveError};

/// The user that the server's processes run as.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// We are root and must become that user first.
    pub(crate) switch: bool,
    /// Where `setpriv` is; without it the server does not notice that we were killed.
    pub(crate) setpriv: Option<PathBuf>,
}

impl Identity {
    /// Ourselves, or, as PostgreSQL refuses root, `postgres` or else `nobody`.
    pub(crate) fn choose() -> Result<Self, ProveError> {
        let setpriv = find_on_path("setpriv");
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            let name = name_of(&passwd, uid).unwrap_or_else(|| format!("uid {uid}"));
            return Ok(Self { name, uid, gid, switch: false, setpriv });
        }
        if setpriv.is_none() {
            return Err(ProveError::NoSetpriv);
        }
        let found = ["postgres", "nobody"].into_iter().find_map(|name| {
            let (uid, gid) = ids_of(&passwd, name)?;
            Some(Self { name: name.to_owned(), uid, gid, switch: true, setpriv: setpriv.clone() })
        });
        found.ok_or(ProveError::NoUser)
    }

    /// Gives a path to this user, where that is somebody else.
    pub(crate) fn own(&self, path: &Path) -> std::io::Result<()> {
        if self.switch { lchown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Gives a whole directory to this user, and returns the bytes of its files. Links are not followed.
    pub(crate) fn own_tree(&self, dir: &Path) -> Result<u64, Halt> {
        let mut bytes = 0;
        let mut pending = vec![dir.to_owned()];
        while let Some(path) = pending.pop() {
            let metadata = fs::symlink_metadata(&path).map_err(Halt::file("look at", &path))?;
            if metadata.uid() != self.uid {
                self.own(&path).map_err(Halt::file("change the owner of", &path))?;
            }
            if metadata.is_dir() {
                for entry in fs::read_dir(&path).map_err(Halt::file("read", &path))? {
                    pending.push(entry.map_err(Halt::file("read", &path))?.path());
                }
            } else if metadata.is_file() {
                bytes += metadata.len();
            }
        }
        Ok(bytes)
    }
}

fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = found.then(|| fields.nth(1)).flatten()?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    })
}

/// The name of a user.
pub(crate) fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A program by its name.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::{ids_of, name_of};

    #[test]
    fn users() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:x:/:/bin/sh\nbroken:x\n";
        assert_eq!(ids_of(passwd, "postgres"), Some((101, 104)));
        assert_eq!((ids_of(passwd, "broken"), ids_of(passwd, "who")), (None, None));
        assert_eq!((name_of(passwd, 101).as_deref(), name_of(passwd, 7)), (Some("postgres"), None));
    }
}
