//! Readings: what the collector saw, as plain data.
//!
//! Rates and shares are computed by the collector over the window that the reading names, so that whoever reads them needs no
//! reading before. Whatever could not be read is `None`, never zero.

mod repository;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, Cores, DatabaseName, Lsn, Moment, Oid, PgVersion, Pid, ProcessId, ServiceName, Share, TableName,
};

pub use self::repository::{BackupReading, BackupRunning, BackupSeen, Exposure, Gap, ReceiveReading};

/// One observation, of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reading", rename_all = "snake_case")]
pub enum Reading {
    /// The host, once a second.
    Host(HostReading),
    /// Sessions, locks and vacuums, about once a second.
    Activity(ActivityReading),
    /// Checkpoints, WAL, archiver and slots, about every ten seconds.
    Wal(WalReading),
    /// Ages and dead tuples, about once a minute.
    Tables(TablesReading),
    /// A service's health and latency.
    Service(ServiceReading),
    /// The backups of the cluster, once a minute and when something changed.
    Backup(Box<BackupReading>),
    /// The WAL that streams into the repository, every few seconds and when something changed.
    Receive(ReceiveReading),
}

impl Reading {
    /// When it was taken.
    pub fn at(&self) -> Moment {
        match self {
            Self::Host(r) => r.at,
            Self::Activity(r) => r.at,
            Self::Wal(r) => r.at,
            Self::Tables(r) => r.at,
            Self::Service(r) => r.at,
            Self::Backup(r) => r.at,
            Self::Receive(r) => r.at,
        }
    }

    /// The kind's name, as in the journal's table of readings.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Activity(_) => "activity",
            Self::Wal(_) => "wal",
            Self::Tables(_) => "tables",
            Self::Service(_) => "service",
            Self::Backup(_) => "backup",
            Self::Receive(_) => "receive",
        }
    }
}

/// Where a set of CPUs spent its time: parts of that set's whole time, which add up to 1 (fields of `/proc/stat`, proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuShares {
    /// Processes in user mode.
    pub user: f64,
    /// Niced processes in user mode.
    pub nice: f64,
    /// The kernel.
    pub system: f64,
    /// Nothing to do, nothing awaited.
    pub idle: f64,
    /// Nothing to do but wait for disks.
    pub iowait: f64,
    /// Interrupts, hard and soft.
    pub irq: f64,
    /// Taken by the hypervisor for others.
    pub steal: f64,
}

impl CpuShares {
    /// The part in which the CPUs were not to be had: all but idle and iowait.
    pub fn busy(&self) -> Share {
        Share((1.0 - self.idle - self.iowait).clamp(0.0, 1.0))
    }
}

/// Pressure stall information of one resource (`/proc/pressure/*`, kernel's Documentation/accounting/psi.rst): the part of the window
/// in which some, or all, non-idle tasks waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Share,
    /// All of them waited at once. Always zero for the CPU of a whole host.
    pub full: Share,
}

/// Memory of the host (`/proc/meminfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: ByteSize,
    /// What could be had without swapping, by the kernel's estimate.
    pub available: ByteSize,
    /// Swap space.
    pub swap_total: ByteSize,
    /// Unused swap space.
    pub swap_free: ByteSize,
}

/// A file system that holds something that we watch (statvfs(3)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// The watched path, such as the data directory.
    pub path: String,
    /// Its size.
    pub total: ByteSize,
    /// What an ordinary user may still write.
    pub available: ByteSize,
    /// Inodes; zero where the file system has no fixed number.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// Limits of control groups, the tightest on the way up: of the one that PostgreSQL runs in where that has any, else of the guard's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// CPU bandwidth (`cpu.max`, or `cpu.cfs_quota_us` by `cpu.cfs_period_us`).
    pub cpu: Option<Cores>,
    /// Memory (`memory.max`, or `memory.limit_in_bytes`).
    pub memory: Option<ByteSize>,
    /// Memory in use there, without the page cache that the kernel gives up first (`inactive_file`): what others call the working set.
    pub memory_used: Option<ByteSize>,
    /// Whether the limit of memory is one that PostgreSQL runs under.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binds_database: bool,
}

/// What a process is to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessRole {
    /// This program's guard.
    Guard,
    /// The postmaster.
    Postmaster,
    /// A process of PostgreSQL, with its `backend_type` where known (`client backend`, `autovacuum worker`, ...).
    Postgres(String),
    /// A process of a declared service.
    Service(ServiceName),
}

/// One watched process over the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessReading {
    /// Which.
    pub id: ProcessId,
    /// What it is to us.
    pub role: ProcessRole,
    /// User and system time per time.
    pub cpu: Cores,
    /// Resident memory.
    pub rss: ByteSize,
}

