//! The guard's parts: how they are started, in which order, and how they end.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use alerting::{Delivery, DeliveryOptions, Heartbeat, Members, Peer, Route, Rules, Started, Subject, WorkerCommand};
use autovacuum::{Governor, GovernorOptions, ReleaseCommand};
use collector::{
    clock,
    host::{self, HostOptions, HostThread, Watched},
    postgres::{PgObserver, PgOptions, Session},
    services::{self, ServiceProbe},
};
use journal::{EventQuery, Journal, JournalError, JournalOptions, Reader, Retention, StateDir};
use model::{Alert, ByteSize, EventKind, Moment, Observation, Pid, ServiceName, alert::rule, reading::Health};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    backup::{self, BackupTask},
    death::DeathWatch,
    governor::GovernorTask,
    past, protect,
    recovery::RecoveryTask,
    relief::ReliefTask,
    shedding::{self, SheddingTask},
    socket::{self, Listening, Question},
    wal::WalTask,
};
use crate::{
    config::{Config, Loaded, OwnRule},
    exit::Failure,
    place::{self, Target},
};

/// How often the host is sampled: twice a second, so that what lasts for one and a half is seen within two.
const HOST_INTERVAL: Duration = Duration::from_millis(500);
/// Observations that wait for the loop.
const OBSERVATIONS: usize = 256;
/// How long an orderly stop waits for the last event of a part that has ended.
const REST_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an orderly stop waits for the journal.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Below the state directory: alerts on their way, open episodes, and what people said of them.
pub const OUTBOX: &str = "outbox";
/// What is missing where no repository is declared.
const NO_BACKUPS: &str = "no [repository] is declared: oxpecker makes and proves no backups of this cluster, and doesn't know whether anybody does";

/// Everything that runs while the guard does.
pub struct Parts {
    pub started: Moment,
    pub target: Target,
    pub rules: Rules,
    /// What those who only use the services are told, where a route is for them.
    pub members: Option<Members>,
    pub journal: Journal,
    pub delivery: Delivery,
    pub governor: GovernorTask,
    pub observations: mpsc::Receiver<Observation>,
    pub outcomes: mpsc::Receiver<(Moment, EventKind)>,
    pub governed: mpsc::Receiver<(Moment, EventKind)>,
    /// None where no repository is declared.
    pub backup: Option<BackupTask>,
    pub backed_up: mpsc::Receiver<(Moment, EventKind)>,
    pub wal: Option<WalTask>,
    pub received: mpsc::Receiver<(Moment, EventKind)>,
    /// None where no service is declared.
    pub recovery: Option<RecoveryTask>,
    /// Looks into why what is back had died.
    pub deaths: DeathWatch,
    pub shedding: SheddingTask,
    /// None where nobody is named.
    pub relief: Option<ReliefTask>,
    pub sessions: watch::Receiver<Option<Arc<Session>>>,
    pub questions: Option<mpsc::Receiver<Question>>,
    /// Services that the guard before left unhealthy and that were not checked yet.
    pub left_unhealthy: BTreeSet<ServiceName>,
    host: HostThread,
    pub observers: JoinSet<()>,
    listening: Option<Listening>,
    limitations: Vec<String>,
}

