//! The loop that keeps a receiver running, and tells what it says.

use std::time::Duration;

use collector::clock;
use model::{
    EventKind, Lsn, Moment, Observation, Reading,
    reading::{Gap, ReceiveReading},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};
use wal::receive::SlotHealth;

use super::{
    STOP_TIMEOUT, Told,
    protocol::{Begin, PROTOCOL, ToGuard},
    rpo::Rpo,
};
use crate::{
    config::Config,
    guard::{
        child::{Process, Said},
        lines::to_line,
    },
};

/// How often is looked whether a worker is to be started.
const TICK: Duration = Duration::from_millis(500);
/// A reading is made so often, and whenever something changed.
const READING_EVERY: Duration = Duration::from_secs(5);
/// The first pause before a worker that ended is started again; it doubles with each that ended without receiving anything.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long a worker may be silent: while it streams it speaks once a second, and a connection attempt is bounded. More is a disk that hangs.
const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);

pub struct Receiving {
    config: Config,
    worker: Option<Process<ToGuard>>,
    /// When the worker last said anything, or was started.
    heard: Moment,
    start_at: Moment,
    rpo: Rpo,
    known: ReceiveReading,
    /// Whether the end of the stream was told; once is enough until it runs again.
    interruption_told: bool,
    store_failing: bool,
    /// Another server was promoted: what was said since the last stream began, and what holds for this one.
    superseded: (Option<String>, Option<String>),
    /// The slot is near its bound.
    slot_near: Option<String>,
    read_at: Option<Moment>,
    events: mpsc::Sender<(Moment, EventKind)>,
    observations: mpsc::Sender<Observation>,
}

impl Receiving {
    pub fn new(
        config: Config,
        repository: String,
        now: Moment,
        gap: Option<Gap>,
        events: mpsc::Sender<(Moment, EventKind)>,
        observations: mpsc::Sender<Observation>,
    ) -> Self {
        let known = ReceiveReading {
            at: now,
            repository,
            max_behind: config.wal.max_behind.0,
            receiving: false,
            timeline: None,
            durable: None,
            server: None,
            behind: Duration::ZERO,
            canary: None,
            failures: 0,
            last_error: None,
            gap,
        };
        Self {
            config,
            worker: None,
            heard: now,
            start_at: now,
            rpo: Rpo::new(now),
            known,
            interruption_told: false,
            store_failing: false,
            superseded: (None, None),
            slot_near: None,
            read_at: None,
            events,
            observations,
        }
    }

