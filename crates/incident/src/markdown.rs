//! A report as Markdown (CommonMark with GitHub's tables). Texts from events are escaped: none of them can pose as a citation, a
//! heading or a link.

use std::fmt::Write as _;

use crate::{Report, Statement};

/// The mark before a supposition that the events do not prove.
pub const NOT_ESTABLISHED: &str = "*Not established:*";
/// The mark before what the events do not have.
pub const NOT_RECORDED: &str = "*Not in the journal:*";
/// The mark before advice on reading.
pub const NOTE: &str = "*Note:*";

/// The whole report, ending in a newline.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let title = escape(report.title.text());
    line(&mut out, &format!("# {}: {title} {}", report.incident, report.title.cites()));
    line(&mut out, "");
    line(
        &mut out,
        &format!(
            "{NOTE} each fact names the journal's events that prove it, such as {}; they are listed at the end. Times are UTC. Durations are by the host's boot clock, which no step of the wall clock changes; those marked (wall clock) span a reboot.",
            example(report)
        ),
    );
    for section in &report.sections {
        line(&mut out, "");
        line(&mut out, &format!("## {}", section.heading.title()));
        for part in &section.parts {
            if let Some(label) = &part.label {
                line(&mut out, "");
                line(&mut out, &format!("### {}", escape(label)));
            }
            line(&mut out, "");
            for statement in &part.statements {
                line(&mut out, &format!("- {}", render_statement(statement)));
            }
        }
    }
    line(&mut out, "");
    line(&mut out, "## Cited events");
    line(&mut out, "");
    line(&mut out, "| event | time (UTC) | since start | kind | what |");
    line(&mut out, "|---|---|---|---|---|");
    for cited in &report.cited {
        let at = cited.event.at.wall.strftime("%Y-%m-%d %H:%M:%S%.3f UTC");
        let kind = cited.event.kind.name();
        let text = escape(&cited.text);
        line(&mut out, &format!("| [{}] | {at} | {} | {kind} | {text} |", cited.event.id, cited.offset));
    }
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{text}");
}

fn example(report: &Report) -> String {
    report.title.cites().iter().next().map(|id| format!("[{id}]")).unwrap_or_default()
}

fn render_statement(statement: &Statement) -> String {
    match statement {
        Statement::Fact(fact) => format!("{} {}", escape(fact.text()), fact.cites()),
        Statement::NotEstablished { whether, missing } => {
            format!("{NOT_ESTABLISHED} whether {}. Missing: {}.", escape(whether), escape(missing))
        }
        Statement::NotRecorded { what } => format!("{NOT_RECORDED} {}.", escape(what)),
        Statement::Advice { text, because, task } => {
            let mark = if *task { "[ ]" } else { NOTE };
            let because: Vec<String> = because.iter().map(|id| format!("[{id}]")).collect();
            let because = if because.is_empty() { String::new() } else { format!(" {}", because.join(" ")) };
            format!("{mark} {}{because}", escape(text))
        }
    }
}

/// `text` with a backslash before what Markdown would read as markup, except in its code spans. An underscore within a word stays as it
/// is: Markdown reads it so, and table names stay readable in the source.
///
/// Code spans are ours: [`crate::words::quote`] takes the backticks out of what comes from elsewhere.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let spans = text.matches('`').count().is_multiple_of(2);
    let mut in_code = false;
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied().unwrap_or(' ');
        let markup = match c {
            '`' if spans => {
                in_code = !in_code;
                false
            }
            _ if in_code => false,
            '\\' | '*' | '[' | ']' | '<' | '|' | '`' | '~' => true,
            '_' => !(before.is_alphanumeric() && next.is_alphanumeric()),
            '&' => next.is_alphanumeric() || next == '#',
            _ => false,
        };
        if markup {
            out.push('\\');
        }
        out.push(c);
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_poses_as_markup() {
        for (text, escaped) in [
            ("public.user_profile", "public.user_profile"),
            ("_a_", r"\_a\_"),
            ("[E99] <b> | `x", r"\[E99\] \<b> \| \`x"),
            ("run `a_ [b] *` or _", r"run `a_ [b] *` or \_"),
            ("a & b &lt;", r"a & b \&lt;"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }
}
