//! What a drill found, whole: everything that [`crate::render`] prints is in here, and everything in here was measured.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use model::Moment;
use serde::{Deserialize, Serialize};

use crate::{cold_start::ColdStart, load::Latencies, options::ActKind};
pub use crate::{http::Failure, load::Target};

/// The version of [`DrillResult`]'s JSON: raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// What a drill found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The drill's name.
    pub drill: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Repeats data and arrivals.
    pub seed: u64,
    /// Where it ran.
    pub host: Host,
    /// On what it ran.
    pub server: Server,
    /// What was vacuumed.
    pub tables: Vec<StormTable>,
    /// What the users did.
    pub load: LoadFacts,
    /// What was measured in each act, in the order of play.
    pub acts: Vec<ActResult>,
    /// How fast the guard saw it; none where it did not, or was not asked to.
    pub detection: Option<Detection>,
    /// The last act, where it was played.
    #[serde(default)]
    pub rescue: Option<Rescue>,
    /// Act 3, where it was played.
    #[serde(default)]
    pub cold_start: Option<ColdStart>,
    /// What to think of it.
    pub verdict: Verdict,
    /// The incident's report as the guard's oxpecker wrote it.
    pub report: Option<PathBuf>,
    /// The cluster that was left running on request.
    pub kept: Option<Kept>,
}

impl DrillResult {
    /// The act of this kind, where it was played.
    pub fn act(&self, kind: ActKind) -> Option<&ActResult> {
        self.acts.iter().find(|act| act.act == kind)
    }
}

/// A backup while vacuum stormed, a table dropped, the data destroyed, brought back to the moment before the drop, and proven; each step by oxpecker's own command, with its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rescue {
    /// All files of the data directory when the backup was done, in bytes.
    pub data_bytes: u64,
    /// What the repository took, in bytes.
    pub repository_bytes: u64,
    /// Vacuums that were at work when the backup began.
    pub vacuums_running: i64,
    /// `backup create`, in seconds.
    pub backup_s: f64,
    /// The table that was dropped by mistake while rows were committed.
    #[serde(default)]
    pub dropped: String,
    /// From the drop until the moment before it could be restored to, its WAL being durable in the repository, in seconds.
    #[serde(default)]
    pub reach_s: f64,
    /// Transactions that were committed between the backup and that moment, a row each.
    #[serde(default)]
    pub ledger_before: i64,
    /// Of these, the ones that are there again; one more would be one too many.
    #[serde(default)]
    pub ledger_after: i64,
    /// `restore`, in seconds.
    pub restore_s: f64,
    /// From the start of the restored server until it accepted connections, recovery included, in seconds.
    pub start_s: f64,
    /// `backup prove`, in seconds: another restore, its recovery, and the checks.
    pub proof_s: f64,
    /// Rows of the storm's tables before.
    pub rows_before: i64,
    /// The same in the restored server.
    pub rows_after: i64,
    /// Whether each table's rows are the same, by a sum over their contents.
    pub same: bool,
}

/// Where the drill ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Cores that we may use.
    pub cores: usize,
    /// The one core of database, services and guard.
    pub database_core: usize,
    /// The core of load and measurement; the same where there is only one.
    pub load_core: usize,
    /// `tmpfs`, or why not that.
    pub storage: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether the kernel shares CPU between sessions before it shares it between processes: it favours services over vacuum.
    pub autogroup: Option<bool>,
}

/// On what the drill ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// `18.1`.
    pub version: String,
    /// Its programs.
    pub bin_dir: PathBuf,
    /// What differs from PostgreSQL's own defaults.
    pub settings: Vec<SettingNote>,
}

/// A setting that differs from PostgreSQL's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingNote {
    /// Its name.
    pub name: String,
    /// Its value here.
    pub value: String,
    /// PostgreSQL's.
    pub stock: String,
    /// In which acts; `all` or their names.
    pub acts: String,
    /// Why.
    pub why: String,
}

/// A table that is vacuumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormTable {
    /// Its name.
    pub name: String,
    /// Rows that are alive.
    pub live: u64,
    /// Rows that are dead: vacuum's work.
    pub dead: u64,
    /// Its indexes.
    pub indexes: u32,
    /// Table and indexes, in bytes.
    pub bytes: u64,
}

/// What the users did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadFacts {
    /// What the services can answer when nobody vacuums, requests per second (closed loop).
    pub capacity_per_s: f64,
    /// The share of it that the users asked for.
    pub share: f64,
    /// The users' rate, requests per second.
    pub rate_per_s: f64,
    /// Percent of the requests that each service gets.
    pub mix_percent: Vec<(Target, u32)>,
    /// A user's patience, in seconds.
    pub patience_s: f64,
    /// The services' time-outs in words.
    pub timeouts: String,
}

/// What was measured in one act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActResult {
    /// Which.
    pub act: ActKind,
    /// When the load began.
    pub began: Moment,
    /// Seconds from the load's start to the storm's release, or to where it would have been; the judged window begins here.
    pub window_from_s: u64,
    /// Length of the judged window, in seconds of arrival.
    pub window_s: u64,
    /// All services together in the window.
    pub all: Summary,
    /// Each service in the window.
    pub services: Vec<(Target, Summary)>,
    /// Each service and second of arrival, from the load's start.
    pub seconds: Vec<Second>,
    /// The core.
    pub cpu: CpuFacts,
    /// What the vacuums did; none without a storm.
    pub vacuum: Option<VacuumFacts>,
    /// The guard; none where none rode along.
    pub guard: Option<GuardFacts>,
}

/// Latencies and failures over some requests. Latency counts from the moment at which the user came; a failed request counts
/// with the time until it failed, one that could not even be sent with the user's whole patience.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// By kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Half of the requests took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// All of them.
    pub max_ms: f64,
}

