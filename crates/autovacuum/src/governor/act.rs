//! The governor's acts, each in an order that survives a kill at any instant.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use model::{
    EventKind, Moment, ProcessId,
    event::{CostSetting, Lever, ReleaseReason},
};
use tokio_postgres::Client;

use super::{Engaged, Governor, Resting, tables_of};
use crate::{
    alter_system,
    by_hand::{self, Proposal},
    controller::{Reach, Worker},
    host_process::{self, Role},
    levers, record,
    undo::{FORMAT, Home, UndoPlan, bounded, off_thread, undo_by},
};

/// How long the told get to read the file before it is made neutral. A worker looks once per block; one that waits longer for a lock
/// reads the neutral file, is seen not to obey, and is told again.
const READ_WINDOW: Duration = Duration::from_secs(2);
/// Least time between two full reloads, besides the launcher's quiet window.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

impl Governor {
    pub(super) async fn home(&self, lever: Lever, client: &Client) -> Result<Home, String> {
        if lever == Lever::AlterSystem {
            return Ok(Home::AlterSystem { former: bounded(alter_system::read(client)).await? });
        }
        Ok(Home::IncludeFile { path: self.options.include_file.clone() })
    }

    fn plan(&self, workers: &[ProcessId]) -> Option<UndoPlan> {
        let hand = self.hand.as_ref()?;
        let server = &hand.server;
        Some(UndoPlan {
            format: FORMAT,
            cluster: self.options.cluster.clone(),
            boot_id: host_process::boot_id(),
            home: hand.home.clone(),
            major: server.major,
            owner: server.owner,
            postmaster: server.postmaster.filter(|_| server.may_signal),
            data_directory: server.postmaster.and_then(|id| host_process::working_directory(id.pid)),
            launcher: server.launcher.filter(|_| server.may_signal),
            workers: workers.to_vec(),
            open_first: hand.resting,
        })
    }

    /// The record is synced before the first act.
    async fn write_record(&self, plan: &UndoPlan) -> Result<(), String> {
        let (dir, plan) = (self.options.state_dir.clone(), plan.clone());
        off_thread(move || record::write(&dir, &plan)).await
    }

    /// The launcher is another process after autovacuum was switched off and on.
    async fn refresh_launcher(&mut self) {
        let (Some(hand), Some(client)) = (&mut self.hand, &self.client) else { return };
        let known = hand.server.launcher.is_some_and(|id| host_process::is_still(id, Role::Launcher));
        if hand.reach != Reach::Launcher || known {
            return;
        }
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'";
        if let Ok(Some(row)) = bounded(client.query_opt(query, &[])).await {
            hand.server.launcher = row
                .get::<_, Option<i32>>(0)
                .and_then(|pid| host_process::identify(model::Pid(pid)))
                .filter(|id| host_process::is_still(*id, Role::Launcher));
        }
    }

    pub(super) async fn remove_record(&self) {
        let state_dir = self.options.state_dir.clone();
        if let Err(error) = off_thread(move || record::remove(&state_dir)).await {
            tracing::warn!(%error, "the record of an undone throttle stays");
        }
    }

    pub(super) async fn engage(
        &mut self,
        now: Moment,
        chosen: Vec<ProcessId>,
        setting: CostSetting,
        reason: String,
        workers: &[Worker],
        events: &mut Vec<EventKind>,
    ) {
        let Some(lever) = self.hand.as_ref().map(|hand| hand.lever) else { return };
        if let Err(error) = self.try_engage(now, &chosen, setting).await {
            self.state.refused(now, &self.options.limits);
            self.refuse(Some(lever), error, events);
            // Whatever was begun is undone as if it had succeeded.
            if self.engaged.is_some() {
                let detail = "it could not be carried out".to_owned();
                self.let_go(now, ReleaseReason::NotHelping, Duration::ZERO, detail, events).await;
            }
            return;
        }
        self.last_refusal = None;
        let tables = tables_of(workers, &chosen);
        events.push(EventKind::ThrottleEngaged { workers: chosen, tables, lever, setting, reason });
    }

