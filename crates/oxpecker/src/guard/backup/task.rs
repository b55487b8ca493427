//! The loop that looks, starts what is due, and tells what came of it.

use std::time::Duration;

use backup::{
    pressure::{Order, Pressure},
    schedule::runs::{Due, Runs, Why},
};
use collector::clock;
use jiff::Timestamp;
use model::{EventKind, Moment, Observation, Reading, event::BackupTask as Task, reading::BackupRunning};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    OwnWork, STOP_TIMEOUT, Settings, Told,
    child::{Said, Stage, Worker},
    known::Known,
    past::Past,
    protocol::{Job, Seen, ToGuard, ToWorker},
};

/// How often is looked whether something is due, and whether the worker is to step back.
const TICK: Duration = Duration::from_millis(500);
/// How often the repository is looked at: people make, prove and remove backups by hand, and disks vanish.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// How long after a look that failed the next one comes; doubles up to [`LOOK_EVERY`].
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);
/// How long a look may take: a key is stretched and a log read. More is a disk that hangs.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long a worker may be silent. Checking a great index tells nothing for hours; for ever is a disk that hangs.
const SILENCE_MAX: Duration = Duration::from_secs(12 * 3600);
/// How often a reading is made where nothing changed.
const READING_EVERY: Duration = Duration::from_secs(60);
/// Progress is an event at most so often, and whenever another quarter is done.
const PROGRESS_EVERY: Duration = Duration::from_secs(10 * 60);
/// Reasons of a failed proof that an event carries.
const REASONS_MAX: usize = 10;

pub struct Backups {
    settings: Settings,
    known: Known,
    runs: Runs,
    /// The backup that a guard made and that shall be proven; see [`Past::unproven`].
    unproven: Option<(String, u32)>,
    pressure: Pressure,
    worker: Option<Worker>,
    /// The newest look began; none where the next one is due.
    looked_at: Option<Moment>,
    look_again: Duration,
    read_at: Option<Moment>,
    /// When progress was last an event, of which stage, and which quarter.
    told: Option<(Moment, String, u64)>,
    events: mpsc::Sender<(Moment, EventKind)>,
    observations: mpsc::Sender<Observation>,
    /// Whether the shedding ladder wants the worker to stand back: then it does, and nothing is begun.
    held: bool,
    /// What the worker was told last.
    told_to_pause: bool,
    seen: watch::Sender<OwnWork>,
}

