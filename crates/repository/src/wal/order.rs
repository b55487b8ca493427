//! Keys along a line only become newer.
//!
//! Objects name the epoch of their master key. Who holds only keys from before a rotation, and may write to the store, could put a segment
//! of his own at the end of a line. So a reader refuses a segment (and the chunks of one) that is sealed with an older key than the segment
//! before it or the index of the range before; an index that is older than the one before it is not believed. What an index that is believed
//! names is right, whatever its epoch: somebody with newer keys saw it there. A page map that is older than the end of its range was not made by
//! somebody who could read that, and is none.
//!
//! In a repository whose keys were never rotated, and for everything that is sealed with the newest, none of this costs a request.
//!
//! So that no honest writer is ever refused: one whose keys are older than those of the segment before can't open that, and stops; and one
//! that fills a gap before segments of an older epoch seals with that one.

use super::{RANGE, Wal, WalError, lock, name::Named, object::Summary};
use crate::seal::Epoch;

impl Wal {
    /// Sees that the segment, chunk or index `named` is not sealed with an older key than what is before it.
    pub(super) fn in_order(&self, named: &Named, summary: &Summary) -> Result<(), WalError> {
        if summary.epoch >= self.inner.vault.keys.ring().newest() {
            return Ok(());
        }
        let least = match *named {
            Named::Segment { line, segment } | Named::Chunk { line, segment, .. } => {
                self.epoch_before(line, segment)?
            }
            Named::Index { line, range } => self.index_epoch(line, range.checked_sub(1))?,
            Named::Map { line, range, .. } => self.epoch_mapped(line, range)?,
            Named::Companion { .. } | Named::History { .. } => None,
        };
        match least.filter(|least| summary.epoch < *least) {
            None => Ok(()),
            Some(_) if self.is_indexed(named, summary)? => Ok(()),
            Some(least) => Err(self.out_of_order(named, summary.epoch, least)),
        }
    }

    pub(super) fn out_of_order(&self, named: &Named, epoch: Epoch, least: Epoch) -> WalError {
        WalError::Epoch { object: self.names.of(named).to_string(), epoch, least }
    }

    /// The epoch to seal it with.
    pub(super) fn epoch_for(&self, named: &Named) -> Result<Epoch, WalError> {
        let newest = self.inner.vault.keys.ring().newest();
        // Whoever puts a later chunk has seen the first.
        let (Named::Segment { line, segment } | Named::Chunk { line, segment, n: 0 }) = *named else {
            return Ok(newest);
        };
        // Also to find out that the keys at hand are older than those of others.
        let before = match segment.checked_sub(1) {
            Some(before) => self.segment_epoch(line, before)?,
            None => None,
        };
        if newest == 0 || before == Some(newest) {
            return Ok(newest);
        }
        let Some(later) = self.later(line, segment)? else { return Ok(newest) };
        let behind = self.segment_epoch(line, later)?.unwrap_or(newest);
        Ok(behind.min(newest).max(before.unwrap_or(0)))
    }

    /// The least epoch that a segment may have; `None` where nothing is before it.
    fn epoch_before(&self, line: u32, segment: u64) -> Result<Option<Epoch>, WalError> {
        let Some(before) = segment.checked_sub(1) else { return Ok(None) };
        // What was read or put here before was judged then.
        if let Some((_, epoch)) = lock(&self.seen).get(&(line, before)) {
            return Ok(Some(*epoch));
        }
        let before = self.segment_epoch(line, before)?;
        Ok(before.max(self.index_epoch(line, (segment / RANGE).checked_sub(1))?))
    }

    /// The least epoch that the map of a range may have: whoever made it could open the last segment, or where the line begins behind that, the
    /// first one.
    fn epoch_mapped(&self, line: u32, range: u64) -> Result<Option<Epoch>, WalError> {
        let behind = range.saturating_add(1).saturating_mul(RANGE);
        match self.segment_epoch(line, behind.saturating_sub(1))? {
            Some(epoch) => Ok(Some(epoch)),
            None => self.segment_epoch(line, behind),
        }
    }

    fn segment_epoch(&self, line: u32, segment: u64) -> Result<Option<Epoch>, WalError> {
        if let Some((_, epoch)) = lock(&self.seen).get(&(line, segment)) {
            return Ok(Some(*epoch));
        }
        let found = self.summary(&self.names.of(&Named::Segment { line, segment }))?;
        Ok(found.map(|summary| summary.epoch))
    }

    fn index_epoch(&self, line: u32, range: Option<u64>) -> Result<Option<Epoch>, WalError> {
        let Some(range) = range else { return Ok(None) };
        Ok(self.summary(&self.names.of(&Named::Index { line, range }))?.map(|summary| summary.epoch))
    }

    /// Whether an index that is believed names this very segment.
    fn is_indexed(&self, named: &Named, summary: &Summary) -> Result<bool, WalError> {
        let Named::Segment { line, segment } = *named else { return Ok(false) };
        let index = self.index(line, segment / RANGE)?;
        let at = usize::try_from(segment % RANGE).expect("a range has 64 segments");
        Ok(index.is_some_and(|index| index.identities.get(at) == Some(&summary.identity)))
    }
}