/// The host, over the last window of about a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReading {
    /// When the window ended.
    pub at: Moment,
    /// How long the window was. Much more than the interval means that the sampler itself was starved.
    pub window: Duration,
    /// Online CPUs.
    pub cpus: u32,
    /// All of them together.
    pub cpu: CpuShares,
    /// How many CPUs the database may run on (affinity of the postmaster); `None` while it is not known.
    pub database_cpus: Option<u32>,
    /// Those together: on a host where the database is held to some cores, these are the ones that starve it.
    pub database_cpu: Option<CpuShares>,
    /// Tasks that run or wait for a CPU at this instant (`procs_running` of `/proc/stat`).
    pub run_queue: u32,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// CPU pressure; `None` where the kernel hides PSI.
    pub cpu_pressure: Option<Pressure>,
    /// Memory pressure.
    pub memory_pressure: Option<Pressure>,
    /// I/O pressure.
    pub io_pressure: Option<Pressure>,
    /// Memory and swap.
    pub memory: Memory,
    /// File systems of the watched paths.
    pub file_systems: Box<[FileSystem]>,
    /// Own control group.
    pub cgroup: CgroupLimits,
    /// Watched processes, busiest first, bounded.
    pub processes: Vec<ProcessReading>,
    /// What the kernel killed for want of memory since the sample before; none where it killed nothing, or does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Box<OomKills>>,
    /// Who holds the most memory, most first, bounded; empty while memory is not short.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub largest: Box<[LargeProcess]>,
}

/// A process that holds much memory, whoever's it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeProcess {
    /// Its pid, as the guard sees it.
    pub pid: Pid,
    /// Its command, up to 15 bytes.
    pub name: String,
    /// Resident memory, shared memory included.
    pub rss: ByteSize,
}

/// What the kernel killed for want of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomKills {
    /// How many processes were counted since the sample before.
    pub count: u64,
    /// Those that its log names, bounded. The log may tell of one a sample after it was counted.
    pub victims: Vec<OomVictim>,
}

/// A process that the kernel killed for want of memory, as its log names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomVictim {
    /// Its pid, in the first PID namespace.
    pub pid: Pid,
    /// Its command, up to 15 bytes.
    pub name: String,
    /// Whether a control group's limit was reached, not the host's end of memory.
    pub in_cgroup: bool,
}

impl HostReading {
    /// The CPUs that matter to the database: its own where it is held to some, else all.
    pub fn cpu_for_database(&self) -> (u32, CpuShares) {
        match (self.database_cpus, self.database_cpu) {
            (Some(cpus), Some(shares)) => (cpus, shares),
            _ => (self.cpus, self.cpu),
        }
    }
}

/// Connections (`pg_stat_activity`, client backends only).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Client backends now.
    pub used: u32,
    /// `max_connections`.
    pub max: u32,
    /// Slots kept for superusers and, from 16, `reserved_connections`.
    pub reserved: u32,
    /// By state: `active`, `idle`, `idle in transaction`, ...
    pub by_state: BTreeMap<String, u32>,
    /// By role; the most numerous, bounded.
    pub by_role: BTreeMap<String, u32>,
    /// Active ones that wait for something other than a client (`wait_event_type` set and not `Client`).
    pub active_waiting: u32,
    /// Whose they are; the most numerous, bounded.
    #[serde(default)]
    pub groups: Vec<ConnectionGroup>,
}

/// Connections of one role, from one place, of one application, to one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionGroup {
    /// The role.
    pub role: String,
    /// Its `application_name`.
    pub application: String,
    /// The client's address; `local` for a unix socket.
    pub client: String,
    /// The database.
    pub database: String,
    /// How many there are.
    pub count: u32,
    /// How many of them began within the last ten seconds.
    pub young: u32,
    /// How many of them are idle.
    pub idle: u32,
}

/// A session in a transaction that has been open for long, or that others wait for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LongTransaction {
    /// Its backend.
    pub pid: Pid,
    /// How long it has been open.
    pub age: Duration,
    /// Its database.
    pub database: Option<DatabaseName>,
    /// Its role.
    pub role: Option<String>,
    /// Its `application_name`.
    pub application: String,
    /// Its state, such as `idle in transaction`.
    pub state: String,
    /// How long it has been in that state.
    #[serde(default)]
    pub state_for: Duration,
    /// The client's address; `local` for a unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The first word of what it runs or ran last, where it is a command of SQL: `UPDATE`. No more of a query is ever read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The fingerprint of its query (14+ with `compute_query_id`), as `pg_stat_statements` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_id: Option<i64>,
    /// How many transactions ago its oldest visible one began: what is younger, no vacuum can clear away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_back: Option<u64>,
    /// Sessions that wait for a lock that it holds, directly or behind others.
    #[serde(default)]
    pub blocks: u32,
}

