//! oxpecker's own planner and executor, told what a person would have written down: who needs whom, and how long each usually takes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use services::{
    driver::Driver,
    execute::{Executor, Scene, boot_id},
    graph::{Graph, Service},
    look::{Asked, Observer},
    plan::{Budgets, Outcome},
    probe::{Http, Postgres, Probe},
    state::Patience,
};

use super::{graph::OUTAGE, world::World};
use crate::DrillError;

/// How often `oxpecker service apply` looks where nothing says that something changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Brings them back until all are stable, the time is over, or a person would be needed: why, then. The times of the plan are divided by `scale`; what is
/// waited for only where something fails is as usual.
pub(crate) async fn bring_back(
    world: &World,
    scale: u32,
    stable_for: Duration,
    patience: Duration,
) -> Result<Option<String>, DrillError> {
    let fail = |error: &dyn std::fmt::Display| DrillError::cold("bringing the services back", error.to_string());
    let dir = world.dir().join("recovery");
    let scene = scene(world, scale, stable_for).map_err(|why| fail(&why))?;
    let mut executor = Executor::act(&dir, &boot_id(), scene).map_err(|error| fail(&error))?;
    let begun = Instant::now();
    loop {
        let round = executor.round().await.map_err(|error| fail(&error))?;
        if round.plan.outcome != Outcome::Working && round.began.is_empty() {
            let well = round.plan.outcome == Outcome::Done;
            return Ok((!well).then(|| round.plan.to_text()));
        }
        if begun.elapsed() > patience {
            return Ok(Some(format!("not within {} s: {}", patience.as_secs(), round.plan.to_text())));
        }
        executor.wait(LOOK / scale).await.map_err(|error| fail(&error))?;
    }
}

fn scene(world: &World, scale: u32, stable_for: Duration) -> Result<Scene, String> {
    let declared = OUTAGE.iter().map(|kind| Service {
        needs: kind.needs.iter().map(|need| (*need).into()).collect(),
        starts_in: Some(Duration::from_secs_f64(kind.median_s) / scale),
        stable_for,
        ..Service::new(kind.name)
    });
    let graph = Graph::new(declared.collect()).map_err(|problems| problems.to_string())?;
    let driver: Arc<dyn Driver> = Arc::clone(&world.driver) as Arc<dyn Driver>;
    let asked = world.members.iter().map(|member| {
        let probe = match &member.server {
            Some(server) => {
                let probe = Postgres::new(&server.url, Some(&server.data)).map_err(|error| error.to_string())?;
                Probe::Postgres(Box::new(probe))
            }
            None => {
                let url = format!("http://{}/healthz", member.address);
                Probe::Http(Http::new(&url).map_err(|error| error.to_string())?)
            }
        };
        Ok(Asked { health: vec![probe], function: vec![], within: WITHIN })
    });
    let asked = asked.collect::<Result<Vec<_>, String>>()?;
    let usual = Budgets::default();
    Ok(Scene {
        observer: Observer::new(&graph, vec![Arc::clone(&driver)], asked),
        drivers: world.members.iter().map(|one| (one.name.as_str().into(), Arc::clone(&driver))).collect(),
        definitions: BTreeMap::new(),
        budgets: Budgets { retry_after: usual.retry_after / scale, jitter: usual.jitter / scale, ..usual },
        patience: Patience::default(),
        graph,
    })
}
