//! An exhaustion of memory before a person: both acts in figures, then what the guard saw and did, moment by moment.

use super::words::{Paint, paragraph};
use crate::oom::{CRITICAL_PERCENT, GROWS_BY_BYTES, HOG, LOW_PERCENT, Oom, OomClients};

/// Columns of a moment.
const MARGIN: usize = 10;

pub(super) fn oom(oom: &Oom, width: usize, paint: Paint) -> String {
    let Oom { alone, guarded, .. } = oom;
    let mut text = paint.strong("The memory runs out") + "\n";
    let what = format!(
        "PostgreSQL {} in a control group of {} MiB: the small server. A large query holds most of it and takes its time; a service, {HOG}, grows by {} MiB each \
         second. There is not enough for both. Seconds are counted from when it began to grow. The guard speaks below {LOW_PERCENT} % and its ladder acts below \
         {CRITICAL_PERCENT} % for a second; its defaults are 8 %, and 4 % for 20 s, which a drill has no time for.",
        oom.server,
        oom.limit_bytes >> 20,
        GROWS_BY_BYTES >> 20
    );
    text.push_str(&paragraph("  ", &what, width));
    let unwatched = format!(
        "{}; {HOG} {}; {}; {}",
        alone.killed_s.map_or_else(
            || "the kernel killed nobody".to_owned(),
            |at| format!("the kernel began to kill after {at:.1} s")
        ),
        if alone.hog_survived { "ran on" } else { "was among the dead" },
        alone
            .server_said
            .as_deref()
            .map_or_else(|| "PostgreSQL did not notice".to_owned(), |said| format!("PostgreSQL: {said}")),
        used(&alone.clients, oom.rows)
    );
    let watched = format!(
        "{}; {} MiB were left at the least; {}",
        match guarded.kills {
            0 => "the kernel killed nobody".to_owned(),
            kills => format!("the kernel killed {kills} times"),
        },
        guarded.least_left_bytes >> 20,
        used(&guarded.clients, oom.rows)
    );
    text.push('\n');
    text.push_str(&paragraph("  without a guard  ", &unwatched, width));
    text.push_str(&paragraph("  with oxpecker    ", &watched, width));
    text.push('\n');
    for (at, what) in moments(oom) {
        text.push_str(&paragraph(&format!("{:>MARGIN$}  ", format!("{at:.2} s")), &what, width));
    }
    text
}

fn used(clients: &OomClients, rows: u32) -> String {
    let query = match (clients.query_done_s, &clients.query_failed) {
        (Some(at), _) => format!("the query was done after {at:.1} s"),
        (None, Some(why)) => format!("the query ended after {} of {rows} rows: {why}", clients.rows),
        (None, None) => "the query was not done".to_owned(),
    };
    format!(
        "{query}; of somebody else's small queries {} were answered and {} were not",
        clients.answered, clients.failed
    )
}

/// What happened with the guard, in order.
fn moments(oom: &Oom) -> Vec<(f64, String)> {
    let guarded = &oom.guarded;
    let mut moments = vec![(0.0, format!("{HOG} begins to grow"))];
    let mut tell = |at: Option<f64>, what: String| moments.extend(at.map(|at| (at, what)));
    tell(guarded.low_s, format!("less than {LOW_PERCENT} % of the memory is left"));
    let named = guarded.named.clone().unwrap_or_else(|| "nobody".to_owned());
    tell(guarded.decided_s, format!("the guard's rule memory-low speaks, and names {named}"));
    tell(guarded.delivered_s, format!("at the webhook: {}", guarded.said.clone().unwrap_or_default()));
    let act = guarded.act.clone().unwrap_or_default();
    let because = guarded.because.clone().unwrap_or_default();
    tell(guarded.stopped_s, format!("the ladder acts: {act}, because of {because}"));
    if guarded.stopped_s.is_some() && !guarded.passed.is_empty() {
        tell(guarded.stopped_s, format!("it passed {}", guarded.passed.join("; ")));
    }
    tell(guarded.clients.query_done_s, "the query is done".into());
    tell(guarded.given_back_s, format!("{HOG} runs again"));
    moments.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{render_oom, samples};

    #[test]
    fn an_exhaustion_at_100_columns() {
        insta::assert_snapshot!(render_oom(&samples::oom(), 100, false));
    }

    #[test]
    fn what_never_came_has_no_moment_and_is_called_so() {
        let mut oom = samples::oom();
        let guarded = &mut oom.guarded;
        (guarded.low_s, guarded.decided_s, guarded.delivered_s, guarded.stopped_s) = (None, None, None, None);
        (guarded.given_back_s, guarded.clients.query_done_s, guarded.kills) = (None, None, 2);
        (oom.alone.killed_s, oom.alone.server_said) = (None, None);
        assert_eq!(moments(&oom).len(), 1);
        oom.verdict.passed = false;
        oom.verdict.lines[1].passed = false;
        let text = render_oom(&oom, 80, false);
        for words in
            ["killed nobody", "killed 2 times", "was not done", "✗", "FAILED: one of the claims above did not hold"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
