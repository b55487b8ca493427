//! What to think of an exhaustion: pure, so that each line has a test in which it fails.

use super::{HOG, LOW_PERCENT, Oom};
use crate::result::{Verdict, VerdictLine};

/// A shortage is to be told within this time, in seconds. Less than the threshold may be left for a moment, which is none: three samples confirm it.
const TOLD_WITHIN_S: f64 = 3.0;

pub(super) fn judge(oom: &Oom) -> Verdict {
    let lines =
        vec![came(oom), told(oom), named(oom), stopped(oom), nobody_killed(oom), done(oom), back(oom), put_away(oom)];
    Verdict { passed: lines.iter().all(|line| line.passed), lines, notes: Vec::new() }
}

fn at(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("after {seconds:.1} s"))
}

/// Without it, relief proves nothing.
fn came(oom: &Oom) -> VerdictLine {
    let alone = &oom.alone;
    let server = alone.server_said.as_deref().unwrap_or("nothing");
    VerdictLine {
        claim: "unwatched, the kernel killed PostgreSQL's process, and not the service that grew".into(),
        passed: alone.killed_s.is_some()
            && alone.kills > 0
            && alone.hog_survived
            && alone.server_said.is_some()
            && alone.clients.query_done_s.is_none(),
        because: format!(
            "it killed {} times, first {}; {HOG} {}; PostgreSQL's log: {server}; the query gave {} of {} rows",
            alone.kills,
            at(alone.killed_s),
            if alone.hog_survived { "ran on" } else { "did not survive it" },
            alone.clients.rows,
            oom.rows
        ),
    }
}

fn told(oom: &Oom) -> VerdictLine {
    let guarded = &oom.guarded;
    let within = |moment: Option<f64>| match (guarded.low_s, moment) {
        (Some(low), Some(moment)) => (0.0..=low + TOLD_WITHIN_S).contains(&moment),
        _ => false,
    };
    VerdictLine {
        claim: format!("told within {TOLD_WITHIN_S:.0} s of when less than {LOW_PERCENT} % was left"),
        passed: within(guarded.decided_s) && within(guarded.delivered_s),
        because: format!(
            "that was {}; decided {}, at the webhook {}",
            at(guarded.low_s),
            at(guarded.decided_s),
            at(guarded.delivered_s)
        ),
    }
}

fn named(oom: &Oom) -> VerdictLine {
    let named = oom.guarded.named.as_deref();
    VerdictLine {
        claim: format!("the alert names who holds the memory: {HOG}, and PostgreSQL"),
        passed: named.is_some_and(|named| named.contains(HOG) && named.contains("postgres")),
        because: named.map_or_else(|| "it names nobody".to_owned(), |named| format!("it names {named}")),
    }
}

fn stopped(oom: &Oom) -> VerdictLine {
    let guarded = &oom.guarded;
    let act = guarded.act.as_deref();
    VerdictLine {
        claim: format!("the ladder stopped {HOG}, and nothing else, and says why"),
        passed: act == Some(&format!("stop {HOG}")) && guarded.because.is_some() && guarded.stopped_s.is_some(),
        because: match act {
            Some(act) => {
                format!("{act}, {}: {}", at(guarded.stopped_s), guarded.because.as_deref().unwrap_or("it says nothing"))
            }
            None => "it did nothing".to_owned(),
        },
    }
}

fn nobody_killed(oom: &Oom) -> VerdictLine {
    let guarded = &oom.guarded;
    VerdictLine {
        claim: "the kernel killed nobody".into(),
        passed: guarded.kills == 0 && guarded.server_said.is_none() && guarded.least_left_bytes > 0,
        because: format!(
            "it killed {} times; {} MiB were left at the least{}",
            guarded.kills,
            guarded.least_left_bytes >> 20,
            guarded.server_said.as_ref().map_or_else(String::new, |said| format!("; PostgreSQL's log: {said}"))
        ),
    }
}

