//! The map of a range of WAL.

use std::collections::{BTreeMap, BTreeSet};

use model::Lsn;
use pg_format::{
    Major,
    wal::{Fork, Relation, Stream},
};

use crate::{
    blocks::BlockSet,
    reason::{FullRead, Reason},
};

/// How many reasons for a full read a map keeps: one is enough to act, a few to understand.
pub(crate) const FULL_READS_MAX: usize = 16;
/// How many changes of the timeline a map names. More than a few within one range never happen.
pub(crate) const TIMELINES_MAX: usize = 64;
/// What a file in the map takes besides its blocks.
const FILE_BYTES: usize = 160;
/// What a whole database in the map takes.
const DATABASE_BYTES: usize = 48;

/// How large a map may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What it takes in memory, by its own count (within a factor of two of what the allocator says). Beyond that it becomes coarser.
    pub memory_bytes: usize,
}

impl Limits {
    /// 64 MiB: 400,000 relations with a few pages each, or a bitmap of every page of 4 TiB.
    pub const DEFAULT: Self = Self { memory_bytes: 64 << 20 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which blocks a range of WAL changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageMap {
    pub(crate) major: Major,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    pub(crate) records: u64,
    pub(crate) first_prev: Option<Lsn>,
    pub(crate) last: Option<Lsn>,
    pub(crate) timelines: Vec<(u32, Lsn)>,
    /// If there is one, the two below are empty.
    pub(crate) full: Vec<FullRead>,
    /// Tablespace and database.
    pub(crate) databases: BTreeSet<(u32, u32)>,
    pub(crate) files: BTreeMap<(Relation, Fork), File>,
    /// What it takes, kept up to date.
    bytes: usize,
}

/// One fork of one relation. Never without anything to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    /// From this block on all is changed; zero: the whole file.
    pub(crate) from: Option<u32>,
    /// Below that.
    pub(crate) blocks: BlockSet,
}

/// What changed of one fork of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Nothing, as far as its older copy reaches.
    None,
    /// These pages.
    Pages {
        /// Single ones.
        blocks: &'a BlockSet,
        /// And all from this block on, if there: the relation was cut off to that many blocks, and what came behind it is new.
        from: Option<u32>,
    },
    /// All of it.
    Whole,
}

impl Change<'_> {
    /// Whether to read `block` of a file of which the older copy has `old_blocks` blocks: what is beyond those is new, and WAL need not
    /// say so.
    #[must_use]
    pub fn contains(&self, block: u32, old_blocks: u32) -> bool {
        block >= old_blocks
            || match self {
                Self::None => false,
                Self::Pages { blocks, from } => from.is_some_and(|from| block >= from) || blocks.contains(block),
                Self::Whole => true,
            }
    }
}

/// Two maps that do not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNext {
    /// They are of different clusters or versions.
    #[error("the page maps are of different clusters; hint: both must come from WAL of the same server")]
    Cluster,
    /// The ranges do not touch.
    #[error(
        "a page map ends at {end}, the next begins at {start}; hint: the map between is missing, so read everything"
    )]
    Gap {
        /// Where the first ends.
        end: Lsn,
        /// Where the second begins.
        start: Lsn,
    },
    /// The second's first record names another one before it than the first's last.
    #[error(
        "the page map from {start} on follows the record at {prev}, the map before ends with the one at {last}; hint: they are of \
         different histories, so read everything"
    )]
    Chain {
        /// Where the second begins.
        start: Lsn,
        /// Where its first record says that the one before is.
        prev: Lsn,
        /// Where the first map's last record is.
        last: Lsn,
    },
    /// The second is of an older timeline.
    #[error(
        "the page map from {start} on is of timeline {timeline}, the map before ends on a newer one; hint: read everything"
    )]
    Timeline {
        /// Where the second begins.
        start: Lsn,
        /// Its timeline.
        timeline: u32,
    },
}

/// Free space maps are not in WAL; visibility maps were changed without naming the block until the minor releases of July 2026.
const fn is_always_whole(fork: Fork) -> bool {
    matches!(fork, Fork::FreeSpaceMap | Fork::VisibilityMap)
}

