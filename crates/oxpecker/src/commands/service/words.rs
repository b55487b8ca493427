//! States and times in words.

use std::time::Duration;

use services::{
    execute::Executor,
    graph::Id,
    health::Answer,
    state::{State, Status},
};

/// Stable, or healthy for less than this look could see; or stopped by a person.
pub fn is_well(status: &Status) -> bool {
    matches!(status.state, State::Stable | State::Settling | State::Stopped { .. })
}

/// A state's name for programs; the table in docs/src/concepts/services.md.
pub fn slug(state: &State) -> &'static str {
    match state {
        State::Stable => "stable",
        State::Settling => "settling",
        State::Starting { recovering: true, .. } => "recovering",
        State::Starting { .. } => "starting",
        State::Stopping { .. } => "stopping",
        State::Broken { .. } => "broken",
        State::Stuck { .. } => "stuck",
        State::Wrong { .. } => "wrong",
        State::Stopped { .. } => "stopped",
        State::Removed => "removed",
        State::Damaged { .. } => "damaged",
        State::Unknown { .. } => "unknown",
    }
}

/// How a service is, with what it says of itself. What one look can't tell apart is not made out to be known.
pub fn is(status: &Status, executor: &Executor, id: Id) -> String {
    let history = executor.history(id);
    let latest = history.latest();
    match (&status.state, latest.map(|seen| &seen.answer)) {
        (State::Settling, Some(Answer::Healthy)) => "healthy".to_owned(),
        // Whether it runs at all is known to nobody here.
        (State::Starting { recovering: false, .. }, Some(Answer::Unhealthy { why }))
            if executor.graph().service(id).external =>
        {
            format!("not healthy: {}", plain(why))
        }
        // It runs, and whether it is on its way is not seen yet.
        (State::Starting { recovering: false, .. }, Some(Answer::Unhealthy { why })) => {
            format!("runs, not healthy: {}", plain(why))
        }
        (State::Starting { .. } | State::Stopping { .. }, _) => match history.counted() {
            Some(progress) => format!("{}: {}, {}", status.state, plain(&progress.phase), progress.done),
            None => status.state.to_string(),
        },
        _ => status.state.to_string(),
    }
}

/// Whether a longer look would tell more of it.
pub fn is_open(status: &Status) -> bool {
    matches!(status.state, State::Settling | State::Starting { .. } | State::Stopping { .. })
}

/// Words of strangers: short, and drawing nothing.
pub fn plain(text: &str) -> String {
    const SHOWN_MAX: usize = 120;
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
    plain.trim().to_owned()
}

/// A time to come or gone, rounded up to whole seconds where it is short: `8 s`, `2 min 5 s`, `3 h 10 min`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    match seconds {
        0..120 => format!("{seconds} s"),
        120..3600 => match seconds % 60 {
            0 => format!("{} min", seconds / 60),
            rest => format!("{} min {rest} s", seconds / 60),
        },
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Services by number: `1 service`, `3 services`.
pub fn services(number: usize) -> String {
    if number == 1 { "1 service".to_owned() } else { format!("{number} services") }
}

/// A list that doesn't fill a screen.
pub fn names<T: AsRef<str>>(all: impl IntoIterator<Item = T>) -> String {
    const SHOWN_MAX: usize = 12;
    let all: Vec<T> = all.into_iter().collect();
    let shown: Vec<&str> = all.iter().take(SHOWN_MAX).map(AsRef::as_ref).collect();
    let more = all.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_never_too_early() {
        for (ms, text) in [
            (0, "0 s"),
            (1, "1 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (125_500, "2 min 6 s"),
            (3_600_000, "1 h 0 min"),
            (200_000_000, "2 d 7 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn lists_and_strangers_words_are_short() {
        assert_eq!(names(["a", "b"]), "a, b");
        assert!(names((0..100).map(|n| n.to_string())).ends_with("11 and 88 more"));
        assert_eq!(plain(" \u{1b}[31m\n"), "[31m");
        assert_eq!(plain(&"x".repeat(1000)).len(), 120);
    }
}
