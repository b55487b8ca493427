//! What can be wrong with a graph.

use std::fmt;

use model::ServiceName;

use super::{EDGES_MAX, NAME_BYTES_MAX, SERVICES_MAX, Service};

/// Problems that are written out; the rest is counted.
const SHOWN_MAX: usize = 20;
/// Names that are compared to find the one that was meant.
const COMPARED_MAX: usize = 2_000;

/// One thing that is wrong with the services of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// More than any machine has.
    #[error(
        "{services} services with {edges} needs are more than the {SERVICES_MAX} and {EDGES_MAX} that are planned for; was one list pasted twice?"
    )]
    TooMany {
        /// How many services there are.
        services: usize,
        /// How many needs they have together.
        edges: usize,
    },
    /// A name that can't be shown or typed.
    #[error("a service can't be called {name:?}: {why}; give it another name")]
    BadName {
        /// The name.
        name: ServiceName,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two services of one name.
    #[error("two services are called {:?}; rename one, or merge the two tables", .name.as_str())]
    Duplicate {
        /// The name.
        name: ServiceName,
    },
    /// A need that is no service.
    #[error("service {:?} needs {:?}, which is not configured; {}", .name.as_str(), .need.as_str(), meant(.nearest.as_ref()))]
    Unknown {
        /// Who needs it.
        name: ServiceName,
        /// What it needs.
        need: ServiceName,
        /// The configured name that is most like it.
        nearest: Option<ServiceName>,
    },
    /// A service that waits for itself.
    #[error("service {:?} needs itself and could never be started; remove it from its own depends_on", .name.as_str())]
    NeedsItself {
        /// The service.
        name: ServiceName,
    },
    /// Services that wait for one another.
    #[error("services need one another in a circle, so that none could ever be started: {}; remove the need that is not one at the start (a vault that needs the database whose password it holds: let one of them start without the other)", circle(.names))]
    Cycle {
        /// The members; each needs the next one, the last one needs the first.
        names: Vec<ServiceName>,
    },
}

fn meant(nearest: Option<&ServiceName>) -> String {
    match nearest {
        Some(name) => format!("did you mean {:?}?", name.as_str()),
        None => "add a [[service]] of that name or remove the need".to_owned(),
    }
}

fn circle(names: &[ServiceName]) -> String {
    let around = names.iter().chain(names.first()).map(|name| format!("{:?}", name.as_str()));
    around.collect::<Vec<_>>().join(" -> ")
}

/// All that is wrong with the services of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

pub(super) fn bad_name(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("it is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Some("it is longer than 255 bytes")
    } else if name.chars().any(char::is_control) {
        Some("it contains a control character")
    } else if name.trim() != name {
        Some("it begins or ends with a space")
    } else {
        None
    }
}

pub(super) fn nearest(need: &ServiceName, services: &[Service]) -> Option<ServiceName> {
    if need.as_str().len() > NAME_BYTES_MAX {
        return None;
    }
    let near = services.iter().take(COMPARED_MAX).filter(|service| service.name.as_str().len() <= NAME_BYTES_MAX);
    let scored = near.map(|service| (strsim::jaro_winkler(need.as_str(), service.name.as_str()), &service.name));
    let best = scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, name)| name.clone())
}
