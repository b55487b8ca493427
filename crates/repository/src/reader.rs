//! Reading a backup: entries in order of their names, frames from any thread.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use crate::{
    error::RepositoryError,
    frame::{Identity, Kind},
    manifest::{Entry, Extent, FrameRef, Page, PageRef, RawEntry, RawRun, Root},
    pack::{Locator, PackTable},
    record::{BackupRecord, ManifestRecord},
    session::next_owner,
    vault::{RUN_BYTES_MAX, Vault},
    wire::BadBytes,
};

/// A backup, open for reading. Threads may share it. It holds the manifest's root and a few of its parts, never all.
#[derive(Debug)]
pub struct BackupReader {
    vault: Arc<Vault>,
    record: BackupRecord,
    root: Root,
    owner: u32,
    /// By the identity of a frame of tables: its place in the root, and the number of its first pack.
    tables: HashMap<Identity, (usize, u32)>,
}

impl BackupReader {
    pub(crate) fn new(vault: &Arc<Vault>, record: BackupRecord, manifest: &Value) -> Result<Self, RepositoryError> {
        let root = read_root(vault, manifest)?;
        let mut tables = HashMap::new();
        let mut first = 0_u32;
        for (at, table) in root.tables.iter().enumerate() {
            tables.insert(table.place.identity, (at, first));
            let packs = u32::try_from(table.used.len()).unwrap_or(u32::MAX);
            first = first.saturating_add(packs);
        }
        Ok(Self { vault: Arc::clone(vault), record, root, owner: next_owner(), tables })
    }

    /// What the log says of it.
    pub fn record(&self) -> &BackupRecord {
        &self.record
    }

    /// What its maker told of it.
    pub fn info(&self) -> &Value {
        &self.record.info
    }

    /// How many entries it has.
    pub fn entry_count(&self) -> u64 {
        self.root.entries
    }

    /// What the sizes of its entries add up to.
    pub fn content_bytes(&self) -> u64 {
        self.root.content_bytes
    }

    /// All entries, in ascending order of their names; fetched as they are asked for.
    pub fn entries(&self) -> Entries<'_> {
        Entries { reader: self, page: 0, current: Vec::new().into_iter() }
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// The page that would hold it can't be read.
    pub fn find(&self, name: &[u8]) -> Result<Option<Entry>, RepositoryError> {
        let behind = self.root.pages.partition_point(|page| page.first.as_slice() <= name);
        let Some(page) = behind.checked_sub(1).map(|at| &self.root.pages[at]) else { return Ok(None) };
        let found = self.page(page)?.into_iter().find(|entry| entry.name == name);
        found.map(|entry| self.resolve(&page.place, entry)).transpose()
    }

    /// The plain bytes of one frame: authenticated, and compared with what its writer hashed.
    ///
    /// # Errors
    /// The frame is damaged or can't be fetched, or belongs to another reader.
    pub fn frame(&self, frame: &FrameRef) -> Result<Vec<u8>, RepositoryError> {
        self.vault.frame(&self.locate(frame)?, Kind::Data)
    }

