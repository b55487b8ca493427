//! One act: a copy of the cluster, the services, the load, the storm, perhaps the guard; and what was measured.

use std::{path::Path, path::PathBuf, time::Duration};

use model::{AlertState, Moment};
use scratch::ScratchCluster;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::{
    DrillError, ProgressEvent,
    children::Process,
    cluster::Template,
    detect,
    guard::{Guard, Surroundings},
    leftovers::Made,
    load::{LoadSpec, Ports, Said, Work},
    measure::{
        clock,
        cpu::{CpuReadings, Sampler, Watched},
    },
    options::{ActKind, DrillOptions},
    place::Cores,
    progress::Progress,
    result::{ActResult, AlertSeen, Detection, GuardFacts, TableOutcome, VacuumFacts},
    services::{Needs, Site},
    sink::{Arrival, Sink},
    storm,
    tables::assemble,
};

/// How often the vacuums' progress is asked for.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// How long the load's last answers may take to come together after its time is up.
const LOAD_PATIENCE: Duration = Duration::from_secs(15);

/// Before each act, and before the guard comes, so many users ask for so long: the first requests of cold services and caches
/// are slow for reasons that have nothing to do with the storm.
const WARM_UP_USERS: usize = 8;
const WARM_UP: Duration = Duration::from_millis(1_500);

/// What stays the same in all acts.
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a DrillOptions,
    pub(crate) template: &'a Template,
    pub(crate) cores: Cores,
    pub(crate) work_dir: &'a Path,
}

/// An act's outcome.
pub(crate) struct Played {
    pub(crate) result: ActResult,
    pub(crate) detection: Option<Detection>,
    /// The guard's configuration, for the report.
    pub(crate) guard_config: Option<PathBuf>,
    pub(crate) cluster: ScratchCluster,
}

/// The services of an act.
pub(crate) struct Services {
    site: Process,
    bot: Process,
    gate: Process,
}

impl Services {
    pub(crate) async fn start(
        stage: &Stage<'_>,
        cluster: &ScratchCluster,
        made: &mut Made,
    ) -> Result<Self, DrillError> {
        let (helper, dir, core) = (&stage.options.helper, stage.work_dir, Some(stage.cores.database));
        let site = Process::helper(helper, "site", &Site { core, postgres: cluster.url("postgres") }, dir).await?;
        let bot = Process::helper(helper, "bot", &Needs { core, site: site.port, bot: 0 }, dir).await?;
        let gate = Process::helper(helper, "gate", &Needs { core, site: site.port, bot: bot.port }, dir).await?;
        made.ports.extend([site.port, bot.port, gate.port, cluster.tcp_port()]);
        made.directories.push(cluster.directory().to_owned());
        Ok(Self { site, bot, gate })
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports { site: self.site.port, bot: self.bot.port, gate: self.gate.port }
    }

    fn pids(&self) -> Vec<i32> {
        vec![self.site.pid, self.bot.pid, self.gate.pid]
    }

    /// Completes when one of them ends.
    async fn died(&mut self) -> DrillError {
        tokio::select! {
            error = self.site.died() => error,
            error = self.bot.died() => error,
            error = self.gate.died() => error,
        }
    }

    pub(crate) async fn stop(self) {
        // Those who ask before those who are asked.
        for process in [self.gate, self.bot, self.site] {
            process.stop().await;
        }
    }
}

