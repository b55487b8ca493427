//! What guard and the worker that brings services back say to each other: one JSON document a line (`guard::lines`).
//!
//! The worker makes its drivers and probes itself, from the configuration: nothing secret passes here. It ends when its input does, for then
//! the guard is gone; the services go on.

use std::time::Duration;

use model::{EventKind, Mode, ServiceName, reading::Health};
use serde::{Deserialize, Serialize};
use services::plan::Action;

use crate::config::Config;

/// Both ends must be of one version: they are of one binary, unless that was replaced while the guard ran.
pub const PROTOCOL: u32 = 2;

/// From the guard, first and last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Begin {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The guard's configuration as it is in force; it holds no secrets.
    pub config: Box<Config>,
}

/// Who stopped a service, where the ladder did.
pub const STOPPED_BY: &str = "the shedding ladder";

/// From the guard, after the greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToWorker {
    /// The order's number; it is answered by [`ToGuard::Obeyed`].
    pub order: u64,
    /// Whether these are to be stopped on purpose, or given back.
    pub stop: bool,
    /// Which. They are stopped in the order against their needs, and brought back by the plan.
    pub services: Vec<ServiceName>,
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToGuard {
    /// Something for the journal and the rules.
    Event {
        /// What.
        kind: Box<EventKind>,
    },
    /// How things stand, after each round that changed something and at least every [`super::SAID_EVERY`].
    Status(Box<RecoveryStatus>),
    /// What came of an order.
    Obeyed {
        /// Its number.
        order: u64,
        /// Why it failed, where it did.
        failed: Option<String>,
    },
    /// It can't go on. Last.
    Failed {
        /// Why, with a hint.
        error: String,
    },
}

/// How the services are, and what is done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    /// How far it may go.
    pub mode: Mode,
    /// Whether it is the one who acts now: with mode `act`, and nobody else at it.
    pub acting: bool,
    /// Each service, in the order of the configuration.
    pub services: Vec<ServiceSeen>,
    /// What comes next, in the order of the expected times. At most [`STEPS_MAX`].
    pub steps: Vec<NextStep>,
    /// In what time all that is not blocked is expected to be stable.
    pub expected: Option<Duration>,
    /// Why a person is needed.
    pub escalations: Vec<String>,
    /// What waits for an approval.
    pub approval: Option<ApprovalWanted>,
    /// What hinders the worker itself.
    pub problem: Option<String>,
}

/// Steps that are told.
pub const STEPS_MAX: usize = 8;

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSeen {
    /// Its name.
    pub service: ServiceName,
    /// How it is, in words.
    pub state: String,
    /// Whether nothing has to be done about it: it is stable, on the way to it, or stopped on purpose.
    pub well: bool,
    /// Who stopped it, where it was stopped on purpose.
    #[serde(default)]
    pub stopped_by: Option<String>,
    /// How it is to whoever uses it; `None` where nothing fresh is known.
    #[serde(default)]
    pub health: Option<Health>,
    /// Whether its process runs; `None` where that is not known.
    #[serde(default)]
    pub runs: Option<bool>,
    /// Whether it runs and shuts down.
    #[serde(default)]
    pub stops: bool,
}

/// A step that is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    /// On which service.
    pub service: ServiceName,
    /// What.
    pub action: Action,
    /// In what time.
    pub in_time: Duration,
    /// Why.
    pub reason: String,
}

/// Steps that a person has to say yes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalWanted {
    /// The plan's hash, for `oxpecker approve`.
    pub plan: String,
    /// What would be done.
    pub what: Vec<String>,
}
