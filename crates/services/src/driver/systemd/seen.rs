//! What systemd says of a unit, as what a driver sees. Pure.
//!
//! The words are those of org.freedesktop.systemd1(5): `LoadState`, `ActiveState`, and `SubState`, which differs from kind to kind.

use std::{collections::HashMap, time::Duration};

use zbus::Variant;

use crate::{
    driver::Seen,
    health::{Answer, Process, Progress},
    probe::progress,
};

/// `ExecMainCode` where the process ended by itself: waitid(2)'s `CLD_EXITED`.
const CLD_EXITED: i32 = 1;
/// systemd's "for ever".
const NEVER: u64 = u64::MAX;

/// The properties that count. What a systemd doesn't have, because it is old or the unit is no service, is as if it said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its own name: another one where it was asked for by an alias.
    pub id: String,
    pub load_state: String,
    /// Why it could not be loaded.
    pub load_error: String,
    pub active_state: String,
    pub sub_state: String,
    pub result: String,
    /// A queued or running job.
    pub job: Option<String>,
    pub invocation: Vec<u8>,
    pub restarts: u32,
    pub main_status: i32,
    pub main_code: i32,
    /// All times are on the monotonic clock, in microseconds; zero: not in this boot.
    pub main_exit_us: u64,
    pub left_inactive_us: u64,
    pub changed_us: u64,
    pub restart_us: Option<u64>,
    /// The next wait, where waits grow (systemd 254).
    pub restart_next_us: Option<u64>,
    /// Whether a condition was tried in this boot and did not hold.
    pub condition_failed: bool,
    pub status_text: String,
}

