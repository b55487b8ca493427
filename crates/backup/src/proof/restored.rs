//! A restored data directory before a server is let near it: what it is, where its links lead, what of it must go.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use model::Lsn;
use pg_format::{
    ControlFile, conf,
    label::{self, BackupFrom, BackupLabel, TablespaceMap},
};

use super::error::Halt;

/// How many files that are shared by hard links, or links that lead out, one message names.
const NAMED_MAX: usize = 3;

/// What a restored data directory says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) data: PathBuf,
    pub(crate) control: ControlFile,
    /// Absent for a cold copy, or a snapshot.
    pub(crate) label: Option<BackupLabel>,
    /// `restore_command`, where the restore has set one: the way to the WAL of a tool that keeps it apart.
    pub(crate) restore_command: Option<String>,
}

impl Restored {
    /// Where replay begins.
    pub(crate) fn start(&self) -> Lsn {
        self.label.as_ref().map_or(self.control.checkpoint.redo, |label| label.start)
    }

    /// The timeline that the backup was made on.
    pub(crate) fn timeline(&self) -> u32 {
        self.label.as_ref().and_then(|label| label.timeline).unwrap_or(self.control.checkpoint.timeline)
    }

    /// Where a standby's backup is consistent; a primary's says so in its WAL.
    pub(crate) fn standby_stop(&self) -> Option<Lsn> {
        let standby = self.label.as_ref().is_some_and(|label| label.from == BackupFrom::Standby);
        standby.then_some(self.control.min_recovery_point)
    }
}

/// Reads what the directory is. Changes nothing.
pub(crate) fn read(data: &Path) -> Result<Restored, Halt> {
    // A restore that only leaves a link to a directory has restored nothing, and that directory may be the live one.
    if fs::symlink_metadata(data).is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(Halt::not_proven(format!(
            "the restore made {} a link, not a directory; hint: let it restore into {{pgdata}} itself",
            data.display()
        )));
    }
    let control_path = data.join(pg_format::control::PATH);
    let bytes = fs::read(&control_path)
        .map_err(|error| Halt::failed(format!("the restore left no readable {}: {error}", control_path.display())))?;
    let control = ControlFile::parse(&bytes).map_err(|error| match error {
        pg_format::control::ControlError::Unsupported { .. } => Halt::not_proven(error.to_string()),
        _ => Halt::failed(error.to_string()),
    })?;
    let label = match fs::read_to_string(data.join(label::FILE_NAME)) {
        Ok(text) => Some(BackupLabel::parse(&text).map_err(|error| Halt::failed(error.to_string()))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Halt::failed(format!("backup_label can't be read: {error}"))),
    };
    if label.as_ref().is_some_and(|label| label.incremental_from.is_some()) {
        return Err(Halt::failed(
            "backup_label says that this is an incremental backup that was not combined with its base; hint: let the restore command run \
             pg_combinebackup",
        ));
    }
    Ok(Restored { data: data.to_owned(), control, label, restore_command: restore_command(data) })
}

/// The last `restore_command` of the restored configuration. Includes are not followed: tools write postgresql.auto.conf.
fn restore_command(data: &Path) -> Option<String> {
    let files = ["postgresql.conf", "postgresql.auto.conf"].map(|name| fs::read(data.join(name)).unwrap_or_default());
    let last = |bytes: &Vec<u8>| conf::settings(bytes).filter(|it| it.name == "restore_command").last();
    let setting = files.iter().rev().find_map(last)?;
    String::from_utf8(setting.value).ok().filter(|command| !command.trim().is_empty())
}

