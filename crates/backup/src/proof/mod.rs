//! Proof: a backup counts when it has been restored.
//!
//! A backup is restored to a scratch directory, a server recovers it behind a [fence], and what came of it is looked at: every page, every
//! table and index, the objects that were there, the user's own queries. What was found out, how long it took and what was *not* checked is
//! a [`Receipt`]. The restore may be ours, or any other tool's by a command of the user's.
//!
//! ```text
//! place      the scratch directory; clean-up after a kill
//! restored   what was restored: version, links, what must go
//! further    WAL that was stored since the backup, replayed as well
//! wal        fetched where it is missing, looked through for tablespaces
//! fence/     namespaces, Landlock, memory
//! settings   the scratch server's configuration
//! server     started, watched, killed
//! run        all of it in order; stored: of a backup in a repository of ours
//! checks/    pages, structure, queries; census and compare: objects
//! decide     the verdict
//! ```

mod census;
mod checks;
mod command;
mod compare;
mod decide;
mod error;
mod fence;
mod further;
mod identity;
mod place;
mod programs;
mod receipt;
mod restored;
mod run;
mod server;
mod session;
mod settings;
mod space;
mod stored;
mod wal;

use std::{path::PathBuf, time::Duration};

pub use census::{Census, DatabaseCensus, Sorting, census, database_census, full_census, take_census};
pub use error::ProveError;
pub use fence::{FenceLimits, FenceRecord};
pub use further::{Further, FurtherWal, WalRecord};
pub use place::{Swept, clean_up};
pub use receipt::{
    Check, CheckName, ClusterRecord, Outcome, QueryRecord, RECEIPT_FORMAT, Receipt, Stage, StageRecord, SubjectRecord,
    Verdict,
};
pub use run::prove_command;
use serde::{Deserialize, Serialize};
pub use stored::prove_backup;

/// How long recovery may take unless [`ProveOptions::recovery_patience`] says otherwise.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// How long one of the user's queries may take unless [`ProveOptions::query_patience`] says otherwise.
const QUERY_PATIENCE: Duration = Duration::from_secs(600);
/// How much memory the scratch server may use unless [`ProveOptions::memory_bytes`] says otherwise.
const MEMORY_BYTES: u64 = 1 << 30;

/// A query that a restored database must answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofQuery {
    /// In which database.
    pub database: String,
    /// The query.
    pub sql: String,
    /// What it must give, as `psql -At` prints it; absent where it is enough that it succeeds.
    #[serde(default)]
    pub expect: Option<String>,
}

/// How to prove.
#[derive(Clone, Debug)]
pub struct ProveOptions {
    /// Below this a directory is made for the restore and removed afterwards. It must have room for the whole cluster.
    pub scratch: PathBuf,
    /// Where records of such directories are kept, so that what a killed proof leaves is removed by the next: below the state directory.
    pub registry: PathBuf,
    /// Directories of server programs to look in before the usual places.
    pub bin_dirs: Vec<PathBuf>,
    /// A superuser's name, where that is neither `postgres` nor the operating system user's.
    pub superuser: Option<String>,
    /// The user's own queries.
    pub queries: Vec<ProofQuery>,
    /// `shared_preload_libraries` of the scratch server: none, but for libraries without which WAL can't be replayed.
    pub preload: Vec<String>,
    /// How much space the restored cluster will take, where that is known, in bytes.
    pub expected_bytes: Option<u64>,
    /// A bound on the scratch server's memory in bytes; `None` sets none.
    pub memory_bytes: Option<u64>,
    /// How long recovery may take.
    pub recovery_patience: Duration,
    /// How long one of the user's queries may take.
    pub query_patience: Duration,
    /// Parts of the fence to go without.
    pub fence: FenceLimits,
}

impl ProveOptions {
    /// The usual, with these two places.
    #[must_use]
    pub fn new(scratch: impl Into<PathBuf>, registry: impl Into<PathBuf>) -> Self {
        Self {
            scratch: scratch.into(),
            registry: registry.into(),
            bin_dirs: Vec::new(),
            superuser: None,
            queries: Vec::new(),
            preload: Vec::new(),
            expected_bytes: None,
            memory_bytes: Some(MEMORY_BYTES),
            recovery_patience: RECOVERY_PATIENCE,
            query_patience: QUERY_PATIENCE,
            fence: FenceLimits::default(),
        }
    }
}
