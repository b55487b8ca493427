//! The commit: manifest, packs, and last the record that makes it count.

use std::collections::HashSet;

use serde_json::Value;

use super::{Inner, PackPlace, SessionTable, State, UNPLACED};
use crate::{
    error::RepositoryError,
    frame::{FRAME_PLAIN_MAX, Identity, Kind},
    id::{BackupId, PackId},
    log::{Commitment, WalStart},
    manifest::{PageBuilder, PageRef, RawEntry, RawRun, Root, TableRef},
    pack::Locator,
    record::ManifestRecord,
};

/// What the pages of a manifest refer to.
struct Pages {
    refs: Vec<PageRef>,
    /// For each of the session's tables: which of its packs are used.
    used: Vec<Vec<bool>>,
    /// Packs of pages that earlier backups wrote.
    shared: HashSet<PackId>,
    entries: u64,
    content_bytes: u64,
}

impl Inner {
    pub(super) fn commit(
        &self,
        complete: bool,
        backup: BackupId,
        wal: Option<WalStart>,
        info: &Value,
    ) -> Result<(), RepositoryError> {
        let parked = std::mem::take(&mut self.lock().parked);
        for (number, builder) in parked {
            self.seal_pack(number, builder)?;
        }
        let mut state = self.lock();
        self.seal_tables(&mut state)?;
        let pages = self.write_pages(&mut state, complete)?;
        let (entries, content_bytes) = (pages.entries, pages.content_bytes);
        let (root, commitment) = self.root(&state, pages)?;
        let plain = root.encode();
        // Before anything of it counts: what is stored so far are packs that no record names.
        if plain.len() > self.repository.limits.root_bytes.min(FRAME_PLAIN_MAX) {
            return Err(self.too_many(entries, plain.len()));
        }
        let place = self.put_meta(&mut state, Kind::Root, &plain)?;
        self.flush_meta(&mut state)?;
        drop(state);
        self.uploader.drain()?;
        let (stored_bytes, _) = self.uploader.stored();
        let manifest = ManifestRecord::new(&place, entries, content_bytes, stored_bytes);
        let used: HashSet<u32> = commitment.used;
        let written = self
            .lock()
            .written
            .iter()
            .filter(|pack| pack.number.is_none_or(|n| used.contains(&n)))
            .map(|p| p.fresh)
            .collect();
        let commitment = Commitment {
            session: self.id,
            backup,
            complete,
            manifest: serde_json::to_value(manifest).expect("numbers and texts always serialise"),
            shared: commitment.shared.into_iter().collect(),
            written,
            wal,
            info: info.clone(),
        };
        self.repository.log().commit(&commitment)?;
        self.lock().committed |= complete;
        Ok(())
    }

    fn write_pages(&self, state: &mut State, complete: bool) -> Result<Pages, RepositoryError> {
        let used = state.tables.iter().map(|table| match table {
            SessionTable::Sealed { packs, .. } => vec![false; *packs as usize],
            SessionTable::Growing => Vec::new(),
        });
        let mut pages =
            Pages { refs: Vec::new(), used: used.collect(), shared: HashSet::new(), entries: 0, content_bytes: 0 };
        let mut builder = PageBuilder::default();
        // Taken out, because writing pages needs the rest of the state.
        let mut entries = std::mem::replace(&mut state.entries, super::Entries::new());
        let result = entries.each(|entry| {
            // A draft takes what is complete. In a whole backup all packs are closed: writers that still live are a fault.
            let Some(entry) = place(state, &mut pages.used, entry)? else {
                return if complete { Err(RepositoryError::StrangeFrame) } else { Ok(()) };
            };
            pages.entries += 1;
            pages.content_bytes += entry.size;
            builder.push(&entry);
            if builder.is_full() {
                self.write_page(state, std::mem::take(&mut builder), &mut pages)?;
            }
            Ok(())
        });
        state.entries = entries;
        result?;
        self.write_page(state, builder, &mut pages)?;
        Ok(pages)
    }

    fn write_page(&self, state: &mut State, builder: PageBuilder, pages: &mut Pages) -> Result<(), RepositoryError> {
        let entries = builder.entries();
        if entries == 0 {
            return Ok(());
        }
        let (plain, first) = builder.finish();
        let identity = Identity::of(&self.repository.vault.keys.ring().identity(), &plain);
        let place = match self.known.index.pages.get(&identity) {
            Some(place) => {
                pages.shared.insert(place.pack);
                *place
            }
            None => self.put_meta(state, Kind::Entries, &plain)?,
        };
        pages.refs.push(PageRef { place, entries, first });
        Ok(())
    }

    /// The root, and the packs that it refers to.
    fn root(&self, state: &State, pages: Pages) -> Result<(Root, References), RepositoryError> {
        let mut references = References { shared: pages.shared, used: HashSet::new() };
        let mut root =
            Root { entries: pages.entries, content_bytes: pages.content_bytes, tables: Vec::new(), pages: pages.refs };
        for (number, PackPlace { table, index }) in (0_u32..).zip(&state.packs) {
            let used = pages.used.get(*table as usize).and_then(|used| used.get(*index as usize));
            if used == Some(&true) {
                references.used.insert(number);
            }
        }
        for (table, used) in state.tables.iter().zip(pages.used) {
            let SessionTable::Sealed { place, ours, .. } = table else { continue };
            if !used.contains(&true) {
                continue;
            }
            if !ours {
                let packs = self.repository.vault.tables(place)?;
                references.shared.insert(place.pack);
                references.shared.extend(packs.iter().zip(&used).filter(|(_, used)| **used).map(|(pack, _)| pack.pack));
            }
            root.tables.push(TableRef { place: *place, used });
        }
        Ok((root, references))
    }
}

/// Packs that a commit refers to: those of earlier sessions by id, this one's by number.
struct References {
    shared: HashSet<PackId>,
    used: HashSet<u32>,
}

/// The entry as it stands in a page, and its packs marked as used. `None` if one of them is not closed yet.
fn place(
    state: &State,
    used: &mut [Vec<bool>],
    entry: RawEntry<u32>,
) -> Result<Option<RawEntry<(Identity, u32)>>, RepositoryError> {
    let locate = |number: u32| -> Option<(&PackPlace, &Locator)> {
        let found = state.packs.get(number as usize).filter(|found| found.table != UNPLACED)?;
        match state.tables.get(found.table as usize)? {
            SessionTable::Sealed { place, .. } => Some((found, place)),
            SessionTable::Growing => None,
        }
    };
    let mut runs = Vec::with_capacity(entry.runs.len());
    let mut marks = Vec::with_capacity(entry.runs.len());
    for run in &entry.runs {
        runs.push(match *run {
            RawRun::Zero { len } => RawRun::Zero { len },
            RawRun::Frames { pack, first, count } => {
                let Some((found, table)) = locate(pack) else { return Ok(None) };
                marks.push((found.table, found.index));
                RawRun::Frames { pack: (table.identity, found.index), first, count }
            }
        });
    }
    for (table, index) in marks {
        used[table as usize][index as usize] = true;
    }
    Ok(Some(RawEntry { name: entry.name, meta: entry.meta, size: entry.size, runs }))
}
