//! What one record adds to the map: the rules.

use std::collections::BTreeSet;

use pg_format::{
    control::WalLevel,
    wal::{Fork, Kind, Record, RecordParts, rmgr},
};

use crate::{
    map::{Limits, PageMap},
    reason::Reason,
};

/// Block 0 of an SP-GiST index, which holds a cache that is written without WAL (spgutils.c, `SpGistUpdateMetaPage`).
const SPGIST_META_BLOCK: u32 = 0;

/// What the rules depend on besides the record.
pub(crate) struct Rules<'a> {
    pub(crate) limits: Limits,
    /// Resource managers of extensions whose records without blocks change no relation.
    pub(crate) harmless: &'a BTreeSet<u8>,
}

/// Adds what `record` changes to the map. `minimal`: whether `wal_level` is known to be minimal behind it.
pub(crate) fn collect(map: &mut PageMap, record: &Record<'_>, rules: &Rules<'_>, minimal: &mut bool) {
    let (lsn, major) = (record.lsn, map.major);
    let (number, info) = (record.header.rmgr, record.header.info);
    let Some(parts) = record.parts(major) else {
        return map.force(lsn, Reason::Unreadable { rmgr: number, info });
    };
    // An extension may write where it likes; a record that names its blocks says where.
    if number >= rmgr::FIRST_CUSTOM && parts.blocks.is_empty() && !rules.harmless.contains(&number) {
        map.force(lsn, Reason::CustomRmgr(number));
    }
    for block in &parts.blocks {
        map.mark(block.relation, block.fork, block.block, rules.limits);
        if number == rmgr::SPGIST && block.fork == Fork::Main {
            map.mark(block.relation, block.fork, SPGIST_META_BLOCK, rules.limits);
        }
    }
    special(map, record, &parts, rules.limits, minimal);
}

/// What is not in the record's blocks.
fn special(map: &mut PageMap, record: &Record<'_>, parts: &RecordParts<'_>, limits: Limits, minimal: &mut bool) {
    let (lsn, major) = (record.lsn, map.major);
    let (number, info) = (record.header.rmgr, record.header.info);
    let mut level = |map: &mut PageMap, level: Option<WalLevel>| match level {
        Some(WalLevel::Minimal) => {
            *minimal = true;
            map.force(lsn, Reason::WalLevelMinimal);
        }
        Some(_) => *minimal = false,
        None => map.force(lsn, Reason::Unreadable { rmgr: number, info }),
    };
    // Before 17 only a change of the setting says it.
    let says_level = major.number() >= 17;
    match Kind::of(major, record, parts) {
        Kind::RelationCreate { relation, fork } => map.cut_off(relation, fork, 0, limits),
        Kind::RelationTruncate { relation, blocks, main: true } => map.cut_off(relation, Fork::Main, blocks, limits),
        // The number may be given to another relation, whose pages the older copy knows nothing of.
        Kind::Commit { dropped, .. } | Kind::Abort { dropped, .. } => {
            for relation in dropped.iter() {
                map.whole_relation(relation, limits);
            }
        }
        Kind::DatabaseCopy { tablespace, database, .. } | Kind::DatabaseCreate { tablespace, database } => {
            map.whole_database(tablespace, database, limits);
        }
        Kind::DatabaseDrop { database, tablespaces } => {
            for tablespace in tablespaces {
                map.whole_database(tablespace, database, limits);
            }
        }
        Kind::ParameterChange(change) => level(map, change.wal_level),
        Kind::CheckpointRedo { wal_level } => level(map, wal_level),
        Kind::CheckpointShutdown(checkpoint) => {
            if says_level {
                level(map, checkpoint.wal_level);
            }
            map.on_timeline(checkpoint.timeline, lsn);
        }
        Kind::EndOfRecovery { timeline, wal_level, .. } => {
            if says_level {
                level(map, wal_level);
            }
            map.on_timeline(timeline, lsn);
        }
        Kind::Unknown => map.force(lsn, Reason::Unknown { rmgr: number, info }),
        Kind::Unreadable => map.force(lsn, Reason::Unreadable { rmgr: number, info }),
        // Named one by one, so that a new kind has to be thought of here.
        Kind::RelationTruncate { main: false, .. }
        | Kind::CheckpointOnline(_)
        | Kind::Switch
        | Kind::BackupEnd { .. }
        | Kind::RestorePoint { .. }
        | Kind::FullPageWrites(_)
        | Kind::OverwriteContinuation { .. }
        | Kind::TablespaceCreate { .. }
        | Kind::TablespaceDrop { .. }
        | Kind::Other => {}
    }
}
