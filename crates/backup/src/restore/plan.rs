//! What a restore will do. Pure: what stands on the disks comes in as [`Observed`].

use std::path::{Component, Path, PathBuf};

use pg_format::label::TablespaceMap;

use super::{RestoreError, RestoreOptions};
use crate::info::{BackupInfo, Tablespace};

/// What stands at a directory that is to be restored to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Nothing.
    Absent,
    /// A directory with nothing in it.
    Empty,
    /// A directory that an interrupted restore began.
    Begun(String),
    /// Anything else.
    Occupied,
}

/// A tablespace and where it will lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it lay.
    pub from: String,
    /// Where it will lie.
    pub to: PathBuf,
}

/// What a restore will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// The data directory.
    pub target: PathBuf,
    /// The tablespaces outside of it.
    pub tablespaces: Vec<PlannedTablespace>,
    /// The map as it will be written; empty where there is to be no file.
    pub tablespace_map: Vec<u8>,
    /// An interrupted restore of the same is continued.
    pub continues: bool,
    /// Files to be written.
    pub files: u64,
    /// Bytes to be written, write-ahead log included.
    pub bytes: u64,
    /// How the server is started when all is there.
    pub start_command: String,
    /// What the user should know beforehand.
    pub notes: Vec<String>,
}

/// Where the tablespaces will lie.
pub(super) fn tablespaces(info: &BackupInfo, options: &RestoreOptions) -> Result<Vec<PlannedTablespace>, RestoreError> {
    for (from, to) in &options.tablespaces {
        if !info.tablespaces.iter().any(|known| known.location == *from) {
            let known: Vec<&str> = info.tablespaces.iter().map(|known| known.location.as_str()).collect();
            let known =
                if known.is_empty() { "none outside of the data directory".to_owned() } else { known.join(", ") };
            return Err(RestoreError::UnknownTablespace { from: from.clone(), known });
        }
        if !to.is_absolute() {
            return Err(RestoreError::Relative(to.clone()));
        }
    }
    let planned = |Tablespace { oid, location }: &Tablespace| {
        let mapped = options.tablespaces.iter().find(|(from, _)| from == location);
        PlannedTablespace {
            oid: *oid,
            from: location.clone(),
            to: mapped.map_or_else(|| location.into(), |(_, to)| to.clone()),
        }
    };
    Ok(info.tablespaces.iter().map(planned).collect())
}

/// Decides. `at_target` and `at_tablespaces` are what stands there; `identity` is what a marker of this very restore says.
pub(super) fn plan(
    info: &BackupInfo,
    options: &RestoreOptions,
    tablespaces: Vec<PlannedTablespace>,
    at_target: &Observed,
    at_tablespaces: &[Observed],
    identity: &str,
    start_as: Option<&str>,
) -> Result<RestorePlan, RestoreError> {
    let target = options.target.clone();
    if !target.is_absolute() {
        return Err(RestoreError::Relative(target));
    }
    let places: Vec<&Path> =
        std::iter::once(target.as_path()).chain(tablespaces.iter().map(|tablespace| tablespace.to.as_path())).collect();
    for (index, one) in places.iter().enumerate() {
        for other in &places[index + 1..] {
            if one.starts_with(other) || other.starts_with(one) {
                return Err(RestoreError::Overlap((*one).to_owned(), (*other).to_owned()));
            }
        }
    }
    let continues = match at_target {
        Observed::Absent | Observed::Empty => false,
        Observed::Begun(what) if what == identity => true,
        Observed::Begun(what) => return Err(RestoreError::OtherRestore { path: target, what: what.clone() }),
        Observed::Occupied => return Err(RestoreError::NotEmpty { path: target, tablespace: false }),
    };
    for (tablespace, observed) in tablespaces.iter().zip(at_tablespaces) {
        let free = matches!(observed, Observed::Absent | Observed::Empty);
        // The marker in the data directory names the mapping, so what is there is our own.
        if !free && !continues {
            return Err(RestoreError::NotEmpty { path: tablespace.to.clone(), tablespace: true });
        }
    }
    let map = map(info, &tablespaces)?;
    Ok(RestorePlan {
        start_command: start_command(info, &target, start_as),
        notes: notes(info, options, &tablespaces),
        target,
        tablespaces,
        tablespace_map: map,
        continues,
        files: info.files,
        bytes: info.bytes + info.wal_bytes,
    })
}