    pub async fn run(mut self, mut told: mpsc::Receiver<Told>, mut stopped: oneshot::Receiver<()>) {
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
                said = said => self.hear(said, clock::now()),
                told = told.recv() => match told {
                    Some(Told::Adopted(observations)) => {
                        self.observations = observations;
                        self.read(clock::now());
                    }
                    Some(Told::Backup(lsn)) => {
                        self.backed_up(lsn);
                        self.read(clock::now());
                    }
                    None => break,
                },
                _ = tick.tick() => self.step(clock::now()),
            }
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        let Some(worker) = &mut self.worker else { return };
        worker.finish();
        let gone = async { while !matches!(worker.hear().await, Said::Gone(_)) {} };
        let in_time = timeout(STOP_TIMEOUT, gone).await.is_ok();
        tracing::info!(in_time, "the receiver of WAL was ended");
    }

    fn step(&mut self, now: Moment) {
        if self.worker.is_none() && now.boot_us >= self.start_at.boot_us {
            let begin = Begin { protocol: PROTOCOL, config: Box::new(self.config.clone()) };
            self.heard = now;
            match Process::start("wal", to_line(&begin)) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => self.gone(&format!("the receiver can't be started: {error}"), now),
            }
        }
        if self.worker.is_some() && now.since(self.heard) > SILENCE_MAX {
            // Dropped, it is killed.
            self.gone(&format!("it said nothing for {} min and was killed", SILENCE_MAX.as_secs() / 60), now);
        }
        if self.read_at.is_none_or(|at| now.since(at) >= READING_EVERY) {
            self.read(now);
        }
    }

    fn hear(&mut self, said: Said<ToGuard>, now: Moment) {
        let message = match said {
            Said::Gone(how) => return self.gone(&format!("the receiver ended: {how}"), now),
            Said::Message(message) => message,
        };
        self.heard = now;
        match message {
            ToGuard::Progress { timeline, durable, server } => {
                self.rpo.hear(now, server, durable);
                self.known.timeline = Some(timeline);
                (self.known.durable, self.known.server) = (Some(durable), Some(server));
                // Once a second is too often for a reading of its own.
                return;
            }
            ToGuard::Based { stop } => self.backed_up(stop),
            ToGuard::Receiving { timeline, from, slot, slot_limit } => {
                self.known.receiving = true;
                // It is said before each stream of which it is so.
                self.superseded.1 = self.superseded.0.take();
                self.slot_near = None;
                (self.known.failures, self.known.last_error, self.interruption_told) = (0, None, false);
                self.known.timeline = Some(timeline);
                self.tell(now, EventKind::WalReceiving { timeline, from, slot, slot_limit });
            }
            ToGuard::Timeline { from, to, switch } => {
                self.tell(now, EventKind::WalTimelineChanged { from, to, switch });
            }
            ToGuard::Beyond { timeline, switch, stored } => {
                let problem = format!(
                    "WAL of timeline {timeline} from {switch} to {stored} is here that the server went on without: a failover lost it. It can be restored to by --timeline {timeline}"
                );
                self.problem(problem, now);
            }
            ToGuard::Superseded { timeline, newer } => {
                let problem = format!(
                    "this server writes timeline {timeline}, and the repository has a newer one, {newer}: another server was promoted. Is this an old primary that came back? A restore to the newest moment follows timeline {newer}"
                );
                if self.superseded.1.as_ref() != Some(&problem) {
                    self.problem(problem.clone(), now);
                }
                self.superseded.0 = Some(problem);
            }
            ToGuard::SlotHealth { slot, health, held } => {
                let how = match health {
                    SlotHealth::Fine => None,
                    SlotHealth::Near => Some("half of what max_slot_wal_keep_size allows"),
                    SlotHealth::Critical => Some(
                        "nearly all that max_slot_wal_keep_size allows: soon the server gives it up, and WAL is lost",
                    ),
                };
                self.slot_near = how.map(|how| format!("the slot {slot} makes the server keep {held}, {how}"));
                if let Some(problem) = self.slot_near.clone() {
                    self.problem(problem, now);
                }
            }
            ToGuard::Missing { timeline, from, to } => {
                self.known.gap = Some(Gap { from, to });
                self.tell(now, EventKind::WalMissing { timeline, from, to });
            }
            ToGuard::SlotLost { slot, why } => self.tell(now, EventKind::WalSlotLost { slot, why }),
            ToGuard::StoreFailing { error } => {
                self.known.last_error = Some(error.clone());
                if !std::mem::replace(&mut self.store_failing, true) {
                    self.tell(now, EventKind::WalStoreFailing { error });
                }
            }
            ToGuard::StoreBack { after } => {
                self.store_failing = false;
                self.known.last_error = None;
                self.tell(now, EventKind::WalStoreBack { after });
            }
            ToGuard::Interrupted { why } => self.interrupted(why, now),
            ToGuard::Canary { took } => {
                self.known.canary = Some(took);
                return;
            }
            ToGuard::CanaryFailing { error } => self.known.last_error = Some(format!("the canary: {error}")),
            ToGuard::Failed { error } => self.interrupted(error, now),
        }
        self.read(now);
    }

    /// There is a backup that is consistent at `stop`: what is missing before it matters no more to the present.
    fn backed_up(&mut self, stop: Lsn) {
        self.known.gap = self.known.gap.filter(|gap| gap.to > stop);
    }

    fn problem(&self, problem: String, now: Moment) {
        tracing::warn!("{problem}");
        self.tell(now, EventKind::RepositoryProblem { repository: self.known.repository.clone(), problem });
    }

    /// The stream ended, or never began.
    fn interrupted(&mut self, error: String, now: Moment) {
        self.known.receiving = false;
        self.known.failures = self.known.failures.saturating_add(1);
        if !std::mem::replace(&mut self.interruption_told, true) {
            let behind = self.rpo.behind(now);
            self.tell(now, EventKind::WalInterrupted { error: error.clone(), behind });
        }
        self.known.last_error = Some(error);
    }

    /// The worker is gone: another one follows, after a pause where it had received nothing.
    fn gone(&mut self, how: &str, now: Moment) {
        drop(self.worker.take());
        if self.known.receiving || self.known.last_error.is_none() {
            self.interrupted(how.to_owned(), now);
        }
        let doubled = 1_u32.checked_shl(self.known.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.start_at = now.plus(PAUSE.saturating_mul(doubled).min(PAUSE_MAX));
        tracing::warn!(how, failures = self.known.failures, "no WAL is received");
        self.read(now);
    }

    /// A reading, for the rules, `status` and the journal.
    fn read(&mut self, now: Moment) {
        let behind = self.rpo.behind(now);
        let mut reading = ReceiveReading { at: now, behind, ..self.known.clone() };
        // What hinders comes before what is odd.
        let odd = self.superseded.1.iter().chain(&self.slot_near).next();
        reading.last_error = reading.last_error.or_else(|| odd.cloned());
        self.read_at = Some(now);
        // The loop lags: the next one comes in a moment.
        if self.observations.try_send(Observation::Reading(Reading::Receive(reading))).is_err() {
            self.read_at = None;
        }
    }

    fn tell(&self, now: Moment, kind: EventKind) {
        if let Err(error) = self.events.try_send((now, kind)) {
            tracing::error!(%error, "an event of the receiver is not recorded");
        }
    }
}
