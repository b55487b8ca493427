//! Alerts as a message for people: pure. Each carrier has its own limits; what does not fit is counted, never silently left out.

use std::fmt::Write as _;

use model::{Alert, AlertState, Severity, alert::rule};

/// Alerts that one message holds at most. What a receiver refuses as too long helps nobody.
pub(super) const MAX_TOGETHER: usize = 50;

/// Ends a text that was cut.
const CUT: &str = " …";

/// A message before any service's markup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// For the lock screen.
    pub(super) title: String,
    /// The rest, in lines.
    pub(super) body: String,
}

/// One alert in full, or several by one line each.
pub(super) fn message(alerts: &[&Alert], title_chars: usize, body_chars: usize) -> Message {
    match alerts {
        // To members: of several words the newest, for it says how things are now.
        [.., word] if word.rule.0 == rule::MEMBERS_WORD => {
            Message { title: fit(&word.summary, title_chars), body: fit(&word.details.join("\n"), body_chars) }
        }
        [alert] => Message { title: fit(&headline(alert), title_chars), body: whole(alert, body_chars) },
        _ => Message { title: fit(&count(alerts), title_chars), body: list(alerts, body_chars) },
    }
}

fn mark(alert: &Alert) -> &'static str {
    match (alert.state, alert.severity) {
        (AlertState::Resolved, _) => "resolved",
        (AlertState::Firing, Severity::Critical) => "CRITICAL",
        (AlertState::Firing, Severity::Warning) => "warning",
        (AlertState::Firing, Severity::Info) => "info",
    }
}

fn headline(alert: &Alert) -> String {
    format!("{}: {}", mark(alert), alert.summary)
}

fn whole(alert: &Alert, chars: usize) -> String {
    let mut text = String::new();
    for detail in &alert.details {
        let _ = writeln!(text, "- {detail}");
    }
    if !alert.next_steps.is_empty() {
        text.push_str("What to do:\n");
        for (at, step) in alert.next_steps.iter().enumerate() {
            let _ = writeln!(text, "{}. {step}", at + 1);
        }
    }
    // The tail is what tells one episode from another: the rest is cut before it is.
    let tail = format!("since {}, {}", alert.since.wall, alert.key);
    let room = chars.saturating_sub(tail.chars().count() + 1);
    fit(&format!("{}\n{tail}", fit(text.trim_end(), room)), chars)
}

fn count(alerts: &[&Alert]) -> String {
    let firing = alerts.iter().filter(|alert| alert.state == AlertState::Firing);
    let critical = firing.clone().filter(|alert| alert.severity == Severity::Critical).count();
    let (firing, resolved) = (firing.count(), alerts.len());
    let resolved = resolved - firing;
    let mut parts = Vec::new();
    if firing > 0 {
        parts.push(format!("{firing} firing ({critical} critical)"));
    }
    if resolved > 0 {
        parts.push(format!("{resolved} resolved"));
    }
    format!("{} alerts: {}", alerts.len(), parts.join(", "))
}

/// One line each, in their order; what does not fit is counted.
fn list(alerts: &[&Alert], chars: usize) -> String {
    // Room for the line that counts the rest.
    const REST_CHARS: usize = 32;
    let each = (chars.saturating_sub(REST_CHARS) / alerts.len().max(1)).saturating_sub(1);
    let mut text = String::new();
    let mut used = 0;
    for (at, alert) in alerts.iter().enumerate() {
        // Short ones leave their room to those behind.
        let line = fit(&headline(alert), each.max(60));
        let length = line.chars().count() + 1;
        if used + length + REST_CHARS > chars {
            let _ = write!(text, "and {} more: see the log", alerts.len() - at);
            break;
        }
        used += length;
        let _ = writeln!(text, "{line}");
    }
    text.trim_end().to_owned()
}

/// At most so many characters; a mark where it was cut.
pub(super) fn fit(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let keep = chars.saturating_sub(CUT.chars().count());
    text.chars().take(keep).chain(CUT.chars()).take(chars).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::alert;

    #[test]
    fn one_alert_is_told_whole() {
        let alert = alert("k1", AlertState::Firing);
        let message = message(&[&alert], 100, 1000);
        assert_eq!(message.title, "CRITICAL: CPU of db1 saturated");
        assert_eq!(message.body, "- 2 CPUs: 100 % busy\nWhat to do:\n1. look\nsince 1970-01-01T00:00:00Z, k1");
    }

    #[test]
    fn several_are_named_each_and_the_rest_is_counted() {
        let (a, b) = (alert("a", AlertState::Firing), alert("b", AlertState::Resolved));
        let two = message(&[&a, &b], 100, 1000);
        assert_eq!(two.title, "2 alerts: 1 firing (1 critical), 1 resolved");
        assert_eq!(two.body, "CRITICAL: CPU of db1 saturated\nresolved: CPU of db1 saturated");
        let many = vec![&a; 40];
        let told = message(&many, 100, 200).body;
        assert!(told.ends_with("and 35 more: see the log"), "{told}");
    }

    proptest! {
        #[test]
        fn no_limit_is_passed(summary in ".{0,300}", detail in ".{0,3000}", count in 1_usize..60, title in 1_usize..300, body in 120_usize..4000) {
            let mut alert = alert("key", AlertState::Firing);
            alert.summary = summary;
            alert.details = vec![detail];
            let alerts = vec![&alert; count];
            let message = message(&alerts, title, body);
            prop_assert!(message.title.chars().count() <= title);
            prop_assert!(message.body.chars().count() <= body);
            prop_assert!(count > 1 || message.body.ends_with("key"));
        }
    }
}
