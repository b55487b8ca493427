//! What guard and deliver worker say to each other: one JSON object per line, over the worker's stdin and stdout.
//!
//! The guard's first line is the greeting with the routes, secrets included: a pipe is read by nobody else, while arguments and
//! environment are shown by ps(1) and `/proc`. Both ends are the same binary, yet the protocol has a version: after an upgrade
//! on disk a running guard starts workers of the new version.

use model::{Alert, AlertState, alert::rule};
use serde::{Deserialize, Serialize};

use crate::{heartbeat::Heartbeat, peer::Peer, route::Route};

/// Version of the protocol.
pub(crate) const PROTOCOL: u32 = 5;

/// Longest line that either end takes, in bytes.
pub(crate) const MAX_LINE_BYTES: usize = 1 << 20;

/// From the guard to the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum ToWorker {
    /// First, once.
    Hello { protocol: u32, routes: Vec<Route>, heartbeat: Option<Heartbeat>, peer: Option<Peer> },
    /// Deliver this.
    Deliver { id: u64, route: String, alert: Box<Alert>, age_ms: u64 },
    /// Forget this: the guard dropped it.
    Forget { id: u64 },
    /// This still holds: tell a receiver that wants to hear it again and again. Not acknowledged.
    Remind { route: String, alert: Box<Alert> },
    /// The guard senses: its newest reading of the host was taken then, in microseconds on the boot clock. Not acknowledged.
    Sensed { boot_us: u64 },
    /// Are you there?
    Ping,
}

/// From the worker to the guard.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum ToGuard {
    /// The routes are understood; `problems` are those of single routes, without secrets.
    Ready { protocol: u32, problems: Vec<RouteProblem> },
    /// A route took an alert.
    Delivered { id: u64, attempt: u32 },
    /// An attempt failed; another follows unless `gave_up`.
    Failed { id: u64, attempt: u32, error: String, gave_up: bool },
    /// A heartbeat was taken, or so many in a row were not and this is why, without secrets.
    Heartbeat { missed: u32, error: Option<String> },
    /// The other guard was told that this one lives, or so many times in a row it could not be, and why.
    PeerTold { missed: u32, error: Option<String> },
    /// The other guard is listened for from now on; or it can't be, and why.
    PeerListens { error: Option<String> },
    /// The other guard was heard.
    PeerHeard,
    /// Yes.
    Pong,
}

/// A route that can't work as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RouteProblem {
    pub(crate) route: String,
    pub(crate) error: String,
}

/// Schema version of the JSON that webhooks get. Fields may be added within a version.
pub(crate) const WEBHOOK_SCHEMA: u32 = 1;

/// What a webhook gets: the alert and the version of this schema. Times are RFC 3339 with their zone.
#[derive(Debug, Serialize)]
pub(crate) struct WebhookBody<'a> {
    schema: u32,
    source: &'static str,
    key: &'a str,
    rule: &'a str,
    state: AlertState,
    severity: model::Severity,
    summary: &'a str,
    details: &'a [String],
    next_steps: &'a [String],
    labels: &'a std::collections::BTreeMap<String, String>,
    since: jiff::Timestamp,
    decided: jiff::Timestamp,
}

impl<'a> From<&'a Alert> for WebhookBody<'a> {
    fn from(alert: &'a Alert) -> Self {
        Self {
            schema: WEBHOOK_SCHEMA,
            source: "oxpecker",
            key: &alert.key.0,
            rule: &alert.rule.0,
            state: alert.state,
            severity: alert.severity,
            summary: &alert.summary,
            details: &alert.details,
            next_steps: &alert.next_steps,
            labels: &alert.labels,
            since: alert.since.wall,
            decided: alert.decided.wall,
        }
    }
}

/// What makes a delivery recognisable as a repetition: the episode's key and which end of it this is.
pub(crate) fn idempotency_key(alert: &Alert) -> String {
    let state = match alert.state {
        AlertState::Firing => "firing",
        AlertState::Resolved => "resolved",
    };
    if alert.rule.0 == rule::MEMBERS_WORD {
        // An outage has many words, each one is news.
        return format!("{}/{state}-{:x}", alert.key, alert.decided.boot_us);
    }
    format!("{}/{state}", alert.key)
}