/// What runs on while a guard makes way for the next one, which has another configuration.
#[derive(Default)]
pub struct Kept {
    backup: Option<(BackupTask, mpsc::Receiver<(Moment, EventKind)>)>,
    wal: Option<(WalTask, mpsc::Receiver<(Moment, EventKind)>)>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Parts {
    /// Whether these settings can be guarded with: what is found out before anything is stopped or started.
    ///
    /// # Errors
    /// Where the server's address, a route's secret or a service's check can't be used.
    pub fn check(config: &Config) -> Result<(), Failure> {
        place::target(&config.postgres)?;
        routes(config)?;
        heartbeat(config)?;
        peer(config)?;
        probes(config)?;
        backup::Settings::of(config)?;
        Ok(())
    }

    /// Starts everything: first what remembers, then what undoes a predecessor's acts, then what alerts, last what looks.
    ///
    /// # Errors
    /// See [`super::guard`].
    pub async fn start(loaded: &Loaded, kept: Kept, state: &StateDir) -> Result<Self, Failure> {
        let config = &loaded.config;
        let started = clock::now();
        let boot_id = clock::boot_id().unwrap_or_default();
        let target = place::target(&config.postgres)?;
        let mut limitations = protect::protect();

        let journal = open_journal(config, state, &mut limitations)?;
        let before = predecessor(state);
        let left_unhealthy = left_unhealthy(state);
        let past = past::explain(before.as_ref(), started, &boot_id);
        for kind in &past {
            drop(journal.append(started, kind));
        }

        let mut rules =
            Rules::new(&rule_settings(config), Subject { cluster: config.postgres.name.clone(), host: host_name() });
        let own = config.alert.own_rule.iter().map(OwnRule::declared).collect();
        if let Err((name, error)) = rules.add_own(own) {
            limitations.push(format!("the own rule {name} does not watch: {error}"));
        }
        let Started { delivery, outcomes, open } = Delivery::start(DeliveryOptions {
            outbox_dir: state.path().join(OUTBOX),
            routes: routes(config)?,
            heartbeat: heartbeat(config)?,
            peer: peer(config)?,
            worker: WorkerCommand {
                program: PathBuf::from("/proc/self/exe"),
                args: ["worker", "deliver"].map(OsString::from).to_vec(),
                env: Vec::new(),
            },
        });
        if config.alert.route.is_empty() {
            limitations
                .push("no alert.route is declared: alerts only reach this log, where nobody may be looking".to_owned());
        }
        let mut members = members(config)?;
        let open = resume_members(members.as_mut(), open);
        let mut first_alerts = rules.resume(open, started);
        for kind in past {
            first_alerts.extend(rules.observe(&Observation::Event(started, kind)));
        }

        let governor = Governor::new(GovernorOptions {
            mode: config.autovacuum_mode(),
            limits: config.autovacuum.limits(),
            cluster: config.postgres.name.clone(),
            include_file: config.include_file(),
            state_dir: state.path().to_owned(),
            release_command: Some(ReleaseCommand {
                program: PathBuf::from("/proc/self/exe"),
                arguments: vec!["worker".to_owned(), "release".to_owned()],
            }),
        });
        let (governor, governed) = GovernorTask::start(governor, target.connection.clone());

        let (observe, observations) = mpsc::channel(OBSERVATIONS);
        let (backup, backed_up) = match (kept.backup, backup::Settings::of(config)?) {
            (Some((backup, backed_up)), _) => {
                backup.adopt(observe.clone()).await;
                (Some(backup), backed_up)
            }
            (None, Some(settings)) => {
                let (task, events) = BackupTask::start(settings, state, observe.clone());
                (Some(task), events)
            }
            (None, None) => {
                limitations.push(NO_BACKUPS.to_owned());
                (None, mpsc::channel(1).1)
            }
        };
        let wal = match kept.wal {
            Some(kept) => {
                kept.0.adopt(observe.clone()).await;
                Some(kept)
            }
            None => WalTask::start(config, state.path(), observe.clone()),
        };
        let (wal, received) = wal.map_or_else(|| (None, mpsc::channel(1).1), |(task, events)| (Some(task), events));
        let data_dir = config.postgres.data_dir.clone();
        let deaths = DeathWatch::start(state, before.as_ref(), &boot_id, data_dir, observe.clone());
        let recovery = RecoveryTask::start(config, observe.clone());
        let watched = Watched::default();
        let mut paths = config.host.paths.clone();
        paths.extend(config.postgres.data_dir.clone());
        paths.push(state.path().to_owned());
        let host = host::spawn(
            HostOptions { paths, watched: watched.clone(), ..HostOptions::default() },
            HOST_INTERVAL,
            observe.clone(),
        )?;
        limitations.extend(host.limitations().iter().cloned());

        let observer = PgObserver::new(PgOptions { watched, ..PgOptions::new(target.connection.clone()) })
            .map_err(Failure::usage)?;
        let sessions = observer.session();
        let with = shedding::With {
            governor: governor.watch(),
            own_work: backup.as_ref().map(BackupTask::lever),
            services: recovery.as_ref().map(RecoveryTask::lever),
            sessions: sessions.clone(),
        };
        let shedding = SheddingTask::start(config, state.path(), &boot_id, with, observe.clone());
        let relief = ReliefTask::start(config.relief(), sessions.clone(), observe.clone());
        let mut observers = JoinSet::new();
        observers.spawn(observer.run(observe.clone()));
        // Services that are asked in other ways only are the recovery worker's to ask.
        let probes = probes(config)?;
        if !probes.is_empty() {
            observers.spawn(services::run(probes, observe));
        }

        let (listening, questions) = match socket::listen(state.path()) {
            Ok((listening, questions)) => (Some(listening), Some(questions)),
            Err(error) => {
                limitations.push(format!("no local socket ({error}): `oxpecker status` can't ask this guard"));
                (None, None)
            }
        };

        let parts = Self {
            started,
            target,
            rules,
            members,
            journal,
            delivery,
            governor,
            observations,
            outcomes,
            governed,
            backup,
            backed_up,
            wal,
            received,
            recovery,
            deaths,
            shedding,
            relief,
            sessions,
            questions,
            left_unhealthy,
            host,
            observers,
            listening,
            limitations,
        };
        parts.say_hello(config, boot_id);
        for alert in first_alerts {
            parts.delivery.submit(alert.clone());
            drop(parts.journal.append(alert.decided, &EventKind::Alerted { alert }));
        }
        Ok(parts)
    }

    fn say_hello(&self, config: &Config, boot_id: String) {
        let hello = EventKind::GuardStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: Pid(i32::try_from(std::process::id()).unwrap_or(0)),
            boot_id,
            cluster: config.postgres.name.clone(),
            mode: config.autovacuum_mode(),
            limitations: self.limitations.clone(),
        };
        drop(self.journal.append(self.started, &hello));
        for service in &config.service {
            let declared = EventKind::ServiceDeclared {
                service: service.name.as_str().into(),
                depends_on: service.depends_on.iter().map(|n| n.as_str().into()).collect(),
                impact: service.impact.clone(),
            };
            drop(self.journal.append(self.started, &declared));
        }
        for limitation in &self.limitations {
            tracing::warn!("{limitation}");
        }
    }

