//! What the guard knows of itself and of what it guards, as one document: the answer to `status`.

use jiff::Timestamp;
use journal::Recording;
use model::{
    Alert, DatabaseName, Mode, PgVersion, Pid,
    event::{Death, DownReason},
    reading::{ActivityReading, BackupReading, HostReading, ReceiveReading, ServiceReading, TablesReading, WalReading},
};
use serde::{Deserialize, Serialize};

use super::{recovery::protocol::RecoveryStatus, relief::ReliefStatus, shedding::SheddingStatus};

/// How the server is for us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ServerState {
    /// No connection was made yet.
    Unknown,
    /// It serves us.
    Up {
        /// Its version.
        version: PgVersion,
        /// When it started.
        started: Timestamp,
        /// Whether it is a standby or in recovery.
        in_recovery: bool,
    },
    /// It does not.
    Down {
        /// Since when, as far as we saw.
        since: Timestamp,
        /// Why.
        reason: DownReason,
        /// Its own words.
        detail: String,
    },
}

/// The answer to `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GuardStatus {
    /// The program's version.
    pub version: String,
    /// The guard's pid.
    pub pid: Pid,
    /// Since when it runs.
    pub since: Timestamp,
    /// When this was said.
    pub now: Timestamp,
    /// The cluster's name.
    pub cluster: String,
    /// Its address without secrets.
    pub address: String,
    /// How far the guard may go.
    pub mode: Mode,
    /// The server.
    pub server: ServerState,
    /// The newest readings; `None` until there is one.
    pub host: Option<HostReading>,
    /// Sessions, locks, vacuums.
    pub activity: Option<ActivityReading>,
    /// Checkpoints, WAL, archiver, slots.
    pub wal: Option<WalReading>,
    /// Ages and dead tuples.
    pub tables: Option<TablesReading>,
    /// Backups; `None` where no repository is declared.
    #[serde(default)]
    pub backup: Option<BackupReading>,
    /// WAL that streams into the repository; `None` where none is received.
    #[serde(default)]
    pub receive: Option<ReceiveReading>,
    /// Services, in the configuration's order.
    pub services: Vec<ServiceReading>,
    /// How the services are brought back; `None` where none is declared or nobody has looked yet.
    #[serde(default)]
    pub recovery: Option<RecoveryStatus>,
    /// The newest death of the host or of the server that this guard had looked into.
    #[serde(default)]
    pub death: Option<Death>,
    /// The shedding ladder; `None` until it has looked.
    #[serde(default)]
    pub shedding: Option<SheddingStatus>,
    /// Who gives way when connections run short; `None` where nobody is named, or it has not looked.
    #[serde(default)]
    pub relief: Option<ReliefStatus>,
    /// Firing alerts, worst first.
    pub alerts: Vec<Alert>,
    /// The governor.
    pub governor: Option<autovacuum::GovernorStatus>,
    /// The journal.
    pub journal: JournalStatus,
    /// What is missing and what that costs.
    pub limitations: Vec<String>,
}

/// How the journal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Whether events reach the disk.
    pub ok: bool,
    /// Since when they don't.
    pub failing_since: Option<Timestamp>,
    /// The newest error.
    pub error: Option<String>,
    /// Events and readings that wait in memory.
    pub waiting: usize,
    /// Events and readings that are lost since the guard started.
    pub lost: u64,
}

impl JournalStatus {
    /// From the journal's own words.
    pub fn of(health: &journal::JournalHealth) -> Self {
        let (failing_since, error) = match &health.recording {
            Recording::Ok => (None, None),
            Recording::Failing { since, error } => (Some(since.wall), Some(error.clone())),
            Recording::Stopped => (None, Some("the journal's writer has ended".to_owned())),
        };
        Self {
            ok: health.is_ok(),
            failing_since,
            error,
            waiting: health.waiting_events + health.waiting_readings,
            lost: health.lost.total(),
        }
    }
}

/// A database whose transaction ids are this old is named in `status` (two thirds of the default at which the server itself begins
/// to refuse: it warns 40 million before 2^31).
pub const XID_AGE_TO_NAME: u64 = 1_400_000_000;

impl GuardStatus {
    /// Databases near wraparound.
    pub fn near_wraparound(&self) -> impl Iterator<Item = (&DatabaseName, u64)> {
        let ages = self.tables.iter().flat_map(|t| &t.ages);
        ages.map(|a| (&a.database, a.xid_age.max(a.multixact_age))).filter(|(_, age)| *age >= XID_AGE_TO_NAME)
    }
}
