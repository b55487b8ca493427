//! Whole recoveries, whoever runs the services: the executor against scratch services, judged by what the services themselves wrote down.
//!
//! A driver's tests say by [`Host`] how its services are made and killed, and call [`super::suite`].

#![allow(dead_code, clippy::unwrap_used, reason = "not all is used by each test; a test that can't go on fails")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command as Program, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use model::ServiceName;
use serde::{Deserialize, Serialize};
use services::{
    driver::Driver,
    execute::{ExecuteError, Executor, Round, Scene, boot_id},
    graph::{Graph, Service},
    look::{Asked, Observer},
    plan::{Action, Budgets, Limit, Outcome},
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
/// What an agent in a process of its own is told.
const AGENT: &str = "OXPECKER_TEST_AGENT";
/// How the lines of such an agent begin, which are among those of the test harness.
const SAYS: &str = "agent: ";

/// Who runs the services of a recovery: one kind of driver, with what it drives.
pub trait Host {
    /// Where the services' files are: they see them at the same path.
    fn path(&self) -> PathBuf;

    /// What [`Host::driver`] needs to get there from another process: the path of a socket, say.
    fn address(&self) -> String;

    /// A driver for these. Each agent has its own.
    fn driver(address: &str, services: &[(ServiceName, ScratchService)]) -> Arc<dyn Driver>;

    /// Makes the units or containers of these, down and never started. Called once.
    fn prepare(&self, services: &[(ServiceName, ScratchService)]);

    /// SIGKILL to one by somebody else than its driver. Returns once it runs no more.
    fn kill(&self, name: &ServiceName, service: &ScratchService);

    /// Takes away the unit or container of one that is down; it can be provisioned from its definition. `false`: there is no such thing here.
    fn remove(&self, name: &ServiceName, service: &ScratchService) -> bool;
}

/// A service of the scene: its name, what it is, what it needs.
type Member = (ServiceName, ScratchService, Vec<ServiceName>);

/// Services with what each needs, and who runs them.
pub struct Recovery<'a, H: Host> {
    /// Who runs them.
    pub host: &'a H,
    scenery: Scenery,
    /// Puts something between the executor and its driver.
    between: Option<Between>,
    stale_after: Option<Duration>,
}

type Between = Box<dyn Fn(Arc<dyn Driver>) -> Arc<dyn Driver>>;

/// All that an agent goes by, also one in another process.
struct Scenery {
    dir: PathBuf,
    address: String,
    members: Vec<Member>,
}

#[derive(Serialize, Deserialize)]
struct Told {
    dir: PathBuf,
    address: String,
    members: Vec<(ServiceName, PathBuf, Vec<ServiceName>)>,
}

/// What came of a recovery.
pub struct Came {
    /// The last round.
    pub last: Round,
    /// Every act, in order.
    pub acts: Vec<(String, Action)>,
    /// Attempts that failed, with why.
    pub failures: Vec<(String, String)>,
}

impl Scenery {
    fn services(&self) -> Vec<(ServiceName, ScratchService)> {
        self.members.iter().map(|(name, service, _)| (name.clone(), service.clone())).collect()
    }

    fn scene(&self, driver: &Arc<dyn Driver>) -> Scene {
        let declared = self.members.iter().map(|(name, _, needs)| Service {
            needs: needs.clone(),
            starts_in: Some(Duration::from_millis(600)),
            stable_for: Duration::from_millis(400),
            ..Service::new(name.clone())
        });
        let graph = Graph::new(declared.collect()).unwrap();
        let probe = |argv: Vec<String>| vec![Probe::Command(Command::new(argv).unwrap())];
        let asked = self.members.iter().map(|(_, service, _)| Asked {
            health: probe(service.health()),
            function: probe(service.function()),
            within: WITHIN,
        });
        let drivers = self.members.iter().map(|(name, ..)| (name.clone(), Arc::clone(driver)));
        Scene {
            observer: Observer::new(&graph, vec![Arc::clone(driver)], asked.collect()),
            drivers: drivers.collect(),
            definitions: BTreeMap::new(),
            budgets: Budgets {
                retry_after: Duration::from_millis(300),
                jitter: Duration::ZERO,
                per_service: Limit { count: 4, within: Duration::from_secs(1800) },
                ..Budgets::default()
            },
            // Short times: a test is no night.
            patience: Patience {
                stale_after: Duration::from_secs(30),
                without_progress: Duration::from_secs(2),
                unhealthy_for: Duration::from_millis(500),
                self_heal: Duration::from_millis(500),
            },
            graph,
        }
    }
}

impl<'a, H: Host> Recovery<'a, H> {
    /// `members`: names with what each needs; needs first.
    pub fn new(host: &'a H, members: &[(&str, &[&str])]) -> Self {
        let mut made: Vec<Member> = Vec::new();
        for (name, needs) in members {
            let of = |need: &&str| made.iter().find(|(other, ..)| other.as_str() == *need).unwrap().1.clone();
            let needed: Vec<ScratchService> = needs.iter().map(of).collect();
            let service = ScratchService::new(&host.path(), name, &needed.iter().collect::<Vec<_>>());
            service.starts_in(2);
            made.push(((*name).into(), service, needs.iter().map(|need| (*need).into()).collect()));
        }
        let scenery = Scenery { dir: host.path().join("recovery"), address: host.address(), members: made };
        host.prepare(&scenery.services());
        Self { host, scenery, between: None, stale_after: None }
    }

