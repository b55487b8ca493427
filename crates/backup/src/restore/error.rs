//! Why a restore did not come to its end.

use std::{io, path::PathBuf};

use model::ByteSize;

/// Why a restore did not come to its end. What it has written can't be started by a server, and the same restore can be run again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file of the target could not be written.
    #[error("{what} {}: {source}; hint: see that there is room and that this user may write there, then run the same restore again", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} is not empty: a restore writes only into an empty or absent directory; hint: choose another one, or move what is there away{}", path.display(), if *.tablespace { " (a tablespace is sent elsewhere with --tablespace-mapping OLD=NEW)" } else { "" })]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// It is a tablespace's.
        tablespace: bool,
    },
    /// WAL would write into a tablespace that is in use.
    #[error(
        "the tablespace {oid} was made at {} while the backup was taken: recovery would make it there again, no mapping helps, and something is there; hint: restore on another host, or restore a later backup",
        path.display()
    )]
    TablespaceInWal {
        /// Its oid.
        oid: u32,
        /// Where.
        path: PathBuf,
    },
    /// A half restore of something else is there.
    #[error("{} holds an interrupted restore of {what}; hint: go on with that one, or remove the directory", path.display())]
    OtherRestore {
        /// The directory.
        path: PathBuf,
        /// Of what.
        what: String,
    },
    /// A restore is being made there.
    #[error("another restore into {} is running; hint: wait for it", .0.display())]
    Busy(PathBuf),
    /// A path must be absolute.
    #[error("{} is not an absolute path; hint: tablespaces are links, and a link needs the whole path", .0.display())]
    Relative(PathBuf),
    /// A mapping for a tablespace that the backup has not.
    #[error("the backup has no tablespace at {from}; hint: it has {known}")]
    UnknownTablespace {
        /// What the mapping names.
        from: String,
        /// What there is.
        known: String,
    },
    /// Two directories are one, or lie in one another.
    #[error("{} and {} can't both be restored to: one lies in the other; hint: give each tablespace a directory of its own", .0.display(), .1.display())]
    Overlap(PathBuf, PathBuf),
    /// There is too little space.
    #[error(
        "the restore needs {} at {}, {} are free; hint: make room, or restore to a larger disk",
        ByteSize(*needed),
        path.display(),
        ByteSize(*free)
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// How much it takes.
        needed: u64,
        /// How much there is.
        free: u64,
    },
    /// Root must know whom the files are for.
    #[error(
        "the backup's files belong to {wanted}, whom this host does not know; hint: name the user that PostgreSQL runs as with --owner"
    )]
    NoOwner {
        /// Who owned them.
        wanted: String,
    },
    /// The info can't be used.
    #[error(transparent)]
    Info(#[from] crate::info::InfoError),
    /// An entry's metadata can't be used.
    #[error(transparent)]
    Meta(#[from] crate::entry::MetaError),
    /// This version of PostgreSQL is not known.
    #[error(transparent)]
    Version(#[from] pg_format::UnsupportedMajor),
    /// The backup's own map can't be read.
    #[error(transparent)]
    Map(#[from] pg_format::label::TablespaceMapError),
    /// An entry's name leads out of the data directory.
    #[error(
        "the backup holds a file named {0:?}, which would lie outside of the data directory; hint: this is a fault of the program that made the backup; nothing was written there"
    )]
    Name(String),
    /// The content is not what was read from the source.
    #[error("{}: what the repository holds is not what was backed up (CRC-32C {found:08x}, expected {expected:08x}); hint: restore another backup, and run `backup check`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// As read from the source.
        expected: u32,
        /// As restored.
        found: u32,
    },
    /// A file that every backup has is not in this one.
    #[error("the backup has no {0}; hint: it is damaged or another program made it; restore another one")]
    Missing(&'static str),
    /// The caller stopped it.
    #[error("the restore was cancelled; hint: run it again, files that are whole are kept")]
    Cancelled,
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] repository::RepositoryError),
    /// A thread ended by a bug of ours.
    #[error(
        "a worker of the restore ended unexpectedly; hint: this is a fault of oxpecker, please report it with the log"
    )]
    Worker,
}

impl RestoreError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
