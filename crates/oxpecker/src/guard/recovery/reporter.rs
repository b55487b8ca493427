//! From rounds of the executor to what the guard is told: pure. Only what changed is an event, and what flaps is counted, not told each time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::{EventKind, Mode, ServiceName, event::RecoveryFigures, reading::Health};
use services::{
    execute::{Ended, Round},
    graph::Graph,
    plan::Outcome,
    state::State,
};

use super::protocol::{ApprovalWanted, NextStep, RecoveryStatus, STEPS_MAX, ServiceSeen};

/// Changes of one service that are told within [`CHANGES_WITHIN`]; more are counted.
const CHANGES_MAX: usize = 12;
/// See [`CHANGES_MAX`].
const CHANGES_WITHIN: Duration = Duration::from_secs(3600);

/// A recovery that goes on.
#[derive(Debug)]
struct Going {
    since: Duration,
    acts: u32,
    failed: u32,
}

#[derive(Debug, Default)]
struct Track {
    kind: Option<&'static str>,
    told_at: VecDeque<Duration>,
    untold: u32,
}

/// What was told so far.
#[derive(Debug)]
pub struct Reporter {
    mode: Mode,
    tracks: BTreeMap<ServiceName, Track>,
    going: Option<Going>,
    escalated: Vec<String>,
    approval: Option<String>,
    stable: bool,
}

impl Reporter {
    /// Nothing was told yet.
    pub fn new(mode: Mode) -> Self {
        Self { mode, tracks: BTreeMap::new(), going: None, escalated: vec![], approval: None, stable: false }
    }

    /// What a round makes worth telling, in order.
    pub fn events(&mut self, round: &Round, graph: &Graph) -> Vec<EventKind> {
        let mut events = Vec::new();
        for id in graph.ids() {
            let state = &round.statuses[id.index()].state;
            events.extend(self.changed(graph.name(id), state, round.at));
        }
        if self.mode != Mode::Observe {
            self.begin(round, graph, &mut events);
        }
        for ended in &round.ended {
            if let Some(going) = &mut self.going {
                going.failed += u32::from(ended.failure.is_some());
            }
            let Ended { service, action, took, failure } = ended.clone();
            let action = action.to_string();
            events.push(EventKind::RecoveryActEnded { service, action, took, failure });
        }
        for began in &round.began {
            let step = &began.step;
            if let Some(going) = &mut self.going {
                going.acts += 1;
            }
            events.push(EventKind::RecoveryActBegan {
                service: step.service.clone(),
                action: step.action.to_string(),
                reason: step.reason.clone(),
                attempt: step.attempt,
            });
        }
        if self.mode != Mode::Observe {
            self.person(round, &mut events);
        }
        let stable = round.plan.outcome == Outcome::Done;
        if stable && !self.stable {
            let figures = self.going.take().map(|going| RecoveryFigures {
                took: round.at.saturating_sub(going.since),
                acts: going.acts,
                failed: going.failed,
            });
            (self.escalated, self.approval) = (vec![], None);
            events.push(EventKind::ServicesStable {
                services: u32::try_from(graph.len()).unwrap_or(u32::MAX),
                recovery: figures,
            });
        }
        self.stable = stable;
        events
    }

    fn begin(&mut self, round: &Round, graph: &Graph, events: &mut Vec<EventKind>) {
        let plan = &round.plan;
        let something = !plan.steps.is_empty() || !plan.escalations.is_empty() || !round.began.is_empty();
        if self.going.is_some() || plan.outcome == Outcome::Done || !something {
            return;
        }
        self.going = Some(Going { since: round.at, acts: 0, failed: 0 });
        let down = graph.ids().filter(|id| !is_well(&round.statuses[id.index()].state));
        events.push(EventKind::RecoveryBegan {
            down: down.map(|id| graph.name(id).clone()).collect(),
            order: plan.steps.iter().map(|step| step.service.clone()).collect(),
            expected: plan.expected_end.map(|end| end.saturating_sub(round.at)),
            mode: self.mode,
        });
    }

