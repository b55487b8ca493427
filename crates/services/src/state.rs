//! One word per service, from what was seen of it and of what it needs.

use std::{fmt, time::Duration};

use crate::{
    graph::{Graph, Id, Service},
    health::{Answer, History, Observation, Offer, Process},
};

/// How long the classification waits before it believes something bad. Every wait has its reason; none of them ends in killing what advances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Observations older than this say nothing of now.
    pub stale_after: Duration,
    /// A start that has not advanced for this long is broken; never less than [`STARTS_TIMES`] its expected time, doubled at each further attempt.
    pub without_progress: Duration,
    /// A service that ran well may answer badly for this long before it counts as broken.
    pub unhealthy_for: Duration,
    /// A running service gets this long to find its way back by itself once what it needs is stable again.
    pub self_heal: Duration,
}

/// A start is waited for at least so many times its expected time.
pub const STARTS_TIMES: u32 = 3;
/// The wait is doubled at each further attempt, up to this many times.
const DOUBLED_MAX: u32 = 6;

impl Default for Patience {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(15),
            without_progress: Duration::from_secs(60),
            unhealthy_for: Duration::from_secs(3),
            self_heal: Duration::from_secs(5),
        }
    }
}

/// Whether a service is meant to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Intent {
    /// It is.
    #[default]
    Wanted,
    /// It was stopped on purpose and stays so until whoever stopped it says otherwise.
    Stopped {
        /// Who: a person by name, or the shedding ladder.
        by: String,
    },
}

/// What a service is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Healthy for its time, with no restart in it.
    Stable,
    /// Healthy, not yet for long; or well until a moment ago.
    Settling,
    /// On its way.
    Starting {
        /// Whether it has advanced lately, or still has time to show it.
        advancing: bool,
        /// Whether it is a database in crash recovery, which nothing may restart.
        recovering: bool,
    },
    /// It shuts down by somebody's will, or its supervisor's: whatever comes next waits until it is gone.
    Stopping {
        /// Whether it has advanced lately.
        advancing: bool,
    },
    /// It needs a hand, once what it needs is stable.
    Broken {
        /// What is wrong.
        how: Broken,
    },
    /// What it needs is back, but its supervisor waits on.
    Stuck {
        /// Until when, where that is known.
        until: Option<Duration>,
    },
    /// Healthy, and its functional probe fails.
    Wrong {
        /// What that probe said.
        why: String,
    },
    /// Stopped on purpose.
    Stopped {
        /// By whom.
        by: String,
    },
    /// There is nothing to start: it has to be provisioned.
    Removed,
    /// A database whose data directory is damaged: started on it, it could only fail again. A person decides.
    Damaged {
        /// What is damaged, with the evidence.
        why: String,
        /// What it can be brought back from.
        offer: Offer,
    },
    /// Nothing fresh is known.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// In which way a service is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its process doesn't run.
    Down {
        /// Its exit code, where one was seen.
        code: Option<i32>,
    },
    /// Held back by its supervisor while what it needs isn't stable either.
    HeldBack,
    /// It runs and doesn't get anywhere.
    NoProgress {
        /// For how long.
        since: Duration,
    },
    /// It ran well and answers badly now.
    Unhealthy {
        /// What it answers.
        why: String,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str("stable"),
            Self::Settling => f.write_str("healthy, not yet for long"),
            Self::Starting { recovering: true, advancing: true } => f.write_str("in crash recovery"),
            Self::Starting { recovering: true, advancing: false } => f.write_str("in crash recovery, without progress"),
            Self::Starting { .. } => f.write_str("starting"),
            Self::Stopping { advancing: true } => f.write_str("shutting down"),
            Self::Stopping { advancing: false } => f.write_str("shutting down, without progress"),
            Self::Broken { how: Broken::Down { code: Some(code) } } => write!(f, "down (exit code {code})"),
            Self::Broken { how: Broken::Down { code: None } } => f.write_str("down"),
            Self::Broken { how: Broken::HeldBack } => f.write_str("held back by its supervisor"),
            Self::Broken { how: Broken::NoProgress { since } } => write!(f, "no progress for {} s", since.as_secs()),
            Self::Broken { how: Broken::Unhealthy { why } } => write!(f, "unhealthy: {}", shown(why)),
            Self::Stuck { until: None } => f.write_str("stuck in its supervisor's back-off"),
            Self::Stuck { until: Some(_) } => f.write_str("stuck in its supervisor's back-off until a known time"),
            Self::Wrong { why } => write!(f, "healthy and wrong: {}", shown(why)),
            Self::Stopped { by } => write!(f, "stopped on purpose by {}", shown(by)),
            Self::Removed => f.write_str("removed"),
            Self::Damaged { why, .. } => write!(f, "down, its data directory is damaged: {}", shown(why)),
            Self::Unknown { why } => write!(f, "unknown: {}", shown(why)),
        }
    }
}

