//! What says that WAL is missing for good: a note beside the first segment that is not whole, so that whoever recovers does not take a gap for
//! the end of WAL, however long the gap is.
//!
//! A segment that comes later all the same (the other road had it) counts, and the note is then about nothing.

use model::Lsn;
use repository::wal::{Wal, WalError};
use serde::{Deserialize, Serialize};

use crate::receive::plan::Place;

/// What the note is called.
const COMPANION: &str = "gap";

/// A gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first byte that is missing.
    pub from: Lsn,
    /// Where it goes on, as far as was known.
    pub to: Lsn,
    /// The timeline on which it goes on.
    pub next: u32,
}

/// Notes that `segment` of `timeline` is missing or not whole, from `from` up to `to`. Who noted it first is believed.
///
/// # Errors
/// The store failed.
pub fn mark(wal: &Wal, timeline: u32, segment: u64, from: Lsn, to: Place) -> Result<(), WalError> {
    let gap = Gap { from, to: to.lsn, next: to.timeline };
    let text = serde_json::to_vec(&gap).unwrap_or_default();
    match wal.put_companion(timeline, segment, COMPANION, &text) {
        Ok(_) | Err(WalError::Differs { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The note beside `segment`, if there is one.
///
/// # Errors
/// The store failed, or it is damaged.
pub fn noted(wal: &Wal, timeline: u32, segment: u64) -> Result<Option<Gap>, WalError> {
    let Some(text) = wal.get_companion(timeline, segment, COMPANION)? else { return Ok(None) };
    // One that a newer program wrote in other words is a gap all the same.
    let unknown = Gap { from: Lsn(0), to: Lsn(0), next: timeline };
    Ok(Some(serde_json::from_slice(&text).unwrap_or(unknown)))
}