    /// What a person is needed for, where that is new.
    fn person(&mut self, round: &Round, events: &mut Vec<EventKind>) {
        let reasons: Vec<String> = round.plan.escalations.iter().map(ToString::to_string).collect();
        if reasons.iter().any(|reason| !self.escalated.contains(reason)) {
            events.push(EventKind::RecoveryEscalated { reasons: reasons.clone() });
        }
        self.escalated = reasons;
        let wanted = round.wanted.as_ref();
        if let Some(wanted) = wanted.filter(|wanted| self.approval.as_ref() != Some(&wanted.plan)) {
            let what = wanted.steps.iter().map(|(.., what)| what.clone()).collect();
            events.push(EventKind::RecoveryApprovalWanted { plan: wanted.plan.clone(), what });
        }
        self.approval = wanted.map(|wanted| wanted.plan.clone());
    }

    fn changed(&mut self, service: &ServiceName, state: &State, at: Duration) -> Option<EventKind> {
        let track = self.tracks.entry(service.clone()).or_default();
        let kind = kind(state);
        let before = track.kind.replace(kind);
        // What is well at the first look is no news.
        if before == Some(kind) || (before.is_none() && kind == UP) {
            return None;
        }
        while track.told_at.front().is_some_and(|told| at.saturating_sub(*told) > CHANGES_WITHIN) {
            track.told_at.pop_front();
        }
        if track.told_at.len() >= CHANGES_MAX {
            track.untold += 1;
            return None;
        }
        track.told_at.push_back(at);
        let untold = std::mem::take(&mut track.untold);
        let (from, to) = (before.unwrap_or("not looked at yet").to_owned(), state.to_string());
        Some(EventKind::ServiceStateChanged { service: service.clone(), from, to, untold })
    }

    /// How things stand after a round.
    pub fn status(&self, round: &Round, graph: &Graph, acting: bool) -> RecoveryStatus {
        let plan = &round.plan;
        let services = graph.ids().map(|id| {
            let state = &round.statuses[id.index()].state;
            let stopped_by = match state {
                State::Stopped { by } => Some(by.clone()),
                _ => None,
            };
            let service = graph.name(id).clone();
            let (health, well) = (health(state), is_well(state));
            ServiceSeen { service, state: state.to_string(), well, stopped_by, health, runs: None, stops: false }
        });
        let steps = plan.steps.iter().take(STEPS_MAX).map(|step| NextStep {
            service: step.service.clone(),
            action: step.action,
            in_time: step.at.saturating_sub(round.at),
            reason: step.reason.clone(),
        });
        RecoveryStatus {
            mode: self.mode,
            acting,
            services: services.collect(),
            steps: steps.collect(),
            expected: plan.expected_end.map(|end| end.saturating_sub(round.at)),
            escalations: plan.escalations.iter().map(ToString::to_string).collect(),
            approval: round.wanted.as_ref().map(|wanted| ApprovalWanted {
                plan: wanted.plan.clone(),
                what: wanted.steps.iter().map(|(.., what)| what.clone()).collect(),
            }),
            problem: None,
        }
    }
}

const UP: &str = "up";

/// States between which a change is news.
fn kind(state: &State) -> &'static str {
    match state {
        State::Stable | State::Settling => UP,
        State::Starting { recovering: true, .. } => "in crash recovery",
        State::Starting { .. } => "starting",
        State::Stopping { .. } => "shutting down",
        State::Broken { .. } => "broken",
        State::Stuck { .. } => "stuck",
        State::Wrong { .. } => "healthy and wrong",
        State::Stopped { .. } => "stopped on purpose",
        State::Removed => "removed",
        State::Damaged { .. } => "damaged",
        State::Unknown { .. } => "unknown",
    }
}

/// How a service in this state is to whoever uses it.
fn health(state: &State) -> Option<Health> {
    match state {
        State::Stable | State::Settling => Some(Health::Healthy),
        State::Unknown { .. } => None,
        _ => Some(Health::Unhealthy),
    }
}

fn is_well(state: &State) -> bool {
    matches!(state, State::Stable | State::Settling | State::Stopped { .. })
}

