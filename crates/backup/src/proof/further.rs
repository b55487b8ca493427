//! WAL that was stored since the backup: the proof replays it as well, because that is what a restore to the newest moment would do, and says
//! how old the newest commit is that it found.
//!
//! Who keeps that WAL is not this crate's business: it is brought through [`FurtherWal`].

use std::{collections::BTreeMap, path::Path};

use jiff::{SignedDuration, Timestamp};
use model::Lsn;
use pg_format::wal::{SegmentSize, WalFile};
use serde::{Deserialize, Serialize};

use super::{error::Halt, identity::Identity, receipt::clip, space, wal::Survey};

/// What part of the free space WAL may take; the rest is for what replay does with it.
const SPACE_SHARE: u64 = 2;
/// Histories of timelines that are brought at most.
const HISTORIES_MAX: usize = 1000;

/// WAL behind a backup.
pub trait FurtherWal {
    /// What there is now, on the way that a restore to the newest moment takes; `None` where nothing is behind the backup.
    ///
    /// # Errors
    /// It can't be found out, in words.
    fn look(&self) -> Result<Option<Further>, String>;

    /// Writes a file of WAL, whole, a segment with noughts behind the last byte that is stored.
    ///
    /// # Errors
    /// It can't be had, in words.
    fn bring(&self, name: &str, target: &Path) -> Result<(), String>;
}

/// What WAL there is behind a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    /// On which timeline it ends.
    pub timeline: u32,
    /// Behind the last byte.
    pub end: Lsn,
    /// When that was looked up.
    pub looked_at: Timestamp,
    /// Histories of timelines that lead there, by their files' names.
    pub histories: Vec<String>,
    /// Segments in order, by their files' names; the first may hold the backup's own end.
    pub segments: Vec<String>,
}

/// What a receipt says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalRecord {
    /// The timeline that was replayed to.
    pub timeline: u32,
    /// When it was looked up how far WAL goes.
    pub looked_at: Timestamp,
    /// Behind the last byte that was stored then.
    pub stored_to: Lsn,
    /// Segments that were replayed behind the backup's own.
    pub segments: u64,
    /// Where the last whole record ends that was replayed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replayed_to: Option<Lsn>,
    /// The newest commit in it, by the clock of the server that wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub newest_commit: Option<Timestamp>,
    /// Why it was not replayed, or not to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
}

impl WalRecord {
    /// How old the newest commit was when it was looked up: what would have been lost with the server. `None` where that is not known. Never
    /// negative: clocks differ.
    #[must_use]
    pub fn age(&self) -> Option<SignedDuration> {
        let age = self.looked_at.duration_since(self.newest_commit?);
        Some(age.max(SignedDuration::ZERO))
    }
}

/// What was brought.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) record: WalRecord,
    /// Of which timeline each segment is replayed, by its number; those that are not here are of the backup's.
    pub(super) along: BTreeMap<u64, u32>,
}