/// The server makes its links from this map: one that was not rewritten would lead it into the original's tablespaces.
fn map(info: &BackupInfo, tablespaces: &[PlannedTablespace]) -> Result<Vec<u8>, RestoreError> {
    use std::os::unix::ffi::OsStrExt;
    let mut map = TablespaceMap::parse(info.tablespace_map.as_bytes())?;
    map.links.retain(|oid, _| tablespaces.iter().any(|tablespace| tablespace.oid == *oid));
    for tablespace in tablespaces {
        map.links.insert(tablespace.oid, tablespace.to.as_os_str().as_bytes().to_vec());
    }
    Ok(map.to_bytes())
}

fn start_command(info: &BackupInfo, target: &Path, start_as: Option<&str>) -> String {
    let pg_ctl = info.host.bin_dir.as_ref().map_or_else(|| "pg_ctl".to_owned(), |dir| quoted(&format!("{dir}/pg_ctl")));
    let log = quoted(&format!("{}/restored.log", target.display()));
    // Recovery refuses directories among the links unless it is told to expect them.
    let option = if info.in_place_tablespaces.is_empty() { "" } else { " -o '-c allow_in_place_tablespaces=on'" };
    let command = format!("{pg_ctl} -D {} -l {log}{option} -t 3600 -w start", quoted(&target.display().to_string()));
    match start_as {
        Some(user) => format!("runuser -u {} -- {command}", quoted(user)),
        None => command,
    }
}

fn notes(info: &BackupInfo, options: &RestoreOptions, tablespaces: &[PlannedTablespace]) -> Vec<String> {
    let mut notes = Vec::new();
    if options.fence {
        notes.push(
            "the restored server is fenced: it archives no WAL and runs no subscriptions, so that it can't get into its original's place; \
             to lift the fence, once archive_command leads to a place of its own: ALTER SYSTEM RESET archive_mode; ALTER SYSTEM RESET \
             max_logical_replication_workers; and restart"
                .to_owned(),
        );
    }
    let kept = tablespaces.iter().filter(|tablespace| Path::new(&tablespace.from) == tablespace.to);
    notes.extend(kept.map(|tablespace| {
        format!("the tablespace {} is restored to where it lay, {}", tablespace.oid, tablespace.from)
    }));
    notes.extend(info.tablespaces_in_wal.iter().map(|made| {
        let Tablespace { oid, location } = made;
        format!("the tablespace {oid} was made while the backup was taken: recovery makes it at {location}, whatever the mapping says")
    }));
    if info.corrupt_pages_count > 0 {
        notes.push(format!("{} pages were damaged in the source already, see `backup show`", info.corrupt_pages_count));
    }
    if !info.outside.is_empty() {
        let files: Vec<&str> = info.outside.values().map(String::as_str).collect();
        notes.push(format!(
            "the configuration lay outside of the data directory ({}): copies are put into it, without the lines that lead elsewhere",
            files.join(", ")
        ));
    }
    notes
}

/// A word for a POSIX shell.
#[must_use]
pub fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Where an entry lies, and whether that is a place for it: entries are authenticated, and yet a name never leads out of the target.
pub(super) fn place(plan: &RestorePlan, name: &[u8]) -> Result<PathBuf, RestoreError> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let path = Path::new(OsStr::from_bytes(name));
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !normal || name.is_empty() {
        return Err(RestoreError::Name(crate::entry::shown(name)));
    }
    let mut parts = path.components();
    if parts.next() == Some(Component::Normal(OsStr::new("pg_tblspc")))
        && let Some(Component::Normal(oid)) = parts.next()
        && let Some(oid) = oid.to_str().and_then(|oid| oid.parse::<u32>().ok())
        && let Some(tablespace) = plan.tablespaces.iter().find(|tablespace| tablespace.oid == oid)
    {
        return Ok(tablespace.to.join(parts.as_path()));
    }
    Ok(plan.target.join(path))
}

impl RestorePlan {
    /// The bytes that have to be free. What an interrupted restore has written already is not known.
    pub(super) fn needs(&self) -> u64 {
        if self.continues { 0 } else { self.bytes }
    }

