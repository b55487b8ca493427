//! For a ticket or a pull request.

use std::fmt::Write as _;

use super::{counts, groups};
use crate::{Remedy, Report};

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut out = String::from("# Audit\n\n");
    if report.findings.is_empty() {
        out.push_str("Nothing found.\n");
    } else {
        _ = writeln!(out, "{} findings: {}.", report.findings.len(), counts(report));
    }
    if report.is_incomplete() {
        out.push_str("\n**Incomplete:** something could not be read; see *Not audited*.\n");
    }
    for group in groups(report) {
        _ = write!(
            out,
            "\n## {}\n\n`{}`, {}. {}\n\n",
            group.check.title,
            group.check.id,
            group.severity.word(),
            group.check.reason
        );
        for finding in &group.findings {
            _ = writeln!(out, "- {}", escaped(&finding.message));
            for evidence in &finding.evidence {
                _ = writeln!(out, "  - {}: {}", code(&evidence.place.to_string()), code(&evidence.value));
            }
        }
        let Some(first) = group.findings.first() else { continue };
        match &first.remedy {
            Remedy::Patch(text) => {
                _ = write!(out, "\nRemedy for {}, to merge:\n\n{}", escaped(&first.object), block("yaml", text));
            }
            Remedy::Command(text) => {
                _ = write!(out, "\nRemedy for {}:\n\n{}", escaped(&first.object), block("sh", text));
            }
            Remedy::Advice(text) => _ = writeln!(out, "\nRemedy: {}", escaped(text)),
        }
    }
    if !report.problems.is_empty() {
        out.push_str("\n## Not audited\n\n");
        for problem in &report.problems {
            _ = writeln!(out, "- {}: {}", code(&problem.place.to_string()), escaped(&problem.what));
        }
    }
    if !report.ignored.is_empty() {
        out.push_str("\n## Accepted\n\n");
        for ignored in &report.ignored {
            _ = writeln!(
                out,
                "- `{}` of {} until {}: {}",
                ignored.check,
                escaped(&ignored.object),
                ignored.until,
                escaped(&ignored.reason)
            );
        }
    }
    if !report.not_assessed.is_empty() {
        out.push_str("\n## Not assessed\n\n");
        for open in &report.not_assessed {
            _ = writeln!(out, "- {}: {}", escaped(&open.what), escaped(&open.why));
        }
    }
    out
}

/// Foreign text as text: what Markdown or HTML would take for its own is escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if "\\`*_[]<>|#!".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    // A mention or a reference to an issue would notify someone.
    out.replace('@', "@\u{200b}")
}

/// Foreign text as code, fenced by more backticks than it has.
fn code(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "(nothing)".to_owned();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    if longest == 0 { format!("`{text}`") } else { format!("{fence} {text} {fence}") }
}

fn block(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text() {
        assert_eq!(escaped("<img> @all [x](y)"), "\\<img\\> @\u{200b}all \\[x\\](y)");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert!(block("sh", "```\nx").starts_with("````sh\n"));
    }
}
