//! The drill from beginning to end.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    DrillError, ProgressEvent,
    act::{self, Played, Services, Stage},
    cluster::Template,
    cold_start::{self, ColdStart},
    guard,
    leftovers::{Made, WorkDir},
    load::{MIX, PATIENCE, Work},
    oom::{self, Oom},
    options::{ActKind, DrillOptions},
    place::{self, Cores},
    progress::Progress,
    rescue,
    result::{DrillResult, Kept, LoadFacts, SCHEMA_VERSION, Server, StormTable},
    services::{POOL_SIZE, POOL_TIMEOUT, SERVICE_TIMEOUT, STATEMENT_TIMEOUT},
    storm,
    surge::{self, Surge},
    verdict::{Evidence, judge},
};

/// Users of the closed loop that finds the capacity: enough to keep the core busy, too few to drown it.
const CLOSED_LOOP_USERS: usize = 32;
/// The closed loop's first moments do not count.
const CLOSED_LOOP_WARM_UP: Duration = Duration::from_millis(1_500);
/// A capacity below this can't carry a load that means anything.
const MIN_CAPACITY_PER_S: f64 = 10.0;
/// Rows that one second of loading makes, all tables together, on two cores of 2020's make: for the progress bar only.
const ROWS_LOADED_PER_S: u32 = 350_000;

/// Replays the vacuum storm of the outage and judges what oxpecker makes of it.
///
/// `cancel` completes when somebody wants the drill to stop: all that it has started is then ended before this returns
/// [`DrillError::Cancelled`]. Needs a tokio runtime with I/O and time; while PostgreSQL starts or stops it blocks the thread for
/// up to some seconds. Children are bound to the life of the calling thread.
///
/// # Errors
/// When no result could be had. A bad result is no error: see [`crate::Verdict::passed`].
pub async fn run(
    options: &DrillOptions,
    progress: &mut dyn Progress,
    cancel: impl Future<Output = ()>,
) -> Result<DrillResult, DrillError> {
    options.check()?;
    tokio::select! {
        biased;
        () = cancel => Err(DrillError::Cancelled),
        result = drill(options, progress) => result,
    }
}

/// Plays act 3 alone: all services killed, and brought back without an order and in order. As [`run`] otherwise.
///
/// # Errors
/// As [`run`]; a left-over process is one too.
pub async fn cold_start(
    options: &DrillOptions,
    progress: &mut dyn Progress,
    cancel: impl Future<Output = ()>,
) -> Result<ColdStart, DrillError> {
    tokio::select! {
        biased;
        () = cancel => Err(DrillError::Cancelled),
        played = cold_start_alone(options, progress) => played,
    }
}

async fn cold_start_alone(options: &DrillOptions, progress: &mut dyn Progress) -> Result<ColdStart, DrillError> {
    let mut phases = Phases { progress, number: 0, of: 1, begun: Instant::now() };
    let mut made = Made::default();
    let work_dir = WorkDir::create(&std::env::temp_dir())?;
    phases.begin(cold_title(options), cold_start::EXPECTED);
    let played = cold_start::play(options, work_dir.path(), &mut made).await?;
    phases.end(cold_outcome(&played));
    match &made.left()[..] {
        [] => Ok(played),
        left => Err(DrillError::cold("cleaning up", format!("left running: {}", left.join("; ")))),
    }
}

/// Plays the connection surge, without and with a guard. As [`run`] otherwise.
///
/// # Errors
/// As [`run`].
pub async fn connection_surge(
    options: &DrillOptions,
    progress: &mut dyn Progress,
    cancel: impl Future<Output = ()>,
) -> Result<Surge, DrillError> {
    options.check()?;
    let playing = async {
        let mut phases = Phases { progress, number: 0, of: 1, begun: Instant::now() };
        let mut made = Made::default();
        let work_dir = WorkDir::create(&std::env::temp_dir())?;
        phases
            .begin("one client opens sessions and closes none: unwatched, then with oxpecker".into(), surge::EXPECTED);
        let played = surge::play(options, work_dir.path(), &mut made).await?;
        phases.end(format!("{} sessions ended, {} of others", played.guarded.ended, played.guarded.ended_of_others));
        Ok(played)
    };
    tokio::select! {
        biased;
        () = cancel => Err(DrillError::Cancelled),
        played = playing => played,
    }
}

