//! Rule `services-need-you`.
//!
//! *Why*: a recovery that stopped for good, or waits for a yes, looks from outside like one that goes on. Whoever sleeps has to know that nothing more
//! comes by itself.
//! *Source*: the recovery of services tells when it gave something up (`recovery_escalated`), when it waits for an approval
//! (`recovery_approval_wanted`), and when all is stable (`services_stable`).
//! *First things to do*: `oxpecker service plan` shows what is open and why; the logs of what it names; approve or mend, then `oxpecker service apply --again`.

use std::time::Duration;

use model::{EventKind, Observation, Severity, alert::rule::SERVICES_NEED_YOU};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::fit,
};

/// How much of each reason an alert carries, in characters.
const REASON_CHARS: usize = 300;
/// Reasons that an alert carries.
const REASONS_MAX: usize = 8;

/// The rule's state.
pub(super) struct ServicesNeedYou {
    gate: Gate,
    reasons: Vec<String>,
    approve: Option<String>,
}

impl ServicesNeedYou {
    pub(super) fn new() -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: Duration::ZERO,
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { gate, reasons: Vec::new(), approve: None }
    }
}

impl Rule for ServicesNeedYou {
    fn id(&self) -> &'static str {
        SERVICES_NEED_YOU
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Services around {} need you", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Event(at, kind) = observation else { return None };
        let verdict = match kind {
            EventKind::RecoveryEscalated { reasons } => {
                self.reasons.clone_from(reasons);
                Verdict::Bad(Severity::Critical)
            }
            EventKind::RecoveryApprovalWanted { plan, what } => {
                self.approve = Some(format!("{}: `oxpecker approve {plan}`", what.join(", ")));
                Verdict::Bad(Severity::Warning)
            }
            EventKind::ServicesStable { .. } => {
                (self.reasons, self.approve) = (Vec::new(), None);
                Verdict::Good
            }
            _ => return None,
        };
        Some(Judgement::instant(*at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let first = self.reasons.first().or(self.approve.as_ref()).map_or("", String::as_str);
        let mut details: Vec<String> =
            self.reasons.iter().take(REASONS_MAX).map(|reason| fit(reason, REASON_CHARS)).collect();
        let left = self.reasons.len().saturating_sub(REASONS_MAX);
        if left > 0 {
            details.push(format!("and {left} more"));
        }
        details.extend(self.approve.iter().map(|what| format!("waits for a yes: {}", fit(what, REASON_CHARS))));
        Facts {
            summary: format!("Services around {} need you: {first}", subject.cluster),
            details,
            next_steps: steps(&[
                "see what is open and why: `oxpecker service plan`",
                "look at the logs of the services that it names, then mend or approve",
                "go on: `oxpecker service apply --again`",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        vec!["all services that are meant to run are stable".to_owned()]
    }
}