/// Refuses a directory that is tied to anything outside of `scratch`: links of tablespaces and of directories that the server writes to,
/// a tablespace_map that would make such links, and files that are shared with somebody else by hard links.
pub(crate) fn refuse_ties(data: &Path, scratch: &Path) -> Result<(), Halt> {
    let mut shared = Vec::new();
    let mut out = Vec::new();
    let mut pending = vec![data.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(dir) = pending.pop() {
        // A link may lead upwards.
        if !seen.insert(dir.clone()) {
            continue;
        }
        for entry in fs::read_dir(&dir).map_err(Halt::file("read", &dir))? {
            let path = entry.map_err(Halt::file("read", &dir))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(Halt::file("look at", &path))?;
            if metadata.is_dir() {
                pending.push(path);
            } else if metadata.is_symlink() {
                match fs::canonicalize(&path) {
                    Ok(target) if target.starts_with(scratch) => pending.extend(target.is_dir().then_some(target)),
                    _ if is_data(data, &path) => out.push(path),
                    _ => {}
                }
            } else if metadata.nlink() > 1 {
                shared.push(path);
            }
        }
    }
    let name = |paths: &[PathBuf]| {
        let shown = paths.iter().take(NAMED_MAX).map(|path| {
            let to = fs::read_link(path).map_or(String::new(), |to| format!(" -> {}", to.display()));
            format!("{}{to}", path.strip_prefix(data).unwrap_or(path).display())
        });
        let more = if paths.len() > NAMED_MAX { ", ..." } else { "" };
        format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
    };
    if !out.is_empty() {
        return Err(Halt::not_proven(format!(
            "the restored directory has links that lead out of the scratch directory ({}), and a server would write there; hint: let the \
             restore map tablespaces below {{scratch}}, as pgBackRest does with --tablespace-map-all={{scratch}}",
            name(&out)
        )));
    }
    if !shared.is_empty() {
        return Err(Halt::not_proven(format!(
            "{} restored files are hard links shared with other places ({}), which a server would change there too; hint: let the restore \
             copy files, not link them",
            shared.len(),
            name(&shared)
        )));
    }
    check_map(data, scratch)
}

/// Whether the server follows a link at `path` to write: all but configuration and certificates.
fn is_data(data: &Path, path: &Path) -> bool {
    let Ok(relative) = path.strip_prefix(data) else { return true };
    let first = relative.components().next().map(|first| first.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    let top_level = relative.components().count() == 1;
    !top_level || first.starts_with(b"pg_") && !first.ends_with(b".conf") || first == b"base" || first == b"global"
}

/// Whether a link leads to an existing place below `scratch`.
fn leads_below(link: &Path, scratch: &Path) -> bool {
    fs::canonicalize(link).is_ok_and(|target| target.starts_with(scratch))
}

/// The server makes the links of tablespace_map, over those that are there.
fn check_map(data: &Path, scratch: &Path) -> Result<(), Halt> {
    let path = data.join(label::MAP_FILE_NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Halt::file("read", &path)(error)),
    };
    let mut map = TablespaceMap::parse(&bytes).map_err(|error| Halt::failed(error.to_string()))?;
    let mut changed = false;
    for (oid, target) in &mut map.links {
        let named = Path::new(std::ffi::OsStr::from_bytes(target));
        if fs::canonicalize(named).is_ok_and(|target| target.starts_with(scratch)) {
            continue;
        }
        // The restore has put it elsewhere: what counts is where the files are.
        let link = data.join("pg_tblspc").join(oid.to_string());
        match fs::canonicalize(&link) {
            Ok(real) if real.starts_with(scratch) && link.is_symlink() => {
                *target = real.as_os_str().as_bytes().to_vec();
                changed = true;
            }
            _ => {
                return Err(Halt::not_proven(format!(
                    "tablespace_map would link tablespace {oid} to {}, outside of the scratch directory; hint: let the restore map \
                     tablespaces below {{scratch}}",
                    named.display()
                )));
            }
        }
    }
    if changed {
        replace(&path, &map.to_bytes())?;
    }
    Ok(())
}

/// After recovery: every link leads below the scratch directory, or to a place that is a directory of ours inside of the fence. Returns how
/// many there are, and those that do not.
pub(crate) fn links_after(data: &Path, scratch: &Path, rebound: &[PathBuf]) -> (u64, Vec<String>) {
    let mut wrong = Vec::new();
    let mut count = 0;
    let entries = fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_symlink()) {
        count += 1;
        let link = entry.path();
        let target = fs::read_link(&link).unwrap_or_default();
        let inside = target.starts_with(scratch) && leads_below(&link, scratch);
        if !inside && !rebound.contains(&target) {
            wrong.push(format!("{} -> {}", link.display(), target.display()));
        }
    }
    (count, wrong)
}

/// Empties and removes what must not reach the server, and says that it shall recover to a backup's end.
pub(crate) fn disarm(restored: &Restored) -> Result<(), Halt> {
    let data = &restored.data;
    // Read in any case, and after our own file.
    let auto = data.join("postgresql.auto.conf");
    replace(&auto, b"# Emptied by oxpecker for a proof.\n")?;
    for name in ["standby.signal", "recovery.signal", "recovery.conf", "postmaster.pid", "postmaster.opts"] {
        remove_file(&data.join(name))?;
    }
    // A slot of the original means nothing here, and would ask for a matching wal_level.
    let slots = data.join("pg_replslot");
    for entry in fs::read_dir(&slots).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(&path).map_err(Halt::file("remove", &path))?;
        }
    }
    if restored.label.is_some() {
        // Without it a standby's backup that lacks WAL would open, inconsistent, without a word.
        let signal = data.join("recovery.signal");
        replace(&signal, b"")?;
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(Halt::file("close", data))
}