    async fn try_engage(&mut self, now: Moment, chosen: &[ProcessId], setting: CostSetting) -> Result<(), String> {
        self.refresh_launcher().await;
        let plan = self.plan(chosen).ok_or("no lever in hand")?;
        self.write_record(&plan).await?;
        if let Err(error) = self.safety.arm(&plan, &self.connection).await {
            if self.resting.is_none() {
                self.remove_record().await;
            }
            return Err(error);
        }
        self.engaged = Some(Engaged { ever: chosen.to_vec(), neutral_at: None, plan });
        self.hold_at(now, chosen, setting).await
    }

    /// Writes the setting and tells the workers.
    async fn hold_at(&mut self, now: Moment, workers: &[ProcessId], setting: CostSetting) -> Result<(), String> {
        let client = self.client.clone();
        let Some(hand) = &self.hand else { return Err("no lever in hand".to_owned()) };
        hand.put(setting, client.as_deref()).await?;
        hand.tell(workers, client.as_deref()).await?;
        if hand.reach == Reach::Launcher {
            self.last_launcher_signal = Some(now);
            self.newcomer = None;
        }
        if hand.reach != Reach::Everyone
            && let Some(engaged) = &mut self.engaged
        {
            engaged.neutral_at = Some(now.plus(READ_WINDOW));
        }
        Ok(())
    }

    pub(super) async fn adjust(
        &mut self,
        now: Moment,
        chosen: Vec<ProcessId>,
        setting: CostSetting,
        reason: String,
        events: &mut Vec<EventKind>,
    ) {
        let Some(engaged) = &mut self.engaged else { return };
        let let_go: Vec<ProcessId> = engaged.plan.workers.iter().filter(|w| !chosen.contains(w)).copied().collect();
        let joined = chosen.iter().any(|w| !engaged.plan.workers.contains(w));
        for worker in &chosen {
            if !engaged.ever.contains(worker) {
                engaged.ever.push(*worker);
            }
        }
        // Whoever is let go stays in the record until the end: its signal may come too late.
        engaged.plan.workers.clone_from(&engaged.ever);
        let plan = engaged.plan.clone();
        if joined {
            if let Err(error) = self.write_record(&plan).await {
                tracing::warn!(%error, "the record of a throttle was not renewed");
            }
            self.safety.update(&plan, &self.connection).await;
        }
        let done = match (self.reach(), let_go.is_empty()) {
            (Reach::Workers, false) => self.open_some(now, &let_go).await,
            _ => self.hold_at(now, &chosen, setting).await,
        };
        if let Some(engaged) = &mut self.engaged {
            engaged.plan.workers.clone_from(&chosen);
        }
        match done {
            Ok(()) => events.push(EventKind::ThrottleAdjusted { workers: chosen, setting, reason }),
            Err(error) => {
                let detail = format!("a change could not be carried out: {error}");
                self.let_go(now, ReleaseReason::NotHelping, Duration::ZERO, detail, events).await;
            }
        }
    }

    /// Lets some go while others stay held: the file rests while those read it. It stays so until the next change, which the
    /// others do not notice, for nobody tells them.
    async fn open_some(&mut self, _now: Moment, workers: &[ProcessId]) -> Result<(), String> {
        let client = self.client.clone();
        let Some(hand) = &self.hand else { return Err("no lever in hand".to_owned()) };
        hand.put_rest(client.as_deref()).await?;
        hand.tell(workers, client.as_deref()).await?;
        if let Some(engaged) = &mut self.engaged {
            engaged.neutral_at = None;
        }
        Ok(())
    }

    /// Takes the throttle out of its home once those told have read it.
    pub(super) async fn make_neutral(&mut self, now: Moment) {
        let due = self.engaged.as_ref().and_then(|e| e.neutral_at).is_some_and(|at| now.boot_us >= at.boot_us);
        let client = self.client.clone();
        if !due {
            return;
        }
        if let Some(hand) = &self.hand {
            match hand.put_rest(client.as_deref()).await {
                Ok(()) => {
                    if let Some(engaged) = &mut self.engaged {
                        engaged.neutral_at = None;
                    }
                }
                Err(error) => tracing::warn!(%error, "the include file could not be made neutral; tried again"),
            }
        }
    }

