//! What a listing shows of a stream. For people, for checks and for cleaning: nothing that must be right rests on it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{RANGE, Wal, WalError, name, name::Named};
use crate::{
    log::policy::LineSpan,
    store::{Store, StoreError},
};

/// What lies in the store of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LineSeen {
    /// Which.
    pub line: u32,
    /// The first segment of which anything is there.
    pub first: u64,
    /// The number behind the last one; equal to `first` where there is none.
    pub end: u64,
    /// Whole segments.
    pub segments: u64,
    /// Chunks of segments that grow, or were left by whoever was to remove them.
    pub chunks: u64,
    /// Its history is there.
    pub history: bool,
    /// All its objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first segment that any of its objects speaks of, indexes too.
    #[serde(skip)]
    pub(super) oldest: Option<u64>,
}

impl LineSeen {
    fn speaks_of(&mut self, segment: u64) {
        self.oldest = Some(self.oldest.map_or(segment, |oldest| oldest.min(segment)));
    }

    fn reaches(&mut self, segment: u64) {
        self.speaks_of(segment);
        if self.end == self.first {
            self.first = segment;
        }
        self.first = self.first.min(segment);
        self.end = self.end.max(segment.saturating_add(1));
    }

    /// Where it begins and ends.
    pub fn span(&self) -> LineSpan {
        LineSpan { first: self.first, end: self.end }
    }
}

/// All lines whose objects' names begin with `prefix`.
pub(super) fn survey(store: &dyn Store, prefix: &str) -> Result<BTreeMap<u32, LineSeen>, StoreError> {
    let mut lines: BTreeMap<u32, LineSeen> = BTreeMap::new();
    store.list(prefix, &mut |object, size| {
        let Some(named) = name::parse(object.as_str()) else { return };
        let line = named.line();
        let seen = lines.entry(line).or_insert_with(|| LineSeen { line, ..LineSeen::default() });
        seen.objects += 1;
        seen.bytes += size;
        match named {
            Named::Segment { segment, .. } => {
                seen.segments += 1;
                seen.reaches(segment);
            }
            Named::Chunk { segment, .. } => {
                seen.chunks += 1;
                seen.reaches(segment);
            }
            Named::Companion { segment, .. } => seen.reaches(segment),
            Named::Index { range, .. } | Named::Map { range, .. } => seen.speaks_of(range.saturating_mul(RANGE)),
            Named::History { .. } => seen.history = true,
        }
    })?;
    Ok(lines)
}

impl Wal {
    /// The lines of which anything is there, by a listing, in their order.
    ///
    /// # Errors
    /// The store can't be listed.
    pub fn lines(&self) -> Result<Vec<LineSeen>, WalError> {
        Ok(survey(&*self.inner.vault.store, &self.names.stream())?.into_values().collect())
    }
}