    /// The plain bytes of several frames, in order. Those that lie one behind the other in a pack are fetched together. `each` gets
    /// the index and the bytes.
    ///
    /// # Errors
    /// As [`BackupReader::frame`], and whatever `each` returns.
    pub fn frames<E: From<RepositoryError>>(
        &self,
        frames: &[FrameRef],
        mut each: impl FnMut(usize, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let places = frames.iter().map(|frame| self.locate(frame)).collect::<Result<Vec<_>, _>>()?;
        let mut from = 0;
        while from < places.len() {
            let len = run_len(&places[from..]);
            let mut failed = None;
            let result = self.vault.frames(&places[from..from + len], Kind::Data, &mut |at, plain| {
                if failed.is_none() {
                    failed = each(from + at, plain).err();
                }
                Ok(())
            });
            if let Some(error) = failed {
                return Err(error);
            }
            result?;
            from += len;
        }
        Ok(())
    }

    /// Where a frame lies.
    pub(crate) fn locate(&self, frame: &FrameRef) -> Result<Locator, RepositoryError> {
        if frame.owner != self.owner {
            return Err(RepositoryError::StrangeFrame);
        }
        let mut first = 0;
        for table in &self.root.tables {
            let packs = u32::try_from(table.used.len()).unwrap_or(u32::MAX);
            if frame.pack - first < packs {
                let tables = self.vault.tables(&table.place)?;
                let pack = tables.get((frame.pack - first) as usize);
                return pack.and_then(|pack| pack.locate(frame.ordinal)).ok_or(RepositoryError::StrangeFrame);
            }
            first += packs;
        }
        Err(RepositoryError::StrangeFrame)
    }

    fn page(&self, page: &PageRef) -> Result<Vec<RawEntry<(Identity, u32)>>, RepositoryError> {
        read_page(&self.vault, page)
    }

    /// The entry for the caller: every frame of a run for itself, with its length.
    fn resolve(&self, page: &Locator, raw: RawEntry<(Identity, u32)>) -> Result<Entry, RepositoryError> {
        let bad = |what| RepositoryError::form(page, BadBytes(what));
        let mut extents = Vec::new();
        for run in raw.runs {
            match run {
                RawRun::Zero { len } => extents.push(Extent::Zero { len }),
                RawRun::Frames { pack: (table, index), first, count } => {
                    let (at, base) =
                        *self.tables.get(&table).ok_or_else(|| bad("it names a table that the backup has not"))?;
                    let tables = self.vault.tables(&self.root.tables[at].place)?;
                    let frames = frames_of_run(&tables, index, first, count)
                        .ok_or_else(|| bad("it names frames that no pack has"))?;
                    extents.extend((first..).zip(frames).map(|(ordinal, frame)| {
                        Extent::Frame(FrameRef { owner: self.owner, pack: base + index, ordinal, len: frame.plain_len })
                    }));
                }
            }
        }
        if extents.iter().map(Extent::len).fold(0, u64::saturating_add) != raw.size {
            return Err(bad("an entry's content does not add up to its size"));
        }
        Ok(Entry { name: raw.name, meta: raw.meta, size: raw.size, extents })
    }
}

/// The frames of a run; `None` if they are not all there.
pub(crate) fn frames_of_run(
    tables: &[PackTable],
    index: u32,
    first: u32,
    count: u32,
) -> Option<&[crate::pack::FrameInfo]> {
    let frames = &tables.get(index as usize)?.frames;
    let frames = frames.get(first as usize..(first as usize).checked_add(count as usize)?)?;
    frames.iter().all(|frame| frame.kind == Kind::Data).then_some(frames)
}

/// How many of the first places lie one behind the other and are fetched together.
fn run_len(places: &[Locator]) -> usize {
    let follows = |pair: &[Locator]| {
        pair[0].pack == pair[1].pack
            && pair[0].offset + pair[0].sealed_len == pair[1].offset
            && (pair[1].offset + pair[1].sealed_len - places[0].offset) as usize <= RUN_BYTES_MAX
    };
    1 + places.windows(2).take_while(|pair| follows(pair)).count()
}

pub(crate) fn read_root(vault: &Vault, manifest: &Value) -> Result<Root, RepositoryError> {
    let record =
        |error: BadBytes| RepositoryError::Damaged { object: "a commit record".to_owned(), what: error.to_string() };
    let place = ManifestRecord::parse(manifest).and_then(|manifest| manifest.place()).map_err(record)?;
    let plain = vault.frame(&place, Kind::Root)?;
    Root::parse(&plain).map_err(|error| RepositoryError::form(&place, error))
}

pub(crate) fn read_page(vault: &Vault, page: &PageRef) -> Result<Vec<RawEntry<(Identity, u32)>>, RepositoryError> {
    let plain = vault.frame(&page.place, Kind::Entries)?;
    let bad = |error| RepositoryError::form(&page.place, error);
    let entries = Page::parse(&plain).map_err(bad)?.entries;
    let fits = entries.len() as u64 == u64::from(page.entries)
        && entries.first().is_some_and(|entry| entry.name == page.first);
    if fits { Ok(entries) } else { Err(bad(BadBytes("it is not the page that the root names"))) }
}

/// The entries of a backup.
#[derive(Debug)]
pub struct Entries<'a> {
    reader: &'a BackupReader,
    page: usize,
    current: std::vec::IntoIter<RawEntry<(Identity, u32)>>,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, RepositoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(raw) = self.current.next() {
                let page = &self.reader.root.pages[self.page - 1].place;
                return Some(self.reader.resolve(page, raw));
            }
            let page = self.reader.root.pages.get(self.page)?;
            self.page += 1;
            match self.reader.page(page) {
                Ok(entries) => self.current = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
