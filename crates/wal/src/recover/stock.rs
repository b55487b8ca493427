//! What WAL the repository has of a cluster, by a listing and a look at each timeline's end.

use std::collections::BTreeMap;

use model::Lsn;
use pg_format::wal::{SegmentSize, TimelineHistory};
use repository::wal::{Run, Wal, WalError};

use super::road::Runs;
use crate::inspect::{self, place};

/// What is there.
#[derive(Clone, Debug)]
pub struct Stock {
    /// The size of segments.
    pub size: SegmentSize,
    /// Runs without a gap, by timeline, in order.
    pub(super) runs: Runs,
    /// Histories that can be read, by timeline.
    pub histories: BTreeMap<u32, TimelineHistory>,
}

impl Stock {
    /// Looks.
    ///
    /// # Errors
    /// The store failed, or a history is damaged.
    pub fn look(wal: &Wal, size: SegmentSize) -> Result<Self, WalError> {
        let (mut runs, mut histories) = (Runs::new(), BTreeMap::new());
        for seen in wal.lines()? {
            runs.insert(seen.line, inspect::runs(wal, &seen)?);
            // One that can't be understood leads nowhere: its timeline can't be chosen.
            let history = if seen.history { wal.get_history(seen.line)? } else { None };
            let text = history.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
            if let Some(Ok(history)) = text.map(TimelineHistory::parse) {
                histories.insert(seen.line, history);
            }
        }
        Ok(Self { size, runs, histories })
    }

    /// The newest timeline that has WAL, and of which nobody can tell where it came from.
    pub(super) fn without_history(&self) -> Option<u32> {
        let has_wal = self.runs.iter().rev().filter(|(_, runs)| !runs.is_empty()).map(|(timeline, _)| *timeline);
        has_wal.filter(|timeline| *timeline > 1).find(|timeline| !self.histories.contains_key(timeline))
    }

    /// Up to where WAL of `timeline` is there without a gap from `from` on; `from` where nothing is.
    pub(super) fn reach(&self, timeline: u32, from: Lsn) -> Lsn {
        let segment = self.size.number_of(from);
        let has = |run: &&Run| run.first <= segment && (segment < run.end || segment == run.end && run.tail_bytes > 0);
        let run = self.runs.get(&timeline).and_then(|runs| runs.iter().find(has));
        run.map_or(from, |run| place(self.size.bytes(), run.end, run.tail_bytes)).max(from)
    }
}
