//! How people came to know: the first alert that was decided, and the first that reached a route.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{AlertKey, AlertState, EventId, EventKind};
use serde::Serialize;

use crate::{
    Placed, Span, Stamp,
    timeline::{Condition, ConditionKind},
};

/// How people came to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Detection {
    /// The alert that was decided first.
    pub first: Option<FirstAlert>,
    /// The alert that reached a route first.
    pub delivered: Option<FirstDelivery>,
    /// Alerts that no route is recorded to have taken.
    pub undelivered: Vec<Undelivered>,
    /// Each route that failed, with the events that say so, gave-ups included.
    pub failing_routes: BTreeMap<String, Vec<EventId>>,
}

/// The alert that was decided first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FirstAlert {
    /// Its event.
    pub event: EventId,
    /// When its condition began.
    pub since: Stamp,
    /// When the rule decided.
    pub decided: Stamp,
    /// Between the two.
    pub time_to_detect: Span,
    /// Its summary.
    pub summary: String,
}

/// The alert that reached a route first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FirstDelivery {
    /// The event of the delivery.
    pub event: EventId,
    /// The event of the alert.
    pub alert: EventId,
    /// The route that took it.
    pub route: String,
    /// Which attempt it was.
    pub attempt: u32,
    /// When it was acknowledged.
    pub at: Stamp,
    /// From the decision to the acknowledgement, as the delivery measured it.
    pub latency: Duration,
    /// From the beginning of its condition to the acknowledgement.
    pub time_to_deliver: Span,
}

/// An alert that no route took, as far as the journal tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Undelivered {
    /// Its key.
    pub key: AlertKey,
    /// Its event.
    pub event: EventId,
    /// Failed attempts.
    pub failures: Vec<EventId>,
    /// The event that says that delivery gave up.
    pub gave_up: Option<EventId>,
}

pub(crate) fn detection(conditions: &[Condition], evidence: &[Placed]) -> Detection {
    let by_id: BTreeMap<EventId, &Placed> = evidence.iter().map(|p| (p.id(), p)).collect();
    let mut found = Detection::default();
    let mut open: BTreeMap<AlertKey, Undelivered> = BTreeMap::new();
    let mut since: BTreeMap<AlertKey, Stamp> = BTreeMap::new();
    for condition in conditions {
        let ConditionKind::Alert { alert } = &condition.kind else { continue };
        let Some(event) = by_id.get(&condition.opened_by) else { continue };
        let decided = Stamp { at: alert.decided, boot: event.stamp.boot };
        if found.first.as_ref().is_none_or(|first| decided < first.decided) {
            found.first = Some(FirstAlert {
                event: condition.opened_by,
                since: condition.since,
                decided,
                time_to_detect: decided.since(condition.since),
                summary: alert.summary.clone(),
            });
        }
        since.entry(alert.key.clone()).or_insert(condition.since);
        open.entry(alert.key.clone()).or_insert_with(|| Undelivered {
            key: alert.key.clone(),
            event: condition.opened_by,
            failures: Vec::new(),
            gave_up: None,
        });
    }
    let mut delivered: BTreeSet<AlertKey> = BTreeSet::new();
    for event in evidence {
        match event.kind() {
            EventKind::AlertDelivered { key, state: AlertState::Firing, route, attempt, latency } => {
                let (Some(alert), Some(since)) = (open.get(key), since.get(key)) else { continue };
                delivered.insert(key.clone());
                if found.delivered.is_none() {
                    found.delivered = Some(FirstDelivery {
                        event: event.id(),
                        alert: alert.event,
                        route: route.clone(),
                        attempt: *attempt,
                        at: event.stamp,
                        latency: *latency,
                        time_to_deliver: event.stamp.since(*since),
                    });
                }
            }
            EventKind::AlertFailed { key, route, gave_up, .. } => {
                found.failing_routes.entry(route.clone()).or_default().push(event.id());
                if let Some(alert) = open.get_mut(key) {
                    alert.failures.push(event.id());
                    alert.gave_up = alert.gave_up.or(gave_up.then_some(event.id()));
                }
            }
            _ => {}
        }
    }
    found.undelivered = open.into_values().filter(|a| !delivered.contains(&a.key)).collect();
    found.undelivered.sort_by_key(|a| a.event);
    found
}
