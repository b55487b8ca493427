//! The loop that keeps the worker running, and passes on what it says.

use std::{collections::BTreeMap, time::Duration};

use collector::{
    clock,
    services::{Change, Hysteresis},
};
use model::{
    EventKind, Moment, Observation, Reading, ServiceName,
    reading::{Health, ServiceReading},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    STOP_TIMEOUT,
    protocol::{Begin, PROTOCOL, RecoveryStatus, ToGuard, ToWorker},
};
use crate::{
    config::{Config, Service},
    guard::{
        child::{Process, Said},
        lines::to_line,
    },
};

/// How often is looked whether a worker is to be started.
const TICK: Duration = Duration::from_millis(500);
/// The first pause before a worker that ended is started again; it doubles with each that ended soon.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A worker that lived so long was fine.
const LIVED: Duration = Duration::from_secs(60);
/// How long a worker may be silent: looks are bounded, and it speaks after each that brought something, and every [`super::SAID_EVERY`].
const SILENCE_MAX: Duration = Duration::from_secs(5 * 60);

pub struct Keeping {
    config: Config,
    worker: Option<Process<ToGuard>>,
    started: Moment,
    heard: Moment,
    start_at: Moment,
    failures: u32,
    /// Why the newest worker could not go on, in its own words.
    failed: Option<String>,
    status: watch::Sender<Option<(Moment, RecoveryStatus)>>,
    observations: mpsc::Sender<Observation>,
    orders: mpsc::Receiver<ToWorker>,
    /// Orders that the worker has not answered.
    open: Vec<u64>,
    obeyed: watch::Sender<Obeyed>,
    /// Services that only the worker asks.
    ours: BTreeMap<ServiceName, Ours>,
}

/// A service that only the worker asks.
#[derive(Default)]
struct Ours {
    health: Hysteresis,
    /// What people lose while it is down.
    impact: Vec<String>,
}

/// What came of the newest order: its number, and why it failed.
pub type Obeyed = Option<(u64, Result<(), String>)>;

impl Keeping {
    pub fn new(
        config: Config,
        status: watch::Sender<Option<(Moment, RecoveryStatus)>>,
        observations: mpsc::Sender<Observation>,
        orders: mpsc::Receiver<ToWorker>,
        obeyed: watch::Sender<Obeyed>,
    ) -> Self {
        let now = clock::now();
        let asked_by_others =
            |service: &Service| service.health.all().iter().any(|one| matches!(one.check(), Ok(Some(_))));
        let ours = config.service.iter().filter(|service| !asked_by_others(service));
        let ours = ours.map(|service| {
            let impact = service.impact.clone();
            (service.name.as_str().into(), Ours { impact, ..Ours::default() })
        });
        Self {
            ours: ours.collect(),
            config,
            worker: None,
            started: now,
            heard: now,
            start_at: now,
            failures: 0,
            failed: None,
            status,
            observations,
            orders,
            open: Vec::new(),
            obeyed,
        }
    }

    pub async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let said = async {
                match &mut self.worker {
                    Some(worker) => worker.hear().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                said = said => self.hear(said, clock::now()).await,
                Some(order) = self.orders.recv() => self.pass_on(&order),
                _ = tick.tick() => self.step(clock::now()),
            }
        }
        let Some(worker) = &mut self.worker else { return };
        worker.finish();
        let gone = async { while !matches!(worker.hear().await, Said::Gone(_)) {} };
        let in_time = timeout(STOP_TIMEOUT, gone).await.is_ok();
        tracing::info!(in_time, "the worker that brings services back was ended");
    }

    fn pass_on(&mut self, order: &ToWorker) {
        match &self.worker {
            Some(worker) => {
                self.open.push(order.order);
                worker.tell(to_line(order));
            }
            None => {
                self.obeyed
                    .send_replace(Some((order.order, Err("the worker that acts on services is down".to_owned()))));
            }
        }
    }

    fn step(&mut self, now: Moment) {
        if self.worker.is_none() && now.boot_us >= self.start_at.boot_us {
            let begin = Begin { protocol: PROTOCOL, config: Box::new(self.config.clone()) };
            (self.heard, self.started) = (now, now);
            match Process::start("recovery", to_line(&begin)) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => self.gone(&format!("it can't be started: {error}"), now),
            }
        }
        if self.worker.is_some() && now.since(self.heard) > SILENCE_MAX {
            // Dropped, it is killed.
            self.gone(&format!("it said nothing for {} min and was killed", SILENCE_MAX.as_secs() / 60), now);
        }
    }

    async fn hear(&mut self, said: Said<ToGuard>, now: Moment) {
        let message = match said {
            Said::Gone(how) => return self.gone(&format!("it ended: {how}"), now),
            Said::Message(message) => message,
        };
        self.heard = now;
        match message {
            // The rules judge on them; the worker waits where the loop lags.
            ToGuard::Event { kind } => {
                let _ = self.observations.send(Observation::Event(now, *kind)).await;
            }
            ToGuard::Status(status) => {
                self.failed = None;
                self.observe_services(&status, now).await;
                self.status.send_replace(Some((now, *status)));
            }
            ToGuard::Obeyed { order, failed } => {
                self.open.retain(|open| *open != order);
                self.obeyed.send_replace(Some((order, failed.map_or(Ok(()), Err))));
            }
            ToGuard::Failed { error } => self.failed = Some(error),
        }
    }

    /// What the rules judge on of services that nobody else asks: the observers ask by `http` and `tcp`, the worker in every way.
    async fn observe_services(&mut self, status: &RecoveryStatus, now: Moment) {
        for seen in &status.services {
            let (Some(ours), Some(health)) = (self.ours.get_mut(&seen.service), seen.health) else { continue };
            let unhealthy = health == Health::Unhealthy;
            let reading = ServiceReading {
                at: now,
                service: seen.service.clone(),
                health,
                // What the worker's look took says nothing about one service.
                took: Duration::ZERO,
                detail: unhealthy.then(|| seen.state.clone()),
                stopped_by: seen.stopped_by.clone(),
            };
            // A stop on purpose is no change of its health.
            let change = if reading.stopped_by.is_none() { ours.health.observe(&reading) } else { None };
            if let Some(Change { health, since, detail }) = change {
                let (service, impact) = (seen.service.clone(), ours.impact.clone());
                let kind = EventKind::ServiceChanged { service, health, detail, impact };
                let _ = self.observations.send(Observation::Event(since, kind)).await;
            }
            let _ = self.observations.send(Observation::Reading(Reading::Service(reading))).await;
        }
    }

    fn gone(&mut self, how: &str, now: Moment) {
        drop(self.worker.take());
        if now.since(self.started) >= LIVED {
            self.failures = 0;
        }
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.start_at = now.plus(PAUSE.saturating_mul(doubled).min(PAUSE_MAX));
        let why = self.failed.take().unwrap_or_else(|| how.to_owned());
        if let Some(order) = self.open.drain(..).next_back() {
            self.obeyed.send_replace(Some((order, Err(format!("the worker that acts on services ended: {why}")))));
        }
        tracing::error!(failures = self.failures, "services are not looked after: {why}");
        let problem = format!("the worker that brings services back is down: {why}");
        self.status.send_modify(|status| match status {
            Some((_, status)) => status.problem = Some(problem),
            None => {
                let mode = self.config.recovery_mode();
                let (services, steps, escalations) = (vec![], vec![], vec![]);
                let (expected, approval, problem) = (None, None, Some(problem));
                let nothing =
                    RecoveryStatus { mode, acting: false, services, steps, expected, escalations, approval, problem };
                *status = Some((now, nothing));
            }
        });
    }
}
