//! Frames and packs in a store: fetched, opened and checked; written once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    error::RepositoryError,
    frame::{Decoder, Identity, Kind},
    manifest::parse_tables,
    pack::{self, Locator, PackOpener, PackTable, SealedPack},
    seal::{Keys, SealError},
    store::{ObjectName, Put, Store},
};

/// Frames of tables that are kept: 16 of up to about 400 KiB.
const TABLES_CACHED_MAX: usize = 16;
/// Decoders that are kept for the next caller.
const DECODERS_KEPT_MAX: usize = 8;
/// The most bytes that are fetched in one piece when frames follow one another.
pub(crate) const RUN_BYTES_MAX: usize = 4 << 20;

/// A store and the keys to it.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keys>,
    decoders: Decoders,
    tables: Mutex<VecDeque<(Identity, Arc<Vec<PackTable>>)>>,
}

#[derive(Default)]
struct Decoders(Mutex<Vec<Decoder>>);

impl std::fmt::Debug for Decoders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoders")
    }
}

impl Decoders {
    fn with<T>(&self, work: impl FnOnce(&mut Decoder) -> T) -> Result<T, RepositoryError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decoder = match kept {
            Some(decoder) => decoder,
            None => Decoder::new().map_err(RepositoryError::Compression)?,
        };
        let result = work(&mut decoder);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < DECODERS_KEPT_MAX {
            kept.push(decoder);
        }
        Ok(result)
    }
}

pub(crate) fn pack_object(pack: crate::PackId) -> ObjectName {
    ObjectName::new(pack::object_name(pack)).expect("hexadecimal digits are allowed in a name")
}

impl Vault {
    pub(crate) fn new(store: Arc<dyn Store>, keys: Arc<Keys>) -> Self {
        Self { store, keys, decoders: Decoders::default(), tables: Mutex::default() }
    }

    /// One frame, authenticated and compared with its identity.
    pub(crate) fn frame(&self, place: &Locator, kind: Kind) -> Result<Vec<u8>, RepositoryError> {
        let mut plain = Vec::new();
        self.frames(std::slice::from_ref(place), kind, &mut |_, bytes| {
            plain = bytes;
            Ok(())
        })?;
        Ok(plain)
    }

    /// Frames that lie one behind the other in one pack, fetched together. `each` gets the index and the plain bytes.
    ///
    /// The places come from an authenticated table, so that they are what the writer meant.
    pub(crate) fn frames(
        &self,
        places: &[Locator],
        kind: Kind,
        each: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(()) };
        let opener = PackOpener::new(&self.keys.ring(), first.pack, first.epoch)?;
        let len = (last.offset + last.sealed_len - first.offset) as usize;
        let mut sealed = self.store.get_range(&pack_object(first.pack), u64::from(first.offset), len)?;
        for (at, place) in places.iter().enumerate() {
            let start = (place.offset - first.offset) as usize;
            let bytes = &mut sealed[start..start + place.sealed_len as usize];
            let opened = self.decoders.with(|decoder| opener.frame(place, kind, bytes, decoder))?;
            each(at, opened.map_err(|error| RepositoryError::sealed(place, error))?)?;
        }
        Ok(())
    }

    /// A frame of tables, from the cache where it is there.
    pub(crate) fn tables(&self, place: &Locator) -> Result<Arc<Vec<PackTable>>, RepositoryError> {
        let cache = || self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tables)) = cache().iter().find(|(identity, _)| *identity == place.identity) {
            return Ok(Arc::clone(tables));
        }
        let plain = self.frame(place, Kind::Table)?;
        let tables = parse_tables(&plain).map_err(|error| RepositoryError::form(place, error))?;
        let tables = Arc::new(tables);
        let mut cache = cache();
        if cache.len() >= TABLES_CACHED_MAX {
            cache.pop_front();
        }
        cache.push_back((place.identity, Arc::clone(&tables)));
        Ok(tables)
    }

    /// Writes a pack. Called again with the same pack after an error, it goes on from whatever is there.
    pub(crate) fn put(&self, pack: &SealedPack) -> Result<(), RepositoryError> {
        let name = pack_object(pack.table.pack);
        match self.store.put_if_absent(&name, pack.bytes())? {
            Put::Created => Ok(()),
            // After an unclear reply our own write looks like somebody else's.
            Put::Exists if self.store.get(&name)? == pack.bytes() => Ok(()),
            Put::Exists => Err(RepositoryError::Taken { object: name.to_string() }),
        }
    }

    /// A pack's table from its own footer, by two small reads; and whose session wrote it. The frames are not looked at.
    pub(crate) fn footer(
        &self,
        pack: crate::PackId,
        size: u64,
    ) -> Result<(crate::SessionId, PackTable), RepositoryError> {
        let name = pack_object(pack);
        let bad = |what: String| RepositoryError::Damaged { object: name.to_string(), what };
        let malformed = |error: crate::wire::BadBytes| bad(error.to_string());
        let cut = || bad("it is cut off".to_owned());
        let head = self.store.get_range(&name, 0, pack::HEADER_LEN.min(usize::try_from(size).unwrap_or(usize::MAX)))?;
        let epoch = pack::parse_header(&head, pack).map_err(malformed)?;
        let tail_at = size.checked_sub(pack::TRAILER_LEN as u64).ok_or_else(cut)?;
        let tail = self.store.get_range(&name, tail_at, pack::TRAILER_LEN)?;
        let footer_len = pack::parse_trailer(&tail).map_err(malformed)?;
        let footer_at = tail_at.checked_sub(footer_len as u64).ok_or_else(cut)?;
        let mut sealed = self.store.get_range(&name, footer_at, footer_len)?;
        let opened = PackOpener::new(&self.keys.ring(), pack, epoch)
            .and_then(|opener| opener.footer(&mut sealed, pack::frames_of(footer_len)));
        let (session, frames) = opened.map_err(|error| match error {
            SealError::NewerEpoch { .. } => RepositoryError::Seal(error),
            error => bad(crate::error::first_line(&error.to_string())),
        })?;
        let table = PackTable { pack, epoch, frames };
        if table.object_len() != size {
            return Err(bad("its frames do not fill it".to_owned()));
        }
        Ok((session, table))
    }
}
