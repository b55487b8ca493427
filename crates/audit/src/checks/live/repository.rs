//! What lies in our own repository.

use super::of;
use crate::{
    Severity,
    checks::{Check, Family, shows},
    facts::{Facts, OwnBackups, Source},
    finding::{Finding, Place, Remedy},
    quantity::span,
};

pub(in crate::checks) const CHECKS: &[Check] = &[OLD];

/// Where nothing says how old the newest backup may be.
const OLD_BY_DEFAULT: u64 = 2 * 86_400;

const OLD: Check = Check {
    id: "backup-old",
    title: "The newest backup is old, or there is none",
    family: Family::Data,
    severity: Severity::Critical,
    needs: &[Source::LiveRepository],
    reason: "There had been a backup once; there was no recent one. A job that stopped weeks ago looks like one that runs until somebody looks at what it made.",
    limits: "Looks into oxpecker's own repository. Old is what [backup] says, else two days.",
    run: old,
};

fn repository(facts: &Facts) -> Option<&OwnBackups> {
    facts.own.as_ref()?.as_ref().ok()
}

fn here(own: &OwnBackups) -> Place {
    Place { file: own.place.as_str().into(), line: 0 }
}

fn old(facts: &Facts) -> Vec<Finding> {
    let Some(own) = repository(facts) else { return vec![] };
    let remedy = Remedy::Command(
        "oxpecker backup create && oxpecker backup prove  # then see why the schedule did not".to_owned(),
    );
    let allowed = own.max_age.unwrap_or(OLD_BY_DEFAULT);
    let (message, severity) = match own.newest {
        None => (format!("{} has no backup of {} yet", own.place, own.cluster), Severity::Critical),
        Some(age) if age > allowed => (
            format!("the newest backup of {} is {} old; {} is allowed", own.cluster, span(age), span(allowed)),
            Severity::High,
        ),
        Some(_) => return vec![],
    };
    vec![
        OLD.found(
            format!("repository: {}", own.cluster),
            message,
            vec![shows(&here(own), format!("{} backups", own.count))],
            remedy,
        )
        .at_most(severity),
    ]
}

pub(super) fn never_proven(facts: &Facts) -> Vec<Finding> {
    let Some(own) = repository(facts).filter(|own| own.count > 0 && own.proven.is_none()) else { return vec![] };
    let message = format!("none of {} backups of {} has been proven", own.count, own.cluster);
    let remedy = Remedy::Command(
        "oxpecker backup prove  # restores into a scratch directory, starts it fenced, checks, and keeps a receipt"
            .to_owned(),
    );
    vec![of("backup-never-restored").found(
        format!("repository: {}", own.cluster),
        message,
        vec![shows(&here(own), "no proof that passed")],
        remedy,
    )]
}
