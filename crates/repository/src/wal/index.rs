//! Indexes: which ranges of a line are whole, so that nobody has to look for a million segments, and no listing has to be believed.
//!
//! The index of a range is made when its segments were seen to be there, and after the index of the range before. It names the first
//! segment of the unbroken run that ends with its range. It never changes: what comes late is looked for one by one.

use super::{RANGE, Segment, Wal, WalError, lock, name::Named};
use crate::{
    frame::Identity,
    wire::{BadBytes, Bytes, Put, len_u32},
};

const MAGIC: [u8; 4] = *b"OXWI";
const VERSION: u32 = 1;
/// What stands for a segment that lacks: no content has this hash.
pub(super) const LACKS: Identity = Identity([0; 32]);

/// How far a line reaches from some segment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// All segments up to this one are whole, this one not included.
    pub segment: u64,
    /// So many bytes of that one are there, from its beginning.
    pub bytes: u64,
    /// A later segment that is there all the same: what lies between is a gap.
    pub beyond: Option<u64>,
}

/// What an index holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) range: u64,
    /// The first segment of the unbroken run that ends with the range.
    pub(super) origin: u64,
    /// One for each segment of the range.
    pub(super) identities: Vec<Identity>,
}

impl Index {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28 + self.identities.len() * 32);
        out.put(&MAGIC);
        out.put_u32(VERSION);
        out.put_u64(self.range);
        out.put_u64(self.origin);
        out.put_u32(len_u32(self.identities.len()));
        self.identities.iter().for_each(|identity| out.put(&identity.0));
        out
    }

    pub(super) fn parse(range: u64, content: &[u8]) -> Result<Self, BadBytes> {
        let mut bytes = Bytes::new(content);
        bytes.magic(&MAGIC, "it is no index of WAL")?;
        if bytes.u32()? != VERSION {
            return Err(BadBytes("it is an index of an unknown version"));
        }
        let (found, origin) = (bytes.u64()?, bytes.u64()?);
        let count = bytes.count(32)?;
        let identities = (0..count).map(|_| bytes.array().map(Identity)).collect::<Result<Vec<_>, _>>()?;
        bytes.end()?;
        if found != range || identities.len() as u64 != RANGE || origin > last_of(range) {
            return Err(BadBytes("it is the index of another range"));
        }
        Ok(Self { range, origin, identities })
    }
}

pub(super) fn first_of(range: u64) -> u64 {
    range * RANGE
}

pub(super) fn last_of(range: u64) -> u64 {
    range * RANGE + (RANGE - 1)
}

impl Wal {
    /// How far the line reaches from `from` on without a gap, and whether there is something behind the end. The requests grow with the
    /// logarithm of the length; at most 63 segments behind the newest index are looked for one by one.
    ///
    /// # Errors
    /// An index or a chunk is damaged; the store failed.
    pub fn reach(&self, line: u32, from: u64) -> Result<Reach, WalError> {
        let mut segment = from;
        // Up to here, the newest index says no more than that there was a gap.
        let mut stuck_until = 0;
        // The range that is known to be without an index, or with one that does not help.
        let mut looked = None;
        loop {
            let range = segment / RANGE;
            if looked != Some(range) {
                if segment >= stuck_until
                    && let Some(newest) = self.newest_index(line, range)?
                {
                    if newest.origin <= segment {
                        segment = last_of(newest.range) + 1;
                        continue;
                    }
                    stuck_until = newest.origin;
                }
                if self.index(line, range)?.is_some_and(|index| index.origin <= segment) {
                    segment = last_of(range) + 1;
                    continue;
                }
                looked = Some(range);
            }
            if self.is_there(&Named::Segment { line, segment })? {
                segment += 1;
                continue;
            }
            let (bytes, beyond) = match self.get_segment(line, segment) {
                // All of it, in chunks, or completed since.
                Ok(Segment::Whole(_)) => {
                    segment += 1;
                    continue;
                }
                Ok(Segment::Absent) => (0, None),
                Ok(Segment::Beginning(bytes)) => (bytes.len() as u64, None),
                Err(WalError::Gap { later, .. }) => {
                    (self.beginning(line, segment)?.map_or(0, |bytes| bytes.len() as u64), Some(later))
                }
                Err(error) => return Err(error),
            };
            return Ok(Reach { segment, bytes, beyond });
        }
    }