    /// A part that has ended though nobody asked it to: a bug, and a guard without it is blind while it looks well.
    pub fn ended(&mut self) -> Option<&'static str> {
        if self.observers.try_join_next().is_some() {
            return Some("an observer");
        }
        let parts = [
            ("the host sampler", self.host.is_running()),
            ("the governor", self.governor.is_running()),
            ("the backup task", self.backup.as_ref().is_none_or(BackupTask::is_running)),
            ("the receiver's task", self.wal.as_ref().is_none_or(WalTask::is_running)),
            ("the shedding ladder", self.shedding.is_running()),
            ("relief", self.relief.as_ref().is_none_or(ReliefTask::is_running)),
            ("the recovery's task", self.recovery.as_ref().is_none_or(RecoveryTask::is_running)),
        ];
        parts.into_iter().find(|(_, runs)| !runs).map(|(name, _)| name)
    }

    /// Firing alerts, worst first.
    pub fn open_alerts(&self) -> Vec<Alert> {
        let mut open: Vec<Alert> = self.rules.open().cloned().collect();
        open.sort_by_key(|alert| (std::cmp::Reverse(alert.severity), alert.since.boot_us));
        open
    }

    /// What is missing at this moment.
    pub fn limitations(&self) -> Vec<String> {
        let server = self.sessions.borrow();
        let of_server = server.iter().flat_map(|s| s.info.limitations.iter().cloned());
        let of_governor = self.governor.status().map(|g| g.limitations).unwrap_or_default();
        let of_routes = self.delivery.problems();
        self.limitations.iter().cloned().chain(of_routes).chain(of_server).chain(of_governor).collect()
    }

    /// Ends everything: first what acts, then what looks, then what alerts, last what remembers. Where the guard goes on with another
    /// configuration, a backup that this does not concern runs on.
    pub async fn stop(self, reason: &str, goes_on: Option<&Config>) -> Kept {
        let Self {
            journal,
            delivery,
            governor,
            backup,
            wal,
            recovery,
            shedding,
            relief,
            host,
            mut observers,
            listening,
            ..
        } = self;
        let Self { mut outcomes, mut governed, mut backed_up, mut received, mut observations, .. } = self;
        drop(listening);
        let (kept_backup, backup) = match (backup, goes_on) {
            (Some(backup), Some(config)) if backup.suits(config) => (Some(backup), None),
            (backup, _) => (None, backup),
        };
        let (kept_wal, wal) = match (wal, goes_on) {
            (Some(wal), Some(config)) if wal.suits(config) => (Some(wal), None),
            (wal, _) => (None, wal),
        };
        // First who gives orders to the others.
        shedding.stop().await;
        if let Some(relief) = relief {
            relief.stop().await;
        }
        // Side by side: they wait for something else than this process.
        let backup_ends = async {
            if let Some(backup) = backup {
                backup.stop().await;
            }
        };
        let wal_ends = async {
            if let Some(wal) = wal {
                wal.stop().await;
            }
        };
        let recovery_ends = async {
            if let Some(recovery) = recovery {
                recovery.stop().await;
            }
        };
        tokio::join!(governor.stop(), backup_ends, wal_ends, recovery_ends);
        observers.shutdown().await;
        // The sampler answers within a poll; joining it here keeps its last reading out of the next guard's time.
        drop(host);
        record_rest(&journal, &mut governed).await;
        // What the worker of services told last.
        while let Ok(observation) = observations.try_recv() {
            if let Observation::Event(at, kind) = observation {
                drop(journal.append(at, &kind));
            }
        }
        // What a task that runs on has to tell, the next guard hears.
        if kept_backup.is_none() {
            record_rest(&journal, &mut backed_up).await;
        }
        if kept_wal.is_none() {
            record_rest(&journal, &mut received).await;
        }
        let kept =
            Kept { backup: kept_backup.map(|task| (task, backed_up)), wal: kept_wal.map(|task| (task, received)) };
        delivery.shutdown().await;
        record_rest(&journal, &mut outcomes).await;
        drop(journal.append(clock::now(), &EventKind::GuardStopped { reason: reason.to_owned() }));
        if let Err(error) = journal.close(JOURNAL_TIMEOUT) {
            tracing::error!(%error, "the journal's end is not on the disk");
        }
        kept
    }
}

