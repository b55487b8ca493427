//! The only place that prints: results on stdout, all else on stderr, colour on terminals only.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this module is where printing is done")]

use std::io::{self, IsTerminal as _, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};
use owo_colors::OwoColorize as _;
use serde::Serialize;

use crate::cli::Format;

/// The version of the shape of all JSON that commands print. Raised when a field changes its meaning or goes.
pub const JSON_SCHEMA: u32 = 1;

/// Prints a result: `text` for people, `value` for programs, wrapped with its kind and the schema's version.
///
/// # Errors
/// When stdout can't be written. A reader that has gone (`oxpecker status | head -1`) is no error.
pub fn result<T: Serialize>(format: Format, kind: &str, value: &T, text: impl FnOnce() -> String) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'a, T> {
        schema: u32,
        kind: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    let mut out = match format {
        Format::Json => serde_json::to_string_pretty(&Document { schema: JSON_SCHEMA, kind, value })?,
        Format::Text => text(),
    };
    if !out.ends_with('\n') {
        out.push('\n');
    }
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "the result can't be written to standard output: {error}; hint: what the command did is done; see where its output leads"
            ),
        )),
        Ok(()) => Ok(()),
    }
}

/// Prints text as it is to stdout.
///
/// # Errors
/// As [`result`].
pub fn text(text: &str) -> io::Result<()> {
    result(Format::Text, "text", &(), || text.to_owned())
}

/// Prints a line of progress or advice to stderr. Where stderr leads nowhere any more (a full disk, a reader that has gone), the work
/// is worth more than its words.
pub fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Tables are laid out for this many columns where there is no terminal: nobody likes wrapped cells in a file.
const COLUMNS: u16 = 160;

/// How wide results may be.
pub fn columns() -> u16 {
    rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| size.ws_col)
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}

/// Breaks long lines between words where a terminal would break them anywhere. A command in backticks stays whole, and what no terminal shows stays as
/// it is.
pub fn prose(text: &str) -> String {
    prose_beside(text, 0)
}

/// As [`prose`], where each line begins in the column of this number.
pub fn prose_beside(text: &str, taken: usize) -> String {
    if !io::stdout().is_terminal() {
        return text.to_owned();
    }
    broken(text, usize::from(columns()).saturating_sub(taken))
}

/// `text` in lines of at most `width` characters, if its words allow that. What goes on is indented as far as what it goes on from, and then some.
fn broken(text: &str, width: usize) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let indent = line.chars().take_while(|c| *c == ' ').count();
        if line.chars().count() <= width || indent + 2 >= width {
            all.push_str(line);
            all.push('\n');
            continue;
        }
        all.extend(std::iter::repeat_n(' ', indent));
        let mut length = indent;
        for (number, word) in words(&line[indent..]).into_iter().enumerate() {
            let long = word.chars().count();
            if number > 0 && length + 1 + long > width {
                all.push('\n');
                all.extend(std::iter::repeat_n(' ', indent + 2));
                length = indent + 2;
            } else if number > 0 {
                all.push(' ');
                length += 1;
            }
            all.push_str(&word);
            length += long;
        }
        all.push('\n');
    }
    all
}

/// What may stand on a line of its own: words, and whole commands.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut is_open): (Vec<String>, bool) = (Vec::new(), false);
    for part in line.split(' ') {
        match words.last_mut().filter(|_| is_open) {
            Some(command) => {
                command.push(' ');
                command.push_str(part);
            }
            None => words.push(part.to_owned()),
        }
        is_open ^= part.matches('`').count() % 2 == 1;
    }
    words
}

/// A table for people. `right`: the columns of numbers.
pub fn table<const N: usize>(head: [&str; N], right: &[usize], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns());
    table.load_style(TableStyle::new().header_separator(LineStyle::new('─', '─', '─', '─')));
    let mut widest = head[0].len();
    table.set_header(head);
    for row in rows {
        widest = widest.max(row[0].chars().count());
        table.add_row(row);
    }
    // A name that is broken in two can't be read, nor copied; but one of a name's greatest length leaves no room for the rest.
    if widest * 3 <= usize::from(columns())
        && let Some(names) = table.column_mut(0)
    {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Parts an error's words from the advice that many libraries put behind them.
fn parted(text: &str) -> (&str, Option<&str>) {
    let marks = ["\n  hint: ", "; hint: ", ". Hint: "];
    let found = marks.iter().filter_map(|mark| text.rfind(mark).map(|at| (at, mark.len()))).min();
    found.map_or((text, None), |(at, length)| (&text[..at], Some(&text[at + length..])))
}

/// Prints an error with its causes and its hint to stderr.
pub fn error(error: &anyhow::Error, hint: Option<&str>) {
    let whole = error.to_string();
    let (mut said, mut advice) = {
        let (text, advice) = parted(&whole);
        (text.to_owned(), advice.map(str::to_owned))
    };
    note(&format!("{} {said}", "error:".red().bold()));
    for cause in error.chain().skip(1) {
        // Many libraries repeat the cause in the outer message; nobody needs to read it twice.
        let cause = cause.to_string();
        let (cause, advised) = parted(&cause);
        if !said.contains(cause) {
            note(&format!("  {} {cause}", "because:".red()));
            said = cause.to_owned();
        }
        advice = advice.or_else(|| advised.map(str::to_owned));
    }
    if let Some(hint) = hint.or(advice.as_deref()) {
        note(&format!("  {} {hint}", "hint:".cyan().bold()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_parted_from_the_error() {
        for (text, error, hint) in [
            ("it failed", "it failed", None),
            ("it failed; hint: try it", "it failed", Some("try it")),
            ("it failed\n  hint: try it", "it failed", Some("try it")),
            ("it failed (no). Hint: try it", "it failed (no)", Some("try it")),
        ] {
            assert_eq!(parted(text), (error, hint));
        }
    }

    #[test]
    fn long_lines_are_broken_between_words_and_never_in_a_command() {
        let text = "  one two three `oxpecker service apply --again` four\nshort\n\n";
        assert_eq!(broken(text, 20), "  one two three\n    `oxpecker service apply --again`\n    four\nshort\n\n");
        assert_eq!(broken(text, 200), text);
        let long = "x".repeat(50);
        assert_eq!(broken(&format!("{long} y"), 20), format!("{long}\n  y\n"), "nothing is lost");
        assert_eq!(broken("an open ` tick goes on", 10), "an open\n  ` tick goes on\n");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text = table(["id", "size"], &[1], [["a".to_owned(), "1".to_owned()], ["bb".to_owned(), "10".to_owned()]]);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
