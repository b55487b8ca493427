//! The segment that grows: a row of chunks.
//!
//! Chunk number m (from 1; its name says m - 1) covers the last 8^j numbers up to its own, j being how often 8 divides m: most cover what is
//! new since the one before, each eighth what the seven before it do as well, and so on. So the newest chunk, the one before what it
//! covers, and on like this is the whole tail, in at most seven steps for each digit of m to the base 8.
//!
//! Chunks are removed only when their segment is whole, the last one first: at every moment those that are there begin at the first.

use super::{Outcome, Segment, Stored, Wal, WalError, name::Named, object::Summary};
use crate::seal::Epoch;

/// The most chunks of a segment.
const CHUNKS_MAX: u32 = 1 << 20;
/// How many numbers a chunk of the next level covers.
const FAN: u32 = 8;

/// How many numbers up to its own chunk `m` covers.
fn span(m: u32) -> u32 {
    let mut span = 1;
    while m.is_multiple_of(span * FAN) {
        span *= FAN;
    }
    span
}

/// The growing segment of a line, for whoever receives it.
#[derive(Debug)]
pub struct Tail<'a> {
    wal: &'a Wal,
    line: u32,
    segment: u64,
    /// Chunks that make the tail up: number and end, each beginning where the one before ends.
    chunks: Vec<(u32, u64)>,
    /// What is stored and was not compared with what is received yet: from where, and which bytes.
    there: Option<(u64, Vec<u8>)>,
}

impl Wal {
    /// Goes on with the growing segment `segment`, or begins it. Reads what is stored of it.
    ///
    /// # Errors
    /// What is stored is damaged; the store failed.
    pub fn tail(&self, line: u32, segment: u64) -> Result<Tail<'_>, WalError> {
        for _ in 0..super::LOOKS_MAX {
            if let Some(whole) = self.whole(line, segment)? {
                return Ok(Tail { wal: self, line, segment, chunks: Vec::new(), there: Some((0, whole)) });
            }
            if let Some((chunks, bytes)) = self.chunks(line, segment)? {
                if let Some((newest, _)) = chunks.last() {
                    // Its writer may have died before it was durable.
                    self.inner.vault.store.settle(&self.names.of(&Named::Chunk { line, segment, n: newest - 1 }))?;
                }
                let there = (!bytes.is_empty()).then_some((0, bytes));
                return Ok(Tail { wal: self, line, segment, chunks, there });
            }
        }
        Err(WalError::Busy {
            object: self.names.of(&Named::Segment { line, segment }).to_string(),
            looks: super::LOOKS_MAX,
        })
    }

    /// The beginning of a segment from its chunks; empty where there are none; `None` where they vanish meanwhile.
    pub(super) fn beginning(&self, line: u32, segment: u64) -> Result<Option<Vec<u8>>, WalError> {
        Ok(self.chunks(line, segment)?.map(|(_, bytes)| bytes))
    }

    /// How many chunks there are.
    fn count_chunks(&self, line: u32, segment: u64) -> Result<u32, WalError> {
        let is_there = |m: u32| self.is_there(&Named::Chunk { line, segment, n: m - 1 });
        let (mut there, mut step) = (0, 1);
        while there + step <= CHUNKS_MAX && is_there(there + step)? {
            there += step;
            step *= 2;
        }
        let mut missing = there + step;
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            if is_there(middle)? { there = middle } else { missing = middle }
        }
        Ok(there)
    }

    /// The chunks that make the tail up, and its bytes.
    #[expect(clippy::type_complexity, reason = "a pair that only this file knows")]
    fn chunks(&self, line: u32, segment: u64) -> Result<Option<(Vec<(u32, u64)>, Vec<u8>)>, WalError> {
        let mut m = self.count_chunks(line, segment)?;
        let (mut chunks, mut pieces) = (Vec::new(), Vec::new());
        let mut begins: Option<u64> = None;
        let mut least: Option<Epoch> = None;
        while m > 0 {
            let named = Named::Chunk { line, segment, n: m - 1 };
            let Some((summary, bytes)) = self.get(&named)? else { return Ok(None) };
            // Chunks are put one behind the other, so that their keys only become newer.
            if let Some(later) = least.filter(|later| summary.epoch > *later) {
                return Err(self.out_of_order(&named, later, summary.epoch));
            }
            if least.is_none_or(|least| least != summary.epoch) {
                self.in_order(&named, &summary)?;
            }
            least = Some(summary.epoch);
            if begins.is_some_and(|begins| summary.end() != begins) || summary.end() > self.segment_bytes {
                let what = "it does not end where the next one begins".to_owned();
                return Err(WalError::Damaged { object: self.names.of(&named).to_string(), what });
            }
            begins = Some(summary.start);
            chunks.push((m, summary.end()));
            pieces.push(bytes);
            m -= span(m);
        }
        if begins.is_some_and(|begins| begins != 0) {
            let what = "its first chunk does not begin at its beginning".to_owned();
            return Err(WalError::Damaged {
                object: self.names.of(&Named::Chunk { line, segment, n: 0 }).to_string(),
                what,
            });
        }
        chunks.reverse();
        let mut bytes = Vec::with_capacity(pieces.iter().map(Vec::len).sum());
        pieces.iter().rev().for_each(|piece| bytes.extend_from_slice(piece));
        Ok(Some((chunks, bytes)))
    }

    /// Removes the chunks of a segment that is there as a whole, the last one first.
    pub(super) fn remove_chunks(&self, line: u32, segment: u64) -> Result<u32, WalError> {
        let count = self.count_chunks(line, segment)?;
        for n in (0..count).rev() {
            self.inner.vault.store.delete(&self.names.of(&Named::Chunk { line, segment, n }))?;
        }
        Ok(count)
    }
}

