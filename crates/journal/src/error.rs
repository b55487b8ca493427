//! What can go wrong with a journal, each with what to do about it.

use std::{io, path::PathBuf};

use model::{ByteSize, EventId};

/// Why a journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// There is no journal, or it is being created at this moment.
    #[error(
        "there is no journal at {path}\n  hint: the guard creates it: start `oxpecker run`, or name the right state_dir"
    )]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A newer version of the program wrote it.
    #[error(
        "{path} has journal format {found}, newer than the {known} that this version knows; nothing was changed\n  hint: use \
         the version of oxpecker that wrote it or a later one, or another state_dir"
    )]
    NewerFormat {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// An older version of the program wrote it, and readers don't migrate.
    #[error(
        "{path} has journal format {found}, older than {known}\n  hint: start `oxpecker run` of this version: it migrates \
         the journal"
    )]
    OlderFormat {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format that this version reads.
        known: i64,
    },
    /// The file is something else.
    #[error(
        "{path} is not a journal of oxpecker; nothing was changed\n  hint: move the file away, or use another state_dir"
    )]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged ({source})\n  hint: move journal.sqlite, journal.sqlite-wal and journal.sqlite-shm away together, \
         then start again; `sqlite3 FILE .recover` may save what they hold"
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// The write-ahead log can't be folded into the file, because somebody has been reading for long.
    #[error(
        "the write-ahead log of {path} has grown to {size} because a reader holds it\n  hint: end the program that has \
         been reading the journal for long (`fuser -v FILE` names it); events are still recorded"
    )]
    LogHeld {
        /// The journal.
        path: PathBuf,
        /// Size of the write-ahead log.
        size: ByteSize,
    },
    /// The file that was being written is no longer at its place.
    #[error(
        "{path} was removed or replaced while it was being written\n  hint: a new one is begun; put no file there while a guard runs"
    )]
    Removed {
        /// The journal.
        path: PathBuf,
    },
    /// The declared bound is too small to work with.
    #[error("a journal of {given} is too small\n  hint: allow at least {least}")]
    TooSmall {
        /// The declared bound.
        given: ByteSize,
        /// The least that works.
        least: ByteSize,
    },
    /// A file operation failed.
    #[error(
        "can't {doing} {path}: {source}\n  hint: check the owner and the mode of the directory and its file system"
    )]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("can't {doing} {path}: {source}\n  hint: {}", hint(source))]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// With which journal.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// There is no such event, or it is no longer kept.
    #[error("there is no event {id} in {path}\n  hint: events are kept only as long as the declared retention says")]
    NoSuchEvent {
        /// The event.
        id: EventId,
        /// The journal.
        path: PathBuf,
    },
    /// The event is of a kind, or has a shape, that this version does not know.
    #[error(
        "this version can't read event {id} of kind '{kind}': {source}\n  hint: read it with the version that wrote it"
    )]
    UnreadableEvent {
        /// The event.
        id: EventId,
        /// Its kind.
        kind: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The writer did not end in time.
    #[error(
        "{waiting} events and readings were not yet recorded when the wait for the journal ended\n  hint: {last_error}"
    )]
    NotFlushed {
        /// What was still queued.
        waiting: usize,
        /// The last error of the store, or why it took long.
        last_error: String,
    },
}

fn hint(source: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode as Code;
    match source.sqlite_error_code() {
        Some(Code::DiskFull) => "free space on the file system of the state directory, or lower the journal's max_size",
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            "another program holds a lock on the journal: end it (`fuser -v FILE` names it)"
        }
        Some(Code::PermissionDenied | Code::ReadOnly | Code::CannotOpen | Code::AuthorizationForStatementDenied) => {
            "check the owner and the mode of the state directory: the guard must be able to write there, a reader to read"
        }
        Some(Code::SystemIoFailure | Code::NoLargeFileSupport | Code::FileLockingProtocolFailed) => {
            "look for errors of the disk in the kernel's log (`dmesg`); network file systems are not fit for a journal"
        }
        _ => "this may be a bug of oxpecker: please report it with this message",
    }
}

impl JournalError {
    /// Wraps what SQLite said about `path` while `doing` something with it.
    pub(crate) fn sqlite(doing: &'static str, path: &std::path::Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => Self::Damaged { path, source },
            _ => Self::Sqlite { doing, path, source },
        }
    }

    /// Whether it is the space that lacks.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }

    /// Whether somebody else holds a lock.
    pub(crate) fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        matches!(self, Self::Sqlite { source, .. }
            if matches!(source.sqlite_error_code(), Some(Code::DatabaseBusy | Code::DatabaseLocked)))
    }

    /// Whether it may pass without anybody's doing or with more space, so that the guard may run meanwhile.
    pub(crate) fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        match self {
            Self::LogHeld { .. } | Self::Removed { .. } => true,
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    Code::DiskFull
                        | Code::DatabaseBusy
                        | Code::DatabaseLocked
                        | Code::SystemIoFailure
                        | Code::OutOfMemory
                )
            ),
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// Why an event was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The store fails and the backlog in memory is full.
    #[error("the event was not recorded: the journal can't be written ({error}) and the backlog of {backlog} is full")]
    BacklogFull {
        /// The store's words.
        error: String,
        /// The bound.
        backlog: ByteSize,
    },
    /// The event is larger than any event may be.
    #[error("the event was not recorded: it has {size}, more than the {most} that an event may have")]
    TooLarge {
        /// Its size as JSON.
        size: ByteSize,
        /// The bound.
        most: ByteSize,
    },
    /// It can't be written as JSON.
    #[error("the event was not recorded: it can't be written as JSON: {0}")]
    NotSerialisable(String),
    /// The journal was closed, or its writer has died.
    #[error("the event was not recorded: the journal is closed")]
    Closed,
    /// The journal was closed while the store was failing.
    #[error("the event was not recorded: the journal was closed while it could not be written ({0})")]
    ClosedFailing(String),
}
