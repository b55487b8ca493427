//! A set of block numbers, small where few are set and never more than a bit per block where many are.

use std::collections::BTreeMap;

/// Blocks of one chunk.
pub(crate) const CHUNK_BLOCKS: u32 = 1 << 16;
/// More than that many and a chunk is a bitmap, which then is the smaller of the two.
const FEW_MAX: usize = 4096;
/// Words of a bitmap.
const WORDS: usize = CHUNK_BLOCKS as usize / 64;
/// What a chunk costs besides its blocks: its share of the tree, and the vector's header.
const CHUNK_BYTES: usize = 96;

/// A set of blocks of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet {
    chunks: BTreeMap<u16, Chunk>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Chunk {
    /// Sorted; at most [`FEW_MAX`].
    Few(Vec<u16>),
    /// More than [`FEW_MAX`].
    Many { count: usize, words: Box<[u64; WORDS]> },
}

impl Chunk {
    fn contains(&self, low: u16) -> bool {
        match self {
            Self::Few(blocks) => blocks.binary_search(&low).is_ok(),
            Self::Many { words, .. } => words[usize::from(low) / 64] & (1 << (low % 64)) != 0,
        }
    }

    /// True when it was not there.
    fn insert(&mut self, low: u16) -> bool {
        match self {
            Self::Few(blocks) => {
                // Blocks mostly come in rising order.
                if blocks.last().is_none_or(|last| *last < low) {
                    blocks.push(low);
                } else {
                    match blocks.binary_search(&low) {
                        Ok(_) => return false,
                        Err(at) => blocks.insert(at, low),
                    }
                }
                if blocks.len() > FEW_MAX {
                    *self = Self::bitmap(blocks.iter().copied());
                }
                true
            }
            Self::Many { count, words } => {
                let (word, bit) = (&mut words[usize::from(low) / 64], 1 << (low % 64));
                let new = *word & bit == 0;
                *word |= bit;
                *count += usize::from(new);
                new
            }
        }
    }

    fn bitmap(blocks: impl Iterator<Item = u16>) -> Self {
        let (mut count, mut words) = (0, Box::new([0; WORDS]));
        for low in blocks {
            words[usize::from(low) / 64] |= 1 << (low % 64);
            count += 1;
        }
        Self::Many { count, words }
    }

    fn count(&self) -> usize {
        match self {
            Self::Few(blocks) => blocks.len(),
            Self::Many { count, .. } => *count,
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = u16> + '_> {
        match self {
            Self::Few(blocks) => Box::new(blocks.iter().copied()),
            Self::Many { words, .. } => {
                let set = words.iter().zip((0..=u16::MAX).step_by(64)).filter(|(word, _)| **word != 0);
                Box::new(set.flat_map(|(word, first)| {
                    (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| first + bit)
                }))
            }
        }
    }

    /// Keeps what is below `end`.
    fn truncate(&mut self, end: u16) {
        let kept: Vec<u16> = self.iter().take_while(|low| *low < end).collect();
        *self = if kept.len() > FEW_MAX { Self::bitmap(kept.into_iter()) } else { Self::Few(kept) };
    }

    fn bytes(&self) -> usize {
        CHUNK_BYTES
            + match self {
                // Never more than a bitmap; a vector grows by doubling, so that it may in truth be twice that.
                Self::Few(blocks) => blocks.len() * 2,
                Self::Many { .. } => WORDS * 8,
            }
    }
}

impl BlockSet {
    /// Adds a block; true when it was not there.
    pub fn insert(&mut self, block: u32) -> bool {
        let (high, low) = split(block);
        self.chunks.entry(high).or_insert_with(|| Chunk::Few(Vec::new())).insert(low)
    }

    /// Adds `len` blocks from `first` on, one at least, all in one chunk and none of them there already.
    pub(crate) fn insert_run(&mut self, first: u32, len: u32) {
        let ((high, low), last) = (split(first), first.saturating_add(len - 1));
        let len = len as usize;
        let chunk = self.chunks.entry(high).or_insert_with(|| Chunk::Few(Vec::new()));
        if let Chunk::Few(blocks) = chunk
            && blocks.len() + len > FEW_MAX
        {
            *chunk = Chunk::bitmap(blocks.iter().copied());
        }
        match chunk {
            Chunk::Few(_) => {
                for block in first..=last {
                    chunk.insert(split(block).1);
                }
            }
            Chunk::Many { count, words } => {
                let (start, end) = (usize::from(low), usize::from(low) + len);
                for (index, word) in words.iter_mut().enumerate().take(end.div_ceil(64)).skip(start / 64) {
                    let (from, to) = (start.max(index * 64) - index * 64, end.min(index * 64 + 64) - index * 64);
                    let bits = (u64::MAX >> (64 - (to - from))) << from;
                    *count += (bits & !*word).count_ones() as usize;
                    *word |= bits;
                }
            }
        }
    }