impl PageMap {
    /// One of nothing, at `start`.
    pub(crate) fn new(stream: &Stream, start: Lsn) -> Self {
        Self {
            major: stream.major,
            system_identifier: stream.system_identifier,
            start,
            end: start,
            records: 0,
            first_prev: None,
            last: None,
            timelines: Vec::new(),
            full: Vec::new(),
            databases: BTreeSet::new(),
            files: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// The version of the server that wrote the WAL.
    #[must_use]
    pub const fn major(&self) -> Major {
        self.major
    }

    /// The cluster, if whoever made the map knew it.
    #[must_use]
    pub const fn system_identifier(&self) -> Option<u64> {
        self.system_identifier
    }

    /// Where the range begins.
    #[must_use]
    pub const fn start(&self) -> Lsn {
        self.start
    }

    /// Where it ends: the end of its last record, or where the next one begins. All that begins before is in it.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// How many records were in it.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Its timelines in order, each with the first record on it. To be compared with the timeline's history: a map whose parent is not on
    /// an ancestor before its switch is of another history.
    #[must_use]
    pub fn timelines(&self) -> &[(u32, Lsn)] {
        &self.timelines
    }

    /// Why everything must be read; empty when the map can be used. The first 16.
    #[must_use]
    pub fn full_read(&self) -> &[FullRead] {
        &self.full
    }

    /// What changed of a fork.
    #[must_use]
    pub fn change(&self, relation: Relation, fork: Fork) -> Change<'_> {
        let database = (relation.tablespace, relation.database);
        if !self.full.is_empty() || is_always_whole(fork) || self.databases.contains(&database) {
            return Change::Whole;
        }
        match self.files.get(&(relation, fork)) {
            None => Change::None,
            Some(File { from: Some(0), .. }) => Change::Whole,
            Some(File { from, blocks }) => Change::Pages { blocks, from: *from },
        }
    }

    /// The forks that the map names, in order, with what changed. Not those of [`PageMap::databases`].
    pub fn files(&self) -> impl Iterator<Item = (Relation, Fork, Change<'_>)> + '_ {
        self.files.keys().map(|(relation, fork)| (*relation, *fork, self.change(*relation, *fork)))
    }

    /// The databases of which everything is changed: tablespace and database.
    pub fn databases(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.databases.iter().copied()
    }

    /// How many single pages it names.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.files.values().map(|file| file.blocks.len() as u64).sum()
    }

    /// What it takes in memory, by its own count: it depends on what the map says only.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `later` is the map of the range that follows.
    ///
    /// # Errors
    /// When it does not follow: then nobody knows what changed between, and everything must be read.
    pub fn joins(&self, later: &Self) -> Result<(), NotNext> {
        if self.major != later.major || self.system_identifier != later.system_identifier {
            return Err(NotNext::Cluster);
        }
        if self.end != later.start {
            return Err(NotNext::Gap { end: self.end, start: later.start });
        }
        if let (Some(last), Some(prev)) = (self.last, later.first_prev)
            && last != prev
        {
            return Err(NotNext::Chain { start: later.start, prev, last });
        }
        if let (Some((ours, _)), Some((timeline, _))) = (self.timelines.last(), later.timelines.first())
            && timeline < ours
        {
            return Err(NotNext::Timeline { start: later.start, timeline: *timeline });
        }
        Ok(())
    }

    /// Joins the map of the range that follows to this one.
    ///
    /// # Errors
    /// As [`PageMap::joins`]; this map is as it was.
    pub fn append(&mut self, later: &Self, limits: Limits) -> Result<(), NotNext> {
        self.joins(later)?;
        self.end = later.end;
        self.records = self.records.saturating_add(later.records);
        self.first_prev = self.first_prev.or(later.first_prev);
        self.last = later.last.or(self.last);
        for (timeline, from) in &later.timelines {
            self.on_timeline(*timeline, *from);
        }
        for full in &later.full {
            self.force(full.at, full.reason.clone());
        }
        for (tablespace, database) in &later.databases {
            self.whole_database(*tablespace, *database, limits);
        }
        for ((relation, fork), file) in &later.files {
            if let Some(from) = file.from {
                self.cut_off(*relation, *fork, from, limits);
            }
            for block in file.blocks.iter() {
                self.mark(*relation, *fork, block, limits);
            }
        }
        Ok(())
    }

    /// Says that everything must be read.
    pub(crate) fn force(&mut self, at: Lsn, reason: Reason) {
        self.databases.clear();
        self.files.clear();
        self.bytes = 0;
        let full = FullRead { at, reason };
        if self.full.len() < FULL_READS_MAX && !self.full.contains(&full) {
            self.full.push(full);
        }
    }

    /// Says that the record at `at` is on this timeline, if that is a newer one.
    pub(crate) fn on_timeline(&mut self, timeline: u32, at: Lsn) {
        let is_full = self.timelines.len() >= TIMELINES_MAX;
        match self.timelines.last_mut() {
            Some((last, _)) if *last >= timeline => {}
            // The first page of a new timeline still names the one before; the record that begins it says better.
            Some(last) if last.1 == at => last.0 = timeline,
            _ if is_full => self.force(at, Reason::Timelines),
            _ => self.timelines.push((timeline, at)),
        }
    }

    /// Marks a page as changed.
    pub(crate) fn mark(&mut self, relation: Relation, fork: Fork, block: u32, limits: Limits) {
        let Some(file) = Self::file(&self.full, &self.databases, &mut self.files, &mut self.bytes, relation, fork)
        else {
            return;
        };
        if file.from.is_some_and(|from| block >= from) {
            return;
        }
        let before = file.blocks.bytes_around(block);
        if file.blocks.insert(block) {
            self.bytes += file.blocks.bytes_around(block) - before;
            self.shrink(limits);
        }
    }

    /// Marks all pages from this one on as changed.
    pub(crate) fn cut_off(&mut self, relation: Relation, fork: Fork, from: u32, limits: Limits) {
        let Some(file) = Self::file(&self.full, &self.databases, &mut self.files, &mut self.bytes, relation, fork)
        else {
            return;
        };
        let from = file.from.map_or(from, |before| before.min(from));
        let before = file.blocks.bytes();
        file.from = Some(from);
        file.blocks.truncate(from);
        self.bytes = self.bytes - before + file.blocks.bytes();
        self.shrink(limits);
    }

    /// Puts a fork as it was read; `None` when it is there already or can't be.
    pub(crate) fn put(&mut self, relation: Relation, fork: Fork, from: Option<u32>, blocks: BlockSet) -> Option<()> {
        let covered = !self.full.is_empty() || self.databases.contains(&(relation.tablespace, relation.database));
        let beyond = from.is_some_and(|from| blocks.reaches(from));
        if covered || beyond || (from.is_none() && blocks.is_empty()) {
            return None;
        }
        self.bytes += FILE_BYTES + blocks.bytes();
        self.files.insert((relation, fork), File { from, blocks }).is_none().then_some(())
    }

    /// Marks all forks of a relation as changed.
    pub(crate) fn whole_relation(&mut self, relation: Relation, limits: Limits) {
        for fork in [Fork::Main, Fork::Init] {
            self.cut_off(relation, fork, 0, limits);
        }
    }

    /// Marks all of a database in one tablespace as changed.
    pub(crate) fn whole_database(&mut self, tablespace: u32, database: u32, limits: Limits) {
        if !self.full.is_empty() || !self.databases.insert((tablespace, database)) {
            return;
        }
        let gone: Vec<_> = self
            .files
            .range((Relation { tablespace, database, number: 0 }, Fork::Main)..)
            .take_while(|((relation, _), _)| (relation.tablespace, relation.database) == (tablespace, database))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            if let Some(file) = self.files.remove(&key) {
                self.bytes -= FILE_BYTES + file.blocks.bytes();
            }
        }
        self.bytes += DATABASE_BYTES;
        self.shrink(limits);
    }

