//! From facts to a report: every check asked, answers sorted by what would have hurt first.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::{
    SCHEMA_VERSION, Severity,
    checks::{self, Check, Family},
    facts::{Collector, Facts, Problem, Source},
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

/// Asks every check.
pub fn audit(collector: Collector, options: &Options) -> Report {
    let (facts, ignores, problems, problems_untold) = collector.finish();
    let mut tally = Tally::default();
    let mut not_assessed = Vec::new();
    let mut findings = Vec::new();
    let mut of_files = 0;
    for check in checks::checks() {
        let again = checks::live::AGAIN.iter().find(|again| again.of == check.id);
        let lacks = |needs: &[Source]| needs.iter().filter_map(|need| facts.lacks(*need)).collect::<Vec<_>>();
        let missing = lacks(check.needs);
        let live = again.map(|again| (again, lacks(again.needs)));
        let mut said = Vec::new();
        let mut asked = missing.is_empty();
        if asked {
            said.extend((check.run)(&facts));
        }
        match &live {
            Some((again, lacks)) if lacks.is_empty() => {
                asked = true;
                said.extend((again.run)(&facts));
            }
            // It was asked for: that it was asked of files only has to be said.
            Some((_, lacks)) if facts.server.is_some() => {
                not_assessed
                    .push(NotAssessed { what: format!("{} of the live server", check.id), why: sentence(lacks) });
            }
            _ => {}
        }
        let of_files_only = check.needs.iter().all(|need| *need < Source::Live);
        if !asked && of_files_only && facts.files == 0 && facts.server.is_some() {
            tally.not_assessed += 1;
            of_files += 1;
            continue;
        }
        if !asked {
            tally.not_assessed += 1;
            not_assessed.push(NotAssessed { what: check.id.to_owned(), why: sentence(&missing) });
            continue;
        }
        tally.asked += 1;
        let (found, open): (Vec<_>, Vec<_>) = said.into_iter().partition(|f| f.certainty == Certainty::Found);
        tally.clean += usize::from(found.is_empty() && open.is_empty());
        not_assessed.extend(
            open.into_iter().map(|f| NotAssessed { what: format!("{} of {}", f.check, f.object), why: f.message }),
        );
        findings.extend(found);
    }
    if of_files > 0 {
        let why = format!("no path was given: {of_files} checks of what a team has written down were not asked");
        not_assessed.push(NotAssessed { what: "manifests, units, rules and documents".to_owned(), why });
    }
    // Whole parts of the system before single checks.
    not_assessed.splice(0..0, elsewhere(&facts));
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

/// What is missing, each once.
fn sentence(lacks: &[String]) -> String {
    let mut each: Vec<&str> = lacks.iter().map(String::as_str).collect();
    each.dedup();
    each.join("; ")
}

/// Parts of the system that were not asked for, and those that did not answer.
fn elsewhere(facts: &Facts) -> Vec<NotAssessed> {
    let say = |what: &str, why: String| NotAssessed { what: what.to_owned(), why };
    let mut open = Vec::new();
    match &facts.server {
        None => open.push(say(
            "the live database",
            "not asked: --live asks it for its settings, versions, sessions and backups".to_owned(),
        )),
        Some(Err(why)) => open.push(say("the live database", why.clone())),
        Some(Ok(_)) => {}
    }
    match &facts.host {
        None => open.push(say(
            "the host",
            "not looked at: --live looks at cores, memory, disks and what else runs there".to_owned(),
        )),
        Some(host) => {
            let parts = [
                ("cores", host.cores.as_ref().err()),
                ("memory", host.memory.as_ref().err()),
                ("the database's processes", host.postmaster.as_ref().err()),
                ("the database's disks", host.disks.as_ref().err()),
                ("pgBackRest", host.pgbackrest.as_ref().and_then(|asked| asked.as_ref().err())),
            ];
            open.extend(
                parts.into_iter().filter_map(|(what, why)| Some(say(&format!("the host: {what}"), why?.clone()))),
            );
        }
    }
    if facts.probes.is_none() {
        open.push(say(
            "answers over the network",
            "not tried: --probe asks certificates, redirects and addresses".to_owned(),
        ));
    } else if facts.not_probed > 0 {
        open.push(say(
            "answers over the network",
            format!("{} more were not asked: too many for one run", facts.not_probed),
        ));
    }
    open
}

/// Severity first; then databases before what uses them, as everything else fell because the database did; then the order of the registry, which
/// is that of the outage.
fn sort(facts: &Facts, findings: &mut [Finding]) {
    let mut databases: HashSet<String> = facts.databases().map(crate::facts::Workload::object).collect();
    databases.extend(facts.live_server().map(crate::facts::Server::object));
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
