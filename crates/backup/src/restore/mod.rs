//! From a committed backup to a directory that a server starts from.
//!
//! ```text
//! lock, marker ─ backup_label ─ files, in parallel ─ configuration ─ manifest ─ all synced ─ pg_control by rename ─ marker away
//! ```
//!
//! A server refuses to start without `global/pg_control`: so an interrupted restore can't be started, whatever it left. The marker names
//! the backup and where its tablespaces go; only with the same of both an interrupted restore is continued.

mod conf;
mod error;
mod plan;
mod run;
mod write;

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

pub use error::RestoreError;
pub use plan::quoted;
pub use plan::{Observed, PlannedTablespace, RestorePlan};
pub use run::{plan, restore, runs_as};

use crate::info::BackupInfo;

/// The file in the target that says whose half restore it is.
pub const MARKER: &str = ".oxpecker-restore";
/// The marker until it is written whole.
pub(crate) const MARKER_NEW: &str = ".oxpecker-restore.new";

/// How a backup shall be restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Which.
    pub backup: repository::BackupId,
    /// The data directory that is to be: empty or absent.
    pub target: PathBuf,
    /// Tablespaces that go elsewhere: from where they lay to where they go.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Whom the files shall belong to; only root can say so. By default who owned them, by name.
    pub owner: Option<String>,
    /// Keep the restored server from archiving WAL and from running subscriptions.
    pub fence: bool,
    /// Whoever starts the server sees to it that replay reaches nothing outside, as a proof's fence does: a tablespace that WAL will make
    /// at a place that is occupied stops nothing.
    pub replay_is_fenced: bool,
    /// Settings for a recovery from an archive, by name: `restore_command`, where to stop. Empty: the server recovers to the end of the
    /// backup, with the WAL that is in it.
    pub recovery: Vec<(String, String)>,
    /// Threads that write; as many as there are cores where absent.
    pub workers: Option<NonZeroUsize>,
}

impl RestoreOptions {
    /// Options for restoring `backup` to `target`, all else as is usual.
    #[must_use]
    pub fn new(backup: repository::BackupId, target: impl Into<PathBuf>) -> Self {
        Self {
            backup,
            target: target.into(),
            tablespaces: Vec::new(),
            owner: None,
            fence: true,
            replay_is_fenced: false,
            recovery: Vec::new(),
            workers: None,
        }
    }
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What was done.
    pub plan: RestorePlan,
    /// What the backup says of itself.
    pub info: BackupInfo,
    /// How long it took.
    pub took: Duration,
}