    /// The place to note a change; `None` where the change is known already. It must be used, or the file would have nothing to say.
    fn file<'a>(
        full: &[FullRead],
        databases: &BTreeSet<(u32, u32)>,
        files: &'a mut BTreeMap<(Relation, Fork), File>,
        bytes: &mut usize,
        relation: Relation,
        fork: Fork,
    ) -> Option<&'a mut File> {
        let known = !full.is_empty()
            || is_always_whole(fork)
            || (!databases.is_empty() && databases.contains(&(relation.tablespace, relation.database)));
        if known {
            return None;
        }
        Some(files.entry((relation, fork)).or_insert_with(|| {
            *bytes += FILE_BYTES;
            File::default()
        }))
    }

    /// Makes the map coarser if it is too large: first what costs most and loses least, single relations; then databases; then all.
    fn shrink(&mut self, limits: Limits) {
        if self.bytes <= limits.memory_bytes {
            return;
        }
        // Some room, or the next page would bring us here again.
        let target = limits.memory_bytes / 4 * 3;
        let mut costly: Vec<_> = self
            .files
            .iter()
            .filter(|(_, file)| !file.blocks.is_empty())
            .map(|(key, file)| (file.blocks.bytes(), *key))
            .collect();
        costly.sort_by(|(one, a), (other, b)| other.cmp(one).then(a.cmp(b)));
        for (cost, key) in costly {
            if self.bytes <= target {
                return;
            }
            self.files.insert(key, File { from: Some(0), blocks: BlockSet::default() });
            self.bytes -= cost;
        }
        let mut databases: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for (relation, _) in self.files.keys() {
            *databases.entry((relation.tablespace, relation.database)).or_default() += 1;
        }
        let mut databases: Vec<_> = databases.into_iter().collect();
        databases.sort_by(|(a, one), (b, other)| other.cmp(one).then(a.cmp(b)));
        for ((tablespace, database), _) in databases {
            if self.bytes <= target {
                return;
            }
            self.databases.insert((tablespace, database));
            self.files.retain(|(relation, _), _| (relation.tablespace, relation.database) != (tablespace, database));
            self.bytes = self.files.len() * FILE_BYTES + self.databases.len() * DATABASE_BYTES;
        }
        if self.bytes > limits.memory_bytes {
            self.force(self.end, Reason::Memory);
        }
    }
}

#[cfg(test)]
mod tests;
