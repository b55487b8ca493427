//! Plays the exhaustion twice, each time on a cluster and in a control group of its own, and puts together what was measured.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use journal::{EventQuery, Reader};
use model::{AlertState, Event, EventKind, alert::rule, event::SheddingStep};
use scratch::ScratchCluster;
use tokio::time::{sleep, timeout};

use super::{
    CRITICAL_PERCENT, HOG, LIMIT_BYTES, LOW_PERCENT, Oom, OomAlone, OomClients, OomGuarded, ROWS, SCHEMA_VERSION,
    clients::{Other, Report},
    group::Group,
    hog::{self, Hog},
    judge::judge,
};
use crate::{
    DrillError, DrillOptions,
    act::seconds_between,
    children::Process,
    guard::{self, quote, write},
    leash::Leash,
    leftovers::Made,
    measure::clock,
    result::Verdict,
    sink::{Arrival, Sink},
    storm,
};

/// What the progress bar expects of it.
pub(crate) const EXPECTED: Duration = Duration::from_secs(40);
/// The service grows no further than this, should nobody stop it: more than there is room for.
const HOG_MOST_BYTES: u64 = 640 << 20;
/// How long the kernel's hand, or the query's end, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the service may take to be there.
const READY_PATIENCE: Duration = Duration::from_secs(40);
/// How long a server may take to be back after the kernel killed one of its processes.
const BACK_PATIENCE: Duration = Duration::from_secs(30);
/// How long the ladder may take to give the service back.
const GIVEN_BACK_PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const POLL: Duration = Duration::from_millis(20);
/// Events that are read of the journal at most: some minutes have a few hundred.
const ROWS_READ: usize = 10_000;
/// The server's own memory. Small, for so is the group.
const SHARED_BUFFERS: &str = "32MB";

/// Plays both acts.
pub(crate) async fn play(options: &DrillOptions, work_dir: &Path, made: &mut Made) -> Result<Oom, DrillError> {
    made.directories.push(work_dir.to_owned());
    let alone = alone(options, work_dir, made).await?;
    let guarded = guarded(options, work_dir, made).await?;
    let mut oom = Oom {
        schema_version: SCHEMA_VERSION,
        server: storm::version(&options.postgres).to_string(),
        limit_bytes: LIMIT_BYTES,
        rows: ROWS,
        alone,
        guarded,
        left: made.left(),
        verdict: Verdict { passed: false, lines: Vec::new(), notes: Vec::new() },
    };
    oom.verdict = judge(&oom);
    Ok(oom)
}

/// A server in a group. The server goes before the group does: whatever is in that is killed.
struct Stage {
    cluster: ScratchCluster,
    group: Group,
}

impl Stage {
    fn set(options: &DrillOptions, made: &mut Made) -> Result<Self, DrillError> {
        let group = Group::create(LIMIT_BYTES)?;
        let cluster = ScratchCluster::builder(&options.postgres).setting("shared_buffers", SHARED_BUFFERS).start();
        let cluster = cluster.map_err(DrillError::cluster("making it"))?;
        made.directories.push(cluster.directory().to_owned());
        let postmaster = cluster.postmaster_pid();
        group.take(postmaster.ok_or_else(|| DrillError::replay("beginning", "the scratch server has no pid"))?)?;
        Ok(Self { cluster, group })
    }

    fn url(&self) -> String {
        self.cluster.url("postgres")
    }

    /// What the server's log says of a process that was killed.
    fn said(&self) -> Option<String> {
        let log = self.cluster.log_tail();
        let line = log.lines().find(|line| line.contains("was terminated by signal"))?;
        Some(line.split_once("LOG:  ").map_or(line, |(_, said)| said).to_owned())
    }
}

/// The files by which the service is told, and tells.
struct Signals {
    go: PathBuf,
    ready: PathBuf,
}

impl Signals {
    fn new(work_dir: &Path, act: &str) -> Self {
        Self { go: work_dir.join(format!("{act}.go")), ready: work_dir.join(format!("{act}.ready")) }
    }

