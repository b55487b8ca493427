//! A host that has what goes wrong on real ones, on a clock of its own.

use std::time::Duration;

use crate::{
    graph::{Graph, Id, Service},
    health::{Answer, Observation, Process, Progress},
    plan::Action,
    state::Intent,
};

/// What goes wrong with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It takes so many times as long as expected, and its counter shows that it advances.
    Slow(u32),
    /// A database that replays its log for so many times its start; it may hang in the midst of that, for good.
    Recovers {
        times: u32,
        hangs: bool,
    },
    /// It runs and never answers.
    Never,
    /// Its first starts end badly.
    Crashes(u32),
    /// It dies so often, each time some seconds after it became healthy.
    Flaps(u32, u64),
    /// It stays wrong when what it needs went away and came back, until it is restarted.
    StalePool,
    /// It dies once at that second.
    DiesAt(u64),
    /// Its supervisor waits till that second.
    Stuck(u64),
    /// Nobody can see it between two seconds.
    Unseen(u64, u64),
    Stopped,
    /// It has to be provisioned, which is approved at that second.
    Removed(u64),
    /// It is up at the start.
    Up,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    BackingOff(u64),
    Runs { since: u64, ready: Option<u64>, dies: Option<u64> },
    Removed,
}

pub struct World {
    pub graph: Graph,
    pub faults: Vec<Fault>,
    pub starts: Vec<u64>,
    phases: Vec<Phase>,
    runs: Vec<u64>,
    wrong: Vec<bool>,
    deaths: Vec<u32>,
    healthy: Vec<bool>,
}

/// Service `i` needs those `j < i` whose bit is set.
#[derive(Clone, Debug)]
pub struct Spec {
    pub needs: u32,
    /// Seconds that it truly takes to its first healthy answer.
    pub starts: u64,
    /// What the configuration expects, in percent of that.
    pub expected: u64,
    pub fault: Fault,
}

impl World {
    pub fn new(specs: &[Spec]) -> Self {
        let services = specs.iter().enumerate().map(|(index, spec)| {
            let expected = Duration::from_secs((spec.starts * spec.expected / 100).max(1));
            let needs = (0..index).filter(|need| spec.needs >> need & 1 == 1);
            needs.fold(Service::new(format!("s{index}")).starts_in(expected), |service, need| {
                service.needs(format!("s{need}"))
            })
        });
        let graph = Graph::new(services.collect()).unwrap();
        let phase = |spec: &Spec| match spec.fault {
            Fault::Stuck(until) => Phase::BackingOff(until),
            Fault::Removed(_) => Phase::Removed,
            Fault::Up | Fault::Unseen(..) => Phase::Runs { since: 0, ready: Some(0), dies: None },
            _ => Phase::Down,
        };
        let starts = |spec: &Spec| match spec.fault {
            Fault::Slow(times) | Fault::Recovers { times, .. } => spec.starts * u64::from(times),
            _ => spec.starts,
        };
        let none = vec![false; specs.len()];
        Self {
            graph,
            faults: specs.iter().map(|spec| spec.fault).collect(),
            starts: specs.iter().map(starts).collect(),
            phases: specs.iter().map(phase).collect(),
            runs: vec![1; specs.len()],
            wrong: none.clone(),
            deaths: vec![0; specs.len()],
            healthy: none,
        }
    }

    pub fn intent(&self, id: Id) -> Intent {
        match self.faults[id.index()] {
            Fault::Stopped => Intent::Stopped { by: "ann".into() },
            _ => Intent::Wanted,
        }
    }

    /// One second passes.
    pub fn step(&mut self, now: u64) {
        for id in self.graph.order().to_vec() {
            let index = id.index();
            if let Phase::BackingOff(until) = self.phases[index]
                && until <= now
            {
                self.start(id, now);
            }
            let dies_now = self.faults[index] == Fault::DiesAt(now);
            if let Phase::Runs { dies, .. } = self.phases[index]
                && (dies_now || dies.is_some_and(|dies| dies <= now))
            {
                self.phases[index] = Phase::Down;
                self.deaths[index] += 1;
            }
            let needs_healthy = self.graph.needs(id).iter().all(|need| self.healthy[need.index()]);
            let ready = matches!(self.phases[index], Phase::Runs { ready: Some(ready), .. } if ready <= now);
            if ready && !needs_healthy && self.faults[index] == Fault::StalePool {
                self.wrong[index] = true;
            }
            self.healthy[index] = ready && needs_healthy;
        }
    }

