//! Act 3: everything is killed with SIGKILL, PostgreSQL too, and brought back: once without an order, as Kubernetes does, and once by oxpecker.
//!
//! Both sides start the same processes by the same driver; who decides when to start which is all that differs. A process loads for a third of its start time,
//! asks for what it needs (a query to PostgreSQL, a request to the others), ends with an error where that does not answer, and serves at the end of its start
//! time. Start times are drawn, see [`graph`]; PostgreSQL is real, recovers what it has written since its last checkpoint, and takes what it takes. The clock may
//! run faster: then start times, the back-off and the settle time are divided by the same number, and what starting a process, a probe or a recovery really
//! takes counts that much more, on both sides.
//!
//! ```text
//! graph      the services, their start times      (pure)
//! backoff    Kubernetes' back-off                 (pure)
//! record     what the services wrote down         (pure)
//! member     a service, in a process of its own
//! world      all of them: started, killed, looked at
//! unordered  brings them back without an order
//! ordered    brings them back with oxpecker
//! database   the PostgreSQL
//! chore      the same for the bench, without a real PostgreSQL
//! ```

mod backoff;
pub(crate) mod chore;
mod database;
mod graph;
pub(crate) mod member;
mod ordered;
mod record;
mod unordered;
mod world;

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::record::{ColdLane, ColdRun};
use self::{
    database::Database,
    graph::{DATABASE, OUTAGE, SIGMA},
    world::World,
};
use crate::{DrillError, DrillOptions, HelperCommand, leftovers::Made, measure::clock};

/// How long a service has to serve to count as stable: the default of a `[[service]]`.
const STABLE_FOR: Duration = services::graph::STABLE_FOR_DEFAULT;
/// How long one side may take, on the clock of the services.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// What the progress bar expects of it.
pub(crate) const EXPECTED: Duration = Duration::from_secs(35);

/// Who brings them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColdKind {
    /// All at once, and again with Kubernetes' back-off.
    Unordered,
    /// oxpecker's planner and executor.
    Ordered,
}

/// One way back. All seconds as measured; on the clock of the services it is [`ColdStart::scale`] times as many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdSide {
    /// Which.
    pub how: ColdKind,
    /// Processes that were killed.
    pub killed: usize,
    /// From the beginning until all had served for the settle time, and did so; none where that did not come.
    pub stable_s: Option<f64>,
    /// Starts that came to nothing.
    pub wasted: usize,
    /// Starts of a service while something that it needs did not serve.
    pub early: usize,
    /// Until all were stable had each been started the moment that all it needs was ready, with this side's own start times.
    pub limit_s: Option<f64>,
    /// The same had each been started the moment that all it needs was stable.
    pub settled_limit_s: Option<f64>,
    /// What each service went through.
    pub lanes: Vec<ColdLane>,
    /// Why a person would be needed, where that is how it ended.
    pub gave_up: Option<String>,
}

/// The same cold restart, brought back in two ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// How much faster the clock of the services runs.
    pub scale: u32,
    /// How long a service has to serve to count as stable, in seconds as measured.
    pub stable_for_s: f64,
    /// What start times were drawn from: the standard deviation of their logarithm.
    pub sigma: f64,
    /// Repeats the draw.
    pub seed: u64,
    /// Each service's start time as drawn, in seconds on the services' clock; PostgreSQL's only where it is stood for.
    pub starts_in_s: Vec<(String, Option<f64>)>,
    /// WAL that PostgreSQL had to replay, in bytes, where it is real.
    pub wal_bytes: Option<u64>,
    /// The ways back, in the order of play.
    pub sides: Vec<ColdSide>,
}

impl ColdStart {
    /// The side of this kind, where it was played.
    pub fn side(&self, how: ColdKind) -> Option<&ColdSide> {
        self.sides.iter().find(|side| side.how == how)
    }

    /// Whether every claim that is made of it holds.
    pub fn is_well(&self) -> bool {
        crate::verdict::cold_start(self).iter().all(|line| line.passed)
    }
}

