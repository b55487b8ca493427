//! What the controller is told: readings, and the workers with the CPU that we sample ourselves.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use model::{
    Cores, DatabaseName, Moment, Observation, Oid, ProcessId, Reading,
    reading::{ActivityReading, HostReading, TablesReading, VacuumKind, VacuumReading},
};

use crate::{
    controller::{Limits, Protection, Worker},
    host_process,
};

/// Samples kept of each worker: at four a second, about a second and a quarter.
const SAMPLES: usize = 6;
/// Workers sampled at most.
const MAX_WORKERS: usize = 64;
/// The shortest span that a rate is computed over, in microseconds.
const MIN_SPAN_US: u64 = 200_000;
/// Relations whose cost settings are remembered.
pub(super) const MAX_REMEMBERED: usize = 512;

/// Cost settings of a table's own (`reloptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct OwnCost {
    /// `autovacuum_vacuum_cost_limit`.
    pub limit: bool,
    /// `autovacuum_vacuum_cost_delay`.
    pub delay: Option<f64>,
}

/// The newest readings and the workers' CPU.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub host: Option<HostReading>,
    pub activity: Option<ActivityReading>,
    pub tables: Option<TablesReading>,
    pub own_costs: BTreeMap<Oid, OwnCost>,
    samples: BTreeMap<ProcessId, VecDeque<(Moment, u64)>>,
}

/// What decides about a worker besides its reading.
pub(super) struct Rules<'a> {
    pub major: u32,
    pub may_signal: bool,
    /// 13 to 15 with a resting setting of ours: only tables begun after that are governable. `Err` where nothing is.
    pub governable_since: Result<Option<Timestamp>, ()>,
    /// The database that `own_costs` is about.
    pub database: Option<&'a str>,
    pub limits: &'a Limits,
}

impl Sight {
    pub(super) fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Reading(Reading::Host(reading)) => self.host = Some(reading.clone()),
            Observation::Reading(Reading::Activity(reading)) => self.activity = Some(reading.clone()),
            Observation::Reading(Reading::Tables(reading)) => self.tables = Some(reading.clone()),
            _ => {}
        }
    }

    /// The server is gone or another one: what we knew of its workers is void.
    pub(super) fn forget(&mut self) {
        self.activity = None;
        self.tables = None;
        self.samples.clear();
        self.own_costs.clear();
    }

    /// Reads the CPU clocks of the running workers.
    pub(super) fn sample(&mut self, now: Moment) {
        let Some(activity) = &self.activity else { return };
        let workers: Vec<ProcessId> =
            activity.vacuums.iter().filter(|v| is_worker(v)).map(|v| v.process).take(MAX_WORKERS).collect();
        self.samples.retain(|process, _| workers.contains(process));
        for process in workers {
            let Some(ns) = (process.start_ticks != 0).then(|| host_process::cpu_ns(process.pid)).flatten() else {
                continue;
            };
            let kept = self.samples.entry(process).or_default();
            if kept.len() == SAMPLES {
                kept.pop_front();
            }
            kept.push_back((now, ns));
        }
    }

    fn cpu(&self, vacuum: &VacuumReading) -> Option<Cores> {
        let sampled = self.samples.get(&vacuum.process).and_then(|kept| {
            let ((from, first), (to, last)) = (kept.front()?, kept.back()?);
            let span = to.boot_us.saturating_sub(from.boot_us);
            (span >= MIN_SPAN_US).then(|| Cores(last.saturating_sub(*first) as f64 / 1000.0 / span as f64))
        });
        sampled.or(vacuum.cpu)
    }

    /// The running autovacuum workers; those that ended since the reading are left out.
    pub(super) fn workers(&self, rules: &Rules<'_>) -> Vec<Worker> {
        let Some(activity) = &self.activity else { return Vec::new() };
        let there = |v: &&VacuumReading| {
            v.process.start_ticks == 0 || host_process::identify(v.process.pid).is_some_and(|id| id == v.process)
        };
        activity
            .vacuums
            .iter()
            .filter(|v| is_worker(v))
            .filter(there)
            .take(MAX_WORKERS)
            .map(|v| {
                let own = self.own_cost(v, rules.database);
                let cpu = self.cpu(v);
                Worker {
                    process: v.process,
                    kind: v.kind,
                    database: v.database.clone(),
                    table: v.table.clone(),
                    relation: v.relation,
                    cpu: cpu.unwrap_or_default(),
                    unmeasured: cpu.is_none(),
                    heap_blocks: v.heap_blocks,
                    blocks_left: v.heap_blocks.map(|all| all.saturating_sub(v.heap_blocks_scanned.unwrap_or(0))),
                    protection: self.protection(v, own, rules),
                    balanced: own == OwnCost::default(),
                }
            })
            .collect()
    }

    fn own_cost(&self, v: &VacuumReading, database: Option<&str>) -> OwnCost {
        let known = database.is_some_and(|name| name == v.database.as_str());
        v.relation.filter(|_| known).and_then(|oid| self.own_costs.get(&oid).copied()).unwrap_or_default()
    }

    fn protection(&self, v: &VacuumReading, own: OwnCost, rules: &Rules<'_>) -> Option<Protection> {
        match v.kind {
            VacuumKind::AntiWraparound => return Some(Protection::AntiWraparound),
            VacuumKind::Autoanalyze => return Some(Protection::Analyze),
            VacuumKind::Manual => return Some(Protection::Manual),
            VacuumKind::Autovacuum => {}
        }
        if self.age(&v.database) >= rules.limits.wraparound_age {
            return Some(Protection::NearFailsafe);
        }
        if v.process.start_ticks == 0 && rules.may_signal {
            return Some(Protection::OutOfReach);
        }
        // From 16 a table's own delay leaves the limit to us, unless that delay is 0; its own limit leaves us nothing.
        let out_of_reach =
            if rules.major >= 16 { own.limit || own.delay == Some(0.0) } else { own != OwnCost::default() };
        if out_of_reach {
            return Some(Protection::OwnSettings);
        }
        let governable = match rules.governable_since {
            Err(()) => false,
            Ok(None) => true,
            Ok(Some(since)) => v.started.is_some_and(|started| started > since),
        };
        if !governable {
            return Some(Protection::StartedWithoutDelay);
        }
        v.heap_blocks.is_some_and(|blocks| blocks < rules.limits.small_table_blocks).then_some(Protection::SmallTable)
    }

    fn age(&self, database: &DatabaseName) -> u64 {
        let ages = self.tables.iter().flat_map(|t| &t.ages);
        ages.filter(|age| age.database == *database).map(|age| age.xid_age.max(age.multixact_age)).max().unwrap_or(0)
    }

    /// Relations of `database` that are being vacuumed and of which the own cost settings are not known yet.
    pub(super) fn unknown_relations(&self, database: &str) -> Vec<Oid> {
        let Some(activity) = &self.activity else { return Vec::new() };
        let mut list: Vec<Oid> = activity
            .vacuums
            .iter()
            .filter(|v| is_worker(v) && v.database.as_str() == database)
            .filter_map(|v| v.relation)
            .filter(|oid| !self.own_costs.contains_key(oid))
            .collect();
        list.truncate(MAX_WORKERS);
        list
    }
}

fn is_worker(v: &VacuumReading) -> bool {
    v.kind != VacuumKind::Manual
}
