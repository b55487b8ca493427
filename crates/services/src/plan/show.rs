//! The plan for a tired person: what happens now, what follows and when, what nobody does anything about.

use std::{fmt::Write as _, time::Duration};

use super::{Outcome, Plan};

impl Plan {
    /// As text; times count from now.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let from_now = |at: Duration| format!("+{} s", at.saturating_sub(self.made_at).as_secs());
        // Writing into a String can't fail.
        for step in &self.steps {
            let when = if step.due { "now".to_owned() } else { from_now(step.at) };
            let approval = if step.needs_approval { ", once approved" } else { "" };
            let again = if step.attempt > 1 { format!(", attempt {}", step.attempt) } else { String::new() };
            let (action, service, takes) = (step.action, &step.service, step.takes.as_secs());
            let _ = writeln!(text, "{when:>7}  {action} {service}{approval}{again}: {}; about {takes} s", step.reason);
        }
        for (service, until) in &self.in_flight {
            let _ = writeln!(text, "{:>7}  {service} should be stable; it is on its way", from_now(*until));
        }
        for (why, services) in self.blocked_by_reason() {
            let names: Vec<&str> = services.iter().map(|name| name.as_str()).collect();
            let _ = writeln!(text, "{:>7}  {}: {why}", "-", names.join(", "));
        }
        for escalation in &self.escalations {
            let _ = writeln!(text, "{:>7}  {escalation}", "!");
        }
        match (self.outcome, self.expected_end) {
            (Outcome::Done, _) => text.push_str("All that is meant to run is stable.\n"),
            (Outcome::Escalated, _) => text.push_str("A person is needed.\n"),
            (Outcome::NeedsApproval, _) => text.push_str("An approval is needed.\n"),
            (Outcome::Working, Some(end)) => {
                let _ = writeln!(text, "All stable in about {} s.", end.saturating_sub(self.made_at).as_secs());
            }
            (Outcome::Working, None) => {}
        }
        text
    }
}
