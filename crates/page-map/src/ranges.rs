//! Maps of ranges of a fixed size: the same whoever makes them.
//!
//! The map of range r has the records that *begin* in it. It ends where the first record behind it begins, and begins where its own first
//! record does; a record that reaches over the end belongs to where it began. So it takes the bytes of the range and a few behind it, and none
//! before, and two that join do so to the byte ([`PageMap::append`]).

use std::{collections::VecDeque, mem};

use model::Lsn;
use pg_format::wal::{LongPageHeader, PageHeader, Stream, WalError};

use crate::{
    map::{Limits, PageMap},
    mapper::{Mapper, page_of},
    reason::{FullRead, Reason},
};

/// The map of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeMap {
    /// Its number: its first byte divided by the size of ranges.
    pub number: u64,
    /// The map. If it says that everything must be read, it is of no use to anybody.
    pub map: PageMap,
}

/// Makes the maps of ranges of WAL that it is fed.
#[derive(Debug)]
pub struct RangeMapper {
    mapper: Mapper,
    bytes: u64,
}

/// Where a mapper cuts.
#[derive(Debug)]
pub(crate) struct Cuts {
    bytes: u64,
    /// The range at hand.
    number: u64,
    /// No record was seen yet: the map at hand begins where the first one does.
    fresh: bool,
    /// Drained after each feed.
    finished: VecDeque<RangeMap>,
}

impl RangeMapper {
    /// For ranges of `range_bytes` bytes, a multiple of the segments' size. `from` is where its input begins, the start of a page: in the midst
    /// of a range its first map begins there, and says so.
    ///
    /// # Errors
    /// When `stream` is none, or `from` is no page's start.
    pub fn new(stream: Stream, range_bytes: u64, from: Lsn, limits: Limits) -> Result<Self, WalError> {
        let bytes = range_bytes.max(u64::from(stream.block_size));
        let mut mapper = Mapper::new(stream, from, limits)?;
        if mapper.position() != from {
            return Err(WalError::Range { start: from, stop: from });
        }
        mapper.cuts = Some(Cuts { bytes, number: from.0 / bytes, fresh: true, finished: VecDeque::new() });
        Ok(Self { mapper, bytes })
    }

    /// Where the next byte lies that is wanted.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.mapper.position()
    }

    /// Takes the bytes of WAL at `at`, and gives the maps that they complete: of a range once the first record behind it is whole.
    #[must_use]
    pub fn feed(&mut self, at: Lsn, bytes: &[u8]) -> Vec<RangeMap> {
        self.mapper.feed(at, bytes);
        self.mapper.cuts.as_mut().map_or_else(Vec::new, |cuts| mem::take(&mut cuts.finished).into())
    }

    /// The map of the range that is not complete, so far.
    #[must_use]
    pub fn unfinished(&mut self) -> RangeMap {
        let map = self.mapper.cut();
        RangeMap { number: map.start().0 / self.bytes, map }
    }

    /// Why the map at hand is of no use, if that is known already.
    #[must_use]
    pub fn full_read(&self) -> Option<&FullRead> {
        self.mapper.map().full_read().first()
    }
}

impl Cuts {
    /// Before a record that begins at `lsn` is added to `map`: finishes what ends before it.
    pub(crate) fn before(
        &mut self,
        lsn: Lsn,
        stream: &Stream,
        map: &mut PageMap,
        lost: Option<&(Lsn, Reason)>,
        minimal: bool,
    ) {
        let range = lsn.0 / self.bytes;
        if !self.fresh && range <= self.number {
            return;
        }
        let place = place_of(stream, lsn);
        if mem::replace(&mut self.fresh, false) {
            (map.start, map.end) = (place, place);
        }
        while self.number < range {
            let mut next = PageMap::new(stream, place);
            if let Some((at, reason)) = lost {
                next.force(*at, reason.clone());
            }
            if minimal {
                next.force(place, Reason::WalLevelMinimal);
            }
            map.end = place;
            self.finished.push_back(RangeMap { number: self.number, map: mem::replace(map, next) });
            // What lacks may be long: nobody asks for a map of each range of it.
            self.number = if lost.is_some() { range } else { self.number + 1 };
        }
    }
}

/// Where the record before the one at `lsn` ended: at the page's start, if only its header is between.
fn place_of(stream: &Stream, lsn: Lsn) -> Lsn {
    let page = page_of(stream, lsn);
    let header = if stream.segment_size.offset_of(page) == 0 { LongPageHeader::LEN } else { PageHeader::LEN };
    if lsn.0 - page.0 == header as u64 { page } else { lsn }
}

#[cfg(test)]
mod tests;
