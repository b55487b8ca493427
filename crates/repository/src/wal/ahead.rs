//! Sealing segments ahead of their turn: compressing and sealing take most of the time and may be done side by side, but segments are put one
//! after the other. So whoever stores many at once leaves no gap at any moment, and none when it is killed.

use super::{LOOKS_MAX, Stored, Wal, WalError, name::Named, object::Summary};
use crate::store::Put;

/// A whole segment, ready to be put.
pub struct SealedSegment {
    line: u32,
    segment: u64,
    summary: Summary,
    /// `None`: it was there when it was to be sealed.
    object: Option<Vec<u8>>,
}

impl std::fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedSegment")
            .field("line", &self.line)
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Seals a whole segment for [`Wal::put_sealed`], unless it is there. What it returns may be put again after an error.
    ///
    /// # Errors
    /// `Differs` where another segment is there under its number; the store failed.
    pub fn seal_segment(&self, line: u32, segment: u64, bytes: &[u8]) -> Result<SealedSegment, WalError> {
        if bytes.len() as u64 != self.segment_bytes {
            return Err(WalError::Size { what: "a whole segment has another size", bytes: bytes.len() as u64 });
        }
        let named = Named::Segment { line, segment };
        let name = self.names.of(&named);
        let mut summary = Summary::of(&self.identity_key, 0, bytes, 0);
        let object = match self.summary(&name)? {
            Some(found) if found.is_same(&summary) => {
                summary = found;
                None
            }
            Some(_) => return Err(WalError::Differs { object: name.to_string() }),
            None => {
                summary.epoch = self.epoch_for(&named)?;
                Some(self.sealed(&name, &summary, bytes)?)
            }
        };
        Ok(SealedSegment { line, segment, summary, object })
    }

    /// Stores a sealed segment. The caller keeps the order.
    ///
    /// # Errors
    /// As [`Wal::put_segment`].
    pub fn put_sealed(&self, sealed: &SealedSegment) -> Result<Stored, WalError> {
        let (line, segment) = (sealed.line, sealed.segment);
        let name = self.names.of(&Named::Segment { line, segment });
        let stored = match &sealed.object {
            Some(object) if self.inner.vault.store.put_if_absent(&name, object)? == Put::Created => Stored::Now,
            _ => match self.summary(&name)? {
                Some(found) if found.is_same(&sealed.summary) => {
                    self.inner.vault.store.settle(&name)?;
                    Stored::Before
                }
                Some(_) => return Err(WalError::Differs { object: name.to_string() }),
                // It was removed since it was seen.
                None => return Err(WalError::Busy { object: name.to_string(), looks: LOOKS_MAX }),
            },
        };
        self.saw(line, segment, &sealed.summary);
        if let Err(error) = self.index_after(line, segment) {
            tracing::warn!(%error, line, segment, "no index of WAL yet");
        }
        Ok(stored)
    }
}
