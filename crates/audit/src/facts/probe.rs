//! What can be asked over the network, and what came back.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::{Collector, Facts, VariableSource, live::Asked};
use crate::finding::Place;

/// Questions of one run; the rest is not asked, and said so.
pub const QUESTIONS_MAX: usize = 1_000;

/// The address in a variable: without user, password and path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The variable.
    pub name: String,
    /// `postgresql`, `https` ...
    pub scheme: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Where it stands.
    pub place: Place,
}

/// Schemes that are asked, with their ports.
const SCHEMES: &[(&str, u16)] = &[
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("redis", 6379),
    ("rediss", 6379),
    ("mongodb", 27017),
    ("amqp", 5672),
    ("amqps", 5671),
    ("http", 80),
    ("https", 443),
];

impl Address {
    /// The address that a variable's value is, if it is one that may be asked. Of web addresses only those of error reporting: others may do something
    /// when they are called.
    pub fn of(name: &str, value: &str, place: &Place) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once("://")?;
        // postgresql+asyncpg, as libraries write it.
        let scheme = scheme.split('+').next()?.to_ascii_lowercase();
        let (_, default) = SCHEMES.iter().find(|(known, _)| *known == scheme)?;
        if scheme.starts_with("http") && !name.to_ascii_uppercase().ends_with("DSN") {
            return None;
        }
        let authority = rest.split(['/', '?', '#']).next()?;
        let bare = authority.rsplit('@').next()?;
        // Several hosts, references and templates are nobody's address.
        if bare.is_empty() || bare.contains([',', '$', '{', '(', '<', '%']) {
            return None;
        }
        let (host, port) = match bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => bare.split_once(':').map_or((bare, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(*default), |port| port.parse().ok())?;
        let place = place.clone();
        Some(Self { name: name.to_owned(), scheme, host: host.to_ascii_lowercase(), port, place })
    }

    /// Whether only the cluster, the compose project or the pod itself knows the name.
    pub fn is_inside(&self) -> bool {
        // An address of either family, by its looks.
        let ip = self.host.contains(':') || self.host.chars().all(|c| c.is_ascii_digit() || c == '.');
        (!ip && !self.host.contains('.'))
            || self.host.ends_with(".svc")
            || self.host.ends_with(".local")
            || self.host.ends_with(".internal")
    }
}

/// Something to ask.
#[derive(Clone, Debug)]
pub enum Question {
    /// A host's page: does it answer, with which certificate, and does it send on as it should?
    Page {
        /// The host.
        host: String,
        /// Where it has to send on to.
        redirect: Option<String>,
        /// Where it is served or expected.
        place: Place,
    },
    /// An address in a variable: is someone there?
    Address(Address),
}

impl Question {
    /// `example.org`, or `DATABASE_URL`.
    pub fn subject(&self) -> &str {
        match self {
            Self::Page { host, .. } => host,
            Self::Address(address) => &address.name,
        }
    }
}

/// What a page or an address said.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Asked without encryption, as with encryption nobody answered.
    pub plain: bool,
    /// The status, of a page.
    pub status: Option<u16>,
    /// Why there is no status.
    pub failed: Option<String>,
    /// Where it sends on to.
    pub location: Option<String>,
    /// The last day of its certificate.
    pub expires: Option<Date>,
    /// Why a browser would not believe the certificate.
    pub untrusted: Option<String>,
}

/// A question with its answer, or why there is none.
pub type Probed = (Question, Asked<Answer>);

/// A certificate in the files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// `Secret/example-org-tls`.
    pub object: String,
    /// Where.
    pub place: Place,
    /// Its last day.
    pub expires: Date,
}

impl Collector {
    /// Everything that may be asked over the network, each once; and how many were left out.
    pub fn questions(&self) -> (Vec<Question>, usize) {
        let mut questions: Vec<Question> = pages(&self.facts);
        questions.extend(addresses(&self.facts).into_iter().map(Question::Address));
        let left_out = questions.len().saturating_sub(QUESTIONS_MAX);
        questions.truncate(QUESTIONS_MAX);
        (questions, left_out)
    }

    /// Takes what came back.
    pub fn probes(&mut self, probes: Vec<Probed>, left_out: usize) {
        self.facts.probes = Some(probes);
        self.facts.not_probed = left_out;
    }
}

fn pages(facts: &Facts) -> Vec<Question> {
    let mut hosts: BTreeMap<&str, (Option<&str>, &Place)> = BTreeMap::new();
    for expected in &facts.expected {
        let (redirect, _) = hosts.entry(&expected.host).or_insert((None, &expected.place));
        *redirect = redirect.or(expected.redirect.as_deref());
    }
    for host in facts.routes.iter().flat_map(|route| &route.hosts) {
        hosts.entry(&host.value).or_insert((None, &host.place));
    }
    let concrete = hosts.into_iter().filter(|(host, _)| host.contains('.') && !host.contains(['*', '$', '{', ' ']));
    let page = |(host, (redirect, place)): (&str, (Option<&str>, &Place))| Question::Page {
        host: host.to_owned(),
        redirect: redirect.map(str::to_owned),
        place: place.clone(),
    };
    concrete.map(page).collect()
}

fn addresses(facts: &Facts) -> Vec<Address> {
    let variables =
        facts.workloads.iter().flat_map(|workload| &workload.containers).flat_map(|container| &container.env);
    let literal = variables.filter_map(|variable| match &variable.source {
        VariableSource::Literal(value) => Address::of(&variable.name, value, &variable.place),
        _ => None,
    });
    let mut seen = std::collections::BTreeSet::new();
    let all = literal.chain(facts.addresses.iter().cloned());
    all.filter(|address| seen.insert((address.name.clone(), address.host.clone(), address.port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_variables() {
        let at = Place { file: "f".into(), line: 1 };
        for (name, value, expected) in [
            (
                "DATABASE_URL",
                "postgres://site:pw@db.example.org/site",
                Some(("postgres", "db.example.org", 5432, false)),
            ),
            ("DATABASE_URL", "postgresql+asyncpg://u@db:6000/x?a=b", Some(("postgresql", "db", 6000, true))),
            ("SENTRY_DSN", "https://key@o1.sentry.example.org/2", Some(("https", "o1.sentry.example.org", 443, false))),
            ("WEBHOOK_URL", "https://example.org/delete-all", None),
            ("REDIS_URL", "redis://[::1]:7000/0", Some(("redis", "::1", 7000, false))),
            ("DATABASE_URL", "postgres://$(USER)@$(HOST)/x", None),
            ("DATABASE_URL", "postgres://a,b/x", None),
            ("DATABASE_URL", "sqlite:///x", None),
            ("DATABASE_URL", "postgres://h:port/x", None),
        ] {
            let address = Address::of(name, value, &at);
            let seen = address.as_ref().map(|a| (a.scheme.as_str(), a.host.as_str(), a.port, a.is_inside()));
            assert_eq!(seen, expected, "{name}={value}");
        }
    }
}
