//! Page maps in the repository: which blocks the WAL of a range changed.
//!
//! A range is 64 segments ([`RANGE`]), and its map has the records that begin in it: see `page_map::RangeMapper`. Whoever makes it makes the
//! same, so that a receiver, an archive command and a later check may all do it, and it is stored once.
//!
//! - *Whole, or not there.* A map says from where to where it is whole: normally from the beginning of its range, to that of the next. Where the
//!   WAL begins within a range, or goes on behind a gap, its map begins there. A map that can't say what changed (damage, an unknown kind of
//!   record) is not stored.
//! - *Along the history.* The map of a range of a timeline has what its ancestors' WAL changed up to the switch, as a replay reads it. So a reader asks for one
//!   map for each range, that of the timeline on which the range ends.
//! - *Made afterwards* at any time, from the segments ([`make`]): after a receiver was restarted in the midst of a range, or could not keep up.

mod between;
mod error;
mod inspect;
mod live;
mod make;
mod way;

use model::Lsn;
use page_map::{Limits, PageMap};
use pg_format::{
    Major,
    wal::{LongPageHeader, PageHeader, Stream},
};
pub use repository::wal::RANGE;
use repository::wal::{Run, Stored, Wal, WalError};

pub(crate) use self::live::Live;
pub use self::{
    between::{Between, between},
    error::MapError,
    inspect::{Made, Maps, fill, lacking, listed},
    make::{Making, Step, make},
    way::Way,
};
use crate::Cluster;

/// The version of the form of maps that are stored and read.
pub const VERSION: u32 = page_map::VERSION as u32;
/// What a map may take in memory while it is made. The same for whoever makes one, or two would differ.
pub const LIMITS: Limits = Limits { memory_bytes: 32 << 20 };

/// The first byte of a range.
#[must_use]
pub const fn start_of(cluster: &Cluster, range: u64) -> Lsn {
    cluster.segment.start_of(range.saturating_mul(RANGE))
}

/// How to read WAL whose segment begins with these bytes.
pub(crate) fn stream_of(cluster: &Cluster, bytes: &[u8]) -> Option<Stream> {
    let (page, long) = (PageHeader::parse(bytes)?, LongPageHeader::parse(bytes)?);
    Some(Stream {
        major: Major::from_wal_magic(page.magic)?,
        segment_size: cluster.segment,
        block_size: long.block_size,
        system_identifier: Some(cluster.system_identifier),
    })
}

/// What became of a map that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is there, now or already.
    There(Stored),
    /// One is there that begins elsewhere: whoever made it knew more or less of the WAL. Both are right, and the first stays.
    Other {
        /// From where on that is whole.
        start: Lsn,
    },
}

/// Stores the map of a range.
///
/// # Errors
/// It is of no use; the one that is there says something else of the same WAL; the store failed.
pub fn keep(wal: &Wal, line: u32, range: u64, map: &PageMap) -> Result<Kept, MapError> {
    if let Some(why) = map.full_read().first() {
        return Err(MapError::Unusable { timeline: line, range, why: why.clone() });
    }
    match wal.put_map(line, range, VERSION, &map.encode()) {
        Ok(stored) => return Ok(Kept::There(stored)),
        Err(WalError::Differs { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let there = read(wal, line, range)?.ok_or(MapError::Lacks { timeline: line, range })?;
    if there.start() == map.start() {
        return Err(MapError::Contradicts { timeline: line, range });
    }
    Ok(Kept::Other { start: there.start() })
}

/// The stored map of a range.
///
/// # Errors
/// It is damaged; the store failed.
pub fn read(wal: &Wal, line: u32, range: u64) -> Result<Option<PageMap>, MapError> {
    let Some(bytes) = wal.get_map(line, range, VERSION)? else { return Ok(None) };
    let map = PageMap::decode(&bytes).map_err(|source| MapError::Bad { timeline: line, range, source })?;
    Ok(Some(map))
}

/// The ranges whose maps lack and could be made, of a timeline with these runs: their last segment is there, and something behind it. `there`:
/// those that have one.
#[must_use]
pub(crate) fn missing(runs: &[Run], there: &[u64], floor: u64) -> Vec<u64> {
    let mut missing: Vec<u64> = Vec::new();
    for run in runs {
        let ranges = run.first / RANGE..=run.end / RANGE;
        let ends = ranges.filter(|range| {
            let next = (range + 1).saturating_mul(RANGE);
            next > floor && run.first < next && (run.end > next || run.end == next && run.tail_bytes > 0)
        });
        missing.extend(ends.filter(|range| there.binary_search(range).is_err()));
    }
    missing.dedup();
    missing
}

/// Why a stored map is none of its range; `None` where it is.
pub(crate) fn fault(cluster: &Cluster, range: u64, map: &PageMap) -> Option<String> {
    let (start, end) = (start_of(cluster, range), start_of(cluster, range + 1));
    if map.system_identifier() != Some(cluster.system_identifier) {
        return Some(format!("it is of system {:?}, not of {}", map.system_identifier(), cluster.system_identifier));
    }
    // A record that reaches over all of it leaves nothing that begins in it.
    let empty = map.records() == 0 && map.start() == map.end() && map.end() >= end;
    if !empty && (map.start() < start || map.start() >= end || map.end() < end) {
        return Some(format!("it is the map from {} to {}, and its range {start} to {end}", map.start(), map.end()));
    }
    map.full_read().first().map(|why| format!("it says nothing: {why}"))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
