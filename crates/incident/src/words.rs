//! Words for things that several sentences speak of.

use std::time::Duration;

use model::{
    ProcessId, TableName,
    event::{DownReason, Lever, ReleaseReason},
    reading::VacuumKind,
};

/// The longest text that is taken over from elsewhere into a sentence, in characters.
pub const MAX_QUOTE_CHARS: usize = 240;
/// The longest sentence, in characters: several quotes and the words between.
const MAX_SENTENCE_CHARS: usize = 1200;
/// How many names a sentence lists before it counts the rest.
const MAX_LISTED: usize = 6;

/// `text` on one line: control and direction characters would let a quoted text pretend to be another line of the report.
pub fn one_line(text: &str) -> String {
    clean(text, MAX_SENTENCE_CHARS)
}

/// A text of others, for use within a sentence: on one line, of bounded length, without the full stop at its end and without
/// backticks, which would open a code span.
pub fn quote(text: &str) -> String {
    let cleaned = clean(text, MAX_QUOTE_CHARS).replace('`', "'");
    cleaned.strip_suffix('.').map(str::to_owned).unwrap_or(cleaned)
}

fn clean(text: &str, max_chars: usize) -> String {
    let is_format =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let mut line = String::new();
    let mut chars = 0;
    for c in text.chars().filter(|c| !is_format(*c)) {
        let c = if c.is_control() || c.is_whitespace() { ' ' } else { c };
        if c == ' ' && (line.is_empty() || line.ends_with(' ')) {
            continue;
        }
        if chars == max_chars {
            line.push('…');
            break;
        }
        line.push(c);
        chars += 1;
    }
    line.truncate(line.trim_end().len());
    line
}

/// A duration as people say it: `340 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`, `3 d 04 h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=59 => {
            let tenths = duration.as_millis() / 100;
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
        60..=3599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Names in a sentence: `a`, `a and b`, `a, b and c`, `a, b, c, d, e, f and 3 more`.
pub fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|n| n.as_ref().to_owned()).collect();
    let more = names.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        names.truncate(MAX_LISTED);
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
    }
}

/// `1 answer`, `2 answers`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Workers with their tables: `worker 4711 on public.big`.
pub fn workers(workers: &[ProcessId], tables: &[Option<TableName>]) -> String {
    let one = |(n, worker): (usize, &ProcessId)| match tables.get(n).and_then(Option::as_ref) {
        Some(table) => format!("worker {} on {}", worker.pid, quote(table.as_str())),
        None => format!("worker {}", worker.pid),
    };
    if workers.is_empty() { "no worker".into() } else { list(workers.iter().enumerate().map(one)) }
}

/// A vacuum, as a noun.
pub fn vacuum_kind(kind: VacuumKind) -> &'static str {
    match kind {
        VacuumKind::Autovacuum => "autovacuum",
        VacuumKind::Autoanalyze => "autoanalyze",
        VacuumKind::AntiWraparound => "autovacuum against wraparound",
        VacuumKind::Manual => "manual VACUUM",
    }
}

/// Why PostgreSQL does not serve, as a clause.
pub fn down_reason(reason: DownReason) -> &'static str {
    match reason {
        DownReason::NotListening => "nobody listened at its address",
        DownReason::Recovering => "it was starting up or in crash recovery",
        DownReason::ShuttingDown => "it was shutting down",
        DownReason::OutOfConnections => "it had no connection left",
        DownReason::Refused => "it refused our login",
        DownReason::NoAnswer => "it did not answer in time",
        DownReason::ConnectionLost => "the connection broke",
        DownReason::UnsupportedVersion => "its version is too old to be observed",
    }
}

/// A lever, as a noun.
pub fn lever(lever: Lever) -> &'static str {
    match lever {
        Lever::WorkerSignal => "include file and a signal to the workers",
        Lever::LauncherSignal => "include file and a signal to the launcher",
        Lever::FullReload => "include file and a full reload",
        Lever::AlterSystem => "ALTER SYSTEM and a full reload",
    }
}

/// Why a throttle was let go, as a clause.
pub fn release_reason(reason: ReleaseReason) -> &'static str {
    match reason {
        ReleaseReason::PressureOver => "the pressure was over",
        ReleaseReason::NotHelping => "it did not help",
        ReleaseReason::WorkersGone => "the workers had finished",
        ReleaseReason::TimeBound => "it had been held as long as the settings allow",
        ReleaseReason::HotTableWaiting => "a small hot table waited for a worker",
        ReleaseReason::WraparoundNear => "vacuum was needed against wraparound",
        ReleaseReason::ReadingsLost => "readings had stopped",
        ReleaseReason::GuardStopping => "the guard stopped or was told not to act",
        ReleaseReason::LeftBehind => "it was left behind by a guard that died",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 00 s"),
            (3_599_999, "59 min 59 s"),
            (7_380_000, "2 h 03 min"),
            (273_600_000, "3 d 04 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(list(["a"]), "a");
        assert_eq!(list(["a", "b", "c"]), "a, b and c");
        assert_eq!(list(["a", "b", "c", "d", "e", "f", "g", "h"]), "a, b, c, d, e, f and 2 more");
    }

    #[test]
    fn quotes_are_bounded() {
        assert_eq!(quote("  it\tbroke.\r\n "), "it broke");
        assert_eq!(quote(&"x".repeat(500)).chars().count(), MAX_QUOTE_CHARS + 1);
    }
}
