//! Which records a backup, a restore or a proof has to know, with what they say.
//!
//! Sources: access/rmgrlist.h, catalog/pg_control.h, commands/dbcommands_xlog.h, commands/tablespace.h, access/xlog_internal.h,
//! access/xact.h, access/rmgr.h and catalog/storage_xlog.h.

use model::Lsn;

use super::{Fork, Record, RecordParts, Relation};
use crate::{
    Major,
    control::{self, Checkpoint, WalLevel},
    le,
};

/// Numbers of resource managers, the same in 13 to 18. From 128 on they are extensions'.
pub mod rmgr {
    /// WAL itself.
    pub const XLOG: u8 = 0;
    /// Transactions.
    pub const XACT: u8 = 1;
    /// Files of relations.
    pub const SMGR: u8 = 2;
    /// Databases.
    pub const DATABASE: u8 = 4;
    /// Tablespaces.
    pub const TABLESPACE: u8 = 5;
    /// The relation map.
    pub const RELMAP: u8 = 7;
    /// SP-GiST indexes.
    pub const SPGIST: u8 = 16;
    /// The last one of PostgreSQL's own: logical messages.
    pub const LAST_OWN: u8 = 21;
    /// The first number of extensions.
    pub const FIRST_CUSTOM: u8 = 128;
}

/// The bits of `info` that say which record of its resource manager it is.
const INFO_MASK: u8 = 0xF0;
/// Of a transaction's record: which operation.
const XACT_OPERATION_MASK: u8 = 0x70;
/// Of a transaction's record: it says what else it holds.
const XACT_HAS_INFO: u8 = 0x80;
/// Of any record: it changes files in another way than by its blocks.
const SPECIAL_UPDATE: u8 = 0x01;
/// Of `XLOG`: which record. Also used by the decoder.
pub(super) const XLOG_SWITCH: u8 = 0x40;
pub(super) const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;

/// Settings that replay checks, `xl_parameter_change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterChange {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `wal_level`; `None` for a number that is none.
    pub wal_level: Option<WalLevel>,
}

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A checkpoint at shutdown.
    CheckpointShutdown(Checkpoint),
    /// A checkpoint while running.
    CheckpointOnline(Checkpoint),
    /// Where a checkpoint's redo begins (from 17 on).
    CheckpointRedo {
        /// `wal_level` from here on.
        wal_level: Option<WalLevel>,
    },
    /// The rest of the segment is unused.
    Switch,
    /// A base backup of a primary ended.
    BackupEnd {
        /// Where that backup started.
        start: Lsn,
    },
    /// Settings changed by a restart.
    ParameterChange(ParameterChange),
    /// Somebody called `pg_create_restore_point`.
    RestorePoint {
        /// When, in microseconds since 2000.
        time: i64,
        /// The name.
        name: &'a [u8],
    },
    /// `full_page_writes` was switched.
    FullPageWrites(bool),
    /// A promotion.
    EndOfRecovery {
        /// The new timeline.
        timeline: u32,
        /// The one before.
        previous_timeline: u32,
        /// `wal_level` from here on; `None` before 17, and for a number that is none.
        wal_level: Option<WalLevel>,
    },
    /// A crash left a record unfinished; this one follows it.
    OverwriteContinuation {
        /// Where the unfinished one starts.
        overwritten: Lsn,
    },
    /// CREATE TABLESPACE: replay makes a link to `path`, whatever lies there.
    TablespaceCreate {
        /// Its oid.
        oid: u32,
        /// The directory, absolute; empty for one inside of the data directory.
        path: &'a [u8],
    },
    /// DROP TABLESPACE: replay empties the link's target.
    TablespaceDrop {
        /// Its oid.
        oid: u32,
    },
    /// CREATE DATABASE by copying directories: replay copies.
    DatabaseCopy {
        /// The new database.
        database: u32,
        /// Where it goes.
        tablespace: u32,
        /// The template.
        from_database: u32,
        /// Where the template's directory is.
        from_tablespace: u32,
    },
    /// CREATE DATABASE with everything in WAL (from 15 on): replay makes the directory.
    DatabaseCreate {
        /// The new database.
        database: u32,
        /// Where it goes.
        tablespace: u32,
    },
    /// DROP DATABASE, or a database that moved: replay removes its directories.
    DatabaseDrop {
        /// The database.
        database: u32,
        /// The tablespaces from which it is removed.
        tablespaces: Vec<u32>,
    },
    /// A commit, also of a prepared transaction.
    Commit {
        /// When, in microseconds since 2000.
        time: i64,
        /// Which transaction, where it was a prepared one: the record's own number is then another's, or none.
        prepared: Option<u32>,
        /// Relations whose files replay removes.
        dropped: Relations<'a>,
    },
    /// An abort, also of a prepared transaction.
    Abort {
        /// When, in microseconds since 2000.
        time: i64,
        /// Which transaction, where it was a prepared one: the record's own number is then another's, or none.
        prepared: Option<u32>,
        /// Relations whose files replay removes.
        dropped: Relations<'a>,
    },
    /// A file of a relation was made.
    RelationCreate {
        /// The relation.
        relation: Relation,
        /// The fork.
        fork: Fork,
    },
    /// A relation was cut off.
    RelationTruncate {
        /// The relation.
        relation: Relation,
        /// How many blocks its main fork keeps.
        blocks: u32,
        /// Whether the main fork is cut off; else only its maps are.
        main: bool,
    },
    /// Any other that is known well enough to be passed over.
    Other,
    /// A record of a kind that these versions don't have: what replay would do is not known. Of an
    /// extension's only if it says that it changes files in another way than by its blocks.
    Unknown,
    /// One of those above whose contents make no sense: a version that differs from what it says.
    Unreadable,
}