    /// The newest of the indexes that are there from `range` on, one behind the other.
    fn newest_index(&self, line: u32, range: u64) -> Result<Option<Index>, WalError> {
        let is_there = |range: u64| self.is_there(&Named::Index { line, range });
        if !is_there(range)? {
            return Ok(None);
        }
        let (mut there, mut step) = (range, 1);
        while is_there(there + step)? {
            there += step;
            step *= 2;
        }
        let mut missing = there + step;
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            if is_there(middle)? { there = middle } else { missing = middle }
        }
        self.index(line, there)
    }

    /// The index of a range; one that is out of the order of epochs is as good as none.
    pub(super) fn index(&self, line: u32, range: u64) -> Result<Option<Index>, WalError> {
        let named = Named::Index { line, range };
        let Some((summary, content)) = self.get(&named)? else { return Ok(None) };
        if let Err(error) = self.in_order(&named, &summary) {
            match error {
                WalError::Epoch { .. } => tracing::warn!(%error, "an index of WAL is not believed"),
                error => return Err(error),
            }
            return Ok(None);
        }
        let damaged =
            |BadBytes(what)| WalError::Damaged { object: self.names.of(&named).to_string(), what: what.to_owned() };
        Index::parse(range, &content).map(Some).map_err(damaged)
    }

    /// Makes the indexes that a new segment makes possible.
    pub(super) fn index_after(&self, line: u32, segment: u64) -> Result<(), WalError> {
        let range = segment / RANGE;
        let all_seen =
            || lock(&self.seen).range((line, first_of(range))..=(line, last_of(range))).count() as u64 == RANGE;
        if segment == last_of(range) || all_seen() {
            self.make_index(line, range, false)?;
        } else if segment == first_of(range)
            && let Some(before) = range.checked_sub(1)
        {
            // Whoever stored the last one may have died before the index.
            self.make_index(line, before, false)?;
        }
        Ok(())
    }

    /// Makes the index of a range, unless a segment lacks that may still come. `force`: also then, for the next range is whole.
    fn make_index(&self, line: u32, range: u64, force: bool) -> Result<(), WalError> {
        if self.is_there(&Named::Index { line, range })? {
            return Ok(());
        }
        let mut identities = Vec::new();
        for segment in first_of(range)..=last_of(range) {
            let seen = lock(&self.seen).get(&(line, segment)).copied();
            identities.push(match seen {
                Some((identity, _)) => identity,
                None => {
                    let named = Named::Segment { line, segment };
                    match self.summary(&self.names.of(&named))? {
                        Some(summary) => {
                            // What readers refuse must not be called right by an index.
                            self.in_order(&named, &summary)?;
                            summary.identity
                        }
                        None => LACKS,
                    }
                }
            });
        }
        if identities.last() == Some(&LACKS) {
            return Ok(());
        }
        let lacking = identities.iter().rposition(|identity| *identity == LACKS);
        let run = lacking.map_or(0, |at| at + 1);
        let continues = match first_of(range).checked_sub(1) {
            Some(before) => self.is_there(&Named::Segment { line, segment: before })?,
            None => false,
        };
        let begins_here = !continues && identities[..run].iter().all(|identity| *identity == LACKS);
        if lacking.is_some() && !begins_here && !force {
            return Ok(());
        }
        let origin = match range.checked_sub(1).filter(|_| continues) {
            Some(before) => {
                let found = match self.index(line, before)? {
                    Some(index) => Some(index),
                    None if force => None,
                    None => {
                        self.make_index(line, before, true)?;
                        self.index(line, before)?
                    }
                };
                // Without one before it, its own range is all that it can speak for.
                found.map_or(first_of(range), |index| index.origin)
            }
            None => first_of(range),
        };
        let origin = if run > 0 { first_of(range) + run as u64 } else { origin };
        if lacking.is_some() && !begins_here {
            tracing::warn!(line, range, "a gap: WAL segments of this range lack, and those of the next are all there");
        }
        let index = Index { range, origin, identities };
        match self.put(&Named::Index { line, range }, 0, &index.encode()) {
            // Of two that make it, one may have known less: both are right.
            Ok(_) | Err(WalError::Differs { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back() {
        let identities = (0..RANGE).map(|n| Identity([u8::try_from(n).unwrap(); 32])).collect();
        let index = Index { range: 7, origin: 300, identities };
        let content = index.encode();
        assert_eq!(Index::parse(7, &content).unwrap(), index);
        assert!(Index::parse(8, &content).is_err());
        for len in 0..content.len() {
            assert!(Index::parse(7, &content[..len]).is_err());
        }
        let late = Index { origin: 8 * RANGE, ..index };
        assert!(Index::parse(7, &late.encode()).is_err(), "a run that begins behind its range");
    }
}
