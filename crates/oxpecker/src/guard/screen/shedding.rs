//! The shedding ladder on the screen: what is in force, what it waits for, and each rung where it is more than a line.

use model::Mode;

use super::{Line, State, clock};
use crate::guard::SheddingStatus;

/// The line; none while nothing is known or there is nothing to say.
pub fn line(status: Option<&SheddingStatus>) -> Option<Line> {
    let status = status?;
    let held = status.rungs.iter().filter(|rung| rung.held_since.is_some());
    let mut parts: Vec<String> = held
        .map(|rung| {
            let since = rung.held_since.map_or(String::new(), |since| clock(since.wall));
            let how = match (rung.carried_out, rung.underway) {
                (true, true) => "being carried out since",
                (true, false) => "in force since",
                (false, _) => "would be in force since",
            };
            let back = rung.returning.as_ref().map_or(String::new(), |back| format!(", {back}"));
            format!("{}: {how} {since}{back} ({} of {} today)", rung.rung, rung.spent, rung.per_day)
        })
        .collect();
    parts.extend(status.problem.iter().map(|problem| format!("FAILED: {problem}")));
    let acts = status.mode == Mode::Act;
    if status.stuck && acts {
        parts.insert(0, format!("NEEDS YOU: {}", status.now));
    } else if !parts.is_empty() {
        parts.push(status.now.clone());
    } else {
        let ready: Vec<String> = status.rungs.iter().map(|rung| rung.rung.to_string()).collect();
        parts.push(format!("mode {}, nothing shed; rungs: {}", status.mode, ready.join(", ")));
    }
    let hurts = status.rungs.iter().any(|rung| rung.held_since.is_some() && rung.carried_out);
    let bad = (status.stuck && acts) || status.problem.is_some() || hurts;
    Some(Line { name: "shedding", state: if bad { State::NotWell } else { State::Well }, text: parts.join("\n") })
}
