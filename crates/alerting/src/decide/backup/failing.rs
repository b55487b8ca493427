//! Rule `backup-failing`.
//!
//! *Why*: a backup that fails is found out when it is needed, unless somebody is told. One failure that the next attempt makes good is
//! nobody's business. Damaged pages in the cluster are told at once: the backups from before the damage are what repairs it, and they
//! expire.
//! *Source*: the guard's reading of the backups: failures in a row of the backup worker, and the damaged pages that the newest backup
//! found.
//! *First things to do*: read what failed; make room, or mend the repository; try again by hand. With damaged pages: keep the old
//! backups, look at the disk, restore the page's table from a backup that is older.

use model::{Observation, Severity, alert::rule, reading::BackupReading};

use super::{age, gate, reading, standing};
use crate::{
    decide::{
        gate::{Gate, Judgement, Verdict},
        rule::{Facts, Rule, Subject, steps},
        text::fit,
    },
    settings,
};

/// How much of an error an alert carries, in characters.
const DETAIL_CHARS: usize = 400;

/// The rule's state.
pub(in crate::decide) struct BackupFailing {
    settings: settings::BackupFailing,
    gate: Gate,
    newest: Option<BackupReading>,
}

impl BackupFailing {
    pub(in crate::decide) fn new(settings: settings::BackupFailing) -> Self {
        Self { settings, gate: gate(), newest: None }
    }
}

fn damaged(reading: &BackupReading) -> u64 {
    reading.last.as_ref().map_or(0, |last| last.corrupt_pages)
}

impl Rule for BackupFailing {
    fn id(&self) -> &'static str {
        rule::BACKUP_FAILING
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Backups of {} failing", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let reading = reading(observation)?;
        let verdict = if damaged(reading) > 0 {
            Verdict::Bad(Severity::Critical)
        } else if reading.failures >= self.settings.failures {
            Verdict::Bad(Severity::Warning)
        } else if reading.failures == 0 {
            Verdict::Good
        } else {
            Verdict::Between
        };
        self.newest = Some(reading.clone());
        Some(Judgement::instant(reading.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(newest) = &self.newest else { return Facts::default() };
        let pages = damaged(newest);
        if pages > 0 {
            return Facts {
                summary: format!("{}: the newest backup found {pages} damaged pages in the cluster", subject.cluster),
                details: standing(newest),
                next_steps: steps(&[
                    "see which: `oxpecker backup show` names file and block; do not prune older backups",
                    "look for what damages them: `dmesg`, SMART, memory; move off the disk if it is the disk",
                    "restore a backup from before the damage beside the cluster and take the table's rows from there",
                ]),
                ..Facts::default()
            };
        }
        let error = newest.last_error.as_deref().unwrap_or("no reason given");
        let mut details = vec![fit(&format!("the newest says: {error}"), DETAIL_CHARS)];
        details.extend(standing(newest));
        let proven = newest.proven.as_ref().map_or_else(|| "none".to_owned(), |p| format!("{} old", age(p.age)));
        Facts {
            summary: format!(
                "{}: backups fail, {} in a row; newest proven backup: {proven}",
                subject.cluster, newest.failures
            ),
            details,
            next_steps: steps(&[
                "read why: `oxpecker status`, and the guard's log for what led to it",
                "see to the repository: room, permissions, `oxpecker backup check`",
                "try it by hand: `oxpecker backup create`, then `oxpecker backup prove`",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.newest.as_ref().map(standing).unwrap_or_default()
    }
}
