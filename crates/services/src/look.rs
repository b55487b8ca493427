//! One round of observations: what the drivers list and what the probes say, all asked at the same time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{
    future::join_all,
    stream::{self, StreamExt as _},
};
use model::ServiceName;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    driver::{Driver, Seen},
    graph::Graph,
    health::{Answer, Observation, Process, Progress},
    probe::{Probe, Said},
};

/// Services whose probes are asked at the same time.
const PROBED_AT_ONCE: usize = 64;

/// How a service is asked for its health.
#[derive(Clone, Debug)]
pub struct Asked {
    /// All have to be well. Where there are none, its driver's word counts, and without that, that it runs.
    pub health: Vec<Probe>,
    /// Whether it does its work right; asked only while it is healthy.
    pub function: Vec<Probe>,
    /// How long one answer may take.
    pub within: Duration,
}

/// Looks at all services of a graph.
pub struct Observer {
    drivers: Vec<Arc<dyn Driver>>,
    asked: Vec<Asked>,
    names: Vec<ServiceName>,
    external: Vec<bool>,
}

/// What one round found, by the services' places in the graph.
#[derive(Clone, Debug)]
pub struct Look {
    /// What was observed of each.
    pub observations: Vec<Observation>,
    /// Who stopped it with its driver's own means, where somebody did.
    pub stopped_by: Vec<Option<String>>,
}

impl Observer {
    /// `asked`: of each service of the graph, in its order. Services that no driver lists are looked at by their probes alone.
    pub fn new(graph: &Graph, drivers: Vec<Arc<dyn Driver>>, asked: Vec<Asked>) -> Self {
        let names = graph.ids().map(|id| graph.name(id).clone()).collect();
        let external = graph.ids().map(|id| graph.service(id).external).collect();
        Self { drivers, asked, names, external }
    }

    /// Looks at all. Bounded in time by the drivers and the probes; never fails as a whole.
    pub async fn look(&self) -> Look {
        let listed = join_all(self.drivers.iter().map(|driver| driver.list())).await;
        let mut listed: HashMap<ServiceName, Seen> = listed.into_iter().flatten().collect();
        let seen: Vec<Seen> = self
            .names
            .iter()
            .zip(&self.external)
            .map(|(name, external)| {
                let nobody =
                    || if *external { Seen::of(Process::Running) } else { Seen::unknown("no driver lists it") };
                listed.remove(name).unwrap_or_else(nobody)
            })
            .collect();
        let asked = seen.iter().zip(&self.asked).map(|(seen, asked)| ask(seen, asked));
        let said: Vec<(Said, Option<Answer>)> = stream::iter(asked).buffered(PROBED_AT_ONCE).collect().await;
        let at = boot_now();
        let stopped_by = seen.iter().map(|seen| seen.stopped_by.clone()).collect();
        let observations = seen.into_iter().zip(said).map(|(seen, (said, function))| Observation {
            at,
            process: seen.process,
            run: seen.run,
            answer: said.answer,
            function,
            progress: seen.progress.or(said.progress),
        });
        Look { observations: observations.collect(), stopped_by }
    }

    /// Returns when a driver says that something may have changed.
    pub async fn changed(&self) {
        if self.drivers.is_empty() {
            return std::future::pending().await;
        }
        futures_util::future::select_all(self.drivers.iter().map(|driver| driver.changed())).await;
    }
}

/// Asks a service that runs.
async fn ask(seen: &Seen, asked: &Asked) -> (Said, Option<Answer>) {
    let nothing = |answer| (Said { answer, progress: None::<Progress> }, None);
    if seen.process != Process::Running {
        return nothing(Answer::Unhealthy { why: "it does not run".to_owned() });
    }
    let mut said = match (asked.health.is_empty(), &seen.health) {
        (false, _) => Probe::ask_all(&asked.health, asked.within).await,
        (true, Some(answer)) => return nothing(answer.clone()),
        // Nobody said how to ask: that it runs is all that is known.
        (true, None) => Said { answer: Answer::Healthy, progress: None },
    };
    if let Some(supervisor) = &seen.health {
        said.answer = Answer::of_all([said.answer, supervisor.clone()]);
    }
    let function = match (&said.answer, asked.function.is_empty()) {
        (Answer::Healthy, false) => Some(Probe::ask_all(&asked.function, asked.within).await.answer),
        _ => None,
    };
    (said, function)
}

/// Now, on the boot clock: it goes on while the host sleeps, and nobody sets it.
pub fn boot_now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
