//! One round of observations: what the drivers list and what the probes say, all asked at the same time.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::join_all,
    stream::{self, StreamExt as _},
};
use model::ServiceName;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    damage::{self, Verdict},
    driver::{Driver, Seen},
    evidence,
    graph::{Graph, Id},
    health::{Answer, Observation, Offer, Process, Progress},
    probe::{Probe, Said, recovery},
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

/// A database's data directory, which is looked at while nobody serves it.
struct Directory {
    service: Id,
    path: PathBuf,
    offer: Box<dyn Fn() -> Offer + Send + Sync>,
}

/// Looks at all services of a graph.
pub struct Observer {
    drivers: Vec<Arc<dyn Driver>>,
    asked: Vec<Asked>,
    ids: Vec<Id>,
    names: Vec<ServiceName>,
    external: Vec<bool>,
    directory: Option<Directory>,
}

/// What was seen of one service.
#[derive(Clone, Debug)]
pub struct SeenOf {
    /// Which.
    pub service: Id,
    /// What was observed. Its time is the one at which that look at it began: a slow probe makes no old answer look fresh.
    pub observation: Observation,
    /// Who stopped it with its driver's own means, where somebody did.
    pub stopped_by: Option<String>,
    /// Which driver lists it, by its place.
    pub listed_by: Option<usize>,
}

/// What one look found.
#[derive(Clone, Debug)]
pub struct Look {
    /// Each service that was looked at.
    pub seen: Vec<SeenOf>,
}

impl Observer {
    /// `asked`: of each service of the graph, in its order. Services that no driver lists are looked at by their probes alone.
    pub fn new(graph: &Graph, drivers: Vec<Arc<dyn Driver>>, asked: Vec<Asked>) -> Self {
        let ids: Vec<Id> = graph.ids().collect();
        let names = ids.iter().map(|id| graph.name(*id).clone()).collect();
        let external = ids.iter().map(|id| graph.service(*id).external).collect();
        Self { drivers, asked, ids, names, external, directory: None }
    }

    /// `service` is a PostgreSQL on this data directory: while nobody serves it, it is looked at whether it is damaged. `offer`: what it can be brought back
    /// from; asked only where it is.
    #[must_use]
    pub fn with_directory(
        mut self,
        service: Id,
        path: PathBuf,
        offer: impl Fn() -> Offer + Send + Sync + 'static,
    ) -> Self {
        self.directory = Some(Directory { service, path, offer: Box::new(offer) });
        self
    }

    /// What of a database that does not serve is to be told of its directory.
    fn damage(&self, service: Id, process: &Process, answer: &Answer) -> Option<Process> {
        let directory = self.directory.as_ref().filter(|directory| directory.service == service)?;
        // Whoever is answered by a server, even with a refusal, has one that runs; and one that starts may just write what is looked at.
        let down = match process {
            Process::Ended { .. } | Process::BackingOff { .. } => true,
            Process::Running => matches!(answer, Answer::Unhealthy { .. }) && !recovery::serves_at(&directory.path),
            _ => false,
        };
        if !down {
            return None;
        }
        match damage::verdict(&evidence::directory::directory(&directory.path)) {
            Verdict::Damaged { findings } => {
                Some(Process::Damaged { why: damage::in_words(&findings), offer: (directory.offer)() })
            }
            Verdict::Sound { .. } | Verdict::Unknown { .. } => None,
        }
    }

    /// Looks at all. Bounded in time by the drivers and the probes; never fails as a whole.
    pub async fn look(&self) -> Look {
        let drivers: Vec<usize> = (0..self.drivers.len()).collect();
        self.look_with(&self.ids, &drivers).await
    }

    /// Looks at some only. `listed_by`: which driver listed each service in the look before; only those are asked.
    pub async fn look_at(&self, only: &[Id], listed_by: &[Option<usize>]) -> Look {
        let drivers = only.iter().filter_map(|id| listed_by.get(id.index()).copied().flatten());
        let drivers: BTreeSet<usize> = drivers.filter(|driver| *driver < self.drivers.len()).collect();
        self.look_with(only, &drivers.into_iter().collect::<Vec<_>>()).await
    }

    async fn look_with(&self, only: &[Id], drivers: &[usize]) -> Look {
        let lists = drivers.iter().map(|driver| async move {
            let began = boot_now();
            let listed = self.drivers[*driver].list().await;
            listed.into_iter().map(move |(name, seen)| (name, (*driver, began, seen)))
        });
        let mut listed: HashMap<ServiceName, (usize, Duration, Seen)> =
            join_all(lists).await.into_iter().flatten().collect();
        let looks = only.iter().map(|id| {
            let place = id.index();
            let listed = listed.remove(&self.names[place]);
            async move {
                let now = boot_now();
                let (listed_by, at, seen) = match listed {
                    Some((driver, began, seen)) => (Some(driver), began, seen),
                    None if self.external[place] => (None, now, Seen::of(Process::Running)),
                    None => (None, now, Seen::unknown("no driver lists it")),
                };
                let (said, function) = ask(&seen, &self.asked[place]).await;
                let damaged = self.damage(*id, &seen.process, &said.answer);
                let observation = Observation {
                    at,
                    process: damaged.unwrap_or(seen.process),
                    run: seen.run.or(said.run),
                    answer: said.answer,
                    function,
                    progress: seen.progress.or(said.progress),
                };
                SeenOf { service: *id, observation, stopped_by: seen.stopped_by, listed_by }
            }
        });
        // Collected first: a lazy iterator of borrowing futures is not general enough for `Send`.
        let looks: Vec<_> = looks.collect();
        Look { seen: stream::iter(looks).buffered(PROBED_AT_ONCE).collect().await }
    }

    /// Lets the drivers do what they have to so that they keep sight of their services. Only for who may act.
    pub async fn tend(&self) {
        join_all(self.drivers.iter().map(|driver| driver.tend())).await;
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
    let nothing = |answer| (Said { answer, progress: None::<Progress>, run: None }, None);
    if seen.process != Process::Running {
        return nothing(Answer::Unhealthy { why: "it does not run".to_owned() });
    }
    let mut said = match (asked.health.is_empty(), &seen.health) {
        (false, _) => Probe::ask_all(&asked.health, asked.within).await,
        (true, Some(answer)) => return nothing(answer.clone()),
        // Nobody said how to ask: that it runs is all that is known.
        (true, None) => Said { answer: Answer::Healthy, progress: None, run: None },
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