fn done(oom: &Oom) -> VerdictLine {
    let clients = &oom.guarded.clients;
    let failed = clients.query_failed.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    VerdictLine {
        claim: "the query was done, and nobody lost a session".into(),
        passed: clients.query_done_s.is_some()
            && clients.rows == oom.rows
            && clients.failed == 0
            && clients.answered > 0,
        because: format!(
            "{} of {} rows, done {}{failed}; {} small queries were answered, {} were not",
            clients.rows,
            oom.rows,
            at(clients.query_done_s),
            clients.answered,
            clients.failed
        ),
    }
}

fn back(oom: &Oom) -> VerdictLine {
    let guarded = &oom.guarded;
    let after = matches!((guarded.stopped_s, guarded.given_back_s), (Some(stopped), Some(back)) if back > stopped);
    VerdictLine {
        claim: format!("{HOG} was brought back once there was memory enough"),
        passed: after,
        because: format!("it ran again {}", at(guarded.given_back_s)),
    }
}

fn put_away(oom: &Oom) -> VerdictLine {
    let stopped = if oom.guarded.stopped_cleanly { "it did" } else { "it did not stop when asked" };
    VerdictLine {
        claim: "the guard stopped when asked, and nothing is left running".into(),
        passed: oom.guarded.stopped_cleanly && oom.left.is_empty(),
        because: if oom.left.is_empty() { stopped.into() } else { format!("{stopped}; left: {}", oom.left.join("; ")) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    /// A line by its place, and what makes it fail.
    type Break = (usize, fn(&mut Oom));

    #[test]
    fn each_line_fails_where_it_does_not_hold() {
        assert!(judge(&samples::oom()).passed, "{:#?}", judge(&samples::oom()));
        let all: &[Break] = &[
            (0, |oom| oom.alone.killed_s = None),
            (0, |oom| oom.alone.kills = 0),
            (0, |oom| oom.alone.hog_survived = false),
            (0, |oom| oom.alone.server_said = None),
            (0, |oom| oom.alone.clients.query_done_s = Some(20.0)),
            (1, |oom| oom.guarded.low_s = None),
            (1, |oom| oom.guarded.decided_s = None),
            (1, |oom| oom.guarded.decided_s = Some(-0.1)),
            (1, |oom| oom.guarded.delivered_s = Some(99.0)),
            (2, |oom| oom.guarded.named = None),
            (2, |oom| oom.guarded.named = Some("postgres (pid 7) with 600 MiB".into())),
            (2, |oom| oom.guarded.named = Some("thumbnails (pid 7) with 600 MiB".into())),
            (3, |oom| oom.guarded.act = None),
            (3, |oom| oom.guarded.act = Some("stop thumbnails, site".into())),
            (3, |oom| oom.guarded.because = None),
            (4, |oom| oom.guarded.kills = 1),
            (4, |oom| oom.guarded.server_said = Some("server process was terminated by signal 9".into())),
            (4, |oom| oom.guarded.least_left_bytes = 0),
            (5, |oom| oom.guarded.clients.query_done_s = None),
            (5, |oom| oom.guarded.clients.rows -= 1),
            (5, |oom| oom.guarded.clients.failed = 1),
            (5, |oom| oom.guarded.clients.answered = 0),
            (6, |oom| oom.guarded.given_back_s = None),
            (6, |oom| oom.guarded.given_back_s = Some(0.0)),
            (7, |oom| oom.guarded.stopped_cleanly = false),
            (7, |oom| oom.left.push("process 7 (postgres)".into())),
        ];
        for (index, (line, change)) in all.iter().enumerate() {
            let mut oom = samples::oom();
            change(&mut oom);
            let verdict = judge(&oom);
            let failed: Vec<usize> = (0..verdict.lines.len()).filter(|line| !verdict.lines[*line].passed).collect();
            assert_eq!((failed, verdict.passed), (vec![*line], false), "change {index}: {verdict:#?}");
        }
    }
}
