//! Which records a backup, a restore or a proof has to know, with what they say.
//!
//! Sources: access/rmgrlist.h, catalog/pg_control.h, commands/dbcommands_xlog.h, commands/tablespace.h, access/xlog_internal.h and
//! access/xact.h.

use model::Lsn;

use super::{Record, RecordParts};
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
    /// The first number of extensions.
    pub const FIRST_CUSTOM: u8 = 128;
}

/// The bits of `info` that say which record of its resource manager it is.
const INFO_MASK: u8 = 0xF0;
/// Of a transaction's record: which operation.
const XACT_OPERATION_MASK: u8 = 0x70;
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
    },
    /// An abort, also of a prepared transaction.
    Abort {
        /// When, in microseconds since 2000.
        time: i64,
    },
    /// Any other that is known well enough to be passed over.
    Other,
    /// One of those above whose contents make no sense: a version that differs from what it says.
    Unreadable,
}

impl<'a> Kind<'a> {
    /// Tells what `record` of a server of version `major` is. `parts` are that record's.
    #[must_use]
    pub fn of(major: Major, record: &Record<'a>, parts: &RecordParts<'a>) -> Self {
        let info = record.header.info & INFO_MASK;
        let main = parts.main;
        let kind = match record.header.rmgr {
            rmgr::XLOG => xlog(major, info, main),
            rmgr::XACT => transaction(record.header.info & XACT_OPERATION_MASK, main),
            rmgr::DATABASE => database(major, info, main),
            rmgr::TABLESPACE => tablespace(info, main),
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
        0x90 => Kind::EndOfRecovery { timeline: le::u32(main, 8)?, previous_timeline: le::u32(main, 12)? },
        XLOG_OVERWRITE_CONTRECORD => Kind::OverwriteContinuation { overwritten: Lsn(le::u64(main, 0)?) },
        0xE0 => Kind::CheckpointRedo { wal_level: WalLevel::from_number(le::i32(main, 0)?) },
        _ => Kind::Other,
    })
}

fn transaction(operation: u8, main: &[u8]) -> Option<Kind<'_>> {
    Some(match operation {
        0x00 | 0x30 => Kind::Commit { time: le::i64(main, 0)? },
        0x20 | 0x40 => Kind::Abort { time: le::i64(main, 0)? },
        _ => Kind::Other,
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
        Kind::Other
    })
}

fn tablespace(info: u8, main: &[u8]) -> Option<Kind<'_>> {
    Some(match info {
        0x00 => Kind::TablespaceCreate { oid: le::u32(main, 0)?, path: until_zero(main.get(4..)?) },
        0x10 => Kind::TablespaceDrop { oid: le::u32(main, 0)? },
        _ => Kind::Other,
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
        assert_eq!(kind(Major::V14, rmgr::DATABASE, 0x20, &main), Kind::Other);
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

    proptest! {
        #[test]
        fn nothing_panics(rmgr in 0u8..8, info: u8, major in 0usize..6, main in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = kind(Major::ALL[major], rmgr, info, &main);
        }
    }
}
