//! The task that owns what is on its way and the worker that carries it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use model::{Alert, AlertKey, AlertState, EventKind, Moment, alert::rule};
use tokio::sync::{mpsc, watch};

use super::{
    OUTBOX_ROUTE, first_id,
    storage::{Storage, Write, WriteFailed},
    worker::{MAX_UNANSWERED, PING_INTERVAL, Said, Worker, WorkerCommand},
};
use crate::{
    clock,
    deliver::{self, REMIND_INTERVAL},
    heartbeat::{Heartbeat, TOLD_AFTER},
    hush::{Ack, Hush, Silence, due},
    outbox::{MAX_PENDING, Pending, Recovered, victim},
    peer::Peer,
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

/// How often a worker is told that the guard senses: far more often than that goes stale ([`crate::SENSED_WITHIN`]).
const SENSED_EVERY: Duration = Duration::from_secs(1);

/// Messages of workers that wait to be read.
const SAID: usize = 1_024;

/// An open episode.
struct Episode {
    /// Its firing alert.
    alert: Alert,
    /// The routes that were told, or are being told.
    told: BTreeSet<String>,
}

/// What the worker is for, and how it is started.
pub(super) struct Work {
    pub(super) routes: Vec<Route>,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) peer: Option<Peer>,
    pub(super) command: WorkerCommand,
}

/// Where the guard hears of what becomes of it.
pub(super) struct Tells {
    pub(super) outcomes: mpsc::Sender<(Moment, EventKind)>,
    /// Whom nothing reaches, each in a sentence.
    pub(super) problems: watch::Sender<Vec<String>>,
    /// What is heard of the other guard; none while nobody listens.
    pub(super) heard: watch::Sender<Option<Ear>>,
}

/// What is heard of the other guard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ear {
    /// When it was heard last, or listening for it began.
    pub(super) since: Moment,
    /// Whether it was heard.
    pub(super) heard: bool,
}

