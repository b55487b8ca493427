//! The governor: readings in, events out, and in between the closed loop.
//!
//! Order of every engagement, so that it can be killed at any instant: record in the state directory (synced), release worker and dead
//! man's switch armed, then the file, then the signals. Of every end: the file, the signals, the full reload, then disarmed, then the
//! record removed.

mod act;
mod hand;
mod launcher;
mod prepare;
mod safety;
mod sight;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use model::{
    EventKind, Mode, Moment, Observation, ProcessId, TableName,
    event::{CostSetting, Lever, ReleaseReason},
};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{
    by_hand,
    controller::{self, Act, Facts, LeverFacts, Limits, Reach, State, Worker},
    include_writer::IncludeWriter,
    levers::{self, Availability, LeverStatus},
    release_worker,
    undo::UndoPlan,
};
use hand::Hand;
use launcher::Launcher;
pub use safety::ReleaseCommand;
use safety::Safety;
use sight::{Rules, Sight};

/// How long a hold must be withheld before that is told by an event: the first ages come a second or so after connecting.
const TELL_WITHHELD: Duration = Duration::from_secs(15);

/// What the governor is started with.
#[derive(Clone, Debug)]
pub struct GovernorOptions {
    /// How far it may go.
    pub mode: Mode,
    /// Thresholds and bounds.
    pub limits: Limits,
    /// The include file; see [`default_include_file`].
    pub include_file: PathBuf,
    /// Where the record of a throttle is kept.
    pub state_dir: PathBuf,
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// How the release worker is started; without it only the dead man's switch lets go after `kill -9`.
    pub release_command: Option<ReleaseCommand>,
}

/// `/run/oxpecker/<cluster>/throttle.conf`.
pub fn default_include_file(cluster: &str) -> PathBuf {
    PathBuf::from("/run/oxpecker").join(cluster).join("throttle.conf")
}

/// The governor's state, for people and machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GovernorStatus {
    /// How far it may go.
    pub mode: Mode,
    /// Whether workers are held now.
    pub engaged: bool,
    /// Whom.
    pub workers: Vec<ProcessId>,
    /// Where.
    pub setting: Option<CostSetting>,
    /// By which lever.
    pub lever: Option<Lever>,
    /// Every lever with its reason; empty until the server was asked.
    pub levers: Vec<LeverStatus>,
    /// What the server's owner configured.
    pub configured: Option<CostSetting>,
    /// The resting setting that we put in place, if any.
    pub resting: Option<CostSetting>,
    /// What a person would run to take back what is in place now, should the guard not be able to.
    #[serde(default)]
    pub undo_by_hand: Option<String>,
    /// What is missing and what that costs.
    pub limitations: Vec<String>,
}

/// A hold that is carried out.
#[derive(Debug)]
struct Engaged {
    /// All that were held at some time: they are told at the end.
    ever: Vec<ProcessId>,
    /// When those told will have read the file, so that it can be made neutral.
    neutral_at: Option<Moment>,
    plan: UndoPlan,
}

/// Our resting setting (13 to 15).
#[derive(Debug)]
struct Resting {
    from: CostSetting,
    to: CostSetting,
    since: Timestamp,
    plan: UndoPlan,
}

/// See the module's documentation.
pub struct Governor {
    options: GovernorOptions,
    client: Option<Arc<Client>>,
    connection: String,
    sight: Sight,
    state: State,
    availability: Option<Availability>,
    hand: Option<Hand>,
    safety: Safety,
    engaged: Option<Engaged>,
    resting: Option<Resting>,
    detect_at: Option<Moment>,
    detect_error: Option<String>,
    recover_at: Option<Moment>,
    recovered: bool,
    /// An undo that is not complete. While it is here nothing that could carry it out is disarmed.
    owed: Option<UndoPlan>,
    /// What is left in place, or can't be known to be gone, in words.
    left_behind: Option<String>,
    reload_due: bool,
    last_reload: Option<Moment>,
    last_launcher_signal: Option<Moment>,
    known_workers: Vec<ProcessId>,
    writer: IncludeWriter,
    /// When a worker was last seen that had not been there before.
    newcomer: Option<Moment>,
    mend_at: Option<Moment>,
    /// Why no hold begins though one is called for.
    withheld: Option<&'static str>,
    last_refusal: Option<String>,
}

impl std::fmt::Debug for Governor {
    // The connection string may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Governor")
            .field("options", &self.options)
            .field("state", &self.state)
            .field("engaged", &self.engaged)
            .field("resting", &self.resting)
            .field("owed", &self.owed)
            .finish_non_exhaustive()
    }
}

