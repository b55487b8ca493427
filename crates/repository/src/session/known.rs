//! Which frames are there already: those of committed backups that this session keeps from expiring, and its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::RepositoryError,
    frame::{Identity, Kind},
    id::PackId,
    manifest::{FrameRef, Root},
    pack::Locator,
    vault::Vault,
};

/// Frames of earlier backups that are known: 32 MiB of memory, and at 512 KiB a frame 1 TiB of content. Beyond that, frames are stored
/// again, which costs space and nothing else.
const KNOWN_MAX: usize = 2 << 20;
/// Frames of this session that are known, in each of two generations.
const RECENT_MAX: usize = 16 << 10;

/// One frame, by the first bytes of its identity. The rest is compared when it is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    prefix: u64,
    table: u32,
    pack: u16,
    ordinal: u16,
}

/// A frame of tables of an earlier backup.
#[derive(Clone, Debug)]
pub(super) struct KnownTable {
    pub(super) place: Locator,
    pub(super) packs: u32,
}

/// The frames of earlier backups.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) tables: Vec<KnownTable>,
    known: Vec<Known>,
    /// Pages of entries of earlier backups: an unchanged one is shared.
    pub(super) pages: HashMap<Identity, Locator>,
}

/// A frame of an earlier backup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) table: u32,
    pub(super) pack: u32,
    pub(super) ordinal: u32,
}

impl Index {
    /// From the manifests of `roots`, the one to prefer first; only packs that `shareable` allows. A manifest that can't be read is
    /// left out: its frames are stored again.
    pub(super) fn build(vault: &Vault, roots: &[Root], shareable: &dyn Fn(PackId) -> bool) -> Self {
        let mut index = Self::default();
        for root in roots {
            for page in root.pages.iter().filter(|page| shareable(page.place.pack)) {
                index.pages.insert(page.place.identity, page.place);
            }
            for table in &root.tables {
                if let Err(error) = index.add(vault, &table.place, shareable) {
                    tracing::warn!(%error, "a table of an earlier backup can't be read; what it lists is stored again");
                }
            }
        }
        index.known.sort_unstable();
        index
    }

    fn add(
        &mut self,
        vault: &Vault,
        place: &Locator,
        shareable: &dyn Fn(PackId) -> bool,
    ) -> Result<(), RepositoryError> {
        let already = self.tables.iter().any(|table| table.place.identity == place.identity);
        if already || self.known.len() >= KNOWN_MAX || !shareable(place.pack) {
            return Ok(());
        }
        let packs = vault.tables(place)?;
        let table = u32::try_from(self.tables.len()).expect("tables are far fewer than frames, which are bounded");
        self.tables.push(KnownTable { place: *place, packs: u32::try_from(packs.len()).unwrap_or(0) });
        for (pack, found) in (0_u16..).zip(packs.iter()).filter(|(_, found)| shareable(found.pack)) {
            for (ordinal, frame) in (0_u16..).zip(&found.frames).filter(|(_, frame)| frame.kind == Kind::Data) {
                if self.known.len() < KNOWN_MAX {
                    self.known.push(Known { prefix: frame.identity.prefix(), table, pack, ordinal });
                }
            }
        }
        Ok(())
    }

    /// Where a frame with these plain bytes lies.
    pub(super) fn find(&self, vault: &Vault, identity: Identity, len: u32) -> Result<Option<Hit>, RepositoryError> {
        let prefix = identity.prefix();
        let from = self.known.partition_point(|known| known.prefix < prefix);
        for known in self.known[from..].iter().take_while(|known| known.prefix == prefix) {
            let place = self.tables[known.table as usize].place;
            let packs = vault.tables(&place)?;
            let frame = packs.get(usize::from(known.pack)).and_then(|p| p.frames.get(usize::from(known.ordinal)));
            if frame.is_some_and(|frame| frame.identity == identity && frame.plain_len == len) {
                let (pack, ordinal) = (u32::from(known.pack), u32::from(known.ordinal));
                return Ok(Some(Hit { table: known.table, pack, ordinal }));
            }
        }
        Ok(None)
    }
}

/// The newest frames of this session: files are often copies of one another.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<[HashMap<Identity, FrameRef>; 2]>);

impl Recent {
    pub(super) fn find(&self, identity: Identity, len: u32) -> Option<FrameRef> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().find_map(|known| known.get(&identity)).filter(|frame| frame.len == len).copied()
    }

    pub(super) fn add(&self, identity: Identity, frame: FrameRef) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= RECENT_MAX {
            let older = std::mem::take(&mut generations[0]);
            generations[1] = older;
        }
        generations[0].insert(identity, frame);
    }
}

/// What all writers of a session look up.
#[derive(Debug)]
pub(super) struct KnownFrames {
    pub(super) index: Arc<Index>,
    pub(super) recent: Recent,
}
