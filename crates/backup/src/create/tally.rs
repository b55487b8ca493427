//! What a backup counts while it copies.

use std::collections::BTreeMap;

use pg_format::{files::RelationFile, page::Corruption};
use repository::Entry;

use super::{CreateError, CreateOptions, server::DatabaseRow};
use crate::{
    entry::shown,
    info::{CORRUPT_PAGES_NAMED_MAX, CorruptPage, Database},
    progress::{Note, Progress},
};

/// What was copied, and what was wrong with it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Relation files and their bytes, by database.
    by_database: BTreeMap<u32, (u64, u64)>,
    pub(super) corrupt: Vec<CorruptPage>,
    pub(super) corrupt_count: u64,
}

impl Tally {
    /// Counts a file.
    pub(super) fn count(&mut self, entry: &Entry) {
        self.files += 1;
        self.bytes += entry.size;
        if let Some(file) = RelationFile::parse(&entry.name) {
            let of = self.by_database.entry(file.relation.database).or_default();
            *of = (of.0 + 1, of.1 + entry.size);
        }
    }

    /// Counts a corrupt page, and names it; an error where the caller wants no such backup.
    pub(super) fn corrupt(
        &mut self,
        options: &CreateOptions,
        progress: &dyn Progress,
        path: &[u8],
        block: u32,
        why: &Corruption,
    ) -> Result<(), CreateError> {
        let (path, why) = (shown(path), why.to_string());
        if options.fail_on_corruption {
            return Err(CreateError::CorruptPage { path, block, why });
        }
        self.corrupt_count += 1;
        if self.corrupt.len() < CORRUPT_PAGES_NAMED_MAX {
            progress.note(&Note::CorruptPage { path: path.clone(), block, why: why.clone() });
            self.corrupt.push(CorruptPage { path, block, why });
        }
        Ok(())
    }

    /// The databases with what was counted of each.
    pub(super) fn databases(&self, rows: Vec<DatabaseRow>) -> Vec<Database> {
        let database = |row: DatabaseRow| {
            let (relation_files, bytes) = self.by_database.get(&row.oid).copied().unwrap_or_default();
            let (oid, name, collate, collation_version) = (row.oid, row.name, row.collate, row.collation_version);
            Database { oid, name, relation_files, bytes, collate, collation_version }
        };
        rows.into_iter().map(database).collect()
    }
}
