//! Why there is no map.

use model::Lsn;
use page_map::{DecodeError, FullRead, NotNext};
use repository::wal::WalError;

/// A page map can't be made, stored or used. Nothing is lost by it: without a map everything is read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The repository.
    #[error(transparent)]
    Store(#[from] WalError),
    /// It can't say what changed.
    #[error(
        "no page map of range {range:#x} of timeline {timeline}: everything would have to be read, {why}; hint: nothing is lost, and WAL is stored all the same"
    )]
    Unusable {
        /// The timeline.
        timeline: u32,
        /// The range.
        range: u64,
        /// Why.
        why: FullRead,
    },
    /// The WAL that it is made of is not there, or not yet.
    #[error(
        "no page map of range {range:#x} of timeline {timeline}: its last segment is not stored, or nothing behind it; hint: it can be made when that came: `oxpecker wal verify --maps`"
    )]
    Lacks {
        /// The timeline.
        timeline: u32,
        /// The range.
        range: u64,
    },
    /// What lies there as WAL is none.
    #[error("segment {segment:#x} of timeline {timeline} does not begin like WAL; hint: `oxpecker wal verify`")]
    NoWal {
        /// The timeline.
        timeline: u32,
        /// The segment.
        segment: u64,
    },
    /// The stored one can't be read.
    #[error("the page map of range {range:#x} of timeline {timeline}: {source}")]
    Bad {
        /// The timeline.
        timeline: u32,
        /// The range.
        range: u64,
        /// Why.
        source: DecodeError,
    },
    /// Two that are of the same WAL say different things: one of them is wrong.
    #[error(
        "the stored page map of range {range:#x} of timeline {timeline} is another than what its WAL gives; hint: another version of this program made it, wrongly; remove the object, and tell its authors"
    )]
    Contradicts {
        /// The timeline.
        timeline: u32,
        /// The range.
        range: u64,
    },
    /// The WAL does not go as far back, or as far on.
    #[error(
        "what changed from {from} to {to} of timeline {timeline} is not known: the WAL that there is says it from {have} on; hint: read everything"
    )]
    Short {
        /// The timeline.
        timeline: u32,
        /// What was asked for.
        from: Lsn,
        /// And to where.
        to: Lsn,
        /// What is known at this place.
        have: Lsn,
    },
    /// Two maps that follow one another do not join.
    #[error(transparent)]
    NotNext(#[from] NotNext),
    /// A thread could not be started.
    #[error(
        "no page maps are made: can't start a thread: {0}; hint: the host has too little memory or too many processes"
    )]
    Thread(std::io::Error),
}
