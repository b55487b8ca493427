//! The guard: `oxpecker run`. It samples, decides, governs, alerts, journals and supervises its workers.
//!
//! One thread runs the loop below; the host is sampled and the journal written on threads of their own, so that neither a slow
//! disk nor a starved runtime delays the other. The order on a finding is fixed: the alert is handed to delivery first, the
//! journal comes after, and nothing waits for the journal.

mod backup;
mod child;
mod death;
mod document;
mod governor;
pub mod lines;
mod memory;
mod parts;
mod past;
mod protect;
mod recovery;
mod relief;
mod screen;
mod shedding;
mod signals;
mod socket;
mod wal;

use std::time::Duration;

use alerting::SENSED_WITHIN;
use collector::{clock, host};
use journal::StateDir;
use model::{EventKind, Moment, Observation, Pid, Reading, reading::Health};
use sd_notify::NotifyState;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

pub use backup::protocol as backup_protocol;
pub use death::{Answered, Ask};
pub use document::GuardStatus;
pub use memory::last_words;
pub use recovery::{Reporter, SAID_EVERY, protocol as recovery_protocol};
pub use relief::ReliefStatus;
pub use screen::{governor_in_words, now, render, vacuum_in_words};
pub use shedding::SheddingStatus;
pub use signals::Signals;
pub use socket::{AskError, Request, ask};
pub use wal::protocol as wal_protocol;

use crate::{config::Loaded, exit::Failure};
use memory::Memory;
use parts::Parts;
pub use parts::{Kept, OUTBOX, host_name, routes};
pub use protect::lock_memory;
use relief::ReliefTask;
use signals::{Wish, tell, watchdog_interval};
use socket::Question;

/// How often the guard looks after itself: the journal's health, the service manager's watchdog.
const SELF_CHECK: Duration = Duration::from_secs(1);

/// Least time between two readings of the host in the journal: a second, less what timers are off by.
const HOST_RECORDED_EVERY: Duration = Duration::from_millis(900);

/// How the guard ended.
#[derive(Debug)]
pub enum Ended {
    /// A signal asked for it.
    Stopped,
    /// There is a new configuration to go on with, and perhaps a part that runs on over the change.
    Reload(Box<(Loaded, Kept)>),
}

/// Guards until a signal says otherwise. The state directory is claimed by the caller and stays claimed over a reload; `kept` is what the
/// guard before it left running; `reread` gives the configuration as it is then, and where that can't be used the guard goes on with the one it has.
///
/// # Errors
/// When something without which there is no guarding can't be had: an address of the server, `/proc`, a journal that may be
/// written. A server that does not answer, a full disk or a worker that does not start are no errors but findings.
pub async fn guard(
    loaded: &Loaded,
    kept: Kept,
    state: &StateDir,
    signals: &mut Signals,
    reread: impl Fn() -> Result<Loaded, Failure>,
) -> Result<Ended, Failure> {
    let mut parts = Parts::start(loaded, kept, state).await?;
    let mut guard = Guard::new(&parts, loaded);
    let mut self_check = interval(SELF_CHECK);
    self_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fed = clock::now();
    tell(NotifyState::Ready);
    tracing::info!(cluster = %loaded.config.postgres.name, address = %parts.target.described, mode = %loaded.config.autovacuum_mode(), "guarding");
    let (fresh, reason) = loop {
        tokio::select! {
            // Wishes first, then what was seen: a flood of questions must not delay an alarm.
            biased;
            wish = signals.next() => match wish {
                Wish::Stop(signal) => break (Ok(None), signal.to_owned()),
                Wish::Reload => match reread().and_then(|fresh| Parts::check(&fresh.config).map(|()| fresh)) {
                    Ok(fresh) => break (Ok(Some(fresh)), "SIGHUP: the configuration was read again".to_owned()),
                    // A guard with an old configuration beats none.
                    Err(failure) => {
                        tracing::error!(hint = failure.hint, "going on with the old configuration: {:#}", failure.error);
                    }
                },
            },
            Some(observation) = parts.observations.recv() => guard.observe(&mut parts, &observation),
            Some((at, kind)) = parts.governed.recv() => guard.record(&parts, at, &kind),
            Some((at, kind)) = parts.backed_up.recv() => {
                if let Some(wal) = &parts.wal {
                    wal.observe(&kind);
                }
                guard.record(&parts, at, &kind);
            }
            Some((at, kind)) = parts.received.recv() => guard.record(&parts, at, &kind),
            Some((at, kind)) = parts.outcomes.recv() => guard.record(&parts, at, &kind),
            Ok(()) = parts.sessions.changed() => guard.session_changed(&mut parts),
            _ = self_check.tick() => {
                guard.check_journal(&mut parts);
                guard.check_peer(&mut parts);
                if let Some(part) = parts.ended() {
                    let error = anyhow::anyhow!("{part} has ended by itself; the log above says more");
                    let failure = Failure::from(error).hint("this is a bug: please report it; the service manager starts the guard again");
                    break (Err(failure), format!("{part} has ended by itself"));
                }
                let now = clock::now();
                // One that sees nothing is not fed: started again it may see.
                let due = watchdog_interval().is_some_and(|interval| now.since(fed) + SELF_CHECK > interval);
                if due && guard.blind_for(now).is_none() {
                    tell(NotifyState::Watchdog);
                    fed = now;
                }
            }
            Some(question) = next(&mut parts.questions) => guard.answer(&parts, question),
        }
    };
    if !matches!(fresh, Ok(Some(_))) {
        tell(NotifyState::Stopping);
    }
    // Stopping is bounded below the watchdog's patience, and may take most of it.
    tell(NotifyState::Watchdog);
    tracing::info!(reason, "stopping");
    let goes_on = fresh.as_ref().ok().and_then(Option::as_ref).map(|fresh| &fresh.config);
    let kept = parts.stop(&reason, goes_on).await;
    Ok(match fresh? {
        Some(fresh) => Ended::Reload(Box::new((fresh, kept))),
        None => Ended::Stopped,
    })
}

