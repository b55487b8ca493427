//! One graph of what several sources tell: names that are used once, and what is configured already recognised.

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;

use super::{Candidate, Found, How, Known, compose::Compose, systemd::Told};

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
    /// What was passed over.
    pub notes: Vec<String>,
}

impl Source {
    /// Of a compose project.
    pub fn of_compose(label: &str, compose: Compose) -> Self {
        let Compose { candidates, found, postgres, notes, known: _ } = compose;
        Self { label: label.to_owned(), candidates, found, postgres, notes }
    }

    /// Of a host's units.
    pub fn of_units(label: &str, told: Told) -> Self {
        let Told { candidates, found, notes, known } = told;
        let is_postgres = |known: &Known| {
            let name = known.service.as_str();
            name == "postgresql" || name.starts_with("postgresql@") || name.starts_with("postgresql-")
        };
        let postgres = known.iter().filter(|known| is_postgres(known));
        let postgres = postgres.map(|known| (known.service.clone(), known.port.into_iter().collect())).collect();
        Self { label: label.to_owned(), candidates, found, postgres, notes }
    }
}

/// The guarded PostgreSQL, as far as files can be compared with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Its name in the configuration.
    pub name: ServiceName,
    /// Its port, where it is on this host.
    pub local_port: Option<u16>,
}

/// What is configured already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Services, with who runs each where that is said.
    pub services: Vec<(ServiceName, Option<How>)>,
    /// Their needs.
    pub edges: BTreeSet<(ServiceName, ServiceName)>,
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

/// Gives each service its name.
pub fn settle(sources: Vec<Source>, guarded: &Guarded, configured: &Configured) -> Settled {
    let mut settled = Settled::default();
    let mut used: BTreeMap<ServiceName, usize> = BTreeMap::new();
    for candidate in sources.iter().flat_map(|source| &source.candidates) {
        *used.entry(candidate.service.clone()).or_default() += 1;
    }
    let is_configured =
        |name: &ServiceName| *name == guarded.name || configured.services.iter().any(|(known, _)| known == name);
    let mut taken: BTreeSet<ServiceName> = BTreeSet::new();
    for source in sources {
        let mut names: BTreeMap<ServiceName, ServiceName> = BTreeMap::new();
        for (name, ports) in &source.postgres {
            if guarded.local_port.is_some_and(|port| ports.contains(&port)) {
                names.insert(name.clone(), guarded.name.clone());
                settled.notes.push(format!(
                    "{}: {name} is taken to be the guarded PostgreSQL {}, by its port",
                    source.label, guarded.name
                ));
            }
        }
        for mut candidate in source.candidates {
            let name = candidate.service.clone();
            if names.contains_key(&name) {
                continue;
            }
            let same = configured.services.iter().find(|(known, how)| match how {
                Some(how) => *how == candidate.how,
                None => *known == name,
            });
            if let Some((known, _)) = same {
                names.insert(name, known.clone());
                continue;
            }
            let is_free = |name: &ServiceName| !taken.contains(name) && !is_configured(name);
            let shared = used.get(&name).is_some_and(|count| *count > 1);
            let mut called = name.clone();
            if (shared && !source.label.is_empty()) || !is_free(&called) {
                called = format!("{}-{name}", source.label).into();
            }
            // Two folders of one name.
            let mut number = 2_usize;
            while !is_free(&called) {
                called = format!("{}-{name}-{number}", source.label).into();
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
        settled.notes.extend(source.notes);
    }
    settled
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
        let guarded = Guarded { name: "main".into(), local_port: Some(5433) };
        let known = How::Docker { project: "shop".into(), service: "cache".into() };
        let configured = Configured { services: vec![("redis".into(), Some(known))], edges: BTreeSet::new() };
        let settled = settle(vec![shop, blog.clone(), blog], &guarded, &configured);
        let names: Vec<&str> = settled.candidates.iter().map(|one| one.service.as_str()).collect();
        assert_eq!(names, ["shop-web", "blog-web", "blog-db", "blog-web-2", "blog-db-2"]);
        let edges: Vec<String> = settled.found.iter().map(|one| format!("{} {}", one.service, one.need)).collect();
        assert_eq!(edges, ["shop-web main", "shop-web redis", "blog-web blog-db", "blog-web-2 blog-db-2"]);
        assert_eq!(settled.notes.len(), 1);
    }
}