/// Sessions that wait for a lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LockWaits {
    /// How many sessions wait.
    pub waiting: u32,
    /// How long the longest has waited (`waitstart`, 14+; before that since its query's start).
    pub longest: Duration,
    /// The pid that most of them wait for, directly or not: the head of the queue.
    pub head: Option<Pid>,
    /// What is known of that session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_session: Option<Box<LongTransaction>>,
    /// The table that most of them wait for, where it is one of the connected database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
}

/// What a vacuum does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VacuumKind {
    /// An autovacuum worker's VACUUM, perhaps with ANALYZE after it.
    Autovacuum,
    /// An autovacuum worker's ANALYZE alone, or the part of its work that analyses.
    Autoanalyze,
    /// An autovacuum worker that prevents wraparound: never cancelled, never starved.
    AntiWraparound,
    /// A person's or a script's VACUUM.
    Manual,
}

/// A running vacuum or a worker that is about to start one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VacuumReading {
    /// The worker's process. `start_ticks` is zero where the server's processes can't be seen from here.
    pub process: ProcessId,
    /// What it does.
    pub kind: VacuumKind,
    /// Its database.
    pub database: DatabaseName,
    /// Its table; from the progress view, or from the worker's activity line.
    pub table: Option<TableName>,
    /// Its table's OID, where the progress view shows it.
    pub relation: Option<Oid>,
    /// When this table's transaction began, by the server's clock.
    pub started: Option<Timestamp>,
    /// The phase, as `pg_stat_progress_vacuum` names it.
    pub phase: Option<String>,
    /// Heap size in blocks.
    pub heap_blocks: Option<u64>,
    /// Heap blocks scanned.
    pub heap_blocks_scanned: Option<u64>,
    /// Heap blocks vacuumed.
    pub heap_blocks_vacuumed: Option<u64>,
    /// Completed passes over the indexes.
    pub index_passes: Option<u64>,
    /// CPU that the worker used since the reading before; `None` for its first reading and where `/proc` does not show it.
    pub cpu: Option<Cores>,
    /// Whether it slept in a cost delay at that instant (`wait_event = 'VacuumDelay'`).
    pub in_delay: bool,
    /// Sessions that wait for a lock that it holds, directly or behind others.
    pub blocks: u32,
}

/// Sessions, locks and vacuums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivityReading {
    /// When the answer arrived.
    pub at: Moment,
    /// How long the server took to answer: the cheapest canary there is.
    pub took: Duration,
    /// The server's version.
    pub version: PgVersion,
    /// When the server started, by its own clock.
    pub server_started: Timestamp,
    /// Whether it is a standby or in recovery.
    pub in_recovery: bool,
    /// Connections.
    pub connections: Connections,
    /// The longest open transaction of a client.
    pub longest_transaction: Option<Box<LongTransaction>>,
    /// Lock waits.
    pub locks: LockWaits,
    /// Running vacuums, bounded.
    pub vacuums: Vec<VacuumReading>,
    /// `autovacuum_max_workers`.
    pub autovacuum_slots: u32,
    /// What all our queries have cost the server since the guard started.
    pub own_cost: OwnCost,
    /// The session that has been idle in a transaction for the longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_transaction: Option<Box<LongTransaction>>,
    /// How far the server's clock is ahead of ours, in milliseconds; negative behind. Uncertain by half of `took`.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
}

/// What our own queries cost PostgreSQL since the guard started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCost {
    /// Statements sent.
    pub statements: u64,
    /// Time between sending them and the end of their answers, added up.
    pub elapsed: Duration,
    /// CPU time of our own backends; `None` where `/proc` does not show it.
    pub backend_cpu: Option<Duration>,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReading {
    /// Its name.
    pub name: String,
    /// Whether a consumer is connected.
    pub active: bool,
    /// WAL that it keeps on the disk.
    pub retained: ByteSize,
    /// `wal_status` (13+): `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// WAL that may still be written before the server gives the slot up (`safe_wal_size`, 13+); none where nothing bounds it
    /// (`max_slot_wal_keep_size`), or it was given up.
    #[serde(default)]
    pub safe: Option<ByteSize>,
}

/// The archiver (`pg_stat_archiver`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archiver {
    /// Whether `archive_mode` is on.
    pub enabled: bool,
    /// Archived segments since the statistics were reset.
    pub archived: u64,
    /// Failed attempts since then.
    pub failed: u64,
    /// Whether the newest attempt failed.
    pub failing: bool,
    /// When the newest segment was archived.
    pub last_archived: Option<Timestamp>,
    /// WAL since the end of the newest archived segment, the one that is being written included; none before the first.
    #[serde(default)]
    pub behind: Option<ByteSize>,
}

