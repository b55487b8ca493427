//! What a plan consists of.

use std::{collections::BTreeMap, fmt, time::Duration};

use model::ServiceName;
use serde::{Deserialize, Serialize};

use super::Limit;
use crate::{
    graph::Graph,
    health::Remedy,
    state::{State, Status, shown},
};

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Started: it is down.
    Start,
    /// Stopped and started: it runs badly, or its supervisor would wait on.
    Restart,
    /// Made again from its declared definition. Always needs a person's approval.
    Provision,
    /// Of a database: its damaged data directory is set aside, and restored from a backup. Always needs a person's approval.
    Restore,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Provision => "provision",
            Self::Restore => "restore",
        })
    }
}

/// What has to hold at the moment of acting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// That service is stable.
    Stable(ServiceName),
    /// The service itself still needs the act.
    StillNeeds(ServiceName, Action),
    /// A person approved it.
    Approved(ServiceName),
    /// It is still this that it would be restored from: what was approved.
    StillOffered(ServiceName, Remedy),
}

impl Precondition {
    /// Of which service it speaks.
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::Stable(name) | Self::StillNeeds(name, _) | Self::Approved(name) | Self::StillOffered(name, _) => name,
        }
    }

    /// Whether it holds, by states that were looked up just now.
    pub fn holds(&self, graph: &Graph, statuses: &[Status], approved: impl Fn(&ServiceName) -> bool) -> bool {
        let state = |name: &ServiceName| graph.id(name).and_then(|id| statuses.get(id.index())).map(|one| &one.state);
        match self {
            Self::Stable(name) => state(name) == Some(&State::Stable),
            Self::Approved(name) => approved(name),
            Self::StillOffered(name, remedy) => {
                matches!(state(name), Some(State::Damaged { offer, .. }) if offer.remedy.as_ref() == Some(remedy))
            }
            Self::StillNeeds(name, action) => matches!(
                (state(name), action),
                (Some(State::Broken { how: crate::state::Broken::Down { .. } }), Action::Start)
                    | (Some(State::Removed), Action::Provision)
                    | (Some(State::Damaged { .. }), Action::Restore)
                    | (Some(State::Broken { .. } | State::Stuck { .. } | State::Wrong { .. }), Action::Restart)
            ),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable(name) => write!(f, "{name} is stable"),
            Self::StillNeeds(name, action) => write!(f, "{name} still needs a {action}"),
            Self::Approved(name) => write!(f, "a person approved the act on {name}"),
            Self::StillOffered(name, remedy) => write!(f, "{name} is offered {}", remedy.from),
        }
    }
}

/// One act of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// On which service.
    pub service: ServiceName,
    /// What.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// What has to hold when it is done; looked up again just before.
    pub preconditions: Vec<Precondition>,
    /// The number of this attempt, from one.
    pub attempt: u32,
    /// When it is expected to be done, on the boot clock.
    pub at: Duration,
    /// How long until it is expected to be stable.
    pub takes: Duration,
    /// Whether it is to be done now. All others are what is expected to follow.
    pub due: bool,
    /// Whether it waits for a person's approval.
    pub needs_approval: bool,
    /// From what a database is restored.
    pub remedy: Option<Remedy>,
}

/// A service that the plan does nothing about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Which.
    pub service: ServiceName,
    /// Why.
    pub why: String,
}

