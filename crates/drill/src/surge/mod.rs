//! The connection surge: one client opens sessions and never closes one, until nobody else gets in. Once with nobody watching, once with a guard that may end
//! idle sessions of the role that leaks.
//!
//! ```text
//! clients   the sessions                         (edges)
//! play      the two acts, and what was measured  (edges)
//! judge     what to think of it                  (pure)
//! ```

mod clients;
mod judge;
mod play;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::play::{EXPECTED, play};
use crate::result::Verdict;

/// The role whose client opens sessions and closes none: the only one that the configuration names.
pub(crate) const LEAKING: &str = "site";
/// What that client calls itself.
pub(crate) const LEAKY: &str = "leaky-pool";
/// A role with idle sessions of its own, older than all others: they are nobody's to end.
pub(crate) const BYSTANDER: &str = "bot";
/// One of it that wants a connection when there is none left.
pub(crate) const NEWCOMER: &str = "visitor";
/// `max_connections` of the scratch cluster.
pub(crate) const MAX_CONNECTIONS: u32 = 60;
/// Of those the superuser's (`superuser_reserved_connections`, PostgreSQL's default).
pub(crate) const RESERVED: u32 = 3;
/// From which share of what is left to the others the guard ends sessions, in per cent: its default.
pub(crate) const RELIEF_FROM_PERCENT: u32 = 80;
/// A session is opened this often.
pub(crate) const OPENED_EVERY: Duration = Duration::from_millis(16);

/// The version of [`Surge`]'s JSON: raised when a field changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

/// The same surge with nobody watching. Seconds since the first of its sessions was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurgeAlone {
    /// Sessions that were opened.
    pub opened: usize,
    /// When the next was refused; none where that did not come.
    pub exhausted_s: Option<f64>,
    /// How often a newcomer was refused after that.
    pub refused: u32,
    /// For how long it tried.
    pub tried_for_s: f64,
    /// When it got in; none where it did not.
    pub let_in_s: Option<f64>,
}

/// The surge with a guard. Seconds since the first of its sessions was opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurgeGuarded {
    /// Sessions that were opened.
    pub opened: usize,
    /// When the next was refused; none where relief was faster.
    pub exhausted_s: Option<f64>,
    /// When the guard's rule decided.
    pub decided_s: Option<f64>,
    /// When the alert was at the webhook.
    pub delivered_s: Option<f64>,
    /// The alert's line for a lock screen.
    pub said: Option<String>,
    /// Who it says grew: a role.
    pub named_role: Option<String>,
    /// And an `application_name`.
    pub named_application: Option<String>,
    /// How often a newcomer was refused.
    pub refused: u32,
    /// When one got in.
    pub let_in_s: Option<f64>,
    /// Sessions that the journal says were ended: of the leaking role.
    pub ended: usize,
    /// Of these, in a transaction.
    pub ended_in_transaction: usize,
    /// And of anybody else.
    pub ended_of_others: usize,
    /// When the first was ended, and the last.
    pub ended_from_to_s: Option<(f64, f64)>,
    /// What the journal gives as cause of the first.
    pub ended_because: Option<String>,
    /// Sessions of the surge that are gone, as their client sees it.
    pub gone: usize,
    /// Sessions that were not to be touched: idle ones of another role, and working ones of the same.
    pub bystanders: usize,
    /// Of those, that still answer.
    pub bystanders_left: usize,
    /// Connections in use at the end, the guard's with them.
    pub used_after: Option<u32>,
    /// How often the guard read the server between the first session and the newcomer's.
    pub readings: usize,
    /// The longest time in that in which it did not.
    pub longest_gap_s: f64,
    /// Whether a superuser got in while others were refused.
    pub superuser_in: bool,
    /// Whether the guard stopped when asked.
    pub stopped_cleanly: bool,
}

/// A surge of connections, what a guard saw of it and what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surge {
    /// The format's version.
    pub schema_version: u32,
    /// PostgreSQL's version.
    pub server: String,
    /// Connections that ordinary clients may use.
    pub usable: u32,
    /// From how many on the guard may end sessions.
    pub relief_from: u32,
    /// With nobody watching.
    pub alone: SurgeAlone,
    /// With a guard.
    pub guarded: SurgeGuarded,
    /// What still ran after everything had been stopped.
    pub left: Vec<String>,
    /// What to think of it.
    pub verdict: Verdict,
}

/// Connections that ordinary clients may use.
const fn usable() -> u32 {
    MAX_CONNECTIONS - RESERVED
}

/// From so many on the guard may end sessions.
const fn relief_from() -> u32 {
    (usable() * RELIEF_FROM_PERCENT).div_ceil(100)
}