    fn hog(&self) -> Result<String, DrillError> {
        let drill = i32::try_from(std::process::id()).unwrap_or(0);
        let hog = Hog { drill, go: self.go.clone(), ready: self.ready.clone(), most_bytes: HOG_MOST_BYTES };
        serde_json::to_string(&hog).map_err(|error| DrillError::helper(hog::KIND, error.to_string()))
    }

    /// Which run of the service is there: its pid, and since when on the boot clock.
    fn run(&self) -> Option<(u32, u64)> {
        let text = fs::read_to_string(&self.ready).ok()?;
        let (pid, since_us) = text.split_once(' ')?;
        Some((pid.parse().ok()?, since_us.parse().ok()?))
    }

    /// Waits until one is there that is not `before`.
    async fn await_run(&self, before: Option<u32>, patience: Duration) -> Option<(u32, u64)> {
        let other = async {
            loop {
                match self.run() {
                    Some(run) if Some(run.0) != before => return run,
                    _ => sleep(POLL).await,
                }
            }
        };
        timeout(patience, other).await.ok()
    }

    /// Lets it grow, and says from when on.
    async fn go(&self) -> Result<u64, DrillError> {
        write(&self.go, "")?;
        let taken = async {
            while self.go.exists() {
                sleep(POLL).await;
            }
        };
        let begun = timeout(READY_PATIENCE, taken).await;
        begun.map_err(|_| DrillError::replay("beginning", format!("the service {HOG} does not begin to grow")))?;
        Ok(clock::boot_us())
    }
}

/// What was seen of the group, on the boot clock.
#[derive(Debug)]
struct Watched {
    low_us: Option<u64>,
    killed_us: Option<u64>,
    least_left_bytes: u64,
}

impl Watched {
    fn new() -> Self {
        Self { low_us: None, killed_us: None, least_left_bytes: LIMIT_BYTES }
    }

    fn look(&mut self, group: &Group) {
        let now = clock::boot_us();
        if let Some(left) = group.left_bytes() {
            self.least_left_bytes = self.least_left_bytes.min(left);
            if left < LIMIT_BYTES / 100 * u64::from(LOW_PERCENT) {
                self.low_us.get_or_insert(now);
            }
        }
        if group.kills() > 0 {
            self.killed_us.get_or_insert(now);
        }
    }
}

/// Reads the report to its end while somebody else asks small questions and the group is watched.
async fn observe(stage: &Stage, report: &Report, other: &mut Other, begun_us: u64) -> (OomClients, Watched) {
    let mut watched = Watched::new();
    let watch = async {
        loop {
            watched.look(&stage.group);
            sleep(POLL).await;
        }
    };
    let mut clients = tokio::select! {
        clients = timeout(PATIENCE, report.read(begun_us)) => clients.unwrap_or_else(|_| OomClients {
            query_failed: Some(format!("it was not done in {PATIENCE:?}")),
            ..OomClients::default()
        }),
        never = other.ask_on() => match never {},
        () = watch => OomClients::default(),
    };
    watched.look(&stage.group);
    (clients.answered, clients.failed) = (other.answered, other.failed);
    (clients, watched)
}

async fn alone(options: &DrillOptions, work_dir: &Path, made: &mut Made) -> Result<OomAlone, DrillError> {
    let stage = Stage::set(options, made)?;
    let signals = Signals::new(work_dir, "alone");
    let mut args = options.helper.args.clone();
    args.extend([hog::KIND.into(), signals.hog()?.into()]);
    let leash = Leash::of(&options.helper.program, args, None).in_group(stage.group.members());
    let mut hog = Process::start(HOG, leash.command(&options.helper)?, work_dir)?;
    if signals.await_run(None, READY_PATIENCE).await.is_none() {
        return Err(hog.error("is not ready".to_owned()));
    }
    let mut other = Other::arrive(&stage.url()).await?;
    let report = Report::begin(&stage.url()).await?;
    let begun_us = signals.go().await?;
    let (mut clients, watched) = observe(&stage, &report, &mut other, begun_us).await;
    let hog_survived = timeout(POLL, hog.died()).await.is_err();
    // The one who lost his session asks on, once the server is back.
    other.answered_within(BACK_PATIENCE).await;
    (clients.answered, clients.failed) = (other.answered, other.failed);
    drop(hog);
    Ok(OomAlone {
        killed_s: watched.killed_us.map(|at| seconds_between(begun_us, at)),
        kills: stage.group.kills(),
        hog_survived,
        clients,
        server_said: stage.said(),
    })
}