/// Relations in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relations<'a>(&'a [[u8; RELATION_LEN]]);

/// `RelFileLocator`.
const RELATION_LEN: usize = 12;

impl Relations<'_> {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = Relation> + '_ {
        self.0.iter().filter_map(|bytes| relation(bytes, 0))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Kind<'a> {
    /// Tells what `record` of a server of version `major` is. `parts` are that record's.
    #[must_use]
    pub fn of(major: Major, record: &Record<'a>, parts: &RecordParts<'a>) -> Self {
        let info = record.header.info & INFO_MASK;
        let main = parts.main;
        let kind = match record.header.rmgr {
            rmgr::XLOG => xlog(major, info, main),
            rmgr::XACT => transaction(major, info, main),
            rmgr::SMGR => storage(info, main),
            rmgr::DATABASE => database(major, info, main),
            rmgr::TABLESPACE => tablespace(info, main),
            _ if record.header.info & SPECIAL_UPDATE != 0 => Some(Self::Unknown),
            number if number > rmgr::LAST_OWN && number < rmgr::FIRST_CUSTOM => Some(Self::Unknown),
            _ => Some(Self::Other),
        };
        kind.unwrap_or(Self::Unreadable)
    }
}

fn xlog(major: Major, info: u8, main: &[u8]) -> Option<Kind<'_>> {
    Some(match info {
        0x00 => Kind::CheckpointShutdown(control::checkpoint_record(major, main)?),
        0x10 => Kind::CheckpointOnline(control::checkpoint_record(major, main)?),
        XLOG_SWITCH => Kind::Switch,
        0x50 => Kind::BackupEnd { start: Lsn(le::u64(main, 0)?) },
        0x60 => Kind::ParameterChange(ParameterChange {
            max_connections: le::i32(main, 0)?,
            max_worker_processes: le::i32(main, 4)?,
            max_wal_senders: le::i32(main, 8)?,
            max_prepared_transactions: le::i32(main, 12)?,
            max_locks_per_transaction: le::i32(main, 16)?,
            wal_level: WalLevel::from_number(le::i32(main, 20)?),
        }),
        0x70 => Kind::RestorePoint { time: le::i64(main, 0)?, name: until_zero(main.get(8..)?) },
        0x80 => Kind::FullPageWrites(le::u8(main, 0)? != 0),
        0x90 => Kind::EndOfRecovery {
            timeline: le::u32(main, 8)?,
            previous_timeline: le::u32(main, 12)?,
            wal_level: if major.number() < 17 { None } else { WalLevel::from_number(le::i32(main, 16)?) },
        },
        XLOG_OVERWRITE_CONTRECORD => Kind::OverwriteContinuation { overwritten: Lsn(le::u64(main, 0)?) },
        0xE0 if major.number() >= 17 => Kind::CheckpointRedo { wal_level: WalLevel::from_number(le::i32(main, 0)?) },
        0xE0.. => Kind::Unknown,
        // Next oids, images of pages, nothing at all.
        _ => Kind::Other,
    })
}