impl Summary {
    pub(crate) fn of(latencies: &Latencies, failures: BTreeMap<Failure, u64>) -> Self {
        let ms = |latency: Option<std::time::Duration>| latency.unwrap_or_default().as_secs_f64() * 1e3;
        Self {
            requests: latencies.len(),
            failed: failures.values().sum(),
            failures,
            p50_ms: ms(latencies.quantile(0.50)),
            p95_ms: ms(latencies.quantile(0.95)),
            p99_ms: ms(latencies.quantile(0.99)),
            max_ms: ms(latencies.max()),
        }
    }
}

/// One second of arrival.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// From the load's start.
    pub second: u64,
    /// All services together.
    pub all: Summary,
    /// Each.
    pub services: Vec<(Target, Summary)>,
    /// Share of the second in which the database's core was busy.
    pub core_busy: f64,
    /// What the vacuum workers used, in cores.
    pub vacuum_cores: f64,
}

/// Who used the database's core in the window, on average, in cores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuFacts {
    /// The core's busy share.
    pub busy: f64,
    /// Autovacuum workers.
    pub vacuum: f64,
    /// The rest of PostgreSQL.
    pub postgres: f64,
    /// The services.
    pub services: f64,
    /// The guard and its children.
    pub guard: f64,
    /// When the core was saturated for whole seconds, within the judged window.
    #[serde(default)]
    pub saturated: Vec<Saturation>,
}

/// A span in which the core was saturated, by the drill's own readings, in seconds from the storm's release.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saturation {
    /// Its beginning.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
}

impl CpuFacts {
    /// Who else used the core: nobody of the drill. What the kernel does for the drill without a process is in it as well.
    pub fn others(&self) -> f64 {
        (self.busy - self.vacuum - self.postgres - self.services - self.guard).max(0.0)
    }
}

/// What the vacuums did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VacuumFacts {
    /// Workers that were seen.
    pub workers: usize,
    /// CPU time that they used in the window, in seconds.
    pub cpu_s: f64,
    /// Seconds from the storm's release to the first worker's appearance on a big table.
    pub first_seen_s: Option<f64>,
    /// Each table at the end.
    pub tables: Vec<TableOutcome>,
}

impl VacuumFacts {
    /// Tables that were done within the window.
    pub fn finished_in_window(&self, window_s: u64) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "seconds of an act")]
        let window = window_s as f64;
        self.tables.iter().filter(|table| table.finished_after_s.is_some_and(|after| after <= window)).count()
    }
}

/// What became of one table's vacuum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableOutcome {
    /// Its name.
    pub table: String,
    /// Seconds from the storm's release to its end; none where it did not end while it was watched.
    pub finished_after_s: Option<f64>,
    /// What it was at when the window closed; none where it had not begun or had ended.
    pub phase: Option<String>,
    /// Share of the table's pages that had been scanned when the window closed.
    pub scanned: f64,
    /// Passes over all the indexes that it had completed when the window closed.
    pub index_passes: u64,
}

/// The guard in act 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardFacts {
    /// From its start until it said that it was ready, in seconds.
    pub ready_after_s: f64,
    /// Its largest resident size, in bytes.
    pub resident_max_bytes: u64,
    /// What arrived at the webhook.
    pub alerts: Vec<AlertSeen>,
    /// Alerts that were decided before the storm: false ones, unless the host was busy with something else.
    pub alerts_before_storm: usize,
    /// Whether it stopped in an orderly way when asked to.
    pub stopped_cleanly: bool,
    /// Vacuum's cost settings before the guard came.
    pub settings_before: String,
    /// And after it had gone.
    pub settings_after: String,
    /// What it left behind.
    #[serde(default)]
    pub remains: Remains,
}

/// What a guard that has stopped left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Settings in the throttle's include file.
    pub include_settings: Vec<String>,
    /// Files in its state directory that speak of a throttle.
    pub records: Vec<String>,
    /// Its sessions, by `application_name`.
    pub sessions: Vec<String>,
    /// Vacuum's cost settings after the drill has reloaded the configuration, with which a throttle's file that was left comes to life.
    pub settings_reloaded: String,
}

/// An alert as it arrived at the webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertSeen {
    /// Its episode: what resolves it has the same.
    #[serde(default)]
    pub key: String,
    /// Its rule.
    pub rule: String,
    /// `firing` or `resolved`.
    pub state: String,
    /// Its one line.
    pub summary: String,
    /// When the guard decided, from the storm's release, in seconds (negative: before).
    pub decided_s: f64,
    /// When it arrived.
    pub arrived_s: f64,
}

/// How fast the guard saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The rule that saw it first.
    pub rule: String,
    /// Its one line.
    pub summary: String,
    /// From the storm's release to the begin of the saturation that the alert covers, by the drill's own readings, in seconds.
    pub saturated_s: f64,
    /// From that moment to the guard's decision, in seconds; negative where the guard was earlier.
    pub decided_after_s: f64,
    /// From that moment to the webhook.
    pub delivered_after_s: f64,
    /// Whether the alert belongs to an episode that was still open from before, which is not told again.
    #[serde(default)]
    pub told_before: bool,
}

/// What to think of it all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether all is as it must be; the exit code.
    pub passed: bool,
    /// Each judgement.
    pub lines: Vec<VerdictLine>,
    /// Facts without a judgement: per setting whether the storm made requests fail, and what weakens the result.
    pub notes: Vec<String>,
}

/// One judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictLine {
    /// What had to hold.
    pub claim: String,
    /// Whether it held.
    pub passed: bool,
    /// The figures that decided.
    pub because: String,
}

/// A cluster that was left running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// How to reach it.
    pub connect: String,
    /// How to get rid of it.
    pub remove: String,
}
