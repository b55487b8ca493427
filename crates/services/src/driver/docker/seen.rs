//! What an engine's word about containers says of their service.

use super::{
    answer::{Inspected, State},
    error::plain,
    memory::Stop,
};
use crate::{
    driver::Seen,
    health::{Answer, Process},
};

/// Who stopped what was stopped with the engine's own means: it does not know the name.
const BY_SOMEBODY: &str = "somebody, with the engine's own means";
/// Who paused.
const BY_PAUSE: &str = "somebody who paused it";

/// One container. `remembers`: the engine starts again, also after a boot, what nobody stopped. `stops`: runs that we stopped ourselves.
pub(super) fn of(found: &Inspected, remembers: bool, stops: &[Stop]) -> Seen {
    let state = &found.state;
    let run = found.started();
    let ended = || Process::Ended { code: run.and(state.exit_code).and_then(|code| i32::try_from(code).ok()) };
    let process = match state.status.as_str() {
        "running" | "paused" | "stopping" => Process::Running,
        "restarting" => Process::BackingOff { until: None },
        // `configured`, `initialized` and `stopped` are Podman's.
        "created" | "exited" | "configured" | "initialized" | "stopped" => ended(),
        // Its removal failed half-way: nothing can start it any more.
        "dead" => Process::Removed,
        "removing" => Process::Unknown { why: "the engine is removing it".to_owned() },
        other => Process::Unknown { why: format!("the engine says that it is '{}'", plain(other)) },
    };
    let by_us = || stops.iter().any(|stop| stop.id == found.id && Some(stop.started) == run);
    let stopped_by = match state.status.as_str() {
        "paused" => Some(BY_PAUSE.to_owned()),
        "exited" if remembers && found.is_always_restarted() && run.is_some() && !failed(state) && !by_us() => {
            Some(BY_SOMEBODY.to_owned())
        }
        _ => None,
    };
    let health = match process {
        Process::Running => health(state),
        Process::Ended { .. } if failed(state) => {
            let why = plain(state.error.as_deref().unwrap_or_default());
            Some(Answer::Unhealthy { why: format!("its start failed: {why}") })
        }
        _ if state.oom_killed => Some(Answer::Unhealthy { why: "it was killed for want of memory".to_owned() }),
        _ => None,
    };
    Seen { run, health, stopped_by, ..Seen::of(process) }
}

/// Whether its last start failed: the engine gives such a one up, though nobody stopped it.
fn failed(state: &State) -> bool {
    state.error.as_deref().is_some_and(|error| !error.is_empty())
}

fn health(state: &State) -> Option<Answer> {
    let health = state.health.as_ref()?;
    match health.status.as_str() {
        "healthy" => Some(Answer::Healthy),
        "starting" => Some(Answer::Starting),
        "unhealthy" => {
            let last = health.log.as_ref().and_then(|log| log.last());
            let why = match last {
                Some(last) => {
                    let code = last.exit_code.map_or_else(String::new, |code| format!(" with code {code}"));
                    let output = plain(last.output.as_deref().unwrap_or_default());
                    let output = if output.is_empty() { output } else { format!(": {output}") };
                    format!("its check fails{code}{output}")
                }
                None => "its check fails".to_owned(),
            };
            Some(Answer::Unhealthy { why })
        }
        // None is declared.
        _ => None,
    }
}

