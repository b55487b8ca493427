//! Whom to hold, and at which setting.

use std::fmt;

use model::{Cores, DatabaseName, Oid, ProcessId, TableName, event::CostSetting, reading::VacuumKind};
use serde::{Deserialize, Serialize};

use super::{Facts, Limits, MAX_HELD, pressure::Picture};

/// The smallest CPU share of a worker that is worth a signal, in cores.
const WORTH_HOLDING: f64 = 0.03;

/// How much of the governable vacuums' CPU the chosen ones must have between them: the rest is not the cause.
const CAUSE_SHARE: f64 = 0.9;

/// `autovacuum_vacuum_cost_limit` goes from 1 to 10,000 (guc_tables.c).
pub(super) const MAX_LIMIT: f64 = 10_000.0;

/// Whom a lever reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Chosen workers only (16+, by signal).
    Workers,
    /// All running workers, through the launcher's rebalancing (13 to 15).
    Launcher,
    /// Every process of the server, by a full reload.
    Everyone,
}

/// Why a worker is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It prevents wraparound.
    AntiWraparound,
    /// Its database is so old that failsafe is near, or ignores delays already.
    NearFailsafe,
    /// It analyses: it holds a snapshot.
    Analyze,
    /// A person or a script started it.
    Manual,
    /// Its table is small.
    SmallTable,
    /// Its table has cost settings of its own that the lever can't reach.
    OwnSettings,
    /// It started its table with a delay of zero (13 to 15), so that its pace can't be turned until the next table.
    StartedWithoutDelay,
    /// Its process can't be seen or signalled from here.
    OutOfReach,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AntiWraparound => "it prevents wraparound",
            Self::NearFailsafe => "its database is near failsafe",
            Self::Analyze => "it analyses, and holds a snapshot",
            Self::Manual => "a person or a script started it",
            Self::SmallTable => "its table is small",
            Self::OwnSettings => "its table has cost settings of its own",
            Self::StartedWithoutDelay => {
                "it started its table with a cost delay of 0, which this version can't change until the next table"
            }
            Self::OutOfReach => "its process can't be signalled from here",
        })
    }
}

/// A running autovacuum worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Its process.
    pub process: ProcessId,
    /// What it does.
    pub kind: VacuumKind,
    /// Its database.
    pub database: DatabaseName,
    /// Its table.
    pub table: Option<TableName>,
    /// Its table's OID.
    pub relation: Option<Oid>,
    /// CPU that it uses.
    pub cpu: Cores,
    /// It was seen too short a time ago for its CPU to be known.
    pub unmeasured: bool,
    /// Heap size in blocks.
    pub heap_blocks: Option<u64>,
    /// Heap blocks that it has still to scan.
    pub blocks_left: Option<u64>,
    /// Why it is left alone; `None` where it may be held.
    pub protection: Option<Protection>,
    /// Whether it shares the cost limit with the others: no cost settings of its own.
    pub balanced: bool,
}

/// Only the workers that cause the pressure, most CPU first; with a collective lever all governable ones, for it can't choose.
pub(super) fn workers(facts: &Facts<'_>, _: &Picture, spare_one: bool, limits: &Limits) -> Vec<ProcessId> {
    let mut candidates: Vec<&Worker> =
        facts.workers.iter().filter(|w| w.protection.is_none() && is_large(w, limits)).collect();
    // The process id breaks ties, so that the choice depends on the facts alone, not on their order.
    candidates.sort_by(|a, b| b.cpu.0.total_cmp(&a.cpu.0).then(a.process.cmp(&b.process)));
    if facts.lever.reach != Reach::Workers {
        let harmed = facts.workers.iter().any(|w| is_untouchable(w.protection));
        if harmed || spare_one {
            return Vec::new();
        }
        return candidates.into_iter().take(MAX_HELD).map(|w| w.process).collect();
    }
    if spare_one
        && let Some(spared) = candidates.iter().enumerate().min_by_key(|(_, w)| w.blocks_left.unwrap_or(u64::MAX))
    {
        candidates.remove(spared.0);
    }
    let all: f64 = candidates.iter().map(|w| w.cpu.0).sum();
    let mut sum = 0.0;
    candidates
        .into_iter()
        .take(MAX_HELD)
        .take_while(|w| {
            let needed = sum < all * CAUSE_SHARE && w.cpu.0 >= WORTH_HOLDING;
            sum += w.cpu.0;
            needed
        })
        .map(|w| w.process)
        .collect()
}

/// Whether a collective lever would do harm to it.
pub(super) fn is_untouchable(protection: Option<Protection>) -> bool {
    matches!(protection, Some(Protection::AntiWraparound | Protection::NearFailsafe))
}

/// A table of unknown size is taken for a large one: its worker causes the pressure, or it would not be asked about.
pub(super) fn is_large(worker: &Worker, limits: &Limits) -> bool {
    worker.heap_blocks.is_none_or(|blocks| blocks >= limits.small_table_blocks)
}

/// The lowest pace that this moment allows.
pub(super) fn lowest_pace(facts: &Facts<'_>, limits: &Limits) -> f64 {
    let analyses = facts.workers.iter().any(|w| w.protection == Some(Protection::Analyze));
    if facts.lever.reach != Reach::Workers && analyses { limits.analyze_pace } else { limits.floor_pace }
}

/// The pace, in cost units a second for each worker, that is as good as no hold at all.
pub(super) fn open_pace(facts: &Facts<'_>) -> f64 {
    let sharing = sharing(facts);
    let resting = facts.lever.resting;
    let widest = MAX_LIMIT / facts.lever.delay_ms;
    let rest = if resting.delay_ms > 0.0 { f64::from(resting.limit) / resting.delay_ms } else { widest };
    rest.min(widest) * 1000.0 / sharing
}

/// The setting that gives each worker that pace. All workers without settings of their own share the limit, on every version
/// (`autovac_balance_cost` up to 15, `nworkers_for_balance` from 16), so it is multiplied by their number.
pub(super) fn setting(facts: &Facts<'_>, pace: f64) -> CostSetting {
    let limit = (pace * facts.lever.delay_ms / 1000.0 * sharing(facts)).round().clamp(1.0, MAX_LIMIT);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Between 1 and 10,000 by the line above.
    CostSetting { limit: limit as u32, delay_ms: facts.lever.delay_ms }
}

fn sharing(facts: &Facts<'_>) -> f64 {
    facts.workers.iter().filter(|w| w.balanced).count().max(1) as f64
}