/// The next question, where there is a socket to ask at.
async fn next(questions: &mut Option<mpsc::Receiver<Question>>) -> Option<Question> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
}

/// What the loop knows.
struct Guard {
    since: Moment,
    cluster: String,
    mode: model::Mode,
    memory: Memory,
    /// When the newest reading of the host that reached the loop was taken; in the beginning, the beginning.
    sensed: Moment,
    /// When the other guard was last asked for, and since when that has gone on without a hole.
    watched_peer: (Moment, Moment),
    /// When a reading of the host was last recorded.
    host_recorded: Option<Moment>,
}

impl Guard {
    fn new(parts: &Parts, loaded: &Loaded) -> Self {
        let services = loaded.config.service.iter().map(|s| s.name.as_str().into());
        Self {
            since: parts.started,
            sensed: parts.started,
            watched_peer: (parts.started, parts.started),
            cluster: loaded.config.postgres.name.clone(),
            mode: loaded.config.autovacuum_mode(),
            host_recorded: None,
            memory: Memory::new(services),
        }
    }

    /// One observation: alerts out, governor told, journal last.
    fn observe(&mut self, parts: &mut Parts, observation: &Observation) {
        let mut alerts = parts.rules.observe(observation);
        alerts.extend(parts.members.as_mut().and_then(|members| members.observe(observation)));
        for alert in &alerts {
            parts.delivery.submit(alert.clone());
        }
        if let Observation::Reading(Reading::Host(host)) = observation {
            self.sensed = host.at;
            parts.delivery.senses(host.at);
        }
        parts.governor.observe(observation);
        if let Some(backup) = &parts.backup {
            backup.observe(observation);
        }
        parts.deaths.see(observation);
        parts.shedding.observe(observation);
        if let Some(relief) = &parts.relief {
            relief.observe(observation);
        }
        self.memory.keep(observation);
        // The reading that shows a thing has a lower number than what was made of it.
        match observation {
            Observation::Reading(reading) => self.record_reading(parts, reading),
            Observation::Event(at, kind) => self.record(parts, *at, kind),
        }
        for alert in alerts {
            self.record(parts, alert.decided, &EventKind::Alerted { alert });
        }
        if let Observation::Reading(Reading::Service(reading)) = observation
            && parts.left_unhealthy.remove(&reading.service)
            && reading.health == Health::Healthy
        {
            let detail = "it was unhealthy when the guard before ended; when it recovered was not seen".to_owned();
            let service = reading.service.clone();
            let back = EventKind::ServiceChanged { service, health: Health::Healthy, detail, impact: Vec::new() };
            self.record(parts, reading.at, &back);
        }
    }

    /// For how long no reading of the host has reached the loop, where that is too long: then neither the service manager's watchdog nor a
    /// check outside hears that the guard is well.
    fn blind_for(&self, now: Moment) -> Option<Duration> {
        Some(now.since(self.sensed)).filter(|silence| *silence >= SENSED_WITHIN)
    }