async fn guarded(options: &DrillOptions, work_dir: &Path, made: &mut Made) -> Result<OomGuarded, DrillError> {
    let stage = Stage::set(options, made)?;
    let sink = Sink::open().await?;
    made.ports.push(sink.port);
    let signals = Signals::new(work_dir, "guarded");
    let (config, state_dir) = configure(options, &stage.url(), sink.port, work_dir, &signals)?;
    let (guard, _) = guard::ride(options, &config, work_dir, None, Some(stage.group.members())).await?;
    let run = signals.await_run(None, READY_PATIENCE).await;
    let (pid, _) = run.ok_or_else(|| guard.error(format!("has not started the service {HOG}")))?;
    let mut other = Other::arrive(&stage.url()).await?;
    let report = Report::begin(&stage.url()).await?;
    let begun_us = signals.go().await?;
    let (clients, watched) = observe(&stage, &report, &mut other, begun_us).await;
    drop((report, other));
    let given_back = signals.await_run(Some(pid), GIVEN_BACK_PATIENCE).await.map(|(_, since_us)| since_us);
    let stopped_cleanly = guard.stop().await;
    stop_service(options, &config).await?;

    let since = |at_us| seconds_between(begun_us, at_us);
    let events = recorded(&state_dir)?;
    let arrivals = sink.arrivals();
    sink.close().await;
    let told = told(&events, begun_us, &arrivals);
    let stop = events.iter().filter(|event| event.at.boot_us >= begun_us).find_map(|event| match &event.kind {
        EventKind::SheddingStepped { step: SheddingStep::Taken, act, cause, passed, .. } => {
            Some((event.at.boot_us, act.clone(), cause.clone(), passed.clone()))
        }
        _ => None,
    });
    let (stopped_us, act, because, passed) =
        stop.map_or((None, None, None, Vec::new()), |(at, act, cause, passed)| (Some(at), act, cause, passed));
    Ok(OomGuarded {
        low_s: watched.low_us.map(since),
        decided_s: told.decided_us.map(since),
        delivered_s: told.delivered_us.map(since),
        said: told.said,
        named: told.named,
        stopped_s: stopped_us.map(since),
        act,
        because,
        passed,
        least_left_bytes: watched.least_left_bytes,
        kills: stage.group.kills(),
        server_said: stage.said(),
        clients,
        given_back_s: given_back.map(since),
        stopped_cleanly,
    })
}

/// What was told of the shortage.
#[derive(Debug, Default, PartialEq)]
struct Told {
    decided_us: Option<u64>,
    delivered_us: Option<u64>,
    said: Option<String>,
    named: Option<String>,
}

/// The first alert of the rule since then, and its arrival.
fn told(events: &[Event], begun_us: u64, arrivals: &[Arrival]) -> Told {
    let alert = events.iter().find_map(|event| match &event.kind {
        EventKind::Alerted { alert }
            if alert.rule.0 == rule::MEMORY_LOW
                && alert.state == AlertState::Firing
                && alert.decided.boot_us >= begun_us =>
        {
            Some(alert)
        }
        _ => None,
    });
    let Some(alert) = alert else { return Told::default() };
    let arrival = arrivals.iter().find(|arrival| arrival.key == alert.key.0 && arrival.state == AlertState::Firing);
    Told {
        decided_us: Some(alert.decided.boot_us),
        delivered_us: arrival.map(|arrival| arrival.arrived_us),
        said: arrival.map(|arrival| arrival.summary.clone()),
        named: alert.details.iter().find_map(|line| line.strip_prefix("largest: ").map(str::to_owned)),
    }
}

