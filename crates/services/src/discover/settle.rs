//! One graph of what several sources tell: names that are used once, and what is configured already recognised.

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;

use super::{
    Candidate, Confidence, Found, How, Known,
    compose::Compose,
    reached::{Reached, is_here},
    systemd::Told,
};

/// Kinds of servers that keep something: where one is elsewhere, it is worth a place in the graph. Of the others (web sites, mail) there are too many.
const KEEPERS: &[&str] = &[
    "postgresql",
    "mysql",
    "redis",
    "mongodb",
    "amqp",
    "kafka",
    "nats",
    "memcached",
    "clickhouse",
    "elasticsearch",
    "sqlserver",
    "neo4j",
];
/// Notes on addresses at which nothing that is known answers.
const UNANSWERED_MAX: usize = 20;

/// What one source told: a compose project, the units of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// What stands before a name that another source uses too.
    pub label: String,
    /// Its services.
    pub candidates: Vec<Candidate>,
    /// Its edges.
    pub found: Vec<Found>,
    /// Its services that are a PostgreSQL, each with its ports on this host.
    pub postgres: Vec<(ServiceName, Vec<u16>)>,
    /// Its services with the ports on this host that lead to them.
    pub serves: Vec<(ServiceName, u16)>,
    /// Addresses that lead out of it.
    pub reached: Vec<Reached>,
    /// What was passed over.
    pub notes: Vec<String>,
}

impl Source {
    /// Of a compose project.
    pub fn of_compose(label: &str, compose: Compose) -> Self {
        let Compose { project: _, candidates, found, postgres, serves, reached, notes } = compose;
        Self { label: label.to_owned(), candidates, found, postgres, serves, reached, notes }
    }

    /// Of a host's units.
    pub fn of_units(label: &str, told: Told) -> Self {
        let Told { candidates, found, notes, known, reached } = told;
        let is_postgres = |known: &Known| {
            let name = known.service.as_str();
            name == "postgresql" || name.starts_with("postgresql@") || name.starts_with("postgresql-")
        };
        let postgres = known.iter().filter(|known| is_postgres(known));
        let postgres = postgres.map(|known| (known.service.clone(), known.port.into_iter().collect())).collect();
        let serves = known.iter().filter_map(|known| Some((known.service.clone(), known.port?))).collect();
        Self { label: label.to_owned(), candidates, found, postgres, serves, reached, notes }
    }
}

/// The guarded PostgreSQL, as far as files can be compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Its name in the configuration.
    pub name: ServiceName,
    /// Its port, where it is on this host.
    pub local_port: Option<u16>,
    /// The host and port by which it is reached from here.
    pub reached_at: Option<(String, u16)>,
    /// Who runs it, where that is declared.
    pub how: Option<How>,
}

/// What is configured already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Services, with who runs each where that is said.
    pub services: Vec<(ServiceName, Option<How>)>,
    /// Their needs.
    pub edges: BTreeSet<(ServiceName, ServiceName)>,
    /// Addresses at which they are asked, the host in lower case.
    pub asked_at: BTreeMap<(String, u16), ServiceName>,
}

/// One graph's worth of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// New services, each name once.
    pub candidates: Vec<Candidate>,
    /// Edges among them and what is configured.
    pub found: Vec<Found>,
    /// What was passed over, or taken for something else.
    pub notes: Vec<String>,
}

/// A name as the configuration takes it, from the second on with its number: units are called `work@1`, folders anything.
fn written(name: &str, number: usize) -> ServiceName {
    let name = model::as_configured_name(name).unwrap_or_else(|| "service".to_owned());
    if number < 2 {
        return name.into();
    }
    let number = format!("-{number}");
    let kept = name.len().min(model::NAME_MAX.saturating_sub(number.len()));
    // What is written so is ASCII: each byte is a character.
    format!("{}{number}", &name[..kept]).into()
}

