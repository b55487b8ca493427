//! Rule `recording-failing`.
//!
//! *Why*: without its journal the guard still alerts and acts, but nothing can be explained afterwards, and the reason is often a
//! full disk that stops PostgreSQL next.
//! *Source*: the guard reports each failed write of the journal (`recording_failed`). There is no event for success, so the
//! condition ends when no failure was reported for `clear_s`: the guard writes readings every second.
//! *First things to do*: see whether the disk is full or read-only; make room; restart nothing.

use std::time::Duration;

use model::{EventKind, Moment, Observation, Severity};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::fit,
};
use crate::settings::{self, duration};

/// How much of the store's own words an alert carries, in characters.
const DETAIL_CHARS: usize = 300;

struct Failure {
    error: String,
    lost: u64,
}

/// The rule's state.
pub(super) struct RecordingFailing {
    gate: Gate,
    newest: Option<Failure>,
}

impl RecordingFailing {
    pub(super) fn new(settings: settings::RecordingFailing) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { gate, newest: None }
    }
}

impl Rule for RecordingFailing {
    fn id(&self) -> &'static str {
        "recording-failing"
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Recording on {} failing", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let at: Moment = match observation {
            Observation::Event(at, EventKind::RecordingFailed { error, lost }) => {
                self.newest = Some(Failure { error: error.clone(), lost: *lost });
                return Some(Judgement::instant(*at, Verdict::Bad(Severity::Warning)));
            }
            Observation::Event(at, _) => *at,
            Observation::Reading(reading) => reading.at(),
        };
        Some(Judgement::instant(at, Verdict::Good))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(failure) = &self.newest else { return Facts::default() };
        Facts {
            summary: format!("oxpecker on {} can't record: {}", subject.host, failure.error),
            details: vec![
                format!("the journal's store says: {}", fit(&failure.error, DETAIL_CHARS)),
                format!("{} events and readings not recorded so far", failure.lost),
                "alerts and the governor go on without it".to_owned(),
            ],
            next_steps: steps(&[
                "see whether the disk of the state directory is full or read-only: `df -h`, `dmesg | tail`",
                "make room; if PostgreSQL's disk is the same, it stops next",
                "nothing needs a restart: recording goes on by itself",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.newest.iter().map(|f| format!("{} events and readings were not recorded", f.lost)).collect()
    }
}
