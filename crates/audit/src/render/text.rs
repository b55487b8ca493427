//! For people, in a terminal.

use std::fmt::Write as _;

use super::{counts, groups, plural};
use crate::{Remedy, Report, facts::ProblemKind};

/// Places of one check that are shown; the JSON has all.
const PLACES_SHOWN: usize = 12;
/// Problems and open questions that are shown.
const LINES_SHOWN: usize = 40;
/// Open questions that are named for one reason.
const WHATS_SHOWN: usize = 20;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for (number, group) in groups(report).iter().enumerate() {
        let check = group.check;
        _ = writeln!(out, "{}. {} [{}, {}]", number + 1, check.title, group.severity.word(), check.id);
        _ = writeln!(out, "{}", wrapped(check.reason, 3));
        for finding in group.findings.iter().take(PLACES_SHOWN) {
            _ = writeln!(out, "   - {}", finding.message);
            for evidence in &finding.evidence {
                _ = writeln!(out, "     {}  {}", evidence.place, evidence.value);
            }
        }
        if group.findings.len() > PLACES_SHOWN {
            _ = writeln!(out, "   - and {} more (--output json has all)", group.findings.len() - PLACES_SHOWN);
        }
        if let Some(first) = group.findings.first() {
            let about = if group.findings.len() > 1 { format!(" for {}", first.object) } else { String::new() };
            match &first.remedy {
                Remedy::Patch(patch) => _ = writeln!(out, "   remedy{about}, merge:\n{}", indented(patch, 7)),
                Remedy::Command(command) => _ = writeln!(out, "   remedy{about}, run:\n       {command}"),
                Remedy::Advice(advice) => _ = writeln!(out, "   remedy{about}: {advice}"),
            }
        }
        out.push('\n');
    }
    problems(report, &mut out);
    accepted(report, &mut out);
    open(report, &mut out);
    let tally = report.tally;
    let what = if report.findings.is_empty() {
        "nothing found".to_owned()
    } else {
        format!("{} ({})", plural(report.findings.len(), "finding", "findings"), counts(report))
    };
    _ = writeln!(
        out,
        "{what} in {}, {}; of {} checks {} without a finding, {} not assessed",
        plural(report.files, "file", "files"),
        plural(report.workloads, "workload", "workloads"),
        tally.asked + tally.not_assessed,
        tally.clean,
        tally.not_assessed
    );
    if report.is_incomplete() {
        out.push_str("incomplete: something could not be read, see above\n");
    }
    out
}

fn problems(report: &Report, out: &mut String) {
    for (kind, title) in [
        (ProblemKind::Broken, "Could not be read"),
        (ProblemKind::Template, "Templates, not audited"),
        (ProblemKind::Ignore, "Ignores that do not count"),
    ] {
        let of_kind: Vec<_> = report.problems.iter().filter(|problem| problem.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        _ = writeln!(out, "{title}:");
        for problem in of_kind.iter().take(LINES_SHOWN) {
            _ = writeln!(out, "   {}  {}", problem.place, problem.what);
        }
        if of_kind.len() > LINES_SHOWN {
            _ = writeln!(out, "   and {} more", of_kind.len() - LINES_SHOWN);
        }
        out.push('\n');
    }
    if !report.unknown_kinds.is_empty() {
        let kinds: Vec<String> = report.unknown_kinds.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
        _ = writeln!(out, "Kinds that the audit does not know: {}\n", crate::words::list(&kinds, 12));
    }
}

fn accepted(report: &Report, out: &mut String) {
    if !report.ignored.is_empty() {
        out.push_str("Accepted in the files:\n");
        for ignored in report.ignored.iter().take(LINES_SHOWN) {
            _ = writeln!(out, "   {} of {} until {}: {}", ignored.check, ignored.object, ignored.until, ignored.reason);
        }
        out.push('\n');
    }
    if report.in_baseline > 0 {
        _ = writeln!(out, "{} accepted by the baseline\n", plural(report.in_baseline, "finding", "findings"));
    }
    if !report.gone_from_baseline.is_empty() {
        _ = writeln!(
            out,
            "No longer there, and can leave the baseline: {}\n",
            crate::words::list(&report.gone_from_baseline, 8)
        );
    }
}

fn open(report: &Report, out: &mut String) {
    if report.not_assessed.is_empty() {
        return;
    }
    out.push_str("Not assessed:\n");
    // Most lack the same few things.
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for open in &report.not_assessed {
        match by_reason.iter_mut().find(|(why, _)| *why == open.why) {
            Some((_, whats)) => whats.push(&open.what),
            None => by_reason.push((&open.why, vec![&open.what])),
        }
    }
    for (why, whats) in by_reason.iter().take(LINES_SHOWN) {
        let what = crate::words::list(whats, WHATS_SHOWN);
        _ = writeln!(out, "{}", hanging(&format!("{what}: {why}")));
    }
    if by_reason.len() > LINES_SHOWN {
        let more: usize = by_reason[LINES_SHOWN..].iter().map(|(_, whats)| whats.len()).sum();
        _ = writeln!(out, "   and {more} more (--output json has all)");
    }
    out.push('\n');
}

/// Wrapped, with all lines but the first further in.
fn hanging(text: &str) -> String {
    let wrapped = wrapped(text, 5);
    format!("   {}", wrapped.trim_start())
}

/// Columns of prose.
const COLUMNS: usize = 100;

pub(super) fn wrapped(text: &str, by: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + word.len() + 1 + by > COLUMNS {
            lines.push(word.to_owned());
        } else {
            let line = &mut lines[last];
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    indented(&lines.join("\n"), by)
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}", "")).collect::<Vec<_>>().join("\n")
}
