//! What is seen of a service, as data, and what a run of such observations amounts to.
//!
//! Two things are kept apart. What a *driver* says of the process: it runs, ended, is held back by its supervisor, or isn't there. And what a *probe* says of its
//! work: healthy or not, or that it is getting there. A third, the functional probe, tells a service that is healthy and wrong.

use std::{collections::VecDeque, time::Duration};

/// Restarts of one service that are remembered: more than any budget allows.
pub const RESTARTS_KEPT: usize = 32;
/// Phases of one start that count as progress: a start that finds new ones for ever isn't advancing.
pub const PHASES_MAX: u32 = 16;

/// What a driver says of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    /// It runs.
    Running,
    /// It doesn't, and nobody is about to start it. The code where it was seen to end.
    Ended {
        /// Its exit code; `None` where it was never started in this boot or was killed.
        code: Option<i32>,
    },
    /// Its supervisor waits before it tries again (systemd's auto-restart, Kubernetes' CrashLoopBackOff).
    BackingOff {
        /// When that wait ends, where the supervisor says so.
        until: Option<Duration>,
    },
    /// There is no such unit, container or directory.
    Removed,
    /// A database that is down, on a data directory that nothing can be started on.
    Damaged {
        /// What is damaged, with the evidence.
        why: String,
        /// What it can be brought back from.
        offer: Offer,
    },
    /// The driver could not tell.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// What a database on a damaged data directory can be brought back from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// For people: what, how old it is, what would be lost, how long it takes, and how it is done by hand; empty where nobody knows.
    pub words: String,
    /// From what it would be restored; `None` where that can't be done from here.
    pub remedy: Option<Remedy>,
}

/// From what a database is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The backup and how far on: what an approval is bound to, the same as long as it is the same.
    pub from: String,
    /// How long its restore was measured to take.
    pub takes: Option<Duration>,
}

/// What a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does its work.
    Healthy,
    /// Not yet, and says so itself.
    Starting,
    /// A database that replays its log after a crash. It rejects connections, and that *is* progress: nothing may restart it.
    Recovering,
    /// It shuts down: a database writes its last checkpoint. Nothing may start, restart or kill it until it is gone.
    Stopping,
    /// It doesn't do its work.
    Unhealthy {
        /// What was answered, or that nothing was.
        why: String,
    },
    /// The probe itself failed: that says nothing of the service.
    Unknown {
        /// Why it failed.
        why: String,
    },
}

impl Answer {
    /// Several probes of one service as one answer: the gravest, where "recovering" and "stopping" are graver than "unhealthy" because they forbid a restart.
    pub fn of_all(answers: impl IntoIterator<Item = Self>) -> Self {
        let rank = |answer: &Self| match answer {
            Self::Healthy => 0,
            Self::Unknown { .. } => 1,
            Self::Starting => 2,
            Self::Unhealthy { .. } => 3,
            Self::Recovering => 4,
            Self::Stopping => 5,
        };
        let gravest = answers.into_iter().max_by_key(rank);
        gravest.unwrap_or_else(|| Self::Unknown { why: "no probe is configured".to_owned() })
    }
}

/// Work that can be counted while a service isn't ready: replayed bytes, opened shards, CPU time used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done. A new phase starts a new count.
    pub phase: String,
    /// How much of it is done; only that it grows matters.
    pub done: u64,
}

/// One look at one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When, on the boot clock.
    pub at: Duration,
    /// What the driver says.
    pub process: Process,
    /// What tells this run from the one before: the start's time or number. `None` where the driver can't tell.
    pub run: Option<u64>,
    /// What the health probes say.
    pub answer: Answer,
    /// What the functional probe says; `None` where there is none.
    pub function: Option<Answer>,
    /// How far a start has come.
    pub progress: Option<Progress>,
}

impl Observation {
    /// Whether it says anything of the service.
    pub fn tells(&self) -> bool {
        match self.process {
            Process::Unknown { .. } => false,
            Process::Running => !matches!(self.answer, Answer::Unknown { .. }),
            Process::Ended { .. } | Process::BackingOff { .. } | Process::Removed | Process::Damaged { .. } => true,
        }
    }
}

/// What is known of a service from all that was seen of it. Its size does not grow with what it saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    latest: Option<Observation>,
    missed: u32,
    missed_why: Option<String>,
    run: Option<u64>,
    run_since: Duration,
    was_healthy: bool,
    healthy_since: Option<Duration>,
    troubled_since: Option<Duration>,
    wrong_since: Option<Duration>,
    wrong_why: Option<String>,
    advanced_at: Duration,
    counted: Option<Progress>,
    phases: u32,
    restarts: VecDeque<Duration>,
}