/// All containers of one service. Those that somebody stopped are left out where others go on: it was scaled down.
pub(super) fn of_all(all: impl IntoIterator<Item = Seen>) -> Seen {
    let (wanted, stopped): (Vec<Seen>, Vec<Seen>) = all.into_iter().partition(|one| one.stopped_by.is_none());
    // What is left of a removal matters only where nothing else is there.
    let (dead, wanted): (Vec<Seen>, Vec<Seen>) = wanted.into_iter().partition(|one| one.process == Process::Removed);
    if wanted.is_empty() {
        let newest = stopped.into_iter().max_by_key(|one| one.run);
        return newest.or_else(|| dead.into_iter().next()).unwrap_or_else(|| Seen::of(Process::Removed));
    }
    let rank = |one: &Seen| match one.process {
        Process::Running => 0,
        Process::Removed | Process::Damaged { .. } => 1,
        Process::Ended { .. } => 2,
        Process::BackingOff { .. } => 3,
        Process::Unknown { .. } => 4,
    };
    let run = wanted.iter().filter_map(|one| one.run).max();
    let answers: Vec<Answer> = wanted.iter().filter_map(|one| one.health.clone()).collect();
    let health = (!answers.is_empty()).then(|| Answer::of_all(answers));
    let gravest = wanted.into_iter().max_by_key(rank);
    let process = gravest.map_or(Process::Removed, |one| one.process);
    Seen { run, health, ..Seen::of(process) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = "2026-11-23T14:08:45Z";
    const RUN: u64 = 1_795_442_925_000_000_000;

    fn container(policy: &str, state: &serde_json::Value) -> Inspected {
        let json = serde_json::json!({
            "Id": "ab", "State": state, "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}}
        });
        serde_json::from_value(json).unwrap()
    }

    fn state(status: &str, code: i64) -> serde_json::Value {
        serde_json::json!({"Status": status, "ExitCode": code, "Error": "", "StartedAt": STARTED})
    }

    #[test]
    fn states_of_a_container() {
        let ended = |code| Process::Ended { code };
        for (status, code, expected) in [
            ("running", 0, Process::Running),
            ("paused", 0, Process::Running),
            ("restarting", 3, Process::BackingOff { until: None }),
            ("exited", 137, ended(Some(137))),
            ("exited", 0, ended(Some(0))),
            ("stopped", 1, ended(Some(1))),
            ("exited", i64::MAX, ended(None)),
            ("dead", 0, Process::Removed),
        ] {
            let seen = of(&container("no", &state(status, code)), true, &[]);
            assert_eq!((seen.process, seen.run), (expected, Some(RUN)), "{status}");
        }
        let created = serde_json::json!({"Status": "created", "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z"});
        assert_eq!(of(&container("always", &created), true, &[]), Seen::of(ended(None)));
        for status in ["removing", "", "\u{1b}[31m"] {
            let seen = of(&container("no", &state(status, 0)), true, &[]);
            let Process::Unknown { why } = seen.process else { panic!("{seen:?}") };
            assert!(!why.contains('\u{1b}'));
        }
    }

    #[test]
    fn who_stopped_it() {
        let by = |policy, state: serde_json::Value, remembers, stops: &[Stop]| {
            of(&container(policy, &state), remembers, stops).stopped_by
        };
        for policy in ["always", "unless-stopped"] {
            assert!(by(policy, state("exited", 137), true, &[]).is_some());
            assert_eq!(by(policy, state("exited", 137), false, &[]), None, "Podman starts nothing after a boot");
            let ours = Stop { id: "ab".into(), started: RUN };
            assert_eq!(by(policy, state("exited", 137), true, std::slice::from_ref(&ours)), None);
            let before = Stop { started: RUN - 1, ..ours };
            assert!(by(policy, state("exited", 0), true, &[before]).is_some(), "another run");
            let mut failed = state("exited", 128);
            failed["Error"] = "port is already allocated".into();
            let seen = of(&container(policy, &failed), true, &[]);
            assert_eq!(seen.stopped_by, None, "its start failed");
            assert!(matches!(seen.health, Some(Answer::Unhealthy { why }) if why.contains("port")));
            assert_eq!(by(policy, state("restarting", 1), true, &[]), None);
        }
        for policy in ["no", "on-failure", ""] {
            assert_eq!(by(policy, state("exited", 0), true, &[]), None);
        }
        assert!(by("no", state("paused", 0), true, &[]).is_some());
    }

    #[test]
    fn its_check_of_health() {
        let health = |health: serde_json::Value| {
            let mut state = state("running", 0);
            state["Health"] = health;
            of(&container("no", &state), true, &[]).health
        };
        assert_eq!(health(serde_json::Value::Null), None);
        assert_eq!(health(serde_json::json!({"Status": "none"})), None);
        assert_eq!(health(serde_json::json!({"Status": "starting", "Log": []})), Some(Answer::Starting));
        assert_eq!(health(serde_json::json!({"Status": "healthy"})), Some(Answer::Healthy));
        let log =
            serde_json::json!([{"ExitCode": 0, "Output": "ok"}, {"ExitCode": 7, "Output": "no \u{1b}[31mroute\n"}]);
        let why = "its check fails with code 7: no  [31mroute".to_owned();
        let sick = health(serde_json::json!({"Status": "unhealthy", "Log": log}));
        assert_eq!(sick, Some(Answer::Unhealthy { why }));
    }

    #[test]
    fn of_several_all_have_to_be_well() {
        let one = |process| Seen { run: Some(1), health: Some(Answer::Healthy), ..Seen::of(process) };
        let running = || one(Process::Running);
        let sick = Seen { health: Some(Answer::Unhealthy { why: "503".into() }), run: Some(7), ..running() };
        let ended = one(Process::Ended { code: Some(1) });
        let stopped = Seen { stopped_by: Some("x".into()), ..ended.clone() };
        assert_eq!(of_all([]), Seen::of(Process::Removed));
        assert_eq!(of_all([running(), running()]), running());
        assert_eq!(of_all([running(), sick.clone()]), sick);
        assert_eq!(of_all([running(), ended.clone()]).process, ended.process);
        assert_eq!(
            of_all([one(Process::BackingOff { until: None }), ended]).process,
            Process::BackingOff { until: None }
        );
        assert_eq!(of_all([running(), stopped.clone()]), running(), "scaled down");
        assert_eq!(of_all([stopped.clone(), one(Process::Removed)]), stopped);
        assert_eq!(of_all([one(Process::Removed), running()]), running());
        let unknown = of_all([running(), Seen::unknown("no answer")]);
        assert!(matches!(unknown.process, Process::Unknown { .. }));
    }
}
