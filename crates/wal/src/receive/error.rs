//! Why a receiver ends.

use model::Lsn;
use pg_format::wal::{BadSegmentSize, HistoryError};
use repository::wal::WalError;

/// A receiver ended by itself. It does so only when going on would be wrong or in vain: what may pass it tries again, for ever.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The server or the connection.
    #[error(transparent)]
    Server(#[from] pg_replication::Error),
    /// What is stored differs from what the server sends, or can't be used.
    #[error(transparent)]
    Store(#[from] WalError),
    /// No cluster has segments of that size.
    #[error(transparent)]
    Segment(#[from] BadSegmentSize),
    /// The history of the server's timeline is none.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// There is no slot, and none may be made.
    #[error(
        "the server has no replication slot {slot:?}\n  hint: let it be created (--create-slot), or receive without one (--no-slot) and keep wal_keep_size high"
    )]
    NoSlot {
        /// Its name.
        slot: String,
    },
    /// A new slot could fill the server's disk.
    #[error(
        "no slot was created: max_slot_wal_keep_size is unlimited, and a slot whose receiver is away for long would then fill the server's disk and stop it\n  hint: ALTER SYSTEM SET max_slot_wal_keep_size = '20GB' (what the disk of pg_wal can spare) and reload; or --allow-unlimited-slot, and watch the disk"
    )]
    UnlimitedSlot,
    /// It is another cluster than before.
    #[error(
        "the server is another cluster than before: its system identifier is {found}, and was {expected}\n  hint: see the address; two clusters need two receivers"
    )]
    OtherCluster {
        /// What it was.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A timeline does not follow from the one that was streamed.
    #[error(
        "the server went on from timeline {from} to {to}, which its history does not know\n  hint: see pg_wal/{to:08X}.history on the server"
    )]
    NoSuchTimeline {
        /// The one that ended.
        from: u32,
        /// The one that follows.
        to: u32,
    },
    /// A thread could not be started.
    #[error("can't start a thread: {0}\n  hint: the host has too little memory or too many processes")]
    Thread(std::io::Error),
    /// We were told to stop before everything was durable.
    #[error(
        "stopped with WAL from {durable} to {received} not stored yet\n  hint: nothing of it was acknowledged: the slot keeps it on the server, and the next start fetches it"
    )]
    Unfinished {
        /// So far it is.
        durable: Lsn,
        /// So far it was received.
        received: Lsn,
    },
}