/// Plays the exhaustion of memory, without and with a guard. As [`run`] otherwise.
///
/// # Errors
/// As [`run`]; also where no control group with a limit of memory can be made.
pub async fn out_of_memory(
    options: &DrillOptions,
    progress: &mut dyn Progress,
    cancel: impl Future<Output = ()>,
) -> Result<Oom, DrillError> {
    options.check()?;
    let playing = async {
        let mut phases = Phases { progress, number: 0, of: 1, begun: Instant::now() };
        let mut made = Made::default();
        let work_dir = WorkDir::create(&std::env::temp_dir())?;
        phases.begin("a service grows until the memory is gone: unwatched, then with oxpecker".into(), oom::EXPECTED);
        let played = oom::play(options, work_dir.path(), &mut made).await?;
        phases.end(format!(
            "killed {} times unwatched, {} times with oxpecker",
            played.alone.kills, played.guarded.kills
        ));
        Ok(played)
    };
    tokio::select! {
        biased;
        () = cancel => Err(DrillError::Cancelled),
        played = playing => played,
    }
}

fn cold_title(options: &DrillOptions) -> String {
    let clock = match options.cold_start_scale {
        1 => String::new(),
        scale => format!(", on a clock of 1:{scale}"),
    };
    format!("act 3, the cold restart: SIGKILL to everything, brought back without an order, then by oxpecker{clock}")
}

fn cold_outcome(played: &ColdStart) -> String {
    let sides = played.sides.iter().map(|side| {
        let stable = side.stable_s.map_or_else(
            || "never stable".to_owned(),
            |stable| format!("stable after {:.0} s", stable * f64::from(played.scale)),
        );
        let who = match side.how {
            cold_start::ColdKind::Unordered => "without an order",
            cold_start::ColdKind::Ordered => "oxpecker",
        };
        format!("{who}: {stable}, {} wasted starts", side.wasted)
    });
    sides.collect::<Vec<_>>().join("; ")
}

/// Numbers the phases and times them.
struct Phases<'a> {
    progress: &'a mut dyn Progress,
    number: usize,
    of: usize,
    begun: Instant,
}

impl Phases<'_> {
    fn begin(&mut self, title: String, expected: Duration) {
        self.number += 1;
        self.begun = Instant::now();
        self.progress.on(ProgressEvent::Began { number: self.number, of: self.of, title, expected });
    }

    fn end(&mut self, outcome: String) {
        self.progress.on(ProgressEvent::Ended { took: self.begun.elapsed(), outcome });
    }
}

