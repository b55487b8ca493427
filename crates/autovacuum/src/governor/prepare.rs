//! What comes before an act: what was left behind is undone, the levers are looked for, the helpers got ready and kept so.

use std::time::Duration;

use model::{
    EventKind, Mode, Moment,
    event::{Lever, ReleaseReason},
};

use super::{
    Governor,
    hand::Hand,
    sight::{MAX_REMEMBERED, OwnCost},
};
use crate::{
    levers, record,
    switch::Lock,
    undo::{STATEMENT_TIMEOUT, off_thread, undo_by},
};

/// How often the levers are looked at again while nothing is held: an owner may have changed something.
const DETECT_EVERY: Duration = Duration::from_secs(60);
/// The same after a try that failed.
const DETECT_AGAIN: Duration = Duration::from_secs(10);
/// The same while a dead man's switch still lets go of what a lost session held.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
/// How often a switch that ended while it was armed is replaced: it takes a connection, and each try may take seconds.
const MEND_AGAIN: Duration = Duration::from_secs(10);
/// How often a left-behind throttle is tried again.
const UNDO_AGAIN: Duration = Duration::from_secs(5);
const ANOTHER_GUARD: &str =
    "another guard governs this server: it holds the advisory lock (hint: run one guard for each server)";
const SWITCH_AT_WORK: &str =
    "the dead man's switch in the server is letting go of what a lost session held; nothing is held before it is done";

impl Governor {
    /// Undoes what a guard before us left behind. Until that is done nothing else is.
    pub(super) async fn recover(&mut self, now: Moment, events: &mut Vec<EventKind>) {
        if self.recover_at.is_some_and(|at| now.boot_us < at.boot_us) {
            return;
        }
        self.recover_at = Some(now.plus(UNDO_AGAIN));
        let ours = self.owed.is_some();
        let found = match self.owed.clone() {
            Some(plan) => Ok(Some(plan)),
            None => {
                let state_dir = self.options.state_dir.clone();
                off_thread(move || record::read(&state_dir)).await
            }
        };
        match found {
            Ok(None) => self.recovered = true,
            Ok(Some(plan)) => {
                let bound = STATEMENT_TIMEOUT.saturating_mul(2);
                let undoing = undo_by(&plan, self.client.as_deref(), &self.writer);
                let left = match tokio::time::timeout(bound, undoing).await {
                    Ok(done) if done.complete() => None,
                    Ok(done) => Some(done.errors.join("; ")),
                    Err(_) => Some(format!("it took longer than {} s", bound.as_secs())),
                };
                if let Some(why) = left {
                    self.owe(plan, &why, events);
                    return;
                }
                self.remove_record().await;
                self.owed = None;
                self.left_behind = None;
                self.safety.disarm(self.client.as_ref(), &self.connection).await;
                self.recovered = true;
                let whose = if ours { "what could not be undone before" } else { "what a guard that died had left" };
                events.push(EventKind::ThrottleReleased {
                    reason: ReleaseReason::LeftBehind,
                    held: Duration::ZERO,
                    detail: format!("{whose} is undone: {} worker(s) held; how long is not known", plan.workers.len()),
                });
            }
            Err(error) => {
                self.left_in_place(error, events);
                self.options.mode = self.options.mode.min(Mode::Advise);
                self.recovered = true;
            }
        }
    }

    /// The session is lost. Files and signals still work where the server is on this host.
    pub(super) async fn without_server(&mut self, now: Moment, events: &mut Vec<EventKind>) {
        if let Some(hold) = self.state.hold.take() {
            let held = now.since(hold.since);
            self.let_go(
                now,
                ReleaseReason::ReadingsLost,
                held,
                "the connection to PostgreSQL was lost".to_owned(),
                events,
            )
            .await;
        }
        self.take_back_resting(events).await;
        if self.owed.is_none() && self.hand.is_some() {
            self.safety.disarm(None, &self.connection).await;
        }
        self.hand = None;
        self.availability = None;
        self.state.pressed_since = None;
    }

