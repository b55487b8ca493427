//! How a data directory comes to be: from initdb, or as a copy of one that is stopped.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Installation, ScratchError,
    cache::shared_cache_dir,
    directory::PREFIX,
    error::prepare,
    identity::{Identity, ParentDeath},
};

/// Changes whenever [`initdb`] would make something else than the cached directories hold.
const RECIPE: u32 = 1;
/// How much of a failed program's output goes into the error.
const OUTPUT_MAX_BYTES: usize = 4096;

/// Runs initdb into `data`, which must not exist.
pub(crate) fn initdb(
    installation: &Installation,
    identity: &Identity,
    more_args: &[String],
    data: &Path,
) -> Result<(), ScratchError> {
    let program = installation.bin_dir.join("initdb");
    let mut command = identity.command(&program, ParentDeath::Signal("INT"));
    command.args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "--encoding=UTF8"]);
    command.args(more_args).arg("-D").arg(data);
    command.current_dir(data.parent().unwrap_or(Path::new("/")));
    run(command, &program.display().to_string())
}

/// As [`initdb`], by way of a copy that is kept per installation and user: initdb takes a second or two, a copy a tenth of it.
/// All such clusters share one system identifier.
pub(crate) fn initdb_cached(installation: &Installation, identity: &Identity, data: &Path) -> Result<(), ScratchError> {
    match cached(installation, identity) {
        Some(template) => copy(&template, identity, data),
        None => initdb(installation, identity, &[], data),
    }
}

/// The kept directory, made when it is not there yet; `None` where the cache can't be used.
fn cached(installation: &Installation, identity: &Identity) -> Option<PathBuf> {
    let templates = shared_cache_dir()?.join("templates");
    // One version built twice (Debian's, the testbed's) differs in compiled-in paths and libraries.
    let origin = installation.bin_dir.to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let kept = templates.join(format!("{}{origin}-u{}-r{RECIPE}", installation.version_num, identity.uid));
    if kept.join("PG_VERSION").exists() {
        return Some(kept);
    }
    fs::create_dir_all(&templates).ok()?;
    if !identity.can_reach(&templates.join(PREFIX)) {
        return None;
    }
    let making = tempfile::Builder::new().prefix(".making-").tempdir_in(&templates).ok()?;
    identity.own(making.path()).ok()?;
    let fresh = making.path().join("data");
    initdb(installation, identity, &[], &fresh).ok()?;
    // Losing a race is as good as winning it: the directory that is there has the same content.
    match fs::rename(&fresh, &kept) {
        Ok(()) => Some(kept),
        Err(_) => kept.join("PG_VERSION").exists().then_some(kept),
    }
}

/// Copies the stopped data directory `template` to `data`, which must not exist.
pub(crate) fn copy(template: &Path, identity: &Identity, data: &Path) -> Result<(), ScratchError> {
    let refuse = |why, remedy| Err(ScratchError::Template { path: template.to_owned(), why, remedy });
    if !template.join("PG_VERSION").exists() {
        return refuse("it is not a data directory", "name the directory that holds PG_VERSION");
    }
    if template.join("postmaster.pid").exists() {
        return refuse(
            "its server is running, or crashed",
            "stop the server first; after a crash start and stop it once",
        );
    }
    // The copy's links would lead to the original's tablespaces, and its server would write there.
    let tablespaces = template.join("pg_tblspc");
    if fs::read_dir(&tablespaces).map_err(prepare("read", &tablespaces))?.next().is_some() {
        return refuse("it has tablespaces, whose links the copy would share", "use a cluster without tablespaces");
    }
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto", "--"]).arg(template).arg(data);
    run(command, "cp")?;
    let owner = fs::metadata(data).map_err(prepare("look at", data))?.uid();
    if owner != identity.uid {
        let mut command = Command::new("chown");
        command.args(["-R", "-h", &format!("{}:{}", identity.uid, identity.gid), "--"]).arg(data);
        run(command, "chown")?;
    }
    Ok(())
}

fn run(mut command: Command, program: &str) -> Result<(), ScratchError> {
    let spawn = |source| ScratchError::Spawn { program: program.to_owned(), source };
    let output = command.output().map_err(spawn)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let tail = &said[said.len().saturating_sub(OUTPUT_MAX_BYTES)..];
    let output_text = String::from_utf8_lossy(tail).trim().to_owned();
    Err(ScratchError::Program { program: program.to_owned(), status: output.status, output: output_text })
}