#[cfg(test)]
mod tests {
    use services::{
        graph::Service,
        plan::{Action, Escalation, Plan, Step},
        state::{Broken, Status},
    };

    use super::*;

    fn graph() -> Graph {
        let site = Service { needs: vec!["main".into()], ..Service::new("site") };
        Graph::new(vec![Service::new("main"), site]).unwrap()
    }

    fn round(at: u64, site: State, outcome: Outcome) -> Round {
        let status = |state| Status {
            state,
            seen_at: None,
            since: Duration::ZERO,
            stable_since: None,
            needs_stable_since: None,
            run_since: Duration::ZERO,
            act_from: None,
        };
        let at = Duration::from_secs(at);
        let plan = Plan {
            made_at: at,
            steps: vec![],
            in_flight: vec![],
            blocked: vec![],
            escalations: vec![],
            outcome,
            expected_end: Some(at + Duration::from_secs(9)),
        };
        Round {
            at,
            statuses: vec![status(State::Stable), status(site)],
            plan,
            wanted: None,
            began: vec![],
            ended: vec![],
        }
    }

    fn names(events: &[EventKind]) -> Vec<&'static str> {
        events.iter().map(EventKind::name).collect()
    }

    fn down() -> State {
        State::Broken { how: Broken::Down { code: None } }
    }

    fn with_step(mut round: Round) -> Round {
        round.plan.steps.push(Step {
            service: "site".into(),
            action: Action::Start,
            reason: "down".into(),
            attempt: 1,
            at: round.at,
            takes: Duration::from_secs(1),
            due: true,
            needs_approval: false,
            remedy: None,
            preconditions: vec![],
        });
        round
    }

    #[test]
    fn a_recovery_is_told_from_its_begin_to_its_end_and_nothing_twice() {
        let (graph, mut reporter) = (graph(), Reporter::new(Mode::Act));
        let mut tell = |round: &Round| names(&reporter.events(round, &graph));
        assert_eq!(tell(&round(0, State::Settling, Outcome::Working)), Vec::<&str>::new(), "all is well");
        assert_eq!(tell(&round(5, State::Stable, Outcome::Done)), ["services_stable"]);
        assert_eq!(tell(&round(6, State::Stable, Outcome::Done)), Vec::<&str>::new());
        let ill = with_step(round(7, down(), Outcome::Working));
        assert_eq!(tell(&ill), ["service_state_changed", "recovery_began"]);
        assert_eq!(tell(&ill), Vec::<&str>::new());
        let mut hopeless = round(9, down(), Outcome::Escalated);
        hopeless.plan.escalations = vec![Escalation::GivenUp { service: "site".into(), failed: 2, why: "x".into() }];
        assert_eq!(tell(&hopeless), ["recovery_escalated"]);
        assert_eq!(tell(&hopeless), Vec::<&str>::new());
        let events = reporter.events(&round(17, State::Stable, Outcome::Done), &graph);
        let [
            EventKind::ServiceStateChanged { from, to, .. },
            EventKind::ServicesStable { recovery: Some(figures), .. },
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!((from.as_str(), to.as_str(), figures.took), ("broken", "stable", Duration::from_secs(10)));
    }

    #[test]
    fn who_only_observes_plans_nothing_aloud() {
        let (graph, mut reporter) = (graph(), Reporter::new(Mode::Observe));
        let events = reporter.events(&with_step(round(1, down(), Outcome::Working)), &graph);
        assert_eq!(names(&events), ["service_state_changed"]);
    }

    #[test]
    fn what_flaps_is_counted() {
        let (graph, mut reporter) = (graph(), Reporter::new(Mode::Act));
        let mut told = 0;
        for n in 0..100 {
            let state = if n % 2 == 0 { down() } else { State::Stable };
            told += reporter.events(&round(n, state, Outcome::Working), &graph).len();
        }
        assert_eq!(told, CHANGES_MAX);
        let later = reporter.events(&round(99 + 3700, down(), Outcome::Working), &graph);
        let [EventKind::ServiceStateChanged { untold, .. }] = later.as_slice() else { panic!("{later:?}") };
        assert_eq!(*untold as usize, 100 - CHANGES_MAX);
    }
}