impl History {
    /// Takes one more observation. `stale_after`: health that went unseen for longer is counted anew.
    ///
    /// One that is older than the latest is ignored: probes overtake one another.
    pub fn observe(&mut self, seen: Observation, stale_after: Duration) {
        if self.latest.as_ref().is_some_and(|latest| seen.at < latest.at) {
            return;
        }
        if !seen.tells() {
            self.missed = self.missed.saturating_add(1);
            self.missed_why = match seen.process {
                Process::Unknown { why } => Some(why),
                _ => match seen.answer {
                    Answer::Unknown { why } => Some(why),
                    _ => None,
                },
            };
            return;
        }
        (self.missed, self.missed_why) = (0, None);
        if self.latest.as_ref().is_some_and(|latest| seen.at.saturating_sub(latest.at) > stale_after) {
            self.healthy_since = None;
        }
        let runs = seen.process == Process::Running;
        if runs {
            self.follow_run(&seen);
            self.follow_progress(&seen);
        }
        if runs && seen.answer == Answer::Healthy {
            self.follow_function(&seen);
            self.was_healthy = true;
            self.troubled_since = None;
        } else {
            self.healthy_since = None;
            self.wrong_since = None;
            self.troubled_since.get_or_insert(seen.at);
        }
        self.latest = Some(seen);
    }

    fn follow_run(&mut self, seen: &Observation) {
        let Some(latest) = &self.latest else {
            self.begin_run(seen);
            return;
        };
        let stood = latest.process != Process::Running;
        let other = self.run.is_some() && seen.run.is_some() && self.run != seen.run;
        if stood || other {
            if self.restarts.len() == RESTARTS_KEPT {
                self.restarts.pop_front();
            }
            self.restarts.push_back(seen.at);
            self.begin_run(seen);
        } else if seen.run.is_some() {
            self.run = seen.run;
        }
    }

    fn begin_run(&mut self, seen: &Observation) {
        self.run = seen.run;
        self.run_since = seen.at;
        self.was_healthy = false;
        self.healthy_since = None;
        self.wrong_since = None;
        self.troubled_since = None;
        self.advanced_at = seen.at;
        self.counted = None;
        self.phases = 0;
    }

    fn follow_progress(&mut self, seen: &Observation) {
        let Some(now) = &seen.progress else { return };
        let advanced = match &self.counted {
            Some(before) if before.phase == now.phase => now.done > before.done,
            _ => {
                self.phases = self.phases.saturating_add(1);
                self.phases <= PHASES_MAX
            }
        };
        if advanced {
            self.advanced_at = seen.at;
            self.counted = Some(now.clone());
        }
    }

    fn follow_function(&mut self, seen: &Observation) {
        match &seen.function {
            Some(Answer::Unhealthy { why }) => {
                self.wrong_since.get_or_insert(seen.at);
                self.wrong_why = Some(why.clone());
            }
            Some(Answer::Healthy) | None => self.wrong_since = None,
            // A functional probe that can't be made, or a service that isn't ready for it, proves nothing either way.
            Some(_) => {}
        }
        if self.wrong_since.is_some() {
            self.healthy_since = None;
        } else {
            self.healthy_since.get_or_insert(seen.at);
        }
    }

    /// The last observation that told something.
    pub fn latest(&self) -> Option<&Observation> {
        self.latest.as_ref()
    }

    /// Observations in a row that told nothing, and why the last one didn't.
    pub fn missed(&self) -> (u32, Option<&str>) {
        (self.missed, self.missed_why.as_deref())
    }

    /// Since when this run is seen.
    pub fn run_since(&self) -> Duration {
        self.run_since
    }

    /// Whether this run was healthy at any time.
    pub fn was_healthy(&self) -> bool {
        self.was_healthy
    }

    /// Since when it is healthy and right without a gap and without a restart.
    pub fn healthy_since(&self) -> Option<Duration> {
        self.healthy_since
    }

    /// Since when it is not healthy.
    pub fn troubled_since(&self) -> Option<Duration> {
        self.troubled_since
    }

    /// Since when it is healthy and wrong, with what its functional probe said.
    pub fn wrong(&self) -> Option<(Duration, &str)> {
        self.wrong_since.map(|since| (since, self.wrong_why.as_deref().unwrap_or_default()))
    }

    /// When this run last advanced; its start counts.
    pub fn advanced_at(&self) -> Duration {
        self.advanced_at
    }

