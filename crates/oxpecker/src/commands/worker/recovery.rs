//! Who brings services back while the guard runs (`oxpecker worker recovery`): looks, plans, acts where it may, and says so.
//!
//! What it says is `guard::recovery_protocol`. Killed anywhere it loses nothing: what was begun is written down, and its successor goes on.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::{Mode, ServiceName};
use services::{
    execute::{ExecuteError, Executor, Round, Scene, boot_id, intent},
    health::{Answer, Process},
    plan::Outcome as Stand,
    state::State,
};
use tokio::{
    io::BufReader,
    sync::{mpsc, watch},
};

use crate::{
    commands::{
        block_on,
        service::{down, gone},
    },
    config::Config,
    exit::{FAILED, FINE, Failure, Outcome},
    guard::{
        Reporter, SAID_EVERY, Signals,
        lines::{read, to_line},
        recovery_protocol::{Begin, PROTOCOL, RecoveryStatus, STOPPED_BY, ToGuard, ToWorker},
    },
    place,
};

/// Between two looks while something is done or waited for, where no driver says that something changed.
const WORKING_EVERY: Duration = Duration::from_secs(1);
/// Between two looks while all is well.
const WATCH_EVERY: Duration = Duration::from_secs(3);
/// How often is tried whether somebody else who acted is gone.
const BUSY_EVERY: Duration = Duration::from_secs(2);
/// Orders that wait while one is begun.
const ORDERS: usize = 8;
/// How long a service that the ladder stops may still be seen to run, unless it is seen to shut down.
const GONE_WITHIN: Duration = Duration::from_secs(180);
/// How long acts may take to be handed over when the guard ends.
const FINISH: Duration = Duration::from_secs(4);

/// Runs on this process's stdin and stdout.
///
/// # Errors
/// Where nobody greets it, or the greeting is of another version. What fails in the work is said to the guard.
pub fn main() -> Outcome {
    block_on(async {
        let mut signals = Signals::listen()?;
        let mut orders = BufReader::new(tokio::io::stdin());
        let Some(Begin { protocol: PROTOCOL, config }) = read::<Begin, _>(&mut orders).await? else {
            return Err(Failure::usage(anyhow::anyhow!("recovery of services: the first line is no greeting of this version"))
                .hint("it is started by `oxpecker run`, not by hand (that is `oxpecker service apply`); restart the guard after an upgrade"));
        };
        let mut keeper = match Keeper::new(*config) {
            Ok(keeper) => keeper,
            Err(failure) => return Ok(failed(&failure)),
        };
        let (passed_on, mut to_obey) = mpsc::channel(ORDERS);
        // Read by a task of its own: half a line is lost where reading is broken off.
        tokio::spawn(async move {
            while let Ok(Some(order)) = read::<ToWorker, _>(&mut orders).await {
                if passed_on.send(order).await.is_err() {
                    break;
                }
            }
        });
        let end = loop {
            tokio::select! {
                biased;
                _ = signals.next() => break None,
                order = to_obey.recv() => match order {
                    Some(order) => keeper.obey(order),
                    // The guard ended our input.
                    None => break None,
                },
                // Broken off by an order, no act that was begun is forgotten.
                failure = keeper.keep() => break Some(failure),
            }
        };
        let handed_over = keeper.executor.finish(FINISH).await;
        tracing::debug!(handed_over, "no more services are brought back");
        Ok(end.map_or(FINE, |failure| failed(&failure)))
    })?
}

fn failed(failure: &Failure) -> u8 {
    let hint = failure.hint.as_ref().map_or(String::new(), |hint| format!("; hint: {hint}"));
    say(&ToGuard::Failed { error: format!("{:#}{hint}", failure.error) });
    FAILED
}

