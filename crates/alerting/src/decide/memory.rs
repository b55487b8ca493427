//! Rule `memory-low`.
//!
//! *Why*: when memory runs out, the kernel kills the largest process, which is often PostgreSQL; before that, everything is slow
//! since the page cache is gone.
//! *Source*: `MemAvailable` of `/proc/meminfo`, the limit of PostgreSQL's control group or else of the guard's own (where it has one,
//! PostgreSQL mostly shares it), and PSI's `full` of memory. Low is judged by share *and* in absolute terms: 8 % of 512 GiB is plenty.
//! *First things to do*: find the process that grew; lower what takes memory per connection; make room before the kernel does.

use std::{collections::BTreeMap, time::Duration};

use model::{
    ByteSize, Observation, Reading, Severity, Share,
    alert::label,
    reading::{HostReading, LargeProcess},
};

use super::{
    cpu,
    cpu::MAX_GAP,
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{percent, short},
};
use crate::settings::{self, duration};

/// Largest processes that an alert names.
const NAMED_PROCESSES: usize = 3;

/// How much is left, and of what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    pub(super) available: ByteSize,
    pub(super) total: ByteSize,
    pub(super) of: Whose,
}

/// Whose room it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Host,
    /// The control group that PostgreSQL runs in.
    Database,
    /// The guard's own.
    Guard,
}

impl Room {
    pub(super) fn percent(self) -> f64 {
        Share::of(self.available.0 as f64, self.total.0 as f64).0 * 100.0
    }

    pub(super) fn whose(self) -> &'static str {
        match self.of {
            Whose::Host => "the host",
            Whose::Database => "PostgreSQL's control group",
            Whose::Guard => "the control group",
        }
    }
}

/// The tighter of host and control group, which is only looked at where its limit is a real one, below the host's memory.
pub(super) fn room(host: &HostReading) -> Option<Room> {
    let memory = host.memory;
    let of_host =
        (memory.total.0 > 0).then_some(Room { available: memory.available, total: memory.total, of: Whose::Host });
    let of = if host.cgroup.binds_database { Whose::Database } else { Whose::Guard };
    let of_group = match (host.cgroup.memory, host.cgroup.memory_used) {
        (Some(limit), Some(used)) if limit.0 > 0 && limit.0 < memory.total.0 => {
            Some(Room { available: ByteSize(limit.0.saturating_sub(used.0)), total: limit, of })
        }
        _ => None,
    };
    of_host.into_iter().chain(of_group).min_by(|a, b| a.percent().total_cmp(&b.percent()))
}

/// The rule's state.
pub(super) struct MemoryLow {
    settings: settings::MemoryLow,
    gate: Gate,
    host: Option<HostReading>,
}

impl MemoryLow {
    pub(super) fn new(settings: settings::MemoryLow) -> Self {
        let gate = Gate::new(Confirmation {
            readings: cpu::half_windows(settings.windows),
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, host: None }
    }

    fn verdict(&self, host: &HostReading, room: Room) -> Verdict {
        let settings = &self.settings;
        let percent = room.percent();
        let ample = room.available.0 >= settings.ample_mib.saturating_mul(1 << 20);
        let thrashing = percent < settings.pressure_below_percent
            && host.memory_pressure.is_some_and(|p| p.full.0 * 100.0 >= settings.pressure_percent);
        if thrashing || (percent < settings.critical_percent && !ample) {
            Verdict::Bad(Severity::Critical)
        } else if percent < settings.available_percent && !ample {
            Verdict::Bad(Severity::Warning)
        } else if percent > settings.clear_percent || ample {
            Verdict::Good
        } else {
            Verdict::Between
        }
    }
}

/// A large process in words.
fn large(one: &LargeProcess) -> String {
    format!("{} (pid {}) with {}", short(&one.name), one.pid, one.rss)
}

/// The largest in a line, where they were looked up.
pub(super) fn largest_words(largest: &[LargeProcess]) -> Option<String> {
    let all: Vec<_> = largest.iter().map(large).collect();
    (!all.is_empty()).then(|| format!("largest: {}", all.join(", ")))
}

fn facts_of(host: &HostReading) -> Vec<String> {
    let memory = host.memory;
    let mut facts = vec![format!("host: {} of {} available", memory.available, memory.total)];
    if memory.swap_total.0 > 0 {
        facts.push(format!("swap: {} of {} free", memory.swap_free, memory.swap_total));
    } else {
        facts.push("no swap".to_owned());
    }
    if let (Some(limit), Some(used)) = (host.cgroup.memory, host.cgroup.memory_used) {
        let whose = if host.cgroup.binds_database { "PostgreSQL's" } else { "own" };
        facts.push(format!("{whose} control group: {used} of {limit} used, without the page cache that goes first"));
    }
    if let Some(pressure) = host.memory_pressure {
        facts.push(format!(
            "stalled for memory: some tasks in {}, all in {} of the time",
            percent(pressure.some),
            percent(pressure.full)
        ));
    }
    facts
}

impl Rule for MemoryLow {
    fn id(&self) -> &'static str {
        model::alert::rule::MEMORY_LOW
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Memory of {} low", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Host(host)) = observation else { return None };
        let verdict = self.verdict(host, room(host)?);
        self.host = Some(host.clone());
        let weight = cpu::weight(host.window)?;
        Some(Judgement { window: host.window, weight, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some((host, room)) = self.host.as_ref().and_then(|host| Some((host, room(host)?))) else {
            return Facts::default();
        };
        let mut details = facts_of(host);
        let mut largest: Vec<_> = host.processes.iter().collect();
        largest.sort_by_key(|process| std::cmp::Reverse(process.rss));
        details.extend(
            largest
                .iter()
                .take(NAMED_PROCESSES)
                .map(|p| format!("{} (pid {}) holds {} resident", cpu::role(&p.role), p.id.pid, p.rss)),
        );
        details.extend(largest_words(&host.largest));
        let top = host.largest.first();
        let mut labels =
            BTreeMap::from([("limit".to_owned(), if room.of == Whose::Host { "host" } else { "cgroup" }.to_owned())]);
        if let Some(top) = top {
            labels.insert(label::PID.to_owned(), top.pid.to_string());
            labels.insert("process".to_owned(), top.name.clone());
        }
        Facts {
            summary: format!(
                "Memory of {} low: {} of {} left to {} ({:.0} %){}",
                subject.host,
                room.available,
                room.total,
                room.whose(),
                room.percent(),
                top.map(|top| format!("; largest: {}", large(top))).unwrap_or_default()
            ),
            details,
            labels,
            next_steps: steps(&[
                "find what grew: `ps -eo pid,rss,cmd --sort=-rss | head` on the host",
                "stop or restart that process yourself, before the kernel kills the largest one, which may be PostgreSQL",
                "if it is PostgreSQL: fewer connections, or a lower work_mem for the role that runs the large query",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.host.as_ref().map(facts_of).unwrap_or_default()
    }
}
