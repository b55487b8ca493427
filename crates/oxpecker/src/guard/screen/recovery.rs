//! How services are brought back, on the screen: who is not back yet, what comes next and when, and what a person is needed for.

use model::Mode;

use super::{Line, SHOWN, State};
use crate::{guard::recovery_protocol::RecoveryStatus, work};

/// The line; none where nobody has looked yet.
pub fn line(status: Option<&RecoveryStatus>) -> Option<Line> {
    let status = status?;
    let ill: Vec<_> = status.services.iter().filter(|one| !one.well).collect();
    let mut parts =
        vec![format!("{} of {} services are well", status.services.len() - ill.len(), status.services.len())];
    parts.extend(ill.iter().take(SHOWN).map(|one| format!("{}: {}", one.service, one.state)));
    if ill.len() > SHOWN {
        parts.push(format!("and {} more", ill.len() - SHOWN));
    }
    parts.extend(next(status));
    if let Some(approval) = &status.approval {
        parts.push(format!("WAITS FOR YOUR YES to {}: oxpecker approve {}", approval.what.join(", "), approval.plan));
    }
    parts.extend(status.escalations.iter().map(|why| format!("NEEDS YOU: {why}")));
    parts.extend(status.problem.iter().map(|problem| format!("FAILED: {problem}")));
    let state = match (ill.is_empty() && status.approval.is_none() && status.escalations.is_empty(), &status.problem) {
        (true, None) => State::Well,
        _ => State::NotWell,
    };
    Some(Line { name: "recovery", state, text: parts.join("\n") })
}

/// What comes next, or what would.
fn next(status: &RecoveryStatus) -> Option<String> {
    let steps: Vec<String> =
        status.steps.iter().take(SHOWN).map(|step| format!("{} {}", step.action, step.service)).collect();
    let expected =
        status.expected.map_or(String::new(), |time| format!("; all expected stable in {}", work::duration(time)));
    if steps.is_empty() {
        return None;
    }
    let how = match status.mode {
        Mode::Act => "next",
        Mode::Advise => "it would, in this order",
        Mode::Observe => "mode observe does nothing; `oxpecker service apply` would, in this order",
    };
    Some(format!("{how}: {}{expected}", steps.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use services::plan::Action;

    use super::*;
    use crate::guard::recovery_protocol::{ApprovalWanted, NextStep, ServiceSeen};

    fn status() -> RecoveryStatus {
        let seen = |name: &str, state: &str, well| ServiceSeen {
            service: name.into(),
            state: state.into(),
            well,
            stopped_by: None,
            runs: None,
            stops: false,
            health: None,
        };
        RecoveryStatus {
            mode: Mode::Act,
            acting: true,
            services: vec![seen("main", "stable", true), seen("site", "down", false)],
            steps: vec![NextStep {
                service: "site".into(),
                action: Action::Start,
                in_time: Duration::ZERO,
                reason: "down".into(),
            }],
            expected: Some(Duration::from_secs(40)),
            escalations: vec![],
            approval: None,
            problem: None,
        }
    }

    #[test]
    fn what_is_not_back_comes_with_what_is_done_about_it() {
        let ill = line(Some(&status())).unwrap();
        assert_eq!(ill.state, State::NotWell);
        assert_eq!(ill.text, "1 of 2 services are well\nsite: down\nnext: start site; all expected stable in 40 s");
        let mut well = status();
        (well.services[1].well, well.steps) = (true, vec![]);
        let well_line = line(Some(&well)).unwrap();
        assert_eq!((well_line.state, well_line.text.as_str()), (State::Well, "2 of 2 services are well"));
        well.approval = Some(ApprovalWanted { plan: "ab12".into(), what: vec!["provision site".into()] });
        let waits = line(Some(&well)).unwrap();
        assert_eq!(waits.state, State::NotWell);
        assert!(waits.text.contains("oxpecker approve ab12"), "{}", waits.text);
        assert!(line(None).is_none());
    }
}