fn transaction(major: Major, info: u8, main: &[u8]) -> Option<Kind<'_>> {
    let operation = info & XACT_OPERATION_MASK;
    Some(match operation {
        0x00 | 0x20 | 0x30 | 0x40 => {
            let is_commit = matches!(operation, 0x00 | 0x30);
            let time = le::i64(main, 0)?;
            let (dropped, rest) = dropped(info, main)?;
            let is_prepared = matches!(operation, 0x30 | 0x40);
            let prepared = if is_prepared { prepared(major, is_commit, main, rest) } else { None };
            if is_commit { Kind::Commit { time, prepared, dropped } } else { Kind::Abort { time, prepared, dropped } }
        }
        // Prepare, whose drops come with its commit or abort; assignment of subtransactions; invalidations.
        0x10 | 0x50 | 0x60 => Kind::Other,
        _ => Kind::Unknown,
    })
}

/// Where the flags of a commit or abort are that say what follows them (xact.h, `XACT_XINFO_...`).
const XACT_FLAGS_AT: usize = 8;

/// What a commit's or abort's record says of files: behind its time there are, each if a flag says so, the database, subtransactions,
/// and then these relations. More follows, from the second value on.
fn dropped(info: u8, main: &[u8]) -> Option<(Relations<'_>, usize)> {
    const HAS_DATABASE: u32 = 1;
    const HAS_SUBTRANSACTIONS: u32 = 2;
    const HAS_RELATIONS: u32 = 4;
    if info & XACT_HAS_INFO == 0 {
        return Some((Relations::default(), main.len()));
    }
    let (flags, mut at) = (le::u32(main, XACT_FLAGS_AT)?, XACT_FLAGS_AT + 4);
    if flags & HAS_DATABASE != 0 {
        at += 8;
    }
    if flags & HAS_SUBTRANSACTIONS != 0 {
        at = behind_items(main, at, 4)?;
    }
    if flags & HAS_RELATIONS == 0 {
        return Some((Relations::default(), at));
    }
    let count = usize::try_from(le::u32(main, at)?).ok()?;
    let (relations, _) = main.get(at.checked_add(4)?..)?.as_chunks::<RELATION_LEN>();
    Some((relations.get(..count).map(Relations)?, behind_items(main, at, RELATION_LEN)?))
}

/// The transaction of a `COMMIT PREPARED` or `ROLLBACK PREPARED`: behind the relations, the dropped statistics (from 15 on) and a commit's
/// invalidations. `None` where it can't be told.
fn prepared(major: Major, is_commit: bool, main: &[u8], mut at: usize) -> Option<u32> {
    const HAS_INVALIDATIONS: u32 = 1 << 3;
    const HAS_PREPARED: u32 = 1 << 4;
    const HAS_STATISTICS: u32 = 1 << 8;
    const INVALIDATION_LEN: usize = 16;
    let flags = le::u32(main, XACT_FLAGS_AT)?;
    if flags & HAS_PREPARED == 0 {
        return None;
    }
    if flags & HAS_STATISTICS != 0 {
        // 18 made their numbers wider.
        at = behind_items(main, at, if major.number() < 18 { 12 } else { 16 })?;
    }
    if is_commit && flags & HAS_INVALIDATIONS != 0 {
        at = behind_items(main, at, INVALIDATION_LEN)?;
    }
    le::u32(main, at)
}

/// Behind a number of items and the items themselves.
fn behind_items(main: &[u8], at: usize, item_len: usize) -> Option<usize> {
    let count = usize::try_from(le::u32(main, at)?).ok()?;
    at.checked_add(4)?.checked_add(count.checked_mul(item_len)?)
}

fn relation(bytes: &[u8], at: usize) -> Option<Relation> {
    Some(Relation {
        tablespace: le::u32(bytes, at)?,
        database: le::u32(bytes, at + 4)?,
        number: le::u32(bytes, at + 8)?,
    })
}

fn storage(info: u8, main: &[u8]) -> Option<Kind<'_>> {
    const TRUNCATES_MAIN: i32 = 1;
    Some(match info {
        0x10 => {
            let fork = Fork::from_number(u8::try_from(le::i32(main, 12)?).ok()?)?;
            Kind::RelationCreate { relation: relation(main, 0)?, fork }
        }
        0x20 => Kind::RelationTruncate {
            relation: relation(main, 4)?,
            blocks: le::u32(main, 0)?,
            main: le::i32(main, 16)? & TRUNCATES_MAIN != 0,
        },
        _ => Kind::Unknown,
    })
}