/// Checkpoints, WAL, archiver and slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalReading {
    /// When the answer arrived.
    pub at: Moment,
    /// Checkpoints by time since the statistics were reset.
    pub checkpoints_timed: u64,
    /// Checkpoints by request (mostly: by WAL volume).
    pub checkpoints_requested: u64,
    /// The insert position; on a standby the replay position.
    pub lsn: Lsn,
    /// WAL per second since the reading before; `None` for the first.
    pub wal_per_second: Option<ByteSize>,
    /// `max_wal_size`: checkpoints are requested so that no more lies there.
    #[serde(default)]
    pub max_wal: Option<ByteSize>,
    /// `checkpoint_timeout`: how far apart checkpoints by time are.
    #[serde(default)]
    pub checkpoint_timeout: Option<Duration>,
    /// The archiver.
    pub archiver: Archiver,
    /// Replication slots, bounded.
    pub slots: Vec<SlotReading>,
}

/// A table and what vacuum owes it (`pg_stat_all_tables` of the connected database).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableReading {
    /// Which.
    pub table: TableName,
    /// Its OID.
    pub relation: Oid,
    /// Its size with all forks, without indexes, in bytes.
    pub size: ByteSize,
    /// Estimated live tuples.
    pub live: u64,
    /// Estimated dead tuples.
    pub dead: u64,
    /// When an autovacuum last finished it.
    pub last_autovacuum: Option<Timestamp>,
}

/// The age of a database's oldest transaction ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeReading {
    /// Which database.
    pub database: DatabaseName,
    /// `age(datfrozenxid)`, in transactions.
    pub xid_age: u64,
    /// `mxid_age(datminmxid)`, in multixacts.
    pub multixact_age: u64,
}

/// Ages and dead tuples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TablesReading {
    /// When the answer arrived.
    pub at: Moment,
    /// The database that `worst` is about.
    pub database: DatabaseName,
    /// Tables with the most dead tuples, most first, bounded.
    pub worst: Vec<TableReading>,
    /// Databases, oldest first, bounded.
    pub ages: Vec<AgeReading>,
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its check answered as expected.
    Healthy,
    /// Its check failed, or answered otherwise.
    Unhealthy,
}

/// A service's health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReading {
    /// When the check ended.
    pub at: Moment,
    /// Which service.
    pub service: ServiceName,
    /// How it is.
    pub health: Health,
    /// How long the check took.
    pub took: Duration,
    /// What was wrong: `status 503`, `connection refused`, `no answer within 2 s`.
    pub detail: Option<String>,
    /// Who stopped it, where it was stopped on purpose: then it is unhealthy, and nobody has to be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What guards before these fields wrote: journals are kept for a month.
    #[test]
    fn readings_of_older_guards_are_read() {
        for old in [
            r#"{"reading":"wal","at":{"wall":"2026-11-01T00:00:00Z","boot_us":1},"checkpoints_timed":1,"checkpoints_requested":2,"lsn":"0/7",
                "wal_per_second":null,"archiver":{"enabled":true,"archived":1,"failed":0,"failing":false,"last_archived":null},"slots":[]}"#,
            r#"{"reading":"activity","at":{"wall":"2026-11-01T00:00:00Z","boot_us":1},"took":{"secs":0,"nanos":1},"version":180001,
                "server_started":"2026-11-01T00:00:00Z","in_recovery":false,
                "connections":{"used":1,"max":100,"reserved":3,"by_state":{},"by_role":{},"active_waiting":0},
                "longest_transaction":{"pid":7,"age":{"secs":9,"nanos":0},"database":"app","role":"site","application":"","state":"active"},
                "locks":{"waiting":1,"longest":{"secs":1,"nanos":0},"head":7},"vacuums":[],"autovacuum_slots":3,
                "own_cost":{"statements":1,"elapsed":{"secs":0,"nanos":1},"backend_cpu":null}}"#,
            r#"{"reading":"host","at":{"wall":"2026-11-01T00:00:00Z","boot_us":1},"window":{"secs":1,"nanos":0},"cpus":2,
                "cpu":{"user":0.1,"nice":0.0,"system":0.1,"idle":0.8,"iowait":0.0,"irq":0.0,"steal":0.0},"database_cpus":null,
                "database_cpu":null,"run_queue":1,"load":[0.1,0.1,0.1],"cpu_pressure":null,"memory_pressure":null,"io_pressure":null,
                "memory":{"total":1,"available":1,"swap_total":0,"swap_free":0},"file_systems":[],
                "cgroup":{"cpu":null,"memory":null,"memory_used":null},"processes":[]}"#,
        ] {
            let reading: Reading = serde_json::from_str(old).unwrap_or_else(|error| panic!("{error}: {old}"));
            assert_eq!(reading.at().boot_us, 1);
        }
    }
}