    /// Remembers a reading; the host's, which come more often for the rules' sake, once a second.
    fn record_reading(&mut self, parts: &Parts, reading: &Reading) {
        if matches!(reading, Reading::Host(_)) {
            if self.host_recorded.is_some_and(|last| reading.at().since(last) < HOST_RECORDED_EVERY) {
                return;
            }
            self.host_recorded = Some(reading.at());
        }
        parts.journal.record(reading);
    }

    /// Remembers an event. Nobody waits until it is durable: the journal keeps trying, and says when it can't.
    #[expect(clippy::unused_self, reason = "recording is the guard's act; the journal is one of its parts")]
    fn record(&self, parts: &Parts, at: Moment, kind: &EventKind) {
        tracing::debug!(event = kind.name(), "{}", incident::describe(kind));
        drop(parts.journal.append(at, kind));
    }

    fn session_changed(&mut self, parts: &mut Parts) {
        let session = parts.sessions.borrow_and_update().clone();
        parts.governor.session(session);
    }

    /// Tells the rules that the journal fails.
    fn check_journal(&mut self, parts: &mut Parts) {
        let health = parts.journal.health();
        let failing = match &health.recording {
            journal::Recording::Failing { error, .. } => Some(error.clone()),
            journal::Recording::Stopped => Some("the journal's writer has ended".to_owned()),
            journal::Recording::Ok => None,
        };
        // For the rules alone, and again as long as it lasts, for their silence is how they know that it is over: the journal
        // writes down its own failures.
        let Some(error) = failing else { return };
        let kind = EventKind::RecordingFailed { error, lost: health.lost.total() };
        for alert in parts.rules.observe(&Observation::Event(clock::now(), kind)) {
            parts.delivery.submit(alert.clone());
            self.record(parts, alert.decided, &EventKind::Alerted { alert });
        }
    }

    /// Tells the rules for how long nothing was heard of the other guard. What a guard did not hear because it did not run itself is no silence
    /// of the other's.
    fn check_peer(&mut self, parts: &mut Parts) {
        let now = clock::now();
        let (last, since) = self.watched_peer;
        let since = if now.since(last) > host::SILENCE { now } else { since };
        self.watched_peer = (now, since);
        let Some((peer, silence, heard)) = parts.delivery.peer_silence(now) else { return };
        let listened = now.since(since);
        let (silence, heard) = if silence > listened { (listened, false) } else { (silence, heard) };
        let kind = EventKind::PeerWatched { peer: peer.to_owned(), silence, heard };
        for alert in parts.rules.observe(&Observation::Event(now, kind)) {
            parts.delivery.submit(alert.clone());
            self.record(parts, alert.decided, &EventKind::Alerted { alert });
        }
    }

    fn answer(&self, parts: &Parts, (request, answer): Question) {
        let Request::Status = request;
        let now = clock::now();
        let blind = self.blind_for(now).map(|silence| {
            format!(
                "THE GUARD IS BLIND: no reading of the host for {} s; heartbeats and the service manager's watchdog are withheld, so that it is missed or started again",
                silence.as_secs()
            )
        });
        let status = GuardStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: Pid(i32::try_from(std::process::id()).unwrap_or(0)),
            since: self.since.wall,
            now: now.wall,
            cluster: self.cluster.clone(),
            address: parts.target.described.clone(),
            mode: self.mode,
            server: self.memory.server.clone(),
            host: self.memory.host.clone(),
            activity: self.memory.activity.clone(),
            wal: self.memory.wal.clone(),
            tables: self.memory.tables.clone(),
            backup: self.memory.backup.clone(),
            receive: self.memory.receive.clone(),
            services: self.memory.services(),
            recovery: parts.recovery.as_ref().and_then(|task| task.status()).map(|(_, status)| status),
            death: self.memory.death.clone(),
            shedding: parts.shedding.status(),
            relief: parts.relief.as_ref().and_then(ReliefTask::status),
            alerts: parts.open_alerts(),
            governor: parts.governor.status(),
            journal: document::JournalStatus::of(&parts.journal.health()),
            limitations: blind.into_iter().chain(parts.limitations()).collect(),
        };
        let document = serde_json::to_string(&status).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"));
        // Whoever asked may have gone; that is their choice.
        let _ = answer.send(document);
    }
}
