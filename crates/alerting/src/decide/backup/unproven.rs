//! Rule `backup-unproven`.
//!
//! *Why*: a backup counts when it has been restored. What counts is the age of the newest that has: everything since then is lost if
//! the cluster is lost now, and a backup that nobody ever restored may not be one.
//! *Source*: the repository's receipts, as the backup worker reports them. Where none was ever proven, the time counts from when a
//! guard first knew of the repository.
//! *First things to do*: see why no proof succeeds (the schedule, `backup-failing`); prove the newest backup by hand; make a new one.

use model::{Observation, Severity, alert::rule, reading::BackupReading};

use super::{age, gate, reading, standing};
use crate::{
    decide::{
        gate::{Gate, Judgement, Verdict},
        rule::{Facts, Rule, Subject, steps},
    },
    settings,
};

/// The rule's state.
pub(in crate::decide) struct BackupUnproven {
    settings: settings::BackupUnproven,
    gate: Gate,
    newest: Option<BackupReading>,
}

impl BackupUnproven {
    pub(in crate::decide) fn new(settings: settings::BackupUnproven) -> Self {
        Self { settings, gate: gate(), newest: None }
    }
}

impl Rule for BackupUnproven {
    fn id(&self) -> &'static str {
        rule::BACKUP_UNPROVEN
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Newest proven backup of {} too old", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let reading = reading(observation)?;
        // What people proved by hand is only known once the repository was looked at.
        if !reading.looked {
            return None;
        }
        let max_age = reading.max_age?;
        let unproven_for = reading.proven.as_ref().map_or(reading.known_for, |proven| proven.age);
        let critical = max_age.as_secs_f64() * self.settings.critical_factor;
        let verdict = if unproven_for <= max_age {
            Verdict::Good
        } else if unproven_for.as_secs_f64() > critical {
            Verdict::Bad(Severity::Critical)
        } else {
            Verdict::Bad(Severity::Warning)
        };
        self.newest = Some(reading.clone());
        Some(Judgement::instant(reading.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(newest) = &self.newest else { return Facts::default() };
        let limit = age(newest.max_age.unwrap_or_default());
        let summary = match &newest.proven {
            Some(proven) => {
                format!("{}: newest proven backup is {} old, more than {limit}", subject.cluster, age(proven.age))
            }
            None => format!("{}: no backup was ever proven, for {} now", subject.cluster, age(newest.known_for)),
        };
        let mut details = standing(newest);
        details.push(match newest.next_run {
            Some(at) => format!("next run: {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")),
            None => "next run: none, [backup] names no schedule".to_owned(),
        });
        details.extend(newest.last_error.iter().map(|error| format!("the last run failed: {error}")));
        Facts {
            summary,
            details,
            next_steps: steps(&[
                "see why no proof came about: `oxpecker status`, `oxpecker backup list`",
                "prove the newest backup now: `oxpecker backup prove`",
                "if that fails, make one and prove it: `oxpecker backup create`, `oxpecker backup prove`",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.newest.as_ref().map(standing).unwrap_or_default()
    }
}
