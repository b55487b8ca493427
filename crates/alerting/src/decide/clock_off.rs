//! Rule `clock-off`.
//!
//! *Why*: logs that can't be put in order, tokens and certificates that are not valid yet, points in time of a recovery that are not
//! the ones meant; and jobs that run twice, or not at all.
//! *Source*: what can be measured without asking a time server: steps of the wall clock against the clock since boot, and the
//! server's clock against ours, less half of the time that its answer took. A clock that drifts slowly, on a host that is its own
//! database's, is not seen: that takes a time server, and chrony or its like to ask it.
//! *First things to do*: see whether a time service runs and what it follows; see who set the clock; on a guest, ask the hypervisor.

use std::time::Duration;

use model::{EventKind, Moment, Observation, Reading, Severity, alert::rule, reading::ActivityReading};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::span,
};
use crate::settings::{self, duration};

/// Answers in a row that must show the server's clock to be off.
const ANSWERS: u32 = 3;

/// The rule's state.
pub(super) struct ClockOff {
    settings: settings::ClockOff,
    gate: Gate,
    /// The newest step, by how many milliseconds.
    stepped: Option<(Moment, i64)>,
    answers: u32,
    /// How far the server's clock is ahead, in milliseconds.
    ahead: Option<i64>,
}

impl ClockOff {
    pub(super) fn new(settings: settings::ClockOff) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { settings, gate, stepped: None, answers: 0, ahead: None }
    }

    /// Whether the server's clock is off for certain: by more than the time that is unknown.
    fn is_off(&mut self, activity: &ActivityReading) -> bool {
        self.ahead = activity.clock_ahead_ms;
        let by = activity.clock_ahead_ms.map_or(Duration::ZERO, |ms| Duration::from_millis(ms.unsigned_abs()));
        let off = by.saturating_sub(activity.took / 2) >= duration(self.settings.server_s);
        self.answers = if off { self.answers.saturating_add(1) } else { 0 };
        self.answers >= ANSWERS
    }
}

/// `12 s ahead`, `3.0 s behind`.
fn way(ms: i64) -> String {
    let by = span(Duration::from_millis(ms.unsigned_abs()));
    format!("{by} {}", if ms < 0 { "behind" } else { "ahead" })
}

impl Rule for ClockOff {
    fn id(&self) -> &'static str {
        rule::CLOCK_OFF
    }

    fn title(&self, subject: &Subject) -> String {
        format!("The clock of {} or of its database is off", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        match observation {
            Observation::Event(at, EventKind::ClockStepped { by_ms }) => {
                let far = Duration::from_millis(by_ms.unsigned_abs()) >= duration(self.settings.step_s);
                far.then(|| {
                    self.stepped = Some((*at, *by_ms));
                    Judgement::instant(*at, Verdict::Bad(Severity::Warning))
                })
            }
            Observation::Reading(Reading::Activity(activity)) => {
                let off = self.is_off(activity);
                let verdict = match (off, self.answers) {
                    (true, _) => Verdict::Bad(Severity::Warning),
                    (false, 0) => Verdict::Good,
                    (false, _) => Verdict::Between,
                };
                Some(Judgement::instant(activity.at, verdict))
            }
            // Where no server answers, time goes on all the same.
            Observation::Reading(Reading::Host(host)) if self.answers == 0 => {
                Some(Judgement::instant(host.at, Verdict::Good))
            }
            _ => None,
        }
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let server = self.ahead.filter(|_| self.answers >= ANSWERS);
        let summary = match (server, self.stepped) {
            (Some(ahead), _) => format!("{}: the server's clock is {} of ours", subject.cluster, way(ahead)),
            (None, Some((_, by))) => {
                let to = if by < 0 { "back" } else { "forward" };
                format!(
                    "The clock of {} was set {to} by {}",
                    subject.host,
                    span(Duration::from_millis(by.unsigned_abs()))
                )
            }
            (None, None) => format!("The clock of {} is off", subject.host),
        };
        Facts {
            summary,
            details: self.present(),
            next_steps: steps(&[
                "see what keeps the clock: `timedatectl`, `chronyc tracking`; exactly one time service should run",
                "see who set it: the journal around that moment; on a guest the hypervisor's own clock",
                "then look at what used it: jobs that ran twice or not at all, times in logs, points in time for recovery",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        let mut facts = Vec::new();
        facts.extend(self.stepped.map(|(at, by)| {
            format!(
                "the wall clock jumped by {by} ms against the clock since boot, at {}",
                at.wall.strftime("%H:%M:%S UTC")
            )
        }));
        facts.extend(self.ahead.map(|ahead| format!("the server's clock is {ahead} ms ahead of ours")));
        facts
    }
}