    /// With something between the executor and its driver.
    pub fn with(mut self, between: impl Fn(Arc<dyn Driver>) -> Arc<dyn Driver> + 'static) -> Self {
        self.between = Some(Box::new(between));
        self
    }

    /// What wasn't seen for longer is unknown.
    pub fn stale_after(mut self, time: Duration) -> Self {
        self.stale_after = Some(time);
        self
    }

    /// Where the executor remembers things.
    pub fn dir(&self) -> &Path {
        &self.scenery.dir
    }

    fn scene(&self) -> Scene {
        let driver = H::driver(&self.scenery.address, &self.scenery.services());
        let driver = self.between.as_ref().map_or_else(|| Arc::clone(&driver), |between| between(Arc::clone(&driver)));
        let mut scene = self.scenery.scene(&driver);
        scene.patience.stale_after = self.stale_after.unwrap_or(scene.patience.stale_after);
        scene
    }

    /// An agent that acts.
    pub fn agent(&self) -> Result<Executor, ExecuteError> {
        Executor::act(self.dir(), &boot_id(), self.scene())
    }

    /// An agent that only watches.
    pub fn watcher(&self) -> Executor {
        Executor::watch(self.dir(), &boot_id(), self.scene()).unwrap()
    }

    /// Recovers to the end. `after`: what happens after each round.
    pub async fn run(&self, after: impl FnMut(&Round)) -> Came {
        self.run_until(ended, false, after).await
    }

    /// The same with an agent that dies after each act and is started again.
    pub async fn run_with_agents_that_die(&self) -> Came {
        self.run_until(ended, true, |_| {}).await
    }

    /// One agent goes on until a round says that it is enough.
    pub async fn run_until(&self, enough: impl Fn(&Round) -> bool, dies: bool, mut after: impl FnMut(&Round)) -> Came {
        let mut agent = self.agent().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let (mut acts, mut failures) = (Vec::new(), Vec::new());
        loop {
            let round = agent.round().await.unwrap();
            acts.extend(round.began.iter().map(|one| (one.step.service.to_string(), one.step.action)));
            failures.extend(round.ended.iter().filter_map(|one| Some((one.service.to_string(), one.failure.clone()?))));
            after(&round);
            if enough(&round) {
                return Came { last: round, acts, failures };
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

    /// An agent in a process of its own. The test's file has to have a test of the name `agent` that calls [`agent`].
    pub fn process(&self) -> Process {
        let members = self.scenery.members.iter();
        let told = Told {
            dir: self.scenery.dir.clone(),
            address: self.scenery.address.clone(),
            members: members
                .map(|(name, service, needs)| (name.clone(), service.dir().into(), needs.clone()))
                .collect(),
        };
        let mut child = Program::new(std::env::current_exe().unwrap())
            .args(["agent", "--exact", "--nocapture", "--test-threads=1"])
            .env(AGENT, serde_json::to_string(&told).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Process { child, lines }
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> &ScratchService {
        &self.scenery.members.iter().find(|(other, ..)| other.as_str() == name).unwrap().1
    }

    /// SIGKILL to some.
    pub fn kill(&self, names: &[&str]) {
        for name in names {
            self.host.kill(&(*name).into(), self.service(name));
        }
    }

    /// All are well, each was started so often, none before what it needs and none while it ran.
    pub fn assert_well(&self, starts: &[(&str, usize)]) {
        for (name, service, _) in &self.scenery.members {
            assert!(service.is_healthy(), "{name} is not healthy");
            assert_eq!((service.early(), service.doubled()), (0, 0), "{name}: early, doubled");
        }
        for (name, starts) in starts {
            assert_eq!(self.service(name).starts().len(), *starts, "starts of {name}");
        }
    }
}

/// Nothing is left to do or to wait for.
pub fn ended(round: &Round) -> bool {
    round.plan.outcome != Outcome::Working && round.began.is_empty()
}

/// An agent that can be killed.
pub struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// What it says next: the acts of a round, as `start bot, start gate`, or its end, as `Done`. `None` once it is gone.
    pub fn says(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.trim_end().split_once(SAYS) {
                return Some(said.to_owned());
            }
            line.clear();
        }
        None
    }

    /// SIGKILL, and its end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The agent of a process of its own, where this is one; nothing where it is a test like others.
#[allow(clippy::print_stdout, reason = "that is how it talks")]
pub async fn agent<H: Host>() {
    let Ok(told) = std::env::var(AGENT) else { return };
    let Told { dir, address, members } = serde_json::from_str(&told).unwrap();
    let members = members.into_iter().map(|(name, dir, needs)| (name, ScratchService::at(&dir), needs)).collect();
    let scenery = Scenery { dir, address, members };
    let driver = H::driver(&scenery.address, &scenery.services());
    // The one before may hold the lock for the moment that the kernel takes to clear it up.
    let deadline = Instant::now() + PATIENCE;
    let mut agent = loop {
        match Executor::act(&scenery.dir, &boot_id(), scenery.scene(&driver)) {
            Ok(agent) => break agent,
            Err(ExecuteError::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(PAUSE / 10).await,
            Err(error) => panic!("{error}"),
        }
    };
    loop {
        let round = agent.round().await.unwrap();
        let began = round.began.iter().map(|one| format!("{} {}", one.step.action, one.step.service));
        let began: Vec<String> = began.collect();
        if !began.is_empty() {
            println!("{SAYS}{}", began.join(", "));
        }
        if ended(&round) {
            println!("{SAYS}{:?}", round.plan.outcome);
            return;
        }
        agent.wait(PAUSE).await.unwrap();
    }
}