/// The rules' settings; those about backups are off where there are none, so that what a guard before left open ends.
fn rule_settings(config: &Config) -> alerting::RuleSettings {
    let mut rules = config.alert.rules.clone();
    if config.repository.url.is_none() {
        rules.backup_failing.enabled = false;
        rules.backup_unproven.enabled = false;
        rules.repository_unprotected.enabled = false;
    }
    rules
}

/// Opens the journal. One that is damaged is set aside, whole, and a new one begun: the alarm must not depend on the past.
fn open_journal(config: &Config, state: &StateDir, limitations: &mut Vec<String>) -> Result<Journal, Failure> {
    let retention = Retention {
        readings: config.journal.keep_readings.0,
        events: config.journal.keep_events.0,
        max_size: ByteSize(config.journal.max_size.0),
    };
    let options = JournalOptions { retention, ..JournalOptions::default() };
    let opened = match Journal::open(state.path(), options) {
        Err(JournalError::Damaged { path, source }) => {
            let aside = set_aside(state.path())?;
            limitations.push(format!(
                "{} was damaged ({source}) and lies now in {}; a new one was begun (`sqlite3 FILE .recover` may save what it holds)",
                path.display(),
                aside.display()
            ));
            Journal::open(state.path(), options)
        }
        other => other,
    };
    opened.map_err(|error| match error {
        JournalError::TooSmall { .. } => Failure::usage(error),
        // Somebody else's file, or a newer format: going on would harm it.
        _ => Failure::refused(error),
    })
}

