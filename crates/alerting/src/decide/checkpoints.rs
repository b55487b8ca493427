//! Rule `checkpoints-frequent`.
//!
//! *Why*: each checkpoint makes the next change of every page write that page into WAL as a whole: where they follow one another,
//! WAL multiplies, and so does all that reads it: archive, standbys, backups.
//! *Source*: checkpoints by request and by time (`pg_stat_checkpointer`, before 17 `pg_stat_bgwriter`) over ten minutes, in each
//! third of them, and the WAL written meanwhile: those that people ask for write little and do not count.
//! *First things to do*: raise `max_wal_size` (a reload is enough); see what writes so much.

use std::{collections::VecDeque, time::Duration};

use model::{ByteSize, Moment, Observation, Reading, Severity, alert::rule, reading::WalReading};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::span,
};
use crate::settings;

const WINDOW: Duration = Duration::from_secs(600);
/// Readings come about every ten seconds.
const MAX_READINGS: usize = 256;
/// A checkpoint by volume comes after a third to a half of `max_wal_size`, by `checkpoint_completion_target`; one that came after
/// less than this part of it had another reason.
const LEAST_PART: u64 = 8;

#[derive(Clone, Copy)]
struct Counts {
    at: Moment,
    timed: u64,
    requested: u64,
    lsn: u64,
}

#[derive(Clone, Copy)]
struct Finding {
    requested: u64,
    timed: u64,
    wal: ByteSize,
    over: Duration,
    max_wal: Option<ByteSize>,
    timeout: Option<Duration>,
}

/// The rule's state.
pub(super) struct CheckpointsFrequent {
    settings: settings::CheckpointsFrequent,
    gate: Gate,
    counts: VecDeque<Counts>,
    finding: Option<Finding>,
}

impl CheckpointsFrequent {
    pub(super) fn new(settings: settings::CheckpointsFrequent) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 2,
            lasting: Duration::ZERO,
            clear: Duration::from_secs(60),
            forget: Duration::ZERO,
            max_gap: WINDOW,
        });
        Self { settings, gate, counts: VecDeque::new(), finding: None }
    }

    fn take_in(&mut self, reading: &WalReading) {
        let now = Counts {
            at: reading.at,
            timed: reading.checkpoints_timed,
            requested: reading.checkpoints_requested,
            lsn: reading.lsn.0,
        };
        // Statistics that were reset, or another server.
        let backwards = |last: &Counts| {
            now.timed < last.timed
                || now.requested < last.requested
                || now.lsn < last.lsn
                || now.at.boot_us < last.at.boot_us
        };
        if self.counts.back().is_some_and(backwards) {
            self.counts.clear();
        }
        self.counts.push_back(now);
        let old = |first: &Counts| reading.at.since(first.at) > WINDOW;
        while self.counts.len() > MAX_READINGS || self.counts.front().is_some_and(old) {
            self.counts.pop_front();
        }
    }

    /// Requested checkpoints in each third of the window, and all of it.
    fn look(&self, reading: &WalReading) -> Option<([u64; 3], Finding)> {
        let (first, last) = (self.counts.front()?, self.counts.back()?);
        let over = last.at.since(first.at);
        let after = |part: u32| {
            let reached = self.counts.iter().find(|counts| counts.at.since(first.at) >= over * part / 3);
            reached.map_or(last.requested, |counts| counts.requested)
        };
        let (one, two) = (after(1), after(2));
        let finding = Finding {
            requested: last.requested - first.requested,
            timed: last.timed - first.timed,
            wal: ByteSize(last.lsn - first.lsn),
            over,
            max_wal: reading.max_wal,
            timeout: reading.checkpoint_timeout,
        };
        Some(([one - first.requested, two - one, last.requested - two], finding))
    }
}

impl Finding {
    fn by_volume(&self) -> bool {
        self.max_wal.is_none_or(|max| self.wal.0 >= self.requested.saturating_mul(max.0 / LEAST_PART))
    }

    /// `max_wal_size` with which checkpoints would come by time: what is written between two of them, twice, and half as much again.
    fn wanted(&self) -> Option<ByteSize> {
        let timeout = self.timeout?.as_secs();
        let per_second = self.wal.0 / self.over.as_secs().max(1);
        Some(ByteSize(per_second.saturating_mul(timeout).saturating_mul(3)))
    }

    fn line(&self) -> String {
        let over = span(self.over);
        format!(
            "{} checkpoints by request and {} by time in {over}, with {} of WAL",
            self.requested, self.timed, self.wal
        )
    }
}

impl Rule for CheckpointsFrequent {
    fn id(&self) -> &'static str {
        rule::CHECKPOINTS_FREQUENT
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Checkpoints of {} too frequent", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Wal(reading)) = observation else { return None };
        self.take_in(reading);
        let (thirds, finding) = self.look(reading)?;
        self.finding = Some(finding);
        let most = u64::from(self.settings.requested);
        // A burst is no state: every third of the window must have its part, and the window must be nearly whole.
        let lasting = finding.over >= WINDOW.mul_f64(0.9) && thirds.iter().all(|third| third * 4 >= most);
        let verdict =
            if lasting && finding.requested >= most && finding.requested > finding.timed && finding.by_volume() {
                Verdict::Bad(Severity::Warning)
            } else if thirds[2] * 6 < most {
                Verdict::Good
            } else {
                Verdict::Between
            };
        Some(Judgement::instant(reading.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(finding) = &self.finding else { return Facts::default() };
        let each = finding.over / u32::try_from(finding.requested).unwrap_or(u32::MAX).max(1);
        let mut details = vec![finding.line()];
        details.extend(finding.max_wal.map(|max| format!("max_wal_size is {max}")));
        details.extend(finding.wanted().map(|wanted| format!("with {wanted} they would come by time, at this rate")));
        Facts {
            summary: format!("{}: a checkpoint every {}, since WAL fills max_wal_size", subject.cluster, span(each)),
            details,
            next_steps: steps(&[
                "raise max_wal_size (see above how far, and whether the disk has it): `ALTER SYSTEM SET max_wal_size = ...`, then reload",
                "see what writes: pg_stat_wal, and wal_bytes of pg_stat_statements; a load that ends needs nothing",
                "spread what is written: checkpoint_timeout up, wal_compression on",
            ]),
            ..Facts::default()
        }
    }

    fn present(&self) -> Vec<String> {
        self.finding.iter().map(Finding::line).collect()
    }
}