/// Brings what there is, as far as there is room.
pub(super) fn bring(
    further: &dyn FurtherWal,
    data: &Path,
    size: SegmentSize,
    identity: &Identity,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Brought>, Halt> {
    let found = match further.look() {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(why) => {
            return Err(Halt::not_proven(format!("the WAL behind the backup can't be looked up: {}", clip(&why))));
        }
    };
    let mut record = WalRecord {
        timeline: found.timeline,
        looked_at: found.looked_at,
        stored_to: found.end,
        segments: 0,
        replayed_to: None,
        newest_commit: None,
        problem: None,
    };
    let pg_wal = data.join("pg_wal");
    let room = space::free_bytes(data).map_or(u64::MAX, |free| free.saturating_sub(space::BESIDES_BYTES) / SPACE_SHARE);
    let mut along = BTreeMap::new();
    let fetch = |name: &str| {
        let target = pg_wal.join(name);
        further.bring(name, &target).map_err(|why| format!("{name}: {}", clip(&why)))?;
        identity.own(&target).map_err(|error| format!("{name}: {error}"))
    };
    for name in found.histories.iter().take(HISTORIES_MAX) {
        if let Err(why) = fetch(name) {
            record.problem = Some(why);
            return Ok(Some(Brought { record, along }));
        }
    }
    for name in &found.segments {
        if cancelled() {
            return Err(Halt::not_proven("the proof was cancelled"));
        }
        let Some(WalFile::Segment(segment)) = WalFile::parse(name, size) else {
            return Err(Halt::not_proven(format!("{name:?} is no segment of WAL")));
        };
        if (record.segments + 1).saturating_mul(size.bytes()) > room {
            record.problem = Some(format!(
                "there is room for {} segments of {}; hint: name a larger scratch directory",
                record.segments,
                found.segments.len()
            ));
            break;
        }
        if let Err(why) = fetch(name) {
            record.problem = Some(why);
            break;
        }
        record.segments += 1;
        along.insert(segment.number, segment.timeline);
    }
    Ok(Some(Brought { record, along }))
}

/// What a survey of all WAL says of it.
pub(super) fn surveyed(brought: &mut Brought, survey: &Survey) {
    let record = &mut brought.record;
    record.replayed_to = Some(survey.end);
    record.newest_commit = survey.newest_commit;
    let last = brought.along.keys().next_back();
    // In the last one it ends somewhere, and there may be the beginning of a record behind that.
    let before_the_last = survey.ended_in.is_some_and(|segment| last.is_some_and(|last| segment < *last));
    if record.problem.is_none() && before_the_last {
        let why = survey.ended.as_deref().unwrap_or("it makes no sense");
        record.problem = Some(format!(
            "WAL is stored up to {}, and can be read up to {} only: {why}; hint: `oxpecker wal verify`",
            record.stored_to, survey.end
        ));
    }
}

/// Whether the server replayed all of it; else the receipt says how far it came.
pub(super) fn replayed(record: &mut WalRecord, survey: &Survey, redo_done: Option<Lsn>) {
    match (redo_done, survey.last_record) {
        (Some(done), Some(last)) if done < last => {
            record.problem.get_or_insert_with(|| {
                format!("replay ended with the record at {done}, and the last that could be read is at {last}")
            });
            (record.replayed_to, record.newest_commit) = (Some(done), None);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> WalRecord {
        WalRecord {
            timeline: 1,
            looked_at: "2026-11-23T10:00:05Z".parse().unwrap(),
            stored_to: Lsn(500),
            segments: 2,
            replayed_to: None,
            newest_commit: None,
            problem: None,
        }
    }

    #[test]
    fn the_age_is_that_of_the_newest_commit_and_never_negative() {
        let mut record = record();
        assert_eq!(record.age(), None);
        for (commit, seconds) in [("2026-11-23T10:00:02Z", 3), ("2026-11-23T10:00:09Z", 0)] {
            record.newest_commit = Some(commit.parse().unwrap());
            assert_eq!(record.age(), Some(SignedDuration::from_secs(seconds)), "{commit}");
        }
    }

    #[test]
    fn wal_that_breaks_off_before_its_last_segment_is_a_problem() {
        for (ended_in, problem) in [(Some(7), true), (Some(8), false), (None, false)] {
            let mut brought = Brought { record: record(), along: BTreeMap::from([(7, 1), (8, 1)]) };
            let survey = Survey { end: Lsn(400), ended_in, ended: Some("torn".into()), ..Survey::default() };
            surveyed(&mut brought, &survey);
            assert_eq!(brought.record.problem.is_some(), problem, "{ended_in:?}");
            assert_eq!(brought.record.replayed_to, Some(Lsn(400)));
        }
    }

    #[test]
    fn a_replay_that_stops_early_is_a_problem() {
        let survey = Survey { last_record: Some(Lsn(390)), ..Survey::default() };
        for (done, problem) in [(Some(Lsn(380)), true), (Some(Lsn(390)), false), (None, false)] {
            let mut record = record();
            replayed(&mut record, &survey, done);
            assert_eq!(record.problem.is_some(), problem, "{done:?}");
        }
    }
}
