//! Rule `archive-failing`.
//!
//! *Why*: WAL that can't be archived stays on the server until the disk is full, and no point in time behind it can be restored;
//! PostgreSQL itself only writes a line into its log.
//! *Source*: `pg_stat_archiver`: whether the newest attempt failed, and how far the newest archived segment is behind the WAL that
//! is written.
//! *First things to do*: read the server's log for what the command said; mend the target (room, rights, network); watch pg_wal.

use std::time::Duration;

use model::{
    ByteSize, Moment, Observation, Reading, Severity,
    alert::rule,
    reading::{Archiver, WalReading},
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::span,
};
use crate::settings::{self, duration};

/// Readings come about every ten seconds; a burst of WAL is behind for one of them.
const READINGS: u32 = 2;
const MAX_GAP: Duration = Duration::from_secs(60);

/// The rule's state.
pub(super) struct ArchiveFailing {
    settings: settings::ArchiveFailing,
    gate: Gate,
    failing_since: Option<Moment>,
    newest: Option<WalReading>,
}

impl ArchiveFailing {
    pub(super) fn new(settings: settings::ArchiveFailing) -> Self {
        let gate = Gate::new(Confirmation {
            readings: READINGS,
            lasting: Duration::ZERO,
            clear: Duration::ZERO,
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, failing_since: None, newest: None }
    }

    fn failing_for(&self, now: Moment) -> Option<Duration> {
        self.failing_since.map(|since| now.since(since))
    }
}

fn behind(archiver: &Archiver) -> ByteSize {
    archiver.behind.unwrap_or_default()
}

fn standing(reading: &WalReading) -> Vec<String> {
    let archiver = &reading.archiver;
    if !archiver.enabled {
        return vec!["archive_mode is off".to_owned()];
    }
    let mut facts = vec![format!("{} segments archived, {} attempts failed", archiver.archived, archiver.failed)];
    match (archiver.behind, archiver.last_archived) {
        (Some(behind), Some(last)) => {
            let last = last.strftime("%Y-%m-%d %H:%M:%S UTC");
            facts.push(format!("{behind} of WAL since the newest archived segment, which is of {last}"));
        }
        _ => facts.push("no segment is known to have been archived".to_owned()),
    }
    facts
}

impl Rule for ArchiveFailing {
    fn id(&self) -> &'static str {
        rule::ARCHIVE_FAILING
    }

    fn title(&self, subject: &Subject) -> String {
        format!("WAL of {} not archived", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Wal(reading)) = observation else { return None };
        let archiver = &reading.archiver;
        let failing = archiver.enabled && archiver.failing;
        self.failing_since = failing.then(|| self.failing_since.unwrap_or(reading.at));
        self.newest = Some(reading.clone());
        let mib = |mib: u64| mib.saturating_mul(1 << 20);
        let behind = if archiver.enabled { behind(archiver).0 } else { 0 };
        let fails = self.failing_for(reading.at).is_some_and(|long| long >= duration(self.settings.failing_s));
        let verdict = if behind >= mib(self.settings.critical_mib) {
            Verdict::Bad(Severity::Critical)
        } else if fails || behind >= mib(self.settings.behind_mib) {
            Verdict::Bad(Severity::Warning)
        } else if !failing && behind < mib(self.settings.behind_mib) / 2 {
            Verdict::Good
        } else {
            Verdict::Between
        };
        let since = self.failing_since.filter(|_| fails);
        Some(Judgement { since, ..Judgement::instant(reading.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(newest) = &self.newest else { return Facts::default() };
        let behind = behind(&newest.archiver);
        let what = match self.failing_for(newest.at) {
            Some(long) => format!("archiving has failed for {}, {behind} of WAL wait", span(long)),
            None => format!("archiving does not keep up, {behind} of WAL wait"),
        };
        let mut details = standing(newest);
        details.extend(newest.wal_per_second.map(|rate| format!("the server writes {rate}/s of WAL")));
        Facts {
            summary: format!("{}: {what}", subject.cluster),
            details,
            next_steps: steps(&[
                "read what the command said in the server's log: `archive command failed with exit code ...`",
                "mend its target: room, rights, network; the next attempt comes by itself within a minute",
                "watch pg_wal: `SELECT pg_size_pretty(sum(size)) FROM pg_ls_waldir()`; never delete anything there",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.newest.as_ref().map(standing).unwrap_or_default()
    }
}
