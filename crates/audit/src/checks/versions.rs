//! How old the server is.

use super::{Check, Family};
use crate::{
    Severity,
    facts::{Facts, Image, Source, Workload, versions},
    finding::{Evidence, Finding, Remedy},
};

pub(super) const CHECKS: &[Check] = &[END_OF_LIFE, MINOR];

/// What to do about a major version that has ended.
pub(super) const GO_UP: &str = "Prove a backup, then go to a supported major version with pg_upgrade or a dump; a new tag or package alone does not open the old data.";

const END_OF_LIFE: Check = Check {
    id: "end-of-life",
    title: "A PostgreSQL that nobody mends any more",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::Postgres],
    reason: "Of a version past its end nobody mends what loses data, and a way up that is put off becomes an outage of its own.",
    limits: "Reads the major version from the image's tag, or asks the live server. The days are those of postgresql.org's versioning policy, as known in May 2026.",
    run: end_of_life,
};

/// The image of a workload, where its tag is PostgreSQL's own version: extensions have version numbers of their own.
fn image(workload: &Workload) -> Option<&crate::facts::Located<Image>> {
    let image = workload.database_container()?.image.as_ref()?;
    matches!(image.value.base(), "postgres" | "postgresql" | "pgvector").then_some(image)
}

fn end_of_life(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter_map(|workload| {
        let image = image(workload)?;
        let major = image.value.major()?;
        let end = versions::end(major);
        if major >= 10 && end.is_none_or(|end| end >= facts.today) {
            return None;
        }
        let when = end.map_or_else(|| "long ago".to_owned(), |end| format!("on {end}"));
        let message = format!("{} runs PostgreSQL {major}, whose support ended {when}", workload.object());
        Some(END_OF_LIFE.found(
            workload.object(),
            message,
            vec![image.evidence("image")],
            Remedy::Advice(GO_UP.to_owned()),
        ))
    });
    findings.collect()
}

const MINOR: Check = Check {
    id: "outdated-minor",
    title: "Mended faults are still in this server",
    family: Family::Data,
    severity: Severity::Medium,
    needs: &[Source::Postgres],
    reason: "Minor releases mend what corrupts data and what crashes; they need no more than a restart. A fault that was mended a year ago is the least excusable cause of an \
             outage.",
    limits: "Compares with the releases that were known on 14 May 2026 (postgresql.org). A server at the newest of them is not assessed once a newer one may be out; an \
             image's tag without a minor version is not judged.",
    run: outdated,
};

/// The finding, of a tag or of a server: behind, or beyond what is known here.
pub(super) fn minor(facts: &Facts, object: String, major: u32, minor: u32, evidence: Evidence) -> Option<Finding> {
    match versions::standing(major, minor, facts.today) {
        versions::Standing::Newest => None,
        versions::Standing::Unknown => {
            let why = format!(
                "PostgreSQL {major}.{minor} is as new as any that was known on {}; look whether a newer minor release is out",
                versions::KNOWN
            );
            Some(MINOR.open(object, why, &evidence.place))
        }
        versions::Standing::Behind(newest) => {
            let message = format!("{object} is PostgreSQL {major}.{minor}; at least {major}.{newest} is out");
            let remedy = Remedy::Advice(format!(
                "Install {major}.{newest} or newer and restart; the data stays as it is. Read the release notes between: some ask for a REINDEX."
            ));
            Some(MINOR.found(object, message, vec![evidence], remedy))
        }
    }
}

fn outdated(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter_map(|workload| {
        let image = image(workload)?;
        let tag = image.value.tag.as_deref()?;
        // 16.2, 16.2-alpine, 16.2.0-debian-12-r3: the second number is the minor release.
        let mut numbers = tag.split(['.', '-']).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(number))) = (numbers.next(), numbers.next()) else { return None };
        if major < 10 || !tag.contains('.') || versions::end(major).is_some_and(|end| end < facts.today) {
            return None;
        }
        let finding = minor(facts, workload.object(), major, number, image.evidence("image"))?;
        // Of a tag it is no question that anybody has to answer.
        (finding.certainty == crate::Certainty::Found).then_some(finding)
    });
    findings.collect()
}
