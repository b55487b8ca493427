//! Rule `memory-filling`.
//!
//! *Why*: at the end of memory the kernel kills, and it chooses the largest. Minutes before, one can still choose oneself.
//! *Source*: what is available to the host, or under the guard's own control group's limit, along a line through the last two minutes;
//! and which watched processes grew meanwhile.
//! *First things to do*: see who grows; end that query or that program; lower what each connection may take.

use std::time::Duration;

use model::{
    ByteSize, Moment, Observation, Reading, Severity,
    alert::rule,
    reading::{HostReading, LargeProcess, ProcessReading},
};

use super::{
    cpu,
    forecast::History,
    gate::{Confirmation, Gate, Judgement, Verdict},
    memory::{Room, Whose, largest_words, room},
    rule::{Facts, Rule, Subject, steps},
    text::span,
};
use crate::settings::{self, duration};

const STEP: Duration = Duration::from_secs(5);
const OVER: Duration = Duration::from_secs(120);
/// How well the points must lie along their line: memory that is only used comes back.
const FIT: f64 = 0.9;
const READINGS: u32 = 3;
/// Processes that an alert names.
const NAMED: usize = 3;

#[derive(Clone, Debug)]
struct Finding {
    room: Room,
    left: Option<Duration>,
    rate: f64,
    /// Who grew, and by how much, most first.
    who: Vec<(ProcessReading, ByteSize)>,
    /// Who holds most on the host, whoever's process it is.
    largest: Box<[LargeProcess]>,
}

/// The rule's state.
pub(super) struct MemoryFilling {
    settings: settings::MemoryFilling,
    gate: Gate,
    available: History,
    of: Whose,
    /// The processes of about two minutes ago, and those of up to two minutes before.
    before: [Option<(Moment, Vec<ProcessReading>)>; 2],
    finding: Option<Finding>,
}

impl MemoryFilling {
    pub(super) fn new(settings: settings::MemoryFilling) -> Self {
        let gate = Gate::new(Confirmation {
            readings: READINGS,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: cpu::MAX_GAP,
        });
        Self {
            settings,
            gate,
            available: History::new(STEP, OVER),
            of: Whose::Host,
            before: [None, None],
            finding: None,
        }
    }

    fn grew(&self, host: &HostReading) -> Vec<(ProcessReading, ByteSize)> {
        let base = self.before.iter().flatten().next();
        let grew = |process: &ProcessReading| {
            let before = base?.1.iter().find(|before| before.id == process.id).map_or(0, |before| before.rss.0);
            let by = process.rss.0.saturating_sub(before);
            (by > 0).then(|| (process.clone(), ByteSize(by)))
        };
        let mut who: Vec<_> = host.processes.iter().filter_map(grew).collect();
        who.sort_by_key(|(_, by)| std::cmp::Reverse(*by));
        who.truncate(NAMED);
        who
    }

    fn remember(&mut self, host: &HostReading) {
        let due = self.before[1].as_ref().is_none_or(|(at, _)| host.at.since(*at) >= OVER);
        if due {
            self.before[0] = self.before[1].take();
            self.before[1] = Some((host.at, host.processes.clone()));
        }
    }
}

impl Rule for MemoryFilling {
    fn id(&self) -> &'static str {
        rule::MEMORY_FILLING
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Memory of {} running out", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Host(host)) = observation else { return None };
        let room = room(host)?;
        if std::mem::replace(&mut self.of, room.of) != room.of {
            self.available.clear();
        }
        self.available.push(host.at, room.available.0 as f64);
        let line = self.available.line(OVER).filter(|line| line.fit >= FIT && line.per_second < 0.0);
        let left = line.and_then(|line| line.until(0.0));
        let within = |factor: f64| left.is_some_and(|left| left <= duration(self.settings.full_within_s * factor));
        let verdict = if within(1.0) && room.percent() < self.settings.forecast_below_percent {
            Verdict::Bad(Severity::Warning)
        } else if within(1.5) {
            Verdict::Between
        } else {
            Verdict::Good
        };
        let rate = line.map_or(0.0, |line| -line.per_second);
        self.finding = Some(Finding { room, left, rate, who: self.grew(host), largest: host.largest.clone() });
        self.remember(host);
        Some(Judgement { window: host.window, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(Finding { room, left, rate, who, largest }) = &self.finding else { return Facts::default() };
        let left = left.map(span).unwrap_or_default();
        let rate = ByteSize(duration(*rate).as_secs());
        let mut details = vec![format!(
            "{} of {} available to {}, {rate}/s less, by the last {}",
            room.available,
            room.total,
            room.whose(),
            span(OVER)
        )];
        details.extend(who.iter().map(|(process, by)| {
            let role = cpu::role(&process.role);
            format!("{role} (pid {}) grew by {by} to {} resident, shared memory included", process.id.pid, process.rss)
        }));
        details.extend(largest_words(largest));
        if who.is_empty() {
            details.push(
                "no process of PostgreSQL or of a declared service grew: it is something else on the host".to_owned(),
            );
        }
        let labels = who.first().map(|(process, _)| (model::alert::label::PID.to_owned(), process.id.pid.to_string()));
        let top =
            who.first().map(|(process, _)| format!(", {} (pid {}) grows", cpu::role(&process.role), process.id.pid));
        Facts {
            summary: format!(
                "Memory of {} gone in {left} at {rate}/s: {} left{}",
                subject.host,
                room.available,
                top.unwrap_or_default()
            ),
            details,
            labels: labels.into_iter().collect(),
            next_steps: steps(&[
                "see who grows: `ps -eo pid,rss,cmd --sort=-rss | head` twice, some seconds apart",
                "a backend of PostgreSQL: `SELECT pg_cancel_backend(pid)`; a program: stop it before the kernel chooses",
                "lower what each may take: work_mem and hash_mem_multiplier of the role, the service's memory limit",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        let line = |finding: &Finding| format!("{} of {} available", finding.room.available, finding.room.total);
        self.finding.iter().map(line).collect()
    }
}
