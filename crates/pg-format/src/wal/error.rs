//! What can be wrong with WAL.

use model::Lsn;

/// A place where WAL does not go on as it must. At the end of what a server has written this is the normal end; before that it is a gap
/// or damage.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A page's header is not the one that must be there.
    #[error(
        "WAL page at {at}: {why}; hint: this segment is not (yet) written up to here, is damaged, or belongs to another cluster"
    )]
    Page {
        /// Where the page starts.
        at: Lsn,
        /// What is wrong.
        why: String,
    },
    /// A record's header or body is not one.
    #[error("WAL record at {at}: {why}; hint: WAL ends before it, or is damaged")]
    Record {
        /// Where the record starts.
        at: Lsn,
        /// What is wrong.
        why: String,
    },
    /// The bytes ended before the range did.
    #[error("WAL ends at {end}, needed is up to {wanted}; hint: the segment that holds {end} is missing or incomplete")]
    Incomplete {
        /// The end of the last whole record.
        end: Lsn,
        /// The end of the range.
        wanted: Lsn,
    },
    /// The range itself is none.
    #[error("WAL from {start} to {stop} is no range; hint: start and stop come from the same backup")]
    Range {
        /// Start.
        start: Lsn,
        /// Stop.
        stop: Lsn,
    },
    /// A segment could not be read.
    #[error(
        "WAL segment {name}: {source}; hint: it must be kept until the backup is complete (see wal_keep_size, or use a slot)"
    )]
    Read {
        /// The file's name.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl WalError {
    pub(super) fn page(at: Lsn, why: impl Into<String>) -> Self {
        Self::Page { at, why: why.into() }
    }

    pub(super) fn record(at: Lsn, why: impl Into<String>) -> Self {
        Self::Record { at, why: why.into() }
    }
}
