//! All that was found, as configuration to paste.

mod paste;
mod show;

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;

pub(super) use self::paste::quoted;
use super::{
    Candidate, Confidence,
    settle::{Configured, Guarded, Settled},
};

/// Edges of one proposal: ten times what a host of a thousand services has.
const EDGES_MAX: usize = 20_000;
/// Circles that are shown one by one.
const CIRCLES_MAX: usize = 100;

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
    /// Circles that were found, each from a service back to itself. The least sure edge of each is held back.
    pub circles: Vec<Vec<ServiceName>>,
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
        let circles = hold_back(&mut edges, settled, &known, configured);
        let standing: BTreeSet<&ServiceName> =
            edges.iter().filter(|edge| edge.held_back.is_none()).flat_map(|edge| [&edge.service, &edge.need]).collect();
        let worth = |one: &&Candidate| one.alone || standing.contains(&one.service);
        let candidates: BTreeMap<&ServiceName, &Candidate> =
            settled.candidates.iter().filter(worth).map(|one| (&one.service, one)).collect();
        edges.retain(|edge| candidates.contains_key(&edge.service) || known.contains(&edge.service));
        let services = in_order(&candidates, &edges);
        Self { services, edges, left_out, circles, known }
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
fn hold_back(
    edges: &mut [Edge],
    settled: &Settled,
    known: &BTreeSet<ServiceName>,
    configured: &Configured,
) -> Vec<Vec<ServiceName>> {
    let mut circles = Vec::new();
    let held: BTreeMap<&ServiceName, &String> =
        settled.candidates.iter().filter_map(|one| Some((&one.service, one.held_back.as_ref()?))).collect();
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
        } else if let (Some(why), false) = (held.get(&edge.need), held.contains_key(&edge.service)) {
            edge.held_back = Some(format!("{} is not proposed itself: {why}", edge.need));
        } else if let Some(way) = way(&needs, &edge.need, &edge.service) {
            let told: Vec<&str> = way.iter().map(|name| name.as_str()).collect();
            edge.held_back = Some(format!(
                "a circle: {} needs {}; which one can start without the other?",
                edge.service,
                told.join(", which needs ")
            ));
            if circles.len() < CIRCLES_MAX {
                circles.push(std::iter::once(edge.service.clone()).chain(way).collect());
            }
        } else {
            needs.entry(edge.service.clone()).or_default().push(edge.need.clone());
        }
    }
    circles
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

#[cfg(test)]
mod tests;
