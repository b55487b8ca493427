//! Rule `wal-behind`.
//!
//! *Why*: what is not in the repository is lost with the server. How much that is at this moment is the recovery point that a team really
//! has, whatever it agreed on.
//! *Source*: the receiver's own positions: when the server's WAL of a moment was all durable in the repository. While the server can't be
//! asked the time runs on, for it may be writing. WAL that the server removed before it was received is critical at once.
//! *First things to do*: see why it does not stream (the guard's log, `oxpecker status`); see to the repository's room; where WAL is missing,
//! make a backup now, for only that closes the window.

use std::time::Duration;

use model::{Observation, Reading, Severity, alert::rule, reading::ReceiveReading};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{fit, span},
};
use crate::settings;

/// How much of an error an alert carries, in characters.
const DETAIL_CHARS: usize = 400;

/// The rule's state.
pub(super) struct WalBehind {
    settings: settings::WalBehind,
    gate: Gate,
    newest: Option<ReceiveReading>,
}

impl WalBehind {
    pub(super) fn new(settings: settings::WalBehind) -> Self {
        // The reading has the time in it already: one is enough, either way.
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: Duration::ZERO,
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { settings, gate, newest: None }
    }
}

fn standing(reading: &ReceiveReading) -> Vec<String> {
    let position = |lsn: Option<model::Lsn>| lsn.map_or_else(|| "not known".to_owned(), |lsn| lsn.to_string());
    let mut facts = vec![format!(
        "in the repository up to {}, the server is at {}",
        position(reading.durable),
        position(reading.server)
    )];
    facts.extend(reading.gap.map(|gap| format!("missing for good: {} to {}", gap.from, gap.to)));
    facts
}

impl Rule for WalBehind {
    fn id(&self) -> &'static str {
        rule::WAL_BEHIND
    }

    fn title(&self, subject: &Subject) -> String {
        format!("WAL of {} not in the repository", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Receive(reading)) = observation else { return None };
        let critical = reading.max_behind.as_secs_f64() * self.settings.critical_factor;
        let verdict = if reading.gap.is_some() || reading.behind.as_secs_f64() > critical {
            Verdict::Bad(Severity::Critical)
        } else if reading.behind > reading.max_behind {
            Verdict::Bad(Severity::Warning)
        } else if reading.behind <= reading.max_behind / 2 {
            Verdict::Good
        } else {
            Verdict::Between
        };
        self.newest = Some(reading.clone());
        Some(Judgement::instant(reading.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(newest) = &self.newest else { return Facts::default() };
        let mut details = standing(newest);
        let error = newest.last_error.as_deref();
        details.extend(error.map(|error| fit(&format!("the receiver says: {error}"), DETAIL_CHARS)));
        if newest.gap.is_some() {
            return Facts {
                summary: format!("{}: WAL is missing, no point in time behind the gap can be reached", subject.cluster),
                details,
                next_steps: steps(&[
                    "make a backup now: points in time from then on can be reached again: `oxpecker backup create`",
                    "see what is reachable: `oxpecker wal list`, `oxpecker backup list`",
                    "see why the server removed it: a slot that was dropped or given up, max_slot_wal_keep_size",
                ]),
                ..Facts::default()
            };
        }
        let limit = span(newest.max_behind);
        Facts {
            summary: format!(
                "{}: the last {} of WAL are not in the repository, more than {limit}",
                subject.cluster,
                span(newest.behind)
            ),
            details,
            next_steps: steps(&[
                "read why: `oxpecker status`, and the guard's log for what led to it",
                "see to the repository: room, permissions, the network",
                "see to the server: `SELECT * FROM pg_replication_slots`, max_wal_senders, pg_hba.conf",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.newest.as_ref().map(standing).unwrap_or_default()
    }
}
