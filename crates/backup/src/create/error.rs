//! Why a backup was not made.

use std::{io, path::PathBuf};

use model::{ByteSize, Lsn};

/// Why a backup was not made. Nothing of it counts then: the repository is as it was, but for objects that `backup prune` removes.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file of the source could not be read.
    #[error("{what} {}: {source}; hint: the backup reads the data directory as the server's own user, or one of its group where initdb allowed that (--allow-group-access)", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The server can't be reached.
    #[error("connecting to PostgreSQL: {0}; hint: check the connection string, and that the role may log in")]
    Connect(String),
    /// A statement failed, or the session was lost.
    #[error("{what}: {why}; hint: {hint}")]
    Sql {
        /// What was asked for.
        what: &'static str,
        /// What the server said.
        why: String,
        /// What may help.
        hint: &'static str,
    },
    /// The session that held the backup mode is gone: PostgreSQL was restarted, or somebody ended it.
    #[error(
        "the session that held the backup open was lost ({0}), PostgreSQL may have been restarted; hint: take the backup again, what was already stored is not stored twice"
    )]
    SessionLost(String),
    /// This version is not supported.
    #[error(transparent)]
    Version(#[from] pg_format::UnsupportedMajor),
    /// The control file can't be used.
    #[error("{}: {source}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pg_format::control::ControlError,
    },
    /// The data directory is not that of the server.
    #[error("{} is not the data directory of the server that was connected to: {why}; hint: set data_dir to what `SHOW data_directory` says on that server, or leave it out", path.display())]
    NotItsDirectory {
        /// The directory.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// The role may not see where the data directory is.
    #[error(
        "the server does not say where its data directory is; hint: set data_dir, or grant pg_read_all_settings to the role"
    )]
    NoDataDir,
    /// The repository has another cluster's backups under this name.
    #[error(
        "the repository's backups of '{cluster}' are of the cluster {theirs}, this server is {ours}; hint: give this cluster a name of its own ([postgres] name), or use another repository; after initdb or pg_upgrade a new name is right"
    )]
    OtherCluster {
        /// The name.
        cluster: String,
        /// The repository's system identifier.
        theirs: u64,
        /// The server's.
        ours: u64,
    },
    /// A clone of the cluster whose backups are there.
    #[error(
        "this server is a clone of '{cluster}', not the same: {why}; hint: give it a name of its own ([postgres] name); if it has taken the other's place for good, say so with --adopt"
    )]
    Clone {
        /// The name.
        cluster: String,
        /// How that shows.
        why: String,
    },
    /// A backup of this data directory is being made.
    #[error("another backup of {} is running on this host; hint: wait for it", .0.display())]
    Busy(PathBuf),
    /// `wal_level` is minimal.
    #[error(
        "wal_level is minimal: WAL does not hold enough to make a backup consistent; hint: set wal_level = replica (the default) and restart"
    )]
    WalLevel,
    /// There is too little space in the repository.
    #[error(
        "the backup may need {} in the repository, {} are free; hint: make room, prune older backups, or pass --no-space-check if you know better",
        ByteSize(*needed),
        ByteSize(*free)
    )]
    NoSpace {
        /// An upper estimate, in bytes.
        needed: u64,
        /// What is free.
        free: u64,
    },
    /// A tablespace's path is no text.
    #[error(
        "the tablespace {oid} lies at {location}, which is not UTF-8; hint: move it to a directory with a plain name"
    )]
    Location {
        /// The tablespace.
        oid: u32,
        /// Where it lies, as far as can be shown.
        location: String,
    },
    /// Write-ahead log is missing or damaged.
    #[error(
        "the backup's WAL from {start}: {source}; hint: without it the backup could not be restored and was not kept; where segments are recycled too soon, let the role create a temporary slot (REPLICATION and a free one of max_replication_slots) or raise wal_keep_size"
    )]
    Wal {
        /// Where it begins.
        start: Lsn,
        /// What is wrong.
        source: pg_format::wal::WalError,
    },
    /// The timeline changed.
    #[error(
        "the server's timeline changed from {from} to {to} during the backup; hint: its primary was replaced, take the backup again"
    )]
    Timeline {
        /// The one before.
        from: u32,
        /// The one after.
        to: u32,
    },
    /// A standby became a primary.
    #[error("the standby was promoted during the backup; hint: take the backup again")]
    Promoted,
    /// What the server said at the end can't be used.
    #[error(transparent)]
    Label(#[from] pg_format::label::LabelError),
    /// A page is damaged and the caller did not want such a backup.
    #[error(
        "a page of the source is damaged, block {block} of {path}: {why}; hint: the backup was not kept because of --fail-on-corruption; restore the table from an older backup, or take the backup without that option to see all that is damaged"
    )]
    CorruptPage {
        /// The file, relative to the data directory.
        path: String,
        /// The block, counted over all segment files of the fork.
        block: u32,
        /// What is wrong with it.
        why: String,
    },
    /// The replication connection failed.
    #[error(transparent)]
    Replication(#[from] pg_replication::Error),
    /// The connection string is none for replication.
    #[error(transparent)]
    Target(#[from] pg_replication::ParseTargetError),
    /// The server sent something that no backup has.
    #[error("the server's base backup: {0}; hint: take it again; if that does not help, copy the files directly")]
    Stream(String),
    /// The caller stopped it.
    #[error("the backup was cancelled; hint: run it again, what was already stored is not stored twice")]
    Cancelled,
    /// The repository refused or failed.
    #[error(transparent)]
    Repository(#[from] repository::RepositoryError),
    /// A thread ended by a bug of ours.
    #[error(
        "a worker of the backup ended unexpectedly; hint: this is a fault of oxpecker, please report it with the log"
    )]
    Worker,
}

impl CreateError {
    /// Whether it says that the files can't be read from here, and not that something is wrong with them.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
            }
            // Connecting may need TLS, which only the replication client speaks here.
            Self::NotItsDirectory { .. } | Self::NoDataDir | Self::Connect(_) => true,
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