/// Puts a file of ours there. What was there is removed, not written to: it may be a link to the original's.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Halt> {
    remove_file(path)?;
    let mut file = fs::File::create_new(path).map_err(Halt::file("create", path))?;
    file.write_all(bytes).map_err(Halt::file("write", path))
}

fn remove_file(path: &Path) -> Result<(), Halt> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Halt::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place {
        base: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            for dir in ["scratch/data/pg_tblspc", "scratch/data/base/1", "scratch/ts", "live"] {
                fs::create_dir_all(base.path().join(dir)).unwrap();
            }
            Self { base }
        }

        fn scratch(&self) -> PathBuf {
            fs::canonicalize(self.base.path().join("scratch")).unwrap()
        }

        fn data(&self) -> PathBuf {
            self.scratch().join("data")
        }

        fn live(&self) -> PathBuf {
            self.base.path().join("live")
        }

        fn refused(&self) -> String {
            refuse_ties(&self.data(), &self.scratch()).map_or_else(|halt| halt.reason, |()| String::new())
        }
    }

    #[test]
    fn links_within_are_fine_and_links_out_are_not() {
        let place = Place::new();
        symlink(place.scratch().join("ts"), place.data().join("pg_tblspc/1")).unwrap();
        symlink("/etc/ssl/cert.pem", place.data().join("server.crt")).unwrap();
        symlink("/etc/postgresql.conf", place.data().join("pg_hba.conf")).unwrap();
        assert_eq!(place.refused(), "");
        symlink(place.live(), place.data().join("pg_tblspc/2")).unwrap();
        assert!(place.refused().contains("pg_tblspc/2 -> "), "{}", place.refused());
        fs::remove_file(place.data().join("pg_tblspc/2")).unwrap();
        symlink(place.live(), place.data().join("pg_wal")).unwrap();
        assert!(place.refused().contains("pg_wal -> "), "{}", place.refused());
    }

    #[test]
    fn a_dangling_link_is_refused_for_replay_would_fill_it() {
        let place = Place::new();
        symlink(place.base.path().join("not-there"), place.data().join("pg_tblspc/2")).unwrap();
        assert!(place.refused().contains("lead out"));
    }

    #[test]
    fn hard_links_are_refused() {
        let place = Place::new();
        fs::write(place.live().join("1259"), "x").unwrap();
        fs::hard_link(place.live().join("1259"), place.data().join("base/1/1259")).unwrap();
        assert!(place.refused().contains("hard links"), "{}", place.refused());
    }

    #[test]
    fn a_map_to_the_live_place_is_refused_or_follows_the_link() {
        let place = Place::new();
        let map = place.data().join("tablespace_map");
        fs::write(&map, format!("16400 {}\n", place.live().display())).unwrap();
        assert!(place.refused().contains("tablespace_map"), "{}", place.refused());
        symlink(place.scratch().join("ts"), place.data().join("pg_tblspc/16400")).unwrap();
        assert_eq!(place.refused(), "");
        let text = fs::read_to_string(&map).unwrap();
        assert_eq!(text, format!("16400 {}\n", place.scratch().join("ts").display()));
    }

    #[test]
    fn links_are_judged_after_recovery() {
        let place = Place::new();
        symlink(place.scratch().join("ts"), place.data().join("pg_tblspc/1")).unwrap();
        symlink(place.live(), place.data().join("pg_tblspc/2")).unwrap();
        assert_eq!(links_after(&place.data(), &place.scratch(), &[place.live()]), (2, vec![]));
        assert_eq!(links_after(&place.data(), &place.scratch(), &[]).1.len(), 1);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let place = Place::new();
        let live = place.live().join("postgresql.auto.conf");
        fs::write(&live, "work_mem = '1GB'\n").unwrap();
        let auto = place.data().join("postgresql.auto.conf");
        symlink(&live, &auto).unwrap();
        replace(&auto, b"").unwrap();
        assert_eq!(fs::read_to_string(&live).unwrap(), "work_mem = '1GB'\n");
        assert!(!auto.is_symlink() && fs::read(&auto).unwrap().is_empty());
        let link = place.scratch().join("link");
        symlink(place.live(), &link).unwrap();
        assert!(read(&link).unwrap_err().reason.contains("a link"));
    }

    #[test]
    fn the_last_restore_command_counts() {
        let place = Place::new();
        assert_eq!(restore_command(&place.data()), None);
        fs::write(place.data().join("postgresql.conf"), "restore_command = 'a'\n").unwrap();
        assert_eq!(restore_command(&place.data()).as_deref(), Some("a"));
        fs::write(place.data().join("postgresql.auto.conf"), "restore_command = 'b'\nrestore_command = 'c %f %p'\n")
            .unwrap();
        assert_eq!(restore_command(&place.data()).as_deref(), Some("c %f %p"));
    }
}