async fn drill(options: &DrillOptions, progress: &mut dyn Progress) -> Result<DrillResult, DrillError> {
    let (started, begun) = (Timestamp::now(), Instant::now());
    let cores = Cores::choose()?;
    let acts: Vec<ActKind> = ActKind::ALL.into_iter().filter(|act| options.acts.contains(act)).collect();
    let mut phases = Phases {
        progress,
        number: 0,
        of: acts.len() + 3 + usize::from(options.rescue) + usize::from(options.cold_start),
        begun,
    };
    let mut made = Made::default();

    let version = storm::version(&options.postgres);
    let expected = Duration::from_secs(u64::from(3 * options.rows / ROWS_LOADED_PER_S) + 3);
    phases.begin(
        format!("load a scratch PostgreSQL {version} with three tables of {} rows", thousands(options.rows)),
        expected,
    );
    let template = Template::build(options).await?;
    let host = place::host(cores, template.storage());
    phases.end(loaded(&template.tables, &host.storage));

    // Dropped after all that works in it, as locals go in reverse.
    let work_dir = WorkDir::create(&template.base())?;
    made.directories.push(work_dir.path().to_owned());
    let stage = Stage { options, template: &template, cores, work_dir: work_dir.path() };

    phases.begin(
        "measure what the services can answer when nobody vacuums".into(),
        options.capacity + CLOSED_LOOP_WARM_UP,
    );
    let capacity_per_s = capacity(&stage, &mut made).await?;
    let rate_per_s = capacity_per_s * options.load_share;
    phases.end(format!(
        "{capacity_per_s:.0} requests/s; the users will ask for {:.0} % of it, {rate_per_s:.0}/s",
        options.load_share * 100.0
    ));

    let mut results = Vec::new();
    let (mut detection, mut guard_config, mut last_cluster) = (None, None, None);
    for &kind in &acts {
        // The act before's cluster goes only now, so that --keep can have the last one.
        drop(last_cluster.take());
        phases.begin(title(kind), act::length(options, kind));
        let Played { result, detection: seen, guard_config: config, cluster } =
            act::play(&stage, kind, rate_per_s, &mut made, phases.progress).await?;
        phases.end(outcome(&result));
        results.push(result);
        detection = detection.or(seen);
        guard_config = guard_config.or(config);
        last_cluster = Some(cluster);
    }

    let mut rescued = None;
    if let Some(cluster) = last_cluster.as_mut().filter(|_| options.rescue) {
        phases.begin(
            "3 rescue: back up in the storm, drop a table, destroy, go back to the moment before, prove".into(),
            rescue::EXPECTED,
        );
        let facts = rescue::play(options, cluster, &template.tables, work_dir.path()).await?;
        phases.end(format!(
            "backup {:.1} s, restore {:.1} s, proof {:.1} s, {} of {} rows, {} of {} commits since the backup",
            facts.backup_s,
            facts.restore_s,
            facts.proof_s,
            facts.rows_after,
            facts.rows_before,
            facts.ledger_after,
            facts.ledger_before
        ));
        rescued = Some(facts);
    }

    let mut cold = None;
    if options.cold_start {
        if !options.keep {
            drop(last_cluster.take());
        }
        phases.begin(cold_title(options), cold_start::EXPECTED);
        let played = cold_start::play(options, work_dir.path(), &mut made).await?;
        phases.end(cold_outcome(&played));
        cold = Some(played);
    }

    phases.begin("write the report and clean up".into(), Duration::from_secs(2));
    // A guard that saw no incident has no report: the figures are worth as much without it.
    let (report, no_report) = match &guard_config {
        Some(config) => match save_report(options, config, phases.progress).await {
            Ok(path) => (Some(path), None),
            Err(error) => (None, Some(format!("There is no report of an incident: {error}"))),
        },
        None => (None, None),
    };
    let kept = match last_cluster {
        Some(cluster) if options.keep => Some(keep(cluster)?),
        other => {
            drop(other);
            None
        }
    };
    let tables = template.tables.clone();
    drop(template);
    // With --keep the last cluster stays on purpose, and so nothing can be said about the rest of its directory.
    let left = if options.keep { Vec::new() } else { made.left() };
    drop(work_dir);
    let mut verdict = judge(&Evidence {
        acts: &results,
        detection: detection.as_ref(),
        rescue: rescued.as_ref(),
        cold_start: cold.as_ref(),
        left: &left,
        looked_for_left: !options.keep,
    });
    verdict.notes.extend(no_report);
    phases.end(if options.keep { "the last act's cluster stays".into() } else { "done".into() });
    Ok(DrillResult {
        schema_version: SCHEMA_VERSION,
        drill: "vacuum-storm".into(),
        started,
        took_s: begun.elapsed().as_secs_f64(),
        seed: options.seed,
        host,
        server: Server {
            version: version.to_string(),
            bin_dir: options.postgres.bin_dir.clone(),
            settings: storm::settings(options.postgres.major()),
        },
        tables,
        load: load_facts(options, capacity_per_s, rate_per_s),
        acts: results,
        detection,
        rescue: rescued,
        cold_start: cold,
        verdict,
        report,
        kept,
    })
}

