//! A result before a person: understood at a glance, without colour as well, and with the figures that an engineer asks for.

mod chart;
pub(crate) mod lanes;
mod oom;
#[cfg(test)]
pub(crate) mod samples;
mod sections;
mod surge;
mod words;

use crate::{
    cold_start::ColdStart,
    oom::Oom,
    result::{DrillResult, Verdict},
    surge::Surge,
};

/// Narrower terminals get lines that are broken by the terminal.
const MIN_WIDTH: usize = 72;
/// Wider ones leave the rest empty: long lines are hard to read.
const MAX_WIDTH: usize = 120;

/// The result as text for a terminal of `width` columns, in colour where asked; ends with a newline.
pub fn render(result: &DrillResult, width: usize, colour: bool) -> String {
    let width = width.clamp(MIN_WIDTH, MAX_WIDTH);
    let paint = words::Paint { colour };
    let parts = [
        sections::setting(result, width),
        sections::side_by_side(result, width),
        chart::chart(result, width, paint),
        sections::detection(result, width),
        sections::rescue(result, width),
        result.cold_start.as_ref().map_or_else(String::new, |played| lanes::cold_start(played, width, paint)),
        sections::verdict(result, width, paint),
        sections::ending(result, paint),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Act 3 alone, as [`render`] shows it, with what to think of it.
pub fn render_cold_start(played: &ColdStart, width: usize, colour: bool) -> String {
    let width = width.clamp(MIN_WIDTH, MAX_WIDTH);
    let paint = words::Paint { colour };
    let mut text = lanes::cold_start(played, width, paint);
    text.push('\n');
    for line in crate::verdict::cold_start(played) {
        text.push_str(&sections::claim(&line, width, paint));
    }
    text
}

/// A connection surge, with what to think of it.
pub fn render_surge(played: &Surge, width: usize, colour: bool) -> String {
    let width = width.clamp(MIN_WIDTH, MAX_WIDTH);
    let paint = words::Paint { colour };
    [surge::surge(played, width, paint), judged(&played.verdict, width, paint)].join("\n")
}

/// As [`render`], of the exhaustion of memory.
#[must_use]
pub fn render_oom(played: &Oom, width: usize, colour: bool) -> String {
    let width = width.clamp(MIN_WIDTH, MAX_WIDTH);
    let paint = words::Paint { colour };
    [oom::oom(played, width, paint), judged(&played.verdict, width, paint)].join("\n")
}

/// A verdict's lines, and in one word what they come to.
fn judged(verdict: &Verdict, width: usize, paint: words::Paint) -> String {
    let mut text: String = verdict.lines.iter().map(|line| sections::claim(line, width, paint)).collect();
    for note in &verdict.notes {
        text.push_str(&words::paragraph("  • ", note, width));
    }
    let word = if verdict.passed { paint.good("PASSED") } else { paint.bad("FAILED") };
    let why = match verdict.lines.iter().filter(|line| !line.passed).count() {
        0 => "all of it held".to_owned(),
        1 => "one of the claims above did not hold".to_owned(),
        failed => format!("{failed} of the claims above did not hold"),
    };
    text + &format!("\n{word}: {why}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_run_at_120_columns() {
        insta::assert_snapshot!(render(&samples::result(), 120, false));
    }

    #[test]
    fn a_narrow_terminal() {
        let text = render(&samples::result(), 80, false);
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= 80, "{longest}\n{text}");
    }

    #[test]
    fn a_bad_run_says_so() {
        let mut result = samples::result();
        result.detection = None;
        result.verdict = crate::verdict::judge(&crate::verdict::Evidence {
            acts: &result.acts,
            detection: None,
            rescue: None,
            cold_start: None,
            left: &["process 7 (postgres)".into()],
            looked_for_left: true,
        });
        let text = render(&result, 100, false);
        assert!(text.contains("FAILED") && text.contains("process 7 (postgres)"), "{text}");
    }

    #[test]
    fn vacuums_are_counted_in_words_that_fit() {
        for (vacuums, words) in
            [(0, "while no vacuum ran"), (1, "while 1 unthrottled vacuum ran"), (2, "while 2 unthrottled vacuums ran")]
        {
            let mut result = samples::result();
            result.rescue.as_mut().unwrap().vacuums_running = vacuums;
            let text = render(&result, 100, false);
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = render(&samples::result(), 100, true);
        let mut plain = String::new();
        let mut escaped = false;
        for character in coloured.chars() {
            match (escaped, character) {
                (false, '\u{1b}') => escaped = true,
                (true, 'm') => escaped = false,
                (true, _) => {}
                (false, other) => plain.push(other),
            }
        }
        assert_ne!(plain, coloured);
        assert_eq!(plain, render(&samples::result(), 100, false));
    }

    #[test]
    fn json_holds_the_whole_result() {
        let result = samples::result();
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<DrillResult>(&json).unwrap(), result);
        assert!(json.starts_with("{\"schema_version\":1,"), "{json}");
    }
}