/// Why a person is called, with what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// Too little is seen to act on. Everything stops.
    Blind {
        /// Services without a fresh observation.
        unknown: usize,
        /// Of how many.
        of: usize,
    },
    /// Services that were stable broke by themselves. Everything stops.
    Worse {
        /// Which.
        lost: Vec<ServiceName>,
    },
    /// Attempts failed.
    GivenUp {
        /// Of which service.
        service: ServiceName,
        /// How many.
        failed: u32,
        /// How the last one ended.
        why: String,
    },
    /// A budget is used up.
    OverBudget {
        /// Of which service; `None`: of all together.
        service: Option<ServiceName>,
        /// Which bound.
        limit: Limit,
    },
    /// A database in crash recovery that doesn't advance.
    NotAdvancing {
        /// Which.
        service: ServiceName,
    },
    /// A service that shuts down and doesn't advance.
    NotEnding {
        /// Which.
        service: ServiceName,
    },
    /// A database whose data directory is damaged.
    Damaged {
        /// Which.
        service: ServiceName,
        /// What is damaged.
        why: String,
        /// What it can be brought back from, and how.
        offer: String,
    },
    /// A service that needs a hand and has no driver that could give it.
    External {
        /// Which.
        service: ServiceName,
        /// What is wrong with it.
        state: String,
    },
    /// Acts were begun and never handed over: whoever acts dies again and again.
    Interrupted {
        /// On which service.
        service: ServiceName,
        /// How often in a row.
        times: u32,
    },
    /// A service that can't be seen.
    Unseen {
        /// Which.
        service: ServiceName,
        /// Why not.
        why: String,
    },
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blind { unknown, of } => {
                write!(
                    f,
                    "{unknown} of {of} services can't be seen: nothing more is done; look at the drivers and the network"
                )
            }
            Self::Worse { lost } => {
                let names: Vec<&str> = lost.iter().map(ServiceName::as_str).collect();
                write!(
                    f,
                    "it gets worse: {} were stable and broke by themselves; nothing more is done",
                    names.join(", ")
                )
            }
            Self::GivenUp { service, failed, why } => {
                let why = shown(why);
                write!(f, "{service} is given up after {failed} failed attempts (last: {why}); look at its log")
            }
            Self::OverBudget { service: Some(service), limit } => {
                write!(f, "{service} was started or restarted {limit}, which is its budget; it flaps: look at its log")
            }
            Self::OverBudget { service: None, limit } => {
                write!(f, "all services together were restarted {limit}, which is the budget")
            }
            Self::NotAdvancing { service } => {
                write!(
                    f,
                    "{service} is in crash recovery and doesn't advance; look at its disk and its log, and don't restart it"
                )
            }
            Self::NotEnding { service } => {
                write!(
                    f,
                    "{service} is shutting down and doesn't advance; look at its sessions, at what receives its WAL, at its disk and its log; a kill would be a crash"
                )
            }
            Self::Damaged { service, why, offer } => {
                write!(f, "{service} can't be started, its data directory is damaged: {}", shown(why))?;
                if offer.is_empty() { Ok(()) } else { write!(f, ". {offer}") }
            }
            Self::External { service, state } => {
                write!(
                    f,
                    "{service}: {}, and no driver is declared for it: somebody else has to start it",
                    shown(state)
                )
            }
            Self::Unseen { service, why } => write!(f, "{service} can't be seen: {}", shown(why)),
            Self::Interrupted { service, times } => {
                write!(
                    f,
                    "acts on {service} were begun {times} times and never handed over: whoever acts dies in the midst of it; look at its log and at the host's memory"
                )
            }
        }
    }
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that is meant to run, and can by what it needs, is stable.
    Done,
    /// There is something to do or to wait for.
    Working,
    /// All that is left waits for an approval.
    NeedsApproval,
    /// All that is left needs a person.
    Escalated,
}

/// What is to be done, and how it is expected to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When it was made, on the boot clock.
    pub made_at: Duration,
    /// The acts in the order of their expected times.
    pub steps: Vec<Step>,
    /// Services on their way, with when they are expected to be stable.
    pub in_flight: Vec<(ServiceName, Duration)>,
    /// Services that nothing is done about.
    pub blocked: Vec<Blocked>,
    /// Why a person is called.
    pub escalations: Vec<Escalation>,
    /// How things stand.
    pub outcome: Outcome,
    /// When all that isn't blocked is expected to be stable.
    pub expected_end: Option<Duration>,
}

impl Plan {
    /// The steps to be done now.
    pub fn due(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.due)
    }

    /// How many services each service that isn't stable keeps waiting, by name: for reports.
    pub fn blocked_by_reason(&self) -> BTreeMap<&str, Vec<&ServiceName>> {
        let mut reasons: BTreeMap<&str, Vec<&ServiceName>> = BTreeMap::new();
        for blocked in &self.blocked {
            reasons.entry(&blocked.why).or_default().push(&blocked.service);
        }
        reasons
    }
}
