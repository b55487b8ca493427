//! Services that are brought back while the guard runs.
//!
//! The work is in a child process (`oxpecker worker recovery`): drivers and probes talk to the outside, and nothing of that may delay an alarm. Here it is
//! started, watched and started again; what it says becomes events, on which the rules judge, and a document for `status`. The worker goes on after a
//! kill where it was, and the services go on without either.

pub mod protocol;
mod reporter;
mod task;

use std::time::Duration;

use model::{Moment, Observation};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

pub use self::reporter::Reporter;
use self::{
    protocol::{RecoveryStatus, ToWorker},
    task::Keeping,
};
use crate::config::Config;

/// The worker speaks at least so often while it is well.
pub const SAID_EVERY: Duration = Duration::from_secs(10);
/// How long an orderly stop waits for acts that are being handed over, before the worker is killed: looking tells the next one what was done.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Orders that wait to be passed on: the ladder gives one at a time.
const ORDERS: usize = 8;

/// What the shedding ladder acts on services with.
#[derive(Clone, Debug)]
pub struct ServicesLever {
    /// Takes orders.
    pub orders: mpsc::Sender<ToWorker>,
    /// What came of the newest.
    pub obeyed: watch::Receiver<task::Obeyed>,
    /// How the services are.
    pub status: watch::Receiver<Option<(Moment, RecoveryStatus)>>,
}

/// The loop's side of it.
pub struct RecoveryTask {
    lever: ServicesLever,
    status: watch::Receiver<Option<(Moment, RecoveryStatus)>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RecoveryTask {
    /// Starts it, where services are declared. Its events go to `observations`.
    pub fn start(config: &Config, observations: mpsc::Sender<Observation>) -> Option<Self> {
        if config.service.is_empty() {
            return None;
        }
        let (status_out, status) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let (orders, to_pass_on) = mpsc::channel(ORDERS);
        let (obeyed_out, obeyed) = watch::channel(None);
        let keeping = Keeping::new(config.clone(), status_out, observations, to_pass_on, obeyed_out);
        let lever = ServicesLever { orders, obeyed, status: status.clone() };
        Some(Self { lever, status, stop, task: tokio::spawn(keeping.run(stopped)) })
    }

    /// For the shedding ladder.
    pub fn lever(&self) -> ServicesLever {
        self.lever.clone()
    }

    /// How things stand, and when that was said; `None` until the worker has looked.
    pub fn status(&self) -> Option<(Moment, RecoveryStatus)> {
        self.status.borrow().clone()
    }

    /// Whether it still runs. It ends by itself only by a bug.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it and its worker, in bounded time.
    pub async fn stop(mut self) {
        let _ = self.stop.send(());
        if timeout(STOP_TIMEOUT + Duration::from_secs(1), &mut self.task).await.is_err() {
            tracing::error!("the worker that brings services back did not end in time and is killed");
            self.task.abort();
        }
    }
}