    /// Whether there is a block from `block` on.
    pub(crate) fn reaches(&self, block: u32) -> bool {
        let (high, low) = split(block);
        self.chunks.range(high..).any(|(number, chunk)| *number > high || chunk.iter().any(|other| other >= low))
    }

    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, block: u32) -> bool {
        let (high, low) = split(block);
        self.chunks.get(&high).is_some_and(|chunk| chunk.contains(low))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.values().map(Chunk::count).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// All, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().flat_map(|(high, chunk)| chunk.iter().map(|low| u32::from(*high) << 16 | u32::from(low)))
    }

    /// Removes `end` and all beyond.
    pub fn truncate(&mut self, end: u32) {
        let (high, low) = split(end);
        // The last chunk has none behind it.
        if let Some(next) = high.checked_add(1) {
            drop(self.chunks.split_off(&next));
        }
        if let Some(chunk) = self.chunks.get_mut(&high) {
            chunk.truncate(low);
            if chunk.count() == 0 {
                self.chunks.remove(&high);
            }
        }
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for block in other.iter() {
            self.insert(block);
        }
    }

    /// What it takes in memory, by a count that depends on its blocks only.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.values().map(Chunk::bytes).sum()
    }

    /// As [`BlockSet::bytes`], of the chunk that holds a block; what [`BlockSet::insert`] adds is the difference.
    pub(crate) fn bytes_around(&self, block: u32) -> usize {
        self.chunks.get(&split(block).0).map_or(0, Chunk::bytes)
    }

    /// The chunks: number and blocks within it.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u16, Box<dyn Iterator<Item = u16> + '_>)> + '_ {
        self.chunks.iter().map(|(high, chunk)| (*high, chunk.iter()))
    }
}

impl FromIterator<u32> for BlockSet {
    fn from_iter<T: IntoIterator<Item = u32>>(blocks: T) -> Self {
        let mut set = Self::default();
        for block in blocks {
            set.insert(block);
        }
        set
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of 32 bits")]
const fn split(block: u32) -> (u16, u16) {
    ((block >> 16) as u16, block as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_chunk_is_truncated_like_any_other() {
        let (low, high) = (u32::MAX << 16, u32::MAX - 1);
        let mut blocks: BlockSet = [0, low, high].into_iter().collect();
        blocks.truncate(u32::MAX);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [0, low, high]);
        blocks.truncate(high);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [0, low]);
        blocks.truncate(low);
        assert_eq!(blocks.iter().collect::<Vec<_>>(), [0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn runs(runs in proptest::collection::vec((0u32..60_000, 1u32..6_000), 1..8)) {
            let (mut ours, mut model) = (BlockSet::default(), BlockSet::default());
            for (first, len) in runs {
                let len = len.min(65_536 - first);
                ours.insert_run(65_536 + first, len);
                model.extend(&(65_536 + first..65_536 + first + len).collect());
            }
            prop_assert_eq!(ours.len(), model.len());
            prop_assert!(ours.iter().eq(model.iter()));
        }

        #[test]
        fn it_is_a_set(
            blocks in proptest::collection::vec(prop_oneof![0u32..70_000, any::<u32>()], 0..300),
            run in 0u32..20_000,
            end in prop_oneof![0u32..70_000, any::<u32>(), Just(u32::MAX)],
        ) {
            let mut ours = BlockSet::default();
            let mut model = BTreeSet::new();
            for block in blocks.into_iter().chain(60_000..60_000 + run) {
                prop_assert_eq!(ours.insert(block), model.insert(block));
            }
            prop_assert_eq!(ours.len(), model.len());
            prop_assert!(ours.iter().eq(model.iter().copied()));
            ours.truncate(end);
            model.retain(|block| *block < end);
            prop_assert!(ours.iter().eq(model.iter().copied()));
            prop_assert_eq!(ours.is_empty(), model.is_empty());
            for block in [0, 59_999, 60_000, 65_535, 65_536, end] {
                prop_assert_eq!(ours.contains(block), model.contains(&block));
            }
            let mut runs = BlockSet::default();
            for block in &model {
                runs.insert_run(*block, 1);
            }
            prop_assert_eq!(&ours, &runs);
            for from in [0, 60_000, 65_536, u32::MAX] {
                prop_assert_eq!(ours.reaches(from), model.range(from..).next().is_some());
            }
            // Equal however it came to be.
            prop_assert_eq!(&ours, &model.iter().rev().copied().collect::<BlockSet>());
            prop_assert_eq!(ours.bytes(), model.iter().rev().copied().collect::<BlockSet>().bytes());
        }
    }
}
