//! The plan: which services to start, restart or provision, in which order and when, and when to stop and call a person.
//!
//! A pure function of the graph, the states, the ledger of what was tried and the budgets. It is made anew after every look; the steps that are *due* are the
//! only ones to act on, and each carries what has to hold at that moment. The later ones are shown so that a person sees how it will go.
//!
//! When it stops: a service that failed [`Budgets::attempts`] times, or used up its restarts, is given up with all that needs it, while the rest goes on. When half
//! of the observations are missing, or [`Budgets::worse_after`] services that were stable broke by themselves, nothing more is done at all, until all is stable
//! again or a person has looked.

mod budget;
mod ledger;
mod schedule;
mod show;
mod step;

use std::{collections::BTreeSet, time::Duration};

use model::ServiceName;

pub use self::{
    budget::{AT_ONCE_MAX, Budgets, Limit},
    ledger::{ACTS_KEPT, Attempt, LOST_WITHIN, Ledger, SHOWS_WITHIN, UNDONE_MAX},
    step::{Action, Blocked, Escalation, Outcome, Plan, Precondition, Step},
};
use crate::{
    graph::{Graph, Id},
    health::Remedy,
    state::{State, Status, shown},
};

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The services.
    pub graph: &'a Graph,
    /// The state of each, by its index: what [`crate::state::classify_all`] gives.
    pub statuses: &'a [Status],
    /// What was tried, and what came of it.
    pub ledger: &'a Ledger,
    /// How much may be done.
    pub budgets: &'a Budgets,
    /// What a person approved.
    pub approved: &'a BTreeSet<ServiceName>,
    /// Now, on the boot clock.
    pub now: Duration,
    /// Seed of the jitter. The same for one recovery, so that a plan made anew keeps its times.
    pub seed: u64,
}

/// What is to be done with one service.
#[derive(Clone, Debug)]
enum Task {
    /// Nothing, it is stable.
    Done,
    /// It is on its way and expected to be stable then. `counts`: it takes one of the places of those that start.
    Wait { until: Duration, counts: bool },
    /// It needs a hand, not before `from` and not before its needs are stable.
    Act { action: Action, from: Duration, reason: String, remedy: Option<Remedy> },
    /// It is given up or out of reach.
    Blocked(String),
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let Input { graph, statuses, ledger, budgets, .. } = *input;
    let mut escalations = Vec::new();
    let unknown = statuses.iter().filter(|status| matches!(status.state, State::Unknown { .. })).count();
    if unknown > 0 && unknown * 2 >= graph.len() {
        escalations.push(Escalation::Blind { unknown, of: graph.len() });
    }
    let lost = ledger.lost();
    let all_well = statuses.iter().all(|status| matches!(status.state, State::Stable | State::Stopped { .. }));
    if lost.len() >= budgets.worse_after && !all_well {
        escalations.push(Escalation::Worse { lost: lost.into_iter().cloned().collect() });
    }
    if !escalations.is_empty() {
        return halted(input, escalations);
    }
    let tasks: Vec<Task> = graph.ids().map(|id| task(input, id, &mut escalations)).collect();
    schedule::schedule(input, tasks, escalations)
}

fn halted(input: &Input<'_>, escalations: Vec<Escalation>) -> Plan {
    let blocked = input.graph.ids().filter(|id| input.statuses[id.index()].state != State::Stable).map(|id| Blocked {
        service: input.graph.name(id).clone(),
        why: format!("{}; nothing is done until a person has looked", input.statuses[id.index()].state),
    });
    Plan {
        made_at: input.now,
        steps: vec![],
        in_flight: vec![],
        blocked: blocked.collect(),
        escalations,
        outcome: Outcome::Escalated,
        expected_end: None,
    }
}

