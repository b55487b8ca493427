//! What the configuration declares: which rungs there are, how far each may go, and every threshold, wait and bound.

use std::time::Duration;

use model::{ByteSize, Mode};
use thiserror::Error;

use crate::rung::Rung;

/// The ladder as declared. The default has two rungs, which nobody outside notices, and carries out nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How far the ladder may go at all. Below `act` every step is only proposed.
    pub mode: Mode,
    /// See [`Rung::ThrottleVacuum`].
    pub throttle_vacuum: RungSettings,
    /// See [`Rung::PauseOwnWork`].
    pub pause_own_work: RungSettings,
    /// See [`Rung::CancelVacuum`].
    pub cancel_vacuum: RungSettings,
    /// See [`Rung::StopServices`]; for each number that services are marked with.
    pub stop_services: RungSettings,
    /// See [`Rung::StopPostgres`].
    pub stop_postgres: RungSettings,
    /// Who approved, in the configuration, that PostgreSQL may be stopped. Nobody: the rung is shown and never taken.
    pub stop_postgres_approved_by: Option<String>,
    /// How long there must be calm before the first rung is given back. Doubled by each relapse.
    pub calm_for: Duration,
    /// Where that doubling ends.
    pub calm_max: Duration,
    /// A rung that is needed again so soon after it was given back was given back too early: a relapse.
    pub relapse_within: Duration,
    /// Least time between two rungs given back: what the one before brought back must show first.
    pub step_down_every: Duration,
    /// An act that shows no effect for so long is lost: the executor was restarted.
    pub shows_within: Duration,
    /// A rung that could not be given back is tried again after this, for ever.
    pub retry_after: Duration,
    /// Age of a database's transaction ids from which none of its vacuums is ended.
    pub cancel_below_age: u64,
    /// Share of the database's CPUs that a vacuum must use for its end to help against a shortage of CPU.
    pub substantial: f64,
    /// What counts as critical, and what as calm.
    pub thresholds: Thresholds,
}

/// One rung as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungSettings {
    /// Whether the ladder has it.
    pub declared: bool,
    /// How far it may go; never further than those below it, nor than the ladder.
    pub mode: Mode,
    /// How long the pressure must have been critical, without a break, before it is taken.
    pub confirm: Duration,
    /// How long it has to help before the next is taken.
    pub patience: Duration,
    /// Least time between giving it back (for an act that is done once: doing it) and taking it again.
    pub cooldown: Duration,
    /// How often it may be taken in any 24 hours.
    pub per_day: u32,
    /// The longest that it stays in force, whatever the pressure.
    pub longest: Duration,
}

/// Where pressure is critical, and where there is calm; between the two nothing changes. Shares are parts of 1.
///
/// A busy CPU for which tasks wait is an ordinary thing: a report, an import. It is critical only where somebody is hurt by it: the
/// database answers a small query late or not at all, or the sampler itself, which runs at raised priority, comes late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Busy share of the database's CPUs, critical and calm.
    pub cpu_busy: (f64, f64),
    /// Share of the time in which some task waited for a CPU (`some` of PSI).
    pub cpu_stalled: (f64, f64),
    /// Tasks that run or wait, for each CPU; where the kernel hides PSI.
    pub queue_per_cpu: (f64, f64),
    /// Share of the memory that is available, critical below and calm above.
    pub memory_left: (f64, f64),
    /// However small the share, so much is enough.
    pub memory_ample: ByteSize,
    /// Share of the time in which all tasks waited for memory (`full` of PSI) ...
    pub memory_stalled: (f64, f64),
    /// ... which counts where less than this share is available: a busy page cache stalls too.
    pub memory_stalled_below: f64,
    /// Share of the time in which all tasks waited for a disk (`full` of PSI).
    pub io_stalled: (f64, f64),
    /// How long the database takes to answer the observer's own query.
    pub answer: (Duration, Duration),
    /// The sampler's window, twice a second or every second otherwise: from this on it is starved itself.
    pub starved_window: Duration,
    /// A window longer than this is a suspended host's, and says nothing.
    pub suspended_window: Duration,
    /// Age of the newest reading of the host from which the ladder is blind.
    pub host_lost: Duration,
    /// Age of the newest answer of a server that should serve from which it counts as silent.
    pub activity_lost: Duration,
    /// A level must be left for so long before it counts as left: one reading is noise.
    pub blip: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const HOUR: u64 = 3600;

