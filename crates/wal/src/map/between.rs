//! What changed between two places of WAL: stored maps, joined, and what lacks of them made of the WAL.

use model::Lsn;
use page_map::{Limits, PageMap};
use repository::wal::{RANGE, Wal};

use super::{Making, MapError, Step, Way, fault, read, start_of};
use crate::Cluster;

/// What changed, and of what that was found out.
#[derive(Clone, Debug)]
pub struct Between {
    /// The map: of all that was asked for, and a little more at either end.
    pub map: PageMap,
    /// Maps that were stored.
    pub stored: u64,
    /// Maps that had to be made, of a range's WAL each.
    pub made: u64,
}

/// What the WAL of `line` and its ancestors changed from `from` on, where a record begins (the redo position of a checkpoint), up to `to`. For
/// ranges whose maps lack, and for the one that is not complete, the WAL itself is read.
///
/// # Errors
/// `Short` where the WAL that is there begins later or ends before; `NotNext` where it is not all of one history; the store failed.
pub fn between(
    wal: &Wal,
    cluster: &Cluster,
    line: u32,
    from: Lsn,
    to: Lsn,
    limits: Limits,
) -> Result<Between, MapError> {
    let way = Way::load(wal, cluster.segment, line)?;
    let range_bytes = RANGE.saturating_mul(cluster.segment.bytes()).max(1);
    let (first, last) = (from.0 / range_bytes, to.0.saturating_sub(1).max(from.0) / range_bytes);
    let short = |have: Lsn| MapError::Short { timeline: line, from, to, have };
    let mut joined: Option<Between> = None;
    for range in first..=last {
        let fits = |map: &PageMap| match &joined {
            Some(before) => before.map.end() == map.start(),
            None => map.start() <= from,
        };
        let found = stored(wal, cluster, &way, range)?.filter(|map| fits(map) && map.full_read().is_empty());
        let is_stored = found.is_some();
        let map = match found {
            Some(map) => map,
            None => made(wal, cluster, &way, range)?.ok_or_else(|| short(start_of(cluster, range)))?,
        };
        if !fits(&map) {
            return Err(short(map.start()));
        }
        let (stored, made) = (u64::from(is_stored), u64::from(!is_stored));
        match &mut joined {
            Some(before) => {
                before.map.append(&map, limits)?;
                before.stored += stored;
                before.made += made;
            }
            None => joined = Some(Between { map, stored, made }),
        }
        // Records that reach over ranges leave the next ones nothing.
        if joined.as_ref().is_some_and(|joined| joined.map.end() >= to) {
            break;
        }
    }
    match joined {
        Some(joined) if joined.map.end() >= to => Ok(joined),
        Some(joined) => Err(short(joined.map.end())),
        None => Err(short(from)),
    }
}

/// The stored map of a range on this way: that of the timeline on which it ends, or of one behind it, which begins there.
fn stored(wal: &Wal, cluster: &Cluster, way: &Way, range: u64) -> Result<Option<PageMap>, MapError> {
    for line in way.lines_from((range + 1).saturating_mul(RANGE) - 1) {
        if let Some(map) = read(wal, line, range)?.filter(|map| fault(cluster, range, map).is_none()) {
            return Ok(Some(map));
        }
    }
    Ok(None)
}

fn made(wal: &Wal, cluster: &Cluster, way: &Way, range: u64) -> Result<Option<PageMap>, MapError> {
    let mut making = Making::new(*cluster, way.clone(), range);
    loop {
        match making.step(wal)? {
            Step::More => {}
            Step::Done(map) => return Ok(Some(map)),
            Step::Ends(map) => return Ok(map),
        }
    }
}
