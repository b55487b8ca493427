//! Memory exhaustion: a service grows and grows beside a query that needs much memory, in a control group that is too small for both. Once with nobody watching,
//! which ends as the kernel wants it to; once with a guard that may stop the service.
//!
//! ```text
//! group     the control group       (edges)
//! hog       the service that grows  (edges)
//! clients   who uses the server     (edges)
//! play      the two acts, and what was measured
//! judge     what to think of it     (pure)
//! ```

mod clients;
mod group;
pub(crate) mod hog;
mod judge;
mod play;

use serde::{Deserialize, Serialize};

pub(crate) use self::play::{EXPECTED, play};
use crate::result::Verdict;

/// The service that grows, and that may be stopped (`shed = 1`).
pub(crate) const HOG: &str = "thumbnails";
/// The control group's limit, in bytes: the small server's memory.
pub(crate) const LIMIT_BYTES: u64 = 1 << 30;
/// The service grows by this much in a second, in bytes.
pub(crate) const GROWS_BY_BYTES: u64 = 32 << 20;
/// Rows of the query's result. It holds all of them in its memory, some 900 bytes each: less than the limit and, when that is reached, more than the service has.
pub(crate) const ROWS: u32 = 700_000;
/// The guard's alert speaks below this share of the memory, in per cent.
pub(crate) const LOW_PERCENT: u32 = 25;
/// And the ladder acts below this one; its default is 4 % for 20 s, which a drill has no time for.
pub(crate) const CRITICAL_PERCENT: u32 = 15;

/// The version of [`Oom`]'s JSON: raised when a field changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

/// What became of those who use the server. Seconds since the service began to grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OomClients {
    /// Rows that the large query gave.
    pub rows: u32,
    /// When it was done; none where it was not.
    pub query_done_s: Option<f64>,
    /// With which words it ended otherwise.
    pub query_failed: Option<String>,
    /// How often somebody else's small query was answered.
    pub answered: u32,
    /// How often it was not, or its session was lost.
    pub failed: u32,
}

/// The exhaustion with nobody watching. Seconds since the service began to grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OomAlone {
    /// When the kernel first killed something in the control group; none where it did not.
    pub killed_s: Option<f64>,
    /// How often it did.
    pub kills: u64,
    /// Whether the service that grew still ran then.
    pub hog_survived: bool,
    /// Those who use the server.
    pub clients: OomClients,
    /// What PostgreSQL's log says of a process that was killed, in a line.
    pub server_said: Option<String>,
}

/// The exhaustion with a guard. Seconds since the service began to grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OomGuarded {
    /// When less was left than the alert's threshold.
    pub low_s: Option<f64>,
    /// When the guard's rule decided.
    pub decided_s: Option<f64>,
    /// When the alert was at the webhook.
    pub delivered_s: Option<f64>,
    /// The alert's line for a lock screen.
    pub said: Option<String>,
    /// The processes that it names, as it does.
    pub named: Option<String>,
    /// When the ladder stopped services.
    pub stopped_s: Option<f64>,
    /// What it did, in its words.
    pub act: Option<String>,
    /// The reading that caused it.
    pub because: Option<String>,
    /// Rungs below that were passed, and why.
    pub passed: Vec<String>,
    /// The least that was left, in bytes.
    pub least_left_bytes: u64,
    /// How often the kernel killed something in the control group.
    pub kills: u64,
    /// What PostgreSQL's log says of a process that was killed, in a line.
    pub server_said: Option<String>,
    /// Those who use the server.
    pub clients: OomClients,
    /// When the service ran again, after there was memory enough.
    pub given_back_s: Option<f64>,
    /// Whether the guard stopped when asked.
    pub stopped_cleanly: bool,
}

/// An exhaustion of memory, what a guard saw of it and what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oom {
    /// The format's version.
    pub schema_version: u32,
    /// PostgreSQL's version.
    pub server: String,
    /// The control group's limit, in bytes.
    pub limit_bytes: u64,
    /// Rows that the large query has.
    pub rows: u32,
    /// With nobody watching.
    pub alone: OomAlone,
    /// With a guard.
    pub guarded: OomGuarded,
    /// What still ran after everything had been stopped.
    pub left: Vec<String>,
    /// What to think of it.
    pub verdict: Verdict,
}
