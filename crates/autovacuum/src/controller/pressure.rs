//! What the readings say about pressure on the database's CPUs.

use std::time::Duration;

use model::{Moment, ProcessId};

use super::{Facts, Limits, State, choose};

/// Weight of a new reading in the smoothed canary.
const CANARY_WEIGHT: f64 = 0.4;
/// Weight of a new reading in the canary's quiet latency: slow, for it is the yardstick.
const QUIET_WEIGHT: f64 = 0.1;

/// The pressure at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    /// CPUs that the database may run on.
    pub cpus: f64,
    /// Their busy share.
    pub busy: f64,
    /// Cores that vacuum uses.
    pub vacuum: f64,
    /// Cores that governable vacuums of large tables use.
    pub governable: f64,
    /// CPU pressure.
    pub pressure: Option<f64>,
    /// Tasks that wait for a CPU at that instant.
    pub queued: f64,
    /// Whether the canary is slow.
    pub canary_slow: bool,
    /// Whether one reading is enough.
    pub strong: bool,
    /// Where the host reading's window began.
    pub window_start: Moment,
    /// Where it ended.
    pub at: Moment,
    /// The canary's latency in milliseconds, smoothed.
    pub canary_ms: Option<f64>,
}

impl Picture {
    /// `None` where readings are missing or too old to act on.
    pub(super) fn of(facts: &Facts<'_>, next: &mut State, limits: &Limits) -> Option<Self> {
        let host = facts.host.filter(|host| facts.now.since(host.at) <= limits.host_lost)?;
        let activity = facts.activity.filter(|activity| facts.now.since(activity.at) <= limits.activity_lost)?;
        let (cpus, shares) = host.cpu_for_database();
        let (cpus, busy) = (f64::from(cpus.max(1)), shares.busy().0);
        let took = activity.took.as_secs_f64() * 1000.0;
        if next.canary_at != Some(activity.at) {
            next.canary_at = Some(activity.at);
            next.canary_ms = Some(smooth(next.canary_ms, took, CANARY_WEIGHT));
            if busy < limits.room && next.hold.is_none() {
                next.canary_quiet_ms = Some(smooth(next.canary_quiet_ms, took, QUIET_WEIGHT));
            }
        }
        let floor = limits.canary_floor.as_secs_f64() * 1000.0;
        let slow_from = next.canary_quiet_ms.unwrap_or(0.0).mul_add(limits.canary_factor, 0.0).max(floor);
        // The run queue is the whole host's and counts running tasks too: what runs anywhere does not wait.
        let running = host.cpu.busy().0 * f64::from(host.cpus);
        let pressure = host.cpu_pressure.map(|p| p.some.0);
        let governable = facts
            .workers
            .iter()
            .filter(|w| w.protection.is_none() && choose::is_large(w, limits))
            .map(|w| w.cpu.0)
            .sum();
        Some(Self {
            cpus,
            busy,
            vacuum: facts.workers.iter().map(|w| w.cpu.0).sum(),
            governable,
            pressure,
            queued: (f64::from(host.run_queue) - running.ceil()).max(0.0),
            canary_slow: took >= slow_from,
            strong: pressure.is_some_and(|p| p >= limits.pressure_strong) || took >= 2.0 * slow_from,
            window_start: before(host.at, host.window),
            at: host.at,
            canary_ms: next.canary_ms,
        })
    }

    /// Saturated, with vacuum as a cause, and somebody waits. Where the kernel hides PSI the run queue stands in for it; where it
    /// is there, the queue of one instant is not asked, for it is noise.
    pub(super) fn pressing(&self, limits: &Limits) -> bool {
        let waits = self.pressure.map_or(self.queued >= 1.0, |p| p >= limits.pressure) || self.canary_slow;
        self.saturated(limits) && self.governable >= limits.substantial * self.cpus && waits
    }

    /// Whether the database's CPUs are saturated.
    pub(super) fn saturated(&self, limits: &Limits) -> bool {
        self.busy >= limits.saturated
    }

    /// Cores that everybody but vacuum uses.
    pub(super) fn others(&self) -> f64 {
        (self.busy * self.cpus - self.vacuum).max(0.0)
    }

    /// One sentence with the figures.
    pub(super) fn in_words(&self, workers: &[ProcessId], facts: &Facts<'_>) -> String {
        let named: Vec<String> = facts
            .workers
            .iter()
            .filter(|w| workers.contains(&w.process))
            .map(|w| {
                let table = w.table.as_ref().map_or("an unknown table", |t| t.as_str());
                format!("{table} in {} (pid {}, {} of a core)", w.database, w.process.pid, w.cpu)
            })
            .collect();
        let mut waits = Vec::new();
        if let Some(pressure) = self.pressure {
            waits.push(format!("CPU pressure {:.0} %", pressure * 100.0));
        }
        if self.queued >= 1.0 {
            waits.push(format!("{:.0} tasks queue", self.queued));
        }
        if let Some(canary) = self.canary_ms {
            waits.push(format!("our own query takes {canary:.0} ms"));
        }
        format!(
            "the database's {:.0} CPU(s) are {:.0} % busy, vacuum uses {:.0} % of them: {}; {}",
            self.cpus,
            self.busy * 100.0,
            self.vacuum / self.cpus * 100.0,
            named.join(", "),
            waits.join(", ")
        )
    }
}

fn smooth(old: Option<f64>, new: f64, weight: f64) -> f64 {
    old.map_or(new, |old| old + (new - old) * weight)
}

fn before(at: Moment, window: Duration) -> Moment {
    let us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    Moment { wall: at.wall.saturating_sub(window).unwrap_or(at.wall), boot_us: at.boot_us.saturating_sub(us) }
}
