//! From facts to a report: every check asked, answers sorted by what would have hurt first.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::{
    SCHEMA_VERSION, Severity,
    checks::{self, Check, Family},
    facts::{Collector, Facts, Problem},
    finding::{Certainty, Finding},
    select::{self, Baseline, Ignored},
};

/// What to leave out.
#[derive(Debug, Default)]
pub struct Options {
    /// Findings that were accepted before.
    pub baseline: Baseline,
}

/// A question without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotAssessed {
    /// The check, or the part of the system.
    pub what: String,
    /// What it would have needed.
    pub why: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Checks that could be asked.
    pub asked: usize,
    /// Of these, without a finding.
    pub clean: usize,
    /// Checks that could not be asked.
    pub not_assessed: usize,
}

/// What the audit has to say.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of its shape as JSON.
    pub audit_schema: u32,
    /// Gaps, the one that would have hurt first at the top.
    pub findings: Vec<Finding>,
    /// Gaps that someone accepted in the files, with reason and date.
    pub ignored: Vec<Ignored>,
    /// How many a baseline accepted.
    pub in_baseline: usize,
    /// Entries of the baseline that no longer occur: they can go.
    pub gone_from_baseline: Vec<String>,
    /// Questions that could not be answered.
    pub not_assessed: Vec<NotAssessed>,
    /// What could not be audited.
    pub problems: Vec<Problem>,
    /// Problems beyond those that are listed.
    pub problems_untold: usize,
    /// Kinds of objects that the audit does not know.
    pub unknown_kinds: BTreeMap<String, usize>,
    /// How the checks ended.
    pub tally: Tally,
    /// Files read.
    pub files: usize,
    /// Workloads seen.
    pub workloads: usize,
}

impl Report {
    /// The worst of the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Whether something could not be read: the findings may be incomplete. Templates and ignores that don't count are said, but are no such thing.
    pub fn is_incomplete(&self) -> bool {
        self.problems_untold > 0 || self.problems.iter().any(|p| p.kind == crate::facts::ProblemKind::Broken)
    }
}

/// What this version can't ask yet, and who could tell.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "the live database",
        "this version reads files only: data checksums, the running minor version, settings in force, autovacuum's ceiling against the cores",
    ),
    ("the host", "this version reads files only: cores, memory, disks, and what else runs there"),
    (
        "answers over the network",
        "this version contacts nothing: certificates, redirects and error reporting were not tried",
    ),
];

/// Asks every check.
pub fn audit(collector: Collector, options: &Options) -> Report {
    let (facts, ignores, problems, problems_untold) = collector.finish();
    let mut tally = Tally::default();
    let mut not_assessed = Vec::new();
    let mut findings = Vec::new();
    for check in checks::checks() {
        let missing: Vec<&str> =
            check.needs.iter().filter(|need| !facts.has(**need)).map(|need| need.missing()).collect();
        if !missing.is_empty() {
            tally.not_assessed += 1;
            not_assessed.push(NotAssessed {
                what: check.id.to_owned(),
                why: format!("no {} was found", missing.join(" and no ")),
            });
            continue;
        }
        tally.asked += 1;
        let said = (check.run)(&facts);
        let (found, open): (Vec<_>, Vec<_>) = said.into_iter().partition(|f| f.certainty == Certainty::Found);
        tally.clean += usize::from(found.is_empty() && open.is_empty());
        not_assessed.extend(
            open.into_iter().map(|f| NotAssessed { what: format!("{} of {}", f.check, f.object), why: f.message }),
        );
        findings.extend(found);
    }
    not_assessed
        .extend(ELSEWHERE.iter().map(|(what, why)| NotAssessed { what: (*what).to_owned(), why: (*why).to_owned() }));
    sort(&facts, &mut findings);
    let (findings, ignored) = select::ignore(findings, &ignores, facts.today);
    let (findings, in_baseline, gone_from_baseline) = options.baseline.apply(findings);
    Report {
        audit_schema: SCHEMA_VERSION,
        findings,
        ignored,
        in_baseline,
        gone_from_baseline,
        not_assessed,
        problems,
        problems_untold,
        unknown_kinds: facts.unknown_kinds,
        tally,
        files: facts.files,
        workloads: facts.workloads.len(),
    }
}

/// Severity first; then databases before what uses them, as everything else fell because the database did; then the order of the registry, which
/// is that of the outage.
fn sort(facts: &Facts, findings: &mut [Finding]) {
    let databases: HashSet<String> = facts.databases().map(crate::facts::Workload::object).collect();
    let rank = |finding: &Finding| checks::checks().iter().position(|check: &&Check| check.id == finding.check);
    findings.sort_by_cached_key(|finding| {
        let place = finding.evidence.first().map(|evidence| evidence.place.clone());
        (
            std::cmp::Reverse(finding.severity),
            !databases.contains(&finding.object),
            rank(finding),
            place,
            finding.object.clone(),
        )
    });
}

impl Family {
    /// The question that the family asks.
    pub fn question(self) -> &'static str {
        match self {
            Self::Starvation => "Can one part take the whole machine?",
            Self::Liveness => "Is it noticed when a part hangs, and does starting it again work?",
            Self::Data => "Is the data still there afterwards?",
            Self::Secrets => "Does every part get what it reads, and does anyone hear its errors?",
            Self::Routes => "Does every name lead somewhere?",
            Self::Detection => "Would anyone be told, and soon enough?",
            Self::Recovery => "Does it come back in the right order?",
        }
    }
}