/// Plays an act.
pub(crate) async fn play(
    stage: &Stage<'_>,
    act: ActKind,
    rate_per_s: f64,
    made: &mut Made,
    progress: &mut dyn Progress,
) -> Result<Played, DrillError> {
    let options = stage.options;
    let cluster = stage.template.play(options, act, stage.cores).await?;
    let url = cluster.url("postgres");
    let mut services = Services::start(stage, &cluster, made).await?;
    let warm_up = Work::Closed { users: WARM_UP_USERS, warm_up: Duration::ZERO, measured: WARM_UP };
    closed_loop(stage, services.ports(), warm_up).await?;
    let settings_before = storm::cost_settings(&url).await?;
    let mut companion = match act {
        ActKind::Guarded => Some(Companion::start(stage, &cluster, services.ports(), made).await?),
        _ => None,
    };
    let watcher = storm::connect(&url).await?;
    let sampler = Sampler::start(Watched {
        core: stage.cores.database,
        postmaster: cluster.postmaster_pid().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0),
        services: services.pids(),
        guard: companion.as_ref().map(|companion| companion.guard.process.pid),
        sampler_core: Some(stage.cores.load),
    })?;
    let spec = LoadSpec {
        core: Some(stage.cores.load),
        ports: services.ports(),
        seed: options.seed,
        members: options.rows,
        work: Work::Open { rate_per_s, length: length(options, act) },
    };
    let mut load = Process::helper(&options.helper, "load", &spec, stage.work_dir).await?;
    let mut run = Run { act, options, watcher: &watcher, progress, vacuum: Vacuums::default(), began: Instant::now() };
    let outcome = tokio::select! {
        outcome = run.watch(&mut load) => outcome?,
        error = services.died() => return Err(error),
        error = died(&mut companion) => return Err(error),
    };
    let vacuum = run.vacuum;
    load.stop().await;
    let cpu = sampler.finish();
    let guarded = match companion {
        Some(companion) => Some(companion.finish(&url, settings_before, &outcome, &cpu).await?),
        None => None,
    };
    services.stop().await;
    let vacuum = act.has_storm().then(|| vacuum.facts(&outcome, &cpu));
    let mut result = assemble(act, &outcome, &cpu, vacuum);
    let (detection, guard_config) = match guarded {
        Some((facts, config)) => {
            let window_s = seconds_between(
                outcome.released.unwrap_or(outcome.began).boot_us,
                outcome.began.plus(outcome.length).boot_us,
            );
            let detection = detect::detection(&result.cpu.saturated, &facts.alerts, window_s);
            result.guard = Some(facts);
            (detection, Some(config))
        }
        None => (None, None),
    };
    Ok(Played { result, detection, guard_config, cluster })
}

/// Runs a closed loop; requests answered per second, and how many failed.
pub(crate) async fn closed_loop(stage: &Stage<'_>, ports: Ports, work: Work) -> Result<(f64, u64), DrillError> {
    let options = stage.options;
    let spec = LoadSpec { core: Some(stage.cores.load), ports, seed: options.seed, members: options.rows, work };
    let mut load = Process::helper(&options.helper, "load", &spec, stage.work_dir).await?;
    load.tell("go\n").await?;
    let outcome = loop {
        match load.line().await? {
            Some(Said::Capacity { per_s, failed }) => break (per_s, failed),
            Some(_) => {}
            None => return Err(load.error("ended without its result".into())),
        }
    };
    load.stop().await;
    Ok(outcome)
}

/// How long the load of an act lasts.
pub(crate) fn length(options: &DrillOptions, act: ActKind) -> Duration {
    options.lead_in + if act.has_storm() { options.storm } else { options.baseline }
}

async fn died(companion: &mut Option<Companion>) -> DrillError {
    match companion {
        Some(companion) => companion.guard.process.died().await,
        None => std::future::pending().await,
    }
}

/// The guard with its webhook's other end.
struct Companion {
    guard: Guard,
    sink: Sink,
}

impl Companion {
    async fn start(
        stage: &Stage<'_>,
        cluster: &ScratchCluster,
        ports: Ports,
        made: &mut Made,
    ) -> Result<Self, DrillError> {
        let sink = Sink::open().await?;
        made.ports.push(sink.port);
        // On the cluster's file system, which is a tmpfs where there is room: where the throttle's home belongs.
        let include = cluster.directory().join("include");
        std::fs::create_dir(&include).map_err(DrillError::file("creating", &include))?;
        cluster.give(&include).map_err(DrillError::cluster("giving it the include directory"))?;
        let include_file = include.join("throttle.conf");
        cluster.include_line(&include_file).map_err(DrillError::cluster("adding the include line"))?;
        let client = storm::connect(&cluster.url("postgres")).await?;
        client.batch_execute("SELECT pg_reload_conf()").await.map_err(DrillError::sql("reloading"))?;
        let around = Surroundings {
            postgres: cluster.url("postgres"),
            include_file: &include_file,
            webhook_port: sink.port,
            ports,
            core: stage.cores.database,
            dir: stage.work_dir,
        };
        let guard = Guard::start(stage.options, &around).await?;
        Ok(Self { guard, sink })
    }