    /// Looks for the levers and gets the helpers ready, while the host is well.
    pub(super) async fn prepare(&mut self, now: Moment, events: &mut Vec<EventKind>) {
        let due = self.detect_at.is_none_or(|at| now.boot_us >= at.boot_us);
        let busy = self.engaged.is_some() || self.resting.is_some();
        // In trouble only the first look is worth its time.
        let trouble = self.availability.is_some() && self.state.pressed_since.is_some();
        let Some(client) = self.client.clone() else { return };
        if !due || busy || trouble {
            return;
        }
        let acting = self.options.mode == Mode::Act;
        // Before the first look, for that writes the include file, which may carry another guard's throttle.
        let lock =
            if acting { crate::switch::take_lock(&client, &self.lock_name()).await } else { Ok(Lock::AnotherGuard) };
        if lock == Ok(Lock::Switch) {
            self.detect_error = Some(SWITCH_AT_WORK.to_owned());
            self.detect_at = Some(now.plus(LOCK_AGAIN));
            return;
        }
        let locked = lock == Ok(Lock::Ours);
        let found = match levers::detect(&client, &self.options.include_file, &self.writer, locked).await {
            Ok(found) => found,
            Err(error) => {
                self.detect_error = Some(error);
                self.detect_at = Some(now.plus(DETECT_AGAIN));
                return;
            }
        };
        self.detect_error = None;
        self.detect_at = Some(now.plus(DETECT_EVERY));
        let chosen = found.chosen();
        let reach = found.reach();
        let resting = found.resting_needed();
        let why_none = found.why_none();
        let server = found.server.clone();
        self.availability = Some(found);
        self.hand = None;
        if !acting {
            return;
        }
        if !locked {
            let why = lock.err().unwrap_or_else(|| ANOTHER_GUARD.to_owned());
            self.refuse(chosen, why, events);
            return;
        }
        let (Some(lever), Some(reach)) = (chosen, reach) else {
            self.refuse(None, why_none, events);
            return;
        };
        let home = match self.home(lever, &client).await {
            Ok(home) => home,
            Err(error) => {
                self.refuse(Some(lever), error, events);
                return;
            }
        };
        let name = self.lock_name();
        self.safety.prepare(&self.connection, &name, &home).await;
        self.hand = Some(Hand { lever, reach, home, server, resting: None, writer: self.writer.clone() });
        if let Some(resting) = resting {
            self.place_resting(now, resting, events).await;
        }
    }

    /// Sees to it that what is armed stays armed, whoever ended it.
    pub(super) async fn mend_safety(&mut self, now: Moment) {
        self.safety.mend_worker(&self.connection).await;
        let Some(client) = self.client.clone() else { return };
        if !self.safety.switch_is_missing() || self.mend_at.is_some_and(|at| now.boot_us < at.boot_us) {
            return;
        }
        self.mend_at = Some(now.plus(MEND_AGAIN));
        let name = self.lock_name();
        self.safety.mend_switch(&client, &self.connection, &name).await;
    }

    /// One lock for each server, whichever state directory or file a guard uses: the key is the same for all guards. Advisory locks
    /// are kept by database, so this holds for guards that connect to the same one.
    pub(super) fn lock_name(&self) -> String {
        "governor".to_owned()
    }

    pub(super) fn refuse(&mut self, lever: Option<Lever>, reason: String, events: &mut Vec<EventKind>) {
        // Once for each reason, or each look would repeat it.
        if self.last_refusal.as_ref() != Some(&reason) {
            self.last_refusal = Some(reason.clone());
            events.push(EventKind::LeverUnavailable { lever, reason });
        }
    }

    pub(super) async fn learn_own_costs(&mut self) {
        let (Some(client), Some(availability)) = (self.client.clone(), &self.availability) else { return };
        let unknown = self.sight.unknown_relations(&availability.server.database);
        if unknown.is_empty() {
            return;
        }
        if self.sight.own_costs.len() + unknown.len() > MAX_REMEMBERED {
            self.sight.own_costs.clear();
        }
        let oids: Vec<u32> = unknown.iter().map(|oid| oid.0).collect();
        // Of a TOAST table the options of its own name are in its own row.
        let query = "SELECT c.oid, o.option_name, o.option_value FROM pg_catalog.pg_class c, \
            pg_catalog.pg_options_to_table(c.reloptions) o WHERE c.oid = ANY ($1) \
            AND o.option_name IN ('autovacuum_vacuum_cost_limit', 'autovacuum_vacuum_cost_delay')";
        let answer = crate::undo::bounded(client.query(query, &[&oids])).await;
        for oid in unknown {
            // Remembered even where the answer failed: it must not be asked four times a second.
            self.sight.own_costs.entry(oid).or_default();
        }
        for row in answer.unwrap_or_default() {
            let own: &mut OwnCost = self.sight.own_costs.entry(model::Oid(row.get(0))).or_default();
            let value = row.get::<_, &str>(2).parse::<f64>().ok();
            match (row.get::<_, &str>(1), value) {
                ("autovacuum_vacuum_cost_limit", Some(v)) => own.limit = v > 0.0,
                (_, Some(v)) if v >= 0.0 => own.delay = Some(v),
                _ => {}
            }
        }
    }
}
