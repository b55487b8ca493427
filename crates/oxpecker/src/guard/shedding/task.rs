//! The loop: with each reading of the host, facts, a decision, its state on disk, its act.

use std::{path::Path, time::Duration};

use collector::clock;
use model::{
    EventKind, Mode, Moment, Observation, Reading,
    event::{DownReason, SheddingStep},
    reading::{ActivityReading, HostReading, TablesReading},
};
use policy::{Act, Decision, Facts, HoldKind, Rung, Server, Settings, State, Step, decide, view};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{SheddingStatus, levers::Levers, store::Store};

/// How often is decided where no reading comes: what is held too long is given back all the same.
const TICK: Duration = Duration::from_secs(1);
/// How long the state may take to be durable before the act is left alone.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the ladder goes by it.
pub fn matters(observation: &Observation) -> bool {
    matches!(
        observation,
        Observation::Reading(Reading::Host(_) | Reading::Activity(_) | Reading::Tables(_))
            | Observation::Event(_, EventKind::ServerUp { .. } | EventKind::ServerDown { .. })
    )
}

pub struct Climbing {
    settings: Settings,
    store: Store,
    state: State,
    /// What the guard before left open is told anew once.
    tell_next: bool,
    levers: Levers,
    server: Server,
    host: Option<HostReading>,
    activity: Option<ActivityReading>,
    tables: Option<TablesReading>,
    problem: Option<String>,
    observations: mpsc::Sender<Observation>,
    status: watch::Sender<Option<SheddingStatus>>,
}

impl Climbing {
    pub fn new(
        settings: Settings,
        state_dir: &Path,
        boot_id: &str,
        levers: Levers,
        observations: mpsc::Sender<Observation>,
        status: watch::Sender<Option<SheddingStatus>>,
    ) -> Self {
        let store = Store::new(state_dir, boot_id);
        let (state, tell_next, problem) = match store.load(clock::now()) {
            Ok(Some(state)) => (state, true, None),
            Ok(None) => (State::default(), false, None),
            Err(problem) => (State::default(), true, Some(problem)),
        };
        if let Some(problem) = &problem {
            tracing::error!("the shedding ladder forgot what it did: {problem}");
        }
        Self {
            settings,
            store,
            state,
            tell_next,
            levers,
            server: Server::Unknown,
            host: None,
            activity: None,
            tables: None,
            problem,
            observations,
            status,
        }
    }

    pub async fn run(mut self, mut told: mpsc::Receiver<Box<Observation>>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut news = tokio::select! {
                biased;
                news = told.recv() => match news {
                    Some(news) => Some(news),
                    None => break,
                },
                _ = tick.tick() => None,
            };
            let mut decide = news.is_none();
            // A step may have waited; what came meanwhile is seen at once.
            while let Some(one) = news {
                decide |= matches!(*one, Observation::Reading(Reading::Host(_)));
                self.keep(*one);
                news = told.try_recv().ok();
            }
            if decide {
                self.step(clock::now()).await;
            }
        }
    }

    fn keep(&mut self, observation: Observation) {
        match observation {
            Observation::Reading(Reading::Host(reading)) => self.host = Some(reading),
            Observation::Reading(Reading::Activity(reading)) => self.activity = Some(reading),
            Observation::Reading(Reading::Tables(reading)) => self.tables = Some(reading),
            Observation::Event(_, EventKind::ServerUp { .. }) => self.server = Server::Serving,
            Observation::Event(_, EventKind::ServerDown { reason, .. }) => self.server = server(reason),
            _ => {}
        }
    }

    async fn step(&mut self, now: Moment) {
        self.levers.look();
        let facts = Facts {
            now,
            host: self.host.as_ref(),
            activity: self.activity.as_ref(),
            tables: self.tables.as_ref(),
            server: self.server,
            vacuum: self.levers.vacuum(&self.settings, self.activity.as_ref()),
            own_work: self.levers.own_work(),
            cancel: self.levers.cancel(),
            services: self.levers.services(&self.settings),
            postgres: self.levers.postgres(&self.settings),
        };
        let (next, decision) = decide(&facts, &self.state, &self.settings);
        let act = to_carry_out(&decision);
        let changed = decision.news || next.held() != self.state.held();
        if changed && let Err(problem) = save(&self.store, &next).await {
            if self.problem.as_ref() != Some(&problem) {
                tracing::error!("the shedding ladder does nothing: {problem}");
            }
            self.problem = Some(problem);
            if act.is_some() {
                // As if nothing had been decided: the next reading decides again.
                return;
            }
        } else if changed {
            self.problem = None;
        }
        let rungs = view(&facts, &next, &self.settings);
        self.state = next;
        let stuck = matches!(decision.step, Step::Hold { kind: HoldKind::Blocked(_) | HoldKind::Exhausted });
        let status = SheddingStatus {
            mode: self.settings.mode,
            now: words(&decision),
            stuck,
            rungs,
            problem: self.problem.clone(),
        };
        self.status.send_replace(Some(status));
        if decision.news || std::mem::take(&mut self.tell_next) {
            let kind = event(&decision, self.settings.mode, &self.state);
            let _ = self.observations.send(Observation::Event(now, kind)).await;
        }
        if let Some((rung, act)) = act {
            tracing::warn!(%rung, %act, "the shedding ladder acts: {}", decision.why);
            self.levers.carry_out(rung, act).await;
        } else {
            self.levers.tidy(now, &self.state);
        }
    }
}

