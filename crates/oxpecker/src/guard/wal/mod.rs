//! WAL that streams into the repository while the guard runs.
//!
//! The receiving is in a child process (`oxpecker worker wal`), which holds the repository's keys and may be killed at any time: nothing is
//! acknowledged to the server that is not durable. Here it is started, watched and started again; what it says becomes events and a reading
//! with the recovery point as it is, on which the rules judge.
//!
//! A task of its own: nothing here may delay an alarm.

mod past;
pub mod protocol;
mod rpo;
mod task;

use std::{path::Path, time::Duration};

use collector::clock;
use journal::Reader;
use model::{EventKind, Lsn, Moment, Observation};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::config::Config;
use task::Receiving;

/// Events that wait for the loop.
const EVENTS: usize = 256;
/// How long an orderly stop waits for the worker to make durable what it has, before it is killed: the server keeps what it did not.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What waits for the task: little ever happens.
const WAITING: usize = 8;

/// What the task is told.
enum Told {
    /// The guard goes on with another configuration, and takes readings here from now on.
    Adopted(mpsc::Sender<Observation>),
    /// There is a backup that begins here: what is missing before it matters no more to the present.
    Backup(Lsn),
}

/// The loop's side of the receiver.
pub struct WalTask {
    config: Config,
    tell: mpsc::Sender<Told>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl WalTask {
    /// Starts it, where the configuration wants WAL to be received. Its events come out of the receiver, its readings go to `observations`.
    /// `state_dir`: where the journal is.
    pub fn start(
        config: &Config,
        state_dir: &Path,
        observations: mpsc::Sender<Observation>,
    ) -> Option<(Self, mpsc::Receiver<(Moment, EventKind)>)> {
        let repository = config.repository.url.clone().filter(|_| config.wal.receive)?;
        let (events_out, events) = mpsc::channel(EVENTS);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel(WAITING);
        let gap = past::gap(Reader::open(state_dir), &repository);
        let receiving = Receiving::new(config.clone(), repository, clock::now(), gap, events_out, observations);
        let task = tokio::spawn(receiving.run(told, stopped));
        Some((Self { config: config.clone(), tell, stop, task }, events))
    }

    /// Whether it may go on as it is under a new configuration.
    pub fn suits(&self, config: &Config) -> bool {
        let ours = &self.config;
        (&config.state_dir, &config.postgres, &config.repository, &config.wal)
            == (&ours.state_dir, &ours.postgres, &ours.repository, &ours.wal)
    }

    /// Goes on with another guard: its readings go to `observations` from now on.
    pub async fn adopt(&self, observations: mpsc::Sender<Observation>) {
        // It fails only where the task has ended, which the loop sees.
        let _ = self.tell.send(Told::Adopted(observations)).await;
    }

    /// Tells it what was done about backups.
    pub fn observe(&self, kind: &EventKind) {
        if let EventKind::BackupFinished { stop_lsn, .. } = kind
            && self.tell.try_send(Told::Backup(*stop_lsn)).is_err()
        {
            tracing::warn!("the receiver's task is busy and misses a backup");
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
            tracing::error!("the receiver of WAL did not end in time and is killed");
            self.task.abort();
        }
    }
}