struct Keeper {
    config: Config,
    mode: Mode,
    executor: Executor,
    acting: bool,
    reporter: Reporter,
    said: Option<(Instant, RecoveryStatus)>,
    tried: Instant,
    /// Services that recover, as last seen: nothing stops those.
    recovering: Vec<ServiceName>,
    /// Services that shut down, as last seen.
    stopping: watch::Sender<Vec<ServiceName>>,
}

impl Keeper {
    fn new(config: Config) -> Result<Self, Failure> {
        let mode = config.recovery_mode();
        let (executor, acting) = executor(&config, mode)?;
        let tried = Instant::now();
        Ok(Self {
            config,
            mode,
            executor,
            acting,
            reporter: Reporter::new(mode),
            said: None,
            tried,
            recovering: vec![],
            stopping: watch::Sender::default(),
        })
    }

    /// Goes on until it can't.
    async fn keep(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.once().await {
                return failure;
            }
        }
    }

    async fn once(&mut self) -> Result<(), Failure> {
        if self.mode == Mode::Act && !self.acting && self.tried.elapsed() >= BUSY_EVERY {
            // Somebody typed `service apply`, or the worker before is not gone yet.
            (self.executor, self.acting) = executor(&self.config, self.mode)?;
            self.tried = Instant::now();
        }
        let round = self.executor.round().await.map_err(Failure::from)?;
        for kind in self.reporter.events(&round, self.executor.graph()) {
            say(&ToGuard::Event { kind: Box::new(kind) });
        }
        let mut status = self.reporter.status(&round, self.executor.graph(), self.acting);
        self.see(&round, &mut status);
        if self.mode == Mode::Act && !self.acting {
            status.problem = Some("another process brings services back just now; this one watches".to_owned());
        }
        let known = self.said.as_ref().is_some_and(|(at, said)| at.elapsed() < SAID_EVERY && same(said, &status));
        if !known {
            say(&ToGuard::Status(Box::new(status.clone())));
            self.said = Some((Instant::now(), status));
        }
        let busy = round.plan.outcome == Stand::Working || !round.began.is_empty();
        let pause = if busy { WORKING_EVERY } else { WATCH_EVERY };
        self.executor.wait(pause).await.map_err(Failure::from)
    }
}

impl Keeper {
    /// What the ladder has to know beside.
    fn see(&mut self, round: &Round, status: &mut RecoveryStatus) {
        let graph = self.executor.graph();
        for (id, seen) in graph.ids().zip(&mut status.services) {
            let latest = self.executor.history(id).latest();
            seen.stops = latest.is_some_and(|seen| seen.process == Process::Running && seen.answer == Answer::Stopping);
            seen.runs = match latest.map(|latest| &latest.process) {
                None | Some(Process::Unknown { .. }) => None,
                Some(Process::Running | Process::BackingOff { .. }) => Some(true),
                Some(Process::Ended { .. } | Process::Damaged { .. } | Process::Removed) => Some(false),
            };
        }
        let recovers = |state: &State| matches!(state, State::Starting { recovering: true, .. });
        let recovering = graph.ids().filter(|id| recovers(&round.statuses[id.index()].state));
        self.recovering = recovering.map(|id| graph.name(id).clone()).collect();
        let stopping = status.services.iter().filter(|seen| seen.stops).map(|seen| seen.service.clone());
        self.stopping.send_replace(stopping.collect());
    }

    /// Does what the ladder orders. What takes time goes on beside the rounds, and is answered when it is done.
    fn obey(&mut self, order: ToWorker) {
        // What is said next is said anew.
        self.said = None;
        let ToWorker { order, stop, services } = order;
        let done = if stop { self.shed(order, &services) } else { self.give_back(&services).map(|()| true) };
        match done {
            // It is answered later.
            Ok(false) => {}
            Ok(true) => say(&ToGuard::Obeyed { order, failed: None }),
            Err(why) => say(&ToGuard::Obeyed { order, failed: Some(why) }),
        }
    }

