//! What the newest readings say about the host: critical, calm, or between.

use std::{fmt, time::Duration};

use model::{
    ByteSize, Moment,
    reading::{ActivityReading, HostReading},
};
use serde::{Deserialize, Serialize};

use crate::{
    facts::{Facts, Server},
    settings::Thresholds,
    words::{percent, span},
};

/// How pressed the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// There is room.
    Calm,
    /// Neither: nothing changes.
    Between,
    /// Somebody is hurt, or the host is about to be.
    Critical,
}

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Disks.
    Io,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Io => "disk",
        })
    }
}

/// The reading that caused a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What is short.
    pub resource: Resource,
    /// The figures, for people.
    pub words: String,
    /// When the reading was taken.
    pub at: Moment,
}

/// The host at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub level: Level,
    /// What is short; there while critical.
    pub cause: Option<Cause>,
    /// How things are, for people.
    pub words: String,
    pub at: Moment,
    /// The time that the reading covers.
    pub window: Duration,
}

/// How something measures against its two thresholds, where more is worse.
fn more(value: f64, (critical, calm): (f64, f64)) -> Level {
    if value >= critical {
        Level::Critical
    } else if value >= calm {
        Level::Between
    } else {
        // Also what is no number: nobody can say that it is much.
        Level::Calm
    }
}

fn less(value: f64, (critical, calm): (f64, f64)) -> Level {
    if value < critical {
        Level::Critical
    } else if value < calm {
        Level::Between
    } else {
        Level::Calm
    }
}

/// How the database answers; none where it does not run or nobody can say.
enum Answer<'a> {
    Took(&'a ActivityReading),
    Silent(Duration),
    None,
}

impl Picture {
    /// `Err`: what is not seen.
    pub(crate) fn of(facts: &Facts<'_>, thresholds: &Thresholds) -> Result<Self, String> {
        let Some(host) = facts.host else { return Err("no reading of the host yet".to_owned()) };
        let age = facts.now.since(host.at);
        if age > thresholds.host_lost {
            return Err(format!("the newest reading of the host is {} old", span(age)));
        }
        if host.window > thresholds.suspended_window {
            return Err(format!("the host was not sampled for {}: suspended, or worse", span(host.window)));
        }
        let answer = answer(facts, thresholds);
        let (hurt, hurt_words) = hurt(host, &answer, thresholds);
        let cpu = cpu(host, thresholds);
        let memory = memory(host, thresholds);
        let io = host.io_pressure.map_or(Level::Calm, |p| more(p.full.0, thresholds.io_stalled));
        // Where the database does not run, nobody can be hurt by a busy CPU or disk but the sampler.
        let felt = |level: Level| if hurt == Level::Critical { level } else { level.min(Level::Between) };
        let (cpu_felt, io_felt) = (felt(cpu), felt(io));
        let level = memory.max(cpu_felt).max(io_felt).max(hurt.min(Level::Between));
        let resource = match (memory, cpu_felt, io_felt) {
            (Level::Critical, _, _) => Some(Resource::Memory),
            (_, Level::Critical, _) => Some(Resource::Cpu),
            (_, _, Level::Critical) => Some(Resource::Io),
            _ => None,
        };
        let words = match resource {
            Some(Resource::Memory) => memory_words(host),
            Some(Resource::Io) => format!("{}; {hurt_words}", io_words(host)),
            Some(Resource::Cpu) => format!("{}; {hurt_words}", cpu_words(host)),
            None => format!("{}; {}", cpu_words(host), memory_words(host)),
        };
        let cause = resource.map(|resource| Cause { resource, words: words.clone(), at: host.at });
        Ok(Self { level, cause, words, at: host.at, window: host.window })
    }
}

fn answer<'a>(facts: &Facts<'a>, thresholds: &Thresholds) -> Answer<'a> {
    let Some(activity) = facts.activity.filter(|_| facts.server == Server::Serving) else { return Answer::None };
    let age = facts.now.since(activity.at);
    if age > thresholds.activity_lost { Answer::Silent(age) } else { Answer::Took(activity) }
}

fn hurt(host: &HostReading, answer: &Answer<'_>, thresholds: &Thresholds) -> (Level, String) {
    if host.window >= thresholds.starved_window {
        return (Level::Critical, format!("the sampler itself got no CPU for {}", span(host.window)));
    }
    match answer {
        Answer::Silent(age) => (Level::Critical, format!("PostgreSQL has not answered for {}", span(*age))),
        Answer::None => (Level::Calm, "nothing is known of PostgreSQL's answers".to_owned()),
        Answer::Took(activity) => {
            let (critical, calm) = thresholds.answer;
            let level = more(activity.took.as_secs_f64(), (critical.as_secs_f64(), calm.as_secs_f64()));
            let took = activity.took.as_millis();
            (level, format!("PostgreSQL takes {took} ms for a small query"))
        }
    }
}

