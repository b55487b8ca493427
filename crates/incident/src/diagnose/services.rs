//! Why services failed: with the server they need, or for want of CPU.

use std::{collections::BTreeSet, time::Duration};

use model::{EventId, ServiceName, alert::rule};

use super::{Case, Link};
use crate::{
    Cites, Fact, Outage, ServiceImpact,
    words::{list, quote},
};

/// How far two observers may disagree about when a thing began or ended: a service's check and the guard's own connection run at
/// different moments.
const EDGE_SLACK: Duration = Duration::from_secs(5);
/// Within which time of a throttle's verified effect a service must be healthy again for the recovery to be put down to it.
const RELIEF_WITHIN: Duration = Duration::from_secs(60);

impl<'a> Case<'a> {
    pub(super) fn why_services(&self) -> Link {
        let names = services(&self.harmed);
        let question = format!("Why did {names} fail?");
        if !self.incident.server.outages.is_empty() {
            return self.services_by_server(&question, &names);
        }
        if self.pressed() {
            return self.services_by_pressure(&question, &names);
        }
        let whether = format!("the database is why {names} failed");
        let no_event = "no event shows PostgreSQL down or the CPU saturated at that time";
        let others =
            self.alert_facts(rule::MEMORY_LOW).into_iter().chain(self.alert_facts(rule::CONNECTIONS_NEAR_LIMIT));
        Link::open(&question, whether, no_event).seen(others)
    }

    fn services_by_server(&self, question: &str, names: &str) -> Link {
        let whether = format!("{names} failed because PostgreSQL did not serve");
        let mut proof: Vec<EventId> = Vec::new();
        for service in &self.harmed {
            let name = quote(service.name());
            if service.outages.is_empty() {
                let missing = format!("{name} failed answers, and no event says at which moments");
                return Link::open(question, whether, missing);
            }
            let Some(declared) = self.path_to_cluster(&service.service) else {
                let missing = format!(
                    "no event declares that {name} needs this PostgreSQL, directly or through others; that both failed is an association"
                );
                return Link::open(question, whether, missing).seen(self.server_facts());
            };
            for outage in &service.outages {
                let Some(server) = self.incident.server.outages.iter().find(|server| within(outage, server)) else {
                    let missing = format!(
                        "{name} was unhealthy at {} and PostgreSQL's outages do not enclose that time at both ends",
                        outage.from
                    );
                    return Link::open(question, whether, missing).seen(self.server_facts());
                };
                proof.extend(outage.events().chain(server.events()));
            }
            proof.extend(declared);
        }
        let still = self.harmed.iter().any(|s| s.outages.iter().any(|o| o.until.is_none()));
        let text = if still {
            format!("PostgreSQL did not serve; {names}, declared to need it, failed after it had stopped")
        } else {
            format!(
                "PostgreSQL did not serve; {names}, declared to need it, failed after it had stopped and recovered when it served again"
            )
        };
        match Cites::of(proof) {
            Some(cites) => Link::established(question, Fact::new(text, cites)),
            None => Link::open(question, whether, "no event"),
        }
    }

    /// The declarations by which a service needs the cluster.
    fn path_to_cluster(&self, service: &'a ServiceName) -> Option<Vec<EventId>> {
        let cluster = self.incident.cluster.as_deref()?;
        let mut seen = BTreeSet::new();
        let mut paths = vec![(service, Vec::new())];
        while let Some((name, mut path)) = paths.pop() {
            let Some((needs, event)) = self.needs.get(name) else { continue };
            if !seen.insert(name) {
                continue;
            }
            path.push(*event);
            if needs.iter().any(|n| n.as_str() == cluster) {
                return Some(path);
            }
            paths.extend(needs.iter().map(|n| (n, path.clone())));
        }
        None
    }

    fn services_by_pressure(&self, question: &str, names: &str) -> Link {
        let whether = format!("{names} failed because the database's CPUs were saturated");
        let relief = self.incident.throttles.iter().find_map(|t| t.relieved().map(|v| (t, v)));
        let Some((engagement, relief)) = relief else {
            let missing = "nobody took the pressure away and looked whether they recovered: that both happened at once is an association";
            return Link::open(question, whether, missing).seen(self.pressure_alerts());
        };
        let begun = engagement.engaged.map_or(relief.at, |(at, _)| at);
        let let_go = engagement.released.as_ref().map(|r| r.at);
        let mut proof: Vec<EventId> = engagement.engaged.map(|(_, id)| id).into_iter().chain([relief.event]).collect();
        for service in &self.harmed {
            let relieved = |outage: &Outage| {
                outage.from < relief.at
                    && outage.until.is_some_and(|end| {
                        end >= begun
                            && end.since(relief.at).duration <= RELIEF_WITHIN
                            && let_go.is_none_or(|let_go| end <= let_go)
                    })
            };
            if service.outages.is_empty() || !service.outages.iter().all(relieved) {
                let missing = format!(
                    "{} is not seen to have recovered while the vacuum was held: neither before nor later counts",
                    quote(service.name())
                );
                return Link::open(question, whether, missing).seen(self.pressure_alerts());
            }
            proof.extend(service.outages.iter().flat_map(Outage::events));
        }
        let text = format!(
            "For want of CPU: when the vacuum was held, the database's CPUs went from {} to {} busy and {names} became healthy",
            relief.busy_before, relief.busy_after
        );
        match Cites::of(proof) {
            Some(cites) => Link::established(question, Fact::new(text, cites)),
            None => Link::open(question, whether, "no event"),
        }
    }

    pub(super) fn server_facts(&self) -> Vec<Fact> {
        let outage = |o: &Outage| {
            let text = match o.until {
                Some(until) => format!("PostgreSQL did not serve from {} to {until}, {}", o.from, o.lasted),
                None => format!("PostgreSQL did not serve from {} on", o.from),
            };
            Cites::of(o.events()).map(|cites| Fact::new(text, cites))
        };
        self.incident.server.outages.iter().filter_map(outage).collect()
    }
}

fn services(harmed: &[&ServiceImpact]) -> String {
    list(harmed.iter().map(|s| quote(s.name())))
}

/// Whether the service's outage lies within what the server's outage explains: it begins during it and, where both have ended, ends
/// after it.
fn within(service: &Outage, server: &Outage) -> bool {
    let begins_after = service.from >= server.from || server.from.since(service.from).duration <= EDGE_SLACK;
    let begins_before = server.until.is_none_or(|end| service.from <= end);
    let ends_after = match (service.until, server.until) {
        (Some(service), Some(server)) => service >= server || server.since(service).duration <= EDGE_SLACK,
        (Some(_), None) => false,
        (None, _) => true,
    };
    begins_after && begins_before && ends_after
}
