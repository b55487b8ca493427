//! PostgreSQL itself as a service of ours: killed with SIGKILL, and watched through its crash recovery.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use scratch::ScratchCluster;
use services::{
    driver::{
        Driver,
        process::{Declared, ProcessDriver},
    },
    execute::{Executor, Round, Scene, boot_id},
    graph::{Graph, Service},
    look::{Asked, Observer},
    plan::{Budgets, Escalation, Outcome},
    probe::{Command, Postgres, Probe},
    state::{Patience, State},
};

use crate::{
    common::service::ScratchService,
    stage::{Stage, kill9},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// The process that replays the WAL, with its title.
fn startup(data: &Path) -> Option<(Pid, String)> {
    let pid = postmaster(data)?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let title = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
        title.contains(": startup").then(|| (Pid::from_raw(child.parse().unwrap()).unwrap(), title))
    })
}

fn postmaster(data: &Path) -> Option<i32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

/// A cluster that was killed with much WAL behind its last checkpoint.
async fn crashed() -> Option<ScratchCluster> {
    let installation = scratch::newest_installation().map_err(|error| println!("skipped: {error}")).ok()?;
    let builder = ScratchCluster::builder(&installation);
    let builder = builder.setting("checkpoint_timeout", "1h").setting("max_wal_size", "4GB").setting("fsync", "off");
    let mut cluster = builder.start().unwrap();
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    let fill = "CREATE TABLE t AS SELECT i, repeat('x', 300) AS x FROM generate_series(1, 200000) i; CREATE INDEX ON t (i); \
                UPDATE t SET i = i + 1; UPDATE t SET i = i + 1";
    client.batch_execute(fill).await.unwrap();
    cluster.kill9().unwrap();
    drop(client);
    let _ = driving.await;
    forget_the_dead(&cluster.data_dir());
    Some(cluster)
}

/// Another test's process may have the killed postmaster's number by now.
fn forget_the_dead(data: &Path) {
    let _ = fs::remove_file(data.join("postmaster.pid"));
}

struct Night {
    dir: PathBuf,
    state: PathBuf,
    database: Declared,
    url: String,
    data: PathBuf,
    site: ScratchService,
}

impl Night {
    fn of(stage: &Stage, cluster: &ScratchCluster) -> Self {
        let data = cluster.data_dir();
        let program = cluster.installation().bin_dir.join("postgres");
        let mut database =
            Declared::new("db", [program.display().to_string(), "-D".to_owned(), data.display().to_string()]);
        if rustix::process::geteuid().is_root() {
            let owner = fs::metadata(&data).unwrap().uid();
            let user = nix::unistd::User::from_uid(owner.into()).unwrap().unwrap();
            database.user = Some(user.name);
        }
        database.stop_signal = "SIGINT".parse().unwrap();
        let site = ScratchService::new(stage.path(), "site", &[]);
        let (dir, state) = (stage.path().join("recovery"), stage.state());
        Self { dir, state, database, url: cluster.url("postgres"), data, site }
    }

    fn agent(&self) -> Executor {
        let declared = vec![self.database.clone(), Declared::new("site", self.site.command())];
        let driver = ProcessDriver::new(&self.state, declared);
        let keeper = Path::new(env!("CARGO_BIN_EXE_services-test-keeper"));
        let driver: Arc<dyn Driver> = Arc::new(driver.with_keeper(keeper, ["keep"]));
        let quick = |name: &str| Service {
            starts_in: Some(Duration::from_millis(200)),
            stable_for: Duration::from_millis(400),
            ..Service::new(name)
        };
        let graph = Graph::new(vec![quick("db"), quick("site").needs("db")]).unwrap();
        let postgres = Probe::Postgres(Box::new(Postgres::new(&self.url, Some(&self.data)).unwrap()));
        let asked = [postgres, Probe::Command(Command::new(self.site.health()).unwrap())].map(|probe| Asked {
            health: vec![probe],
            function: vec![],
            within: Duration::from_secs(10),
        });
        let scene = Scene {
            observer: Observer::new(&graph, vec![Arc::clone(&driver)], asked.into()),
            drivers: ["db", "site"].map(|name| (name.into(), Arc::clone(&driver))).into(),
            definitions: BTreeMap::new(),
            budgets: Budgets { retry_after: Duration::from_millis(300), jitter: Duration::ZERO, ..Budgets::default() },
            patience: Patience {
                stale_after: Duration::from_secs(30),
                // The clock that never ends a recovery.
                without_progress: Duration::from_secs(1),
                unhealthy_for: Duration::from_millis(500),
                self_heal: Duration::from_millis(500),
            },
            graph,
        };
        Executor::act(&self.dir, &boot_id(), scene).unwrap()
    }

    /// Goes on until a round says that it is enough. How often something was begun.
    async fn until(&self, agent: &mut Executor, what: &str, mut enough: impl FnMut(&Round) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut acts = Vec::new();
        loop {
            let round = agent.round().await.unwrap();
            acts.extend(round.began.iter().map(|one| format!("{} {}", one.step.action, one.step.service)));
            assert!(round.ended.iter().all(|one| one.failure.is_none()), "{what}: {:?}", round.ended);
            if enough(&round) {
                return acts;
            }
            assert!(Instant::now() < deadline, "{what}: {acts:?}\n{}", round.plan.to_text());
            agent.wait(PAUSE).await.unwrap();
        }
    }
}

fn is_done(round: &Round) -> bool {
    round.plan.outcome == Outcome::Done && round.began.is_empty()
}

#[tokio::test]
async fn slow_postgresql_is_watched_through_its_crash_recovery_and_no_clock_restarts_it() {
    let Some(cluster) = crashed().await else { return };
    let stage = Stage::new();
    let night = Night::of(&stage, &cluster);
    // Held still in the midst of its replay, as by a disk that hangs.
    let (tell, held) = mpsc::channel();
    let data = night.data.clone();
    let watching = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some((pid, title)) = startup(&data)
                && title.contains("recovering")
            {
                let _ = kill_process(pid, Signal::STOP);
                let _ = tell.send(pid);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut agent = night.agent();
    let mut advanced = false;
    let mut acts = night
        .until(&mut agent, "it hangs in its recovery", |round| {
            let state = &round.statuses[0].state;
            advanced |= matches!(state, State::Starting { advancing: true, recovering: true });
            assert!(!is_done(round), "its replay was not seen");
            matches!(&round.plan.escalations[..], [Escalation::NotAdvancing { service }] if service.as_str() == "db")
        })
        .await;
    assert!(advanced, "first it was seen to recover");
    assert_eq!(acts, ["start db"]);
    watching.join().unwrap();
    let pid = held.recv().unwrap();
    // However long: it is not restarted, and nothing starts on it.
    let until = Instant::now() + Duration::from_secs(4);
    acts = night.until(&mut agent, "it hangs", |_| Instant::now() >= until).await;
    assert!(acts.is_empty() && !night.site.runs(), "{acts:?}");
    let _ = kill_process(pid, Signal::CONT);
    acts = night.until(&mut agent, "it goes on", is_done).await;
    assert_eq!(acts, ["start site"]);
    // SIGKILL to a database that serves: what it leaves behind is ended, it recovers, and what needs it stays as it is.
    kill9(postmaster(&night.data).unwrap());
    let first = night.site.starts();
    acts = night.until(&mut agent, "it was killed", |round| !round.began.is_empty()).await;
    assert_eq!(acts, ["start db"]);
    acts = night.until(&mut agent, "it comes back", is_done).await;
    assert_eq!((acts, night.site.starts()), (vec![], first));
    drop(agent);
    stage.end();
    drop(cluster);
}
