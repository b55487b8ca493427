//! The shedding ladder while the guard runs: what is decided is crate `policy`'s; here facts are gathered and acts handed out.
//!
//! A task of its own: its acts wait for disks, servers and supervisors, and nothing of that may delay an alarm. The next state is durable before an act is
//! handed out, so that a guard killed anywhere leaves nothing in force that the next one does not know, or recognise, and give back.
//!
//! ```text
//! store   the ladder's state on disk
//! levers  how each rung's lever stands, and who is told to use it
//! cancel  the end of a vacuum, looked up again in the statement that ends it
//! task    the loop
//! ```

mod cancel;
mod levers;
mod store;
mod task;

use std::{path::Path, sync::Arc};

use autovacuum::GovernorStatus;
use collector::postgres::Session;
use model::{Mode, Observation};
use policy::RungView;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{levers::Levers, task::Climbing};
use super::{backup::OwnWorkLever, recovery::ServicesLever};
use crate::config::Config;

/// Observations that wait for the ladder. Beyond that they are dropped: a fresh one comes within a second.
const WAITING: usize = 64;

/// The ladder, for people and machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SheddingStatus {
    /// How far it may go.
    pub mode: Mode,
    /// What it does just now and why.
    pub now: String,
    /// Whether a person is needed: it is critical, and it may not go on or can't.
    pub stuck: bool,
    /// Each rung, lowest first.
    pub rungs: Vec<RungView>,
    /// What hinders the ladder itself.
    pub problem: Option<String>,
}

/// What the ladder acts with.
pub struct With {
    pub governor: watch::Receiver<Option<GovernorStatus>>,
    pub own_work: Option<OwnWorkLever>,
    pub services: Option<ServicesLever>,
    pub sessions: watch::Receiver<Option<Arc<Session>>>,
}

/// The loop's side of the ladder.
pub struct SheddingTask {
    tell: mpsc::Sender<Box<Observation>>,
    status: watch::Receiver<Option<SheddingStatus>>,
    task: JoinHandle<()>,
}

impl SheddingTask {
    /// Starts it. Its events go to `observations`, where the rules find them.
    pub fn start(
        config: &Config,
        state_dir: &Path,
        boot_id: &str,
        with: With,
        observations: mpsc::Sender<Observation>,
    ) -> Self {
        let (tell, told) = mpsc::channel(WAITING);
        let (status_out, status) = watch::channel(None);
        let climbing =
            Climbing::new(config.shedding(), state_dir, boot_id, Levers::new(config, with), observations, status_out);
        Self { tell, status, task: tokio::spawn(climbing.run(told)) }
    }

    /// Tells it what was seen.
    pub fn observe(&self, observation: &Observation) {
        if task::matters(observation) && self.tell.try_send(Box::new(observation.clone())).is_err() {
            tracing::debug!("the shedding ladder is busy and misses a reading");
        }
    }

    /// What it last said of itself.
    pub fn status(&self) -> Option<SheddingStatus> {
        self.status.borrow().clone()
    }

    /// Whether it still runs. It ends by itself only by a bug.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it. What is in force stays so: the next guard gives it back.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
