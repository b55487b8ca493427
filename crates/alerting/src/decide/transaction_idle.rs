//! Rule `transaction-idle`.
//!
//! *Why*: a session that is idle in a transaction keeps its locks and keeps vacuum from clearing away what it might still see, and
//! nothing ends that by itself.
//! *Source*: `state` and `state_change` of `pg_stat_activity`, and who waits behind it.
//! *First things to do*: see whose it is; end it; let the server end the next one (`idle_in_transaction_session_timeout`).

use std::time::Duration;

use model::{
    Observation, Reading, Severity,
    alert::rule,
    reading::{ActivityReading, LongTransaction},
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject},
    session,
    text::{plural, span},
};
use crate::settings::{self, duration};

const MAX_GAP: Duration = Duration::from_secs(10);

/// The rule's state.
pub(super) struct TransactionIdle {
    settings: settings::TransactionIdle,
    gate: Gate,
    worst: Option<LongTransaction>,
}

impl TransactionIdle {
    pub(super) fn new(settings: settings::TransactionIdle) -> Self {
        // How long it lasts already is in the reading.
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, worst: None }
    }

    fn how_bad(&self, session: &LongTransaction) -> Verdict {
        let longer = |seconds: f64| session.state_for >= duration(seconds);
        if longer(self.settings.blocking_s) && session.blocks >= self.settings.critical_blocks {
            Verdict::Bad(Severity::Critical)
        } else if longer(self.settings.idle_s) || (session.blocks > 0 && longer(self.settings.blocking_s)) {
            Verdict::Bad(Severity::Warning)
        } else {
            Verdict::Good
        }
    }
}

/// The one that has been so for the longest, and the one that most wait for.
fn candidates(activity: &ActivityReading) -> impl Iterator<Item = &LongTransaction> {
    let head = activity.locks.head_session.as_deref().filter(|head| head.state.starts_with("idle in transaction"));
    activity.idle_transaction.as_deref().into_iter().chain(head)
}

impl Rule for TransactionIdle {
    fn id(&self) -> &'static str {
        rule::TRANSACTION_IDLE
    }

    fn title(&self, subject: &Subject) -> String {
        format!("A transaction of {} left idle", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Activity(activity)) = observation else { return None };
        let rank = |verdict: Verdict| match verdict {
            Verdict::Bad(Severity::Critical) => 2,
            Verdict::Bad(_) => 1,
            Verdict::Between | Verdict::Good => 0,
        };
        let judged = candidates(activity).map(|session| (session, self.how_bad(session)));
        let worst = judged.max_by_key(|(session, verdict)| (rank(*verdict), session.blocks, session.state_for));
        let verdict = worst.map_or(Verdict::Good, |(_, verdict)| verdict);
        self.worst = worst.map(|(session, _)| session.clone());
        Some(Judgement::instant(activity.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(worst) = &self.worst else { return Facts::default() };
        let waits = match worst.blocks {
            0 => String::new(),
            blocks => format!(", {} for it", plural(blocks, "session waits", "sessions wait")),
        };
        let mut details = vec![session::line(worst)];
        details.extend(session::cost(worst));
        let pid = worst.pid;
        Facts {
            summary: format!(
                "{}: {} idle in its transaction for {}{waits}",
                subject.cluster,
                session::brief(worst),
                span(worst.state_for)
            ),
            details,
            labels: session::labels(worst),
            next_steps: vec![
                format!("whose is it? `SELECT * FROM pg_stat_activity WHERE pid = {pid}`, then that client's log"),
                format!("end it, which rolls it back: `SELECT pg_terminate_backend({pid})`"),
                "let the server end the next: `ALTER ROLE ... SET idle_in_transaction_session_timeout = '1min'`"
                    .to_owned(),
            ],
        }
    }

    fn present(&self) -> Vec<String> {
        self.worst
            .as_ref()
            .map_or_else(|| vec!["no session is idle in a transaction".to_owned()], |worst| vec![session::line(worst)])
    }
}
