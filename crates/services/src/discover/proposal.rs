//! All that was found, as configuration to paste.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use model::ServiceName;
use serde::Serialize;

use super::{
    Candidate, Confidence, How, plain,
    settle::{Configured, Guarded, Settled},
};

/// Pieces of evidence that are shown for one edge; the rest is counted.
const EVIDENCE_SHOWN: usize = 3;
/// Edges of one proposal: ten times what a host of a thousand services has.
const EDGES_MAX: usize = 20_000;

/// An edge with all that speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who needs.
    pub service: ServiceName,
    /// What it needs.
    pub need: ServiceName,
    /// The highest of its evidence; two guesses from different places make it [`Confidence::High`].
    pub confidence: Confidence,
    /// Where it was found and what was found there, the best first.
    pub evidence: Vec<(Confidence, String)>,
    /// Why it is proposed as a comment only; `None` where it is proposed.
    pub held_back: Option<String>,
}

/// The surest first: how sure, where it was seen, and what.
type Evidence = (std::cmp::Reverse<Confidence>, String, String);

/// What is proposed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// New services, each after all that it needs.
    pub services: Vec<Candidate>,
    /// By service and need.
    pub edges: Vec<Edge>,
    /// Edges beyond what is proposed at once.
    pub left_out: usize,
    /// Services that are configured already and would need more.
    known: BTreeSet<ServiceName>,
}

impl Proposal {
    /// Joins what was found, and leaves out what is configured already. An edge that would close a circle is held back, the least sure of its circle.
    pub fn new(settled: &Settled, guarded: &Guarded, configured: &Configured) -> Self {
        let mut joined: BTreeMap<(ServiceName, ServiceName), BTreeSet<Evidence>> = BTreeMap::new();
        for one in settled.found.iter().filter(|one| one.service != one.need) {
            let pair = (one.service.clone(), one.need.clone());
            if !configured.edges.contains(&pair) {
                let evidence = (std::cmp::Reverse(one.confidence), one.place.clone(), one.what.clone());
                joined.entry(pair).or_default().insert(evidence);
            }
        }
        let left_out = joined.len().saturating_sub(EDGES_MAX);
        let mut edges: Vec<Edge> = joined.into_iter().take(EDGES_MAX).map(edge).collect();
        let known: BTreeSet<ServiceName> =
            configured.services.iter().map(|(name, _)| name.clone()).chain([guarded.name.clone()]).collect();
        hold_back(&mut edges, settled, &known, configured);
        let standing: BTreeSet<&ServiceName> =
            edges.iter().filter(|edge| edge.held_back.is_none()).flat_map(|edge| [&edge.service, &edge.need]).collect();
        let worth = |one: &&Candidate| one.alone || standing.contains(&one.service);
        let candidates: BTreeMap<&ServiceName, &Candidate> =
            settled.candidates.iter().filter(worth).map(|one| (&one.service, one)).collect();
        edges.retain(|edge| candidates.contains_key(&edge.service) || known.contains(&edge.service));
        let services = in_order(&candidates, &edges);
        Self { services, edges, left_out, known }
    }

