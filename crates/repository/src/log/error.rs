//! What can go wrong with the log.

use std::{fmt, io, path::PathBuf};

use super::{KeyTip, Refusal, Tip};
use crate::{id::NoRandom, seal::SealError, store::StoreError};

/// The log could not be read or not be appended to.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write was neither confirmed nor refused.
    #[error(
        "record {n} may have been written or not, and may still appear: {source}\n  hint: run the command again; it goes on from whatever is there"
    )]
    Unclear {
        /// Its number.
        n: u64,
        /// What the store said.
        source: StoreError,
    },
    /// A record or checkpoint does not open.
    #[error("record {n} of the log: {source}")]
    Seal {
        /// Its number.
        n: u64,
        /// Why.
        source: SealError,
    },
    /// No random numbers.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// There is no log.
    #[error(
        "there is no repository in {place}\n  hint: see that the share is mounted and the address right; `oxpecker backup init` makes a new one"
    )]
    NoRepository {
        /// Where.
        place: String,
    },
    /// There is one already.
    #[error(
        "there is a repository in {place} already\n  hint: use it, or another directory; nothing here is ever overwritten"
    )]
    Occupied {
        /// Where.
        place: String,
    },
    /// A record is missing though later ones are there.
    #[error(
        "record {n} of the log is missing, and later ones are there: nothing is read or written behind it\n  hint: somebody removed it: bring log/{n:012} back from a copy of the repository. Without one, take a copy of what is there, move the later records out of the copy's log/, and see with `oxpecker backup check` what of the time before can be restored"
    )]
    Hole {
        /// Its number.
        n: u64,
    },
    /// A record of a newer format.
    #[error(
        "record {n} of the log has format {format}, newer than this program's\n  hint: update oxpecker on this host"
    )]
    Newer {
        /// Its number.
        n: u64,
        /// Its format.
        format: u32,
    },
    /// A record that is none.
    #[error(
        "record {n} of the log can't be understood: {why}\n  hint: `oxpecker backup check` says what is affected; bring the object back from a copy of the repository"
    )]
    Garbled {
        /// Its number.
        n: u64,
        /// Why.
        why: String,
    },
    /// A record that does not follow the one before.
    #[error("record {n} of the log does not follow record {}: its predecessor was another one\n  hint: two copies of a repository were mixed; find the one that all writers use", n - 1)]
    Chain {
        /// Its number.
        n: u64,
    },
    /// A record that the state before it forbids.
    #[error(
        "record {n} of the log contradicts what was before: {refusal}\n  hint: this is a fault of the program that wrote it; nothing is changed from here on. Please report it"
    )]
    Contradiction {
        /// Its number.
        n: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Others were quicker, again and again.
    #[error(
        "{races} other writers were quicker in a row\n  hint: something appends to this repository without end; see which sessions are open"
    )]
    Races {
        /// How often.
        races: u32,
    },
    /// A record would be too large.
    #[error(
        "record {n} of the log would have {bytes} bytes, more than a record may\n  hint: please report it with the size of the cluster"
    )]
    TooLarge {
        /// Its number.
        n: u64,
        /// How large.
        bytes: usize,
    },
    /// The repository is older than it was.
    #[error(transparent)]
    Rollback(#[from] Box<RollbackAlarm>),
    /// The local memory of the tip failed.
    #[error("{what} {}: {source}\n  hint: see owner and space of the state directory; the file itself can be removed, then a rollback before now goes unseen", path.display())]
    Memory {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl LogError {
    pub(super) fn garbled(n: u64, why: &impl ToString) -> Self {
        Self::Garbled { n, why: why.to_string() }
    }

    /// Nothing is wrong with the repository; the store may answer again soon.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) | Self::Unclear { source: error, .. } => error.is_passing(),
            _ => false,
        }
    }
}

/// What this host remembers of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A record.
    Record(Tip),
    /// A generation of keys.
    Keys(KeyTip),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(tip) => {
                write!(f, "record {} with hash {} of repository {}", tip.n, tip.digest, tip.repository)
            }
            Self::Keys(keys) => write!(f, "key/{} with hash {}", keys.generation, keys.digest),
        }
    }
}

impl Seen {
    fn hint(&self) -> &'static str {
        match self {
            Self::Record(_) => {
                "somebody put an older copy or another repository there. Backups made since are not in it. Find out who did; if it is intended, remove"
            }
            Self::Keys(_) => {
                "with older keys, secrets open it that were removed since, and those added since do not. Bring the object back from a copy of the repository, and find out who did it; if it is intended or lost, look through `oxpecker key list` afterwards, and remove"
            }
        }
    }
}

/// The repository, or the keys to it, went back to an earlier state, or it is another one: somebody restored an old copy of it, replaced
/// it, or removes what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ALARM: the repository in {place} {found}; this host has seen {remembered}\n  hint: {} {} and say so to the others", remembered.hint(), memory.display())]
pub struct RollbackAlarm {
    /// Where.
    pub place: String,
    /// What is there instead.
    pub found: String,
    /// What this host remembers.
    pub remembered: Seen,
    /// The file in which it does.
    pub memory: PathBuf,
}
