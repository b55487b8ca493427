//! What to think of a surge: pure, so that each line has a test in which it fails.

use super::{LEAKING, LEAKY, Surge};
use crate::result::{Verdict, VerdictLine};

/// Growth is to be seen within this time, in seconds.
const SEEN_WITHIN_S: f64 = 2.0;
/// And told within this.
const TOLD_WITHIN_S: f64 = 3.0;
/// A newcomer must get in within this time after the last connection was taken, in seconds. Sessions have to be idle for one or two before.
const RELIEVED_WITHIN_S: f64 = 10.0;
/// A guard that does not read the server for longer than this has lost its way in, in seconds.
const GAP_MAX_S: f64 = 5.0;

pub(super) fn judge(surge: &Surge) -> Verdict {
    let lines = vec![
        came(surge),
        detected(surge),
        named(surge),
        relieved(surge),
        nobody_else(surge),
        way_in(surge),
        put_away(surge),
    ];
    Verdict { passed: lines.iter().all(|line| line.passed), lines, notes: Vec::new() }
}

fn after(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("after {seconds:.1} s"))
}

/// Without it, relief proves nothing.
fn came(surge: &Surge) -> VerdictLine {
    let alone = &surge.alone;
    VerdictLine {
        claim: "the surge came, and did not go by itself".into(),
        passed: alone.exhausted_s.is_some() && alone.refused > 0 && alone.let_in_s.is_none(),
        because: format!(
            "unwatched, the last connection was taken {}; a newcomer was refused {} times in {:.1} s and let in {}",
            after(alone.exhausted_s),
            alone.refused,
            alone.tried_for_s,
            after(alone.let_in_s)
        ),
    }
}

fn detected(surge: &Surge) -> VerdictLine {
    let guarded = &surge.guarded;
    VerdictLine {
        claim: format!(
            "growth seen within {SEEN_WITHIN_S:.0} s of the first session, and told within {TOLD_WITHIN_S:.0} s"
        ),
        passed: guarded.decided_s.is_some_and(|decided| (0.0..=SEEN_WITHIN_S).contains(&decided))
            && guarded.delivered_s.is_some_and(|delivered| (0.0..=TOLD_WITHIN_S).contains(&delivered)),
        because: format!("decided {}, at the webhook {}", after(guarded.decided_s), after(guarded.delivered_s)),
    }
}

fn named(surge: &Surge) -> VerdictLine {
    let guarded = &surge.guarded;
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
    VerdictLine {
        claim: format!("the alert names who grows: role {LEAKING}, application {LEAKY}"),
        passed: guarded.named_role.as_deref() == Some(LEAKING) && guarded.named_application.as_deref() == Some(LEAKY),
        because: format!(
            "it names role {}, application {}",
            name(&guarded.named_role),
            name(&guarded.named_application)
        ),
    }
}

fn relieved(surge: &Surge) -> VerdictLine {
    let guarded = &surge.guarded;
    // Never refused is better still, where relief was the reason.
    let waited = match (guarded.exhausted_s, guarded.let_in_s) {
        (Some(exhausted), Some(let_in)) => Some(let_in - exhausted),
        (None, Some(_)) => Some(0.0),
        _ => None,
    };
    let used = guarded.used_after.map_or_else(|| "an unknown number".to_owned(), |used| used.to_string());
    VerdictLine {
        claim: format!(
            "relieved: a newcomer gets in within {RELIEVED_WITHIN_S:.0} s, and connections are short no more"
        ),
        passed: guarded.ended > 0
            && waited.is_some_and(|waited| waited <= RELIEVED_WITHIN_S)
            && guarded.used_after.is_some_and(|used| used < surge.relief_from),
        because: match waited {
            Some(waited) => format!(
                "{waited:.1} s after the last connection was taken, {} sessions ended; {used} of {} in use at the end, short is from {} on",
                guarded.ended, surge.usable, surge.relief_from
            ),
            None => {
                format!("none got in; {} sessions ended; {used} of {} in use at the end", guarded.ended, surge.usable)
            }
        },
    }
}

