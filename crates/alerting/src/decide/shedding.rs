//! Rules `shedding-blocked` and `shedding-active`.
//!
//! *Why*: a ladder that may not go on leaves the host as it is, and whoever relies on it sleeps; one that acts has taken something from somebody, who will ask.
//! *Source*: the ladder tells each of its steps (`shedding_stepped`), with what is in force after it. A dry run alarms nobody: the rules for CPU, memory and
//! the server do.
//! *First things to do*: `oxpecker status` shows the ladder with the reason of each rung; find what presses the host.

use std::time::Duration;

use model::{
    EventKind, Mode, Observation, Severity,
    alert::rule::{SHEDDING_ACTIVE, SHEDDING_BLOCKED},
    event::SheddingStep,
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::fit,
};

/// How much of a reason an alert carries, in characters.
const REASON_CHARS: usize = 300;
/// Lines of an alert about steps and rungs.
const LINES_MAX: usize = 8;

/// Each step counts at once.
fn at_once() -> Gate {
    Gate::new(Confirmation {
        readings: 1,
        lasting: Duration::ZERO,
        clear: Duration::ZERO,
        forget: Duration::ZERO,
        max_gap: Duration::MAX,
    })
}

/// The rule's state.
pub(super) struct SheddingBlocked {
    gate: Gate,
    why: String,
    passed: Vec<String>,
    /// What happened last.
    now: String,
}

impl SheddingBlocked {
    pub(super) fn new() -> Self {
        Self { gate: at_once(), why: String::new(), passed: Vec::new(), now: String::new() }
    }
}

impl Rule for SheddingBlocked {
    fn id(&self) -> &'static str {
        SHEDDING_BLOCKED
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Nothing more is shed on {}", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Event(at, EventKind::SheddingStepped { step, mode, why, passed, .. }) = observation else {
            return None;
        };
        let stuck = matches!(step, SheddingStep::Blocked | SheddingStep::Exhausted) && *mode == Mode::Act;
        self.now.clone_from(why);
        if !stuck {
            return Some(Judgement::instant(*at, Verdict::Good));
        }
        self.why.clone_from(why);
        self.passed.clone_from(passed);
        Some(Judgement::instant(*at, Verdict::Bad(Severity::Critical)))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let passed = self.passed.iter().take(LINES_MAX).map(|one| fit(&format!("passed: {one}"), REASON_CHARS));
        Facts {
            summary: format!(
                "{} is under critical pressure and the shedding ladder can't go on: {}",
                subject.host,
                fit(&self.why, REASON_CHARS)
            ),
            details: passed.collect(),
            next_steps: steps(&[
                "see the ladder and what presses the host: `oxpecker status`",
                "end or move what takes the CPU or the memory by hand: the ladder does no more by itself",
                "declare a further rung, or mark services with `shed`, in the configuration ([shedding])",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        vec![fit(&self.now, REASON_CHARS)]
    }
}

/// The rule's state.
pub(super) struct SheddingActive {
    gate: Gate,
    held: Vec<String>,
    act: String,
    why: String,
    now: String,
}

impl SheddingActive {
    pub(super) fn new() -> Self {
        Self { gate: at_once(), held: Vec::new(), act: String::new(), why: String::new(), now: String::new() }
    }
}

/// How much people feel of what is in force.
fn felt(held: &[String]) -> Severity {
    let any = |word: &str| held.iter().any(|rung| rung.contains(word));
    if any("stop PostgreSQL") {
        Severity::Critical
    } else if any("stop services") {
        Severity::Warning
    } else {
        Severity::Info
    }
}

impl Rule for SheddingActive {
    fn id(&self) -> &'static str {
        SHEDDING_ACTIVE
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Load is shed on {}", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Event(at, EventKind::SheddingStepped { step, mode, act, why, held, .. }) = observation else {
            return None;
        };
        self.now.clone_from(why);
        if *mode != Mode::Act || (held.is_empty() && *step != SheddingStep::Taken) {
            return Some(Judgement::instant(*at, Verdict::Good));
        }
        if *step == SheddingStep::Taken {
            self.act = act.clone().unwrap_or_default();
            self.why.clone_from(why);
        }
        self.held.clone_from(held);
        Some(Judgement::instant(*at, Verdict::Bad(felt(held))))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let held = self.held.iter().take(LINES_MAX).map(|one| format!("in force: {}", fit(one, REASON_CHARS)));
        Facts {
            summary: format!(
                "Load is shed on {} so that it survives: {}: {}",
                subject.host,
                fit(&self.act, REASON_CHARS),
                fit(&self.why, REASON_CHARS)
            ),
            details: held.collect(),
            next_steps: steps(&[
                "see what is in force and when it is given back: `oxpecker status`",
                "find what presses the host: `oxpecker incident`",
                "nothing has to be started by hand: it comes back in order after calm",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        vec![fit(&self.now, REASON_CHARS)]
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::{AlertState, Moment};

    use super::*;
    use crate::{RuleSettings, Rules, Subject as Of};

    fn step(second: u64, step: SheddingStep, mode: Mode, held: &[&str]) -> Observation {
        let at = Moment {
            wall: Timestamp::from_second(i64::try_from(second).unwrap()).unwrap(),
            boot_us: second * 1_000_000,
        };
        let kind = EventKind::SheddingStepped {
            step,
            mode,
            rung: None,
            act: Some("stop bot".to_owned()),
            why: "99 % of 2 CPUs busy".to_owned(),
            cause: None,
            passed: vec!["throttle vacuum: no vacuum runs".to_owned()],
            notes: vec![],
            held: held.iter().map(|rung| (*rung).to_owned()).collect(),
        };
        Observation::Event(at, kind)
    }

    #[test]
    fn a_step_is_told_a_worse_one_again_and_its_end() {
        let mut rules = Rules::new(&RuleSettings::default(), Of { cluster: "main".into(), host: "h".into() });
        let mut tell = |one: Observation| -> Vec<String> {
            let all = rules.observe(&one);
            let state = |state| if state == AlertState::Firing { "+" } else { "-" };
            all.iter().map(|alert| format!("{}{} {}", state(alert.state), alert.rule, alert.severity)).collect()
        };
        let own = "pause own work";
        assert_eq!(tell(step(1, SheddingStep::Taken, Mode::Act, &[own])), ["+shedding-active info"]);
        assert_eq!(tell(step(2, SheddingStep::Held, Mode::Act, &[own])), Vec::<String>::new());
        let services = "stop services (shed = 1)";
        let worse = tell(step(3, SheddingStep::Taken, Mode::Act, &[own, services]));
        assert_eq!(worse, ["-shedding-active info", "+shedding-active warning"]);
        assert_eq!(tell(step(4, SheddingStep::Exhausted, Mode::Act, &[own, services])), ["+shedding-blocked critical"]);
        assert_eq!(tell(step(5, SheddingStep::GivenBack, Mode::Act, &[own])), ["-shedding-blocked critical"]);
        assert_eq!(tell(step(6, SheddingStep::GivenBack, Mode::Act, &[])), ["-shedding-active warning"]);
        for (at, what) in [(7, SheddingStep::Proposed), (8, SheddingStep::Exhausted)] {
            assert_eq!(tell(step(at, what, Mode::Observe, &[own])), Vec::<String>::new(), "a dry run");
        }
    }
}
