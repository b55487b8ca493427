//! What the governor did: engagements, each from the first hold to the release.

use std::time::Duration;

use model::{
    Cores, EventId, EventKind, ProcessId, Share, TableName,
    event::{CostSetting, Lever, ReleaseReason},
};
use serde::Serialize;

use crate::{Cites, Placed, Stamp};

/// The least fall of the busy share that counts as the pressure having fallen, in parts of 1. Less is within what a busy host does
/// by itself from one second to the next.
pub const MIN_PRESSURE_FALL: f64 = 0.10;
/// From which busy share on the pressure counts as having stayed. Below it a throttle that changes little says nothing: there was
/// little to take away.
pub const STILL_PRESSED: f64 = 0.85;

/// One hold of a throttle.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Engagement {
    /// When it began; none where its beginning is not in the journal.
    pub engaged: Option<(Stamp, EventId)>,
    /// The workers that were held.
    pub workers: Vec<ProcessId>,
    /// Their tables, in the same order.
    pub tables: Vec<Option<TableName>>,
    /// By which lever.
    pub lever: Option<Lever>,
    /// Where they were held first.
    pub setting: Option<CostSetting>,
    /// Where they were held later, in order.
    pub adjusted: Vec<(EventId, CostSetting)>,
    /// What it did, measured.
    pub verified: Vec<Verification>,
    /// When and why it was let go; none where that is not in the journal.
    pub released: Option<Release>,
}

/// What a throttle did, measured on the workers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// When.
    pub at: Stamp,
    /// The event.
    pub event: EventId,
    /// The workers' CPU before.
    pub cpu_before: Cores,
    /// And under the throttle.
    pub cpu_after: Cores,
    /// The busy share of the database's CPUs before.
    pub busy_before: Share,
    /// And under the throttle.
    pub busy_after: Share,
    /// Whether the workers obeyed.
    pub obeyed: bool,
}

impl Verification {
    /// Whether the workers slowed: what the setting decides.
    pub fn slowed(&self) -> bool {
        self.obeyed && self.cpu_after < self.cpu_before
    }

    /// Whether the pressure stayed though they slowed: what speaks against the workers as its cause.
    pub fn in_vain(&self) -> bool {
        self.slowed() && !self.relieved() && self.busy_after.0 >= STILL_PRESSED
    }

    /// Whether the pressure fell with them: what ties the pressure to the workers.
    pub fn relieved(&self) -> bool {
        self.slowed() && self.busy_before.0 - self.busy_after.0 >= MIN_PRESSURE_FALL
    }
}

/// The end of an engagement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Release {
    /// When.
    pub at: Stamp,
    /// The event.
    pub event: EventId,
    /// Why.
    pub reason: ReleaseReason,
    /// How long it was held.
    pub held: Duration,
    /// In words.
    pub detail: String,
}

impl Engagement {
    /// Whether an act and what followed tie the pressure to the workers: they were slowed, the pressure fell, and the governor did not
    /// find afterwards that it had not helped.
    pub fn relieved(&self) -> Option<&Verification> {
        let refuted = self.released.as_ref().is_some_and(|r| r.reason == ReleaseReason::NotHelping);
        self.verified.iter().find(|v| v.relieved()).filter(|_| !refuted)
    }

    /// Whether the workers were slowed and the pressure stayed.
    pub fn refuted(&self) -> Option<Cites> {
        let release = self.released.as_ref().filter(|r| r.reason == ReleaseReason::NotHelping);
        let slowed = self.verified.iter().filter(|v| v.slowed());
        match release {
            Some(release) => Some(Cites::one(release.event).and(slowed.map(|v| v.event))),
            None if self.verified.iter().any(Verification::relieved) => None,
            None => Cites::of(self.verified.iter().filter(|v| v.in_vain()).map(|v| v.event)),
        }
    }

    /// The tables that were held, each once.
    pub fn held_tables(&self) -> Vec<&TableName> {
        let mut tables: Vec<_> = self.tables.iter().flatten().collect();
        tables.sort();
        tables.dedup();
        tables
    }
}

/// The engagements, in order.
pub(crate) fn engagements(evidence: &[Placed]) -> Vec<Engagement> {
    let mut found: Vec<Engagement> = Vec::new();
    for event in evidence {
        if let EventKind::ThrottleEngaged { workers, tables, lever, setting, .. } = event.kind() {
            found.push(Engagement {
                engaged: Some((event.stamp, event.id())),
                workers: workers.clone(),
                tables: tables.clone(),
                lever: Some(*lever),
                setting: Some(*setting),
                ..Engagement::default()
            });
            continue;
        }
        let held = matches!(
            event.kind(),
            EventKind::ThrottleAdjusted { .. }
                | EventKind::ThrottleVerified { .. }
                | EventKind::ThrottleReleased { .. }
        );
        if !held {
            continue;
        }
        if found.last().is_none_or(|e| e.released.is_some()) {
            found.push(Engagement::default());
        }
        let Some(engagement) = found.last_mut() else { continue };
        match event.kind() {
            EventKind::ThrottleAdjusted { setting, .. } => engagement.adjusted.push((event.id(), *setting)),
            EventKind::ThrottleVerified { cpu_before, cpu_after, busy_before, busy_after, obeyed } => {
                engagement.verified.push(Verification {
                    at: event.stamp,
                    event: event.id(),
                    cpu_before: *cpu_before,
                    cpu_after: *cpu_after,
                    busy_before: *busy_before,
                    busy_after: *busy_after,
                    obeyed: *obeyed,
                });
            }
            EventKind::ThrottleReleased { reason, held, detail } => {
                engagement.released = Some(Release {
                    at: event.stamp,
                    event: event.id(),
                    reason: *reason,
                    held: *held,
                    detail: detail.clone(),
                });
            }
            _ => {}
        }
    }
    found
}