    /// `[[service]]` tables, each with who runs it, what it needs and the evidence. Edges of low confidence and those that would close a circle are comments:
    /// to be taken in by whoever knows better. So are needs of services that are configured already: a second table of one name would be an error.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing into a String can't fail.
        for one in &self.services {
            let _ = writeln!(text, "[[service]]  # {}\nname = {}", plain(&one.place), quoted(one.service.as_str()));
            let _ = match &one.how {
                How::Docker { project, service } => {
                    writeln!(text, "driver = \"docker\"\nproject = {}\nservice = {}", quoted(project), quoted(service))
                }
                How::Systemd { unit } => writeln!(text, "driver = \"systemd\"\nunit = {}", quoted(unit)),
            };
            for remark in &one.remarks {
                let _ = writeln!(text, "# {}", plain(remark));
            }
            match one.health_port {
                Some(port) if !one.has_health => {
                    let _ = writeln!(
                        text,
                        "health = {{ tcp = \"127.0.0.1:{port}\" }}  # the port that it publishes; an address that answers when it is well says more"
                    );
                }
                None if !one.has_health => {
                    text.push_str("# nothing asks for its health: say what does, or it counts as well once it runs\n");
                }
                _ => {}
            }
            self.needs(&mut text, &one.service, "");
            text.push('\n');
        }
        for name in &self.known {
            if self.edges.iter().any(|edge| edge.service == *name) {
                let _ =
                    writeln!(text, "# {} is configured already. What it would need beside that:", plain(name.as_str()));
                self.needs(&mut text, name, "# ");
                text.push('\n');
            }
        }
        text.truncate(text.trim_end().len());
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    fn needs(&self, text: &mut String, service: &ServiceName, before: &str) {
        let edges: Vec<&Edge> = self.edges.iter().filter(|edge| edge.service == *service).collect();
        if edges.is_empty() {
            return;
        }
        let _ = writeln!(text, "{before}depends_on = [");
        for edge in edges {
            let comment = if edge.held_back.is_some() { "# " } else { "" };
            let told: Vec<String> = edge.evidence.iter().take(EVIDENCE_SHOWN).map(|(_, told)| plain(told)).collect();
            let more = edge.evidence.len().saturating_sub(EVIDENCE_SHOWN);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let held = edge.held_back.as_ref().map(|why| format!(" ({})", plain(why))).unwrap_or_default();
            let _ = writeln!(
                text,
                "{before}    {comment}{},  # {}{held}: {}{more}",
                quoted(edge.need.as_str()),
                edge.confidence,
                told.join("; ")
            );
        }
        let _ = writeln!(text, "{before}]");
    }

    /// For programs.
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Shown<'a> {
            service: &'a str,
            need: &'a str,
            confidence: String,
            held_back: Option<&'a str>,
            evidence: Vec<serde_json::Value>,
        }
        let edges: Vec<Shown<'_>> = self
            .edges
            .iter()
            .map(|edge| Shown {
                service: edge.service.as_str(),
                need: edge.need.as_str(),
                confidence: edge.confidence.to_string(),
                held_back: edge.held_back.as_deref(),
                evidence: edge
                    .evidence
                    .iter()
                    .map(
                        |(confidence, told)| serde_json::json!({ "confidence": confidence.to_string(), "found": told }),
                    )
                    .collect(),
            })
            .collect();
        let services: Vec<serde_json::Value> = self
            .services
            .iter()
            .map(|one| {
                let (driver, project, service, unit) = match &one.how {
                    How::Docker { project, service } => ("docker", Some(project), Some(service), None),
                    How::Systemd { unit } => ("systemd", None, None, Some(unit)),
                };
                serde_json::json!({
                    "name": one.service.as_str(), "driver": driver, "project": project, "service": service, "unit": unit, "found": one.place,
                    "remarks": one.remarks, "has_health": one.has_health, "health_port": one.health_port,
                })
            })
            .collect();
        serde_json::json!({ "services": services, "edges": edges, "left_out": self.left_out })
    }
}

fn edge(((service, need), evidence): ((ServiceName, ServiceName), BTreeSet<Evidence>)) -> Edge {
    let best = evidence.first().map_or(Confidence::Low, |(confidence, ..)| confidence.0);
    let guesses = evidence.iter().filter(|(confidence, ..)| confidence.0 >= Confidence::Medium);
    let sources: BTreeSet<&str> = guesses.map(|(_, place, _)| source(place)).collect();
    let confidence = if sources.len() > 1 { Confidence::High } else { best };
    let evidence = evidence.into_iter().map(|(confidence, place, what)| (confidence.0, format!("{place}: {what}")));
    Edge { service, need, confidence, evidence: evidence.collect(), held_back: None }
}

