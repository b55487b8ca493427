//! `[shedding]`: which rungs the ladder has, how far each may go, and what counts as critical.
//!
//! What is left out keeps the default of crate `policy`, each rung its own.

use model::{ByteSize, Mode};
use policy::{RungSettings, Settings, Thresholds};
use serde::{Deserialize, Serialize};

use super::{Config, HumanBytes, HumanDuration};

/// Sets what is written, and leaves the rest.
macro_rules! lay {
    ($from:expr => $onto:expr; $($key:ident),* $(; times $($time:ident),*)?) => {
        $(if let Some(value) = $from.$key { $onto.$key = value; })*
        $($(if let Some(value) = $from.$time { $onto.$time = value.0; })*)?
    };
}

/// `[shedding]`: the ladder. See `docs/src/concepts/shedding.md`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shedding {
    /// How far to go; default: the general mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How long there must be calm before the first rung is given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calm_for: Option<HumanDuration>,
    /// Where the doubling of that by relapses ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calm_max: Option<HumanDuration>,
    /// A rung that is needed again so soon after it was given back is a relapse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relapse_within: Option<HumanDuration>,
    /// Least time between two rungs given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_down_every: Option<HumanDuration>,
    /// Age of a database in transactions from which none of its vacuums is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_below_age: Option<u64>,
    /// Rung 1: the governor holds vacuums.
    pub throttle_vacuum: RungKeys,
    /// Rung 2: backups and proofs stand back.
    pub pause_own_work: RungKeys,
    /// Rung 3: a vacuum is ended.
    pub cancel_vacuum: RungKeys,
    /// Rung 4: services marked `shed` are stopped.
    pub stop_services: RungKeys,
    /// Rung 5: PostgreSQL is stopped.
    pub stop_postgres: RungKeys,
    /// Who approved that PostgreSQL may be stopped: a name and a date. Without it that is never done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_postgres_approved_by: Option<String>,
    /// What counts as critical, and what as calm.
    pub thresholds: ThresholdKeys,
}

/// `[shedding.RUNG]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RungKeys {
    /// Whether the ladder has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<bool>,
    /// How far it may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How long the pressure must be critical before it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<HumanDuration>,
    /// How long it has to help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<HumanDuration>,
    /// Least time between giving it back and taking it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<HumanDuration>,
    /// How often it may be taken in any 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_day: Option<u32>,
    /// The longest that it stays in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest: Option<HumanDuration>,
}

/// `[shedding.thresholds]`: where pressure is critical and where it is calm, in this order; shares are parts of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdKeys {
    /// Busy share of the database's CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_busy: Option<(f64, f64)>,
    /// Share of the time in which some task waits for a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stalled: Option<(f64, f64)>,
    /// Tasks that run or wait, for each CPU, where the kernel hides PSI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_per_cpu: Option<(f64, f64)>,
    /// Share of the memory that is available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_left: Option<(f64, f64)>,
    /// However small the share, so much is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_ample: Option<HumanBytes>,
    /// Share of the time in which all tasks wait for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stalled: Option<(f64, f64)>,
    /// Share of the time in which all tasks wait for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_stalled: Option<(f64, f64)>,
    /// How long PostgreSQL takes to answer a small query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<(HumanDuration, HumanDuration)>,
    /// The sampler's window from which it is starved itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starved_window: Option<HumanDuration>,
    /// A window longer than this is a suspended host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_window: Option<HumanDuration>,
    /// Age of the newest reading from which the ladder is blind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_lost: Option<HumanDuration>,
    /// Age of the newest answer from which PostgreSQL counts as silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_lost: Option<HumanDuration>,
}

/// Keys of [`ThresholdKeys`] that the ladder may find wrong.
const THRESHOLDS: [&str; 7] =
    ["cpu_busy", "cpu_stalled", "queue_per_cpu", "memory_left", "memory_stalled", "io_stalled", "answer"];

impl RungKeys {
    fn lay_over(&self, rung: &mut RungSettings) {
        lay!(self => rung; declared, mode, per_day; times confirm, patience, cooldown, longest);
    }
}