    pub(super) async fn let_go(
        &mut self,
        now: Moment,
        reason: ReleaseReason,
        held: Duration,
        detail: String,
        events: &mut Vec<EventKind>,
    ) {
        self.state.hold = None;
        let Some(engaged) = self.engaged.take() else { return };
        let client = self.client.clone();
        let clean = self.open_all(&engaged, client.as_ref()).await;
        self.last_launcher_signal = Some(now);
        if let Err(error) = clean {
            tracing::error!(%error, "a throttle could not be let go in the ordinary way");
            let plan = engaged.plan_for_all();
            let done = undo_by(&plan, client.as_deref(), &self.writer).await;
            // It takes the resting setting with it, and a lever that failed is looked at anew.
            self.forget_hand();
            if !done.complete() {
                let why = done.errors.join("; ");
                let detail = format!("{detail}; not undone yet: {why}");
                events.push(EventKind::ThrottleReleased { reason, held, detail });
                self.owe(plan, &why, events);
                return;
            }
        }
        self.reload_due = self.reach() != Reach::Everyone;
        if self.resting.is_none() {
            self.safety.disarm(client.as_ref(), &self.connection).await;
            self.remove_record().await;
        } else if let Some(resting) = &self.resting {
            let plan = resting.plan.clone();
            self.safety.update(&plan, &self.connection).await;
        }
        events.push(EventKind::ThrottleReleased { reason, held, detail });
    }

    async fn open_all(&self, engaged: &Engaged, client: Option<&Arc<Client>>) -> Result<(), String> {
        let hand = self.hand.as_ref().ok_or("no lever in hand")?;
        hand.put_rest(client.map(Arc::as_ref)).await?;
        hand.tell(&engaged.ever, client.map(Arc::as_ref)).await?;
        Ok(())
    }

    /// The full reload that ends an engagement, put off until it does not disturb the launcher's schedule: all that were held are open
    /// already, so it only reaches whom a stranger's reload may have caught.
    pub(super) async fn reload_when_quiet(&mut self, now: Moment) {
        let (Some(hand), Some(launcher)) = (&self.hand, self.launcher()) else { return };
        let window = launcher.window(1.0);
        let latest = [self.last_reload, self.last_launcher_signal].into_iter().flatten().max_by_key(|at| at.boot_us);
        let quiet = latest.is_none_or(|at| now.since(at) >= window)
            && self.last_reload.is_none_or(|at| now.since(at) >= RELOAD_EVERY);
        if !self.reload_due || self.engaged.is_some() || !quiet {
            return;
        }
        match hand.reload(self.client.as_deref()).await {
            Ok(()) => (self.reload_due, self.last_reload) = (false, Some(now)),
            Err(error) => tracing::warn!(%error, "the full reload after a throttle failed; tried again"),
        }
    }

    /// 13 to 15: a running worker can only be governed within the setting that it started its table with.
    pub(super) async fn place_resting(&mut self, now: Moment, to: CostSetting, events: &mut Vec<EventKind>) {
        let Some(hand) = &mut self.hand else { return };
        hand.resting = Some(to);
        let from = hand.server.configured;
        let placed = async {
            let plan = self.plan(&[]).ok_or("no lever in hand")?;
            self.write_record(&plan).await?;
            self.safety.arm(&plan, &self.connection).await?;
            let Some(hand) = &self.hand else { return Err("no lever in hand".to_owned()) };
            hand.put_rest(self.client.as_deref()).await?;
            hand.reload(self.client.as_deref()).await?;
            Ok(plan)
        };
        match placed.await {
            Ok(plan) => {
                self.last_launcher_signal = Some(now);
                self.last_reload = Some(now);
                // The postmaster takes a moment to read it; a table begun in that moment counts as begun before.
                let since = now.wall.saturating_add(Duration::from_secs(1)).unwrap_or(Timestamp::MAX);
                self.resting = Some(Resting { from, to, since, plan });
                let reason = format!(
                    "a worker that starts its table with a delay below {} ms can't be slowed on this version; the ceiling at rest is now \
                     {}",
                    levers::GOVERNABLE_DELAY_MS,
                    levers::ceiling(to)
                );
                events.push(EventKind::RestingSettingChanged { from, to, reason });
            }
            Err(error) => {
                if let Some(plan) = self.plan(&[]) {
                    let done = undo_by(&plan, self.client.as_deref(), &self.writer).await;
                    if done.complete() {
                        self.remove_record().await;
                        self.safety.disarm(self.client.as_ref(), &self.connection).await;
                    } else {
                        self.owe(plan, &done.errors.join("; "), events);
                    }
                }
                self.hand = None;
                self.refuse(
                    Some(Lever::LauncherSignal),
                    format!("the resting setting could not be put in place: {error}"),
                    events,
                );
            }
        }
    }

