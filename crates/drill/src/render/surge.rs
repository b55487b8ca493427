//! A connection surge before a person: both acts in figures, then what the guard saw and did, moment by moment.

use super::words::{Paint, paragraph};
use crate::surge::{LEAKING, LEAKY, OPENED_EVERY, Surge};

/// Columns of a moment.
const MARGIN: usize = 10;

pub(super) fn surge(surge: &Surge, width: usize, paint: Paint) -> String {
    let Surge { alone, guarded, usable, .. } = surge;
    let mut text = paint.strong("A connection surge") + "\n";
    let what = format!(
        "PostgreSQL {} with {usable} connections for clients. One of them, role {LEAKING}, application {LEAKY}, opens a session every {} ms and closes none; some \
         of them stay in a transaction. Then somebody else wants in. Seconds are counted from the first of those sessions.",
        surge.server,
        OPENED_EVERY.as_millis()
    );
    text.push_str(&paragraph("  ", &what, width));
    let when = |seconds: Option<f64>| {
        seconds.map_or_else(|| "the last connection was never taken".into(), |at| format!("none left after {at:.1} s"))
    };
    let let_in =
        |seconds: Option<f64>| seconds.map_or_else(|| "not let in".into(), |at| format!("let in at {at:.1} s"));
    let unwatched = format!(
        "{} sessions opened, {}; a newcomer was refused {} times in {:.1} s, {}",
        alone.opened,
        when(alone.exhausted_s),
        alone.refused,
        alone.tried_for_s,
        let_in(alone.let_in_s)
    );
    let watched = format!(
        "{} sessions opened, {}; a newcomer was refused {} times, {}",
        guarded.opened,
        when(guarded.exhausted_s),
        guarded.refused,
        let_in(guarded.let_in_s)
    );
    text.push('\n');
    text.push_str(&paragraph("  without a guard  ", &unwatched, width));
    text.push_str(&paragraph("  with oxpecker    ", &watched, width));
    text.push('\n');
    for (at, what) in moments(surge) {
        text.push_str(&paragraph(&format!("{:>MARGIN$}  ", format!("{at:.2} s")), &what, width));
    }
    text
}

/// What happened with the guard, in order.
fn moments(surge: &Surge) -> Vec<(f64, String)> {
    let guarded = &surge.guarded;
    let mut moments = vec![(0.0, "the surge begins".to_owned())];
    let mut tell = |at: Option<f64>, what: String| moments.extend(at.map(|at| (at, what)));
    tell(guarded.decided_s, "the guard's rule connections-surging speaks".into());
    let said = guarded.said.clone().unwrap_or_default();
    tell(guarded.delivered_s, format!("at the webhook: {said}"));
    tell(guarded.exhausted_s, "the last connection is taken: others are refused".into());
    if let Some((first, last)) = guarded.ended_from_to_s {
        let because = guarded.ended_because.clone().unwrap_or_default();
        tell(Some(first), format!("relief ends the first idle session, because of {because}"));
        tell(
            Some(last),
            format!(
                "and the last of {}, of which {} were in a transaction",
                guarded.ended + guarded.ended_of_others,
                guarded.ended_in_transaction
            ),
        );
    }
    tell(guarded.let_in_s, "a newcomer gets in".into());
    moments.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{render_surge, samples};

    #[test]
    fn a_surge_at_100_columns() {
        insta::assert_snapshot!(render_surge(&samples::surge(), 100, false));
    }

    #[test]
    fn what_never_came_has_no_moment_and_is_called_so() {
        let mut surge = samples::surge();
        let guarded = &mut surge.guarded;
        (guarded.decided_s, guarded.delivered_s, guarded.ended_from_to_s) = (None, None, None);
        (guarded.let_in_s, guarded.exhausted_s) = (None, None);
        assert_eq!(moments(&surge).len(), 1);
        surge.verdict.passed = false;
        surge.verdict.lines[1].passed = false;
        let text = render_surge(&surge, 80, false);
        for words in ["not let in", "never taken", "✗", "FAILED: one of the claims above did not hold"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
