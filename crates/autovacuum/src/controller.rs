//! The closed loop's decision: facts and state in, state and one act out. No clock, no I/O.
//!
//! Why it is shaped like this:
//! - It *engages* only where three things meet: the database's CPUs are saturated, vacuum is a substantial part of that, and
//!   somebody waits. A vacuum that uses an idle core is left alone.
//! - It cuts deep at once, for people already wait, and then opens up as long as there is room: multiplicative both ways with a
//!   band between (AIMD would take minutes to get from 5 units to 10,000). Opening is bounded by the CPU that the others leave, so
//!   that it does not overshoot.
//! - It ends a hold by *opening it up until it no longer holds anything*, not by letting go of a slowed worker: a cliff would
//!   bring the storm back every few seconds.
//! - It holds only while that is seen to help. When the CPUs stay saturated and neither stalls nor latency get better, the cause is
//!   another one, and slow vacuum would only add bloat to it.

mod choose;
mod hold;
mod pressure;
#[cfg(test)]
mod tests;

use std::time::Duration;

use model::{
    Cores, DatabaseName, Moment, Oid, ProcessId, Share, TableName,
    event::{CostSetting, ReleaseReason},
    reading::{ActivityReading, HostReading, TablesReading},
};
use serde::{Deserialize, Serialize};

pub use crate::limits::Limits;
pub use choose::{Protection, Reach, Worker};
use pressure::Picture;

/// Workers held at once at most; `autovacuum_worker_slots` may be larger, but then the small ones are not worth it.
pub const MAX_HELD: usize = 16;

/// What the controller needs to know of the lever in hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeverFacts {
    /// Whom it reaches.
    pub reach: Reach,
    /// The setting that applies while nobody is held.
    pub resting: CostSetting,
    /// The delay, in milliseconds, that holds use; the limit is what is turned.
    pub delay_ms: f64,
    /// Least time between two uses that the launcher's schedule needs; zero where the lever does not touch the launcher.
    pub quiet: Duration,
}

/// All that a decision may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Now.
    pub now: Moment,
    /// Whether holds are carried out; otherwise they are only proposed.
    pub may_act: bool,
    /// The newest reading of the host.
    pub host: Option<&'a HostReading>,
    /// The newest reading of sessions and vacuums.
    pub activity: Option<&'a ActivityReading>,
    /// The newest reading of tables.
    pub tables: Option<&'a TablesReading>,
    /// Running autovacuum workers.
    pub workers: &'a [Worker],
    /// The lever in hand, or that would be used.
    pub lever: LeverFacts,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Begin to hold these (or, where `may_act` is false, say so).
    Engage {
        /// Whom.
        workers: Vec<ProcessId>,
        /// Where.
        setting: CostSetting,
        /// Why.
        reason: String,
    },
    /// Hold these from now on; whoever was held and is not named is let go.
    Adjust {
        /// Whom.
        workers: Vec<ProcessId>,
        /// Where.
        setting: CostSetting,
        /// Why.
        reason: String,
    },
    /// Let go of all.
    Release {
        /// Why.
        reason: ReleaseReason,
        /// How long it was held.
        held: Duration,
        /// In words, with the figures that decided.
        detail: String,
    },
}

/// What a hold did, measured on the workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verified {
    /// CPU of the workers before.
    pub cpu_before: Cores,
    /// And now.
    pub cpu_after: Cores,
    /// Busy share before.
    pub busy_before: Share,
    /// And now.
    pub busy_after: Share,
    /// Whether they obeyed.
    pub obeyed: bool,
}

/// A decision with no choices left.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub act: Act,
    /// What was verified, once for each hold.
    pub verified: Option<Verified>,
    /// Why no hold begins though the pressure calls for one.
    pub withheld: Option<&'static str>,
}

/// Without ages nobody knows how near wraparound is, and slowing vacuum down would be the wrong thing to do there.
pub const AGES_UNKNOWN: &str = "how old the databases' transaction ids are is not known, or not of late: no vacuum is held \
     before that is read (hint: the role must be able to read pg_database)";

/// What the controller remembers between decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Since when the CPUs are under pressure, by the start of the first window that showed it.
    pub pressed_since: Option<Moment>,
    /// Until when no hold may begin.
    pub cooldown_until: Option<Moment>,
    /// Useless holds in a row.
    pub unhelped_in_a_row: u32,
    /// One worker must be left at full pace in the next hold: a small table waited for a slot.
    pub spare_one: bool,
    /// The canary's quiet latency in milliseconds, smoothed.
    pub canary_quiet_ms: Option<f64>,
    /// The canary's latency in milliseconds, smoothed over a few readings.
    pub canary_ms: Option<f64>,
    /// The newest activity reading that went into the canary.
    pub canary_at: Option<Moment>,
    /// The hold.
    pub hold: Option<Hold>,
    /// A proposal of which the pressure is not over yet: the moment when pressure was last seen.
    pub proposed: Option<Moment>,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: Moment,
    /// Whom.
    pub workers: Vec<ProcessId>,
    /// Where, in cost units a second for each worker.
    pub pace: f64,
    /// The setting that says so.
    pub setting: CostSetting,
    /// When it was last changed.
    pub adjusted: Moment,
    /// CPU of the workers before.
    pub cpu_before: f64,
    /// Busy share before.
    pub busy_before: f64,
    /// CPU pressure before.
    pub pressure_before: Option<f64>,
    /// The canary's latency before, in milliseconds.
    pub canary_before_ms: Option<f64>,
    /// Whether it was verified.
    pub verified: bool,
    /// How often disobedient workers were told again.
    pub told_again: u32,
    /// Since when the CPUs are saturated without a break.
    pub saturated_since: Option<Moment>,
    /// Since when it has been wide open.
    pub open_since: Option<Moment>,
}

