//! Rule `cpu-saturated`.
//!
//! *Why*: a database whose CPUs are all taken answers late, then not at all, and health checks that time out restart what was
//! not broken. The outage that this program exists for began like that, and nobody had an alert on it.
//! *Source*: `/proc/stat` over windows of a second, of the CPUs that the postmaster may run on; that something *waits* for them
//! is shown by PSI, or by the run queue where the kernel hides PSI. A busy CPU for which nobody waits is well used, not saturated.
//! *First things to do*: see what takes the CPU; hold vacuums if it is vacuums; end the query if it is one.

use std::time::Duration;

use model::{
    Observation, Reading, Severity, Share,
    reading::{HostReading, ProcessRole},
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{percent, plural},
};
use crate::settings::{self, duration};

/// Windows shorter than this say nothing: a few clock ticks are 0 % or 100 %.
const MIN_WINDOW: Duration = Duration::from_millis(300);

/// A longer window stands for one reading only: the host was suspended rather than starved, and its shares are those of the
/// little time in which it ran.
const MAX_STARVED_WINDOW: Duration = Duration::from_secs(10);

/// A hole of this length in the readings breaks a row of saturated ones.
pub(super) const MAX_GAP: Duration = Duration::from_secs(3);

/// Busiest processes that an alert names.
const NAMED_PROCESSES: usize = 3;

/// The unit in which saturated time is counted: half of the second that the settings call a window, so that a host that is
/// sampled twice a second is judged sooner, and one that is sampled once a second as before.
const HALF_WINDOW: Duration = Duration::from_millis(500);

/// Half windows that must be saturated in a row for `windows` of the settings. The half that is let off is the one in which the
/// saturation began: it is never seen whole.
pub(super) fn half_windows(windows: u32) -> u32 {
    windows.saturating_mul(2).saturating_sub(1).max(1)
}

/// How many half windows a reading stands for. While the host starves, the sampler starves too: one window of three seconds at
/// 100 % says as much as three of one second. `None` where the window is too short to judge.
pub(super) fn weight(window: Duration) -> Option<u32> {
    if window < MIN_WINDOW {
        return None;
    }
    if window > MAX_STARVED_WINDOW {
        return Some(1);
    }
    let rounded = (window + HALF_WINDOW / 2).as_millis() / HALF_WINDOW.as_millis();
    Some(u32::try_from(rounded).unwrap_or(1).max(1))
}

/// Tasks that run or want to, without the sampler itself, which always runs when it looks.
pub(super) fn runnable(host: &HostReading) -> u32 {
    host.run_queue.saturating_sub(1)
}

/// Whether tasks wait for a CPU.
pub(super) fn waits_for_cpu(host: &HostReading, settings: &settings::CpuSaturated) -> bool {
    let pressed = host.cpu_pressure.is_some_and(|p| p.some.0 * 100.0 >= settings.pressure_percent);
    pressed || runnable(host) > host.cpu_for_database().0
}

/// Facts about the CPUs that several rules tell.
pub(super) fn cpu_facts(host: &HostReading) -> Vec<String> {
    let (cpus, shares) = host.cpu_for_database();
    let mut facts = vec![format!(
        "{} for the database: {} busy over the last {:.1} s (user {}, system {}, steal {})",
        plural(cpus, "CPU", "CPUs"),
        percent(shares.busy()),
        host.window.as_secs_f64(),
        percent(Share(shares.user + shares.nice)),
        percent(Share(shares.system + shares.irq)),
        percent(Share(shares.steal)),
    )];
    if cpus < host.cpus {
        facts.push(format!("whole host: {} of {} CPUs busy", percent(host.cpu.busy()), host.cpus));
    }
    facts.push(format!("{} or wait for a CPU", plural(runnable(host), "task runs", "tasks run")));
    if let Some(pressure) = host.cpu_pressure {
        facts.push(format!("tasks stalled for a CPU in {} of the time", percent(pressure.some)));
    }
    facts
}

/// The rule's state.
pub(super) struct CpuSaturated {
    settings: settings::CpuSaturated,
    gate: Gate,
    host: Option<HostReading>,
}

impl CpuSaturated {
    pub(super) fn new(settings: settings::CpuSaturated) -> Self {
        let gate = Gate::new(Confirmation {
            readings: half_windows(settings.windows),
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, host: None }
    }
}

impl Rule for CpuSaturated {
    fn id(&self) -> &'static str {
        model::alert::rule::CPU_SATURATED
    }

    fn title(&self, subject: &Subject) -> String {
        format!("CPU of {} saturated", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Host(host)) = observation else { return None };
        let weight = weight(host.window)?;
        let busy = host.cpu_for_database().1.busy().0 * 100.0;
        let verdict = if busy >= self.settings.busy_percent && waits_for_cpu(host, &self.settings) {
            // Warning: it is not yet known that anybody is hurt. The rules that know (postgres-down, vacuum-starves-host) are critical.
            Verdict::Bad(Severity::Warning)
        } else if busy < self.settings.clear_percent {
            Verdict::Good
        } else {
            Verdict::Between
        };
        self.host = Some(host.clone());
        Some(Judgement { at: host.at, since: None, window: host.window, weight, verdict })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(host) = &self.host else { return Facts::default() };
        let (cpus, shares) = host.cpu_for_database();
        let mut details = cpu_facts(host);
        details.extend(host.processes.iter().take(NAMED_PROCESSES).map(|process| {
            format!("{} (pid {}) uses {} of one core", role(&process.role), process.id.pid, process.cpu)
        }));
        Facts {
            summary: format!(
                "CPU of {} saturated: {} busy, {} for {}",
                subject.host,
                percent(shares.busy()),
                plural(runnable(host), "task", "tasks"),
                plural(cpus, "CPU", "CPUs"),
            ),
            details,
            labels: [("cpus".to_owned(), cpus.to_string())].into(),
            next_steps: steps(&[
                "see who takes the CPU: `oxpecker status`, then `top` on the host",
                "if it is vacuums: `oxpecker vacuum status` shows them and whether they are held",
                "if it is one query: find its pid in pg_stat_activity and end it with `SELECT pg_cancel_backend(pid)`",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.host.as_ref().map(cpu_facts).unwrap_or_default()
    }
}

/// What a process is, in words.
pub(super) fn role(role: &ProcessRole) -> String {
    match role {
        ProcessRole::Guard => "this guard".into(),
        ProcessRole::Postmaster => "the postmaster".into(),
        ProcessRole::Postgres(kind) => format!("PostgreSQL's {kind}"),
        ProcessRole::Service(name) => format!("service {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starved_samplers_long_window_stands_for_several() {
        for (ms, expected) in [
            (100, None),
            (300, Some(1)),
            (500, Some(1)),
            (749, Some(1)),
            (1_000, Some(2)),
            (1_499, Some(3)),
            (3_100, Some(6)),
            (60_000, Some(1)),
        ] {
            assert_eq!(weight(Duration::from_millis(ms)), expected, "{ms} ms");
        }
    }
}