/// The surest edges come first; one that leads back to where it begins is held back.
fn hold_back(edges: &mut [Edge], settled: &Settled, known: &BTreeSet<ServiceName>, configured: &Configured) {
    let exists: BTreeSet<&ServiceName> = settled.candidates.iter().map(|one| &one.service).chain(known).collect();
    let mut needs: BTreeMap<ServiceName, Vec<ServiceName>> = BTreeMap::new();
    for (service, need) in &configured.edges {
        needs.entry(service.clone()).or_default().push(need.clone());
    }
    let mut order: Vec<usize> = (0..edges.len()).collect();
    order.sort_by_key(|place| {
        let best = edges[*place].evidence.first().map(|(confidence, _)| *confidence);
        // What somebody wrote down is surer than two guesses.
        (std::cmp::Reverse(best), std::cmp::Reverse(edges[*place].confidence), *place)
    });
    for place in order {
        let edge = &mut edges[place];
        if edge.confidence == Confidence::Low {
            edge.held_back = Some("not sure enough".to_owned());
        } else if !exists.contains(&edge.need) || !exists.contains(&edge.service) {
            edge.held_back = Some("no service of that name is known here".to_owned());
        } else if let Some(way) = way(&needs, &edge.need, &edge.service) {
            let way: Vec<&str> = way.iter().map(|name| name.as_str()).collect();
            edge.held_back = Some(format!(
                "a circle: {} needs {}; which one can start without the other?",
                edge.service,
                way.join(", which needs ")
            ));
        } else {
            needs.entry(edge.service.clone()).or_default().push(edge.need.clone());
        }
    }
}

/// A way along needs, with both ends.
fn way(
    needs: &BTreeMap<ServiceName, Vec<ServiceName>>,
    from: &ServiceName,
    to: &ServiceName,
) -> Option<Vec<ServiceName>> {
    let mut came: BTreeMap<&ServiceName, &ServiceName> = BTreeMap::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        if at == to {
            let mut way = vec![at.clone()];
            let mut here = at;
            while here != from {
                here = came.get(here)?;
                way.push(here.clone());
            }
            way.reverse();
            return Some(way);
        }
        for next in needs.get(at).into_iter().flatten() {
            if next != from && !came.contains_key(next) {
                came.insert(next, at);
                open.push(next);
            }
        }
    }
    None
}

/// Each after what it needs.
fn in_order(candidates: &BTreeMap<&ServiceName, &Candidate>, edges: &[Edge]) -> Vec<Candidate> {
    let mut waits: BTreeMap<&ServiceName, usize> = candidates.keys().map(|name| (*name, 0)).collect();
    let mut behind: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    for edge in edges.iter().filter(|edge| edge.held_back.is_none() && candidates.contains_key(&edge.need)) {
        if let Some(count) = waits.get_mut(&edge.service) {
            *count += 1;
            behind.entry(&edge.need).or_default().push(&edge.service);
        }
    }
    let mut ready: BTreeSet<&ServiceName> =
        waits.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    let mut order = Vec::with_capacity(candidates.len());
    while let Some(name) = ready.pop_first() {
        order.extend(candidates.get(name).map(|one| (*one).clone()));
        for next in behind.get(name).into_iter().flatten() {
            if let Some(count) = waits.get_mut(*next) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(next);
                }
            }
        }
    }
    order
}

/// Two lines of one file are one source.
fn source(place: &str) -> &str {
    match place.rsplit_once(':') {
        Some((file, line)) if line.parse::<usize>().is_ok() => file,
        _ => place,
    }
}