impl State {
    /// Forgets a hold that could not be carried out, and waits before the next try.
    pub fn refused(&mut self, now: Moment, limits: &Limits) {
        self.hold = None;
        self.pressed_since = None;
        self.cooldown_until = Some(now.plus(limits.cooldown_unhelped));
    }
}

/// The decision.
pub fn decide(facts: &Facts<'_>, state: &State, limits: &Limits) -> (State, Decision) {
    let mut next = state.clone();
    let picture = Picture::of(facts, &mut next, limits);
    let mut withheld = None;
    let (act, verified) = match (state.hold.clone(), picture) {
        (Some(hold), picture) => hold::decide(facts, &mut next, hold, picture.as_ref(), limits),
        (None, Some(picture)) => match watch(facts, &mut next, &picture, limits) {
            Ok(act) => (act, None),
            Err(why) => {
                withheld = Some(why);
                (Act::Nothing, None)
            }
        },
        (None, None) => {
            next.pressed_since = None;
            (Act::Nothing, None)
        }
    };
    (next, Decision { act, verified, withheld })
}

/// Without a hold: is it time for one? `Err` says why there is none though it is.
fn watch(facts: &Facts<'_>, next: &mut State, picture: &Picture, limits: &Limits) -> Result<Act, &'static str> {
    if !picture.pressing(limits) {
        next.pressed_since = None;
        if next.proposed.is_some_and(|seen| facts.now.since(seen) >= limits.unhelped_for) {
            next.proposed = None;
        }
        return Ok(Act::Nothing);
    }
    let since = *next.pressed_since.get_or_insert(picture.window_start);
    if let Some(seen) = &mut next.proposed {
        *seen = facts.now;
        return Ok(Act::Nothing);
    }
    let confirm = if picture.strong { limits.confirm_strong } else { limits.confirm_weak };
    if facts.now.since(since) < confirm || next.cooldown_until.is_some_and(|until| facts.now.boot_us < until.boot_us) {
        return Ok(Act::Nothing);
    }
    if oldest(facts).is_some_and(|(_, age)| age >= limits.wraparound_age) {
        return Ok(Act::Nothing);
    }
    let workers = choose::workers(facts, picture, next.spare_one, limits);
    if workers.is_empty() {
        return Ok(Act::Nothing);
    }
    if !ages_known(facts, limits) {
        return Err(AGES_UNKNOWN);
    }
    let pace = choose::lowest_pace(facts, limits).max(limits.first_pace);
    let setting = choose::setting(facts, pace);
    let reason = picture.in_words(&workers, facts);
    if facts.may_act {
        let cpu_before = facts.workers.iter().filter(|w| workers.contains(&w.process)).map(|w| w.cpu.0).sum();
        next.hold = Some(Hold {
            since: facts.now,
            workers: workers.clone(),
            pace,
            setting,
            adjusted: facts.now,
            cpu_before,
            busy_before: picture.busy,
            pressure_before: picture.pressure,
            canary_before_ms: next.canary_ms,
            verified: false,
            told_again: 0,
            saturated_since: Some(since),
            open_since: None,
        });
    } else {
        next.proposed = Some(facts.now);
    }
    Ok(Act::Engage { workers, setting, reason })
}

/// Whether there is a reading of ages that is new enough to act on.
fn ages_known(facts: &Facts<'_>, limits: &Limits) -> bool {
    facts.tables.is_some_and(|tables| !tables.ages.is_empty() && facts.now.since(tables.at) < limits.ages_lost)
}

/// The database with the oldest transaction or multixact ids.
fn oldest<'a>(facts: &Facts<'a>) -> Option<(&'a DatabaseName, u64)> {
    let ages = &facts.tables?.ages;
    ages.iter().map(|age| (&age.database, age.xid_age.max(age.multixact_age))).max_by_key(|(_, age)| *age)
}

/// A small table with many dead tuples that no worker is at.
fn waiting_hot_table<'a>(facts: &Facts<'a>, limits: &Limits) -> Option<&'a TableName> {
    const BLOCK: u64 = 8_192;
    let at = |relation: Oid, table: &TableName| {
        facts.workers.iter().any(|w| w.relation == Some(relation) || w.table.as_ref() == Some(table))
    };
    facts
        .tables?
        .worst
        .iter()
        .find(|t| {
            let owed = (t.live as f64 * limits.hot_dead_share).max(limits.hot_dead_floor as f64);
            t.size.0 < limits.small_table_blocks * BLOCK && t.dead as f64 >= owed && !at(t.relation, &t.table)
        })
        .map(|t| &t.table)
}
