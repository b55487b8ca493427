//! The control file, `global/pg_control` (PostgreSQL's catalog/pg_control.h).

mod layout;

use std::fmt;

use model::Lsn;

use crate::{Major, le};

/// Length of the file.
pub const FILE_LEN: usize = 8192;

/// Where the file lies in a data directory.
pub const PATH: &str = "global/pg_control";

/// What the server was doing when it last wrote the file, `DBState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// "starting up".
    Startup,
    /// "shut down".
    ShutDown,
    /// "shut down in recovery".
    ShutDownInRecovery,
    /// "shutting down".
    ShuttingDown,
    /// "in crash recovery".
    InCrashRecovery,
    /// "in archive recovery": a standby, or a restore.
    InArchiveRecovery,
    /// "in production".
    InProduction,
}

impl State {
    /// In the order of their numbers.
    const ALL: [Self; 7] = [
        Self::Startup,
        Self::ShutDown,
        Self::ShutDownInRecovery,
        Self::ShuttingDown,
        Self::InCrashRecovery,
        Self::InArchiveRecovery,
        Self::InProduction,
    ];

    /// Whether the server was stopped in order.
    #[must_use]
    pub const fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        })
    }
}

/// How much WAL says, `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalLevel {
    /// Enough to recover from a crash, not to restore a base backup.
    Minimal,
    /// Enough for standbys and restores.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

impl WalLevel {
    pub(crate) const fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Minimal),
            1 => Some(Self::Replica),
            2 => Some(Self::Logical),
            _ => None,
        }
    }
}

impl fmt::Display for WalLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        })
    }
}

/// A checkpoint: the copy in the control file, and the body of its WAL record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where replay starts.
    pub redo: Lsn,
    /// The timeline it lies on.
    pub timeline: u32,
    /// The timeline before, where this checkpoint begins a new one; else the same.
    pub previous_timeline: u32,
    /// Whether full page images were being written.
    pub full_page_writes: bool,
    /// `wal_level` at its start; known from 17 on.
    pub wal_level: Option<WalLevel>,
    /// The next transaction id, with its epoch in the upper half.
    pub next_xid: u64,
    /// The next object identifier.
    pub next_oid: u32,
    /// When, in seconds since 1970.
    pub time: i64,
}

/// What `pg_control` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The version that the cluster belongs to.
    pub major: Major,
    /// Made by initdb, the same in the cluster, its standbys and its backups.
    pub system_identifier: u64,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// What the server was doing.
    pub state: State,
    /// When the file was written, in seconds since 1970.
    pub time: i64,
    /// Where the latest checkpoint's record lies.
    pub checkpoint_lsn: Lsn,
    /// The latest checkpoint.
    pub checkpoint: Checkpoint,
    /// A standby's or restore's: not consistent before this. Zero otherwise.
    pub min_recovery_point: Lsn,
    /// The timeline of that; zero where it is none.
    pub min_recovery_timeline: u32,
    /// A restore's: where the base backup started. Zero otherwise, and once its end was replayed.
    pub backup_start: Lsn,
    /// A restore's of a standby's backup: replay to here. Zero otherwise.
    pub backup_end: Lsn,
    /// A restore's: the backup's end record must be seen.
    pub backup_end_required: bool,
    /// `wal_level` at the last start.
    pub wal_level: WalLevel,
    /// `wal_log_hints` at the last start.
    pub wal_log_hints: bool,
    /// `max_connections`; a hot standby must have as many.
    pub max_connections: i32,
    /// `max_worker_processes`, likewise.
    pub max_worker_processes: i32,
    /// `max_wal_senders`, likewise.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`, likewise.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`, likewise.
    pub max_locks_per_transaction: i32,
    /// `track_commit_timestamp` at the last start.
    pub track_commit_timestamp: bool,
    /// Bytes of a page.
    pub block_size: u32,
    /// Pages of a full segment file of a relation.
    pub segment_blocks: u32,
    /// Bytes of a WAL page.
    pub wal_block_size: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size: u32,
    /// Zero where pages have no checksums.
    pub data_checksum_version: u32,
    /// Whether `char` is signed, by which some indexes are ordered; known from 18 on.
    pub default_char_signedness: Option<bool>,
}

/// A control file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Fewer bytes than the fields take.
    #[error("pg_control: only {len} bytes are there; hint: the copy was cut off, copy it again")]
    Short {
        /// How many.
        len: usize,
    },
    /// Another program's or version's file.
    #[error(
        "pg_control: version {control_version} with catalogue {catalog_version} is none of PostgreSQL 13 to 18; hint: a \
         pre-release or another make of server is not supported"
    )]
    Unsupported {
        /// As the file says.
        control_version: u32,
        /// As the file says.
        catalog_version: u32,
    },
    /// The CRC does not fit the bytes.
    #[error(
        "pg_control: its CRC is {stored:08x}, computed is {computed:08x}; hint: a server was writing it, read it again; if that \
         does not help it is damaged"
    )]
    Crc {
        /// As stored.
        stored: u32,
        /// As it should be.
        computed: u32,
    },
    /// The CRC fits and a field makes no sense.
    #[error(
        "pg_control: {field} is {value}; hint: it comes from another kind of machine or a server that is not PostgreSQL's own"
    )]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

impl ControlFile {
    /// Reads the bytes of a `pg_control` of PostgreSQL 13 to 18, CRC checked.
    ///
    /// A running server rewrites the file in place: on [`ControlError::Crc`] read it again, some times.
    ///
    /// # Errors
    /// When it is too short, of another version, damaged, or of another kind of machine.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        layout::parse(bytes)
    }

    /// Whether pages have checksums.
    #[must_use]
    pub const fn has_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }

    /// Whether the server replayed WAL when it wrote the file: a standby or a restore.
    #[must_use]
    pub const fn in_recovery(&self) -> bool {
        matches!(self.state, State::ShutDownInRecovery | State::InCrashRecovery | State::InArchiveRecovery)
    }

    /// The directory inside a tablespace that belongs to this cluster: `PG_15_202209061`.
    #[must_use]
    pub fn tablespace_directory(&self) -> String {
        format!("PG_{}_{}", self.major.number(), self.catalog_version)
    }
}

/// Only the version and catalogue numbers, which every version since 8.1 has at the same place: for a message about a file that
/// [`ControlFile::parse`] refuses.
#[must_use]
pub fn versions(bytes: &[u8]) -> Option<(u32, u32)> {
    Some((le::u32(bytes, 8)?, le::u32(bytes, 12)?))
}

/// The body of a checkpoint's WAL record.
pub(crate) fn checkpoint_record(major: Major, main: &[u8]) -> Option<Checkpoint> {
    layout::checkpoint(major, main)
}
