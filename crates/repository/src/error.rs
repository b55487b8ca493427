//! What can go wrong with a repository.

use std::io;

use crate::{
    frame::FRAME_PLAIN_MAX,
    id::{BackupId, NoRandom, SessionId},
    key::KeyError,
    log::LogError,
    manifest::{META_MAX, NAME_MAX},
    pack::{FrameError, Locator, object_name},
    seal::SealError,
    store::StoreError,
    wire::BadBytes,
};

/// Something with the repository failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log can't be read or refuses.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The keys can't be opened or changed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Something could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// An object is not what it was when it was written.
    #[error(
        "{object}: {what}\n  hint: `oxpecker backup check` says which backups it touches and what is still restorable"
    )]
    Damaged {
        /// The object, and the frame within it.
        object: String,
        /// What is wrong.
        what: String,
    },
    /// There is no such backup.
    #[error(
        "there is no backup {backup}, or it has expired\n  hint: `oxpecker backup list` shows those that are there"
    )]
    NoBackup {
        /// The id.
        backup: BackupId,
    },
    /// An id fits several backups, or none.
    #[error(
        "{text:?} names {found} backups, not one\n  hint: `oxpecker backup list` shows their ids; give more of its digits"
    )]
    Ambiguous {
        /// What was given.
        text: String,
        /// How many backups it fits.
        found: usize,
    },
    /// There is no such hold.
    #[error(
        "there is no hold {session}, or it was released\n  hint: `oxpecker backup check` lists those that are there"
    )]
    NoHold {
        /// The id.
        session: SessionId,
    },
    /// The hold's process runs.
    #[error(
        "hold {session} belongs to process {pid} of this host, which runs\n  hint: wait for it, or end it; the hold ends with it"
    )]
    HoldRuns {
        /// The hold.
        session: SessionId,
        /// Its process.
        pid: u32,
    },
    /// A frame is too long.
    #[error("a frame of {len} bytes is longer than {FRAME_PLAIN_MAX}\n  hint: a fault of the caller: part the content")]
    FrameTooLong {
        /// Its bytes.
        len: usize,
    },
    /// A frame reference of another session or backup was used.
    #[error(
        "a reference to a frame belongs to another session or backup\n  hint: a fault of the caller: use it where it came from"
    )]
    StrangeFrame,
    /// An entry can't be stored.
    #[error(
        "the entry {name:?} can't be stored: {why}\n  hint: names have up to {NAME_MAX} bytes, what goes with them up to {META_MAX}"
    )]
    Entry {
        /// Its name, as far as it is text.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A manifest is too large.
    #[error(
        "the backup has {entries} entries or more, and their list takes {root_bytes} bytes: one backup holds {entries_max} entries in {root_bytes_max} bytes at most. \
         Nothing was committed\n  hint: fewer and larger tables (and partitions) make fewer files; `oxpecker backup prune` removes what was stored in vain"
    )]
    TooManyEntries {
        /// Its entries, as far as they were counted.
        entries: u64,
        /// The bytes of the manifest's root; 0 where it was not made yet.
        root_bytes: usize,
        /// The most entries.
        entries_max: u64,
        /// The most bytes.
        root_bytes_max: usize,
    },
    /// Too many writers.
    #[error(
        "a session has at most {max} writers at a time\n  hint: a fault of the caller: drop one before taking another"
    )]
    TooManyWriters {
        /// The bound.
        max: usize,
    },
    /// A pack's name was taken by something else.
    #[error(
        "{object} is there already, with other bytes\n  hint: somebody else writes to this place; let the repository have it alone"
    )]
    Taken {
        /// The object.
        object: String,
    },
    /// Entries could not be put aside.
    #[error(
        "can't put the list of files aside in {place}: {source}\n  hint: it needs some MB per hundred thousand files there; TMPDIR names another place"
    )]
    Aside {
        /// The directory.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// zstd could not be set up.
    #[error("can't set up compression: {0}\n  hint: the host has too little memory")]
    Compression(io::Error),
    /// A thread could not be started.
    #[error("can't start a thread: {0}\n  hint: see the limits on processes and memory of this service")]
    Thread(io::Error),
    /// There are no random numbers.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

impl RepositoryError {
    /// A frame is not what its place says.
    pub(crate) fn frame(place: &Locator, what: &str) -> Self {
        Self::Damaged {
            object: format!("{}, frame {} at byte {}", object_name(place.pack), place.ordinal, place.offset),
            what: first_line(what),
        }
    }

    pub(crate) fn sealed(place: &Locator, error: FrameError) -> Self {
        match error {
            // The remedy is another one than for damage.
            FrameError::Seal(error @ SealError::NewerEpoch { .. }) => Self::Seal(error),
            error => Self::frame(place, &error.to_string()),
        }
    }

    pub(crate) fn form(place: &Locator, BadBytes(what): BadBytes) -> Self {
        Self::frame(place, what)
    }

    /// It is a fault of the object, not of the way to it: trying again gives the same.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(error) => {
                use crate::store::StoreErrorKind as K;
                matches!(error.kind(), K::NotFound | K::Short | K::TooLarge)
            }
            _ => false,
        }
    }
}

/// A cause without its own hint: whoever names the object gives the better one.
pub(crate) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
