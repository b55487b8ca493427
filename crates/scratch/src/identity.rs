//! Who runs the server, and how it is made to end with us.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::ScratchError;

/// The user that the server's processes run as.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// We are root and must become that user first.
    switch: bool,
    setpriv: Option<PathBuf>,
}

/// What happens to the program when the thread that started it ends, which it does when our process is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ParentDeath {
    /// It gets this signal.
    Signal(&'static str),
    /// It stays.
    Outlive,
}

impl Identity {
    /// Ourselves, or, as PostgreSQL refuses root, `postgres` or else `nobody`.
    pub(crate) fn choose() -> Result<Self, ScratchError> {
        let setpriv = find_on_path("setpriv");
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            return Ok(Self { name: format!("uid {uid}"), uid, gid, switch: false, setpriv });
        }
        if setpriv.is_none() {
            return Err(ScratchError::NoSetpriv);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = ["postgres", "nobody"].into_iter().find_map(|name| {
            let (uid, gid) = ids_of(&passwd, name)?;
            Some(Self { name: name.to_owned(), uid, gid, switch: true, setpriv: setpriv.clone() })
        });
        found.ok_or(ScratchError::NoUser)
    }

    /// A command that runs as this user, without our environment: a stray PGDATA or PGPORT must not reach the server.
    pub(crate) fn command(&self, program: &Path, parent_death: ParentDeath) -> Command {
        let mut command = match (&self.setpriv, self.switch, parent_death) {
            (Some(setpriv), switch, death) if switch || matches!(death, ParentDeath::Signal(_)) => {
                let mut command = Command::new(setpriv);
                if switch {
                    let ids = [format!("--reuid={}", self.uid), format!("--regid={}", self.gid)];
                    command.args(ids).arg("--clear-groups");
                }
                if let ParentDeath::Signal(signal) = death {
                    command.args(["--pdeathsig", signal]);
                }
                command.arg("--").arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.env_clear().env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Gives a path to this user, where that is somebody else.
    pub(crate) fn own(&self, path: &Path) -> std::io::Result<()> {
        if self.switch { std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Whether this user may search every directory down to `path`, by the mode bits alone.
    pub(crate) fn can_reach(&self, path: &Path) -> bool {
        !self.switch
            || path.ancestors().skip(1).all(|dir| {
                let Ok(metadata) = fs::metadata(dir) else { return false };
                let shift = match () {
                    () if metadata.uid() == self.uid => 6,
                    () if metadata.gid() == self.gid => 3,
                    () => 0,
                };
                (metadata.permissions().mode() >> shift) & 0o1 != 0
            })
    }
}

fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = passwd.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let found = fields.next() == Some(name);
        found.then_some(fields)
    })?;
    let uid = fields.nth(1)?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

pub(crate) fn find_on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = program.as_ref();
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn ids() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npostgresql:x:7:8::/:/bin/sh\npostgres:x:101:104:x:/:/bin/sh\nbroken:x\n";
        for (name, expected) in
            [("postgres", Some((101, 104))), ("root", Some((0, 0))), ("broken", None), ("who", None)]
        {
            assert_eq!(ids_of(passwd, name), expected, "{name}");
        }
    }
}
