//! The engine's programs: those that the testbed keeps, or else what is installed.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ScratchError, cache::testbed_dir, identity::find_on_path};

/// Where the testbed keeps them, below its directory: a Debian package's files, unpacked.
const KEPT: &str = "tools/docker";
/// Where programs are in that.
const BINARIES: &[&str] = &["usr/sbin", "usr/bin"];
/// Where one library is that not every host has, in that.
const LIBRARIES: &[&str] =
    &["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
/// What an engine is made of.
const ENGINE: &[&str] = &["dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc"];
/// What of the host is needed besides, with Debian's packages.
const HOST: &[(&str, &str)] =
    &[("setpriv", "util-linux"), ("unshare", "util-linux"), ("mount", "mount"), ("tar", "tar")];
/// Where programs are, whatever our own PATH says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Parts {
    /// Nothing where they are on the PATH.
    kept: Option<PathBuf>,
}

impl Parts {
    pub(super) fn find() -> Result<Self, ScratchError> {
        let lacking = |what: String, remedy: String| Err(ScratchError::NoEngine { what, remedy });
        if !rustix::process::geteuid().is_root() {
            return lacking("it takes root".to_owned(), "run as root".to_owned());
        }
        for (program, package) in HOST {
            if find_on_path(program).is_none() {
                return lacking(format!("`{program}` is not on the PATH"), format!("install the package {package}"));
            }
        }
        let kept =
            testbed_dir().map(|dir| dir.join(KEPT)).filter(|dir| dir.join(BINARIES[0]).join("dockerd").is_file());
        if kept.is_none()
            && let Some(program) = ENGINE.iter().find(|program| find_on_path(program).is_none())
        {
            let remedy = "`cargo xtask testbed` fetches them on Debian; else install Docker's engine".to_owned();
            return lacking(format!("`{program}` is neither in the testbed nor on the PATH"), remedy);
        }
        Ok(Self { kept })
    }

    /// Where a program is.
    pub(super) fn program(&self, name: &str) -> OsString {
        let in_kept = |dir: &PathBuf| BINARIES.iter().map(|sub| dir.join(sub).join(name)).find(|path| path.is_file());
        self.kept
            .as_ref()
            .and_then(in_kept)
            .or_else(|| find_on_path(name))
            .map_or_else(|| name.into(), PathBuf::into_os_string)
    }

    /// A program that finds the others, and nothing of our environment.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        let below = |subs: &[&str], more: &str| -> OsString {
            let kept = self.kept.iter().flat_map(|dir| subs.iter().map(|sub| dir.join(sub)));
            let all: Vec<PathBuf> = kept.chain(std::env::split_paths(OsStr::new(more))).collect();
            std::env::join_paths(all).unwrap_or_else(|_| more.into())
        };
        command.env_clear().env("PATH", below(BINARIES, PATH)).env("LC_ALL", "C").env("HOME", "/nonexistent");
        if let Some(dir) = self.kept.as_deref().filter(|dir| LIBRARIES.iter().any(|sub| dir.join(sub).is_dir())) {
            command.env("LD_LIBRARY_PATH", libraries(dir));
        }
        command
    }
}

fn libraries(dir: &Path) -> OsString {
    let there = LIBRARIES.iter().map(|sub| dir.join(sub)).filter(|path| path.is_dir());
    std::env::join_paths(there).unwrap_or_default()
}
