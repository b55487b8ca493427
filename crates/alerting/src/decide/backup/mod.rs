//! Rules about backups. They judge one reading, which the guard puts together once a minute and after each run, so that a rule needs no
//! memory of its own and a new guard says what the one before would have said.

mod failing;
mod unprotected;
mod unproven;

use std::time::Duration;

use model::{
    Observation, Reading,
    reading::{BackupReading, BackupSeen},
};

pub(super) use self::{failing::BackupFailing, unprotected::RepositoryUnprotected, unproven::BackupUnproven};
use super::{
    gate::{Confirmation, Gate},
    text::span,
};

/// A reading says how things stand: the first one counts, and so does the first good one.
fn gate() -> Gate {
    Gate::new(Confirmation {
        readings: 1,
        lasting: Duration::ZERO,
        clear: Duration::ZERO,
        forget: Duration::ZERO,
        max_gap: Duration::MAX,
    })
}

fn reading(observation: &Observation) -> Option<&BackupReading> {
    match observation {
        Observation::Reading(Reading::Backup(reading)) => Some(reading),
        _ => None,
    }
}

/// An age as people say it: days from two on.
fn age(duration: Duration) -> String {
    const DAY: u64 = 86_400;
    match duration.as_secs() {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        _ => span(duration),
    }
}

/// What is known of the newest backups, as facts.
fn standing(reading: &BackupReading) -> Vec<String> {
    let one = |what: &str, seen: Option<&BackupSeen>| match seen {
        Some(seen) => format!(
            "{what}: {}, restores to {} ({} ago)",
            seen.id.chars().take(8).collect::<String>(),
            seen.consistent_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            age(seen.age)
        ),
        None => format!("{what}: none"),
    };
    vec![one("newest proven backup", reading.proven.as_ref()), one("newest backup", reading.last.as_ref())]
}
