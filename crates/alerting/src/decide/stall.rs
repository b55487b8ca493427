//! Rule `pressure-stalled`.
//!
//! *Why*: a database can be slow on a host that looks idle: all wait for a disk that answers late, for memory that a control group has
//! used up, or for CPU time that a quota withholds. Load and CPU show none of it.
//! *Source*: pressure stall information of I/O (`full`), memory (`full`) and CPU (`some`), where no other rule explains it: memory while
//! enough of it is free, CPU while it is not busy; and only while the database is slow itself, by how long our own query took and how
//! many sessions wait. A backup alone at night stalls for its disk all the time, and hurts nobody.
//! *First things to do*: see what the disk does; see quotas and limits of control groups; move or slow what else uses it.

use std::time::Duration;

use model::{
    Moment, Observation, Reading, Severity, Share,
    alert::rule,
    reading::{HostReading, Pressure},
};

use super::{
    cpu,
    gate::{Confirmation, Gate, Judgement, Verdict},
    memory::room,
    rule::{Facts, Rule, Subject, steps},
    text::{percent, plural, span},
};
use crate::settings::{self, duration};

/// What was seen of the database counts for so long.
const FRESH: Duration = Duration::from_secs(15);
/// Below this share of memory rule `memory-low` judges what stalls for it, per cent.
const MEMORY_EXPLAINS_BELOW: f64 = 25.0;
/// From this busy share on rule `cpu-saturated` judges what stalls for CPUs, per cent.
const CPU_EXPLAINS_FROM: f64 = 85.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Io,
    Memory,
    Cpu,
}

/// How the database did when it was last asked.
#[derive(Clone, Copy)]
struct Database {
    at: Moment,
    took: Duration,
    waiting: u32,
}

/// The rule's state.
pub(super) struct PressureStalled {
    settings: settings::PressureStalled,
    gate: Gate,
    database: Option<Database>,
    host: Option<HostReading>,
    what: What,
}

impl PressureStalled {
    pub(super) fn new(settings: settings::PressureStalled) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 3,
            lasting: duration(settings.for_s),
            clear: duration(settings.clear_s),
            // The database is asked once a second, and answers some queries in time.
            forget: Duration::from_secs(3),
            max_gap: cpu::MAX_GAP,
        });
        Self { settings, gate, database: None, host: None, what: What::Io }
    }

    /// Whether the database itself is slow.
    fn hurts(&self, now: Moment) -> bool {
        self.database.is_some_and(|seen| {
            now.since(seen.at) <= FRESH
                && (seen.took.as_secs_f64() * 1e3 >= self.settings.canary_ms || seen.waiting >= self.settings.waiting)
        })
    }

    fn stalled(&self, host: &HostReading, part: f64) -> Option<What> {
        let reaches = |share: Option<Share>, limit: f64| share.is_some_and(|share| share.0 * 100.0 >= limit * part);
        let full = |pressure: Option<Pressure>| pressure.map(|pressure| pressure.full);
        let settings = &self.settings;
        let memory_left = room(host).is_none_or(|room| room.percent() >= MEMORY_EXPLAINS_BELOW);
        let cpu_left = host.cpu_for_database().1.busy().0 * 100.0 < CPU_EXPLAINS_FROM;
        if reaches(full(host.io_pressure), settings.io_percent) {
            Some(What::Io)
        } else if memory_left && reaches(full(host.memory_pressure), settings.memory_percent) {
            Some(What::Memory)
        } else if cpu_left && reaches(host.cpu_pressure.map(|pressure| pressure.some), settings.cpu_percent) {
            Some(What::Cpu)
        } else {
            None
        }
    }
}

fn facts_of(host: &HostReading) -> Vec<String> {
    let line = |name: &str, pressure: Option<Pressure>| {
        pressure
            .map(|p| format!("stalled for {name}: some in {}, all in {} of the time", percent(p.some), percent(p.full)))
    };
    let lines = [line("I/O", host.io_pressure), line("memory", host.memory_pressure), line("CPU", host.cpu_pressure)];
    lines.into_iter().flatten().collect()
}

impl Rule for PressureStalled {
    fn id(&self) -> &'static str {
        rule::PRESSURE_STALLED
    }

    fn title(&self, subject: &Subject) -> String {
        format!("What runs on {} stalls", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let host = match observation {
            Observation::Reading(Reading::Host(host)) => host,
            Observation::Reading(Reading::Activity(activity)) => {
                let waiting = activity.connections.active_waiting;
                self.database = Some(Database { at: activity.at, took: activity.took, waiting });
                return None;
            }
            _ => return None,
        };
        cpu::weight(host.window)?;
        let hurts = self.hurts(host.at);
        let verdict = match self.stalled(host, 1.0) {
            Some(what) if hurts => {
                self.what = what;
                Verdict::Bad(Severity::Warning)
            }
            _ if hurts && self.stalled(host, 0.5).is_some() => Verdict::Between,
            _ => Verdict::Good,
        };
        self.host = Some(host.clone());
        Some(Judgement { window: host.window, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(host) = &self.host else { return Facts::default() };
        let (what, label, share) = match self.what {
            What::Io => ("its disks", "io", host.io_pressure.map(|p| p.full)),
            What::Memory => ("memory", "memory", host.memory_pressure.map(|p| p.full)),
            What::Cpu => ("CPU time that is withheld", "cpu", host.cpu_pressure.map(|p| p.some)),
        };
        let mut details = facts_of(host);
        details.extend(self.database.map(|seen| {
            let waiting = plural(seen.waiting, "active session waits", "active sessions wait");
            format!("our own query took {}, {waiting}", span(seen.took))
        }));
        details.extend(host.cgroup.cpu.map(|cpus| format!("own control group: {:.1} CPUs at the most", cpus.0)));
        let first = match self.what {
            What::Io => "see what the disk does: `iostat -x 1`, `iotop`; pg_stat_activity where wait_event_type = 'IO'",
            What::Memory => {
                "see whose control group is at its limit: memory.max and memory.events below /sys/fs/cgroup"
            }
            What::Cpu => "see whose CPU quota is used up: cpu.max and nr_throttled of cpu.stat below /sys/fs/cgroup",
        };
        Facts {
            summary: format!(
                "{} stalls for {what}: {} of the time, and the database is slow",
                subject.host,
                share.map(percent).unwrap_or_default()
            ),
            details,
            labels: [("resource".to_owned(), label.to_owned())].into(),
            next_steps: steps(&[
                first,
                "stop or slow what else uses it: copies, backups, imports, a neighbour on the same storage",
                "if it is PostgreSQL: `oxpecker vacuum status`; checkpoints (log_checkpoints); a query that sorts to disk",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.host.as_ref().map(facts_of).unwrap_or_default()
    }
}
