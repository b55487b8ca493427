//! The file that carries a temporary setting, and the one line of postgresql.conf that reads it.
//!
//! The file is best on a tmpfs: gone after a reboot, in no base backup, overridden by a person's ALTER SYSTEM, and undone by
//! emptying it and a reload. It is replaced by rename, so that no process ever reads half of it, and holds a throttle only
//! while those who are to read it do so; the rest of the time it is neutral, so that a stranger's reload spreads nothing.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use model::event::CostSetting;

/// The settings that the file may carry.
pub const LIMIT_NAME: &str = "autovacuum_vacuum_cost_limit";
/// See [`LIMIT_NAME`].
pub const DELAY_NAME: &str = "autovacuum_vacuum_cost_delay";
/// A setting without effect (a custom one), by which `pg_file_settings` shows whether and where the file is read.
pub const PROBE_NAME: &str = "oxpecker.probe";

/// The file without any setting.
pub const NEUTRAL: &str = "# oxpecker: no throttle. This file is rewritten by oxpecker; removing it is harmless.\n";

/// Marks our line, so that it can be found and removed whatever stands around it.
const MARKER: &str = "# oxpecker: temporary settings of its governor";

/// `statfs` type of tmpfs and ramfs (statfs(2)).
const MEMORY_FILE_SYSTEMS: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// The largest configuration file that is edited, in bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {path}: {source} (hint: {hint})")]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
    hint: &'static str,
}

fn failed<'a>(action: &'static str, path: &'a Path, hint: &'static str) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError { action, path: path.to_owned(), source, hint }
}

/// The content that sets `setting`.
pub fn content(setting: CostSetting, what: &str) -> String {
    format!(
        "# oxpecker: {what}. Removing this file and `SELECT pg_reload_conf()` undoes it.\n{LIMIT_NAME} = {}\n{DELAY_NAME} = {}ms\n",
        setting.limit, setting.delay_ms
    )
}

/// The content that only shows whether it is read.
pub fn probe_content() -> String {
    format!("{NEUTRAL}{PROBE_NAME} = 'read'\n")
}

/// Replaces the file in one step. `owner` (uid, gid of the server) gets it where we may give it away, so that the server itself can
/// neutralise it when everyone else is dead.
///
/// # Errors
/// The directory can't be made or written.
pub fn replace(path: &Path, content: &str, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    replace_if(path, content, owner, || true)
}

/// As [`replace`], if that is still wanted in the last moment before the file gets its name.
///
/// # Errors
/// As [`replace`], or it is not wanted any more.
pub(crate) fn replace_if(
    path: &Path,
    content: &str,
    owner: Option<(u32, u32)>,
    wanted: impl FnOnce() -> bool,
) -> Result<(), FileError> {
    const HINT: &str = "create the directory for oxpecker's user, or set another include file";
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create directory", directory, HINT))?;
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        // A leftover of a crash, or a link that somebody laid.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        if let Some((uid, gid)) = owner {
            // Only root may; for everyone else the file is the server's when we run as the server's user.
            let _ = chown(&temporary, Some(uid), Some(gid));
        }
        if !wanted() {
            fs::remove_file(&temporary)?;
            return Err(io::Error::other("it was given up meanwhile"));
        }
        fs::rename(&temporary, path)
    };
    write().map_err(failed("write", path, HINT))
}

/// Removes the file; that it is not there is fine.
///
/// # Errors
/// It is there and can't be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path, "remove it by hand and reload PostgreSQL")(error))
        }
        _ => Ok(()),
    }
}

/// Whether the file's directory is on a file system that does not outlive the host's uptime. `None` where it can't be told.
pub fn is_on_tmpfs(path: &Path) -> Option<bool> {
    let existing = path.ancestors().skip(1).find(|p| p.exists())?;
    let stat = rustix::fs::statfs(existing).ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let kind = stat.f_type as u32; // The type's width and sign differ between architectures; magic numbers have 32 bits.
    Some(MEMORY_FILE_SYSTEMS.contains(&kind))
}

/// The exact line.
pub fn line(include: &Path) -> String {
    format!("include_if_exists = '{}' {MARKER}", include.display().to_string().replace('\'', "''"))
}