    /// The word first, durably, so that nobody starts them again; then the services, those that others need last. Whether it is done.
    fn shed(&self, order: u64, services: &[ServiceName]) -> Result<bool, String> {
        if !self.acting {
            return Err("another process brings services back just now".to_owned());
        }
        let dir = Config::services_dir(&place::state_dir(&self.config));
        let graph = self.executor.graph();
        let stopped = intent::load(&dir).map_err(|error| error.to_string())?;
        let against_needs = graph.order().iter().rev().map(|id| graph.name(*id));
        let mut to_stop = Vec::new();
        for name in against_needs.filter(|name| services.contains(name)) {
            if self.recovering.contains(name) {
                return Err(format!("{name} recovers, and a stop would begin the recovery again"));
            }
            // What a person stopped is as good.
            if stopped.get(name).is_some_and(|one| one.by != STOPPED_BY) {
                continue;
            }
            let driver = self.executor.driver(name).ok_or_else(|| format!("nobody declared who runs {name}"))?;
            to_stop.push((name.clone(), driver));
        }
        for (name, _) in &to_stop {
            intent::stop(&dir, name, STOPPED_BY, Timestamp::now()).map_err(|error| error.to_string())?;
        }
        let stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            let mut failed = Vec::new();
            for (name, driver) in to_stop {
                let mut came = down(&*driver, &name, GONE_WITHIN).await;
                // A server's last checkpoint takes what it takes. To take the word back now would be to start it while it still writes.
                while came.is_err() && stopping.borrow().contains(&name) {
                    came = gone(&*driver, &name, GONE_WITHIN).await;
                }
                if let Err(error) = came {
                    // It runs on, so it is meant to.
                    let taken_back = intent::start(&dir, &name).err();
                    failed.push(error.to_string());
                    failed.extend(taken_back.map(|error| error.to_string()));
                }
            }
            let failed = (!failed.is_empty()).then(|| failed.join("; "));
            say(&ToGuard::Obeyed { order, failed });
        });
        Ok(false)
    }

    /// Takes the word back. Starting them is the plan's: it knows the order.
    fn give_back(&self, services: &[ServiceName]) -> Result<(), String> {
        let dir = Config::services_dir(&place::state_dir(&self.config));
        let stopped = intent::load(&dir).map_err(|error| error.to_string())?;
        for name in services {
            if stopped.get(name).is_some_and(|one| one.by == STOPPED_BY) {
                intent::start(&dir, name).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// Whether nothing changed but the time.
fn same(one: &RecoveryStatus, other: &RecoveryStatus) -> bool {
    let steps = |status: &RecoveryStatus| -> Vec<_> {
        status.steps.iter().map(|step| (step.service.clone(), step.action)).collect()
    };
    (&one.services, &one.escalations, &one.approval, &one.problem, one.acting)
        == (&other.services, &other.escalations, &other.approval, &other.problem, other.acting)
        && steps(one) == steps(other)
}

/// One who acts, where that is wanted and nobody else does; else one who watches.
fn executor(config: &Config, mode: Mode) -> Result<(Executor, bool), Failure> {
    let dir = Config::services_dir(&place::state_dir(config));
    if mode == Mode::Act {
        match Executor::act(&dir, &boot_id(), scene(config)?) {
            Ok(executor) => return Ok((executor, true)),
            Err(ExecuteError::Busy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((Executor::watch(&dir, &boot_id(), scene(config)?)?, false))
}

fn scene(config: &Config) -> Result<Scene, Failure> {
    let target = place::target(&config.postgres)?;
    let scene = config.scene(&place::state_dir(config), &target.connection);
    scene.map_err(|why| Failure::usage(anyhow::anyhow!(why)).hint("`oxpecker config check` names the place"))
}

/// Says something. A guard that hears it no more is gone: its end of the pipe ends this process.
fn say(message: &ToGuard) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(&to_line(message)).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "the guard hears nothing");
    }
}
