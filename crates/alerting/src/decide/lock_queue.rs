//! Rule `lock-queue`.
//!
//! *Why*: one forgotten session, or one ALTER TABLE behind a long query, and everybody else waits behind it; from outside the
//! database looks down while it is idle.
//! *Source*: sessions that wait for a lock, how long (`waitstart` of `pg_locks`; before 14 since their query began), and whom they
//! wait for, directly or behind others (`pg_blocking_pids`): the head of the queue.
//! *First things to do*: look at the head, not at those that wait; cancel or end it; set `lock_timeout` where schemas are changed.

use std::time::Duration;

use model::{
    Observation, Reading, Severity,
    alert::{label, rule},
    reading::LockWaits,
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject},
    session,
    text::{plural, short, span},
};
use crate::settings::{self, duration};

const READINGS: u32 = 2;
const MAX_GAP: Duration = Duration::from_secs(10);

/// The rule's state.
pub(super) struct LockQueue {
    settings: settings::LockQueue,
    gate: Gate,
    locks: Option<LockWaits>,
}

impl LockQueue {
    pub(super) fn new(settings: settings::LockQueue) -> Self {
        let gate = Gate::new(Confirmation {
            readings: READINGS,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, locks: None }
    }

    fn verdict(&self, locks: &LockWaits) -> Verdict {
        let settings = &self.settings;
        let many = locks.waiting >= settings.waiters;
        let longer = |seconds: f64| locks.waiting > 0 && locks.longest >= duration(seconds);
        if many && longer(settings.critical_s) {
            Verdict::Bad(Severity::Critical)
        } else if (many && longer(settings.waiters_s)) || longer(settings.longest_s) {
            Verdict::Bad(Severity::Warning)
        } else if !longer(settings.longest_s / 2.0) && locks.waiting <= settings.waiters / 2 {
            Verdict::Good
        } else {
            Verdict::Between
        }
    }
}

fn waits(locks: &LockWaits) -> String {
    let longest = span(locks.longest);
    format!("{} for a lock, the longest for {longest}", plural(locks.waiting, "session waits", "sessions wait"))
}

impl Rule for LockQueue {
    fn id(&self) -> &'static str {
        rule::LOCK_QUEUE
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Sessions of {} wait for locks", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Activity(activity)) = observation else { return None };
        let verdict = self.verdict(&activity.locks);
        self.locks = Some(activity.locks.clone());
        Some(Judgement::instant(activity.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(locks) = &self.locks else { return Facts::default() };
        let head = locks.head_session.as_deref();
        let table = locks.table.as_ref().map(|table| format!(" on {}", short(table.as_str()))).unwrap_or_default();
        let behind = match (head, locks.head) {
            (Some(head), _) => format!(" behind {}", session::brief(head)),
            (None, Some(pid)) => format!(" behind pid {pid}"),
            (None, None) => String::new(),
        };
        let mut details = vec![waits(locks)];
        details.extend(locks.table.as_ref().map(|table| format!("most of them for table {table} or its rows")));
        match head {
            Some(head) => {
                details.push(format!("at the head: {}", session::line(head)));
                details.extend(session::cost(head));
            }
            None if locks.head.is_none() => {
                details.push(
                    "no session is at the head: a prepared transaction (pg_prepared_xacts), or a deadlock".to_owned(),
                );
            }
            None => {}
        }
        let mut labels = head.map(session::labels).unwrap_or_default();
        labels.extend(locks.head.map(|pid| (label::PID.to_owned(), pid.to_string())));
        labels.extend(locks.table.as_ref().map(|table| (label::TABLE.to_owned(), table.to_string())));
        let pid = locks.head.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
        Facts {
            summary: format!(
                "{}: {} {} for locks{table}{behind}",
                subject.cluster,
                plural(locks.waiting, "session waits", "sessions wait"),
                span(locks.longest)
            ),
            details,
            labels,
            next_steps: vec![
                format!(
                    "look at the head: `SELECT * FROM pg_stat_activity WHERE pid = {pid}`; is it at work, or forgotten?"
                ),
                format!(
                    "at work: `SELECT pg_cancel_backend({pid})`; forgotten in a transaction: `SELECT pg_terminate_backend({pid})`"
                ),
                "if it changes a schema: let it run with `SET lock_timeout = '2s'`, and try again".to_owned(),
            ],
        }
    }

    fn present(&self) -> Vec<String> {
        self.locks.as_ref().map(waits).into_iter().collect()
    }
}