/// A basic string of TOML on one line. JSON's escapes are among TOML's; only DEL, which JSON leaves as it is, is forbidden there.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        discover::Found,
        graph::{Graph, Service},
    };

    fn found(service: &str, need: &str, place: &str, confidence: Confidence) -> Found {
        Found { service: service.into(), need: need.into(), place: place.into(), what: "x".into(), confidence }
    }

    fn candidate(name: &str) -> Candidate {
        Candidate::new(name, How::Systemd { unit: format!("{name}.service") }, "place".to_owned())
    }

    fn propose(names: &[&str], found: Vec<Found>, configured: &[&str]) -> Proposal {
        let settled = Settled { candidates: names.iter().map(|name| candidate(name)).collect(), found, notes: vec![] };
        let services = configured.iter().map(|name| ((*name).into(), None)).collect();
        let guarded = Guarded { name: "main".into(), local_port: None };
        Proposal::new(&settled, &guarded, &Configured { services, edges: BTreeSet::new() })
    }

    #[test]
    fn evidence_is_joined_and_the_unsure_held_back() {
        use Confidence::{High, Low, Medium};
        let all = vec![
            found("site", "main", "compose.yaml:3", Medium),
            found("site", "main", "pg_stat_activity", Medium),
            found("site", "redis", "compose.yaml:4", Medium),
            found("site", "redis", "compose.yaml:9", Medium),
            found("site", "nginx", "site.service", Low),
            found("redis", "site", "compose.yaml:12", Medium),
            found("bot", "site", "compose.yaml:12", High),
            found("ghost", "site", "compose.yaml:13", High),
        ];
        let proposal = propose(&["site", "redis"], all, &["bot"]);
        let levels: Vec<_> = proposal
            .edges
            .iter()
            .map(|edge| (edge.service.as_str(), edge.need.as_str(), edge.confidence, edge.held_back.is_some()))
            .collect();
        assert_eq!(
            levels,
            [
                ("bot", "site", High, false),
                ("redis", "site", Medium, false),
                ("site", "main", High, false),
                ("site", "nginx", Low, true),
                ("site", "redis", Medium, true)
            ]
        );
        assert_eq!(
            proposal.to_toml(),
            "\
[[service]]  # place
name = \"site\"
driver = \"systemd\"
unit = \"site.service\"
# nothing asks for its health: say what does, or it counts as well once it runs
depends_on = [
    \"main\",  # high: compose.yaml:3: x; pg_stat_activity: x
    # \"nginx\",  # low (not sure enough): site.service: x
    # \"redis\",  # medium (a circle: site needs redis, which needs site; which one can start without the other?): compose.yaml:4: x; compose.yaml:9: x
]

[[service]]  # place
name = \"redis\"
driver = \"systemd\"
unit = \"redis.service\"
# nothing asks for its health: say what does, or it counts as well once it runs
depends_on = [
    \"site\",  # medium: compose.yaml:12: x
]

# bot is configured already. What it would need beside that:
# depends_on = [
#     \"site\",  # high: compose.yaml:12: x
# ]
"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever names and places there are: what is pasted is TOML and says what was meant.
        #[test]
        fn any_name_can_be_pasted(service in "\\PC{1,12}|[\"\\\n#]{1,6}", need in "\\PC{1,12}|[\"'\n\\]]{1,6}", place in "[\\s\\S]{0,20}") {
            prop_assume!(service != need && service != "main" && need != "main");
            let proposal = propose(&[&service, &need], vec![found(&service, &need, &place, Confidence::High)], &[]);
            let read: toml::Table = proposal.to_toml().parse().unwrap();
            prop_assert_eq!(read["service"][0]["name"].as_str(), Some(&*need));
            prop_assert_eq!(read["service"][1]["name"].as_str(), Some(&*service));
            prop_assert_eq!(read["service"][1]["depends_on"][0].as_str(), Some(&*need));
        }

        /// Whatever points to whatever: what is pasted is a graph without circles.
        #[test]
        fn no_circle_is_proposed(edges in prop::collection::vec((0_u8..8, 0_u8..8, 0_u8..3), 0..40)) {
            let names: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
            let level = |number| [Confidence::Low, Confidence::Medium, Confidence::High][usize::from(number)];
            let found = edges.iter().map(|(from, to, sure)| found(&format!("s{from}"), &format!("s{to}"), "f:1", level(*sure)));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let proposal = propose(&names, found.collect(), &[]);
            let taken = |name: &str| -> Vec<ServiceName> {
                let own = proposal.edges.iter().filter(|edge| edge.held_back.is_none() && edge.service.as_str() == name);
                own.map(|edge| edge.need.clone()).collect()
            };
            let services = proposal.services.iter().map(|one| Service { needs: taken(one.service.as_str()), ..Service::new(one.service.clone()) });
            prop_assert!(Graph::new(services.collect()).is_ok());
            prop_assert_eq!(proposal.services.len(), 8);
            for edge in proposal.edges.iter().filter(|edge| edge.confidence > Confidence::Low) {
                prop_assert_eq!(edge.held_back.is_some(), edge.held_back.as_ref().is_some_and(|why| why.contains("circle")));
            }
        }
    }
}
