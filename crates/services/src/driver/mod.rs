//! Who runs the services: one interface for all that can start and stop something.
//!
//! A driver is told its services once, when it is made. It lists how they are, acts on one, and says when another look is worth it; nothing of how it does so
//! leaves its module. The planner never sees a driver: it sees [`Seen`] turned into [`crate::health::Observation`].

pub mod docker;
pub mod process;
pub mod systemd;

use std::{fmt, future::Future, pin::Pin};

use model::ServiceName;

use crate::{
    health::{Answer, Process, Progress},
    plan::Action,
};

/// What a driver does takes its time. Boxed, so that drivers of several kinds stand in one list.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a driver sees of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it runs.
    pub process: Process,
    /// What tells this run from the one before: the start's time or number. `None` where it can't be told.
    pub run: Option<u64>,
    /// What the supervisor itself says of its health (systemd's `activating`, a container's health check); `None` where it says nothing.
    pub health: Option<Answer>,
    /// How far a start has come, where the supervisor knows.
    pub progress: Option<Progress>,
    /// Who stopped it, where it was stopped on purpose with this driver's own means and must stay so (a masked unit).
    pub stopped_by: Option<String>,
}

impl Seen {
    /// What is said of a service that could not be looked at.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::of(Process::Unknown { why: why.into() })
    }

    /// A process state, and nothing else known.
    pub fn of(process: Process) -> Self {
        Self { process, run: None, health: None, progress: None, stopped_by: None }
    }
}

/// What a driver can do to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Start it; nothing where it runs already.
    Start,
    /// Stop and start it.
    Restart,
    /// Stop it; nothing where it doesn't run.
    Stop,
    /// Make it again from its declared definition, and start it.
    Provision,
    /// Set its damaged data directory aside, restore it from a backup, and start it. Whoever has the backup wraps the driver; none does it itself.
    Restore,
}

impl From<Action> for Act {
    fn from(action: Action) -> Self {
        match action {
            Action::Start => Self::Start,
            Action::Restart => Self::Restart,
            Action::Provision => Self::Provision,
            Action::Restore => Self::Restore,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Provision => "provision",
            Self::Restore => "restore",
        })
    }
}

/// Why an act was not done. Each says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// We may not.
    #[error("not allowed to {act} {service}: {why}\nhint: {hint}")]
    Denied {
        /// The act.
        act: Act,
        /// On which service.
        service: ServiceName,
        /// What the supervisor answered.
        why: String,
        /// What would allow it.
        hint: String,
    },
    /// There is no such unit, container or program.
    #[error("cannot {act} {service}: {why}\nhint: {hint}")]
    Absent {
        /// The act.
        act: Act,
        /// On which service.
        service: ServiceName,
        /// What is not there.
        why: String,
        /// What to look at.
        hint: String,
    },
    /// The supervisor could not be reached, or did not answer in time: whether it was done is not known. Looking again tells.
    #[error("no answer when told to {act} {service}: {why}\nhint: {hint}")]
    NoAnswer {
        /// The act.
        act: Act,
        /// On which service.
        service: ServiceName,
        /// What failed.
        why: String,
        /// What to look at.
        hint: String,
    },
    /// It was tried and failed.
    #[error("{act} of {service} failed: {why}\nhint: {hint}")]
    Failed {
        /// The act.
        act: Act,
        /// On which service.
        service: ServiceName,
        /// What was answered.
        why: String,
        /// What to look at.
        hint: String,
    },
}

impl ActError {
    /// What a driver says that is told to restore: it has no backup.
    pub(crate) fn no_backup(service: &ServiceName) -> Self {
        Self::Absent {
            act: Act::Restore,
            service: service.clone(),
            why: "who runs it has no backup of it".to_owned(),
            hint: "oxpecker restore, by hand".to_owned(),
        }
    }
}

/// Something that runs services: a supervisor of our own, systemd, a container engine, later Kubernetes.
pub trait Driver: Send + Sync {
    /// What it is called in the configuration.
    fn kind(&self) -> &'static str;

    /// One look at all of its services, in the order in which they were declared. Never fails as a whole: what can't be seen is
    /// [`Process::Unknown`] and says why. Bounded in time by the driver.
    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>>;

    /// Acts on one service and returns once the supervisor has taken it on (not: once it is healthy). Idempotent. Bounded in time by the driver.
    fn act<'a>(&'a self, service: &'a ServiceName, act: Act) -> Doing<'a, Result<(), ActError>>;

    /// Does what keeps sight of its services, such as giving one whose keeper was killed a new one; nothing where there is nothing to be done. Only whoever may act
    /// calls it: `list` and `changed` write nothing and start nothing. Bounded in time by the driver.
    fn tend(&self) -> Doing<'_, ()> {
        Box::pin(async {})
    }

    /// Returns when something about one of its services may have changed since the last call: by the supervisor's own events, not by asking again and again.
    /// A driver whose supervisor has none never returns; whoever calls it looks at intervals too.
    fn changed(&self) -> Doing<'_, ()>;
}
