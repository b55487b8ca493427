//! Readings: what the collector saw, as plain data.
//!
//! Rates and shares are computed by the collector over the window that the reading names, so that whoever reads them needs no
//! reading before. Whatever could not be read is `None`, never zero.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, Cores, DatabaseName, Lsn, Moment, Oid, PgVersion, Pid, ProcessId, ServiceName, Share, TableName,
};

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

/// Limits of the control group that the guard itself runs in, the tightest on the way up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// CPU bandwidth (`cpu.max`, or `cpu.cfs_quota_us` by `cpu.cfs_period_us`).
    pub cpu: Option<Cores>,
    /// Memory (`memory.max`, or `memory.limit_in_bytes`).
    pub memory: Option<ByteSize>,
    /// Memory in use there.
    pub memory_used: Option<ByteSize>,
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
    pub file_systems: Vec<FileSystem>,
    /// Own control group.
    pub cgroup: CgroupLimits,
    /// Watched processes, busiest first, bounded.
    pub processes: Vec<ProcessReading>,
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
}

/// A transaction that has been open for long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub longest_transaction: Option<LongTransaction>,
    /// Lock waits.
    pub locks: LockWaits,
    /// Running vacuums, bounded.
    pub vacuums: Vec<VacuumReading>,
    /// `autovacuum_max_workers`.
    pub autovacuum_slots: u32,
    /// What all our queries have cost the server since the guard started.
    pub own_cost: OwnCost,
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
}

/// The cluster's backups, as far as the guard knows. Ages are computed by the guard, which adds what the boot clock counted to what
/// the wall clock said when it learnt of them: a stepped wall clock changes none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupReading {
    /// When this was put together.
    pub at: Moment,
    /// The repository's place, without secrets.
    pub repository: String,
    /// How long a guard has known of this repository: what "never proven" counts from.
    pub known_for: Duration,
    /// How old the newest proven backup may be; none where nobody said so and nothing is scheduled.
    pub max_age: Option<Duration>,
    /// Whether the repository was looked at since this guard began; before that, what the journal says is all that is known.
    pub looked: bool,
    /// The newest backup.
    pub last: Option<BackupSeen>,
    /// The newest backup that was proven.
    pub proven: Option<BackupSeen>,
    /// Failures in a row, of backups or proofs; zero where the newest run did what it should.
    pub failures: u32,
    /// What failed last, while `failures` is not zero.
    pub last_error: Option<String>,
    /// What keeps the repository from being a protection; empty where nothing does or nobody looked yet.
    pub exposures: Vec<Exposure>,
    /// The run that is under way.
    pub running: Option<BackupRunning>,
    /// When the next run begins; none where nothing is scheduled.
    pub next_run: Option<Timestamp>,
}

/// How the WAL that streams into the repository stands: the recovery point objective (RPO), measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiveReading {
    /// When this was put together.
    pub at: Moment,
    /// The repository's place, without secrets.
    pub repository: String,
    /// How much may be lost, as time: beyond it is an alarm.
    pub max_behind: Duration,
    /// Whether WAL streams at this moment.
    pub receiving: bool,
    /// The timeline that is, or was last, received.
    pub timeline: Option<u32>,
    /// All WAL before this is in the repository.
    pub durable: Option<Lsn>,
    /// How far the server was when it last said so.
    pub server: Option<Lsn>,
    /// What would be lost if the server were lost now, as time: how long ago it was that all WAL of that moment was in the repository. While
    /// the server can't be asked it grows, for it may be writing.
    pub behind: Duration,
    /// How long the newest row of the canary that arrived took from its commit until it was in the repository; none where no canary is written.
    pub canary: Option<Duration>,
    /// Attempts in a row that ended before anything was received; zero while it streams.
    pub failures: u32,
    /// What went wrong last, while something is wrong.
    pub last_error: Option<String>,
    /// WAL that is missing in the repository, the newest gap: point-in-time recovery can't go over it.
    pub gap: Option<Gap>,
}

/// WAL that never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first byte that is missing.
    pub from: Lsn,
    /// Where it goes on.
    pub to: Lsn,
}

/// A backup in the repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupSeen {
    /// Its id.
    pub id: String,
    /// The moment that it restores to.
    pub consistent_at: Timestamp,
    /// How long ago that was: what would be lost if the cluster were lost now and this backup were all there is.
    pub age: Duration,
    /// Bytes of the cluster.
    pub size: ByteSize,
    /// Damaged pages that were in the source.
    pub corrupt_pages: u64,
    /// The measured recovery time, where it was proven and that was measured.
    pub recovery_time: Option<Duration>,
    /// The age of the newest commit that the proof recovered with the repository's WAL, when it looked that up; none without WAL.
    #[serde(default)]
    pub found_age: Option<Duration>,
}

/// Why a repository is no protection against everything that a backup is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exposure", rename_all = "snake_case")]
pub enum Exposure {
    /// Nobody has confirmed that the recovery key lies somewhere else: who loses this host and its key file loses the backups.
    NoRecoveryKey,
    /// It is on the same file system as the database: what takes the disk takes both.
    SameDisk {
        /// The repository's folder.
        path: String,
    },
}

/// A run of the backup worker that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupRunning {
    /// What is being done: `copying`, `restoring`, ...
    pub stage: String,
    /// Bytes done.
    pub done: ByteSize,
    /// Bytes in all, as far as known.
    pub total: ByteSize,
    /// How long it will take at this rate, where that can be said.
    pub remaining: Option<Duration>,
    /// Whether it stands back because the host is under pressure.
    pub paused: bool,
}
