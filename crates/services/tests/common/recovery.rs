//! Whole recoveries, whoever runs the services: the executor against scratch services, judged by what the services themselves wrote down.

#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use model::ServiceName;
use services::{
    driver::Driver,
    execute::{ExecuteError, Executor, Round, Scene, boot_id},
    graph::{Graph, Service},
    look::{Asked, Observer},
    plan::{Action, Budgets, Outcome},
    probe::{Command, Probe},
    state::Patience,
};

use super::service::ScratchService;

/// How long a whole recovery may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long is waited between two rounds where nothing says that something changed.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an agent lives after an act.
const DIES_AFTER: Duration = Duration::from_millis(20);
/// How long one probe may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Services with what each needs, and their driver.
pub struct Recovery {
    dir: PathBuf,
    services: Vec<(ServiceName, ScratchService, Vec<ServiceName>)>,
    driver: Box<dyn Fn() -> Arc<dyn Driver>>,
    stopped: BTreeMap<ServiceName, String>,
    /// Of what is found, with short times: a test is no night.
    pub patience: Patience,
}

/// What came of it.
pub struct Told {
    /// The last round.
    pub last: Round,
    /// Every act, in order.
    pub acts: Vec<(String, Action)>,
    /// Attempts that failed, with why.
    pub failures: Vec<(String, String)>,
}

impl Recovery {
    /// `services`: each with the names that it needs. `driver` makes one, as each agent has its own.
    pub fn new(
        dir: &Path,
        services: Vec<(&str, ScratchService, &[&str])>,
        driver: impl Fn() -> Arc<dyn Driver> + 'static,
    ) -> Self {
        let of = |(name, service, needs): (&str, ScratchService, &[&str])| {
            (name.into(), service, needs.iter().map(|need| (*need).into()).collect())
        };
        let patience = Patience {
            stale_after: Duration::from_secs(30),
            without_progress: Duration::from_secs(2),
            unhealthy_for: Duration::from_millis(500),
            self_heal: Duration::from_millis(500),
        };
        let services = services.into_iter().map(of).collect();
        Self { dir: dir.join("recovery"), services, driver: Box::new(driver), stopped: BTreeMap::new(), patience }
    }

    /// One that a person has stopped.
    pub fn stopped(mut self, name: &str) -> Self {
        self.stopped.insert(name.into(), "ann".to_owned());
        self
    }

    fn scene(&self) -> Scene {
        let declared = self.services.iter().map(|(name, _, needs)| Service {
            needs: needs.clone(),
            starts_in: Some(Duration::from_millis(600)),
            stable_for: Duration::from_millis(400),
            ..Service::new(name.clone())
        });
        let graph = Graph::new(declared.collect()).unwrap();
        let probe = |argv: Vec<String>| vec![Probe::Command(Command::new(argv).unwrap())];
        let asked = self.services.iter().map(|(_, service, _)| Asked {
            health: probe(service.health()),
            function: probe(service.function()),
            within: WITHIN,
        });
        let driver = (self.driver)();
        let drivers = self.services.iter().map(|(name, ..)| (name.clone(), Arc::clone(&driver)));
        Scene {
            observer: Observer::new(&graph, vec![Arc::clone(&driver)], asked.collect()),
            drivers: drivers.collect(),
            definitions: BTreeMap::new(),
            stopped: self.stopped.clone(),
            budgets: Budgets { retry_after: Duration::from_millis(300), jitter: Duration::ZERO, ..Budgets::default() },
            patience: self.patience.clone(),
            graph,
        }
    }

    /// An agent that acts.
    pub fn agent(&self) -> Result<Executor, ExecuteError> {
        Executor::act(&self.dir, &boot_id(), self.scene())
    }

    /// An agent that only watches.
    pub fn watcher(&self) -> Executor {
        Executor::watch(&self.dir, &boot_id(), self.scene()).unwrap()
    }

    /// Recovers to the end. `after`: what happens after each round.
    pub async fn run(&self, mut after: impl FnMut(&Round)) -> Told {
        self.run_with(self.agent().unwrap(), false, &mut after).await
    }

    /// The same with an agent that dies after each act and is started again.
    pub async fn run_with_agents_that_die(&self) -> Told {
        self.run_with(self.agent().unwrap(), true, &mut |_| {}).await
    }

    async fn run_with(&self, mut agent: Executor, dies: bool, after: &mut dyn FnMut(&Round)) -> Told {
        let deadline = Instant::now() + PATIENCE;
        let (mut acts, mut failures) = (Vec::new(), Vec::new());
        loop {
            let round = agent.round().await.unwrap();
            acts.extend(round.began.iter().map(|one| (one.step.service.to_string(), one.step.action)));
            failures.extend(round.ended.iter().filter_map(|one| Some((one.service.to_string(), one.failure.clone()?))));
            after(&round);
            if round.plan.outcome != Outcome::Working && round.began.is_empty() {
                return Told { last: round, acts, failures };
            }
            assert!(Instant::now() < deadline, "it does not end: {acts:?} {failures:?}\n{}", round.plan.to_text());
            if dies && !round.began.is_empty() {
                // With whatever it was doing: an act in flight is dropped where it is.
                let dies = Instant::now() + DIES_AFTER;
                while let Some(left) = dies.checked_duration_since(Instant::now()) {
                    agent.wait(left).await.unwrap();
                }
                drop(agent);
                agent = self.agent().unwrap();
            } else {
                agent.wait(PAUSE).await.unwrap();
            }
        }
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> &ScratchService {
        &self.services.iter().find(|(other, ..)| other.as_str() == name).unwrap().1
    }

    /// All are well, each was started so often, none before what it needs and none while it ran.
    pub fn assert_well(&self, starts: &[(&str, usize)]) {
        for (name, service, _) in &self.services {
            assert!(service.is_healthy(), "{name} is not healthy");
            assert_eq!((service.early(), service.doubled()), (0, 0), "{name}: early, doubled");
        }
        for (name, starts) in starts {
            assert_eq!(self.service(name).starts().len(), *starts, "starts of {name}");
        }
    }
}