fn nobody_else(surge: &Surge) -> VerdictLine {
    let guarded = &surge.guarded;
    VerdictLine {
        claim: format!("only idle sessions of role {LEAKING} were ended, each with an event"),
        passed: guarded.ended_of_others == 0
            && guarded.gone == guarded.ended
            && guarded.bystanders > 0
            && guarded.bystanders_left == guarded.bystanders,
        because: format!(
            "{} of the surge's sessions are gone, the journal has {} of the role and {} of others; {} of {} idle ones of another role and \
             working ones of this one still answer",
            guarded.gone, guarded.ended, guarded.ended_of_others, guarded.bystanders_left, guarded.bystanders
        ),
    }
}

fn way_in(surge: &Surge) -> VerdictLine {
    let guarded = &surge.guarded;
    VerdictLine {
        claim: "the guard kept its own way in, and a superuser's".into(),
        passed: guarded.readings > 0 && guarded.longest_gap_s <= GAP_MAX_S && guarded.superuser_in,
        because: format!(
            "it read the server {} times from the first session to the newcomer's, {:.1} s apart at most; a superuser {} while others were refused",
            guarded.readings,
            guarded.longest_gap_s,
            if guarded.superuser_in { "got in" } else { "did not get in" }
        ),
    }
}

fn put_away(surge: &Surge) -> VerdictLine {
    let stopped = if surge.guarded.stopped_cleanly { "it did" } else { "it did not stop when asked" };
    VerdictLine {
        claim: "the guard stopped when asked, and nothing is left running".into(),
        passed: surge.guarded.stopped_cleanly && surge.left.is_empty(),
        because: if surge.left.is_empty() {
            stopped.into()
        } else {
            format!("{stopped}; left: {}", surge.left.join("; "))
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    /// A line by its place, and what makes it fail.
    type Break = (usize, fn(&mut Surge));

    #[test]
    fn each_line_fails_where_it_does_not_hold() {
        assert!(judge(&samples::surge()).passed, "{:#?}", judge(&samples::surge()));
        let all: &[Break] = &[
            (0, |surge| surge.alone.exhausted_s = None),
            (0, |surge| surge.alone.refused = 0),
            (0, |surge| surge.alone.let_in_s = Some(4.0)),
            (1, |surge| surge.guarded.decided_s = None),
            (1, |surge| surge.guarded.decided_s = Some(2.1)),
            (1, |surge| surge.guarded.decided_s = Some(-0.1)),
            (1, |surge| surge.guarded.delivered_s = None),
            (1, |surge| surge.guarded.delivered_s = Some(3.1)),
            (2, |surge| surge.guarded.named_role = Some("bot".into())),
            (2, |surge| surge.guarded.named_role = None),
            (2, |surge| surge.guarded.named_application = Some(String::new())),
            (3, |surge| surge.guarded.let_in_s = None),
            (3, |surge| surge.guarded.let_in_s = Some(12.0)),
            (3, |surge| surge.guarded.used_after = Some(46)),
            (3, |surge| surge.guarded.used_after = None),
            (4, |surge| surge.guarded.ended_of_others = 1),
            (4, |surge| surge.guarded.gone += 1),
            (4, |surge| surge.guarded.ended += 1),
            (4, |surge| surge.guarded.bystanders_left -= 1),
            (4, |surge| (surge.guarded.bystanders, surge.guarded.bystanders_left) = (0, 0)),
            (5, |surge| surge.guarded.readings = 0),
            (5, |surge| surge.guarded.longest_gap_s = 5.1),
            (5, |surge| surge.guarded.superuser_in = false),
            (6, |surge| surge.guarded.stopped_cleanly = false),
            (6, |surge| surge.left.push("process 7 (postgres)".into())),
        ];
        for (index, (line, change)) in all.iter().enumerate() {
            let mut surge = samples::surge();
            change(&mut surge);
            let verdict = judge(&surge);
            let failed: Vec<usize> = (0..verdict.lines.len()).filter(|line| !verdict.lines[*line].passed).collect();
            assert_eq!((failed, verdict.passed), (vec![*line], false), "change {index}: {verdict:#?}");
        }
    }

    #[test]
    fn relief_that_was_faster_than_the_surge_counts_and_none_at_all_does_not() {
        let mut surge = samples::surge();
        surge.guarded.exhausted_s = None;
        assert!(judge(&surge).passed);
        (surge.guarded.ended, surge.guarded.gone) = (0, 0);
        assert!(!judge(&surge).lines[3].passed);
    }
}
