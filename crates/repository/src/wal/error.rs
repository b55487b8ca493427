//! What can go wrong with WAL in the repository.

use std::io;

use super::object::BadObject;
use crate::{error::first_line, id::NoRandom, seal::SealError, store::ObjectName, store::StoreError};

/// WAL could not be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something was sealed with keys that are not known.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// An object is not what was written.
    #[error(
        "{object}: {what}\n  hint: bring the object back from a copy of the repository; without it, only moments before and backups after it can be restored"
    )]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong.
        what: String,
    },
    /// There is something else under that name.
    #[error(
        "{object} is there already, with other content\n  hint: two servers write WAL of the same system and timeline, or one was restored without a new timeline: find out which one is right, and stop the other's archiving; nothing was overwritten"
    )]
    Differs {
        /// The object.
        object: String,
    },
    /// The tail that is there is not the beginning of the one at hand.
    #[error(
        "segment {segment:#x} of line {line} differs from what is stored of it, before byte {before}\n  hint: the server is not the one whose WAL was received before, or it lost WAL that it had sent: stop, find out, and make a new backup"
    )]
    Diverged {
        /// The line.
        line: u32,
        /// The segment.
        segment: u64,
        /// The difference lies before this byte of it.
        before: u64,
    },
    /// Something is missing, though later WAL is there.
    #[error(
        "segment {segment:#x} of line {line} is missing or incomplete, but segment {later:#x} is there\n  hint: WAL was lost on the way: push the segment if any server still has it. Recovery can't go beyond it; make a new backup now"
    )]
    Gap {
        /// The line.
        line: u32,
        /// What is missing.
        segment: u64,
        /// A later one.
        later: u64,
    },
    /// It is sealed with older keys than what is before it.
    #[error(
        "{object} is sealed with keys of epoch {epoch}, and what is before it on its line with those of epoch {least}\n  hint: somebody who holds keys from before a rotation may have put it there: find out who writes to the repository. If it is in order, remove the object and push the segment again"
    )]
    Epoch {
        /// The object.
        object: String,
        /// Its epoch.
        epoch: u32,
        /// The least that it may have.
        least: u32,
    },
    /// It does not fit.
    #[error(
        "{what}\n  hint: WAL segments of up to 128 MiB are stored (initdb --wal-segsize), and {bytes} bytes do not fit here"
    )]
    Size {
        /// What.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
    },
    /// A companion's name is none.
    #[error(
        "{name:?} can't go with a segment\n  hint: small letters, digits and dots, such as `partial` and `00000028.backup`"
    )]
    Companion {
        /// The name.
        name: String,
    },
    /// Others change it again and again.
    #[error("{object} changed at each of {looks} looks\n  hint: try again")]
    Busy {
        /// The object.
        object: String,
        /// How often it was looked at.
        looks: u32,
    },
    /// zstd could not be set up.
    #[error("can't set up compression: {0}\n  hint: the host has too little memory")]
    Compression(io::Error),
    /// There are no random numbers.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

impl WalError {
    pub(super) fn bad(name: &ObjectName, error: BadObject) -> Self {
        match error {
            // The remedy is another one than for damage.
            BadObject::Seal(error @ SealError::NewerEpoch { .. }) => Self::Seal(error),
            error => Self::Damaged { object: name.to_string(), what: first_line(&error.to_string()) },
        }
    }

    /// Nothing is wrong with what is stored; the store may answer again soon.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.is_passing(),
            Self::Busy { .. } => true,
            _ => false,
        }
    }
}
