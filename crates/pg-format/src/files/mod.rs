//! What a file of a data directory is, by its path, and whether a backup takes it.
//!
//! Sources: PostgreSQL's relpath.c, reinit.c and the lists in basebackup.c.

mod relation;
mod unlogged;

pub use relation::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, RelationFile};
pub use unlogged::UnloggedRelations;

/// What is needed to judge paths besides the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `stats_temp_directory`, where it lies in the data directory: relative to that (13 and 14 only, empty otherwise).
    pub stats_temp_directory: Vec<u8>,
}

/// What a file is, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file of a relation's pages: they have checksums, if the cluster has.
    Relation(RelationFile),
    /// The control file: copied last from a standby, restored last.
    Control,
    /// Anything else that belongs into a backup.
    Other,
    /// Nothing that belongs into a backup, and why.
    Skipped(Skip),
}

/// What a directory is, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryKind {
    /// Belongs into a backup with what is in it.
    Taken,
    /// Belongs into a backup, what is in it does not: it must be there, and is filled by the server.
    Emptied,
    /// Does not belong into a backup.
    Skipped(Skip),
}

/// Why a file or directory stays out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// It lies in a directory whose contents a server makes anew at its start.
    Rebuilt,
    /// A temporary file or directory, or a temporary relation.
    Temporary,
    /// Of the running server: its process id and options.
    Runtime,
    /// It belongs to another backup: its label, map or manifest.
    OtherBackup,
    /// A cache that must not outlive its server, `pg_internal.init`.
    Cache,
    /// A half-written file.
    HalfWritten,
    /// A fork of an unlogged relation that recovery resets; see [`UnloggedRelations`].
    Unlogged,
}

/// Directories of which only the directory itself is taken.
const EMPTIED: &[&[u8]] = &[
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_replslot",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
    b"pg_wal",
];
/// Begins the names of temporary files and directories, wherever they are.
const TEMPORARY_PREFIX: &[u8] = b"pgsql_tmp";
/// Begins the names of the relation caches, with a process id behind it while one is written.
const CACHE_PREFIX: &[u8] = b"pg_internal.init";

/// What a restore has to create in `pg_wal` before the first start, for servers that do not do so themselves.
pub const WAL_SUBDIRECTORIES: &[&str] = &["archive_status", "summaries"];

impl Rules {
    /// What the file at `path` (relative to the data directory, no leading `./`) is.
    #[must_use]
    pub fn classify(&self, path: &[u8]) -> FileKind {
        if let Some(skip) = self.skip_of_parents(path) {
            return FileKind::Skipped(skip);
        }
        let (parent, name) = split_last(path);
        if name.starts_with(TEMPORARY_PREFIX) {
            return FileKind::Skipped(Skip::Temporary);
        }
        if parent.is_empty() {
            return self.top_level(name);
        }
        if name.starts_with(CACHE_PREFIX) {
            return FileKind::Skipped(Skip::Cache);
        }
        if path == crate::control::PATH.as_bytes() {
            return FileKind::Control;
        }
        match RelationFile::parse(path) {
            Some(file) if file.backend.is_some() => FileKind::Skipped(Skip::Temporary),
            Some(file) => FileKind::Relation(file),
            None => FileKind::Other,
        }
    }

    /// What the directory at `path` (relative to the data directory) is. The links in `pg_tblspc` are directories too.
    #[must_use]
    pub fn classify_directory(&self, path: &[u8]) -> DirectoryKind {
        if let Some(skip) = self.skip_of_parents(path) {
            return DirectoryKind::Skipped(skip);
        }
        let (_, name) = split_last(path);
        if name.starts_with(TEMPORARY_PREFIX) {
            DirectoryKind::Skipped(Skip::Temporary)
        } else if self.is_emptied(path) {
            DirectoryKind::Emptied
        } else {
            DirectoryKind::Taken
        }
    }

