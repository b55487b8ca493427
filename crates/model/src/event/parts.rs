//! What events consist of.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Pid;

/// Why PostgreSQL does not serve us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownReason {
    /// Nobody listens at its address.
    NotListening,
    /// It says that it is starting up or in crash recovery: progress, not failure.
    Recovering,
    /// It says that it is shutting down.
    ShuttingDown,
    /// It has no connection left for us.
    OutOfConnections,
    /// It refuses our name or password, or our database is not there.
    Refused,
    /// It took the connection or the query and did not answer in time.
    NoAnswer,
    /// The connection broke.
    ConnectionLost,
    /// Its version is too old to be observed.
    UnsupportedVersion,
}

/// The way in which a setting reaches a vacuum that is already running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lever {
    /// The include file on a tmpfs and SIGHUP to chosen workers only (16+).
    WorkerSignal,
    /// The include file and SIGHUP to the launcher, which rebalances the workers (13 to 15).
    LauncherSignal,
    /// The include file and a full reload: where we may not signal.
    FullReload,
    /// ALTER SYSTEM and a full reload: where the include file is not read.
    AlterSystem,
}

/// Why a throttle was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The pressure is over.
    PressureOver,
    /// It did not help: the pressure has another cause.
    NotHelping,
    /// The throttled workers have finished.
    WorkersGone,
    /// It was held as long as the settings allow.
    TimeBound,
    /// A small table that is written to all the time waits for a slot.
    HotTableWaiting,
    /// Vacuum is needed against wraparound.
    WraparoundNear,
    /// Readings stopped coming.
    ReadingsLost,
    /// The guard stops, or was told to no longer act.
    GuardStopping,
    /// A throttle of a guard that died was found and undone.
    LeftBehind,
}

/// Where vacuum is held: the cost limit and delay that the throttled workers get.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostSetting {
    /// `autovacuum_vacuum_cost_limit`, in cost units.
    pub limit: u32,
    /// `autovacuum_vacuum_cost_delay`, in milliseconds.
    pub delay_ms: f64,
}

impl fmt::Display for CostSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} delay {} ms", self.limit, self.delay_ms)
    }
}

/// Answers of a service over some time, as its load or its health checks saw them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceWindow {
    /// Length of the window.
    pub window: Duration,
    /// Answered well.
    pub succeeded: u64,
    /// Failed or not answered in time.
    pub failed: u64,
    /// The slowest answer.
    pub slowest: Duration,
}

/// What a run of the backup worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupTask {
    /// Make a backup, prove it and apply the retention.
    Create,
    /// Prove the newest backup, which is there but was not proven.
    Prove,
}

/// What a recovery took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryFigures {
    /// From its begin until all was stable.
    pub took: Duration,
    /// Starts, restarts and provisions.
    pub acts: u32,
    /// Those of them that failed.
    pub failed: u32,
}

/// What the shedding ladder did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SheddingStep {
    /// It took a rung.
    Taken,
    /// It gave one back.
    GivenBack,
    /// It would take one if it were allowed to.
    Proposed,
    /// It proposes one no longer.
    Withdrawn,
    /// It holds: nothing is to be done, or what was done must show first.
    Held,
    /// It is critical, and the next rung may not be taken.
    Blocked,
    /// It is critical, and no rung is left.
    Exhausted,
}

/// An idle session that was ended while connections were short, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelievedSession {
    /// Its backend.
    pub pid: Pid,
    /// Its role.
    pub role: String,
    /// Its database.
    pub database: String,
    /// Where its client is; `local` for a unix socket.
    pub client: String,
    /// Its `application_name`.
    pub application: String,
    /// Whether it was in a transaction.
    pub in_transaction: bool,
    /// For how long it had been idle.
    pub idle: Duration,
    /// The reading that caused it.
    pub cause: String,
    /// What came of it.
    pub outcome: ReliefOutcome,
}

/// What came of ending a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReliefOutcome {
    /// The server was told to end it, and did so or will.
    Ended,
    /// It would have been ended if that were allowed.
    Proposed,
    /// It is there still, or somebody else's doing: why.
    Failed(String),
}

/// What made a guard silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilentBy {
    /// It was stopped in an orderly way, and nobody started another.
    Stopped,
    /// It was killed or crashed.
    Killed,
    /// The host went down with it.
    Rebooted,
    /// The host was suspended, or a hypervisor froze it.
    Suspended,
    /// It ran and got no CPU, or was halted.
    Starved,
    /// Nobody wrote it down.
    #[default]
    Unknown,
}

impl SilentBy {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Rebooted => "rebooted",
            Self::Suspended => "suspended",
            Self::Starved => "starved",
            Self::Unknown => "unknown",
        }
    }
}

/// The number of an event in its journal: increasing, never reused. Printed as people cite it: `E17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub i64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{}", self.0)
    }
}
