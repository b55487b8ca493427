//! Times in which nobody is known to have watched. What happened in them is not known, and a report must say so.

use std::collections::HashMap;

use model::{EventId, EventKind};
use serde::Serialize;

use crate::{Cites, Fact, Placed, Span, Stamp, describe::describe, words};

/// Why nobody watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// The guard did not run its loop though the host ran: starved, stopped or suspended.
    GuardSilent,
    /// A guard began though the one before had not stopped in an orderly way: it was killed or crashed.
    GuardDied,
    /// The guard had been stopped in an orderly way.
    GuardStopped,
    /// The host booted anew.
    HostRebooted,
    /// The journal had to delete events that it should have kept.
    HistoryCut,
}

/// A time in which nobody watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// Why.
    pub kind: GapKind,
    /// The last that was seen before.
    pub from: Stamp,
    /// The first that was seen after.
    pub to: Stamp,
    /// How long.
    pub lasted: Span,
    /// In words, with its proof.
    pub fact: Fact,
    /// The events of the proof. Not in JSON: the journal has them.
    #[serde(skip)]
    pub events: Vec<Placed>,
}

/// All gaps, in order. `events` are in order.
pub fn gaps(events: &[Placed]) -> Vec<Gap> {
    let mut found: Vec<Gap> = Vec::new();
    // The stop of the guard that ran last; and whether any guard is known to have run.
    let mut stopped: Option<EventId> = None;
    let mut before: Option<&Placed> = None;
    for event in events {
        match (event.kind(), before) {
            (EventKind::GuardWasSilent { silence, cause, .. }, _) => {
                let mut from = event.stamp;
                let silent_us = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX);
                from.at.boot_us = from.at.boot_us.saturating_sub(silent_us);
                from.at.wall = from.at.wall.saturating_sub(*silence).unwrap_or(jiff::Timestamp::MIN);
                let text = format!(
                    "The guard was silent for {} up to {} ({})",
                    words::duration(*silence),
                    event.stamp,
                    words::quote(cause)
                );
                found.push(gap(GapKind::GuardSilent, from, event.stamp, text, Cites::one(event.id())));
            }
            (EventKind::HistoryCut { .. }, _) => {
                // What was deleted is older than whatever is left.
                let oldest = events.first().map_or(event.stamp, |first| first.stamp);
                let text = describe(event.kind());
                found.push(gap(GapKind::HistoryCut, oldest, event.stamp, text, Cites::one(event.id())));
            }
            (EventKind::GuardStarted { .. }, Some(last)) => {
                let cites = Cites::one(last.id()).and([event.id()]).and(stopped);
                let rebooted_already = matches!(last.kind(), EventKind::HostRebooted { .. });
                let (kind, what) = if event.stamp.boot != last.stamp.boot {
                    (GapKind::HostRebooted, "The host booted anew")
                } else if stopped.is_some() {
                    (GapKind::GuardStopped, "The guard had been stopped")
                } else {
                    (GapKind::GuardDied, "The guard was killed or crashed: another began and none had recorded a stop")
                };
                if !rebooted_already {
                    found.push(unwatched(kind, what, last, event, cites));
                }
            }
            (EventKind::HostRebooted { .. }, Some(last)) => {
                // A guard that has just begun may record the boot after itself: one gap, not two.
                if let Some(gap) = found.last_mut().filter(|g| g.to == last.stamp && g.kind == GapKind::HostRebooted) {
                    let cites = gap.fact.cites().clone().and([event.id()]);
                    gap.fact = Fact::new(gap.fact.text(), cites);
                } else if event.stamp.boot != last.stamp.boot {
                    let cites = Cites::one(last.id()).and([event.id()]);
                    found.push(unwatched(GapKind::HostRebooted, "The host booted anew", last, event, cites));
                }
            }
            _ => {}
        }
        match event.kind() {
            EventKind::GuardStopped { .. } => stopped = Some(event.id()),
            EventKind::GuardStarted { .. } => stopped = None,
            _ => {}
        }
        before = Some(event);
    }
    let by_id: HashMap<EventId, &Placed> = events.iter().map(|p| (p.id(), p)).collect();
    for gap in &mut found {
        gap.events = gap.fact.cites().iter().filter_map(|id| by_id.get(&id)).map(|p| (*p).clone()).collect();
    }
    found
}

fn unwatched(kind: GapKind, what: &str, last: &Placed, event: &Placed, cites: Cites) -> Gap {
    let span = event.stamp.since(last.stamp);
    let text = format!("{what}; between {} and {}, {span}, the journal has nothing", last.stamp, event.stamp);
    gap(kind, last.stamp, event.stamp, text, cites)
}

fn gap(kind: GapKind, from: Stamp, to: Stamp, text: String, cites: Cites) -> Gap {
    Gap { kind, from, to, lasted: to.since(from), fact: Fact::new(text, cites), events: Vec::new() }
}