pub(super) struct Supervisor {
    routes: Vec<Route>,
    heartbeat: Option<Heartbeat>,
    peer: Option<Peer>,
    command: WorkerCommand,
    storage: Storage,
    tells: Tells,
    /// Routes that reach nobody as they are.
    of_routes: Vec<String>,
    /// Why the heartbeat does not arrive.
    of_heartbeat: Option<String>,
    /// Why the other guard is not told of us, and why we can't listen for it.
    of_peer: [Option<String>; 2],
    /// When the newest reading of the host that reached the loop was taken.
    sensed: watch::Receiver<Option<Moment>>,
    /// The one that the worker was told of last.
    told_sensed: Option<Moment>,
    pending: BTreeMap<u64, Pending>,
    next_id: u64,
    /// The open episodes. At most one for each rule.
    open: BTreeMap<AlertKey, Episode>,
    hush: watch::Receiver<Hush>,
    /// Acknowledgements that are in the journal.
    acknowledged: BTreeSet<AlertKey>,
    remind_at: Instant,
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
        work: Work,
        storage: Storage,
        tells: Tells,
        sensed: watch::Receiver<Option<Moment>>,
        hush: watch::Receiver<Hush>,
        recovered: &Recovered,
    ) -> Self {
        let Work { routes, heartbeat, peer, command } = work;
        let (said, said_rx) = mpsc::channel(SAID);
        let now = Instant::now();
        let next_id = first_id(&recovered.pending);
        let acknowledged = hush.borrow().acks.iter().map(|ack| ack.key.clone()).collect();
        let open = recovered.open.iter().map(|alert| {
            let mut told = recovered.told.get(&alert.key).cloned().unwrap_or_else(|| {
                // An older guard told all.
                routes.iter().filter(|route| route.carries(alert)).map(|route| route.name.clone()).collect()
            });
            // A crash came between handing it over and noting it.
            let on_its_way = recovered.pending.iter().filter(|pending| pending.alert.key == alert.key);
            told.extend(on_its_way.map(|pending| pending.route.clone()));
            (alert.key.clone(), Episode { alert: alert.clone(), told })
        });
        let open = open.collect();
        let mut supervisor = Self {
            routes,
            heartbeat,
            peer,
            command,
            storage,
            tells,
            of_routes: Vec::new(),
            of_heartbeat: None,
            of_peer: [None, None],
            sensed,
            told_sensed: None,
            pending: BTreeMap::new(),
            next_id,
            open,
            hush,
            acknowledged,
            // An Alertmanager that we watched for may have forgotten them while there was no guard.
            remind_at: now + PING_INTERVAL,
            worker: None,
            generation: 0,
            failed_starts: 0,
            why_none: String::new(),
            start_at: now,
            ping_at: now + PING_INTERVAL,
            said,
            said_rx: Some(said_rx),
        };
        for pending in recovered.pending.iter().cloned() {
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
                () = tokio::time::sleep_until(tick.into()) => {
                    self.tick();
                    // What people said is only just being read: time for that, and no more, should the disk hang.
                    self.look_again(PING_INTERVAL);
                }
                Ok(()) = self.hush.changed() => self.look_again(Duration::ZERO),
                Ok(()) = self.sensed.changed() => self.pass_on_sensed(),
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
        let Self { storage, tells, .. } = self;
        drop(storage);
        // Ends when the thread has written what it was given.
        while let Ok(Some(failure)) = tokio::time::timeout_at(deadline, write_failures.recv()).await {
            tracing::error!("{}", failure.error);
        }
        drop(tells);
    }

    fn accept(&mut self, alert: &Alert) {
        match alert.state {
            AlertState::Firing => {
                // Each word to members is news, also to whom the one before it was told.
                let known = self.open.get(&alert.key).filter(|_| alert.rule.0 != rule::MEMBERS_WORD);
                let known = known.map(|episode| episode.told.clone());
                let told = known.unwrap_or_default();
                let silence = self.hush.borrow().silence(alert, clock::now().wall).cloned();
                if let Some(Silence { id, until, by, .. }) = silence {
                    tracing::info!(key = %alert.key, silence = id, "silenced by {by} until {until}");
                    self.report(EventKind::AlertSilenced { key: alert.key.clone(), silence: id, by, until });
                }
                self.open.insert(alert.key.clone(), Episode { alert: alert.clone(), told });
                if !self.tell_whom_it_is_due(&alert.key, Duration::ZERO) {
                    self.note(&alert.key);
                }
            }
            AlertState::Resolved => {
                // Whoever heard of its begin hears of its end, also in a silence; nobody else does.
                let told = self.open.remove(&alert.key).map(|episode| episode.told);
                let routes = self.routes.iter().map(|route| &route.name);
                let names = match &told {
                    Some(told) => routes.filter(|name| told.contains(*name)).cloned().collect(),
                    None => self.routes.iter().filter(|r| r.carries(alert)).map(|r| r.name.clone()).collect(),
                };
                self.tell(alert, names);
                self.acknowledged.remove(&alert.key);
                self.storage.ask(Write::Note(Box::new(alert.clone()), BTreeSet::new()));
            }
        }
    }

    /// Hands an open episode to the routes that are to be told of it now, or were `grace` ago. Whether there were any.
    fn tell_whom_it_is_due(&mut self, key: &AlertKey, grace: Duration) -> bool {
        let Some(Episode { alert, told }) = self.open.get(key) else { return false };
        let names: Vec<String> = {
            let hush = self.hush.borrow();
            let age = age(alert).saturating_sub(grace);
            let due = due(&self.routes, alert, told, &hush, age, clock::now().wall);
            due.map(|route| route.name.clone()).collect()
        };
        if names.is_empty() {
            return false;
        }
        let alert = alert.clone();
        if let Some(episode) = self.open.get_mut(key) {
            episode.told.extend(names.iter().cloned());
        }
        self.tell(&alert, names);
        self.note(key);
        true
    }

    /// Makes durable that an episode is open and who was told of it.
    fn note(&self, key: &AlertKey) {
        if let Some(Episode { alert, told }) = self.open.get(key) {
            self.storage.ask(Write::Note(Box::new(alert.clone()), told.clone()));
        }
    }

    /// What has become due since: a silence is over, nobody has acknowledged it. And what people said goes to the journal.
    fn look_again(&mut self, grace: Duration) {
        let acks: Vec<Ack> = self.hush.borrow().acks.clone();
        for Ack { key, by, .. } in acks {
            if self.open.contains_key(&key) && self.acknowledged.insert(key.clone()) {
                tracing::info!(%key, "acknowledged by {by}");
                self.report(EventKind::AlertAcknowledged { key, by });
            }
        }
        let keys: Vec<AlertKey> = self.open.keys().cloned().collect();
        for key in keys {
            self.tell_whom_it_is_due(&key, grace);
        }
    }

    /// Hands an alert to these routes and makes it durable.
    fn tell(&mut self, alert: &Alert, names: Vec<String>) {
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

    /// Whether there is anything for a worker to do.
    fn needs_worker(&self) -> bool {
        !self.routes.is_empty() || self.says_that_it_senses()
    }

    /// Whether anybody outside is to hear that the guard senses.
    fn says_that_it_senses(&self) -> bool {
        self.heartbeat.is_some() || self.peer.is_some()
    }

    fn start_worker(&mut self) {
        if !self.needs_worker() {
            return;
        }
        self.generation += 1;
        let (routes, heartbeat, peer) = (self.routes.clone(), self.heartbeat.clone(), self.peer.clone());
        let hello = ToWorker::Hello { protocol: PROTOCOL, routes, heartbeat, peer };
        match Worker::start(&self.command, &hello, self.generation, self.said.clone()) {
            Ok(worker) => {
                self.worker = Some(worker);
                self.told_sensed = None;
                self.pass_on_sensed();
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
        // What is not listened for is not silent.
        self.tells.heard.send_replace(None);
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
            None if !self.needs_worker() => self.ping_at,
            None => self.start_at,
        }
    }

    fn tick(&mut self) {
        self.ping_at = Instant::now() + PING_INTERVAL;
        self.storage.ask(Write::LookAtHush);
        match &mut self.worker {
            None => self.start_worker(),
            Some(worker) if worker.unanswered >= MAX_UNANSWERED => self.lose_worker("it does not answer"),
            Some(worker) => {
                worker.unanswered += 1;
                worker.tell(&ToWorker::Ping);
                self.remind();
            }
        }
    }

    /// Tells the receivers that forget what still holds. What is on its way to them anyway needs no reminder.
    fn remind(&mut self) {
        let now = Instant::now();
        let Some(worker) = self.worker.as_ref().filter(|_| now >= self.remind_at) else { return };
        self.remind_at = now + REMIND_INTERVAL;
        for route in self.routes.iter().filter(|route| route.carrier.forgets()) {
            let told = self.open.values().filter(|episode| episode.told.contains(&route.name));
            for Episode { alert, .. } in told {
                if !self.pending.values().any(|p| p.route == route.name && p.alert.key == alert.key) {
                    worker.tell(&ToWorker::Remind { route: route.name.clone(), alert: Box::new(alert.clone()) });
                }
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
                self.of_routes = problems.into_iter().map(sentence).collect();
                self.publish_problems();
            }
            Said::Message(ToGuard::Heartbeat { missed, error }) => self.hear_of_heartbeat(missed, error),
            Said::Message(ToGuard::PeerTold { missed, error }) => {
                let error = error.filter(|_| missed >= TOLD_AFTER);
                self.set_of_peer(
                    0,
                    error.map(|error| format!("the other guard is not told that this one lives: {error}")),
                );
            }
            Said::Message(ToGuard::PeerListens { error }) => {
                let ear = Ear { since: clock::now(), heard: false };
                self.tells.heard.send_replace(Some(ear).filter(|_| error.is_none()));
                self.set_of_peer(1, error.map(|error| format!("the other guard is not listened for: {error}")));
            }
            Said::Message(ToGuard::PeerHeard) => {
                self.tells.heard.send_replace(Some(Ear { since: clock::now(), heard: true }));
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

    /// Tells the worker that the guard senses: once a second will do.
    fn pass_on_sensed(&mut self) {
        let newest = *self.sensed.borrow_and_update();
        let (Some(worker), Some(taken)) = (&self.worker, newest.filter(|_| self.says_that_it_senses())) else { return };
        if self.told_sensed.is_none_or(|told| taken.since(told) >= SENSED_EVERY)
            && worker.tell(&ToWorker::Sensed { boot_us: taken.boot_us })
        {
            self.told_sensed = Some(taken);
        }
    }

    /// A check outside that can't be reached is no alert: it alarms by itself, and a flood from here would help nobody.
    fn hear_of_heartbeat(&mut self, missed: u32, error: Option<String>) {
        let problem = error.filter(|_| missed >= TOLD_AFTER).map(|error| {
            format!("the heartbeat does not arrive, {missed} times in a row: {error}; whoever watches this guard from outside takes it for dead")
        });
        match (&self.of_heartbeat, &problem) {
            (None, Some(problem)) => tracing::error!("{problem}"),
            (Some(_), None) => tracing::info!("the heartbeat arrives again"),
            _ => {}
        }
        self.of_heartbeat = problem;
        self.publish_problems();
    }

    fn set_of_peer(&mut self, which: usize, problem: Option<String>) {
        let Some(slot) = self.of_peer.get_mut(which).filter(|slot| **slot != problem) else { return };
        match &problem {
            Some(problem) => tracing::error!("{problem}"),
            None => tracing::info!("the way to or from the other guard is there again"),
        }
        *slot = problem;
        self.publish_problems();
    }

    fn publish_problems(&self) {
        let peer = self.of_peer.iter().flatten();
        let all = self.of_routes.iter().chain(&self.of_heartbeat).chain(peer);
        self.tells.problems.send_replace(all.cloned().collect());
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
        if let Err(mpsc::error::TrySendError::Full(_)) = self.tells.outcomes.try_send((clock::now(), event)) {
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