/// Moves a journal's files into a folder of their own. The file itself goes last: a crash in between leaves it to be found damaged again.
fn set_aside(state_dir: &Path) -> Result<PathBuf, Failure> {
    let aside = state_dir.join(format!("damaged-{}", clock::now().wall.strftime("%Y%m%dT%H%M%S%6fZ")));
    fs::create_dir(&aside)?;
    for suffix in ["-wal", "-shm", ""] {
        let name = format!("{}{suffix}", journal::FILE_NAME);
        match fs::rename(state_dir.join(&name), aside.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(aside)
}

/// What the journal knows of the guard before this one; nothing where there was none or it can't be read.
fn predecessor(state: &StateDir) -> Option<past::Before> {
    let mut reader = Reader::open(state.path()).ok()?;
    let hello = reader.latest_event("guard_started").ok()??;
    let EventKind::GuardStarted { boot_id, .. } = hello.kind else { return None };
    let newest = EventQuery { limit: 1, newest: true, ..EventQuery::default() };
    let last_event = reader.events(&newest).ok()?.events.pop()?;
    // The host is read every second, so its newest reading is the guard's last sign of life.
    let last_reading = reader.latest_reading("host").ok().flatten().map(|r| r.at());
    let stopped = matches!(last_event.kind, EventKind::GuardStopped { .. });
    // Readings of another boot than the newest event's can't be told apart here, so the event alone counts then.
    let last_record = match last_reading {
        Some(at) if !stopped && at.boot_us > last_event.at.boot_us => at,
        _ => last_event.at,
    };
    Some(past::Before { boot_id, last_record, stopped })
}

/// Records what a part that has ended left to be recorded.
async fn record_rest(journal: &Journal, events: &mut mpsc::Receiver<(Moment, EventKind)>) {
    // The senders are gone, or about to go with an aborted task: never long.
    while let Ok(Some((at, kind))) = timeout(REST_TIMEOUT, events.recv()).await {
        drop(journal.append(at, &kind));
    }
}

/// What decides what members are told.
fn members(config: &Config) -> Result<Option<Members>, Failure> {
    let settings = config.alert.members();
    let settings = settings.map_err(|error| Failure::usage(anyhow::anyhow!(error).context("alert.members")))?;
    let impacts = config.service.iter().filter(|service| !service.impact.is_empty());
    let impacts = impacts.map(|service| (service.name.as_str().into(), service.impact.clone())).collect();
    let subject = Subject { cluster: config.postgres.name.clone(), host: host_name() };
    Ok(settings.map(|settings| Members::new(settings, subject, impacts)))
}

/// Hands the outage that members were told of to whom it concerns; answers the other open alerts.
fn resume_members(members: Option<&mut Members>, open: Vec<Alert>) -> Vec<Alert> {
    let (words, others) = open.into_iter().partition::<Vec<_>, _>(|alert| alert.rule.0 == rule::MEMBERS_WORD);
    if let (Some(members), Some(word)) = (members, words.into_iter().next_back()) {
        members.resume(word);
    }
    others
}

/// The routes of alerts with their secrets.
pub fn routes(config: &Config) -> Result<Vec<Route>, Failure> {
    let failure =
        |name: &str, error: String| Failure::usage(anyhow::anyhow!(error).context(format!("alert.route {name:?}")));
    config.alert.route.iter().map(|route| route.resolve().map_err(|e| failure(&route.name, e))).collect()
}

/// Who outside is told that the guard lives, with the secret URL.
fn heartbeat(config: &Config) -> Result<Option<Heartbeat>, Failure> {
    let resolved = config.alert.heartbeat.as_ref().map(|heartbeat| heartbeat.resolve()).transpose();
    resolved.map_err(|error| Failure::usage(anyhow::anyhow!(error).context("alert.heartbeat")))
}

/// The guard of another host, with the key that both have.
fn peer(config: &Config) -> Result<Option<Peer>, Failure> {
    let resolved = config.alert.peer.as_ref().map(|peer| peer.resolve(&host_name())).transpose();
    resolved.map_err(|error| Failure::usage(anyhow::anyhow!(error).context("alert.peer")))
}

/// What the guard's own sampler asks: of each service the first way that it knows.
fn probes(config: &Config) -> Result<Vec<ServiceProbe>, Failure> {
    let mut probes = Vec::new();
    for service in &config.service {
        for health in service.health.all() {
            let Some(check) = health.check().map_err(|e| Failure::usage(anyhow::anyhow!(e)))? else { continue };
            probes.push(ServiceProbe {
                name: service.name.as_str().into(),
                check,
                timeout: health.timeout.0.0,
                interval: health.interval.0.0,
                impact: service.impact.clone(),
            });
            break;
        }
    }
    Ok(probes)
}

/// Services that were unhealthy when the guard before ended: their recovery is an event although this guard never saw them ill.
fn left_unhealthy(state: &StateDir) -> BTreeSet<ServiceName> {
    let changes = EventQuery { kinds: vec!["service_changed".to_owned()], newest: true, ..EventQuery::default() };
    let Ok(changes) = Reader::open(state.path()).and_then(|mut r| r.events(&changes)) else { return BTreeSet::new() };
    let mut unhealthy = BTreeSet::new();
    for event in changes.events {
        match event.kind {
            EventKind::ServiceChanged { service, health: Health::Unhealthy, .. } => unhealthy.insert(service),
            EventKind::ServiceChanged { service, health: Health::Healthy, .. } => unhealthy.remove(&service),
            _ => false,
        };
    }
    unhealthy
}

/// What this host calls itself.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}
