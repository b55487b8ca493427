//! Words for people: what fits a lock screen.

use std::time::Duration;

use model::Share;

/// What a phone's lock screen shows of a notification, in characters.
pub(crate) const SUMMARY_CHARS: usize = 120;

/// How much of a summary one name may take, in characters. PostgreSQL allows 63 bytes for each part of a name.
pub(crate) const NAME_CHARS: usize = 32;

/// `text`, cut at its end where it is longer than `chars`.
pub(crate) fn fit(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// A name, cut in its middle: beginnings name the schema, ends tell partitions apart.
pub(crate) fn short(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_CHARS {
        return name.to_owned();
    }
    let head = NAME_CHARS / 2;
    let tail = NAME_CHARS - head - 1;
    let start: String = name.chars().take(head).collect();
    let end: String = name.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// A duration in the unit that fits: `250 ms`, `1.3 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 days`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A share as a percentage that never rounds up to "all of it".
pub(crate) fn percent(share: Share) -> String {
    let value = share.0 * 100.0;
    if (99.0..100.0).contains(&value) { "99 %".to_owned() } else { format!("{value:.0} %") }
}

/// `1 CPU`, `2 CPUs`.
pub(crate) fn plural(count: u32, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit() {
        assert_eq!(fit("abc", 3), "abc");
        assert_eq!(fit("ab cd", 4), "ab…");
        assert_eq!(short("public.users"), "public.users");
        let long = short(&format!("{}.{}_2024_01", "s".repeat(63), "t".repeat(50)));
        assert_eq!(long.chars().count(), NAME_CHARS);
        assert!(long.ends_with("_2024_01"), "{long}");
    }

    #[test]
    fn spans_read_well() {
        for (ms, text) in [
            (250, "250 ms"),
            (1_300, "1.3 s"),
            (42_000, "42 s"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
            (259_200_000, "3 days"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(percent(Share(0.9996)), "99 %");
        assert_eq!(percent(Share(1.0)), "100 %");
        assert_eq!(percent(Share(0.876)), "88 %");
    }
}