/// Busy *and* waited for: a full CPU that nobody waits for is well used.
fn cpu(host: &HostReading, thresholds: &Thresholds) -> Level {
    let (cpus, shares) = host.cpu_for_database();
    let waits = match host.cpu_pressure {
        Some(pressure) => more(pressure.some.0, thresholds.cpu_stalled),
        None => more(f64::from(host.run_queue) / f64::from(cpus.max(1)), thresholds.queue_per_cpu),
    };
    more(shares.busy().0, thresholds.cpu_busy).min(waits)
}

/// What is left of memory: available, and of how much.
type Left = (ByteSize, ByteSize);

fn share((available, total): Left) -> f64 {
    available.0 as f64 / total.0 as f64
}

/// Of the host, and of the group whose limit counts, where one does.
fn left(host: &HostReading) -> (Option<Left>, Option<Left>) {
    let memory = host.memory;
    let of_host = (memory.total.0 > 0).then_some((memory.available, memory.total));
    let of_group = match (host.cgroup.memory, host.cgroup.memory_used) {
        (Some(limit), Some(used)) if limit.0 > 0 && limit < memory.total => {
            Some((ByteSize(limit.0.saturating_sub(used.0)), limit))
        }
        _ => None,
    };
    (of_host, of_group)
}

/// The tighter of the host's and that of PostgreSQL's own group: where either is full, it is killed. A group that is ours alone is our own affair.
fn tightest(host: &HostReading) -> Option<(Left, bool)> {
    let (of_host, of_group) = left(host);
    let of_group = of_group.filter(|_| host.cgroup.binds_database);
    let both = of_host.map(|left| (left, false)).into_iter().chain(of_group.map(|left| (left, true)));
    both.min_by(|one, other| share(one.0).total_cmp(&share(other.0)))
}

fn memory(host: &HostReading, thresholds: &Thresholds) -> Level {
    let short = tightest(host).map_or(Level::Calm, |(left, _)| {
        if left.0 >= thresholds.memory_ample { Level::Calm } else { less(share(left), thresholds.memory_left) }
    });
    let (of_host, of_group) = left(host);
    let least = of_host.into_iter().chain(of_group).map(share).fold(1.0, f64::min);
    let stalls = host.memory_pressure.map_or(Level::Calm, |p| more(p.full.0, thresholds.memory_stalled));
    let stalls = if least < thresholds.memory_stalled_below { stalls } else { stalls.min(Level::Between) };
    short.max(stalls)
}

fn cpu_words(host: &HostReading) -> String {
    let (cpus, shares) = host.cpu_for_database();
    let waits = match host.cpu_pressure {
        Some(pressure) => format!("tasks stall {} of the time", percent(pressure.some.0)),
        None => format!("{} tasks run or wait", host.run_queue),
    };
    format!("{} of {cpus} CPUs busy, {waits}", percent(shares.busy().0))
}

fn memory_words(host: &HostReading) -> String {
    let stalls = host.memory_pressure.map(|p| format!(", all tasks stall {} of the time", percent(p.full.0)));
    let ((available, total), of_group) = tightest(host).unwrap_or(((host.memory.available, host.memory.total), false));
    let whose = if of_group { " to PostgreSQL's control group" } else { "" };
    format!("{available} of {total} memory available{whose}{}", stalls.unwrap_or_default())
}

fn io_words(host: &HostReading) -> String {
    let full = host.io_pressure.map_or(0.0, |p| p.full.0);
    format!("all tasks stall for disks {} of the time", percent(full))
}

/// A level that is kept without a break; a break shorter than the blip is none, but doesn't count either.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Streak {
    /// Since when it is at another level, while that may still be a blip.
    pub broken: Option<Moment>,
    /// How long it was at this level, added up.
    pub kept: Duration,
}

impl Streak {
    /// The streak after a reading that covers `window` up to `at`.
    pub(crate) fn next(
        before: Option<Self>,
        holds: bool,
        at: Moment,
        window: Duration,
        blip: Duration,
    ) -> Option<Self> {
        match before {
            None => holds.then_some(Self { broken: None, kept: window }),
            Some(streak) if holds => Some(Self { broken: None, kept: streak.kept.saturating_add(window) }),
            Some(streak) => {
                let broken = streak.broken.unwrap_or_else(|| begin(at, window));
                (at.since(broken) < blip).then_some(Self { broken: Some(broken), ..streak })
            }
        }
    }
}

/// Where a window began.
fn begin(at: Moment, window: Duration) -> Moment {
    let us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    Moment { wall: at.wall.checked_sub(window).unwrap_or(at.wall), boot_us: at.boot_us.saturating_sub(us) }
}
