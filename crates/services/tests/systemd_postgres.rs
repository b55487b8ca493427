//! PostgreSQL as a unit on a node that loses power: its crash recovery comes first, and what needs it after it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/nspawn.rs"]
mod nspawn;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use scratch::ScratchCluster;
use services::{
    driver::Driver,
    execute::{Executor, Scene, boot_id},
    graph::{Graph, Service},
    look::{Asked, Observer},
    plan::{Budgets, Outcome},
    probe::{Command, Postgres, Probe},
    state::{Patience, State},
};

use crate::{common::service::ScratchService, nspawn::NodeStage};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);
const ROWS: i64 = 200_000;

/// A cluster that was killed with much WAL behind its last checkpoint.
async fn crashed() -> Option<ScratchCluster> {
    let installation = scratch::newest_installation().map_err(|error| println!("skipped: {error}")).ok()?;
    let builder = ScratchCluster::builder(&installation);
    let mut cluster = builder.setting("checkpoint_timeout", "1h").setting("max_wal_size", "4GB").start().unwrap();
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    let fill = format!(
        "CREATE TABLE t AS SELECT i, repeat('x', 300) AS x FROM generate_series(1, {ROWS}) i; UPDATE t SET i = i + 1"
    );
    client.batch_execute(&fill).await.unwrap();
    cluster.kill9().unwrap();
    drop(client);
    let _ = driving.await;
    // Another process may have the killed postmaster's number by now.
    let _ = fs::remove_file(cluster.data_dir().join("postmaster.pid"));
    Some(cluster)
}

async fn rows(cluster: &ScratchCluster) -> i64 {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0)
}

fn quick(name: &str) -> Service {
    Service { starts_in: Some(Duration::from_secs(2)), stable_for: Duration::from_millis(500), ..Service::new(name) }
}

fn agent(stage: &NodeStage, cluster: &ScratchCluster, site: &ScratchService, dir: &Path) -> Executor {
    let driver: Arc<dyn Driver> = Arc::new(stage.driver(&["db", "site"]));
    let graph = Graph::new(vec![quick("db"), quick("site").needs("db")]).unwrap();
    let postgres = Postgres::new(&cluster.url("postgres"), Some(&cluster.data_dir())).unwrap();
    let asked = [Probe::Postgres(Box::new(postgres)), Probe::Command(Command::new(site.health()).unwrap())];
    let asked = asked.map(|probe| Asked { health: vec![probe], function: vec![], within: Duration::from_secs(10) });
    let scene = Scene {
        observer: Observer::new(&graph, vec![Arc::clone(&driver)], asked.into()),
        drivers: ["db", "site"].map(|name| (name.into(), Arc::clone(&driver))).into(),
        definitions: BTreeMap::new(),
        budgets: Budgets { jitter: Duration::ZERO, ..Budgets::default() },
        patience: Patience::default(),
        graph,
    };
    Executor::act(dir, &boot_id(), scene).unwrap()
}

#[tokio::test]
async fn slow_postgresql_on_a_node_that_loses_power_recovers_before_what_needs_it() {
    let Some(cluster) = crashed().await else { return };
    let Some(builder) = nspawn::builder() else { return };
    let bin = cluster.installation().bin_dir.clone();
    let node = builder.bind(cluster.directory()).bind_read_only(bin.parent().unwrap()).boot().unwrap();
    let mut stage = NodeStage { node };
    let owner = fs::metadata(cluster.data_dir()).unwrap().uid();
    stage.unit(
        "db",
        &format!(
            "ExecStart={} -D {}\nUser={owner}\nKillSignal=SIGINT\nTimeoutStopSec=600",
            bin.join("postgres").display(),
            cluster.data_dir().display()
        ),
    );
    let site = stage.service("site", &[], "");
    stage.reload();

    for boot in 1..=2 {
        let mut agent = agent(&stage, &cluster, &site, &stage.path(&format!("recovery-{boot}")));
        let (began, mut acts, mut recovering) = (Instant::now(), Vec::new(), false);
        loop {
            let round = agent.round().await.unwrap();
            recovering |= matches!(round.statuses[0].state, State::Starting { recovering: true, .. });
            for one in &round.began {
                let db = &round.statuses[0].state;
                acts.push(format!("{} {}", one.step.action, one.step.service));
                assert!(one.step.service.as_str() == "db" || *db == State::Stable, "{acts:?} while db is {db}");
            }
            if round.plan.outcome == Outcome::Done && round.began.is_empty() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{acts:?}\n{}", round.plan.to_text());
            agent.wait(PAUSE).await.unwrap();
        }
        assert_eq!(acts, ["start db", "start site"], "boot {boot}: once each");
        println!("boot {boot}: stable after {:?}, recovery seen: {recovering}", began.elapsed());
        assert_eq!(rows(&cluster).await, ROWS, "what was committed is there");
        if boot == 1 {
            stage.node.kill9().unwrap();
            stage.node.boot_again().unwrap();
        }
    }
    stage.systemctl(&["stop", "site", "db"]);
}