impl Tail<'_> {
    /// Makes `prefix`, the segment's bytes from its beginning to what was received, durable, and returns how much of it is. Nothing new,
    /// no request. May be called again after an error.
    ///
    /// # Errors
    /// `Diverged` where something else is stored, by an earlier life or by another receiver; the store failed.
    pub fn flush(&mut self, prefix: &[u8]) -> Result<u64, WalError> {
        let end = prefix.len() as u64;
        if end > self.wal.segment_bytes {
            return Err(WalError::Size { what: "more was received than a segment holds", bytes: end });
        }
        loop {
            if let Some((start, bytes)) = &self.there {
                let known = start + bytes.len() as u64;
                let common = end.min(known);
                if *start < common && prefix[at(*start)..at(common)] != bytes[..at(common - start)] {
                    return Err(WalError::Diverged { line: self.line, segment: self.segment, before: common });
                }
                if end <= known {
                    return Ok(end);
                }
                self.there = None;
            }
            let (count, durable) = self.chunks.last().copied().unwrap_or((0, 0));
            if end <= durable {
                return Ok(durable);
            }
            let m = count + 1;
            if m > CHUNKS_MAX {
                return Err(WalError::Size {
                    what: "a segment has too many chunks; flush less often",
                    bytes: u64::from(m),
                });
            }
            let below = m - span(m);
            let kept = self.chunks.partition_point(|(number, _)| *number <= below);
            let start = kept.checked_sub(1).map_or(0, |at| self.chunks[at].1);
            let named = Named::Chunk { line: self.line, segment: self.segment, n: count };
            match self.wal.try_put(&named, start, &prefix[at(start)..])? {
                Outcome::Stored(..) => {
                    self.chunks.truncate(kept);
                    self.chunks.push((m, end));
                    return Ok(end);
                }
                Outcome::Other => self.adopt(&named, m, kept, start)?,
            }
        }
    }

    /// Another receiver was quicker with this chunk: what it stored is to be compared, and counts as ours then.
    fn adopt(&mut self, named: &Named, m: u32, kept: usize, start: u64) -> Result<(), WalError> {
        let Some((summary, bytes)) = self.wal.get(named)? else {
            // It was removed: the segment is whole by now.
            if let Segment::Whole(whole) = self.wal.get_segment(self.line, self.segment)? {
                self.there = Some((0, whole));
            }
            return Ok(());
        };
        if summary.start != start {
            return Err(WalError::Diverged { line: self.line, segment: self.segment, before: summary.end() });
        }
        self.wal.inner.vault.store.settle(&self.wal.names.of(named))?;
        self.chunks.truncate(kept);
        self.chunks.push((m, summary.end()));
        self.there = Some((start, bytes));
        Ok(())
    }

    /// Stores the whole segment in the place of its chunks.
    ///
    /// # Errors
    /// As [`Wal::put_segment`]. That chunks could not be removed is none: the prune does it.
    pub fn finish(self, bytes: &[u8]) -> Result<Stored, WalError> {
        let stored = self.wal.put_segment(self.line, self.segment, bytes)?;
        if let Err(error) = self.wal.remove_chunks(self.line, self.segment) {
            tracing::warn!(%error, line = self.line, segment = self.segment, "chunks of a whole segment stay");
        }
        Ok(stored)
    }

    /// The chunks that make it up, for tests.
    #[cfg(test)]
    fn steps(&self) -> usize {
        self.chunks.len()
    }
}

/// An offset within a segment, which is in memory.
fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("segments are bounded by 128 MiB")
}

impl Summary {
    #[cfg(test)]
    fn covers(&self) -> std::ops::Range<u64> {
        self.start..self.end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{KdfCost, Options, Repository, Secret, store::MemoryStore};

    #[test]
    fn chunks_cover_what_their_number_says() {
        for (m, covers) in [(1, 1), (7, 1), (8, 8), (9, 1), (16, 8), (64, 64), (72, 8), (512, 512), (1 << 19, 1 << 18)]
        {
            assert_eq!(span(m), covers, "{m}");
        }
        // From any number down to nought in few steps.
        for start in (1..5000).chain([CHUNKS_MAX - 1, CHUNKS_MAX]) {
            let (mut m, mut steps) = (start, 0);
            while m > 0 {
                m -= span(m);
                steps += 1;
            }
            assert!(steps <= 7 * (start.ilog2() / 3 + 1), "{steps} for {start}");
        }
    }

    #[test]
    fn a_long_tail_is_read_in_few_steps() {
        let options = Options { cost: KdfCost::CHEAP, ..Options::default() };
        let secret = Secret::passphrase("correct horse battery").unwrap();
        let store = Arc::new(MemoryStore::new());
        let repository = Repository::create(store, &options, &secret, "test", serde_json::Value::Null).unwrap();
        let wal = repository.wal(b"1", 4096).unwrap();
        let bytes: Vec<u8> = (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect();
        let mut tail = wal.tail(1, 0).unwrap();
        for end in 1..700 {
            assert_eq!(tail.flush(&bytes[..end]).unwrap(), end as u64);
            assert!(tail.steps() <= 28);
        }
        assert_eq!(wal.get_segment(1, 0).unwrap(), Segment::Beginning(bytes[..699].to_vec()));
        // A new life goes on with the same row.
        assert_eq!(wal.tail(1, 0).unwrap().chunks, tail.chunks);
        let (summary, _) = wal.get(&Named::Chunk { line: 1, segment: 0, n: 511 }).unwrap().unwrap();
        assert_eq!(summary.covers(), 0..512);
    }
}
