//! When each task is expected to be done: list scheduling by the longest chain behind a service.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use super::{Action, Blocked, Escalation, Input, Outcome, Plan, Precondition, Step, Task, budget::JITTER_SHARE};
use crate::{
    graph::Id,
    state::{State, Status},
};

/// A service that may start, the one with the longest chain behind it first.
type Ready = (Reverse<Duration>, Id);

struct Schedule<'a> {
    input: &'a Input<'a>,
    tasks: Vec<Task>,
    ranks: Vec<Duration>,
    /// Needs of each that aren't stable yet.
    left: Vec<usize>,
    /// Services that become stable, by time; whether each holds a place.
    ends: BinaryHeap<Reverse<(Duration, Id, bool)>>,
    /// Services whose needs are stable, by the time from which they may start.
    later: BinaryHeap<Reverse<(Duration, Id)>>,
    ready: BTreeSet<Ready>,
    /// Services that wait for a place among those that start against one need.
    parked: Vec<Vec<Id>>,
    starting_on: Vec<u32>,
    running: usize,
    reached: Vec<bool>,
    started: Vec<(Duration, Id)>,
    end: Duration,
}

pub(super) fn schedule(input: &Input<'_>, tasks: Vec<Task>, escalations: Vec<Escalation>) -> Plan {
    let graph = input.graph;
    let takes = |id: Id| match &tasks[id.index()] {
        Task::Done | Task::Blocked(_) => Duration::ZERO,
        Task::Wait { until, .. } => until.saturating_sub(input.now),
        Task::Act { .. } => graph.service(id).takes(),
    };
    let ranks = graph.ranks(takes);
    let mut schedule = Schedule {
        input,
        ranks,
        left: graph.ids().map(|id| graph.needs(id).len()).collect(),
        ends: BinaryHeap::new(),
        later: BinaryHeap::new(),
        ready: BTreeSet::new(),
        parked: vec![vec![]; graph.len()],
        starting_on: vec![0; graph.len()],
        running: 0,
        reached: vec![false; graph.len()],
        started: vec![],
        end: input.now,
        tasks,
    };
    schedule.run();
    schedule.into_plan(escalations)
}