/// Characters of words from outside that are kept.
const SHOWN_MAX: usize = 240;

/// Words from outside are shortened, and can neither draw on a terminal nor turn its text round.
pub(crate) fn shown(text: &str) -> String {
    let draws = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown: String = text.chars().take(SHOWN_MAX).map(|c| if draws(c) { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A service's state with the times that the planner goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// When it was last seen; `None` where never.
    pub seen_at: Option<Duration>,
    /// Since when it is as it is.
    pub since: Duration,
    /// Since when it is stable; only where it is.
    pub stable_since: Option<Duration>,
    /// Since when all that it needs is stable; only where it is.
    pub needs_stable_since: Option<Duration>,
    /// Since when its present run is seen.
    pub run_since: Duration,
    /// When a hand would help: `None` while something it needs isn't stable, or where it needs no hand.
    pub act_from: Option<Duration>,
}

/// What one service's classification goes by.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Its declaration.
    pub service: &'a Service,
    /// Whether it is meant to run.
    pub intent: &'a Intent,
    /// What was seen of it.
    pub history: &'a History,
    /// Since when all that it needs is stable; zero where it needs nothing.
    pub needs_stable_since: Option<Duration>,
    /// Attempts in a row that failed.
    pub failed: u32,
    /// Now, on the boot clock.
    pub now: Duration,
}

/// Classifies one service.
pub fn classify(facts: &Facts<'_>, patience: &Patience) -> Status {
    let Facts { service, history, needs_stable_since, now, .. } = *facts;
    let fresh = history.latest().filter(|seen| now.saturating_sub(seen.at) <= patience.stale_after);
    let (state, since, act_from) = match (facts.intent, fresh) {
        (Intent::Stopped { by }, _) => (State::Stopped { by: by.clone() }, now, None),
        (Intent::Wanted, None) => {
            let why = history.missed().1.unwrap_or("not seen lately").to_owned();
            (State::Unknown { why }, history.latest().map_or(Duration::ZERO, |seen| seen.at), None)
        }
        (Intent::Wanted, Some(seen)) => of_seen(facts, seen, patience),
    };
    let stable = state == State::Stable;
    Status {
        stable_since: history.healthy_since().filter(|_| stable).map(|since| since.saturating_add(service.stable_for)),
        state,
        seen_at: history.latest().map(|seen| seen.at),
        since,
        needs_stable_since,
        run_since: history.run_since(),
        act_from,
    }
}

fn of_seen(facts: &Facts<'_>, seen: &Observation, patience: &Patience) -> (State, Duration, Option<Duration>) {
    let (history, now) = (facts.history, facts.now);
    let troubled = history.troubled_since().unwrap_or(seen.at);
    // Whoever waits for a need loses no time of its own.
    let from = |since: Duration, grace: Duration| {
        facts.needs_stable_since.map(|stable| since.max(stable).saturating_add(grace))
    };
    match &seen.process {
        Process::Damaged { why, offer } => {
            (State::Damaged { why: why.clone(), offer: offer.clone() }, troubled, from(troubled, Duration::ZERO))
        }
        Process::Removed => (State::Removed, troubled, from(troubled, Duration::ZERO)),
        Process::Ended { code } => {
            (State::Broken { how: Broken::Down { code: *code } }, troubled, from(troubled, Duration::ZERO))
        }
        Process::BackingOff { .. } if facts.needs_stable_since.is_none() => {
            (State::Broken { how: Broken::HeldBack }, troubled, None)
        }
        Process::BackingOff { until } => {
            // A wait that ends at once anyway is left to end.
            let soon = until.filter(|until| until.saturating_sub(now) <= patience.self_heal);
            let from = from(troubled, Duration::ZERO).map(|from| match soon {
                Some(until) => from.max(until.saturating_add(patience.self_heal)),
                None => from,
            });
            (State::Stuck { until: *until }, troubled, from)
        }
        // `classify` passes on only what tells something.
        Process::Unknown { why } => (State::Unknown { why: why.clone() }, seen.at, None),
        Process::Running => of_running(facts, seen, patience, troubled, &from),
    }
}

fn of_running(
    facts: &Facts<'_>,
    seen: &Observation,
    patience: &Patience,
    troubled: Duration,
    from: &dyn Fn(Duration, Duration) -> Option<Duration>,
) -> (State, Duration, Option<Duration>) {
    let (history, now) = (facts.history, facts.now);
    if seen.answer == Answer::Stopping {
        let waited = now.saturating_sub(history.advanced_at().max(troubled));
        let advancing = waited < patience_for(facts.service, patience, 0);
        return (State::Stopping { advancing }, troubled, None);
    }
    if let Some((since, why)) = history.wrong() {
        return (State::Wrong { why: why.to_owned() }, since, from(since, patience.self_heal));
    }
    if let Some(since) = history.healthy_since() {
        let stable = seen.at.saturating_sub(since) >= facts.service.stable_for;
        return (if stable { State::Stable } else { State::Settling }, since, None);
    }
    let allowed = patience_for(facts.service, patience, facts.failed);
    let base = history.advanced_at().max(facts.needs_stable_since.unwrap_or(now));
    let waited = now.saturating_sub(base);
    if seen.answer == Answer::Recovering {
        let state = State::Starting { advancing: waited < allowed, recovering: true };
        return (state, history.run_since(), None);
    }
    if history.was_healthy() && seen.answer != Answer::Starting {
        if now.saturating_sub(troubled) < patience.unhealthy_for {
            return (State::Settling, troubled, None);
        }
        let why = match &seen.answer {
            Answer::Unhealthy { why } => why.clone(),
            _ => String::new(),
        };
        return (State::Broken { how: Broken::Unhealthy { why } }, troubled, from(troubled, patience.self_heal));
    }
    if waited < allowed {
        return (State::Starting { advancing: true, recovering: false }, history.run_since(), None);
    }
    (State::Broken { how: Broken::NoProgress { since: waited } }, base, from(base, allowed))
}

/// How long a start may go without advancing. Doubled by each failed attempt, or the slow starter would be killed the same way again.
fn patience_for(service: &Service, patience: &Patience, failed: u32) -> Duration {
    let expected = service.starts_in.unwrap_or(crate::graph::STARTS_IN_DEFAULT).saturating_mul(STARTS_TIMES);
    patience.without_progress.max(expected).saturating_mul(1 << failed.min(DOUBLED_MAX))
}

/// Classifies all services, what is needed first. `facts_of` gives each service's intent, history and failed attempts.
pub fn classify_all<'a>(
    graph: &Graph,
    patience: &Patience,
    now: Duration,
    facts_of: impl Fn(Id) -> (&'a Intent, &'a History, u32),
) -> Vec<Status> {
    let mut statuses: Vec<Option<Status>> = vec![None; graph.len()];
    for id in graph.order() {
        let needs = graph.needs(*id).iter();
        let mut stable = needs.map(|need| statuses[need.index()].as_ref().and_then(|status| status.stable_since));
        let needs_stable_since = stable.try_fold(Duration::ZERO, |latest, since| since.map(|since| since.max(latest)));
        let (intent, history, failed) = facts_of(*id);
        let facts = Facts { service: graph.service(*id), intent, history, needs_stable_since, failed, now };
        statuses[id.index()] = Some(classify(&facts, patience));
    }
    // The order has every service once.
    statuses.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Progress;

    fn seen(at: u64, process: Process, answer: Answer) -> Observation {
        Observation { at: Duration::from_secs(at), process, run: None, answer, function: None, progress: None }
    }

    fn sick() -> Answer {
        Answer::Unhealthy { why: "503".into() }
    }

    fn state(seen: &[Observation], needs_stable_since: Option<u64>, now: u64) -> (State, Option<u64>) {
        let mut history = History::default();
        for one in seen {
            history.observe(one.clone(), Patience::default().stale_after);
        }
        let service = Service::new("site").starts_in(Duration::from_secs(10));
        let needs_stable_since = needs_stable_since.map(Duration::from_secs);
        let now = Duration::from_secs(now);
        let intent = Intent::Wanted;
        let facts = Facts { service: &service, intent: &intent, history: &history, needs_stable_since, failed: 0, now };
        let status = classify(&facts, &Patience::default());
        (status.state, status.act_from.map(|time| time.as_secs()))
    }

    fn running(seconds: impl IntoIterator<Item = u64>, answer: &Answer) -> Vec<Observation> {
        seconds.into_iter().map(|at| seen(at, Process::Running, answer.clone())).collect()
    }

    #[test]
    fn states() {
        use Process::{BackingOff, Ended, Removed};
        let down = |code| State::Broken { how: Broken::Down { code } };
        let starting = |advancing, recovering| State::Starting { advancing, recovering };
        let one = |process| vec![seen(100, process, sick())];
        let wait = |until: u64| BackingOff { until: Some(Duration::from_secs(until)) };
        for (what, seen, needs, now, expected, act_from) in [
            ("down", one(Ended { code: Some(1) }), Some(0), 101, down(Some(1)), Some(100)),
            ("down, needs just back", one(Ended { code: None }), Some(101), 101, down(None), Some(101)),
            ("down, needs not back", one(Ended { code: None }), None, 101, down(None), None),
            ("held back", one(wait(400)), None, 101, State::Broken { how: Broken::HeldBack }, None),
            ("stuck", one(wait(400)), Some(0), 101, State::Stuck { until: Some(Duration::from_secs(400)) }, Some(100)),
            ("soon", one(wait(103)), Some(0), 101, State::Stuck { until: Some(Duration::from_secs(103)) }, Some(108)),
            ("removed", one(Removed), Some(0), 101, State::Removed, Some(100)),
            ("settling", running([100, 103], &Answer::Healthy), Some(0), 103, State::Settling, None),
            ("stable", running([100, 105], &Answer::Healthy), Some(0), 105, State::Stable, None),
            ("starting", running([100, 105], &sick()), Some(0), 110, starting(true, false), None),
            ("old start, needs just back", running([0, 500], &sick()), Some(499), 501, starting(true, false), None),
            ("recovering", running([100], &Answer::Recovering), Some(0), 101, starting(true, true), None),
            (
                "recovering, still",
                running([0, 14, 28, 42, 56, 70], &Answer::Recovering),
                Some(0),
                70,
                starting(false, true),
                None,
            ),
        ] {
            assert_eq!(state(&seen, needs, now), (expected, act_from), "{what}");
        }
        for (until, advancing) in [(101, true), (180, false)] {
            let well = running([90], &Answer::Healthy);
            let seen: Vec<_> = well.into_iter().chain(running(100..=until, &Answer::Stopping)).collect();
            assert_eq!(state(&seen, Some(0), until), (State::Stopping { advancing }, None), "nothing is done to it");
            assert_eq!(state(&seen, None, until).1, None);
        }
        assert!(matches!(state(&one(Removed), Some(0), 200).0, State::Unknown { .. }), "stale");
        assert!(matches!(state(&[], Some(0), 200).0, State::Unknown { .. }), "never seen");
    }

    #[test]
    fn a_slow_starter_is_waited_for_while_it_advances_and_not_longer() {
        let at = |second: u64, done: u64| Observation {
            progress: Some(Progress { phase: "load".into(), done }),
            ..seen(second, Process::Running, sick())
        };
        let slow: Vec<_> = (0..600).step_by(10).map(|second| at(second, second)).collect();
        assert!(matches!(state(&slow, Some(0), 600).0, State::Starting { advancing: true, .. }));
        let hung: Vec<_> = (0..100).step_by(10).map(|second| at(second, 7)).collect();
        let (state, act_from) = state(&hung, Some(0), 90);
        assert!(matches!(state, State::Broken { how: Broken::NoProgress { .. } }), "{state}");
        assert_eq!(act_from, Some(60));
    }

    #[test]
    fn what_fails_with_its_need_gets_time_to_find_back() {
        let mut seen = running([90, 95], &Answer::Healthy);
        seen.extend(running([100, 104], &sick()));
        assert_eq!(state(&seen, Some(0), 101).0, State::Settling, "one bad answer is no failure");
        let unhealthy = State::Broken { how: Broken::Unhealthy { why: "503".into() } };
        assert_eq!(state(&seen, None, 104), (unhealthy.clone(), None));
        assert_eq!(state(&seen, Some(103), 104), (unhealthy, Some(108)));
    }

    #[test]
    fn stopped_on_purpose_is_no_fault_and_holds_what_needs_it() {
        let graph = Graph::new(vec![Service::new("db"), Service::new("site").needs("db")]).unwrap();
        let stopped = Intent::Stopped { by: "ann\x1b[31m".into() };
        let (wanted, history) = (Intent::Wanted, History::default());
        let statuses = classify_all(&graph, &Patience::default(), Duration::from_secs(1), |id| {
            (if id.index() == 0 { &stopped } else { &wanted }, &history, 0)
        });
        assert_eq!(statuses[0].state.to_string(), "stopped on purpose by ann [31m");
        assert_eq!(statuses[1].needs_stable_since, None);
    }
}
