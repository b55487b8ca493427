//! Which PostgreSQL server can recover a backup: one of the same major version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::Halt;

/// Where distributions and PostgreSQL's own packages put a major version's programs.
fn usual_places(major: u32) -> [PathBuf; 4] {
    [
        format!("/usr/lib/postgresql/{major}/bin").into(),
        format!("/usr/pgsql-{major}/bin").into(),
        format!("/usr/lib/postgresql{major}/bin").into(),
        "/usr/local/pgsql/bin".into(),
    ]
}

/// A server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The directory, links resolved.
    pub(crate) bin_dir: PathBuf,
    /// What the server calls itself.
    pub(crate) version: String,
}

impl Programs {
    /// The first server of this major version: in the directories named, then at the usual places, then on the PATH.
    pub(crate) fn find(major: u32, named: &[PathBuf]) -> Result<Self, Halt> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = named.iter().cloned().chain(usual_places(major)).chain(std::env::split_paths(&path));
        let mut others = Vec::new();
        for dir in dirs {
            match Self::at(&dir) {
                Some((found, programs)) if found == major => return Ok(programs),
                Some((found, _)) => others.push(format!("{found} in {}", dir.display())),
                None => {}
            }
        }
        others.dedup();
        let found = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        Err(Halt::not_proven(format!(
            "there is no PostgreSQL {major} server on this host to recover the backup with (found: {found}); hint: install one, or name \
             the directory of its programs"
        )))
    }

    fn at(dir: &Path) -> Option<(u32, Self)> {
        let postgres = fs::canonicalize(dir.join("postgres")).ok()?;
        let output = Command::new(&postgres).arg("--version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.trim().to_owned();
        Some((major_of(&version)?, Self { bin_dir: postgres.parent()?.to_owned(), version }))
    }

    /// The server.
    pub(crate) fn postgres(&self) -> PathBuf {
        self.bin_dir.join("postgres")
    }

    /// The directory that holds programs, libraries and extensions, unless that is the system's own.
    pub(crate) fn prefix(&self) -> Option<PathBuf> {
        let prefix = self.bin_dir.parent()?;
        (prefix != Path::new("/")).then(|| prefix.to_owned())
    }
}

/// "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)" and "postgres (PostgreSQL) 18beta1".
fn major_of(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("postgres (PostgreSQL) ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (EnterpriseDB) 15.1", None),
            ("", None),
        ] {
            assert_eq!(major_of(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_missing_server_proves_nothing() {
        let halt = Programs::find(999, &[]).unwrap_err();
        assert!(halt.reason.contains("no PostgreSQL 999") && halt.reason.contains("hint"), "{}", halt.reason);
    }
}
