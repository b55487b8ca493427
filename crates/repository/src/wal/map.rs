//! Page maps: what a range's WAL changed, opaque here, one object for each range and version of its form.

use super::{Stored, Wal, WalError, name::Named};

/// The most bytes of a page map.
const MAP_MAX: usize = 64 << 20;

impl Wal {
    /// Stores the page map of the [`RANGE`](super::RANGE) segments of `range`; `version` is that of its form.
    ///
    /// # Errors
    /// `Differs` where another one is there: the first stays; the store failed.
    pub fn put_map(&self, line: u32, range: u64, version: u32, bytes: &[u8]) -> Result<Stored, WalError> {
        if bytes.len() > MAP_MAX {
            return Err(WalError::Size { what: "a page map is too long", bytes: bytes.len() as u64 });
        }
        Ok(self.put(&Named::Map { line, range, version }, 0, bytes)?.0)
    }

    /// The page map of a range; `None` where there is none, or one that is out of the order of epochs.
    ///
    /// # Errors
    /// It is damaged; the store failed.
    pub fn get_map(&self, line: u32, range: u64, version: u32) -> Result<Option<Vec<u8>>, WalError> {
        let named = Named::Map { line, range, version };
        let Some((summary, bytes)) = self.get(&named)? else { return Ok(None) };
        match self.in_order(&named, &summary) {
            Ok(()) => Ok(Some(bytes)),
            Err(error @ WalError::Epoch { .. }) => {
                tracing::warn!(%error, "a page map is not believed");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the page map of a range is there, by one small request.
    ///
    /// # Errors
    /// The store failed.
    pub fn has_map(&self, line: u32, range: u64, version: u32) -> Result<bool, WalError> {
        self.is_there(&Named::Map { line, range, version })
    }

    /// Whether a segment is there as a whole, by one small request.
    ///
    /// # Errors
    /// The store failed.
    pub fn has_segment(&self, line: u32, segment: u64) -> Result<bool, WalError> {
        self.is_there(&Named::Segment { line, segment })
    }
}