    pub(super) async fn take_back_resting(&mut self, events: &mut Vec<EventKind>) {
        let Some(resting) = self.resting.take() else { return };
        let done = undo_by(&resting.plan, self.client.as_deref(), &self.writer).await;
        if let Some(hand) = &mut self.hand {
            hand.resting = None;
        }
        if done.complete() {
            self.reload_due = false;
            self.remove_record().await;
            events.push(EventKind::RestingSettingChanged {
                from: resting.to,
                to: resting.from,
                reason: "the governor no longer acts on this server".to_owned(),
            });
        } else {
            self.forget_hand();
            self.owe(resting.plan, &done.errors.join("; "), events);
        }
    }

    /// After an [`undo`] nothing of ours is in place, and what was in hand may be out of date: the levers are looked at again.
    fn forget_hand(&mut self) {
        self.resting = None;
        self.hand = None;
        self.detect_at = None;
    }

    /// An undo that is not complete: the record stays, the release worker and the switch stay armed, and each step tries again.
    pub(super) fn owe(&mut self, plan: UndoPlan, why: &str, events: &mut Vec<EventKind>) {
        self.recovered = false;
        let what =
            format!("a throttle is still in place and is tried again: {why} (hint: by hand: {})", by_hand::undo(&plan));
        self.owed = Some(plan);
        self.left_in_place(what, events);
    }

    /// Told once by an event, and shown until it is undone.
    pub(super) fn left_in_place(&mut self, what: String, events: &mut Vec<EventKind>) {
        tracing::error!("{what}");
        if self.left_behind.is_none() {
            events.push(EventKind::LeverUnavailable { lever: None, reason: what.clone() });
        }
        self.left_behind = Some(what);
    }

    pub(super) fn propose(
        &mut self,
        chosen: Vec<ProcessId>,
        setting: CostSetting,
        reason: String,
        workers: &[Worker],
        events: &mut Vec<EventKind>,
    ) {
        if self.options.mode == model::Mode::Act {
            let why = self.availability.as_ref().map_or_else(
                || "the server was not asked for its levers yet".to_owned(),
                levers::Availability::why_none,
            );
            let why = self.last_refusal.clone().unwrap_or(why);
            events.push(EventKind::LeverUnavailable { lever: None, reason: why });
        }
        let command = self.command(&chosen, workers, setting);
        let tables = tables_of(workers, &chosen);
        events.push(EventKind::ThrottleProposed { workers: chosen, tables, setting, reason, command });
    }

    /// What a person would run on the database's host, and how to take it back.
    fn command(&self, chosen: &[ProcessId], workers: &[Worker], setting: CostSetting) -> String {
        let server = self.availability.as_ref().map(|a| &a.server);
        let lever = self.availability.as_ref().and_then(levers::Availability::chosen);
        let included = lever.is_some_and(|lever| lever != Lever::AlterSystem);
        let relation = |id: &ProcessId| workers.iter().find(|w| w.process == *id).and_then(|w| w.relation);
        let named: Vec<_> = chosen.iter().map(|id| (id.pid, relation(id))).collect();
        let proposal = Proposal {
            major: server.map_or(18, |s| s.major),
            include: included.then_some(self.options.include_file.as_path()),
            former: server.and_then(|s| s.former.as_ref()),
            setting,
            workers: &named,
        };
        proposal.command()
    }
}

impl Engaged {
    /// The plan that reaches everybody who was ever held.
    fn plan_for_all(&self) -> UndoPlan {
        UndoPlan { workers: self.ever.clone(), ..self.plan.clone() }
    }
}
