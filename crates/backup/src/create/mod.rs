//! From a running cluster to a committed backup: files copied directly, in parallel, between `pg_backup_start` and `pg_backup_stop`.
//!
//! ```text
//! session   start ─────────── asks where WAL ends, every moment ─────────── stop ─ label, map
//! workers         read -> page checksum -> CRC-32C -> compress -> seal -> pack
//! WAL             copied and checked segment by segment ......................... tail, up to the stop
//! last                                                       pg_control ──┘            └─ commit
//! ```
//!
//! The commit is the last step: a backup that lacks anything, WAL above all, never counts. A run that is interrupted, also by kill -9,
//! leaves the repository valid. The next one reads all files again, for without the map of what changed since nothing else is safe; frames
//! that the repository knows of are not stored again.

mod copy;
mod direct;
mod error;
mod identity;
mod pages;
mod preflight;
mod remote;
mod scan;
mod server;
mod source;
mod stream;
mod tally;
mod uncached;
mod wal;

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

pub use error::CreateError;
use repository::Repository;
use server::Server;
use source::DataDir;

use crate::{
    info::BackupInfo,
    progress::{Note, Progress},
};

/// The most threads that copy: the repository allows so many writers, and one is for the write-ahead log.
pub const WORKERS_MAX: usize = repository::WRITERS_MAX - 1;

/// What an interrupted backup has to store again at most, in time. A draft costs as much as a manifest.
pub const DRAFT_EVERY: Duration = Duration::from_secs(120);

/// What temporary settings of ours `postgresql.auto.conf` may hold while it is copied, and what it said before, by name.
pub type HeldSettings = Arc<dyn Fn() -> BTreeMap<String, Option<String>> + Send + Sync>;

/// How the files get here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Road {
    /// Directly where the data directory is in reach, else from the server.
    #[default]
    Auto,
    /// From the data directory.
    Direct,
    /// From the server, over the replication protocol (`BASE_BACKUP`): one stream, so slower, but from anywhere.
    BaseBackup,
}

/// How a backup shall be made.
#[derive(Clone)]
pub struct CreateOptions {
    /// How to connect to the server: a libpq connection string.
    pub url: String,
    /// What the cluster is called in the repository.
    pub cluster: String,
    /// How the files get here.
    pub road: Road,
    /// The data directory as this process sees it; the server is asked where absent.
    pub data_dir: Option<PathBuf>,
    /// The backup's label, for people.
    pub label: String,
    /// Threads that copy; as many as there are cores where absent, [`WORKERS_MAX`] at most.
    pub workers: Option<NonZeroUsize>,
    /// Whether the checkpoint at the start is written as fast as possible. Otherwise it is spread over minutes.
    pub fast_checkpoint: bool,
    /// Whether a damaged page makes the backup fail.
    pub fail_on_corruption: bool,
    /// The server has taken the place of the one whose backups are there.
    pub adopt: bool,
    /// End the session of another backup of this name, whose writer is known to be dead.
    pub take_over: bool,
    /// Begin although the repository seems to have too little space.
    pub skip_space_check: bool,
    /// See [`HeldSettings`].
    pub held_settings: Option<HeldSettings>,
    /// How often what is complete is made known to the next run, should this one be interrupted; [`DRAFT_EVERY`] by default.
    pub draft_every: Duration,
}

impl CreateOptions {
    /// Options for the cluster that is called `cluster` at `url`, all else as is usual.
    #[must_use]
    pub fn new(url: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            cluster: cluster.into(),
            road: Road::Auto,
            data_dir: None,
            label: "oxpecker".to_owned(),
            workers: None,
            fast_checkpoint: true,
            fail_on_corruption: false,
            adopt: false,
            take_over: false,
            skip_space_check: false,
            held_settings: None,
            draft_every: DRAFT_EVERY,
        }
    }
}

impl fmt::Debug for CreateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may hold a password.
        f.debug_struct("CreateOptions")
            .field("cluster", &self.cluster)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its id in the repository.
    pub id: repository::BackupId,
    /// What it says of itself.
    pub info: BackupInfo,
    /// Bytes that the repository grew by.
    pub stored_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Makes a backup. Returns when it is committed.
///
/// # Errors
/// See [`CreateError`]. Whatever the error, the repository is valid and the server's backup mode has ended.
pub fn create(
    options: &CreateOptions,
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<Created, CreateError> {
    if options.road == Road::BaseBackup {
        return remote::remote(options, repository, progress);
    }
    let reached = Server::connect(&options.url).and_then(|server| {
        let facts = server.facts()?;
        if facts.wal_level == "minimal" {
            return Err(CreateError::WalLevel);
        }
        let path = match (&options.data_dir, &facts.data_directory) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => PathBuf::from(path),
            (None, None) => return Err(CreateError::NoDataDir),
        };
        let source = DataDir::open(&path, &facts)?;
        Ok((server, facts, source))
    });
    match reached {
        Ok((server, facts, (directory, control))) => {
            direct::direct(options, repository, &server, &facts, (&directory, &control), progress)
        }
        Err(error) if options.road == Road::Auto && options.data_dir.is_none() && error.is_out_of_reach() => {
            progress.note(&Note::Warning(format!("the data directory is not in reach, the server sends it: {error}")));
            remote::remote(options, repository, progress)
        }
        Err(error) => Err(error),
    }
}
