//! Rule `repository-unprotected`.
//!
//! *Why*: a backup on the database's own disk goes with that disk, and one that only this host can open goes with this host. Both look
//! well until the day.
//! *Source*: the repository's log (was the recovery key confirmed) and the devices of its folder and the data directory, as the backup
//! worker reports them.
//! *First things to do*: `oxpecker key export`, on paper, and confirm it; move the repository, or copy it elsewhere; look whether
//! whoever takes this host could also delete the backups.
//!
//! An unconfirmed key is said as information, a repository on the same disk as a warning: it is the likelier loss.

use model::{
    Observation, Severity,
    alert::rule,
    reading::{BackupReading, Exposure},
};

use super::{gate, reading};
use crate::decide::{
    gate::{Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::short,
};

/// The rule's state.
pub(in crate::decide) struct RepositoryUnprotected {
    gate: Gate,
    newest: Option<BackupReading>,
}

impl RepositoryUnprotected {
    pub(in crate::decide) fn new() -> Self {
        Self { gate: gate(), newest: None }
    }
}

fn severity(exposure: &Exposure) -> Severity {
    match exposure {
        Exposure::NoRecoveryKey => Severity::Info,
        Exposure::SameDisk { .. } => Severity::Warning,
    }
}

fn fact(exposure: &Exposure) -> String {
    match exposure {
        Exposure::NoRecoveryKey => {
            "the recovery key was not confirmed: who loses this host and its key file loses every backup".to_owned()
        }
        Exposure::SameDisk { path } => {
            format!("{path} is on the database's own disk: what takes the disk takes database and backups")
        }
    }
}

impl Rule for RepositoryUnprotected {
    fn id(&self) -> &'static str {
        rule::REPOSITORY_UNPROTECTED
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Backups of {} not protected", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let reading = reading(observation)?;
        if !reading.looked {
            return None;
        }
        let verdict = reading.exposures.iter().map(severity).max().map_or(Verdict::Good, Verdict::Bad);
        self.newest = Some(reading.clone());
        Some(Judgement::instant(reading.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(newest) = &self.newest else { return Facts::default() };
        let same_disk = newest.exposures.iter().any(|e| matches!(e, Exposure::SameDisk { .. }));
        let why = if same_disk { "they lie on the database's own disk" } else { "their recovery key is not confirmed" };
        let mut details: Vec<String> = newest.exposures.iter().map(fact).collect();
        details.push(format!("repository: {}", newest.repository));
        Facts {
            summary: format!("Backups of {} are not protected: {why}", short(&subject.cluster)),
            details,
            next_steps: steps(&[
                "`oxpecker key export`: put the recovery key on paper or into a safe elsewhere, then confirm it",
                "move the repository to another disk or host; until then copy its folder there after each backup",
                "make sure that whoever takes over this host can't delete the backups as well",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.newest.iter().flat_map(|reading| reading.exposures.iter().map(fact)).collect()
    }
}