/// A disk that hangs holds up the ladder only, and not for ever.
async fn save(store: &Store, state: &State) -> Result<(), String> {
    let (store, state) = (store.clone(), state.clone());
    let saved = timeout(SAVE_TIMEOUT, tokio::task::spawn_blocking(move || store.save(&state))).await;
    let fail = |why: String| Err(format!("its state can't be written down, so nothing is done: {why}"));
    match saved {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => fail(error.to_string()),
        Ok(Err(error)) => fail(error.to_string()),
        Err(_) => fail(format!("the disk did not answer within {} s", SAVE_TIMEOUT.as_secs())),
    }
}

fn to_carry_out(decision: &Decision) -> Option<(Rung, Act)> {
    match &decision.step {
        Step::Climb { rung, act, carry_out: true } | Step::StepDown { rung, act, carry_out: true } => {
            Some((*rung, act.clone()))
        }
        _ => None,
    }
}

fn words(decision: &Decision) -> String {
    match &decision.step {
        Step::Hold { .. } => decision.why.clone(),
        Step::Climb { act, .. } | Step::StepDown { act, .. } => format!("{act}: {}", decision.why),
    }
}

/// A server that is silent under pressure should serve; one that nobody listens for does not run.
fn server(reason: DownReason) -> Server {
    match reason {
        DownReason::NotListening | DownReason::ShuttingDown => Server::Stopped,
        DownReason::Recovering => Server::Recovering,
        DownReason::OutOfConnections | DownReason::NoAnswer => Server::Serving,
        DownReason::Refused | DownReason::ConnectionLost | DownReason::UnsupportedVersion => Server::Unknown,
    }
}

fn event(decision: &Decision, mode: Mode, state: &State) -> EventKind {
    let (step, rung, act) = match &decision.step {
        Step::Hold { kind: HoldKind::Blocked(rung) } => (SheddingStep::Blocked, Some(rung), None),
        Step::Hold { kind: HoldKind::Exhausted } => (SheddingStep::Exhausted, None, None),
        Step::Hold { .. } => (SheddingStep::Held, None, None),
        Step::Climb { rung, act, carry_out: true } => (SheddingStep::Taken, Some(rung), Some(act)),
        Step::Climb { rung, act, carry_out: false } => (SheddingStep::Proposed, Some(rung), Some(act)),
        Step::StepDown { rung, act, carry_out: true } => (SheddingStep::GivenBack, Some(rung), Some(act)),
        Step::StepDown { rung, act, carry_out: false } => (SheddingStep::Withdrawn, Some(rung), Some(act)),
    };
    EventKind::SheddingStepped {
        step,
        mode,
        rung: rung.map(ToString::to_string),
        act: act.map(ToString::to_string),
        why: decision.why.clone(),
        cause: decision.cause.as_ref().map(|cause| cause.words.clone()),
        passed: decision.passed.iter().map(|(rung, why)| format!("{rung}: {why}")).collect(),
        notes: decision.notes.clone(),
        held: state.held().iter().filter(|held| held.carried_out).map(|held| held.rung.to_string()).collect(),
    }
}