impl Governor {
    /// A governor that has seen nothing yet and writes nothing before it has.
    pub fn new(options: GovernorOptions) -> Self {
        let safety = Safety::new(options.release_command.clone());
        Self {
            options,
            client: None,
            connection: String::new(),
            sight: Sight::default(),
            state: State::default(),
            availability: None,
            hand: None,
            safety,
            engaged: None,
            resting: None,
            detect_at: None,
            detect_error: None,
            recover_at: None,
            recovered: false,
            owed: None,
            left_behind: None,
            reload_due: false,
            last_reload: None,
            last_launcher_signal: None,
            known_workers: Vec::new(),
            writer: IncludeWriter::default(),
            newcomer: None,
            mend_at: None,
            withheld: None,
            last_refusal: None,
        }
    }

    /// Takes in what an observer saw.
    pub fn on_observation(&mut self, observation: &Observation) {
        self.sight.observe(observation);
        let Some(activity) = &self.sight.activity else { return };
        let workers: Vec<ProcessId> = activity.vacuums.iter().map(|v| v.process).collect();
        if workers.iter().any(|w| !self.known_workers.contains(w)) {
            self.newcomer = Some(activity.at);
        }
        self.known_workers = workers;
    }

    /// The kept session, and how to open another. `None` when it is lost: on the next step everything is let go, for the server
    /// may be another one when it comes back. A session that replaces another must be announced by `None` first.
    pub fn on_client(&mut self, client: Option<Arc<Client>>, connection: &str) {
        // Whoever must undo something while the session is lost still needs to know where.
        if !connection.is_empty() {
            connection.clone_into(&mut self.connection);
        }
        self.client = client;
        self.detect_at = None;
        if self.client.is_none() {
            self.safety.session_lost();
            self.sight.forget();
        }
    }

    /// One round of the loop. Every wait in it is bounded.
    pub async fn step(&mut self, now: Moment) -> Vec<EventKind> {
        let mut events = Vec::new();
        if self.client.as_ref().is_some_and(|client| client.is_closed()) {
            self.on_client(None, "");
        }
        if !self.recovered {
            self.recover(now, &mut events).await;
            return events;
        }
        if self.client.is_none() {
            self.without_server(now, &mut events).await;
            return events;
        }
        self.prepare(now, &mut events).await;
        self.sight.sample(now);
        self.learn_own_costs().await;
        self.mend_safety(now).await;
        self.make_neutral(now).await;
        let workers = self.workers();
        let lever = self.lever_facts(now);
        let facts = Facts {
            now,
            may_act: self.may_act(),
            host: self.sight.host.as_ref(),
            activity: self.sight.activity.as_ref(),
            tables: self.sight.tables.as_ref(),
            workers: &workers,
            lever,
        };
        let (next, decision) = controller::decide(&facts, &self.state, &self.options.limits);
        let may_act = facts.may_act;
        self.state = next;
        self.withheld = decision.withheld;
        let pressed = self.state.pressed_since.map_or(Duration::ZERO, |since| now.since(since));
        if let Some(why) = decision.withheld
            && pressed >= TELL_WITHHELD
        {
            self.refuse(None, why.to_owned(), &mut events);
        }
        if let Some(v) = decision.verified {
            events.push(EventKind::ThrottleVerified {
                cpu_before: v.cpu_before,
                cpu_after: v.cpu_after,
                busy_before: v.busy_before,
                busy_after: v.busy_after,
                obeyed: v.obeyed,
            });
        }
        match decision.act {
            Act::Nothing => self.reload_when_quiet(now).await,
            Act::Engage { workers: chosen, setting, reason } if may_act => {
                self.engage(now, chosen, setting, reason, &workers, &mut events).await;
            }
            Act::Engage { workers: chosen, setting, reason } => {
                self.propose(chosen, setting, reason, &workers, &mut events);
            }
            Act::Adjust { workers: chosen, setting, reason } => {
                self.adjust(now, chosen, setting, reason, &mut events).await;
            }
            Act::Release { reason, held, detail } => self.let_go(now, reason, held, detail, &mut events).await,
        }
        events
    }

    /// Lets go of everything, takes back the resting setting and ends the helpers: for an orderly stop, or when acting is switched off.
    pub async fn release(&mut self, now: Moment, reason: ReleaseReason) -> Vec<EventKind> {
        let mut events = Vec::new();
        let held_lock = self.hand.is_some();
        if let Some(hold) = self.state.hold.take() {
            let held = now.since(hold.since);
            self.let_go(now, reason, held, "told to let go".to_owned(), &mut events).await;
        }
        self.take_back_resting(&mut events).await;
        if self.reload_due
            && let Some(hand) = &self.hand
            && hand.reload(self.client.as_deref()).await.is_ok()
        {
            self.reload_due = false;
        }
        if let Some(Hand { home: crate::undo::Home::IncludeFile { path }, .. }) = self.hand.take()
            && self.owed.is_none()
            && let Err(error) = self.writer.remove(&path).await
        {
            tracing::warn!(%error, "the include file stays; it is neutral");
        }
        match self.owed.clone() {
            // Whoever outlives us undoes it: the release worker, whose input ends below, and the switch, which gets the lock.
            Some(plan) => self.safety.update(&plan, &self.connection).await,
            None => self.safety.disarm(self.client.as_ref(), &self.connection).await,
        }
        // Below act it was never taken, and giving back what one does not have is a warning in the server's log.
        if held_lock
            && let Some(client) = self.client.clone()
            && let Err(error) = crate::switch::drop_lock(&client, &self.lock_name()).await
        {
            tracing::debug!(%error, "the advisory lock goes with the session");
        }
        self.safety.close().await;
        self.detect_at = None;
        self.availability = None;
        events
    }