/// Whether `text` (of a configuration file) reads `include`.
pub fn text_includes(text: &str, include: &Path) -> bool {
    let wanted = include.display().to_string().replace('\'', "''");
    text.lines().any(|line| {
        let line = line.trim_start();
        let rest = line.strip_prefix("include_if_exists").or_else(|| line.strip_prefix("include "));
        rest.is_some_and(|rest| {
            let rest = rest.trim_start().trim_start_matches('=').trim_start();
            rest.strip_prefix('\'')
                .is_some_and(|r| r.strip_prefix(wanted.as_str()).is_some_and(|r| r.starts_with('\'')))
        })
    })
}

/// Adds the line to `config_file` where it is not there yet. Returns whether it was added. To be called on a person's consent only.
///
/// # Errors
/// The file can't be read or replaced.
pub fn install_include_line(config_file: &Path, include: &Path) -> Result<bool, FileError> {
    edit(config_file, |text| {
        if text_includes(text, include) {
            return None;
        }
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Some(format!("{text}{newline}{}\n", line(include)))
    })
}

/// Takes our line out of `config_file`. Returns whether it was there. A line that a person wrote stays.
///
/// # Errors
/// The file can't be read or replaced.
pub fn remove_include_line(config_file: &Path) -> Result<bool, FileError> {
    edit(config_file, |text| {
        text.contains(MARKER).then(|| text.split_inclusive('\n').filter(|line| !line.contains(MARKER)).collect())
    })
}

/// Replaces a file by what `change` makes of it, keeping owner and mode, in one step that survives a crash at any instant.
fn edit(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> Result<bool, FileError> {
    const HINT: &str = "run as root or as the server's user";
    // Where the file is a link (Debian has none, others do) the target is replaced, not the link.
    let path = fs::canonicalize(path).map_err(failed("find", path, HINT))?;
    let run = || -> io::Result<bool> {
        let meta = fs::metadata(&path)?;
        if meta.len() > MAX_CONFIG {
            return Err(io::Error::other("it is larger than any configuration file"));
        }
        let Some(text) = change(&fs::read_to_string(&path)?) else { return Ok(false) };
        let temporary = path.with_extension("oxpecker-new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(meta.permissions())?;
        if (meta.uid(), meta.gid()) != (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()) {
            chown(&temporary, Some(meta.uid()), Some(meta.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        if let Some(directory) = path.parent() {
            fs::File::open(directory)?.sync_all()?;
        }
        Ok(true)
    };
    run().map_err(failed("change", &path, HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_added_once_and_removed_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("postgresql.conf");
        let include = Path::new("/run/oxpecker/o'main/throttle.conf");
        for before in ["", "port = 5432\n", "port = 5432\n# include_if_exists = '/elsewhere'\n"] {
            fs::write(&config, before).unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
            assert!(install_include_line(&config, include).unwrap());
            assert!(text_includes(&fs::read_to_string(&config).unwrap(), include));
            assert!(!install_include_line(&config, include).unwrap());
            assert!(remove_include_line(&config).unwrap());
            assert_eq!(fs::read_to_string(&config).unwrap(), before);
            assert!(!remove_include_line(&config).unwrap());
            assert_eq!(fs::metadata(&config).unwrap().mode() & 0o777, 0o640);
        }
    }

    #[test]
    fn an_owners_own_line_counts_and_stays() {
        let include = Path::new("/run/oxpecker/main/throttle.conf");
        for (text, found) in [
            ("include_if_exists '/run/oxpecker/main/throttle.conf'\n", true),
            ("  include_if_exists='/run/oxpecker/main/throttle.conf' # ours\n", true),
            ("#include_if_exists = '/run/oxpecker/main/throttle.conf'\n", false),
            ("include_if_exists = '/run/oxpecker/main/throttle.conf.old'\n", false),
        ] {
            assert_eq!(text_includes(text, include), found, "{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("postgresql.conf");
        fs::write(&config, "include_if_exists '/run/oxpecker/main/throttle.conf'\n").unwrap();
        assert!(!install_include_line(&config, include).unwrap());
        assert!(!remove_include_line(&config).unwrap());
    }

    #[test]
    fn a_link_in_the_way_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, victim) = (dir.path().join("throttle.conf"), dir.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("throttle.new")).unwrap();
        replace(&file, NEUTRAL, None).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&file).unwrap(), NEUTRAL);
        remove(&file).unwrap();
        remove(&file).unwrap();
    }
}