/// Gives each service its name.
pub fn settle(sources: Vec<Source>, guarded: &Guarded, configured: &Configured) -> Settled {
    let mut settled = Settled::default();
    let mut used: BTreeMap<ServiceName, usize> = BTreeMap::new();
    for candidate in sources.iter().flat_map(|source| &source.candidates).filter(|one| one.how != How::Unknown) {
        *used.entry(candidate.service.clone()).or_default() += 1;
    }
    let is_configured =
        |name: &ServiceName| *name == guarded.name || configured.services.iter().any(|(known, _)| known == name);
    // One port leads to one server: where several claim it, none is taken for the guarded one.
    let claims = |source: &&Source| {
        let of_port =
            |(_, ports): &(ServiceName, Vec<u16>)| guarded.local_port.is_some_and(|port| ports.contains(&port));
        guarded.how.is_none() && source.postgres.iter().any(of_port)
    };
    let claimants: Vec<String> = sources.iter().filter(claims).map(|source| source.label.clone()).collect();
    if claimants.len() > 1 {
        let port = guarded.local_port.unwrap_or_default();
        settled.notes.push(format!(
            "each of {} has a PostgreSQL on port {port}, the port of {}: which of them it is, [postgres] says with driver and its keys",
            claimants.join(", "),
            guarded.name
        ));
    }
    let mut taken: BTreeSet<ServiceName> = BTreeSet::new();
    let mut reached: Vec<Reached> = Vec::new();
    let mut serves: BTreeMap<u16, BTreeSet<ServiceName>> = BTreeMap::new();
    for source in sources {
        let mut names: BTreeMap<ServiceName, ServiceName> = BTreeMap::new();
        for (name, ports) in source.postgres.iter().filter(|_| claimants.len() == 1) {
            if guarded.local_port.is_some_and(|port| ports.contains(&port)) {
                names.insert(name.clone(), guarded.name.clone());
                let how = source.candidates.iter().find(|one| one.service == *name).map(|one| one.how.clone());
                settled.notes.push(format!(
                    "{}: {name} is taken to be the guarded PostgreSQL {}, by its port{}",
                    source.label,
                    guarded.name,
                    how.and_then(|how| how.keys()).map(|keys| format!("; in [postgres]: {keys}")).unwrap_or_default()
                ));
            }
        }
        for mut candidate in source.candidates {
            let name = candidate.service.clone();
            if guarded.how.as_ref() == Some(&candidate.how) {
                names.insert(name.clone(), guarded.name.clone());
            }
            if names.contains_key(&name) {
                continue;
            }
            let same = configured.services.iter().find(|(known, how)| match how {
                Some(how) => *how == candidate.how || (candidate.how == How::Unknown && *known == name),
                None => *known == name,
            });
            if let Some((known, _)) = same {
                names.insert(name, known.clone());
                continue;
            }
            // A file of variables speaks of a service that something else runs.
            if candidate.how == How::Unknown && taken.contains(&written(name.as_str(), 1)) {
                let called = written(name.as_str(), 1);
                names.insert(name, called);
                continue;
            }
            let is_free = |name: &ServiceName| !taken.contains(name) && !is_configured(name);
            let shared = used.get(&name).is_some_and(|count| *count > 1);
            let mut called = written(name.as_str(), 1);
            let labelled = format!("{}-{name}", source.label);
            if (shared && !source.label.is_empty()) || !is_free(&called) {
                called = written(&labelled, 1);
            }
            // Two folders of one name.
            let mut number = 2;
            while !is_free(&called) {
                called = written(&labelled, number);
                number += 1;
            }
            taken.insert(called.clone());
            names.insert(name, called.clone());
            candidate.service = called;
            settled.candidates.push(candidate);
        }
        let called = |name: &ServiceName| names.get(name).cloned();
        settled.found.extend(source.found.into_iter().filter_map(|found| {
            let (service, need) = (called(&found.service)?, called(&found.need)?);
            Some(Found { service, need, ..found })
        }));
        for (name, port) in source.serves {
            serves.entry(port).or_default().extend(called(&name));
        }
        reached.extend(
            source.reached.into_iter().filter_map(|one| Some(Reached { service: called(&one.service)?, ..one })),
        );
        settled.notes.extend(source.notes);
    }
    lead_out(&mut settled, reached, &serves, guarded, configured, &mut taken, &is_configured);
    settled
}

/// Addresses that lead out of a source: to the guarded PostgreSQL, to a port of this host that another source serves, or to another host.
fn lead_out(
    settled: &mut Settled,
    reached: Vec<Reached>,
    serves: &BTreeMap<u16, BTreeSet<ServiceName>>,
    guarded: &Guarded,
    configured: &Configured,
    taken: &mut BTreeSet<ServiceName>,
    is_configured: &dyn Fn(&ServiceName) -> bool,
) {
    let mut elsewhere: BTreeMap<(String, u16), ServiceName> = BTreeMap::new();
    let mut unanswered: BTreeSet<String> = BTreeSet::new();
    for one in reached {
        let (host, kind) = (one.endpoint.host.as_str(), one.endpoint.kind);
        let Some(port) = one.endpoint.port.or_else(|| super::dsn::usual_port(kind)) else { continue };
        let here = is_here(host, one.in_container);
        if !here && (host == "localhost" || host.starts_with("127.")) {
            continue;
        }
        let of_guarded = matches!(kind, "postgresql" | "something" | "tcp")
            && ((here && guarded.local_port == Some(port))
                || guarded.reached_at.as_ref().is_some_and(|at| at.0 == host && at.1 == port));
        let behind_port = serves.get(&port).filter(|names| here && names.len() == 1).and_then(BTreeSet::first);
        let known = configured.asked_at.get(&(host.to_ascii_lowercase(), port)).filter(|_| !here);
        let need = if of_guarded {
            guarded.name.clone()
        } else if let Some(name) = known {
            name.clone()
        } else if let Some(name) = behind_port {
            name.clone()
        } else if here || !one.is_sure || !KEEPERS.contains(&kind) {
            if one.is_sure && (here || KEEPERS.contains(&kind)) {
                unanswered.insert(format!(
                    "{}: {}: nothing that is known answers at {}",
                    one.place, one.service, one.endpoint
                ));
            }
            continue;
        } else {
            let key = (host.to_owned(), port);
            elsewhere.entry(key).or_insert_with(|| settled.elsewhere(&one, port, taken, is_configured)).clone()
        };
        if need != one.service {
            let confidence = if of_guarded && one.is_sure { Confidence::High } else { Confidence::Medium };
            settled.found.push(Found { service: one.service, need, place: one.place, what: one.what, confidence });
        }
    }
    let more = unanswered.len().saturating_sub(UNANSWERED_MAX);
    settled.notes.extend(unanswered.into_iter().take(UNANSWERED_MAX));
    if more > 0 {
        settled.notes.push(format!("and {more} more addresses at which nothing that is known answers"));
    }
}

