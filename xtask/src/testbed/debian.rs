//! Packages of Debian and its children, installed when we may: as root, and unless `OXPECKER_TEST_NO_INSTALL` is set.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Where postgresql-common is told not to make a cluster of its own when a server's package is installed.
const COMMON: &str = "/etc/postgresql-common";
/// What it is told.
const NO_MAIN_CLUSTER: &str = "create_main_cluster = false";

/// Installs the distribution's PostgreSQL server without starting one: port 5432 is not ours to take.
pub fn install_postgresql() -> Result<()> {
    may_install("postgresql")?;
    forbid_main_cluster(Path::new(COMMON))?;
    install("postgresql")
}

/// Installs npm.
pub fn install_npm() -> Result<()> {
    may_install("npm")?;
    install("npm")
}

/// Installs pip.
pub fn install_pip() -> Result<()> {
    may_install("python3-pip")?;
    install("python3-pip")
}

/// Installs a package that some tests are skipped without.
pub fn install_for_tests(package: &str) -> Result<()> {
    may_install(package)?;
    install(package)
}

/// Fails where nothing may be installed, with a hint that names the package.
pub fn may_install(package: &str) -> Result<()> {
    let hint = format!("hint: install the package `{package}` (or what your distribution calls it)");
    if std::env::var_os("OXPECKER_TEST_NO_INSTALL").is_some() {
        bail!("OXPECKER_TEST_NO_INSTALL is set; {hint}");
    }
    if !shell::has("apt-get") {
        bail!("this is not Debian; {hint}");
    }
    let id = shell::capture(Command::new("id").arg("-u"))?;
    if id.stdout.trim_ascii() != b"0" {
        bail!("only root may install packages; {hint}");
    }
    Ok(())
}

fn install(package: &str) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        // Nothing may ask: keep whatever configuration is there.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("UCF_FORCE_CONFFOLD", "1").arg("-q");
        command
    };
    // An outdated list is the usual reason for a failing install; a failing update alone is none.
    if let Err(error) = shell::run(apt().arg("update")) {
        shell::say(&format!("warning: {error:#}"));
    }
    shell::run(apt().args(["install", "--yes", "--no-install-recommends", package]))
        .with_context(|| format!("hint: install the package `{package}` by hand"))
}

/// Says so in createcluster.conf, or, where that exists, in a file beside it that it includes.
fn forbid_main_cluster(common: &Path) -> Result<()> {
    let main = common.join("createcluster.conf");
    let text = match fs::read_to_string(&main) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", main.display())),
    };
    if text.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == NO_MAIN_CLUSTER) {
        return Ok(());
    }
    let included = common.join("createcluster.d");
    let (file, content) = if text.lines().any(|line| line.trim_start().starts_with("include_dir")) {
        (included.join("oxpecker.conf"), format!("{NO_MAIN_CLUSTER}\n"))
    } else {
        (main, format!("{text}{NO_MAIN_CLUSTER}\n"))
    };
    let dir = file.parent().expect("it was joined to one");
    fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
    shell::say(&format!("{}: {NO_MAIN_CLUSTER}", file.display()));
    fs::write(&file, content).with_context(|| format!("can't write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: Option<&str>) -> (Option<String>, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let common = dir.path().join("postgresql-common");
        if let Some(text) = before {
            fs::create_dir(&common).unwrap();
            fs::write(common.join("createcluster.conf"), text).unwrap();
        }
        forbid_main_cluster(&common).unwrap();
        let read = |name| fs::read_to_string(common.join(name)).ok();
        (read("createcluster.conf"), read("createcluster.d/oxpecker.conf"))
    }

    #[test]
    fn no_cluster_is_made_whatever_was_there() {
        let no = Some("create_main_cluster = false\n".to_owned());
        assert_eq!(after(None), (no.clone(), None));
        let text = "#create_main_cluster = false\nssl = on\n";
        assert_eq!(after(Some(text)), (Some(format!("{text}create_main_cluster = false\n")), None));
        let text = "ssl = on\ninclude_dir '/etc/postgresql-common/createcluster.d'\n";
        assert_eq!(after(Some(text)), (Some(text.to_owned()), no));
        let text = "create_main_cluster = false # ours\n";
        assert_eq!(after(Some(text)), (Some(text.to_owned()), None));
    }
}
