//! The report for people, for programs and for code hosts.

mod explain;
mod markdown;
mod sarif;
mod text;

pub use self::{explain::explain, markdown::markdown, sarif::sarif, text::text};

use crate::{Finding, Report, Severity, checks};

/// Findings of one check, in the report's order.
struct Group<'a> {
    check: &'static checks::Check,
    severity: Severity,
    findings: Vec<&'a Finding>,
}

/// Findings by check; a check stands where the worst of its findings does.
fn groups(report: &Report) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in &report.findings {
        let Some(check) = checks::check(finding.check) else { continue };
        match groups.iter_mut().find(|group| group.check.id == check.id) {
            Some(group) => group.findings.push(finding),
            None => groups.push(Group { check, severity: finding.severity, findings: vec![finding] }),
        }
    }
    groups
}

/// `3 critical, 2 high`.
fn counts(report: &Report) -> String {
    let all = [Severity::Critical, Severity::High, Severity::Medium, Severity::Low];
    let count = |severity: Severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let counts: Vec<String> = all
        .into_iter()
        .map(|severity| (count(severity), severity))
        .filter(|(count, _)| *count > 0)
        .map(|(count, severity)| format!("{count} {}", severity.word()))
        .collect();
    counts.join(", ")
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