impl Settled {
    /// A server on another host, as a service that is looked at only.
    fn elsewhere(
        &mut self,
        one: &Reached,
        port: u16,
        taken: &mut BTreeSet<ServiceName>,
        is_configured: &dyn Fn(&ServiceName) -> bool,
    ) -> ServiceName {
        let host = &one.endpoint.host;
        let is_address = host.parse::<core::net::IpAddr>().is_ok();
        let first = host.split('.').next().unwrap_or(host);
        let base = if is_address { format!("{}-{host}", one.endpoint.kind) } else { first.to_owned() };
        let mut called = written(&base, 1);
        let mut number = 2;
        while taken.contains(&called) || is_configured(&called) {
            called = written(&base, number);
            number += 1;
        }
        taken.insert(called.clone());
        let endpoint = super::dsn::Endpoint { port: Some(port), ..one.endpoint.clone() };
        let mut candidate = Candidate::new(called.clone(), How::Elsewhere { endpoint }, one.place.clone());
        candidate.alone = false;
        self.candidates.push(candidate);
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Confidence;

    fn source(label: &str, names: &[&str], edges: &[(&str, &str)]) -> Source {
        let how = |service: &str| How::Docker { project: label.to_owned(), service: service.to_owned() };
        let candidates = names.iter().map(|name| Candidate::new(*name, how(name), format!("{label}:1"))).collect();
        let found = edges.iter().map(|(service, need)| Found {
            service: (*service).into(),
            need: (*need).into(),
            place: label.to_owned(),
            what: "x".to_owned(),
            confidence: Confidence::High,
        });
        Source { label: label.to_owned(), candidates, found: found.collect(), ..Source::default() }
    }

    #[test]
    fn names_are_used_once_and_what_is_known_is_recognised() {
        let mut shop = source("shop", &["web", "db", "cache"], &[("web", "db"), ("web", "cache")]);
        shop.postgres = vec![("db".into(), vec![5433])];
        let blog = source("blog", &["web", "db"], &[("web", "db")]);
        let guarded = Guarded { name: "main".into(), local_port: Some(5433), reached_at: None, how: None };
        let known = How::Docker { project: "shop".into(), service: "cache".into() };
        let configured = Configured {
            services: vec![("redis".into(), Some(known))],
            edges: BTreeSet::new(),
            ..Configured::default()
        };
        let settled = settle(vec![shop, blog.clone(), blog], &guarded, &configured);
        let names: Vec<&str> = settled.candidates.iter().map(|one| one.service.as_str()).collect();
        assert_eq!(names, ["shop-web", "blog-web", "blog-db", "blog-web-2", "blog-db-2"]);
        let edges: Vec<String> = settled.found.iter().map(|one| format!("{} {}", one.service, one.need)).collect();
        assert_eq!(edges, ["shop-web main", "shop-web redis", "blog-web blog-db", "blog-web-2 blog-db-2"]);
        assert_eq!(settled.notes.len(), 1);
    }

    #[test]
    fn names_are_those_that_the_configuration_takes() {
        let long = "y".repeat(200);
        let names = ["work@1", "work:1", "caf\u{e9}", "\u{5e97}", ".", &long];
        let guarded = Guarded { name: "main".into(), local_port: None, reached_at: None, how: None };
        let sources = vec![source("\u{5e97} 2", &names, &[("work@1", "work:1")]), source("b", &[&long], &[])];
        let settled = settle(sources, &guarded, &Configured::default());
        let called: BTreeSet<&str> = settled.candidates.iter().map(|one| one.service.as_str()).collect();
        assert_eq!(called.len(), 7, "{called:?}");
        assert!(called.iter().all(|name| model::is_configured_name(name)), "{called:?}");
        assert_eq!((settled.found[0].service.as_str(), settled.found[0].need.as_str()), ("work-1", "--2-work-1"));
    }
}
