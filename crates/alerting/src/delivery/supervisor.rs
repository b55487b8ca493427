//! The task that owns what is on its way and the worker that carries it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use model::{Alert, EventKind, Moment};
use tokio::sync::{mpsc, watch};

use super::{
    OUTBOX_ROUTE, first_id,
    storage::{Storage, Write, WriteFailed},
    worker::{MAX_UNANSWERED, PING_INTERVAL, Said, Worker, WorkerCommand},
};
use crate::{
    clock, deliver,
    outbox::{MAX_PENDING, Pending, victim},
    protocol::{PROTOCOL, RouteProblem, ToGuard, ToWorker},
    route::Route,
};

/// Pause before the first new start of a worker; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A worker that lived this long was fine: the pauses begin anew.
const LIVED: Duration = Duration::from_secs(60);

/// Failed starts in a row that are reported for each waiting alert. Later ones are only logged, or an outage of the worker would
/// flood the journal.
const REPORTED_STARTS: u32 = 3;

/// Messages of workers that wait to be read.
const SAID: usize = 1_024;

pub(super) struct Supervisor {
    routes: Vec<Route>,
    command: WorkerCommand,
    storage: Storage,
    outcomes: mpsc::Sender<(Moment, EventKind)>,
    /// Routes that reach nobody as they are, each in a sentence.
    problems: watch::Sender<Vec<String>>,
    pending: BTreeMap<u64, Pending>,
    next_id: u64,
    worker: Option<Worker>,
    generation: u64,
    /// Starts that were followed by no minute of life.
    failed_starts: u32,
    /// Why there is no worker at the moment.
    why_none: String,
    start_at: Instant,
    ping_at: Instant,
    said: mpsc::Sender<(u64, Said)>,
    said_rx: Option<mpsc::Receiver<(u64, Said)>>,
}

impl Supervisor {
    pub(super) fn new(
        routes: Vec<Route>,
        command: WorkerCommand,
        storage: Storage,
        outcomes: mpsc::Sender<(Moment, EventKind)>,
        problems: watch::Sender<Vec<String>>,
        recovered: Vec<Pending>,
    ) -> Self {
        let (said, said_rx) = mpsc::channel(SAID);
        let now = Instant::now();
        let next_id = first_id(&recovered);
        let mut supervisor = Self {
            routes,
            command,
            storage,
            outcomes,
            problems,
            pending: BTreeMap::new(),
            next_id,
            worker: None,
            generation: 0,
            failed_starts: 0,
            why_none: String::new(),
            start_at: now,
            ping_at: now + PING_INTERVAL,
            said,
            said_rx: Some(said_rx),
        };
        for pending in recovered {
            if supervisor.routes.iter().any(|route| route.name == pending.route) {
                supervisor.pending.insert(pending.id, pending);
            } else {
                supervisor.storage.ask(Write::Remove(pending.id));
                supervisor.report_failure(&pending, 1, "this route is no longer configured".into(), true);
            }
        }
        supervisor
    }

    pub(super) async fn run(
        mut self,
        mut submitted: mpsc::Receiver<Alert>,
        mut write_failures: mpsc::Receiver<WriteFailed>,
    ) {
        let Some(mut said) = self.said_rx.take() else { return };
        self.start_worker();
        loop {
            let tick = self.next_tick();
            tokio::select! {
                alert = submitted.recv() => match alert {
                    Some(alert) => self.accept(&alert),
                    None => break,
                },
                Some((generation, what)) = said.recv() => self.hear(generation, what),
                Some(failure) = write_failures.recv() => self.report_write(failure),
                () = tokio::time::sleep_until(tick.into()) => self.tick(),
            }
        }
        self.finish(said, write_failures).await;
    }

    /// The last deliveries of a guard that stops.
    async fn finish(mut self, mut said: mpsc::Receiver<(u64, Said)>, mut write_failures: mpsc::Receiver<WriteFailed>) {
        if let Some(worker) = &mut self.worker {
            worker.finish();
        }
        let deadline = tokio::time::Instant::now() + deliver::DRAIN + Duration::from_secs(2);
        while self.worker.is_some() {
            match tokio::time::timeout_at(deadline, said.recv()).await {
                // It was asked to end.
                Ok(Some((_, Said::Gone(_)))) => self.worker = None,
                Ok(Some((generation, what))) => self.hear(generation, what),
                _ => break,
            }
        }
        let Self { storage, outcomes, .. } = self;
        drop(storage);
        // Ends when the thread has written what it was given.
        while let Ok(Some(failure)) = tokio::time::timeout_at(deadline, write_failures.recv()).await {
            tracing::error!("{}", failure.error);
        }
        drop(outcomes);
    }

    fn accept(&mut self, alert: &Alert) {
        let names: Vec<String> = self
            .routes
            .iter()
            .filter(|route| alert.severity >= route.min_severity)
            .map(|route| route.name.clone())
            .collect();
        let first = self.next_id;
        for route in names {
            let id = self.next_id;
            self.next_id += 1;
            let pending = Pending { id, route, alert: alert.clone() };
            self.hand_over(&pending);
            self.pending.insert(id, pending);
        }
        // Durable after handed over; see the module's order.
        for pending in self.pending.range(first..).map(|(_, pending)| pending) {
            self.storage.ask(Write::Put(Box::new(pending.clone())));
        }
        self.storage.ask(Write::Note(Box::new(alert.clone())));
        while self.pending.len() > MAX_PENDING {
            let Some(dropped) = victim(self.pending.values()).and_then(|id| self.pending.remove(&id)) else { return };
            if let Some(worker) = &self.worker {
                worker.tell(&ToWorker::Forget { id: dropped.id });
            }
            self.storage.ask(Write::Remove(dropped.id));
            let error = format!("dropped: {MAX_PENDING} alerts wait to be delivered, which is the bound");
            self.report_failure(&dropped, 1, error, true);
        }
    }