    async fn finish(
        self,
        url: &str,
        settings_before: String,
        outcome: &Outcome,
        cpu: &CpuReadings,
    ) -> Result<(GuardFacts, PathBuf), DrillError> {
        let ready_after_s = self.guard.ready_after.as_secs_f64();
        let (stopped_cleanly, config, traces) = self.guard.stop().await;
        let settings_after = storm::cost_settings(url).await?;
        let remains = traces.look(url).await?;
        let arrivals = self.sink.arrivals();
        let released_us = outcome.released.unwrap_or(outcome.began).boot_us;
        let alerts: Vec<AlertSeen> = arrivals.iter().map(|arrival| seen(arrival, released_us)).collect();
        let facts = GuardFacts {
            ready_after_s,
            resident_max_bytes: cpu.guard_resident_max,
            alerts_before_storm: alerts.iter().filter(|alert| alert.decided_s < 0.0 && alert.state == "firing").count(),
            alerts,
            stopped_cleanly,
            settings_before,
            settings_after,
            remains,
        };
        Ok((facts, config))
    }
}

fn seen(arrival: &Arrival, released_us: u64) -> AlertSeen {
    AlertSeen {
        key: arrival.key.clone(),
        rule: arrival.rule.clone(),
        state: match arrival.state {
            AlertState::Firing => "firing".into(),
            AlertState::Resolved => "resolved".into(),
        },
        summary: arrival.summary.clone(),
        decided_s: seconds_between(released_us, arrival.decided_us),
        arrived_s: seconds_between(released_us, arrival.arrived_us),
    }
}

/// From one microsecond of the boot clock to another, in seconds; negative where the second is earlier.
pub(crate) fn seconds_between(from_us: u64, to_us: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of an act are far below 2^52")]
    let (later, earlier) = (to_us.saturating_sub(from_us) as f64, from_us.saturating_sub(to_us) as f64);
    (later - earlier) / 1e6
}

/// What the load and the clock said.
pub(crate) struct Outcome {
    /// When the load began.
    pub(crate) began: Moment,
    /// When the storm was released.
    pub(crate) released: Option<Moment>,
    /// What does not count where no storm was released.
    pub(crate) lead_in: Duration,
    /// Length of the load.
    pub(crate) length: Duration,
    pub(crate) cells: Vec<crate::load::Cell>,
}

/// An act while it plays.
struct Run<'a> {
    act: ActKind,
    options: &'a DrillOptions,
    watcher: &'a Client,
    progress: &'a mut dyn Progress,
    vacuum: Vacuums,
    began: Instant,
}

