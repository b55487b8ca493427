//! What a listing shows of a stream. For people, for checks and for cleaning: nothing that must be right rests on it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    RANGE, Wal, WalError,
    name::{self, Named, Names},
};
use crate::{
    log::policy::LineSpan,
    repository::Repository,
    store::{Store, StoreError},
};

/// Segments one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The first.
    pub first: u64,
    /// The number behind the last whole one.
    pub end: u64,
    /// So many bytes of segment `end` are there as well.
    pub tail_bytes: u64,
}

/// Numbers that are seen in any order, as runs: the first of each, and the number behind its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Runs(BTreeMap<u64, u64>);

impl Runs {
    fn add(&mut self, number: u64) {
        let mut end = number.saturating_add(1);
        if let Some(after) = self.0.remove(&end) {
            end = after;
        }
        match self.0.range_mut(..=number).next_back() {
            Some((_, before)) if *before == number => *before = end,
            Some((_, before)) if *before > number => {}
            _ => drop(self.0.insert(number, end)),
        }
    }
}

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
    /// Whole segments, by run.
    #[serde(skip)]
    whole: Runs,
    /// Page maps: the version of their form, and the range.
    #[serde(skip)]
    maps: BTreeSet<(u32, u64)>,
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

    /// The runs of whole segments, by the listing alone: nothing was read.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.whole.0.iter().map(|(&first, &end)| Run { first, end, tail_bytes: 0 })
    }

    /// The ranges whose page maps of this version are there, in order.
    pub fn maps(&self, version: u32) -> impl Iterator<Item = u64> + '_ {
        self.maps.range((version, 0)..=(version, u64::MAX)).map(|(_, range)| *range)
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
                seen.whole.add(segment);
                seen.reaches(segment);
            }
            Named::Chunk { segment, .. } => {
                seen.chunks += 1;
                seen.reaches(segment);
            }
            Named::Companion { segment, .. } => seen.reaches(segment),
            Named::Index { range, .. } => seen.speaks_of(range.saturating_mul(RANGE)),
            Named::Map { range, version, .. } => {
                seen.speaks_of(range.saturating_mul(RANGE));
                seen.maps.insert((version, range));
            }
            Named::History { .. } => seen.history = true,
        }
    })?;
    Ok(lines)
}

impl Repository {
    /// The WAL of `stream`, by what is there: its segments' size is what a backup said, or the first segment that is found. `None` where
    /// nothing tells it.
    ///
    /// # Errors
    /// The store can't be listed or read.
    pub fn find_wal(&self, stream: &str) -> Result<Option<Wal>, WalError> {
        let told = self.with_state(|state| {
            let starts = state.backups().values().filter_map(|backup| Some((backup.committed, backup.wal.as_ref()?)));
            let newest = starts.filter(|(_, start)| start.stream == stream).max_by_key(|(committed, _)| *committed);
            newest.map(|(_, start)| start.segment_bytes)
        });
        if let Some(bytes) = told {
            return self.wal(stream.as_bytes(), bytes).map(Some);
        }
        // Any size does for a look at the first.
        let wal = self.wal(stream.as_bytes(), 1)?;
        let mut first = None;
        self.inner.vault.store.list(&wal.names.stream(), &mut |object, _| {
            if first.is_none() && matches!(name::parse(object.as_str()), Some(Named::Segment { .. })) {
                first = Some(object);
            }
        })?;
        let Some(summary) = first.map(|first| wal.summary(&first)).transpose()?.flatten() else { return Ok(None) };
        self.wal(stream.as_bytes(), summary.len).map(Some)
    }

    /// What lies in the store of streams that are none of `known`: how many there are, and their bytes.
    ///
    /// # Errors
    /// The store can't be listed.
    pub fn other_wal(&self, known: &[&str]) -> Result<(usize, u64), WalError> {
        let known: Vec<String> =
            known.iter().map(|stream| Names::new(&self.inner.vault.keys.ring(), stream.as_bytes()).stream()).collect();
        let (mut streams, mut bytes) = (BTreeSet::new(), 0);
        self.inner.vault.store.list("wal/", &mut |object, size| {
            let text = object.as_str();
            if name::parse(text).is_some() && !known.iter().any(|prefix| text.starts_with(prefix)) {
                bytes += size;
                streams.extend(text.split('/').nth(1).map(str::to_owned));
            }
        })?;
        Ok((streams.len(), bytes))
    }
}

impl Wal {
    /// Bytes of a segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The first segment of a line that stays, as of the newest record of the log that was read.
    pub fn floor(&self, line: u32) -> u64 {
        let Some(stream) = &self.stream else { return 0 };
        self.inner.log().state().wal_floor(stream, line)
    }

    /// The lines of which anything is there, by a listing, in their order.
    ///
    /// # Errors
    /// The store can't be listed.
    pub fn lines(&self) -> Result<Vec<LineSeen>, WalError> {
        Ok(survey(&*self.inner.vault.store, &self.names.stream())?.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_those_of_a_sorted_list(numbers in proptest::collection::vec(0_u64..40, 0..60)) {
            let mut runs = Runs::default();
            numbers.iter().for_each(|number| runs.add(*number));
            let mut sorted = numbers;
            sorted.sort_unstable();
            sorted.dedup();
            let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
            for number in sorted {
                match expected.last_entry() {
                    Some(mut last) if *last.get() == number => *last.get_mut() += 1,
                    _ => drop(expected.insert(number, number + 1)),
                }
            }
            prop_assert_eq!(runs.0, expected);
        }
    }
}