impl ThresholdKeys {
    fn lay_over(&self, onto: &mut Thresholds) {
        lay!(self => onto; cpu_busy, cpu_stalled, queue_per_cpu, memory_left, memory_stalled, io_stalled;
            times starved_window, suspended_window, host_lost, activity_lost);
        if let Some((critical, calm)) = self.answer {
            onto.answer = (critical.0, calm.0);
        }
        if let Some(ample) = self.memory_ample {
            onto.memory_ample = ByteSize(ample.0);
        }
    }
}

impl Config {
    /// The ladder as declared.
    pub fn shedding(&self) -> Settings {
        let keys = &self.shedding;
        let mut settings = Settings {
            mode: keys.mode.unwrap_or(self.mode),
            stop_postgres_approved_by: keys.stop_postgres_approved_by.clone().filter(|by| !by.trim().is_empty()),
            ..Settings::default()
        };
        lay!(keys => settings; cancel_below_age; times calm_for, calm_max, relapse_within, step_down_every);
        keys.throttle_vacuum.lay_over(&mut settings.throttle_vacuum);
        keys.pause_own_work.lay_over(&mut settings.pause_own_work);
        keys.cancel_vacuum.lay_over(&mut settings.cancel_vacuum);
        keys.stop_services.lay_over(&mut settings.stop_services);
        keys.stop_postgres.lay_over(&mut settings.stop_postgres);
        keys.thresholds.lay_over(&mut settings.thresholds);
        settings
    }

    /// What is wrong with it: place, what, and what to do.
    pub(super) fn shedding_problems(&self) -> Vec<(String, String, &'static str)> {
        let mut problems = Vec::new();
        let settings = self.shedding();
        if let Err(error) = settings.check() {
            let below = if THRESHOLDS.contains(&error.key.as_str()) { "thresholds." } else { "" };
            let place = format!("shedding.{below}{}", error.key);
            problems.push((place, error.why.to_owned(), error.hint));
        }
        if settings.stop_postgres.declared && settings.stop_postgres_approved_by.is_none() {
            problems.push((
                "shedding.stop_postgres".to_owned(),
                "is declared, and nobody approved it: it would never be taken".to_owned(),
                "write who did: stop_postgres_approved_by = \"NAME, DATE\" in [shedding]; or leave the rung out",
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_is_laid_over_each_rungs_own_defaults() {
        let text = "mode = \"act\"\n[shedding]\ncalm_for = \"5s\"\nstop_postgres_approved_by = \"eva, 2026-11-23\"\n\
                    stop_postgres = { declared = true, per_day = 2 }\n[shedding.thresholds]\nmemory_left = [0.05, 0.2]\nanswer = [\"2s\", \"500ms\"]";
        let config: Config = toml::from_str(text).unwrap();
        let (settings, defaults) = (config.shedding(), Settings::default());
        assert_eq!(config.shedding_problems(), []);
        assert_eq!((settings.mode, settings.calm_for), (Mode::Act, Duration::from_secs(5)));
        assert_eq!(settings.stop_postgres, RungSettings { declared: true, per_day: 2, ..defaults.stop_postgres });
        assert_eq!(settings.thresholds.memory_left, (0.05, 0.2));
        assert_eq!(settings.thresholds.answer, (Duration::from_secs(2), Duration::from_millis(500)));
        assert_eq!(Config::default().shedding(), defaults);
        // As the workers are told.
        let told: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(told.shedding(), settings);
    }

    #[test]
    fn what_cannot_work_names_its_key() {
        for (text, place) in [
            ("[shedding.thresholds]\ncpu_busy = [0.5, 0.9]", "shedding.thresholds.cpu_busy"),
            ("[shedding]\nthrottle_vacuum = { per_day = 0 }", "shedding.throttle_vacuum.per_day"),
            ("[shedding]\ncalm_max = \"1s\"", "shedding.calm_for"),
            ("[shedding]\nstop_postgres = { declared = true }", "shedding.stop_postgres"),
            ("[shedding]\nstop_postgres_approved_by = \" \"\nstop_postgres.declared = true", "shedding.stop_postgres"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let problems = config.shedding_problems();
            assert_eq!(problems.iter().map(|(at, ..)| at.as_str()).collect::<Vec<_>>(), [place], "{text}");
        }
        assert!(toml::from_str::<Config>("[shedding]\nrung = 1").is_err());
    }
}
