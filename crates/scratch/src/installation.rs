//! Which PostgreSQL servers are installed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{ScratchError, testbed_dir};

/// A PostgreSQL server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The directory that holds `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// As PostgreSQL's `server_version_num`: 150014 is 15.14.
    pub version_num: u32,
}

impl Installation {
    /// Reads the version of the server in `bin_dir`; `None` where there is no working `postgres` and `initdb`.
    #[must_use]
    pub fn at(bin_dir: &Path) -> Option<Self> {
        if !bin_dir.join("initdb").exists() {
            return None;
        }
        let output = Command::new(bin_dir.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
        let version_num = parse_version(std::str::from_utf8(&output.stdout).ok()?)?;
        Some(Self { bin_dir: bin_dir.to_owned(), version_num })
    }

    /// The major version: 15 of 15.14.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Whether the program is there too: the testbed's versions are servers only, without `psql` or `pgbench`.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.bin_dir.join(program).exists()
    }

    /// A client program of this major version, as `pg_waldump`: the one beside the server or, as the testbed's servers have none, the one
    /// that `cargo xtask testbed` keeps for them (14 and newer).
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        let kept = tools_dir(self.major()).map(|dir| dir.join("bin").join(name));
        std::iter::once(self.bin_dir.join(name)).chain(kept).find(|program| program.is_file())
    }
}

/// Where the testbed keeps a complete PostgreSQL of a major version: client programs and contrib too. Not among [`installations`], so that
/// tests on "every version" do not run twice.
fn tools_dir(major: u32) -> Option<PathBuf> {
    Some(testbed_dir()?.join("tools").join(format!("pg{major}")))
}

/// A server of a major version that has the client programs and contrib (`amcheck`, `pageinspect`) beside it: the testbed's, or any that is
/// installed.
///
/// # Errors
/// When there is none; the message says how to get one.
pub fn complete_installation(major: u32) -> Result<Installation, ScratchError> {
    let kept = tools_dir(major).and_then(|dir| Installation::at(&dir.join("bin")));
    let others = || installations().into_iter().filter(|one| one.major() == major && one.has("pg_amcheck"));
    kept.or_else(|| others().next())
        .ok_or_else(|| ScratchError::NotInstalled { major, found: "none with its client programs".to_owned() })
}

/// "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)" and "postgres (PostgreSQL) 18beta1".
fn parse_version(text: &str) -> Option<u32> {
    let version = text.trim().strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let major_end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    let major: u32 = version[..major_end].parse().ok()?;
    let minor = version[major_end..].strip_prefix('.').map_or(Some(0), |minor| minor.parse().ok())?;
    ((10..1000).contains(&major) && minor < 10_000).then_some(major * 10_000 + minor)
}

/// Every server that is installed: the testbed's, the distribution's (`/usr/lib/postgresql`), the one on the PATH; newest first.
#[must_use]
pub fn installations() -> Vec<Installation> {
    let mut bin_dirs = Vec::new();
    bin_dirs.extend(testbed_dir().iter().flat_map(|dir| subdirectories(dir)).map(|major| major.join("bin")));
    bin_dirs.extend(subdirectories(Path::new("/usr/lib/postgresql")).into_iter().map(|major| major.join("bin")));
    if let Some(path) = std::env::var_os("PATH") {
        // Through the link, so that a PATH entry that points into a place above is not counted twice.
        let real = std::env::split_paths(&path).filter_map(|dir| fs::canonicalize(dir.join("postgres")).ok());
        bin_dirs.extend(real.filter_map(|program| program.parent().map(Path::to_owned)));
    }
    let mut seen = BTreeSet::new();
    let mut found: Vec<Installation> = bin_dirs
        .into_iter()
        .filter(|dir| seen.insert(fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())))
        .filter_map(|dir| Installation::at(&dir))
        .collect();
    // Stable: of equals the testbed's stays first.
    found.sort_by_key(|installation| std::cmp::Reverse(installation.version_num));
    found
}

/// The newest server of a major version.
///
/// # Errors
/// When there is none; the message says how to get one.
pub fn installation(major: u32) -> Result<Installation, ScratchError> {
    let all = installations();
    match all.iter().find(|installation| installation.major() == major) {
        Some(installation) => Ok(installation.clone()),
        None => {
            let majors: Vec<String> = all.iter().map(|installation| installation.major().to_string()).collect();
            let found = if majors.is_empty() { "none".to_owned() } else { majors.join(", ") };
            Err(ScratchError::NotInstalled { major, found })
        }
    }
}

/// The newest server of all.
///
/// # Errors
/// When there is none.
pub fn newest_installation() -> Result<Installation, ScratchError> {
    installations().into_iter().next().ok_or(ScratchError::NoneInstalled)
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(150_014)),
            ("postgres (PostgreSQL) 18.4\n", Some(180_004)),
            ("postgres (PostgreSQL) 19beta1\n", Some(190_000)),
            ("postgres (PostgreSQL) 17devel", Some(170_000)),
            ("postgres (PostgreSQL) 9.6.24", None),
            ("postgres (EnterpriseDB) 15.1", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
    }
}