fn database(major: Major, info: u8, main: &[u8]) -> Option<Kind<'_>> {
    const COPY: u8 = 0x00;
    // 15 put a record between the two that there were.
    let (create, drop) = match major {
        Major::V13 | Major::V14 => (None, 0x10),
        Major::V15 | Major::V16 | Major::V17 | Major::V18 => (Some(0x10), 0x20),
    };
    let word = |index: usize| le::u32(main, index * 4);
    Some(if info == COPY {
        Kind::DatabaseCopy {
            database: word(0)?,
            tablespace: word(1)?,
            from_database: word(2)?,
            from_tablespace: word(3)?,
        }
    } else if Some(info) == create {
        Kind::DatabaseCreate { database: word(0)?, tablespace: word(1)? }
    } else if info == drop {
        let count = usize::try_from(word(1)?).ok()?;
        let oids = main.get(8..8usize.checked_add(count.checked_mul(4)?)?)?;
        let (oids, _) = oids.as_chunks::<4>();
        Kind::DatabaseDrop {
            database: word(0)?,
            tablespaces: oids.iter().map(|oid| u32::from_le_bytes(*oid)).collect(),
        }
    } else {
        Kind::Unknown
    })
}

fn tablespace(info: u8, main: &[u8]) -> Option<Kind<'_>> {
    Some(match info {
        0x00 => Kind::TablespaceCreate { oid: le::u32(main, 0)?, path: until_zero(main.get(4..)?) },
        0x10 => Kind::TablespaceDrop { oid: le::u32(main, 0)? },
        _ => Kind::Unknown,
    })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wal::RecordHeader;

    fn kind(major: Major, rmgr: u8, info: u8, main: &[u8]) -> Kind<'_> {
        let header = RecordHeader { total_len: 0, xid: 0, prev: Lsn(0), info, rmgr, crc: 0 };
        let record = Record { lsn: Lsn(0), end: Lsn(0), timeline: 1, header, body: &[] };
        Kind::of(major, &record, &RecordParts { main, ..RecordParts::default() })
    }

    #[test]
    fn databases_differ_by_version() {
        let main: Vec<u8> = [9u32, 1, 1663, 7].iter().flat_map(|number| number.to_le_bytes()).collect();
        let dropped = Kind::DatabaseDrop { database: 9, tablespaces: vec![1663] };
        assert_eq!(kind(Major::V14, rmgr::DATABASE, 0x10, &main), dropped);
        assert_eq!(kind(Major::V15, rmgr::DATABASE, 0x20, &main), dropped);
        let created = Kind::DatabaseCreate { database: 9, tablespace: 1 };
        assert_eq!(kind(Major::V15, rmgr::DATABASE, 0x10, &main), created);
        assert_eq!(kind(Major::V14, rmgr::DATABASE, 0x20, &main), Kind::Unknown);
        let copied = Kind::DatabaseCopy { database: 9, tablespace: 1, from_database: 1663, from_tablespace: 7 };
        assert_eq!(kind(Major::V18, rmgr::DATABASE, 0x00, &main), copied);
    }

    #[test]
    fn tablespaces_and_restore_points() {
        let mut main = 16_400u32.to_le_bytes().to_vec();
        main.extend(b"/data/ts\0\0");
        let created = Kind::TablespaceCreate { oid: 16_400, path: b"/data/ts" };
        assert_eq!(kind(Major::V13, rmgr::TABLESPACE, 0x00, &main), created);
        assert_eq!(kind(Major::V13, rmgr::TABLESPACE, 0x10, &main), Kind::TablespaceDrop { oid: 16_400 });
        let mut main = 77i64.to_le_bytes().to_vec();
        main.extend(b"here\0\0\0");
        assert_eq!(kind(Major::V13, rmgr::XLOG, 0x70, &main), Kind::RestorePoint { time: 77, name: b"here" });
        assert_eq!(kind(Major::V13, rmgr::XLOG, 0x50, b"short"), Kind::Unreadable);
        assert_eq!(kind(Major::V13, 200, 0x50, b"short"), Kind::Other);
    }

    #[test]
    fn files_of_relations() {
        let bytes = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
        let at = |number| Relation { tablespace: 1663, database: 5, number };
        let created = Kind::RelationCreate { relation: at(16_384), fork: Fork::Init };
        assert_eq!(kind(Major::V13, rmgr::SMGR, 0x10, &bytes(&[1663, 5, 16_384, 3])), created);
        assert_eq!(kind(Major::V13, rmgr::SMGR, 0x10, &bytes(&[1663, 5, 16_384, 4])), Kind::Unreadable);
        for (flags, main) in [(7, true), (1, true), (6, false)] {
            let cut = Kind::RelationTruncate { relation: at(16_384), blocks: 9, main };
            assert_eq!(kind(Major::V18, rmgr::SMGR, 0x20, &bytes(&[9, 1663, 5, 16_384, flags])), cut);
        }
        assert_eq!(kind(Major::V18, rmgr::SMGR, 0x30, &[]), Kind::Unknown);
        // Time, flags, database and its tablespace, subtransactions, relations, whatever follows.
        let all = bytes(&[1, 0, 0x1FF, 5, 1663, 2, 700, 701, 2, 1663, 5, 1, 1663, 5, 2, 99, 99]);
        let only = bytes(&[1, 0, 0x4, 1, 1663, 5, 1]);
        for (info, main, numbers) in
            [(0x80, &all, vec![1, 2]), (0xB0, &all, vec![1, 2]), (0x80, &only, vec![1]), (0x00, &all, vec![])]
        {
            let Kind::Commit { time: 1, dropped, .. } = kind(Major::V13, rmgr::XACT, info, main) else {
                panic!("{info}")
            };
            assert_eq!(dropped.iter().collect::<Vec<_>>(), numbers.into_iter().map(at).collect::<Vec<_>>());
        }
        for info in [0xA0, 0xC0] {
            let Kind::Abort { dropped, .. } = kind(Major::V16, rmgr::XACT, info, &all) else { panic!("{info}") };
            assert_eq!((dropped.len(), dropped.is_empty()), (2, false));
        }
        assert_eq!(kind(Major::V16, rmgr::XACT, 0x80, &all[..50]), Kind::Unreadable);
    }

    #[test]
    fn prepared_transactions_have_their_own_number() {
        let words = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_le_bytes()).collect() };
        let with = |stats: &[u32]| {
            let start = [1, 0, 0x11F, 5, 1663, 1, 700, 1, 1663, 5, 1, 1];
            let end = [1, 0, 0, 0, 0, 4711];
            words(&[&start[..], stats, &end].concat())
        };
        for (major, info, main, expected) in [
            (Major::V17, 0xB0, with(&[2, 5, 1]), Some(4711)),
            (Major::V18, 0xB0, with(&[2, 5, 1, 0]), Some(4711)),
            (Major::V13, 0xB0, words(&[1, 0, 0x10, 4711]), Some(4711)),
            (Major::V13, 0xC0, words(&[1, 0, 0x10, 4711]), Some(4711)),
            // An ordinary one, one that does not say, one that ends too soon.
            (Major::V13, 0x80, words(&[1, 0, 0x10, 4711]), None),
            (Major::V13, 0xB0, words(&[1, 0, 0]), None),
            (Major::V13, 0xB0, words(&[1, 0, 0x10]), None),
        ] {
            match kind(major, rmgr::XACT, info, &main) {
                Kind::Commit { prepared, .. } | Kind::Abort { prepared, .. } => {
                    assert_eq!(prepared, expected, "{major:?} {info:x}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_known() {
        for (major, rmgr, info) in [
            (Major::V16, 0, 0xE0),
            (Major::V18, 0, 0xF0),
            (Major::V16, 1, 0x70),
            (Major::V16, 22, 0),
            (Major::V16, 10, 1),
        ] {
            assert_eq!(kind(major, rmgr, info, &[0; 40]), Kind::Unknown, "{rmgr} {info}");
        }
        assert_eq!(kind(Major::V16, 128, 0xF0, &[0; 40]), Kind::Other);
        assert_eq!(kind(Major::V16, 128, 0xF1, &[0; 40]), Kind::Unknown);
    }

    proptest! {
        #[test]
        fn nothing_panics(rmgr in 0u8..24, info: u8, major in 0usize..6, main in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = kind(Major::ALL[major], rmgr, info, &main);
        }
    }
}
