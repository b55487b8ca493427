//! Numbers, paragraphs and colours.

use owo_colors::OwoColorize as _;

/// Colours, where there are some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) colour: bool,
}

impl Paint {
    pub(super) fn good(self, text: &str) -> String {
        if self.colour { text.green().to_string() } else { text.to_owned() }
    }

    pub(super) fn warn(self, text: &str) -> String {
        if self.colour { text.yellow().to_string() } else { text.to_owned() }
    }

    pub(super) fn bad(self, text: &str) -> String {
        if self.colour { text.red().to_string() } else { text.to_owned() }
    }

    pub(super) fn strong(self, text: &str) -> String {
        if self.colour { text.bold().to_string() } else { text.to_owned() }
    }
}

/// Milliseconds with as many digits as matter: `3.4 ms`, `87 ms`, `1.24 s`.
pub(super) fn latency(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

/// A count with commas between the thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as whole per cent, with a decimal where it is small.
pub(super) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.1 { format!("{:.1} %", share * 100.0) } else { format!("{:.0} %", share * 100.0) }
}

/// Breaks a paragraph into lines; the first begins with `first`, the others with blanks of the same width.
pub(super) fn paragraph(first: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(first.chars().count());
    let mut lines = vec![first.to_owned()];
    for word in &words(text) {
        let used = lines.last().map_or(0, |line| line.chars().count());
        let empty = used == indent.len() && lines.len() > 1 || used == first.chars().count() && lines.len() == 1;
        if !empty && used + 1 + word.chars().count() > width {
            lines.push(indent.clone());
        } else if !empty {
            push(&mut lines, " ");
        }
        push(&mut lines, word);
    }
    lines.join("\n") + "\n"
}

/// The words of a text; a unit stays with its number.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let unit = matches!(word.trim_end_matches([',', '.', ';', ':', ')']), "%" | "s" | "ms" | "MB");
        match words.last_mut() {
            Some(number) if unit => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn push(lines: &mut [String], text: &str) {
    if let Some(last) = lines.last_mut() {
        last.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (ms, text) in [(0.42, "0.4 ms"), (9.96, "10.0 ms"), (87.4, "87 ms"), (1_240.0, "1.24 s")] {
            assert_eq!(latency(ms), text);
        }
        for (number, text) in [(7, "7"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), text);
        }
        for (share, text) in [(0.0, "0 %"), (0.004, "0.4 %"), (0.55, "55 %"), (1.0, "100 %")] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn paragraphs_are_broken_and_indented() {
        assert_eq!(paragraph("x: ", "one two three", 10), "x: one two\n   three\n");
        assert_eq!(paragraph("", "at 20 %, so", 5), "at\n20 %,\nso\n");
        assert_eq!(paragraph("  ", "averyveryverylongword b", 8), "  averyveryverylongword\n  b\n");
    }
}
