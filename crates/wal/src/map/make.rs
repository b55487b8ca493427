//! Makes the map of a range of the segments that are stored.

use model::Lsn;
use page_map::{PageMap, RangeMap, RangeMapper};
use repository::wal::{RANGE, Segment, Wal, WalError};

use super::{LIMITS, MapError, Way, stream_of};
use crate::Cluster;

/// The map of a range on its way, segment by segment, so that whoever has something better to do can do that in between.
#[derive(Debug)]
pub struct Making {
    cluster: Cluster,
    way: Way,
    range: u64,
    /// The segment that is read next.
    next: u64,
    /// `None` until the first segment is found from which on all are there.
    mapper: Option<RangeMapper>,
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    /// There is more to read.
    More,
    /// Here it is. It may say that everything must be read.
    Done(PageMap),
    /// The WAL ends before the map does. So far it says this; `None` where there is nothing at all.
    Ends(Option<PageMap>),
}

impl Making {
    /// Of `range`, along `way`.
    #[must_use]
    pub const fn new(cluster: Cluster, way: Way, range: u64) -> Self {
        Self { cluster, way, range, next: range.saturating_mul(RANGE), mapper: None }
    }

    /// Reads a segment, or finds that it is not there.
    ///
    /// # Errors
    /// The store failed; what is there is damaged.
    pub fn step(&mut self, wal: &Wal) -> Result<Step, MapError> {
        let (segment, line) = (self.next, self.way.line_of(self.next));
        let behind = segment >= (self.range + 1).saturating_mul(RANGE);
        if self.mapper.is_none() && (behind || !wal.has_segment(line, segment)?) {
            self.next += 1;
            return Ok(if behind { Step::Ends(None) } else { Step::More });
        }
        let (bytes, whole) = match wal.get_segment(line, segment) {
            Ok(Segment::Whole(bytes)) => (bytes, true),
            Ok(Segment::Beginning(bytes)) => (bytes, false),
            Ok(Segment::Absent) => (Vec::new(), false),
            Err(WalError::Gap { .. }) if behind => (Vec::new(), false),
            // The map begins behind it.
            Err(WalError::Gap { .. }) => {
                (self.mapper, self.next) = (None, segment + 1);
                return Ok(Step::More);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(map) = self.feed(segment, &bytes)? {
            return Ok(Step::Done(map));
        }
        self.next += 1;
        if whole { Ok(Step::More) } else { Ok(Step::Ends(self.so_far())) }
    }

    fn feed(&mut self, segment: u64, bytes: &[u8]) -> Result<Option<PageMap>, MapError> {
        let start = self.cluster.segment.start_of(segment);
        let mapper = match &mut self.mapper {
            Some(mapper) => mapper,
            None => self.mapper.insert(begin(&self.cluster, self.way.line_of(segment), segment, bytes)?),
        };
        let finished = mapper.feed(start, bytes);
        Ok(finished.into_iter().find(|found| found.number == self.range).map(|RangeMap { map, .. }| map))
    }

    fn so_far(&mut self) -> Option<PageMap> {
        self.mapper.as_mut().map(|mapper| mapper.unfinished().map)
    }
}

/// A mapper that begins with this segment.
pub(crate) fn begin(cluster: &Cluster, timeline: u32, segment: u64, bytes: &[u8]) -> Result<RangeMapper, MapError> {
    let start: Lsn = cluster.segment.start_of(segment);
    let none = MapError::NoWal { timeline, segment };
    let Some(stream) = stream_of(cluster, bytes) else { return Err(none) };
    RangeMapper::new(stream, RANGE.saturating_mul(cluster.segment.bytes()), start, LIMITS).map_err(|_| none)
}

/// Makes the map of `range` of a timeline, of what is stored.
///
/// # Errors
/// `Lacks` where the WAL of the range is not all there; the store failed; what is there is damaged.
pub fn make(wal: &Wal, cluster: &Cluster, line: u32, range: u64) -> Result<PageMap, MapError> {
    let way = Way::load(wal, cluster.segment, line)?;
    let mut making = Making::new(*cluster, way, range);
    loop {
        match making.step(wal)? {
            Step::More => {}
            Step::Done(map) => return Ok(map),
            Step::Ends(_) => return Err(MapError::Lacks { timeline: line, range }),
        }
    }
}