impl Default for Settings {
    fn default() -> Self {
        let rung = RungSettings {
            declared: true,
            mode: Mode::Act,
            confirm: seconds(3),
            patience: seconds(10),
            cooldown: seconds(10),
            per_day: 200,
            longest: seconds(HOUR),
        };
        Self {
            mode: Mode::Observe,
            throttle_vacuum: rung,
            pause_own_work: RungSettings {
                confirm: seconds(5),
                patience: seconds(15),
                cooldown: seconds(60),
                per_day: 48,
                longest: seconds(2 * HOUR),
                ..rung
            },
            cancel_vacuum: RungSettings {
                declared: false,
                confirm: seconds(15),
                patience: seconds(20),
                cooldown: seconds(600),
                per_day: 3,
                ..rung
            },
            stop_services: RungSettings {
                confirm: seconds(20),
                patience: seconds(60),
                cooldown: seconds(900),
                per_day: 4,
                ..rung
            },
            stop_postgres: RungSettings {
                declared: false,
                confirm: seconds(60),
                patience: seconds(60),
                cooldown: seconds(6 * HOUR),
                per_day: 1,
                longest: seconds(900),
                ..rung
            },
            stop_postgres_approved_by: None,
            calm_for: seconds(60),
            calm_max: seconds(1800),
            relapse_within: seconds(600),
            step_down_every: seconds(30),
            shows_within: seconds(15),
            retry_after: seconds(30),
            cancel_below_age: 500_000_000,
            substantial: 0.15,
            thresholds: Thresholds::default(),
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cpu_busy: (0.97, 0.85),
            cpu_stalled: (0.60, 0.40),
            queue_per_cpu: (3.0, 2.0),
            memory_left: (0.04, 0.10),
            memory_ample: ByteSize(4 << 30),
            memory_stalled: (0.20, 0.05),
            memory_stalled_below: 0.25,
            io_stalled: (0.60, 0.30),
            answer: (seconds(1), Duration::from_millis(400)),
            starved_window: seconds(3),
            suspended_window: seconds(10),
            host_lost: seconds(5),
            // Its pace is stretched to 10 s where it is dear, and an answer may take three more.
            activity_lost: seconds(15),
            blip: seconds(3),
        }
    }
}

/// A setting that can't work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("shedding.{key}: {why}. Hint: {hint}")]
pub struct SettingsError {
    /// The key below `shedding`.
    pub key: String,
    /// What is wrong with it.
    pub why: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// More acts on one rung in a day than this can't be meant; it also bounds what the ladder remembers.
pub const PER_DAY_MAX: u32 = 1000;
/// No rung may be held for longer than a day.
pub const LONGEST_MAX: Duration = seconds(24 * HOUR);

impl Settings {
    /// What is declared for a rung.
    pub fn of(&self, rung: Rung) -> &RungSettings {
        match rung {
            Rung::ThrottleVacuum => &self.throttle_vacuum,
            Rung::PauseOwnWork => &self.pause_own_work,
            Rung::CancelVacuum => &self.cancel_vacuum,
            Rung::StopServices(_) => &self.stop_services,
            Rung::StopPostgres => &self.stop_postgres,
        }
    }

