//! Maps of segments as they come. What can't be made of these is named, to be made of what is stored. No I/O but what it is handed.

use std::{collections::BTreeSet, mem};

use page_map::{RangeMap, RangeMapper};
use repository::wal::RANGE;

use super::{MapError, make::begin};
use crate::Cluster;

/// Ranges that are remembered to be made later, while they are not over.
const WAITING_MAX: usize = 16;

/// Makes maps of segments that come one behind the other, of one timeline after another.
#[derive(Debug)]
pub(crate) struct Live {
    cluster: Cluster,
    at: Option<At>,
    /// Nothing came yet.
    fresh: bool,
    /// Ranges that were not seen from their beginning.
    waiting: BTreeSet<u64>,
}

#[derive(Debug)]
struct At {
    line: u32,
    /// The segment that goes on.
    next: u64,
    mapper: RangeMapper,
}

/// What a segment brought.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Finished maps, of the segment's timeline.
    pub(crate) maps: Vec<RangeMap>,
    /// Ranges that are over and were not seen as a whole: to be made of what is stored, along the segment's timeline.
    pub(crate) older: Vec<u64>,
    /// Why this segment is of no use.
    pub(crate) error: Option<MapError>,
}

impl Live {
    pub(crate) const fn new(cluster: Cluster) -> Self {
        Self { cluster, at: None, fresh: true, waiting: BTreeSet::new() }
    }

    /// Takes a whole segment. `line_of` tells of which timeline a segment is read on the way to this one; it is asked where the timeline changes.
    pub(crate) fn segment(
        &mut self,
        line: u32,
        number: u64,
        bytes: &[u8],
        line_of: impl FnOnce(u64) -> Result<u32, repository::wal::WalError>,
    ) -> Seen {
        let mut seen = Seen::default();
        let range = number / RANGE;
        if self.at.as_ref().is_some_and(|at| at.line == line && number < at.next) {
            // It came before.
            return seen;
        }
        let mut at = self.at.take();
        if let Some(before) = at.take_if(|at| {
            at.next != number || (at.line != line && !line_of(number.saturating_sub(1)).is_ok_and(|of| of == at.line))
        }) {
            // What lies between was not seen, or is of another history.
            (before.next.saturating_sub(1) / RANGE..range).for_each(|missed| self.wait(missed));
        }
        if mem::take(&mut self.fresh) && range > 0 {
            // An earlier life may have ended just before the map of it was made.
            self.wait(range - 1);
        }
        let begins = number.is_multiple_of(RANGE);
        if at.is_none() && !begins {
            self.wait(range);
        }
        let mut at = match at {
            Some(at) => Some(At { line, ..at }),
            None if begins => self.begin(line, number, bytes, &mut seen),
            None => None,
        };
        if let Some(at) = &mut at {
            at.next = number.saturating_add(1);
            seen.maps = at.mapper.feed(self.cluster.segment.start_of(number), bytes);
        }
        // What spoilt the range before must not spoil this one.
        if begins && at.as_ref().is_some_and(|at| at.mapper.full_read().is_some()) {
            at = self.begin(line, number, bytes, &mut seen);
            if let Some(at) = &mut at {
                at.next = number.saturating_add(1);
                drop(at.mapper.feed(self.cluster.segment.start_of(number), bytes));
            }
        }
        self.at = at;
        let over = self.waiting.split_off(&range);
        seen.older = mem::replace(&mut self.waiting, over).into_iter().collect();
        seen
    }

    fn begin(&self, line: u32, number: u64, bytes: &[u8], seen: &mut Seen) -> Option<At> {
        match begin(&self.cluster, line, number, bytes) {
            Ok(mapper) => Some(At { line, next: number, mapper }),
            Err(error) => {
                seen.error = Some(error);
                None
            }
        }
    }

    fn wait(&mut self, range: u64) {
        self.waiting.insert(range);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_first();
        }
    }
}

#[cfg(test)]
mod tests;
