//! Alerts: what the rules say and the routes carry.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Moment, Severity};

/// The name of a rule, stable between versions: `vacuum-starves-host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub String);

impl From<&str> for RuleId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of rules that others than the alerting crate must know: a post-mortem reads them back from the journal.
pub mod rule {
    /// A vacuum takes the CPU that others wait for.
    pub const VACUUM_STARVES_HOST: &str = "vacuum-starves-host";
    /// The CPUs that the database may use are busy and tasks wait for them.
    pub const CPU_SATURATED: &str = "cpu-saturated";
    /// The host, or the guard's control group, runs out of memory.
    pub const MEMORY_LOW: &str = "memory-low";
    /// PostgreSQL does not serve us.
    pub const POSTGRES_DOWN: &str = "postgres-down";
    /// Few connections are left, or their number grows fast.
    pub const CONNECTIONS_NEAR_LIMIT: &str = "connections-near-limit";
    /// Backups or proofs fail.
    pub const BACKUP_FAILING: &str = "backup-failing";
    /// The newest proven backup is too old, or there is none.
    pub const BACKUP_UNPROVEN: &str = "backup-unproven";
    /// The repository is no protection against everything that a backup is for.
    pub const REPOSITORY_UNPROTECTED: &str = "repository-unprotected";

    /// More WAL is not in the repository than may be lost.
    pub const WAL_BEHIND: &str = "wal-behind";
    /// A replication slot makes the server keep so much WAL that its limit or its disk comes near.
    pub const SLOT_RETAINING: &str = "slot-retaining";

    /// The recovery of services has given something up, or waits for an approval.
    pub const SERVICES_NEED_YOU: &str = "services-need-you";

    /// Many connections came in seconds.
    pub const CONNECTIONS_SURGING: &str = "connections-surging";
    /// Sessions wait for locks, many or for long.
    pub const LOCK_QUEUE: &str = "lock-queue";
    /// A session does nothing in an open transaction.
    pub const TRANSACTION_IDLE: &str = "transaction-idle";
    /// A transaction is open for long, and that costs others.
    pub const TRANSACTION_LONG: &str = "transaction-long";
    /// A disk is full, or soon will be.
    pub const DISK_FILLING: &str = "disk-filling";
    /// Memory runs out in minutes.
    pub const MEMORY_FILLING: &str = "memory-filling";
    /// The kernel killed a process for want of memory.
    pub const OOM_KILLED: &str = "oom-killed";
    /// WAL does not get into the archive.
    pub const ARCHIVE_FAILING: &str = "archive-failing";
    /// Checkpoints follow one another, since WAL fills its room.
    pub const CHECKPOINTS_FREQUENT: &str = "checkpoints-frequent";
    /// Pressure is critical, and the shedding ladder may take no further rung, or has none left.
    pub const SHEDDING_BLOCKED: &str = "shedding-blocked";
    /// The shedding ladder has taken something back from the host: what, and why.
    pub const SHEDDING_ACTIVE: &str = "shedding-active";

    /// What runs on the host stalls, no other rule explains it, and the database is slow.
    pub const PRESSURE_STALLED: &str = "pressure-stalled";
    /// The hypervisor gives much of the CPU to others.
    pub const CPU_STOLEN: &str = "cpu-stolen";
    /// The wall clock jumped, or the server's is another than ours.
    pub const CLOCK_OFF: &str = "clock-off";
    /// Nobody watched for a while, and nobody had asked for that.
    pub const GUARD_WAS_SILENT: &str = "guard-was-silent";
    /// Nothing is heard of the guard of another host.
    pub const PEER_SILENT: &str = "peer-silent";
    /// Something that was seen before is no longer seen.
    pub const TARGET_VANISHED: &str = "target-vanished";
    /// What those who only use the services are told.
    pub const MEMBERS_WORD: &str = "members-word";
    /// A declared service does not answer its health check as it should.
    pub const SERVICE_UNHEALTHY: &str = "service-unhealthy";

    /// Whether a rule tells of a risk that may stand for days, not of something that people feel now: it begins no incident.
    pub fn is_risk(rule: &str) -> bool {
        [
            ARCHIVE_FAILING,
            BACKUP_FAILING,
            BACKUP_UNPROVEN,
            CHECKPOINTS_FREQUENT,
            CLOCK_OFF,
            DISK_FILLING,
            GUARD_WAS_SILENT,
            MEMBERS_WORD,
            PEER_SILENT,
            REPOSITORY_UNPROTECTED,
            SLOT_RETAINING,
            TARGET_VANISHED,
            TRANSACTION_LONG,
            WAL_BEHIND,
        ]
        .contains(&rule)
    }
}

/// The names of an alert's labels that others than the alerting crate must know. See [`Alert::labels`].
pub mod label {
    /// The cluster's name in the configuration.
    pub const CLUSTER: &str = "cluster";
    /// The database.
    pub const DATABASE: &str = "database";
    /// The table, schema-qualified.
    pub const TABLE: &str = "table";
    /// The process in question, such as the vacuum's worker.
    pub const PID: &str = "pid";
}

/// The deduplication key of one episode of one condition: the same in every repetition, retry and resolve of the episode, also
/// after a restart of the guard, and another one for the next episode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlertKey(pub String);

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It holds.
    Firing,
    /// It no longer holds.
    Resolved,
}

/// One alert: a condition that began or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// See [`AlertKey`].
    pub key: AlertKey,
    /// Which rule speaks.
    pub rule: RuleId,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it holds.
    pub state: AlertState,
    /// When the condition began: the first reading that showed it, not the moment of the decision.
    pub since: Moment,
    /// When the rule decided.
    pub decided: Moment,
    /// One line for a phone's lock screen: what is wrong, with whom, how much.
    pub summary: String,
    /// What was seen, in a few lines, each a fact with its unit.
    pub details: Vec<String>,
    /// The first things to do, in order.
    pub next_steps: Vec<String>,
    /// What machines route and group by: `cluster`, `database`, `table`, `pid`, ...
    pub labels: BTreeMap<String, String>,
}
