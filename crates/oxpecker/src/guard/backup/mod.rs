//! Backups while the guard runs: when one is due, a worker makes it, proves it and applies the retention.
//!
//! The work is in a child process (`oxpecker worker backup`), which goes first when the host is short of anything and dies with the
//! guard; here it is only started, watched, told to step back, and believed. What is due, and when the worker steps back, crate `backup`
//! decides purely; what the repository holds, the worker says: at the guard's start, after each run and once an hour.
//!
//! A task of its own: nothing here may delay an alarm.

mod child;
mod known;
mod past;
pub mod protocol;
mod task;

use std::time::Duration;

use backup::schedule::Schedule;
use collector::clock;
use journal::{Reader, StateDir};
use model::{EventKind, Moment, Observation, Reading};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    config::{Config, ProveWhen},
    exit::Failure,
};
use task::Backups;

/// Observations that wait for the task. Beyond that they are dropped: a fresh one comes within a second.
const WAITING: usize = 64;
/// Events that wait for the loop.
const EVENTS: usize = 256;
/// How long an orderly stop waits for the worker to end in good order, before it is killed: the repository survives either.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What the configuration says of backups.
pub struct Settings {
    config: Config,
    repository: String,
    schedule: Option<Schedule>,
    max_age: Option<Duration>,
    prove: bool,
}

impl Settings {
    /// From the configuration; `None` where it names no repository.
    ///
    /// # Errors
    /// Where its schedule can't be used.
    pub fn of(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(repository) = config.repository.url.clone() else { return Ok(None) };
        let schedule = config.backup.schedule(&config.postgres.name).map_err(|e| Failure::usage(anyhow::anyhow!(e)))?;
        Ok(Some(Self {
            repository,
            schedule,
            max_age: config.backup.max_age(clock::now().wall),
            prove: config.backup.prove == ProveWhen::AfterBackup,
            config: config.clone(),
        }))
    }
}

/// What the task is told.
enum Told {
    /// The shedding ladder wants the worker to stand back, or no longer.
    StandBack(bool),
    /// Something was seen.
    Seen(Box<Observation>),
    /// The guard goes on with another configuration, and takes readings here from now on.
    Adopted(mpsc::Sender<Observation>),
}

/// How the own work stands, for the shedding ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnWork {
    /// Whether a worker is at it.
    pub running: bool,
    /// Whether it stands back by itself.
    pub paused: bool,
    /// Whether it stands back because the ladder wants it.
    pub held: bool,
}

/// What the shedding ladder pauses own work with.
#[derive(Clone)]
pub struct OwnWorkLever {
    tell: mpsc::Sender<Told>,
    seen: watch::Receiver<OwnWork>,
}

impl OwnWorkLever {
    /// How it stands.
    pub fn seen(&self) -> OwnWork {
        *self.seen.borrow()
    }

    /// Asks the worker to stand back, or to go on. What came of it shows.
    pub async fn stand_back(&self, wanted: bool) {
        // It fails only where the task has ended, which the loop sees.
        let _ = self.tell.send(Told::StandBack(wanted)).await;
    }
}

/// The loop's side of the backups.
pub struct BackupTask {
    seen: watch::Receiver<OwnWork>,
    config: Config,
    tell: mpsc::Sender<Told>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl BackupTask {
    /// Starts it. Its events come out of the receiver, its readings go to `observations`, where the rules find them.
    pub fn start(
        settings: Settings,
        state: &StateDir,
        observations: mpsc::Sender<Observation>,
    ) -> (Self, mpsc::Receiver<(Moment, EventKind)>) {
        let now = clock::now();
        let schedule = settings.config.backup.schedule.as_ref().map(ToString::to_string);
        let declared = past::Declared {
            repository: &settings.repository,
            schedule: schedule.as_deref(),
            max_age: settings.max_age,
        };
        let past = past::recall(Reader::open(state.path()), declared, now.wall);
        let (events_out, events) = mpsc::channel(EVENTS);
        if !past.declared {
            let (repository, max_age) = (settings.repository.clone(), settings.max_age);
            // The channel is empty.
            drop(events_out.try_send((now, EventKind::RepositoryDeclared { repository, schedule, max_age })));
        }
        let (tell, told) = mpsc::channel(WAITING);
        let (stop, stopped) = oneshot::channel();
        let config = settings.config.clone();
        let (seen_out, seen) = watch::channel(OwnWork::default());
        let backups = Backups::new(settings, past, now, events_out, observations, seen_out);
        let task = tokio::spawn(backups.run(told, stopped));
        (Self { seen, config, tell, stop, task }, events)
    }

    /// Whether it may go on as it is under a new configuration: all is the same that it and its worker go by. The worker reads secrets
    /// when it begins, so a run is never half with an old one.
    pub fn suits(&self, config: &Config) -> bool {
        let Config {
            mode: _,
            state_dir,
            postgres,
            journal: _,
            host: _,
            autovacuum,
            service: _,
            repository,
            backup,
            wal: _,
            alert: _,
            recovery: _,
            shedding: _,
            relief: _,
            console: _,
        } = config;
        let ours = &self.config;
        (state_dir, postgres, repository, backup) == (&ours.state_dir, &ours.postgres, &ours.repository, &ours.backup)
            // Whose include file tells what a throttle has set.
            && *autovacuum == ours.autovacuum
    }

    /// For the shedding ladder.
    pub fn lever(&self) -> OwnWorkLever {
        OwnWorkLever { tell: self.tell.clone(), seen: self.seen.clone() }
    }

    /// Goes on with another guard: its readings go to `observations` from now on, the first one at once.
    pub async fn adopt(&self, observations: mpsc::Sender<Observation>) {
        // It fails only where the task has ended, which the loop sees.
        let _ = self.tell.send(Told::Adopted(observations)).await;
    }

    /// Tells it what was seen, as far as it decides whether the worker steps back.
    pub fn observe(&self, observation: &Observation) {
        let matters =
            matches!(observation, Observation::Reading(Reading::Host(_) | Reading::Activity(_) | Reading::Service(_)));
        if matters && self.tell.try_send(Told::Seen(Box::new(observation.clone()))).is_err() {
            tracing::debug!("the backup task is busy and misses a reading");
        }
    }

    /// Whether it still runs. It ends by itself only by a bug.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it and its worker, in bounded time.
    pub async fn stop(mut self) {
        let _ = self.stop.send(());
        if timeout(STOP_TIMEOUT + Duration::from_secs(1), &mut self.task).await.is_err() {
            tracing::error!("the backup worker did not end in time and is killed");
            self.task.abort();
        }
    }
}