    /// Whether there is room for it. `free`: bytes at the target, `None` where that can't be found out. With tablespaces nobody knows which disk takes how much.
    pub(super) fn fits(&self, free: Option<u64>) -> Result<(), RestoreError> {
        match free {
            Some(free) if free < self.needs() && self.tablespaces.is_empty() => {
                Err(RestoreError::NoSpace { path: self.target.clone(), needed: self.needs(), free })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::sample;

    fn options(mapping: &[(&str, &str)]) -> RestoreOptions {
        let mut options = RestoreOptions::new(repository::BackupId([1; 16]), "/restored");
        options.tablespaces = mapping.iter().map(|(from, to)| ((*from).to_owned(), (*to).into())).collect();
        options
    }

    fn planned(mapping: &[(&str, &str)], at: &Observed, space: &Observed) -> Result<RestorePlan, RestoreError> {
        let (mut info, options) = (sample(), options(mapping));
        info.tablespace_map = "16400 /srv/space\n".to_owned();
        let tablespaces = tablespaces(&info, &options)?;
        plan(&info, &options, tablespaces, at, std::slice::from_ref(space), "me", Some("postgres"))
    }

    #[test]
    fn a_plan_without_room_is_refused_with_numbers() {
        let mut plan = planned(&[], &Observed::Absent, &Observed::Absent).unwrap();
        plan.bytes = 100;
        plan.fits(Some(0)).expect("with tablespaces it is not known");
        plan.tablespaces.clear();
        plan.fits(Some(100)).unwrap();
        plan.fits(None).unwrap();
        assert!(matches!(plan.fits(Some(99)), Err(RestoreError::NoSpace { needed: 100, free: 99, .. })));
        plan.continues = true;
        plan.fits(Some(0)).expect("most of it may be there");
    }

    #[test]
    fn only_empty_places_and_our_own_half_restore_are_taken() {
        use Observed::{Absent, Begun, Empty, Occupied};
        let ours = Begun("me".to_owned());
        assert!(!planned(&[], &Absent, &Empty).unwrap().continues);
        assert!(planned(&[], &ours, &Occupied).unwrap().continues);
        assert!(matches!(planned(&[], &Occupied, &Empty), Err(RestoreError::NotEmpty { tablespace: false, .. })));
        assert!(matches!(planned(&[], &Empty, &Occupied), Err(RestoreError::NotEmpty { tablespace: true, .. })));
        assert!(matches!(planned(&[], &Begun("other".to_owned()), &Empty), Err(RestoreError::OtherRestore { .. })));
    }

    #[test]
    fn tablespaces_are_mapped_and_the_map_with_them() {
        let plan = planned(&[("/srv/space", "/new/space")], &Observed::Absent, &Observed::Absent).unwrap();
        assert_eq!(plan.tablespace_map, b"16400 /new/space\n");
        let lies = |name: &str| place(&plan, name.as_bytes()).unwrap();
        assert_eq!(lies("pg_tblspc/16400/PG_15_1/5/7"), Path::new("/new/space/PG_15_1/5/7"));
        assert_eq!(lies("pg_tblspc/9/PG_15_1/5/7"), Path::new("/restored/pg_tblspc/9/PG_15_1/5/7"));
        assert_eq!(lies("pg_tblspc"), Path::new("/restored/pg_tblspc"));
        for name in ["", "/etc/passwd", "../x", "base/../../x", "pg_tblspc/16400/../../x"] {
            assert!(matches!(place(&plan, name.as_bytes()), Err(RestoreError::Name(_))), "{name}");
        }
        assert!(matches!(
            planned(&[("/x", "/y")], &Observed::Absent, &Observed::Absent),
            Err(RestoreError::UnknownTablespace { .. })
        ));
        assert!(matches!(
            planned(&[("/srv/space", "y")], &Observed::Absent, &Observed::Absent),
            Err(RestoreError::Relative(_))
        ));
        for to in ["/restored", "/restored/x", "/"] {
            let result = planned(&[("/srv/space", to)], &Observed::Absent, &Observed::Absent);
            assert!(matches!(result, Err(RestoreError::Overlap(..))), "{to}");
        }
    }

    #[test]
    fn the_command_can_be_pasted() {
        let mut info = sample();
        info.host.bin_dir = Some("/usr/lib/it's/bin".to_owned());
        let command = start_command(&info, Path::new("/a b"), Some("postgres"));
        assert_eq!(
            command,
            r"runuser -u postgres -- '/usr/lib/it'\''s/bin/pg_ctl' -D '/a b' -l '/a b/restored.log' -t 3600 -w start"
        );
    }
}