impl Schedule<'_> {
    fn run(&mut self) {
        let now = self.input.now;
        for id in self.input.graph.ids() {
            match self.tasks[id.index()] {
                // It is healthy: whatever it needs, it will be stable.
                Task::Wait { until, counts: false } => self.occupy(id, until, false),
                Task::Done => self.ends.push(Reverse((now, id, false))),
                Task::Act { .. } | Task::Wait { .. } if self.left[id.index()] == 0 => self.becomes_ready(id, now),
                Task::Act { .. } | Task::Wait { .. } | Task::Blocked(_) => {}
            }
        }
        loop {
            let ends = self.ends.peek().map(|Reverse((at, ..))| *at);
            let later = self.later.peek().map(|Reverse((at, _))| *at);
            let Some(at) = ends.into_iter().chain(later).min() else { break };
            let at = at.max(now);
            while self.ends.peek().is_some_and(|Reverse((end, ..))| *end <= at) {
                if let Some(Reverse((_, id, held))) = self.ends.pop() {
                    self.becomes_stable(id, held, at);
                }
            }
            while self.later.peek().is_some_and(|Reverse((from, _))| *from <= at) {
                if let Some(Reverse((_, id))) = self.later.pop() {
                    self.ready.insert((Reverse(self.ranks[id.index()]), id));
                }
            }
            self.start_what_may(at);
        }
    }

    fn occupy(&mut self, id: Id, until: Duration, counts: bool) {
        self.ends.push(Reverse((until, id, counts)));
        if counts {
            self.running += 1;
            for need in self.input.graph.needs(id) {
                self.starting_on[need.index()] += 1;
            }
        }
    }

    fn becomes_stable(&mut self, id: Id, held: bool, at: Duration) {
        let graph = self.input.graph;
        self.reached[id.index()] = true;
        self.end = self.end.max(at);
        if held {
            self.running = self.running.saturating_sub(1);
            for need in graph.needs(id) {
                let starting = &mut self.starting_on[need.index()];
                *starting = starting.saturating_sub(1);
                for waiting in std::mem::take(&mut self.parked[need.index()]) {
                    self.ready.insert((Reverse(self.ranks[waiting.index()]), waiting));
                }
            }
        }
        for next in graph.needed_by(id) {
            self.left[next.index()] -= 1;
            if self.left[next.index()] == 0 {
                self.becomes_ready(*next, at);
            }
        }
    }

    fn becomes_ready(&mut self, id: Id, at: Duration) {
        let status = &self.input.statuses[id.index()];
        let from = match &self.tasks[id.index()] {
            Task::Act { from, .. } => from,
            // On its way, but not to be healthy before what it needs is.
            Task::Wait { until, counts: true } => {
                let until = if status.needs_stable_since.is_some() {
                    *until
                } else {
                    (*until).max(at.saturating_add(self.input.graph.service(id).stable_for))
                };
                return self.occupy(id, until, true);
            }
            Task::Wait { counts: false, .. } | Task::Done | Task::Blocked(_) => return,
        };
        // Counted from the moment that made it ready, so that a plan made anew keeps the time.
        let base = match status.needs_stable_since {
            Some(_) => *from,
            None => at.max(*from),
        };
        self.later.push(Reverse((base.saturating_add(self.jitter(id, status)).max(at), id)));
    }

    /// None for a service that nothing else becomes ready with.
    fn jitter(&self, id: Id, status: &Status) -> Duration {
        let graph = self.input.graph;
        let needs = graph.needs(id);
        let alone = !needs.is_empty() && needs.iter().all(|need| graph.needed_by(*need).len() == 1);
        if alone || status.state == State::Removed {
            return Duration::ZERO;
        }
        let name = graph.name(id);
        let widest = self.input.budgets.jitter.min(graph.service(id).takes() / JITTER_SHARE);
        let widest = u64::try_from(widest.as_micros()).unwrap_or(u64::MAX);
        let drawn = drawn(self.input.seed, name.as_str(), self.input.ledger.failed(name));
        Duration::from_micros(drawn.checked_rem(widest).unwrap_or(0))
    }

    fn start_what_may(&mut self, at: Duration) {
        let graph = self.input.graph;
        while self.running < self.input.budgets.at_once.max(1) {
            let Some((_, id)) = self.ready.pop_first() else { break };
            let full = graph.needs(id).iter().find(|need| {
                let admits = graph.service(**need).admits;
                admits.is_some_and(|admits| self.starting_on[need.index()] >= admits.max(1))
            });
            if let Some(need) = full {
                self.parked[need.index()].push(id);
                continue;
            }
            self.started.push((at, id));
            self.occupy(id, at.saturating_add(graph.service(id).takes()), true);
        }
    }

    fn into_plan(self, escalations: Vec<Escalation>) -> Plan {
        let Input { graph, now, .. } = *self.input;
        let steps: Vec<Step> = self.started.iter().map(|(at, id)| self.step(*id, *at)).collect();
        let mut in_flight = Vec::new();
        let mut blocked = Vec::new();
        for id in graph.ids() {
            let name = graph.name(id).clone();
            match &self.tasks[id.index()] {
                Task::Wait { until, .. } if self.reached[id.index()] => in_flight.push((name, *until)),
                Task::Blocked(why) => blocked.push(Blocked { service: name, why: why.clone() }),
                Task::Act { .. } | Task::Wait { .. } if !self.reached[id.index()] => {
                    let needs = graph.needs(id).iter().filter(|need| !self.reached[need.index()]);
                    let needs: Vec<&str> = needs.map(|need| graph.name(*need).as_str()).collect();
                    blocked.push(Blocked { service: name, why: format!("needs {}", needs.join(", ")) });
                }
                Task::Act { .. } | Task::Wait { .. } | Task::Done => {}
            }
        }
        // What waits for a person, and all that waits for that, is no reason to look again soon.
        let mut waits_for_person = vec![false; graph.len()];
        for id in graph.order() {
            let unapproved = steps_need_approval(&self.tasks[id.index()], self.input, *id);
            let waits = matches!(self.tasks[id.index()], Task::Act { .. } | Task::Wait { counts: true, .. });
            let behind = waits && graph.needs(*id).iter().any(|need| waits_for_person[need.index()]);
            waits_for_person[id.index()] = unapproved || behind;
        }
        let moving = self.started.iter().any(|(_, id)| !waits_for_person[id.index()]);
        let on_the_way =
            in_flight.iter().any(|(name, _)| graph.id(name).is_some_and(|id| !waits_for_person[id.index()]));
        let outcome = if moving || on_the_way {
            Outcome::Working
        } else if !escalations.is_empty() {
            Outcome::Escalated
        } else if waits_for_person.contains(&true) {
            Outcome::NeedsApproval
        } else {
            Outcome::Done
        };
        let working = !in_flight.is_empty() || !steps.is_empty();
        Plan {
            made_at: now,
            steps,
            in_flight,
            blocked,
            escalations,
            outcome,
            expected_end: working.then_some(self.end),
        }
    }

    fn step(&self, id: Id, at: Duration) -> Step {
        let Input { graph, ledger, now, statuses, .. } = *self.input;
        let service = graph.service(id);
        let (action, reason, remedy) = match &self.tasks[id.index()] {
            Task::Act { action, reason, remedy, .. } => (*action, reason.clone(), remedy.clone()),
            // Only acts are started.
            Task::Done | Task::Wait { .. } | Task::Blocked(_) => (Action::Start, String::new(), None),
        };
        let restored_in = remedy.as_ref().and_then(|remedy| remedy.takes).unwrap_or_default();
        let needs_approval = steps_need_approval(&self.tasks[id.index()], self.input, id);
        let mut preconditions: Vec<Precondition> =
            graph.needs(id).iter().map(|need| Precondition::Stable(graph.name(*need).clone())).collect();
        preconditions.push(Precondition::StillNeeds(service.name.clone(), action));
        if let Some(remedy) = &remedy {
            preconditions.push(Precondition::StillOffered(service.name.clone(), remedy.clone()));
        }
        if self.input.budgets.needs_approval(&service.name, action) {
            preconditions.push(Precondition::Approved(service.name.clone()));
        }
        let status = &statuses[id.index()];
        // A service that was given time to find back must have been seen after that time, and what it needs too: old health explains no new trouble.
        let seen_after = |status: &Status, from: Duration| status.seen_at.is_some_and(|seen| seen >= from);
        let seen = status.act_from.is_some_and(|from| {
            seen_after(status, from) && graph.needs(id).iter().all(|need| seen_after(&statuses[need.index()], from))
        });
        Step {
            service: service.name.clone(),
            action,
            reason,
            preconditions,
            attempt: ledger.failed(&service.name) + 1,
            at,
            takes: service.takes().saturating_add(restored_in),
            due: at <= now && seen && !needs_approval,
            needs_approval,
            remedy,
        }
    }
}

fn steps_need_approval(task: &Task, input: &Input<'_>, id: Id) -> bool {
    let name = input.graph.name(id);
    matches!(task, Task::Act { action, .. } if input.budgets.needs_approval(name, *action))
        && !input.approved.contains(name)
}

/// A number for a service and an attempt, the same whenever it is asked: FNV-1a, then a finaliser, because FNV's high bits are weak for short names.
fn drawn(seed: u64, name: &str, attempt: u32) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes()).chain(attempt.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}
