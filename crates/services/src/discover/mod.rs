//! Edges that a host's own files and sessions suggest, with evidence and confidence. They are proposed as configuration to paste; nothing is ever added silently.
//!
//! The parsers take texts and rows that somebody else read. No value of an environment variable, no password and no query is kept: of a connection string only
//! its kind, host, port and database are.

pub mod activity;
pub mod compose;
pub mod dsn;
pub mod environment;
pub mod proposal;
pub mod reached;
pub mod settle;
pub mod systemd;
pub mod variables;
mod yaml;

use model::ServiceName;

pub use self::proposal::Proposal;

/// How sure a proposed edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// It may be no need at all, as an order between units is.
    Low,
    /// A guess by names or addresses.
    Medium,
    /// Somebody wrote it down, or it was observed.
    High,
}

impl std::fmt::Display for Confidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

/// A proposed edge by one piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who needs.
    pub service: ServiceName,
    /// What it needs.
    pub need: ServiceName,
    /// Where it was found: a file with its line, a unit, a session.
    pub place: String,
    /// What was found there.
    pub what: String,
    /// How sure that is.
    pub confidence: Confidence,
}

/// Something that runs and could be a service of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it would be called.
    pub service: ServiceName,
    /// Who runs it.
    pub how: How,
    /// Where it was found.
    pub place: String,
    /// What a person should know before pasting it.
    pub remarks: Vec<String>,
    /// Its supervisor asks it for its health.
    pub has_health: bool,
    /// A TCP port on this host that leads to it.
    pub health_port: Option<u16>,
    /// Why it is proposed as a comment only; `None` where it is proposed.
    pub held_back: Option<String>,
    /// It stands in the proposal even where nothing needs it and it needs nothing.
    pub alone: bool,
}

impl Candidate {
    /// With nothing known of it but who runs it and where it was found.
    pub fn new(service: impl Into<ServiceName>, how: How, place: String) -> Self {
        let service = service.into();
        Self {
            service,
            how,
            place,
            remarks: vec![],
            has_health: false,
            health_port: None,
            held_back: None,
            alone: true,
        }
    }
}

/// Who runs a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// A container engine, for compose.
    Docker {
        /// The compose project.
        project: String,
        /// The service's name in it.
        service: String,
    },
    /// systemd.
    Systemd {
        /// The unit, with its suffix.
        unit: String,
    },
    /// Nobody here: another host, or a service of a provider.
    Elsewhere {
        /// Where it answers.
        endpoint: dsn::Endpoint,
    },
    /// Nobody knows: only a file of variables speaks of it.
    Unknown,
}

impl How {
    /// The keys of the configuration that say it; `None` where nobody here runs it.
    pub fn keys(&self) -> Option<String> {
        let quoted = proposal::quoted;
        match self {
            Self::Docker { project, service } => {
                Some(format!("driver = \"docker\", project = {}, service = {}", quoted(project), quoted(service)))
            }
            Self::Systemd { unit } => Some(format!("driver = \"systemd\", unit = {}", quoted(unit))),
            Self::Elsewhere { .. } | Self::Unknown => None,
        }
    }
}

/// A service that answers at an address: what hosts and ports of connection strings are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The service.
    pub service: ServiceName,
    /// Names and addresses that lead to it, in lower case.
    pub hosts: Vec<String>,
    /// Its port, where it is known.
    pub port: Option<u16>,
}

/// The service that answers there, by host and, where both know one, port. `None` also where two would do.
pub fn answering<'a>(known: &'a [Known], host: &str, port: Option<u16>) -> Option<&'a Known> {
    let host = host.to_ascii_lowercase();
    let mut fitting = known.iter().filter(|one| {
        let same_port = one.port.is_none() || port.is_none() || one.port == port;
        same_port && one.hosts.contains(&host)
    });
    let first = fitting.next()?;
    fitting.all(|other| other.service == first.service).then_some(first)
}

/// Whether a name can be a service's: names from outside are data of strangers.
fn usable(name: &str) -> bool {
    !name.trim().is_empty() && name.trim() == name && name.len() <= 255 && !name.chars().any(char::is_control)
}

/// Words from outside, safe in a comment and on a terminal.
fn plain(text: &str) -> String {
    const PLAIN_MAX: usize = 160;
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PLAIN_MAX).collect()
}