    /// What it counted last.
    pub fn counted(&self) -> Option<&Progress> {
        self.counted.as_ref()
    }

    /// When it was seen to start anew, the last [`RESTARTS_KEPT`] times.
    pub fn restarts(&self) -> impl ExactSizeIterator<Item = Duration> + '_ {
        self.restarts.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(10);

    fn seen(at: u64, answer: Answer) -> Observation {
        Observation {
            at: Duration::from_secs(at),
            process: Process::Running,
            run: Some(1),
            answer,
            function: None,
            progress: None,
        }
    }

    fn sick() -> Answer {
        Answer::Unhealthy { why: "503".into() }
    }

    fn history(all: impl IntoIterator<Item = Observation>) -> History {
        let mut history = History::default();
        all.into_iter().for_each(|one| history.observe(one, STALE));
        history
    }

    fn since(history: &History) -> Option<u64> {
        history.healthy_since().map(|time| time.as_secs())
    }

    #[test]
    fn health_is_counted_without_gap_and_without_restart() {
        let healthy = |at| seen(at, Answer::Healthy);
        assert_eq!(since(&history([healthy(1), healthy(5), healthy(9)])), Some(1));
        assert_eq!(since(&history([healthy(1), seen(5, sick()), healthy(9)])), Some(9));
        assert_eq!(since(&history([healthy(1), healthy(20)])), Some(20), "unseen for too long");
        let restarted = history([healthy(1), Observation { run: Some(2), ..healthy(5) }]);
        assert_eq!((since(&restarted), restarted.restarts().len()), (Some(5), 1), "the probe missed the restart");
        let blind = Answer::Unknown { why: "no route".into() };
        let unseen = history([healthy(1), seen(4, blind), healthy(7)]);
        assert_eq!((since(&unseen), unseen.missed()), (Some(1), (0, None)), "a probe that fails says nothing");
        assert_eq!(since(&history([healthy(5), seen(3, sick())])), Some(5), "overtaken");
    }

    #[test]
    fn a_process_that_stood_still_began_a_new_run() {
        let ended = Observation { process: Process::Ended { code: Some(1) }, run: None, ..seen(3, sick()) };
        let history = history([seen(1, Answer::Healthy), ended, Observation { run: None, ..seen(5, sick()) }]);
        assert_eq!(history.restarts().collect::<Vec<_>>(), [Duration::from_secs(5)]);
        assert!(!history.was_healthy());
    }

    #[test]
    fn progress_must_grow_or_be_new() {
        let at = |at, phase: &str, done| Observation {
            progress: Some(Progress { phase: phase.into(), done }),
            ..seen(at, Answer::Recovering)
        };
        let advanced = |all: Vec<Observation>| history(all).advanced_at().as_secs();
        assert_eq!(advanced(vec![at(1, "redo", 5), at(2, "redo", 6), at(3, "redo", 6), at(4, "redo", 2)]), 2);
        assert_eq!(advanced(vec![at(1, "redo", 5), at(2, "checkpoint", 1)]), 2);
        let flipping = (0..100).map(|second| at(second, if second % 2 == 0 { "a" } else { "b" }, 0)).collect();
        assert!(advanced(flipping) < u64::from(PHASES_MAX), "new names are no progress for ever");
    }

    #[test]
    fn healthy_and_wrong_is_not_healthy() {
        let wrong = |at| Observation { function: Some(sick()), ..seen(at, Answer::Healthy) };
        let right = |at| Observation { function: Some(Answer::Healthy), ..seen(at, Answer::Healthy) };
        let history = history([right(1), wrong(2), wrong(3)]);
        assert_eq!((history.wrong(), since(&history)), (Some((Duration::from_secs(2), "503")), None));
        let unproven = Observation { function: Some(Answer::Unknown { why: "?".into() }), ..seen(4, Answer::Healthy) };
        let mut history = history;
        history.observe(unproven, STALE);
        assert!(history.wrong().is_some(), "what can't be proven is not mended");
        history.observe(right(5), STALE);
        assert_eq!((history.wrong(), since(&history)), (None, Some(5)));
    }

    #[test]
    fn the_gravest_answer_counts() {
        assert_eq!(Answer::of_all([Answer::Healthy, sick(), Answer::Recovering]), Answer::Recovering);
        assert_eq!(Answer::of_all([Answer::Stopping, sick(), Answer::Recovering]), Answer::Stopping);
        assert_eq!(Answer::of_all([Answer::Healthy, sick()]), sick());
        assert!(matches!(Answer::of_all([]), Answer::Unknown { .. }));
    }
}