fn load_facts(options: &DrillOptions, capacity_per_s: f64, rate_per_s: f64) -> LoadFacts {
    let s = |time: Duration| time.as_secs();
    LoadFacts {
        capacity_per_s,
        share: options.load_share,
        rate_per_s,
        mix_percent: MIX.to_vec(),
        patience_s: PATIENCE.as_secs_f64(),
        timeouts: format!(
            "users and services wait {} s for an answer; the site's pool has {POOL_SIZE} connections, waits {} s for one, and \
             ends statements after {} s",
            s(SERVICE_TIMEOUT),
            s(POOL_TIMEOUT),
            s(STATEMENT_TIMEOUT)
        ),
    }
}

/// The closed loop: with as many users as keep the core busy, the rate of answers is the capacity.
async fn capacity(stage: &Stage<'_>, made: &mut Made) -> Result<f64, DrillError> {
    let options = stage.options;
    let cluster = stage.template.play(options, ActKind::Baseline, stage.cores).await?;
    let services = Services::start(stage, &cluster, made).await?;
    let work = Work::Closed { users: CLOSED_LOOP_USERS, warm_up: CLOSED_LOOP_WARM_UP, measured: options.capacity };
    let (per_s, failed) = act::closed_loop(stage, services.ports(), work).await?;
    services.stop().await;
    if failed > 0 || per_s < MIN_CAPACITY_PER_S {
        return Err(DrillError::Options {
            what: format!("even without a vacuum only {per_s:.0} requests/s were answered and {failed} failed"),
            hint: "this host is too busy for a drill; end what else runs on it, and build with --release".into(),
        });
    }
    Ok(per_s)
}

async fn save_report(
    options: &DrillOptions,
    config: &std::path::Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, DrillError> {
    let text = guard::report(&options.oxpecker, config).await?;
    std::fs::write(&options.report, text).map_err(DrillError::file("saving the report to", &options.report))?;
    progress.on(ProgressEvent::Note(format!("the incident's report: {}", options.report.display())));
    Ok(options.report.clone())
}

fn keep(cluster: scratch::ScratchCluster) -> Result<Kept, DrillError> {
    let left = cluster.leave_running().map_err(DrillError::cluster("leaving it up"))?;
    Ok(Kept {
        connect: format!("psql '{}'", left.url),
        remove: format!("kill -QUIT {} && sleep 2 && rm -r {}", left.postmaster_pid, left.directory.display()),
    })
}

fn title(act: ActKind) -> String {
    match act {
        ActKind::Baseline => "the users alone: nobody vacuums",
        ActKind::Stock => "act 1a, as it was: the storm under PostgreSQL's stock cost settings",
        ActKind::Unthrottled => "act 1b, as it was: the storm with vacuum's throttling off",
        ActKind::Guarded => "act 2, guarded: the same storm, load and seed, with oxpecker riding along",
    }
    .into()
}

fn outcome(act: &crate::ActResult) -> String {
    let all = &act.all;
    let vacuum = act.vacuum.as_ref().map_or_else(String::new, |vacuum| {
        let done = vacuum.finished_in_window(act.window_s);
        format!("; {done} of {} vacuums finished, {:.1} s of CPU", vacuum.tables.len(), vacuum.cpu_s)
    });
    format!(
        "p50 {:.1} ms, p99 {:.0} ms, {} of {} requests failed{vacuum}",
        all.p50_ms, all.p99_ms, all.failed, all.requests
    )
}

fn loaded(tables: &[StormTable], storage: &str) -> String {
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    let dead: u64 = tables.iter().map(|table| table.dead).sum();
    format!("{} MB on {storage}, {dead} dead rows", bytes >> 20)
}

/// 2400000 as `2.4 million`, smaller numbers with a comma.
fn thousands(number: u32) -> String {
    if number >= 1_000_000 {
        format!("{:.1} million", f64::from(number) / 1e6)
    } else {
        format!("{},{:03}", number / 1_000, number % 1_000)
    }
}
