//! Rule `slot-retaining`.
//!
//! *Why*: a slot whose consumer is away makes the server keep all WAL since. Without a limit the disk fills and the server stops with a
//! PANIC; with one the slot is given up, and what hung on it, a standby or an archive, has to begin anew.
//! *Source*: `pg_replication_slots` (`wal_status`, `safe_wal_size`, `restart_lsn`), and the watched file systems, of which the fullest counts.
//! *First things to do*: find out whose slot it is and why its consumer is away; bring it back, or drop the slot if nobody needs it.

use std::time::Duration;

use model::{ByteSize, Observation, Reading, Severity, Share, alert::rule, reading::SlotReading};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{percent, short},
};
use crate::settings;

/// Readings come about every ten seconds.
const READINGS: u32 = 2;
const MAX_GAP: Duration = Duration::from_secs(60);

/// The rule's state.
pub(super) struct SlotRetaining {
    settings: settings::SlotRetaining,
    gate: Gate,
    /// Free room of the fullest watched file system.
    room: Option<ByteSize>,
    worst: Option<(SlotReading, f64)>,
}

impl SlotRetaining {
    pub(super) fn new(settings: settings::SlotRetaining) -> Self {
        let gate = Gate::new(Confirmation {
            readings: READINGS,
            lasting: Duration::ZERO,
            clear: Duration::ZERO,
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, room: None, worst: None }
    }

    /// How much of what may be kept at most is kept, as a part of 1.
    fn share(&self, slot: &SlotReading) -> f64 {
        if matches!(slot.wal_status.as_deref(), Some("lost" | "unreserved")) {
            return 1.0;
        }
        if slot.retained.0 < self.settings.least_mib << 20 {
            return 0.0;
        }
        let Some(left) = slot.safe.or(self.room) else { return 0.0 };
        let retained = slot.retained.0 as f64;
        retained / (retained + left.0 as f64)
    }
}

fn line(slot: &SlotReading) -> String {
    let who = if slot.active { "its consumer is connected" } else { "NOBODY is connected" };
    let left = slot.safe.map_or_else(
        || "no limit but the disk (max_slot_wal_keep_size)".to_owned(),
        |safe| format!("{safe} are left until the server gives it up"),
    );
    let left = match slot.wal_status.as_deref() {
        Some("lost") => "the server has given it up".to_owned(),
        Some("unreserved") => "the server gives it up at the next checkpoint".to_owned(),
        _ => left,
    };
    format!("slot {} keeps {} of WAL, {who}; {left}", slot.name, slot.retained)
}

impl Rule for SlotRetaining {
    fn id(&self) -> &'static str {
        rule::SLOT_RETAINING
    }

    fn title(&self, subject: &Subject) -> String {
        format!("A replication slot of {} keeps much WAL", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let reading = match observation {
            Observation::Reading(Reading::Host(host)) => {
                self.room = host.file_systems.iter().map(|file_system| file_system.available).min();
                return None;
            }
            Observation::Reading(Reading::Wal(reading)) => reading,
            _ => return None,
        };
        let shares = reading.slots.iter().map(|slot| (slot.clone(), self.share(slot)));
        self.worst = shares.max_by(|(_, one), (_, other)| one.total_cmp(other));
        let worst = self.worst.as_ref().map_or(0.0, |(_, share)| share * 100.0);
        let verdict = if worst >= self.settings.critical_percent {
            Verdict::Bad(Severity::Critical)
        } else if worst >= self.settings.retained_percent {
            Verdict::Bad(Severity::Warning)
        } else if worst < self.settings.clear_percent {
            Verdict::Good
        } else {
            Verdict::Between
        };
        Some(Judgement::instant(reading.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some((slot, share)) = &self.worst else { return Facts::default() };
        let of = if slot.safe.is_some() { "its limit" } else { "the disk's room" };
        let name = short(&slot.name);
        let summary = match slot.wal_status.as_deref() {
            Some("lost" | "unreserved") => format!("{}: the server gives up slot {name}", subject.cluster),
            _ => format!(
                "{}: slot {name} keeps {} of WAL, {} of {of}",
                subject.cluster,
                slot.retained,
                percent(Share(*share))
            ),
        };
        Facts {
            summary,
            details: vec![line(slot)],
            next_steps: steps(&[
                "whose is it? `SELECT slot_name, active_pid, restart_lsn, wal_status FROM pg_replication_slots`",
                "bring its consumer back: a standby, a receiver of WAL, a logical subscriber",
                "if nobody needs it: `SELECT pg_drop_replication_slot(...)`, then a checkpoint gives the room back",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.worst.iter().map(|(slot, _)| line(slot)).collect()
    }
}