    fn top_level(&self, name: &[u8]) -> FileKind {
        match name {
            b"postmaster.pid" | b"postmaster.opts" => FileKind::Skipped(Skip::Runtime),
            b"backup_label" | b"tablespace_map" | b"backup_manifest" => FileKind::Skipped(Skip::OtherBackup),
            b"postgresql.auto.conf.tmp" | b"current_logfiles.tmp" => FileKind::Skipped(Skip::HalfWritten),
            _ => FileKind::Other,
        }
    }

    fn skip_of_parents(&self, path: &[u8]) -> Option<Skip> {
        let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        parents.into_iter().find_map(|parent| {
            let (_, name) = split_last(parent);
            match () {
                () if name.starts_with(TEMPORARY_PREFIX) => Some(Skip::Temporary),
                () if self.is_emptied(parent) => Some(Skip::Rebuilt),
                () => None,
            }
        })
    }

    fn is_emptied(&self, directory: &[u8]) -> bool {
        EMPTIED.contains(&directory)
            || (!self.stats_temp_directory.is_empty() && directory == self.stats_temp_directory.as_slice())
    }
}

fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skipped(path: &str) -> Option<Skip> {
        match Rules::default().classify(path.as_bytes()) {
            FileKind::Skipped(skip) => Some(skip),
            _ => None,
        }
    }

    #[test]
    fn what_stays_out() {
        for (path, expected) in [
            ("pg_wal/000000010000000000000001", Some(Skip::Rebuilt)),
            ("pg_wal/archive_status/x.ready", Some(Skip::Rebuilt)),
            ("pg_replslot/slot/state", Some(Skip::Rebuilt)),
            ("pg_subtrans/0000", Some(Skip::Rebuilt)),
            ("pg_xact/0000", None),
            ("pg_multixact/members/0000", None),
            ("pg_logical/mappings/x", None),
            ("base/pgsql_tmp/pgsql_tmp1.0", Some(Skip::Temporary)),
            ("pg_tblspc/16400/PG_15_202209061/pgsql_tmp/pgsql_tmp1.0.fileset/0", Some(Skip::Temporary)),
            ("base/5/t3_16400", Some(Skip::Temporary)),
            ("base/5/t3_16400_fsm", Some(Skip::Temporary)),
            ("base/5/pg_internal.init", Some(Skip::Cache)),
            ("global/pg_internal.init.4711", Some(Skip::Cache)),
            ("postmaster.pid", Some(Skip::Runtime)),
            ("postmaster.opts", Some(Skip::Runtime)),
            ("backup_label", Some(Skip::OtherBackup)),
            ("backup_label.old", None),
            ("tablespace_map", Some(Skip::OtherBackup)),
            ("backup_manifest", Some(Skip::OtherBackup)),
            ("postgresql.auto.conf", None),
            ("postgresql.auto.conf.tmp", Some(Skip::HalfWritten)),
            ("current_logfiles.tmp", Some(Skip::HalfWritten)),
            ("log/backup_label", None),
            ("PG_VERSION", None),
        ] {
            assert_eq!(skipped(path), expected, "{path}");
        }
        assert_eq!(Rules::default().classify(b"global/pg_control"), FileKind::Control);
        assert_eq!(Rules::default().classify(b"base/5/pg_filenode.map"), FileKind::Other);
        let rules = Rules { stats_temp_directory: b"my/stats".to_vec() };
        assert_eq!(rules.classify(b"my/stats/global.stat"), FileKind::Skipped(Skip::Rebuilt));
    }

    #[test]
    fn directories() {
        for (path, expected) in [
            ("base", DirectoryKind::Taken),
            ("pg_wal", DirectoryKind::Emptied),
            ("pg_notify", DirectoryKind::Emptied),
            ("pg_wal/archive_status", DirectoryKind::Skipped(Skip::Rebuilt)),
            ("base/pgsql_tmp", DirectoryKind::Skipped(Skip::Temporary)),
            ("base/pg_wal", DirectoryKind::Taken),
            ("pg_tblspc/16400", DirectoryKind::Taken),
        ] {
            assert_eq!(Rules::default().classify_directory(path.as_bytes()), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(path in proptest::collection::vec(any::<u8>(), 0..80)) {
            let rules = Rules::default();
            let _ = (rules.classify(&path), rules.classify_directory(&path));
        }
    }
}