fn recorded(state_dir: &Path) -> Result<Vec<Event>, DrillError> {
    let unreadable =
        |error: journal::JournalError| DrillError::replay("reading the guard's journal", error.to_string());
    let mut reader = Reader::open(state_dir).map_err(unreadable)?;
    let query = EventQuery { limit: ROWS_READ, ..EventQuery::default() };
    Ok(reader.events(&query).map_err(unreadable)?.events)
}

/// The guard leaves services as they are: this one is put away as a person would.
async fn stop_service(options: &DrillOptions, config: &Path) -> Result<(), DrillError> {
    let mut command = tokio::process::Command::new(&options.oxpecker);
    command.arg("--config").arg(config).args(["service", "stop", HOG, "--yes", "--by", "the drill"]);
    command.env_remove("OXPECKER_CONFIG").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let begun = Instant::now();
    let fail = |why: String| DrillError::replay("putting the service away", why);
    match timeout(READY_PATIENCE, command.output()).await {
        Err(_) => Err(fail(format!("no answer within {} s", begun.elapsed().as_secs()))),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The guard's configuration, and its state directory.
fn configure(
    options: &DrillOptions,
    url: &str,
    webhook_port: u16,
    dir: &Path,
    signals: &Signals,
) -> Result<(PathBuf, PathBuf), DrillError> {
    let (config, url_file, state_dir) = (dir.join("oxpecker.toml"), dir.join("webhook.url"), dir.join("state"));
    write(&url_file, &format!("http://127.0.0.1:{webhook_port}/alerts\n"))?;
    let mut command = vec![options.helper.program.to_string_lossy().into_owned()];
    command.extend(options.helper.args.iter().map(|one| one.to_string_lossy().into_owned()));
    command.extend([hog::KIND.to_owned(), signals.hog()?]);
    write(&config, &config_text(url, &url_file, &state_dir, dir, &command))?;
    Ok((config, state_dir))
}

fn config_text(url: &str, url_file: &Path, state_dir: &Path, dir: &Path, command: &[String]) -> String {
    let path = |path: &Path| quote(&path.to_string_lossy());
    let command: Vec<String> = command.iter().map(|one| quote(one)).collect();
    let share = |percent: u32| f64::from(percent) / 100.0;
    format!(
        "state_dir = {}
mode = \"observe\"

[postgres]
name = \"drill\"
url = {}

[[alert.route]]
name = \"drill\"
webhook = {{ url_file = {} }}

[alert.rules.memory-low]
available_percent = {LOW_PERCENT}
critical_percent = {CRITICAL_PERCENT}
clear_percent = {}

[recovery]
mode = \"act\"

[shedding]
mode = \"act\"
calm_for = \"3s\"
step_down_every = \"1s\"
stop_services = {{ confirm = \"1s\", patience = \"5s\" }}

[shedding.thresholds]
memory_left = [{}, {}]

[[service]]
name = {}
driver = \"process\"
shed = 1
stable_for = \"1s\"
directory = {}
command = [{}]
",
        path(state_dir),
        quote(url),
        path(url_file),
        LOW_PERCENT + 5,
        share(CRITICAL_PERCENT),
        share(LOW_PERCENT),
        quote(HOG),
        path(dir),
        command.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_reads_as_a_user_would_write_it() {
        let dir = Path::new("/d");
        let command = ["/usr/bin/oxpecker".to_owned(), "hog".to_owned()];
        let text = config_text("postgresql:///postgres", &dir.join("webhook.url"), &dir.join("state"), dir, &command);
        insta::assert_snapshot!(text);
    }
}