    fn start(&mut self, id: Id, now: u64) {
        let index = id.index();
        self.runs[index] += 1;
        self.wrong[index] = false;
        let ready = now + self.starts[index];
        let deaths = self.deaths[index];
        let (ready, dies) = match self.faults[index] {
            Fault::Never | Fault::Recovers { hangs: true, .. } => (None, None),
            Fault::Crashes(times) if deaths < times => (None, Some(ready)),
            Fault::Flaps(times, after) if deaths < times => (Some(ready), Some(ready + after)),
            _ => (Some(ready), None),
        };
        self.phases[index] = Phase::Runs { since: now, ready, dies };
    }

    pub fn act(&mut self, id: Id, action: Action, now: u64) {
        match (action, &self.phases[id.index()]) {
            (Action::Start, Phase::Runs { .. }) => {}
            (Action::Provision, Phase::Removed) | (Action::Start | Action::Restart, _) => self.start(id, now),
            (Action::Provision | Action::Restore, _) => {}
        }
    }

    pub fn unseen(&self, id: Id, now: u64) -> bool {
        matches!(self.faults[id.index()], Fault::Unseen(from, to) if (from..to).contains(&now))
    }

    pub fn look(&self, id: Id, now: u64) -> Observation {
        let index = id.index();
        let sick = || Answer::Unhealthy { why: "503".into() };
        let (process, progress) = match self.phases[index] {
            _ if self.unseen(id, now) => (Process::Unknown { why: "timed out".into() }, None),
            Phase::Down => (Process::Ended { code: Some(1) }, None),
            Phase::BackingOff(until) => (Process::BackingOff { until: Some(Duration::from_secs(until)) }, None),
            Phase::Removed => (Process::Removed, None),
            Phase::Runs { since, .. } => {
                let most = match self.faults[index] {
                    Fault::Slow(_) | Fault::Recovers { hangs: false, .. } => Some(u64::MAX),
                    Fault::Recovers { hangs: true, .. } => Some(self.starts[index] / 2),
                    _ => None,
                };
                let done = most.map(|most| most.min(now - since));
                (Process::Running, done.map(|done| Progress { phase: "load".into(), done }))
            }
        };
        let healthy = self.healthy[index];
        Observation {
            at: Duration::from_secs(now),
            process,
            run: Some(self.runs[index]),
            answer: match (healthy, self.faults[index]) {
                (true, _) => Answer::Healthy,
                (false, Fault::Recovers { .. }) => Answer::Recovering,
                (false, _) => sick(),
            },
            function: healthy.then(|| if self.wrong[index] { sick() } else { Answer::Healthy }),
            progress,
        }
    }

    /// Whether it would become well if nobody touched it, or is.
    pub fn is_well_alone(&self, id: Id, now: u64) -> bool {
        let index = id.index();
        match self.phases[index] {
            Phase::Runs { ready: Some(_), dies: None, .. } => !self.wrong[index],
            Phase::BackingOff(until) => until <= now + 1,
            Phase::Runs { .. } | Phase::Down | Phase::Removed => false,
        }
    }

    pub fn is_healthy(&self, id: Id) -> bool {
        self.healthy[id.index()] && !self.wrong[id.index()]
    }

    /// After this second nothing goes wrong any more by itself.
    pub fn quiet_from(&self) -> u64 {
        let last = |fault: &Fault| match fault {
            Fault::DiesAt(at) | Fault::Stuck(at) | Fault::Unseen(_, at) | Fault::Removed(at) => *at,
            _ => 0,
        };
        self.faults.iter().map(last).max().unwrap_or(0)
    }
}