fn task(input: &Input<'_>, id: Id, escalations: &mut Vec<Escalation>) -> Task {
    let Input { graph, statuses, ledger, budgets, now, .. } = *input;
    let (service, status) = (graph.service(id), &statuses[id.index()]);
    let open = ledger.open(&service.name);
    let soon = now.saturating_add(service.stable_for);
    let wait_from = |from: Duration| Task::Wait { until: from.saturating_add(service.takes()).max(soon), counts: true };
    // What is out of sight, or recovers and doesn't get on, is not waited for without a word.
    let told = matches!(
        status.state,
        State::Stable
            | State::Stopped { .. }
            | State::Unknown { .. }
            | State::Starting { advancing: false, .. }
            | State::Stopping { advancing: false }
    );
    let in_progress =
        |attempt: &Attempt| attempt.handed_over.is_none() && !matches!(status.state, State::Stopped { .. });
    if let Some(attempt) = open.filter(|attempt| in_progress(attempt) || !told) {
        return wait_from(attempt.at);
    }
    let mut remedy = None;
    let (action, reason) = match &status.state {
        State::Stable => return Task::Done,
        State::Settling => {
            return Task::Wait { until: status.since.saturating_add(service.stable_for).max(now), counts: false };
        }
        State::Starting { advancing: true, .. } => return wait_from(status.run_since),
        State::Starting { .. } => {
            escalations.push(Escalation::NotAdvancing { service: service.name.clone() });
            return Task::Blocked("in crash recovery without progress; it is never restarted for that".to_owned());
        }
        State::Stopping { advancing: true } => return wait_from(status.since),
        State::Stopping { advancing: false } => {
            escalations.push(Escalation::NotEnding { service: service.name.clone() });
            return Task::Blocked("shutting down without progress; it is never killed for that".to_owned());
        }
        State::Stopped { by } => return Task::Blocked(format!("stopped on purpose by {}", shown(by))),
        State::Unknown { why } => {
            escalations.push(Escalation::Unseen { service: service.name.clone(), why: why.clone() });
            return Task::Blocked(status.state.to_string());
        }
        State::Damaged { why, offer } if offer.remedy.is_some() && !service.external => {
            remedy.clone_from(&offer.remedy);
            (Action::Restore, format!("its data directory is damaged: {}", shown(why)))
        }
        State::Damaged { why, offer } => {
            let (service, why, offer) = (service.name.clone(), why.clone(), offer.words.clone());
            escalations.push(Escalation::Damaged { service, why, offer });
            return Task::Blocked("its data directory is damaged: it is not started on it".to_owned());
        }
        State::Broken { how: crate::state::Broken::Down { .. } } => (Action::Start, status.state.to_string()),
        State::Removed => (Action::Provision, "removed; provisioned again from its definition".to_owned()),
        State::Broken { .. } | State::Stuck { .. } | State::Wrong { .. } => (Action::Restart, status.state.to_string()),
    };
    if service.external {
        // What it needs comes first; it may find back by itself then.
        if status.act_from.is_some_and(|from| from <= now) {
            let state = status.state.to_string();
            escalations.push(Escalation::External { service: service.name.clone(), state });
        }
        return Task::Blocked(format!("{}; it is not ours to start", status.state));
    }
    let undone = ledger.undone_times(&service.name);
    if undone >= UNDONE_MAX {
        escalations.push(Escalation::Interrupted { service: service.name.clone(), times: undone });
        return Task::Blocked(format!("whoever acted on it died {undone} times: {}", status.state));
    }
    let failed = ledger.failed(&service.name);
    if failed >= budgets.attempts {
        let why = ledger.last_failure(&service.name).unwrap_or("unknown").to_owned();
        escalations.push(Escalation::GivenUp { service: service.name.clone(), failed, why });
        return Task::Blocked(format!("given up after {failed} failed attempts: {}", status.state));
    }
    if ledger.acts_of(&service.name, now, budgets.per_service.within) >= budgets.per_service.count {
        escalations.push(Escalation::OverBudget { service: Some(service.name.clone()), limit: budgets.per_service });
        return Task::Blocked(format!("it was started or restarted {} already", budgets.per_service));
    }
    let tried_before = ledger.tried(&service.name);
    if (action == Action::Restart || tried_before)
        && ledger.acts_of_all(now, budgets.in_total.within) >= budgets.in_total.count
    {
        let known = |one: &Escalation| matches!(one, Escalation::OverBudget { service: None, .. });
        if !escalations.iter().any(known) {
            escalations.push(Escalation::OverBudget { service: None, limit: budgets.in_total });
        }
        return Task::Blocked(format!("all services together were restarted {} already", budgets.in_total));
    }
    let retry = ledger.failed_at(&service.name).map_or(Duration::ZERO, |at| {
        at.saturating_add(budgets.retry_after.saturating_mul(1 << failed.saturating_sub(1).min(6)))
    });
    Task::Act { action, from: status.act_from.unwrap_or(status.since).max(retry), reason, remedy }
}

#[cfg(test)]
mod tests;