impl Backups {
    pub fn new(
        settings: Settings,
        past: Past,
        now: Moment,
        events: mpsc::Sender<(Moment, EventKind)>,
        observations: mpsc::Sender<Observation>,
        seen: watch::Sender<OwnWork>,
    ) -> Self {
        let mut known = Known::new(settings.repository.clone(), settings.max_age, past.runs.known_since, now);
        known.error = past.error;
        Self {
            settings,
            known,
            runs: past.runs,
            unproven: past.unproven,
            pressure: Pressure::default(),
            worker: None,
            looked_at: None,
            look_again: Duration::ZERO,
            read_at: None,
            told: None,
            events,
            observations,
            held: false,
            told_to_pause: false,
            seen,
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
                    Some(Told::Seen(observation)) => self.pressure.observe(&observation),
                    Some(Told::StandBack(wanted)) => {
                        self.held = wanted;
                        self.step(clock::now());
                    }
                    Some(Told::Adopted(observations)) => {
                        self.observations = observations;
                        // Whoever reloads may have mended what was in the way.
                        self.looked_at = None;
                        self.read(clock::now());
                    }
                    None => break,
                },
                _ = tick.tick() => self.step(clock::now()),
            }
        }
        self.stop().await;
    }

    /// Ends the worker; what it does is not lost but interrupted, and begins anew with the next guard.
    async fn stop(mut self) {
        let Some(worker) = &mut self.worker else { return };
        worker.finish();
        let gone = async {
            while let Some(worker) = &mut self.worker {
                match worker.hear().await {
                    Said::Gone(_) => break,
                    // It may just have made it.
                    said @ Said::Message(ToGuard::Created { .. } | ToGuard::Proven { .. } | ToGuard::Pruned { .. }) => {
                        self.hear(said, clock::now());
                    }
                    // That it failed now is our doing.
                    Said::Message(_) => {}
                }
            }
        };
        let in_time = timeout(STOP_TIMEOUT, gone).await.is_ok();
        let Some(worker) = self.worker.take() else { return };
        tracing::info!(job = ?worker.job, in_time, "the backup worker was ended");
        if worker.job == Job::Create && worker.stage == Stage::Begun {
            let error = "interrupted: the guard ended".to_owned();
            self.tell(clock::now(), EventKind::BackupFailed { error, failures: 0, retry_at: None });
        }
    }

    /// Looks at the time: is the worker stuck, is it to step back, is something due.
    fn step(&mut self, now: Moment) {
        match &mut self.worker {
            Some(worker) => {
                let patience = if worker.job == Job::Look { LOOK_TIMEOUT } else { SILENCE_MAX };
                if now.since(worker.heard) > patience {
                    // Dropped, it is killed.
                    let how = format!("it said nothing for {} min and was killed", patience.as_secs() / 60);
                    self.gone(&how, now);
                } else {
                    if let Some(Order::Pause { why }) = self.pressure.step(now) {
                        tracing::info!(why, "the backup worker steps back");
                    }
                    let pause = self.held || self.pressure.paused();
                    if pause != self.told_to_pause {
                        self.told_to_pause = pause;
                        worker.tell(&if pause { ToWorker::Pause } else { ToWorker::Resume });
                        if let Some(running) = &mut self.known.running {
                            running.paused = pause;
                        }
                    }
                }
            }
            // Nothing is begun while the host is shedding load; what is due waits.
            None if self.held => {}
            None => self.begin_what_is_due(now),
        }
        if self.read_at.is_none_or(|at| now.since(at) >= READING_EVERY) {
            self.read(now);
        }
        let (running, paused) = (self.worker.is_some(), self.worker.is_some() && self.pressure.paused());
        self.seen.send_if_modified(|seen| {
            let now = OwnWork { running, paused, held: self.held };
            std::mem::replace(seen, now) != now
        });
    }

    fn begin_what_is_due(&mut self, now: Moment) {
        let wait = if self.look_again.is_zero() { LOOK_EVERY } else { self.look_again };
        if self.looked_at.is_none_or(|at| now.since(at) >= wait) {
            self.looked_at = Some(now);
            return self.start(Job::Look, now);
        }
        // Without a look that succeeded nobody knows what a person did meanwhile; and where looking fails, so would the rest.
        if !self.look_again.is_zero() {
            return;
        }
        let Some(due) = self.runs.next(self.settings.schedule.as_ref(), now.wall).filter(|due| due.at <= now.wall)
        else {
            return;
        };
        let job = match due.task {
            Task::Create => Job::Create,
            Task::Prove => Job::Prove,
        };
        self.tell(now, EventKind::BackupStarted { task: due.task, reason: reason(&due) });
        self.start(job, now);
    }

    fn start(&mut self, job: Job, now: Moment) {
        self.pressure.begin();
        self.told_to_pause = false;
        self.told = None;
        match Worker::start(job, &self.settings.config, now) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => self.failed(job, Stage::Begun, &format!("the backup worker can't be started: {error}"), now),
        }
        if job != Job::Look {
            let stage = "beginning".to_owned();
            let (done, total) = Default::default();
            self.known.running = Some(BackupRunning { stage, done, total, remaining: None, paused: false });
            self.read(now);
        }
    }

    fn hear(&mut self, said: Said, now: Moment) {
        let message = match said {
            Said::Gone(how) => return self.gone(&how, now),
            Said::Message(message) => message,
        };
        let Some(worker) = &mut self.worker else { return };
        worker.heard = now;
        match message {
            ToGuard::Seen(seen) => {
                if worker.job == Job::Look {
                    worker.stage = Stage::Concluded;
                }
                self.see(seen, now);
            }
            ToGuard::NotSeen { error } => {
                worker.stage = Stage::Concluded;
                self.failed(Job::Look, Stage::Begun, &error, now);
            }
            ToGuard::Progress { stage, done, total, remaining } => {
                let paused = self.told_to_pause;
                self.known.running = Some(BackupRunning { stage, done, total, remaining, paused });
                return self.progress(now);
            }
            ToGuard::Created { backup, stop_lsn, took, stored } => {
                worker.stage = Stage::Created;
                let began = worker.began.wall;
                self.runs.made(began, self.settings.prove);
                self.unproven = self.settings.prove.then(|| (backup.id.clone(), 0));
                self.known.error = None;
                let event = EventKind::BackupFinished {
                    backup: backup.id.clone(),
                    consistent_at: backup.consistent_at,
                    stop_lsn,
                    took,
                    size: backup.size,
                    stored,
                    corrupt_pages: backup.corrupt_pages,
                };
                self.known.made(backup, now);
                self.tell(now, event);
            }
            ToGuard::NotCreated { error } => {
                worker.stage = Stage::Concluded;
                self.failed(Job::Create, Stage::Begun, &error, now);
            }
            ToGuard::Proven { backup, consistent_at, took, recovery_time, found_age } => {
                worker.stage = Stage::Concluded;
                self.runs.proven();
                (self.unproven, self.known.error) = (None, None);
                self.known.prove(&backup, recovery_time, found_age);
                self.tell(now, EventKind::ProofFinished { backup, consistent_at, took, recovery_time, found_age });
            }
            ToGuard::NotProven { backup, damaged, reasons } => {
                worker.stage = Stage::Concluded;
                self.not_proven(backup, damaged, reasons, now);
            }
            ToGuard::Pruned { kept, expired, freed } => {
                self.tell(now, EventKind::RetentionApplied { kept, expired, freed });
            }
            ToGuard::Problem { problem } => {
                self.problem(problem, now);
            }
            ToGuard::Ended => {
                // Whatever came of it was said.
                worker.stage = Stage::Concluded;
                return;
            }
        }
        self.read(now);
    }

    fn see(&mut self, seen: Seen, now: Moment) {
        self.look_again = Duration::ZERO;
        if let Some(last) = &seen.last {
            // Also one that a person made: what the schedule wants is a backup.
            self.runs.made = self.runs.made.max(Some(last.began));
            let ours = self.unproven.as_ref().filter(|(id, _)| *id == last.id && last.proven.is_none());
            let open = ours.map(|(_, failed)| *failed).filter(|_| self.settings.prove);
            if self.worker.as_ref().is_some_and(|worker| worker.job == Job::Look) {
                self.runs.unproven = open;
            }
        }
        self.known.see(seen, now);
    }

    /// The worker is gone. Where it had not said how the run ended, that is how.
    fn gone(&mut self, how: &str, now: Moment) {
        let Some(worker) = self.worker.take() else { return };
        self.known.running = None;
        if worker.stage != Stage::Concluded {
            // Where the backup is there and none shall be proven, only the retention was left.
            let (job, stage) = (worker.job, worker.stage);
            if stage == Stage::Created && !self.settings.prove {
                self.problem(format!("the backup worker ended before it had applied the retention ({how})"), now);
            } else {
                self.failed(job, stage, &format!("the backup worker ended before its time ({how})"), now);
            }
        }
        drop(worker);
        self.read(now);
    }

    fn failed(&mut self, job: Job, stage: Stage, error: &str, now: Moment) {
        match (job, stage) {
            (Job::Look, _) => {
                let times = self.known.fail_to_see(error.to_owned());
                self.look_again = LOOK_AGAIN.saturating_mul(times).min(LOOK_EVERY);
                if times == 1 {
                    self.problem(error.to_owned(), now);
                }
            }
            (Job::Create, Stage::Begun) => {
                self.runs.failed(now.wall);
                self.known.error = Some(error.to_owned());
                let retry_at = self.next(now.wall);
                let failures = self.runs.failures;
                self.tell(now, EventKind::BackupFailed { error: error.to_owned(), failures, retry_at });
            }
            _ => {
                let backup = self.known.last().map(|last| last.id.clone());
                self.not_proven(backup, false, vec![error.to_owned()], now);
            }
        }
    }

    fn not_proven(&mut self, backup: Option<String>, damaged: bool, mut reasons: Vec<String>, now: Moment) {
        reasons.truncate(REASONS_MAX);
        self.runs.failed(now.wall);
        if damaged {
            // It will not get better by itself: the next backup may.
            self.runs.unproven = None;
        }
        self.unproven = self.unproven.take().map(|(id, failed)| (id, failed.saturating_add(1)));
        self.known.error = Some(reasons.join("; "));
        let (failures, retry_at) = (self.runs.failures, self.next(now.wall));
        self.tell(now, EventKind::ProofFailed { backup, damaged, reasons, failures, retry_at });
    }

    fn problem(&self, problem: String, now: Moment) {
        tracing::warn!(repository = self.known.repository(), "{problem}");
        self.tell(now, EventKind::RepositoryProblem { repository: self.known.repository().to_owned(), problem });
    }

    /// When the next run begins.
    fn next(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.runs.next(self.settings.schedule.as_ref(), now).map(|due| due.at)
    }

    /// Coarse progress becomes an event.
    fn progress(&mut self, now: Moment) {
        let Some(running) = &self.known.running else { return };
        let quarter = (running.done.0.saturating_mul(4)).checked_div(running.total.0).unwrap_or(0).min(4);
        let news = match &self.told {
            Some((at, stage, told)) => *stage != running.stage || quarter > *told || now.since(*at) >= PROGRESS_EVERY,
            None => true,
        };
        // A stage without bytes, such as the wait for a checkpoint, is worth no line in a post-mortem.
        if !news || running.total.0 == 0 || self.worker.as_ref().is_none_or(|worker| worker.job == Job::Look) {
            return;
        }
        self.told = Some((now, running.stage.clone(), quarter));
        let BackupRunning { stage, done, total, remaining, .. } = running.clone();
        self.tell(now, EventKind::BackupProgressed { stage, done, total, remaining });
        self.read(now);
    }

    /// A reading, for the rules, `status` and the journal.
    fn read(&mut self, now: Moment) {
        let next = self.next(now.wall);
        let reading = self.known.reading(now, self.runs.failures, next);
        self.read_at = Some(now);
        // The loop lags: the next one comes in a moment.
        if self.observations.try_send(Observation::Reading(Reading::Backup(Box::new(reading)))).is_err() {
            self.read_at = None;
        }
    }

    fn tell(&self, now: Moment, kind: EventKind) {
        if let Err(error) = self.events.try_send((now, kind)) {
            tracing::error!(%error, "an event of the backups is not recorded");
        }
    }
}

/// Why a run begins, for people.
fn reason(due: &Due) -> String {
    match due.why {
        Why::Scheduled => match due.task {
            Task::Create => "its time has come".to_owned(),
            Task::Prove => "the backup is there and was not proven yet".to_owned(),
        },
        Why::Missed(slot) => {
            format!("the run of {} was missed", slot.strftime("%Y-%m-%d %H:%M UTC"))
        }
        Why::Retry(times) => format!("{times} attempts before it failed"),
    }
}