    /// Its state now.
    pub fn status(&self) -> GovernorStatus {
        let hold = self.engaged.as_ref().and(self.state.hold.as_ref());
        let mut limitations = self.availability.as_ref().map_or_else(Vec::new, |a| a.server.limitations.clone());
        limitations.extend(self.left_behind.clone());
        limitations.extend(self.withheld.map(str::to_owned));
        limitations.extend(self.detect_error.clone());
        if self.options.mode == Mode::Act {
            limitations.extend(self.safety.limitations());
        }
        GovernorStatus {
            mode: self.options.mode,
            engaged: hold.is_some(),
            workers: hold.map_or_else(Vec::new, |hold| hold.workers.clone()),
            setting: hold.map(|hold| hold.setting),
            lever: self.availability.as_ref().and_then(Availability::chosen),
            levers: self.availability.as_ref().map_or_else(Vec::new, |a| a.levers.clone()),
            configured: self.availability.as_ref().map(|a| a.server.configured),
            resting: self.resting.as_ref().map(|r| r.to),
            undo_by_hand: self.in_place().map(by_hand::undo),
            limitations,
        }
    }

    /// How what is in place now would be undone.
    fn in_place(&self) -> Option<&UndoPlan> {
        let held = self.engaged.as_ref().map(|engaged| &engaged.plan);
        held.or(self.resting.as_ref().map(|resting| &resting.plan)).or(self.owed.as_ref())
    }

    /// The running workers as the controller sees them, with why each is or is not governable.
    pub fn workers(&self) -> Vec<Worker> {
        let server = self.availability.as_ref().map(|a| &a.server);
        let major = server.map_or(18, |s| s.major);
        let delay = server.map_or(2.0, |s| s.configured.delay_ms);
        let governable_since = match &self.resting {
            Some(resting) => Ok(Some(resting.since)),
            None if major < 16 && delay <= 0.0 => Err(()),
            None => Ok(None),
        };
        self.sight.workers(&Rules {
            major,
            may_signal: server.is_some_and(|s| s.may_signal),
            governable_since,
            database: server.map(|s| s.database.as_str()),
            limits: &self.options.limits,
        })
    }

    fn reach(&self) -> Reach {
        self.hand.as_ref().map_or(Reach::Workers, |hand| hand.reach)
    }

    fn may_act(&self) -> bool {
        self.options.mode == Mode::Act && self.hand.is_some()
    }

    fn lever_facts(&self, now: Moment) -> LeverFacts {
        let server = self.availability.as_ref().map(|a| &a.server);
        let configured = server.map_or(CostSetting { limit: 200, delay_ms: 2.0 }, |s| s.configured);
        let resting = self.resting.as_ref().map_or(configured, |r| r.to);
        let old = server.is_some_and(|s| s.major < 16);
        let delay_ms = if old && resting.delay_ms > 0.0 { resting.delay_ms } else { levers::HOLD_DELAY_MS };
        let quiet = self.launcher().map_or(Duration::ZERO, |launcher| launcher.quiet(now));
        LeverFacts { reach: self.reach(), resting, delay_ms, quiet }
    }

    /// The launcher, where the server was asked.
    fn launcher(&self) -> Option<Launcher> {
        let server = self.availability.as_ref().map(|a| &a.server)?;
        let full = self.sight.activity.as_ref().is_some_and(|a| {
            let slots = usize::try_from(a.autovacuum_slots).unwrap_or(usize::MAX);
            a.vacuums.iter().filter(|v| v.kind != model::reading::VacuumKind::Manual).count() >= slots
        });
        Some(Launcher {
            reach: self.reach(),
            naptime_s: server.naptime_s,
            databases: server.databases,
            full,
            newcomer: self.newcomer,
        })
    }
}

/// The tables of those workers, in their order.
fn tables_of(workers: &[Worker], chosen: &[ProcessId]) -> Vec<Option<TableName>> {
    chosen.iter().map(|id| workers.iter().find(|w| w.process == *id).and_then(|w| w.table.clone())).collect()
}

/// `undo_left_behind` for `oxpecker release` and systemd's ExecStopPost.
pub use release_worker::undo_left_behind;
