//! Whether stored maps are what their names say and fit one another, and those that lack.

use std::collections::BTreeMap;

use model::Lsn;
use page_map::{NotNext, PageMap};
use pg_format::wal::SegmentSize;
use repository::wal::{LineSeen, Run, Wal};

use super::{Kept, MapError, VERSION, fault, keep, make, missing, start_of};
use crate::Cluster;

/// Looks at maps, each line's in order.
#[derive(Debug)]
pub struct Maps {
    /// `None` where the stream's name is no system's.
    cluster: Option<Cluster>,
    /// By timeline and range, from where to where.
    seen: BTreeMap<(u32, u64), (Lsn, Lsn)>,
    before: Option<(u32, u64, PageMap)>,
}

impl Maps {
    /// For the stream of this name.
    #[must_use]
    pub fn new(stream: &str, segment: SegmentSize) -> Self {
        let system = stream.parse().ok();
        let cluster = system.map(|system_identifier| Cluster { system_identifier, segment });
        Self { cluster, seen: BTreeMap::new(), before: None }
    }

    /// Looks at one. Forms that a newer program writes are passed over.
    ///
    /// # Errors
    /// In words, why it is not the map of that range.
    pub fn look(&mut self, line: u32, range: u64, version: u32, bytes: &[u8]) -> Result<(), String> {
        let Some(cluster) = self.cluster.filter(|_| version == VERSION) else { return Ok(()) };
        let map = PageMap::decode(bytes).map_err(|error| error.to_string())?;
        if let Some(fault) = fault(&cluster, range, &map) {
            return Err(fault);
        }
        let before = self.before.take().filter(|(of, number, _)| *of == line && number + 1 == range);
        if let Some((_, _, before)) = before {
            // Behind a gap it begins later.
            match before.joins(&map) {
                Ok(()) => {}
                Err(NotNext::Gap { end, start }) if end < start => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.seen.insert((line, range), (map.start(), map.end()));
        self.before = Some((line, range, map));
        Ok(())
    }

    /// From where to where there are maps of a timeline, those joined that touch.
    #[must_use]
    pub fn of(&self, line: u32) -> Vec<(Lsn, Lsn)> {
        joined(self.seen.range((line, 0)..=(line, u64::MAX)).map(|(_, span)| *span))
    }
}

/// Spans in order, those joined that touch.
fn joined(spans: impl Iterator<Item = (Lsn, Lsn)>) -> Vec<(Lsn, Lsn)> {
    let mut joined: Vec<(Lsn, Lsn)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// Of which WAL of a timeline there are maps, as far as a listing tells: by ranges, and not before its first segment.
#[must_use]
pub fn listed(cluster: &Cluster, seen: &LineSeen) -> Vec<(Lsn, Lsn)> {
    let first = cluster.segment.start_of(seen.first);
    joined(seen.maps(VERSION).map(|range| (start_of(cluster, range).max(first), start_of(cluster, range + 1))))
}

/// A map that was missing.
#[derive(Debug)]
pub struct Made {
    /// Its range, from its first byte.
    pub from: Lsn,
    /// To behind its last one.
    pub to: Lsn,
    /// Whether it is there now.
    pub result: Result<Kept, MapError>,
}

/// The ranges of a timeline whose maps could be made: see [`missing`].
#[must_use]
pub fn lacking(cluster: &Cluster, seen: &LineSeen, runs: &[Run], floor: u64) -> Vec<(u64, Lsn, Lsn)> {
    let there: Vec<u64> = seen.maps(VERSION).collect();
    let ranges = missing(runs, &there, floor).into_iter();
    ranges.map(|range| (range, start_of(cluster, range), start_of(cluster, range + 1))).collect()
}

/// Makes the maps of a timeline that lack, of the WAL that is stored. Reads all of their ranges.
pub fn fill(
    wal: &Wal,
    cluster: &Cluster,
    seen: &LineSeen,
    runs: &[Run],
    mut tell: impl FnMut(usize, usize),
) -> Vec<Made> {
    let lacking = lacking(cluster, seen, runs, wal.floor(seen.line));
    let (count, line) = (lacking.len(), seen.line);
    let make = |(at, (range, from, to))| {
        tell(at, count);
        Made { from, to, result: make(wal, cluster, line, range).and_then(|map| keep(wal, line, range, &map)) }
    };
    lacking.into_iter().enumerate().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_are_one() {
        let lsn = |spans: &[(u64, u64)]| spans.iter().map(|(a, b)| (Lsn(*a), Lsn(*b))).collect::<Vec<_>>();
        for (spans, expected) in
            [(&[][..], &[][..]), (&[(1, 5)], &[(1, 5)]), (&[(1, 5), (5, 9), (9, 9), (12, 20)], &[(1, 9), (12, 20)])]
        {
            assert_eq!(joined(lsn(spans).into_iter()), lsn(expected));
        }
    }
}
