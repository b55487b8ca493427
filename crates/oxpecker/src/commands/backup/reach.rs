//! How far backups can be taken with the WAL that is stored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pg_format::wal::SegmentSize;
use repository::{BackupRecord, Repository};
use wal::recover::{Reachable, Stock, reachable};

use super::words;
use crate::{commands::moment, exit::Failure};

/// How far each backup can be taken, and what could not be found out.
#[derive(Default)]
pub struct Reach {
    by_id: BTreeMap<String, Reachable>,
    /// Systems whose WAL could not be read, in words.
    pub unknown: Vec<String>,
}

impl Reach {
    /// Looks at the ends of the WAL of each system that `backups` are of. A system whose WAL can't be read hides no backup.
    pub fn of(repository: &Repository, backups: &[BackupRecord]) -> Self {
        let bases = moment::bases(backups);
        let systems: BTreeSet<(u64, u32)> = bases.iter().map(|(system, size, _)| (*system, *size)).collect();
        let mut all = Self::default();
        for (system, size) in systems {
            let of_system = bases.iter().filter(|(of, with, _)| (*of, *with) == (system, size));
            let of_system: Vec<_> = of_system.map(|(.., base)| base.clone()).collect();
            let look = || -> Result<Vec<Option<Reachable>>, Failure> {
                let Some(wal) = repository.find_wal(&system.to_string())? else { return Ok(Vec::new()) };
                let stock = Stock::look(&wal, SegmentSize::new(u64::from(size))?)?;
                Ok(reachable(&wal, &stock, system, &of_system)?)
            };
            match look() {
                Ok(found) => {
                    let found = of_system.into_iter().zip(found);
                    all.by_id.extend(found.filter_map(|(base, reach)| Some((base.id, reach?))));
                }
                Err(failure) => all.unknown.push(format!("WAL of system {system}: {}", failure.error)),
            }
        }
        all
    }

    /// How far this backup can be taken; none: to its own moment only, as far as is known.
    pub fn get(&self, backup: &BackupRecord) -> Option<&Reachable> {
        self.by_id.get(&backup.id.to_string())
    }

    /// The end of the range that begins with the backup's own moment, `from`.
    pub fn until(&self, backup: &BackupRecord, from: Timestamp) -> String {
        let Some(reach) = self.get(backup) else { return "-".to_owned() };
        match reach.newest.filter(|newest| *newest > from) {
            Some(newest) => words::moment(newest),
            // Nothing was committed since; the position says that there is more.
            None => reach.to.to_string(),
        }
    }

    /// As JSON: null where a backup restores to its own moment only.
    pub fn json(&self, backup: &BackupRecord) -> serde_json::Value {
        self.get(backup).map_or(serde_json::Value::Null, |reach| {
            serde_json::json!({ "timeline": reach.timeline, "to_lsn": reach.to, "newest_commit": reach.newest })
        })
    }
}
