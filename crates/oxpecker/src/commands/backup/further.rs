//! WAL of the repository for a proof: what a restore to the newest moment would replay.

use std::path::Path;

use backup::proof::{Further, FurtherWal};
use jiff::Timestamp;
use pg_format::wal::SegmentSize;
use repository::{BackupRecord, Repository};
use wal::{
    get::{Answer, Request, decide::Recovery, get},
    recover::{Base, Stock, TimelineChoice, road},
};

use crate::commands::moment;

/// The WAL behind one backup.
pub struct Stored<'a> {
    repository: &'a Repository,
    system: u64,
    segment_bytes: u32,
    base: Base,
}

impl<'a> Stored<'a> {
    /// `None` where the backup's record does not say what is needed, or its WAL has expired.
    pub fn behind(repository: &'a Repository, backup: &BackupRecord) -> Option<Self> {
        let (system, segment_bytes, base) = moment::bases(std::slice::from_ref(backup)).pop()?;
        Some(Self { repository, system, segment_bytes, base })
    }

    fn plan(&self) -> anyhow::Result<Option<Further>> {
        let looked_at = Timestamp::now();
        let Some(wal) = self.repository.find_wal(&self.system.to_string())? else { return Ok(None) };
        let size = SegmentSize::new(u64::from(self.segment_bytes))?;
        let stock = Stock::look(&wal, size)?;
        let base = &self.base;
        // Not a plan, which reads WAL: what can't be read is to be found out by the proof.
        let road = match road(&stock, base.timeline, base.start, base.stop, TimelineChoice::Latest) {
            Ok(road) if road.end > base.stop => road,
            // The backup's own WAL is all that there is.
            Ok(_) | Err(_) => return Ok(None),
        };
        let own = size.number_of(base.stop);
        let segments = road.segments(size, road.end).into_iter().filter(|name| name.number >= own);
        let timeline = road.timeline;
        let histories = (timeline != self.base.timeline).then(|| format!("{timeline:08X}.history"));
        Ok(Some(Further {
            timeline,
            end: road.end,
            looked_at,
            histories: histories.into_iter().collect(),
            segments: segments.map(|name| name.file_name(size)).collect(),
        }))
    }
}

impl FurtherWal for Stored<'_> {
    fn look(&self) -> Result<Option<Further>, String> {
        self.plan().map_err(|error| format!("{error:#}"))
    }

    fn bring(&self, name: &str, target: &Path) -> Result<(), String> {
        let request = Request {
            name: name.to_owned(),
            target: target.to_owned(),
            data_dir: None,
            recovery: Recovery::Ends,
            ahead: 0,
            patience: None,
        };
        match get(&request, || Ok::<_, std::convert::Infallible>(self.repository.clone())) {
            Ok(Answer::There) => Ok(()),
            Ok(Answer::Absent) => Err("it is not in the repository any more".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
