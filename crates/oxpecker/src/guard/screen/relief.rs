//! Relief on the screen: whose sessions may be ended, and what was.

use model::Mode;

use super::{Line, State};
use crate::guard::ReliefStatus;

/// The line; none where no role is named.
pub fn line(status: Option<&ReliefStatus>) -> Option<Line> {
    let status = status?;
    let roles = status.roles.join(", ");
    let ended = format!("{} ended since the guard's start", status.ended_in_all);
    let text = match (&status.problem, &status.shortage) {
        (Some(problem), _) => format!("FAILED: {problem}; {ended}"),
        (None, Some(shortage)) if status.mode == Mode::Act => format!(
            "{shortage}: idle sessions of {roles} are ended, {} in the last minute of {} that may be; {ended}",
            status.ended, status.per_minute
        ),
        (None, Some(shortage)) => {
            format!("{shortage}: idle sessions of {roles} would be ended, and mode {} does not allow it", status.mode)
        }
        (None, None) => format!("mode {}, connections enough; for idle sessions of {roles}; {ended}", status.mode),
    };
    let bad = status.problem.is_some() || status.shortage.is_some();
    Some(Line { name: "relief", state: if bad { State::NotWell } else { State::Well }, text })
}