    fn hand_over(&mut self, pending: &Pending) {
        let Some(worker) = &self.worker else {
            return self.report_failure(pending, self.failed_starts.max(1), self.why_none.clone(), false);
        };
        let message = ToWorker::Deliver {
            id: pending.id,
            route: pending.route.clone(),
            alert: Box::new(pending.alert.clone()),
            age_ms: u64::try_from(age(&pending.alert).as_millis()).unwrap_or(u64::MAX),
        };
        if !worker.tell(&message) {
            self.lose_worker("it takes no more alerts");
        }
    }

    fn start_worker(&mut self) {
        if self.routes.is_empty() {
            return;
        }
        self.generation += 1;
        match Worker::start(&self.command, &self.routes, self.generation, self.said.clone()) {
            Ok(worker) => {
                self.worker = Some(worker);
                self.ping_at = Instant::now() + PING_INTERVAL;
                let all: Vec<_> = self.pending.values().cloned().collect();
                for pending in &all {
                    self.hand_over(pending);
                }
            }
            Err(error) => {
                let program = self.command.program.display();
                let error = format!(
                    "the delivery worker {program} can't be started: {error}. Hint: alerts are in the log meanwhile; is the binary there and executable?"
                );
                self.pause_starts(&error);
            }
        }
    }

    fn lose_worker(&mut self, why: &str) {
        let Some(worker) = self.worker.take() else { return };
        if worker.started.elapsed() >= LIVED {
            self.failed_starts = 0;
        }
        self.pause_starts(&format!("the delivery worker ended ({why}); a new one is started"));
    }

    fn pause_starts(&mut self, error: &str) {
        self.failed_starts = self.failed_starts.saturating_add(1);
        let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.failed_starts - 1).unwrap_or(u32::MAX));
        self.start_at = Instant::now() + doubled.min(LONGEST_PAUSE);
        error.clone_into(&mut self.why_none);
        tracing::error!(attempt = self.failed_starts, pending = self.pending.len(), "{error}");
        if self.failed_starts <= REPORTED_STARTS {
            for pending in self.pending.values() {
                self.report_failure(pending, self.failed_starts, error.to_owned(), false);
            }
        }
    }

    fn next_tick(&self) -> Instant {
        match self.worker {
            Some(_) => self.ping_at,
            None if self.routes.is_empty() => self.ping_at,
            None => self.start_at,
        }
    }

    fn tick(&mut self) {
        self.ping_at = Instant::now() + PING_INTERVAL;
        match &mut self.worker {
            None => self.start_worker(),
            Some(worker) if worker.unanswered >= MAX_UNANSWERED => self.lose_worker("it does not answer"),
            Some(worker) => {
                worker.unanswered += 1;
                worker.tell(&ToWorker::Ping);
            }
        }
    }

    fn hear(&mut self, generation: u64, what: Said) {
        let Some(worker) = self.worker.as_mut().filter(|worker| worker.generation == generation) else { return };
        worker.unanswered = 0;
        match what {
            Said::Gone(how) => self.lose_worker(&how),
            Said::Message(ToGuard::Pong) => {}
            Said::Message(ToGuard::Ready { protocol, problems }) => {
                if protocol != PROTOCOL {
                    tracing::warn!(protocol, "the delivery worker is of another version. Hint: restart the guard");
                }
                for problem in &problems {
                    tracing::error!(route = problem.route, "alerts do not reach this route: {}", problem.error);
                }
                let sentence = |p: RouteProblem| format!("alerts do not reach the route {}: {}", p.route, p.error);
                self.problems.send_replace(problems.into_iter().map(sentence).collect());
            }
            Said::Message(ToGuard::Delivered { id, attempt }) => {
                // What a worker before it already acknowledged is no longer there.
                let Some(Pending { route, alert, .. }) = self.pending.remove(&id) else { return };
                self.storage.ask(Write::Remove(id));
                let latency = age(&alert);
                self.report(EventKind::AlertDelivered { key: alert.key, state: alert.state, route, attempt, latency });
            }
            Said::Message(ToGuard::Failed { id, attempt, error, gave_up }) => {
                let Some(pending) = self.pending.get(&id).cloned() else { return };
                if gave_up {
                    self.pending.remove(&id);
                    self.storage.ask(Write::Remove(id));
                }
                self.report_failure(&pending, attempt, error, gave_up);
            }
        }
    }

    fn report_failure(&self, pending: &Pending, attempt: u32, error: String, gave_up: bool) {
        let (key, route) = (pending.alert.key.clone(), pending.route.clone());
        tracing::warn!(%key, route, attempt, gave_up, "alert not delivered: {error}");
        self.report(EventKind::AlertFailed { key, route, attempt, error, gave_up });
    }

    fn report_write(&self, failure: WriteFailed) {
        tracing::error!("{}", failure.error);
        let Some(key) = failure.key else { return };
        let (route, error) = (OUTBOX_ROUTE.to_owned(), failure.error);
        self.report(EventKind::AlertFailed { key, route, attempt: 1, error, gave_up: false });
    }

    fn report(&self, event: EventKind) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outcomes.try_send((clock::now(), event)) {
            tracing::warn!("delivery: nobody reads its outcomes; one was dropped");
        }
    }
}

/// From the decision until now; by the wall clock where the decision is of an earlier boot.
fn age(alert: &Alert) -> Duration {
    let now = clock::now();
    if now.boot_us >= alert.decided.boot_us {
        now.since(alert.decided)
    } else {
        Duration::try_from(now.wall.duration_since(alert.decided.wall)).unwrap_or(Duration::ZERO)
    }
}