    /// Whether all of it can work: thresholds with a gap between critical and calm, and bounds that bound.
    ///
    /// # Errors
    /// The first that can't, with a hint.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (name, rung) in [
            ("throttle_vacuum", &self.throttle_vacuum),
            ("pause_own_work", &self.pause_own_work),
            ("cancel_vacuum", &self.cancel_vacuum),
            ("stop_services", &self.stop_services),
            ("stop_postgres", &self.stop_postgres),
        ] {
            let wrong = |key: &str, why, hint| Err(SettingsError { key: format!("{name}.{key}"), why, hint });
            if rung.per_day == 0 || rung.per_day > PER_DAY_MAX {
                return wrong("per_day", "must be 1 to 1000", "leave the rung out instead of allowing it never");
            }
            if rung.confirm.is_zero() || rung.patience.is_zero() {
                return wrong("patience", "waits can't be zero", "one reading is noise; name a second or more");
            }
            if rung.cooldown.is_zero() {
                return wrong("cooldown", "can't be zero", "without it a rung is taken and given back all the time");
            }
            if rung.longest < rung.patience || rung.longest > LONGEST_MAX {
                return wrong(
                    "longest",
                    "must be from its patience to a day",
                    "a rung must have time to help, and an end",
                );
            }
        }
        let t = &self.thresholds;
        for (key, (critical, calm)) in [
            ("cpu_busy", t.cpu_busy),
            ("cpu_stalled", t.cpu_stalled),
            ("queue_per_cpu", t.queue_per_cpu),
            ("memory_stalled", t.memory_stalled),
            ("io_stalled", t.io_stalled),
            ("answer", (t.answer.0.as_secs_f64(), t.answer.1.as_secs_f64())),
            ("memory_left", (t.memory_left.1, t.memory_left.0)),
        ] {
            // Written so that what is no number fails too.
            let gap = critical > calm && calm > 0.0;
            if !gap {
                return Err(SettingsError {
                    key: key.to_owned(),
                    why: "critical and calm must be apart, and above zero",
                    hint: "leave a gap between the two, or every wobble becomes a step",
                });
            }
        }
        let waits = [self.calm_for, self.step_down_every, self.retry_after, self.shows_within, t.host_lost, t.blip];
        if waits.iter().any(Duration::is_zero) || self.calm_max < self.calm_for {
            return Err(SettingsError {
                key: "calm_for".to_owned(),
                why: "waits can't be zero, and calm_max not below calm_for",
                hint: "the defaults are 60 s and 30 min",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_work_and_carry_out_nothing() {
        let settings = Settings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(settings.mode, Mode::Observe);
        assert!(!settings.cancel_vacuum.declared && !settings.stop_postgres.declared);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_hint() {
        type Case = (&'static str, fn(&mut Settings));
        let wrong: [Case; 9] = [
            ("throttle_vacuum.per_day", |s| s.throttle_vacuum.per_day = 0),
            ("stop_services.per_day", |s| s.stop_services.per_day = PER_DAY_MAX + 1),
            ("cancel_vacuum.patience", |s| s.cancel_vacuum.confirm = Duration::ZERO),
            ("stop_postgres.cooldown", |s| s.stop_postgres.cooldown = Duration::ZERO),
            ("stop_postgres.longest", |s| s.stop_postgres.longest = Duration::from_secs(90_000)),
            ("cpu_busy", |s| s.thresholds.cpu_busy = (0.9, 0.95)),
            ("memory_left", |s| s.thresholds.memory_left = (0.2, 0.1)),
            ("io_stalled", |s| s.thresholds.io_stalled = (f64::NAN, 0.1)),
            ("calm_for", |s| s.calm_max = Duration::from_secs(1)),
        ];
        for (key, change) in wrong {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.check().unwrap_err();
            assert_eq!(error.key, key);
            assert!(error.to_string().contains("Hint: "), "{error}");
        }
    }

    #[test]
    fn the_manual_has_the_same_figures() {
        let manual = include_str!("../../../docs/src/concepts/shedding.md");
        let settings = Settings::default();
        let t = settings.thresholds;
        let time = |time: Duration| match time.as_secs() {
            seconds if seconds >= 3600 => format!("{} h", seconds / 3600),
            seconds if seconds >= 600 => format!("{} min", seconds / 60),
            seconds => format!("{seconds} s"),
        };
        let line = |rung: &RungSettings, longest: bool| {
            let times = if rung.per_day == 1 { "once".to_owned() } else { format!("{} times", rung.per_day) };
            let longest = if longest { time(rung.longest) + " " } else { String::new() };
            let waits = [rung.confirm, rung.patience, rung.cooldown].map(time).join(" | ");
            format!("| {waits} | {times} | {longest}|")
        };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        for said in [
            line(&settings.throttle_vacuum, true),
            line(&settings.pause_own_work, true),
            line(&settings.cancel_vacuum, false),
            line(&settings.stop_services, true),
            line(&settings.stop_postgres, true),
            format!("may use are {} busy", percent(t.cpu_busy.0)),
            format!("tasks wait for them {} of the time", percent(t.cpu_stalled.0)),
            format!("not answered for {}", time(t.activity_lost)),
            format!("got no CPU for {}", time(t.starved_window)),
            format!("less than {} is available (and less than 4 GiB)", percent(t.memory_left.0)),
            format!(
                "memory {} of the time while less than {}",
                percent(t.memory_stalled.0),
                percent(t.memory_stalled_below)
            ),
            format!("stall for them {} of the time", percent(t.io_stalled.0)),
            format!("within less than {}", time(t.blip)),
            format!("After {} of calm (CPUs below {} busy", time(settings.calm_for), percent(t.cpu_busy.1)),
            format!("{} of the memory or 4 GiB", percent(t.memory_left.1)),
            format!("answers below {} ms", t.answer.1.as_millis()),
            format!("with {} between two rungs", time(settings.step_down_every)),
            format!("within {} minutes was", settings.relapse_within.as_secs() / 60),
            format!("up to {} minutes", settings.calm_max.as_secs() / 60),
            format!("again every {}", time(settings.retry_after)),
            format!("the host for {} means", time(t.host_lost)),
            format!("{} million transactions old", settings.cancel_below_age / 1_000_000),
        ] {
            assert!(manual.contains(&said), "the manual does not say: {said}");
        }
        assert_eq!((t.answer.0, t.memory_ample, t.queue_per_cpu.0), (seconds(1), ByteSize(4 << 30), 3.0));
        assert_eq!((settings.relapse_within + settings.calm_for).as_secs(), 11 * 60);
    }
}