impl Run<'_> {
    /// From the word to the load until the last look at the vacuums.
    async fn watch(&mut self, load: &mut Process) -> Result<Outcome, DrillError> {
        load.tell("go\n").await?;
        let length = length(self.options, self.act);
        let lead_in = self.options.lead_in;
        let mut released = None;
        let mut closed = false;
        let release = tokio::time::sleep(lead_in);
        tokio::pin!(release);
        let close = tokio::time::sleep(length);
        tokio::pin!(close);
        let overdue = tokio::time::sleep(length + LOAD_PATIENCE);
        tokio::pin!(overdue);
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut began = clock::now();
        let cells = loop {
            tokio::select! {
                said = load.line() => match said? {
                    Some(Said::Started { boot_us }) => began.boot_us = boot_us,
                    Some(Said::Second { answered, failed, p99_ms, in_flight }) => {
                        self.tell(length, answered, failed, p99_ms, in_flight);
                    }
                    Some(Said::Done { cells }) => break cells,
                    Some(Said::Capacity { .. }) | None => return Err(load.error("ended without its result".into())),
                },
                () = &mut release, if self.act.has_storm() && released.is_none() => {
                    storm::release(self.watcher).await?;
                    released = Some(clock::now());
                }
                () = &mut close, if released.is_some() && !closed => {
                    closed = true;
                    self.vacuum.close(storm::outcomes(self.watcher).await?);
                }
                _ = look.tick(), if released.is_some() => {
                    self.vacuum.look(storm::outcomes(self.watcher).await?, released);
                }
                () = &mut overdue => return Err(load.error(format!("gave no result within {LOAD_PATIENCE:?} of its end"))),
            }
        };
        if released.is_some() {
            // Where the server answers slowly the load may be done before the last look was taken.
            if !closed {
                self.vacuum.close(storm::outcomes(self.watcher).await?);
            }
            self.watch_afterwards(released).await?;
        }
        Ok(Outcome { began, released, lead_in, length, cells })
    }

    /// Without users, an unfinished vacuum may finish; a guard should let it.
    async fn watch_afterwards(&mut self, released: Option<Moment>) -> Result<(), DrillError> {
        let until = Instant::now() + self.options.afterwards;
        while !self.vacuum.all_done() && Instant::now() < until {
            tokio::time::sleep(LOOK_PERIOD).await;
            self.vacuum.look(storm::outcomes(self.watcher).await?, released);
        }
        Ok(())
    }

    fn tell(&mut self, length: Duration, answered: u64, failed: u64, p99_ms: f64, in_flight: usize) {
        let storm = match (self.act.has_storm(), self.vacuum.first_seen_s) {
            (false, _) => "",
            (true, None) => ", vacuum held back",
            (true, Some(_)) if self.vacuum.all_done() => ", vacuums finished",
            (true, Some(_)) => ", vacuums running",
        };
        self.progress.on(ProgressEvent::Goes {
            elapsed: self.began.elapsed(),
            expected: length,
            now: format!("{answered} answered/s, p99 {p99_ms:.0} ms, {failed} failed, {in_flight} waiting{storm}"),
        });
    }
}

/// What is known of the vacuums.
#[derive(Default)]
struct Vacuums {
    first_seen_s: Option<f64>,
    finished_s: Vec<(String, f64)>,
    tables: usize,
    at_close: Vec<TableOutcome>,
}

impl Vacuums {
    fn look(&mut self, outcomes: Vec<(TableOutcome, bool)>, released: Option<Moment>) {
        let Some(released) = released else { return };
        let now = seconds_between(released.boot_us, clock::boot_us());
        self.tables = outcomes.len();
        for (outcome, done) in outcomes {
            if self.first_seen_s.is_none() && (done || outcome.phase.is_some()) {
                self.first_seen_s = Some(now);
            }
            if done && !self.finished_s.iter().any(|(table, _)| *table == outcome.table) {
                self.finished_s.push((outcome.table, now));
            }
        }
    }

    fn close(&mut self, outcomes: Vec<(TableOutcome, bool)>) {
        self.at_close = outcomes.into_iter().map(|(outcome, _)| outcome).collect();
    }

    fn all_done(&self) -> bool {
        self.tables > 0 && self.finished_s.len() == self.tables
    }

    fn facts(mut self, outcome: &Outcome, cpu: &CpuReadings) -> VacuumFacts {
        for table in &mut self.at_close {
            table.finished_after_s =
                self.finished_s.iter().find(|(name, _)| *name == table.table).map(|(_, after)| *after);
        }
        let from_us = outcome.released.unwrap_or(outcome.began).boot_us;
        let to_us = outcome.began.plus(outcome.length).boot_us;
        VacuumFacts {
            workers: cpu.vacuum_workers,
            cpu_s: crate::tables::used_s(&cpu.groups, from_us, to_us, |group| group.vacuum_us),
            first_seen_s: self.first_seen_s,
            tables: self.at_close,
        }
    }
}