impl Unit {
    pub fn of(all: &HashMap<&str, Variant<'_>>) -> Self {
        let text = |name: &str| match all.get(name) {
            Some(Variant::Str(text)) => text.as_str().to_owned(),
            _ => String::new(),
        };
        let u64_of = |name: &str| match all.get(name) {
            Some(Variant::U64(number)) => Some(*number),
            _ => None,
        };
        let i32_of = |name: &str| match all.get(name) {
            Some(Variant::I32(number)) => *number,
            _ => 0,
        };
        let wait = |name: &str| u64_of(name).filter(|time| *time != NEVER);
        Self {
            id: text("Id"),
            load_state: text("LoadState"),
            load_error: match all.get("LoadError") {
                Some(Variant::Structure(parts)) => match parts.fields().get(1) {
                    Some(Variant::Str(text)) => text.as_str().to_owned(),
                    _ => String::new(),
                },
                _ => String::new(),
            },
            active_state: text("ActiveState"),
            sub_state: text("SubState"),
            result: text("Result"),
            job: match all.get("Job") {
                Some(Variant::Structure(parts)) => match parts.fields() {
                    [Variant::U32(id), Variant::ObjectPath(path)] if *id != 0 => Some(path.as_str().to_owned()),
                    _ => None,
                },
                _ => None,
            },
            invocation: match all.get("InvocationID") {
                Some(Variant::Array(bytes)) => bytes
                    .iter()
                    .filter_map(|byte| match byte {
                        Variant::U8(byte) => Some(*byte),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            },
            restarts: match all.get("NRestarts") {
                Some(Variant::U32(number)) => *number,
                _ => 0,
            },
            main_status: i32_of("ExecMainStatus"),
            main_code: i32_of("ExecMainCode"),
            main_exit_us: u64_of("ExecMainExitTimestampMonotonic").unwrap_or(0),
            left_inactive_us: u64_of("InactiveExitTimestampMonotonic").unwrap_or(0),
            changed_us: u64_of("StateChangeTimestampMonotonic").unwrap_or(0),
            restart_us: wait("RestartUSec"),
            restart_next_us: wait("RestartUSecNext"),
            condition_failed: all.get("ConditionResult") == Some(&Variant::Bool(false))
                && u64_of("ConditionTimestampMonotonic").unwrap_or(0) != 0,
            status_text: text("StatusText"),
        }
    }

    /// Whether systemd waits before it starts it again.
    pub fn waits_to_restart(&self) -> bool {
        self.active_state == "activating" && self.sub_state.starts_with("auto-restart")
    }

    /// Whether it failed: perhaps because it was started too often for systemd's taste, which `Result` tells only where nothing else went wrong before.
    pub fn failed(&self) -> bool {
        self.active_state == "failed"
    }

    /// Whether it failed for no other reason than that.
    pub fn hit_start_limit(&self) -> bool {
        self.failed() && self.result == "start-limit-hit"
    }

    /// Whether its job has yet to begin is only asked where that matters.
    pub fn is_down(&self) -> bool {
        matches!(self.active_state.as_str(), "inactive" | "failed")
    }

    /// What tells this run from the one before.
    fn run(&self) -> Option<u64> {
        if let Some(id) = self.invocation.first_chunk::<8>() {
            let number = u64::from_le_bytes(*id);
            if number != 0 {
                return Some(number);
            }
        }
        // A systemd before 232. Restarts of a unit come later than its start.
        (self.left_inactive_us != 0).then(|| self.left_inactive_us.saturating_add(u64::from(self.restarts)))
    }

    fn ended(&self) -> Process {
        let by_itself = self.main_exit_us != 0 && self.main_code == CLD_EXITED;
        Process::Ended { code: by_itself.then_some(self.main_status) }
    }

    /// When its next start is due, on the boot clock.
    fn due(&self, slept: Duration) -> Option<Duration> {
        let wait = self.restart_next_us.or(self.restart_us)?;
        let due = Duration::from_micros(self.changed_us.checked_add(wait)?);
        (self.changed_us != 0).then(|| due.saturating_add(slept))
    }
}

/// What a driver sees. `job`: the kind of a queued job of a unit that is down, where there is one. `slept`: how far the boot clock is ahead of the monotonic one,
/// on which systemd counts.
pub(super) fn seen(unit: &Unit, job: Option<&str>, slept: Duration) -> Seen {
    let (process, health) = match unit.active_state.as_str() {
        // What runs runs, whatever became of its file.
        "active" => (Process::Running, Some(Answer::Healthy)),
        // It may or may not serve meanwhile: its probes tell.
        "reloading" | "refreshing" => (Process::Running, None),
        "activating" if unit.waits_to_restart() => (Process::BackingOff { until: unit.due(slept) }, None),
        "activating" => (Process::Running, Some(Answer::Starting)),
        "deactivating" => (Process::Running, Some(Answer::Stopping)),
        "inactive" | "failed" => (down(unit, job), None),
        other => (Process::Unknown { why: format!("systemd calls {} '{other}'", unit.id) }, None),
    };
    let runs = process == Process::Running;
    let masked = unit.load_state == "masked" && !runs;
    let said = || -> Option<Progress> { progress(&unit.status_text) };
    Seen {
        run: if runs { unit.run() } else { None },
        progress: (health == Some(Answer::Starting)).then(said).flatten(),
        stopped_by: masked.then(|| format!("whoever masked {} (systemctl unmask {0})", unit.id)),
        process,
        health,
    }
}

fn down(unit: &Unit, job: Option<&str>) -> Process {
    match unit.load_state.as_str() {
        "not-found" => Process::Removed,
        "masked" => unit.ended(),
        // It will start by itself as soon as what systemd orders before it is done.
        "loaded" | "merged" if matches!(job, Some("start" | "restart" | "verify-active")) => {
            Process::BackingOff { until: None }
        }
        "loaded" | "merged" => unit.ended(),
        state => {
            let why = if unit.load_error.is_empty() { state } else { unit.load_error.as_str() };
            Process::Unknown { why: format!("systemd can't load {}: {why}", unit.id) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(load: &str, active: &str, sub: &str) -> Unit {
        let text = str::to_owned;
        Unit {
            id: text("site.service"),
            load_state: text(load),
            active_state: text(active),
            sub_state: text(sub),
            result: text("success"),
            invocation: vec![7, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9],
            changed_us: 5_000_000,
            restart_us: Some(2_000_000),
            ..Unit::default()
        }
    }

    fn exited(unit: Unit, code: i32, status: i32) -> Unit {
        Unit { main_exit_us: 4_000_000, main_code: code, main_status: status, ..unit }
    }

    fn look(unit: &Unit) -> Seen {
        seen(unit, None, Duration::ZERO)
    }

    #[test]
    fn states_of_units() {
        let loaded = |active: &str, sub: &str| unit("loaded", active, sub);
        let ended = |code| Process::Ended { code };
        let due = |seconds| Process::BackingOff { until: Some(Duration::from_secs(seconds)) };
        let never = Unit { changed_us: 0, ..loaded("inactive", "dead") };
        let grows = Unit { restart_next_us: Some(30_000_000), ..loaded("activating", "auto-restart") };
        for (unit, expected, healthy) in [
            (loaded("active", "running"), Process::Running, Some(Answer::Healthy)),
            // A oneshot with RemainAfterExit.
            (exited(loaded("active", "exited"), 1, 0), Process::Running, Some(Answer::Healthy)),
            (loaded("active", "mounted"), Process::Running, Some(Answer::Healthy)),
            (unit("not-found", "active", "running"), Process::Running, Some(Answer::Healthy)),
            (loaded("reloading", "reload"), Process::Running, None),
            (loaded("activating", "start-pre"), Process::Running, Some(Answer::Starting)),
            (loaded("activating", "start"), Process::Running, Some(Answer::Starting)),
            (exited(loaded("activating", "auto-restart"), 1, 3), due(7), None),
            (loaded("activating", "auto-restart-queued"), due(7), None),
            (grows, due(35), None),
            (never, ended(None), None),
            (exited(loaded("inactive", "dead"), 1, 0), ended(Some(0)), None),
            (exited(loaded("failed", "failed"), 1, 7), ended(Some(7)), None),
            // Killed by a signal, or dumped.
            (exited(loaded("failed", "failed"), 2, 9), ended(None), None),
            (exited(loaded("failed", "failed"), 3, 11), ended(None), None),
            (unit("not-found", "inactive", "dead"), Process::Removed, None),
            (exited(unit("masked", "inactive", "dead"), 1, 0), ended(Some(0)), None),
        ] {
            let seen = look(&unit);
            assert_eq!((&seen.process, &seen.health), (&expected, &healthy), "{unit:?}");
            assert_eq!(seen.run, (expected == Process::Running).then_some(7), "{unit:?}");
        }
        let stops = look(&loaded("deactivating", "stop-sigterm"));
        assert_eq!((stops.process, stops.health), (Process::Running, Some(Answer::Stopping)));
    }

    #[test]
    fn what_cannot_be_told_says_why() {
        for (load, active, error, expected) in [
            ("bad-setting", "inactive", "no ExecStart=", "no ExecStart="),
            ("error", "failed", "", "error"),
            ("loaded", "maintenance", "", "maintenance"),
            ("loaded", "", "", "''"),
        ] {
            let unit = Unit { load_error: error.to_owned(), ..unit(load, active, "dead") };
            let Process::Unknown { why } = look(&unit).process else { panic!("{unit:?}") };
            assert!(why.contains(expected) && why.contains("site.service"), "{why}");
        }
    }

    #[test]
    fn a_mask_is_somebodys_will() {
        assert!(look(&unit("masked", "inactive", "dead")).stopped_by.unwrap().contains("masked site.service"));
        assert_eq!(look(&unit("masked", "active", "running")).stopped_by, None, "it runs on until it is stopped");
        assert_eq!(look(&unit("loaded", "inactive", "dead")).stopped_by, None);
    }

    #[test]
    fn a_queued_start_is_waited_for() {
        let waits = unit("loaded", "inactive", "dead");
        for (job, expected) in [
            (Some("start"), Process::BackingOff { until: None }),
            (Some("restart"), Process::BackingOff { until: None }),
            (Some("stop"), Process::Ended { code: None }),
            (None, Process::Ended { code: None }),
        ] {
            assert_eq!(seen(&waits, job, Duration::ZERO).process, expected, "{job:?}");
        }
        // A masked one's job fails.
        let masked = unit("masked", "inactive", "dead");
        assert_eq!(seen(&masked, Some("start"), Duration::ZERO).process, Process::Ended { code: None });
    }

    #[test]
    fn the_boot_clock_runs_while_the_host_sleeps() {
        let waits = unit("loaded", "activating", "auto-restart");
        let seen = seen(&waits, None, Duration::from_secs(100));
        assert_eq!(seen.process, Process::BackingOff { until: Some(Duration::from_secs(107)) });
        for unknown in [
            Unit { restart_us: None, ..waits.clone() },
            Unit { changed_us: 0, ..waits.clone() },
            Unit { restart_us: Some(NEVER - 1), ..waits },
        ] {
            assert_eq!(look(&unknown).process, Process::BackingOff { until: None }, "{unknown:?}");
        }
    }

    #[test]
    fn runs_are_told_apart_without_an_invocation_too() {
        let old = Unit { invocation: vec![], left_inactive_us: 100, ..unit("loaded", "active", "running") };
        let run = |unit: &Unit| look(unit).run;
        assert_eq!(run(&old), Some(100));
        assert_ne!(run(&Unit { restarts: 1, ..old.clone() }), run(&old));
        assert_eq!(run(&Unit { left_inactive_us: 0, ..old.clone() }), None);
        assert_eq!(run(&Unit { invocation: vec![0; 16], ..old }), Some(100), "none yet");
    }

    #[test]
    fn a_start_says_how_far_it_is() {
        let starts = unit("loaded", "activating", "start");
        let told = |text: &str| look(&Unit { status_text: text.to_owned(), ..starts.clone() }).progress;
        assert_eq!(told("progress: loading shards 3"), Some(Progress { phase: "loading shards".into(), done: 3 }));
        assert_eq!(told("loading"), None);
    }

    #[test]
    fn properties_of_any_kind_and_none() {
        assert_eq!(Unit::of(&HashMap::new()), Unit::default());
        // What has another type than it should is as if it weren't there.
        let all = HashMap::from([
            ("ActiveState", Variant::from("active")),
            ("NRestarts", Variant::from("many")),
            ("InvocationID", Variant::from(vec![1_u8, 2])),
            ("RestartUSec", Variant::from(u64::MAX)),
            ("LoadError", Variant::from(("a.b", "no such file"))),
            ("ConditionResult", Variant::from(false)),
        ]);
        let unit = Unit::of(&all);
        assert_eq!((unit.active_state.as_str(), unit.restarts, unit.restart_us), ("active", 0, None));
        assert_eq!(
            (unit.invocation.len(), unit.load_error.as_str(), unit.condition_failed),
            (2, "no such file", false)
        );
    }
}
