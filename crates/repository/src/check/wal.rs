//! The check of WAL, as far as backups lead on by it: is it there without a gap? And of damage: which backups lose their way to later moments?

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Check, Fault};
use crate::{
    id::BackupId,
    log::{State, WalStart},
    wal::{self, Reach, WalError},
};

/// How far a backup can be replayed on its own line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalWindow {
    /// The backup.
    pub backup: BackupId,
    /// Where its WAL begins.
    pub start: WalStart,
    /// All before this segment is there.
    pub segment: u64,
    /// So many bytes of that one are there, too.
    pub bytes: u64,
    /// A later segment that is there all the same: what lies between is a gap.
    pub beyond: Option<u64>,
}

impl WalWindow {
    /// No WAL leads on from the backup: nobody receives any, or none was written since.
    pub fn is_empty(&self) -> bool {
        self.segment == self.start.segment && self.bytes == 0
    }
}

impl Check<'_> {
    /// How far each backup can be replayed on its line. Names and indexes are looked at, contents only by the deep check and by
    /// [`crate::wal::Wal::verify`].
    pub(super) fn wal_windows(&mut self, state: &State) {
        let mut starts: Vec<(WalStart, BackupId)> =
            state.backups().iter().filter_map(|(&id, backup)| Some((backup.leads_on()?.clone(), id))).collect();
        starts.sort_by(|(a, _), (b, _)| (&a.stream, a.line, a.segment).cmp(&(&b.stream, b.line, b.segment)));
        let mut gaps: BTreeMap<(String, u32, u64), (u64, Vec<BackupId>)> = BTreeMap::new();
        let mut last: Option<(WalStart, Reach)> = None;
        for (start, backup) in starts {
            // What an earlier backup can be replayed through needs no second look.
            let known = last.as_ref().filter(|(before, reach)| {
                (&before.stream, before.line, before.segment_bytes) == (&start.stream, start.line, start.segment_bytes)
                    && start.segment <= reach.segment
            });
            let reach = match known {
                Some((_, reach)) => *reach,
                None => match self.reach(&start) {
                    Ok(reach) => reach,
                    Err(error) => {
                        let fault = if error.is_passing() { Fault::Unreadable } else { Fault::Damaged };
                        let object = match &error {
                            WalError::Damaged { object, .. } | WalError::Epoch { object, .. } => object.clone(),
                            _ => format!("WAL behind backup {backup}"),
                        };
                        self.find(fault, object, &error.to_string(), vec![backup]);
                        continue;
                    }
                },
            };
            let Reach { segment, bytes, beyond } = reach;
            if let Some(beyond) = beyond {
                let gap = (start.stream.clone(), start.line, segment);
                gaps.entry(gap).or_insert_with(|| (beyond, Vec::new())).1.push(backup);
            }
            self.report.wal_windows.push(WalWindow { backup, start: start.clone(), segment, bytes, beyond });
            last = Some((start, reach));
        }
        for ((stream, line, segment), (beyond, backups)) in gaps {
            let ring = self.repository.inner.vault.keys.ring();
            let object = wal::segment_object(&ring, stream.as_bytes(), line, segment);
            let what = format!("a gap: it lacks, or a part of it, and segment {beyond:#x} is there");
            self.find(Fault::Missing, object.to_string(), &what, backups);
        }
    }

    fn reach(&self, start: &WalStart) -> Result<Reach, WalError> {
        self.repository.wal(start.stream.as_bytes(), start.segment_bytes)?.reach(start.line, start.segment)
    }

    /// The backups that can't be replayed beyond the object of WAL `object`.
    pub(super) fn cut_by(&self, object: &str, state: &State) -> Vec<BackupId> {
        let Some((line, segment)) = wal::place_of(object) else { return Vec::new() };
        let ring = self.repository.inner.vault.keys.ring();
        let leads_through = |start: &WalStart| {
            start.line <= line
                && start.segment <= segment
                && object.starts_with(&wal::stream_prefix(&ring, start.stream.as_bytes()))
        };
        let through = state.backups().iter().filter(|(_, backup)| backup.leads_on().is_some_and(leads_through));
        through.map(|(&id, _)| id).collect()
    }
}