/// Plays it with a PostgreSQL of its own.
pub(crate) async fn play(options: &DrillOptions, work_dir: &Path, made: &mut Made) -> Result<ColdStart, DrillError> {
    let dir = work_dir.join("cold-start");
    let database = Database::new(options)?;
    made.directories.extend([dir.clone(), database.directory().to_owned()]);
    let mut played = ColdStart::drawn(options.seed, options.cold_start_scale, true);
    let server = database.server();
    let world = World::new(&options.helper, &dir, &played.starts_in(), Some((&server, database.directory())))?;
    world.bring_up().await?;
    for how in [ColdKind::Unordered, ColdKind::Ordered] {
        played.wal_bytes = Some(database.write().await?);
        let side = played.bring_back(&world, how).await?;
        played.sides.push(side);
    }
    world.stop().await?;
    Ok(played)
}

/// Plays one way back without a real PostgreSQL.
async fn play_stood_for(
    helper: &HelperCommand,
    dir: &Path,
    seed: u64,
    scale: u32,
    how: ColdKind,
) -> Result<ColdStart, DrillError> {
    let mut played = ColdStart::drawn(seed, scale, false);
    let world = World::new(helper, dir, &played.starts_in(), None)?;
    world.bring_up().await?;
    let side = played.bring_back(&world, how).await?;
    played.sides.push(side);
    world.stop().await?;
    Ok(played)
}

impl ColdStart {
    fn drawn(seed: u64, scale: u32, real: bool) -> Self {
        let starts_in_s = OUTAGE.iter().zip(graph::draw(seed)).map(|(kind, takes)| {
            let drawn = !real || kind.name != DATABASE;
            (kind.name.to_owned(), drawn.then_some(takes.as_secs_f64()))
        });
        Self {
            scale,
            stable_for_s: STABLE_FOR.as_secs_f64() / f64::from(scale),
            sigma: SIGMA,
            seed,
            starts_in_s: starts_in_s.collect(),
            wal_bytes: None,
            sides: Vec::new(),
        }
    }

    /// As measured.
    fn starts_in(&self) -> Vec<Duration> {
        let all = self.starts_in_s.iter().map(|(_, takes)| takes.unwrap_or(0.0));
        all.map(|takes| Duration::from_secs_f64(takes) / self.scale).collect()
    }

    async fn bring_back(&self, world: &World, how: ColdKind) -> Result<ColdSide, DrillError> {
        let (scale, stable_for) = (self.scale, STABLE_FOR / self.scale);
        let killed = world.kill().await?;
        world::forget(world.dir())?;
        let patience = (PATIENCE / scale).max(Duration::from_secs(60));
        let from_us = clock::boot_us();
        let gave_up = match how {
            ColdKind::Unordered => {
                unordered::bring_back(world, from_us, scale, stable_for, patience).await?;
                None
            }
            ColdKind::Ordered => ordered::bring_back(world, scale, stable_for, patience).await?,
        };
        Ok(self.judged(how, killed, world.lanes(from_us), gave_up))
    }

    /// What the services wrote down, judged alike whoever started them.
    fn judged(&self, how: ColdKind, killed: usize, lanes: Vec<ColdLane>, gave_up: Option<String>) -> ColdSide {
        let takes = lanes.iter().zip(self.starts_in()).map(|(lane, drawn)| match lane.runs.last() {
            // What PostgreSQL really took.
            Some(run) if drawn.is_zero() => run.ready_s.map(|ready| ready - run.started_s),
            _ => Some(drawn.as_secs_f64()),
        });
        let takes: Option<Vec<f64>> = takes.collect();
        let settled: Option<Vec<f64>> =
            takes.as_ref().map(|takes| takes.iter().map(|takes| takes + self.stable_for_s).collect());
        ColdSide {
            how,
            killed,
            stable_s: record::stable_s(&lanes, self.stable_for_s),
            wasted: record::wasted(&lanes),
            early: early(&lanes),
            limit_s: takes.as_ref().map(|takes| graph::critical_path(takes) + self.stable_for_s),
            settled_limit_s: settled.map(|settled| graph::critical_path(&settled)),
            lanes,
            gave_up,
        }
    }
}

/// Starts of a service before all that it needs served for good.
fn early(lanes: &[ColdLane]) -> usize {
    let needs_ready = |lane: &ColdLane| {
        let needs = graph::place(&lane.service).map_or(&[][..], |at| OUTAGE[at].needs);
        let ready = needs.iter().map(|need| lanes.get(graph::place(need)?)?.ready_s());
        ready.fold(0.0_f64, |latest, ready| latest.max(ready.unwrap_or(f64::INFINITY)))
    };
    lanes.iter().map(|lane| lane.runs.iter().filter(|run| run.started_s < needs_ready(lane)).count()).sum()
}
