//! Rule `transaction-long`.
//!
//! *Why*: what a transaction might still see, no vacuum of any table can clear away: while it is open every table that is written
//! grows, and ids grow old. A long one that holds nothing back and stops nobody is nobody's concern: a dump of a quiet database.
//! *Source*: the oldest transaction of a client (`xact_start`), how many transactions have begun since its oldest visible one
//! (`backend_xmin`), and who waits behind it.
//! *First things to do*: see whether it still does anything; end it; run the next such report on a standby.

use std::time::Duration;

use model::{Observation, Reading, Severity, alert::rule, reading::LongTransaction};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject},
    session,
    text::span,
};
use crate::settings::{self, duration};

const MAX_GAP: Duration = Duration::from_secs(10);

/// The rule's state.
pub(super) struct TransactionLong {
    settings: settings::TransactionLong,
    gate: Gate,
    longest: Option<LongTransaction>,
}

impl TransactionLong {
    pub(super) fn new(settings: settings::TransactionLong) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, longest: None }
    }

    fn verdict(&self, longest: &LongTransaction) -> Verdict {
        let held = longest.holds_back.unwrap_or(0) as f64 / 1e6;
        let costs = held >= self.settings.held_back_millions || longest.blocks > 0;
        if longest.age >= duration(self.settings.age_s) && costs {
            Verdict::Bad(Severity::Warning)
        } else if longest.age < duration(self.settings.age_s) {
            Verdict::Good
        } else {
            Verdict::Between
        }
    }
}

impl Rule for TransactionLong {
    fn id(&self) -> &'static str {
        rule::TRANSACTION_LONG
    }

    fn title(&self, subject: &Subject) -> String {
        format!("A transaction of {} open for long", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Activity(activity)) = observation else { return None };
        let longest = activity.longest_transaction.as_deref();
        let verdict = longest.map_or(Verdict::Good, |longest| self.verdict(longest));
        self.longest = longest.cloned();
        Some(Judgement::instant(activity.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(longest) = &self.longest else { return Facts::default() };
        let mut details = vec![session::line(longest)];
        details.extend(session::cost(longest));
        let pid = longest.pid;
        Facts {
            summary: format!(
                "{}: {} has a transaction open for {}",
                subject.cluster,
                session::brief(longest),
                span(longest.age)
            ),
            details,
            labels: session::labels(longest),
            next_steps: vec![
                format!(
                    "does it still do anything? `SELECT state, wait_event, xact_start FROM pg_stat_activity WHERE pid = {pid}`"
                ),
                format!(
                    "cancel its query with `SELECT pg_cancel_backend({pid})`; idle: `SELECT pg_terminate_backend({pid})`"
                ),
                "run such reports on a standby, or in pieces; from 17 on `transaction_timeout` ends them".to_owned(),
            ],
        }
    }

    fn present(&self) -> Vec<String> {
        let longest = self.longest.as_ref().map(|longest| format!("now the longest: {}", session::line(longest)));
        longest.into_iter().collect()
    }
}
