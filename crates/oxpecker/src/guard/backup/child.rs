//! The backup worker: its process, and how far its run is.

use std::io;

use model::Moment;

use super::protocol::{Job, PROTOCOL, ToGuard, ToWorker};
use crate::{
    config::Config,
    guard::{child::Process, lines::to_line},
};

/// What becomes known of it.
pub type Said = crate::guard::child::Said<ToGuard>;

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    /// What it was started for.
    pub job: Job,
    /// When.
    pub began: Moment,
    /// When it last said anything.
    pub heard: Moment,
    /// What it said that decides how the run ended.
    pub stage: Stage,
    process: Process<ToGuard>,
}

/// How far a run has come: what is blamed when the worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its backup was not made yet, or, where it was only to prove, nothing was said yet.
    Begun,
    /// The backup is there; its proof or the retention is under way.
    Created,
    /// What it was started for ended, well or not, and was said.
    Concluded,
}

impl Worker {
    /// Starts one.
    ///
    /// # Errors
    /// Where the process can't be started.
    pub fn start(job: Job, config: &Config, now: Moment) -> io::Result<Self> {
        let hello = to_line(&ToWorker::Begin { protocol: PROTOCOL, job, config: Box::new(config.clone()) });
        let process = Process::start("backup", hello)?;
        Ok(Self { job, began: now, heard: now, stage: Stage::Begun, process })
    }

    /// Tells it.
    pub fn tell(&self, order: &ToWorker) {
        self.process.tell(to_line(order));
    }

    /// What it says next.
    pub async fn hear(&mut self) -> Said {
        self.process.hear().await
    }

    /// Ends its input: it stops in good order, also where it stands back.
    pub fn finish(&mut self) {
        self.process.finish();
    }
}
