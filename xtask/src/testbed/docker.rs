//! Docker's engine, for tests of services that are containers: Debian's packages, unpacked and not installed, so that nothing of the host is changed and no engine of its
//! own is started.
//!
//! It lies in `tools/docker` of the testbed, where `scratch::engine` looks.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::{debian, npm};
use crate::shell;

/// What is needed of it, and one library of it that not every host has.
const PACKAGES: &[&str] = &["docker.io", "containerd", "runc", "libdevmapper1.02.1"];
/// What of the packages nobody needs here.
const SUPERFLUOUS: &[&str] = &[
    "etc",
    "var",
    "usr/share",
    "usr/sbin/docker-proxy",
    "usr/sbin/ovrouter",
    "usr/bin/containerd-shim",
    "usr/bin/containerd-shim-runc-v1",
    "usr/bin/ctr",
    "usr/bin/dnet",
    "usr/bin/docker-init",
];
/// The file among them that says that all are there.
const STAMP: &str = ".package";

/// Fetches it into `testbed`, unless it is there or installed. apt checks what it fetches by the distribution's signatures.
pub fn ensure(testbed: &Path) -> Result<()> {
    let tools = testbed.join("tools");
    let place = tools.join("docker");
    let name = PACKAGES.join(" ");
    if fs::read_to_string(place.join(STAMP)).is_ok_and(|stamp| stamp == name) || shell::has("dockerd") {
        return Ok(());
    }
    debian::may_install(PACKAGES[0])?;
    for program in ["dpkg-deb", "apt-get"] {
        ensure!(shell::has(program), "`{program}` is not on the PATH; hint: install the package `docker.io` by hand");
    }
    fs::create_dir_all(&tools)?;
    // Beside its place, so that it can be renamed; removed with whatever is left in it.
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&tools)?;
    shell::say(&format!("fetching {name}"));
    let mut download = Command::new("apt-get");
    download.args(["-q", "download"]).args(PACKAGES).current_dir(work.path());
    if shell::capture(&mut download).is_err() {
        // An outdated list is the usual reason.
        shell::run(Command::new("apt-get").args(["-q", "update"]))?;
        shell::capture(&mut download).context("hint: install the package `docker.io` by hand")?;
    }
    let complete = work.path().join("complete");
    fs::create_dir(&complete)?;
    for package in PACKAGES {
        let prefix = format!("{package}_");
        let entries = fs::read_dir(work.path())?.flatten();
        let Some(file) = entries
            .map(|entry| entry.path())
            .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix)))
        else {
            bail!("apt-get fetched no {package}");
        };
        shell::capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&complete))?;
    }
    for name in SUPERFLUOUS {
        let path = complete.join(name);
        // A later version may have it elsewhere.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
    npm::open_to_all(&complete)?;
    fs::write(complete.join(STAMP), &name)?;
    // Others: aside first, since a full directory can't be renamed over.
    if place.exists() {
        fs::rename(&place, work.path().join("old"))?;
    }
    fs::rename(&complete, &place).with_context(|| format!("can't put {} in place", place.display()))
}
