//! Which events belong together: from a journal to its incidents.
//!
//! An incident is opened by the first of these *conditions* on a cluster: an alert of at least warning that fires, PostgreSQL that
//! does not serve, a service that is unhealthy. Conditions that overlap, or follow each other within
//! [`IncidentRules::quiet_gap`], are one incident. It starts with the earliest sign of any of them (an alert's `since`) and ends when
//! the last of them ended. What else happened meanwhile, shortly before, or later to the same alerts, workers and throttles is its
//! evidence.

use std::{fmt, str::FromStr, time::Duration};

use model::{Alert, EventId, ServiceName, Severity};
use serde::Serialize;

use crate::{
    Cites, Detection, Engagement, Fact, Gap, Placed, SCHEMA_VERSION, ServerImpact, ServiceImpact, Span, Stamp,
    VacuumFacts,
};

/// When conditions are one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentRules {
    /// The longest time without any condition within one incident: a relapse sooner than this is the same incident.
    pub quiet_gap: Duration,
    /// How far back from its start events count as its leadup.
    pub leadup: Duration,
}

impl Default for IncidentRules {
    /// Five and ten minutes.
    fn default() -> Self {
        Self { quiet_gap: Duration::from_secs(5 * 60), leadup: Duration::from_secs(10 * 60) }
    }
}

/// The name of an incident: `I-17`, after the first journaled event that showed it (`E17`).
///
/// Stable: later events never change it. Only when retention has dropped that event from the journal is the rest of an incident known by
/// its first event that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct IncidentId(pub EventId);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I-{}", self.0.0)
    }
}

impl From<IncidentId> for String {
    fn from(id: IncidentId) -> Self {
        id.to_string()
    }
}

/// A text that names no incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIncidentIdError(String);

impl fmt::Display for ParseIncidentIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' names no incident: expected I- and a number, such as I-17; `oxpecker incident list` shows them",
            self.0
        )
    }
}

impl std::error::Error for ParseIncidentIdError {}

impl FromStr for IncidentId {
    type Err = ParseIncidentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("I-").or_else(|| text.strip_prefix("i-"));
        let number = number.filter(|n| !n.starts_with('+')).and_then(|n| n.parse().ok());
        number.map(|n| Self(EventId(n))).ok_or_else(|| ParseIncidentIdError(text.to_owned()))
    }
}

/// What kind of thing is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ConditionKind {
    /// An alert fires.
    Alert {
        /// The alert as it first fired with a severity of at least warning.
        alert: Box<Alert>,
    },
    /// PostgreSQL does not serve.
    ServerDown,
    /// A service is unhealthy.
    ServiceUnhealthy {
        /// Which.
        service: ServiceName,
    },
}

/// One thing that was wrong for some time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// What.
    #[serde(flatten)]
    pub kind: ConditionKind,
    /// The event that showed it.
    pub opened_by: EventId,
    /// Its earliest sign.
    pub since: Stamp,
    /// When it ended, if it did.
    pub ended: Option<Stamp>,
    /// The event that showed its end.
    pub ended_by: Option<EventId>,
    /// Set where `ended_by` does not report the end itself but the next episode of the same thing: the end lies somewhere between.
    pub end_unseen: bool,
}

impl Condition {
    /// How bad it is. A server that does not serve and a service that fails hurt now.
    pub fn severity(&self) -> Severity {
        match &self.kind {
            ConditionKind::Alert { alert } => alert.severity,
            ConditionKind::ServerDown | ConditionKind::ServiceUnhealthy { .. } => Severity::Critical,
        }
    }

    /// How long it lasted; up to `now` where it has not ended.
    pub fn lasted(&self, now: Stamp) -> Span {
        self.ended.unwrap_or(now).since(self.since)
    }
}

/// An incident: what was wrong, from when to when, and all that the journal has about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Its name.
    pub id: IncidentId,
    /// One line for lists.
    pub title: Fact,
    /// The cluster, where the journal names it.
    pub cluster: Option<String>,
    /// The worst of its conditions.
    pub severity: Severity,
    /// The earliest sign.
    pub start: Stamp,
    /// When the last condition ended; none while one is open.
    pub end: Option<Stamp>,
    /// The newest event that belongs to it: up to then an open incident is known.
    pub known_until: Stamp,
    /// From start to end, or to `known_until` while it is open.
    pub lasted: Span,
    /// What was wrong, in the order of the events that showed it.
    pub conditions: Vec<Condition>,
    /// How people came to know.
    pub detection: Detection,
    /// PostgreSQL's outages.
    pub server: ServerImpact,
    /// What each service that was touched lost.
    pub services: Vec<ServiceImpact>,
    /// Vacuums that ran meanwhile.
    pub vacuums: Vec<VacuumFacts>,
    /// What the governor did.
    pub throttles: Vec<Engagement>,
    /// Times in which nobody watched.
    pub gaps: Vec<Gap>,
    /// Every event that belongs to it, leadup included, in order. Not in JSON: the journal has them.
    #[serde(skip)]
    pub evidence: Vec<Placed>,
}

impl Incident {
    /// Whether something is still wrong, as far as the journal tells.
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Its end, or the last that is known.
    pub fn until(&self) -> Stamp {
        self.end.unwrap_or(self.known_until).max(self.start)
    }

    /// Alerts among its conditions.
    pub fn alerts(&self) -> impl Iterator<Item = (&Condition, &Alert)> {
        self.conditions.iter().filter_map(|c| match &c.kind {
            ConditionKind::Alert { alert } => Some((c, &**alert)),
            _ => None,
        })
    }

    /// Alerts of one rule.
    pub fn alerts_of<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = (&'a Condition, &'a Alert)> {
        self.alerts().filter(move |(_, alert)| alert.rule.0 == rule)
    }
}

/// Incidents as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentList {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Oldest first.
    pub incidents: Vec<Incident>,
}

impl From<Vec<Incident>> for IncidentList {
    fn from(incidents: Vec<Incident>) -> Self {
        Self { schema_version: SCHEMA_VERSION, incidents }
    }
}

/// The events of conditions: those that opened and ended them.
pub(crate) fn edges<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> Option<Cites> {
    Cites::of(conditions.into_iter().flat_map(|c| std::iter::once(c.opened_by).chain(c.ended_by)))
}
