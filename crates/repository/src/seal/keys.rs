//! The opened keys of a repository: one master key per epoch, and what is derived from them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use zeroize::Zeroizing;

use super::{Aead, KEY_LEN, NONCE_ZERO, RecordSeal, SealError, TAG_LEN, context, derive};
use crate::id::{self, PackId, RepositoryId};

/// Which master key: 0 is the one that the repository began with, each rotation adds one.
pub type Epoch = u32;

/// One master key. Wiped from memory when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MasterKey(pub(crate) Zeroizing<[u8; KEY_LEN]>);

impl MasterKey {
    pub(crate) fn random() -> Result<Self, id::NoRandom> {
        id::random().map(|bytes| Self(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// First bytes of a sealed record.
const RECORD_MAGIC: [u8; 4] = *b"OXLR";
/// magic, version and epoch, salt.
const RECORD_HEADER_LEN: usize = 4 + 4 + 4 + 16;
/// The only format of sealed records so far.
const RECORD_VERSION: u32 = 1;

/// All master keys up to the newest.
#[derive(Clone, Debug)]
pub(crate) struct KeyRing {
    pub(crate) repository: RepositoryId,
    /// By epoch; never empty.
    masters: Vec<MasterKey>,
}

impl KeyRing {
    /// `masters` by epoch, at least one.
    pub(crate) fn new(repository: RepositoryId, masters: Vec<MasterKey>) -> Self {
        assert!(!masters.is_empty(), "a repository has a master key");
        Self { repository, masters }
    }

    pub(crate) fn masters(&self) -> &[MasterKey] {
        &self.masters
    }

    /// What new objects are sealed with.
    pub(crate) fn newest(&self) -> Epoch {
        Epoch::try_from(self.masters.len() - 1).expect("rotations are bounded far below")
    }

    pub(crate) fn master(&self, epoch: Epoch) -> Result<&MasterKey, SealError> {
        let found = usize::try_from(epoch).ok().and_then(|epoch| self.masters.get(epoch));
        found.ok_or(SealError::NewerEpoch { epoch, newest: self.newest() })
    }

    /// The key of one pack's frames and footer.
    pub(crate) fn pack(&self, epoch: Epoch, pack: PackId) -> Result<Aead, SealError> {
        let master = self.master(epoch)?;
        Ok(Aead::new(&derive(context::PACK, &*master.0, &[self.repository.as_bytes(), pack.as_bytes()])))
    }

    /// The key of frames' identities. It stays over rotations: otherwise nothing would be shared across one.
    pub(crate) fn identity(&self) -> Zeroizing<[u8; KEY_LEN]> {
        derive(context::IDENTITY, &*self.masters[0].0, &[self.repository.as_bytes()])
    }

    /// The key of one object of WAL. The salt makes another one each time, so that two who seal different bytes for one name never use
    /// a nonce twice.
    pub(crate) fn wal_object(&self, epoch: Epoch, salt: &[u8; 16], name: &str) -> Result<Aead, SealError> {
        let master = self.master(epoch)?;
        let parts: &[&[u8]] = &[self.repository.as_bytes(), salt, name.as_bytes()];
        Ok(Aead::new(&derive(context::WAL_OBJECT, &*master.0, parts)))
    }

    /// The key of identities of WAL. Like that of frames it stays over rotations.
    pub(crate) fn wal_identity(&self) -> Zeroizing<[u8; KEY_LEN]> {
        derive(context::WAL_IDENTITY, &*self.masters[0].0, &[self.repository.as_bytes()])
    }

    /// What a stream is called in names of objects.
    pub(crate) fn wal_stream(&self, stream: &[u8]) -> [u8; 16] {
        let whole = derive(context::WAL_STREAM, &*self.masters[0].0, &[self.repository.as_bytes(), stream]);
        std::array::from_fn(|at| whole[at])
    }

    fn record(&self, epoch: Epoch, n: u64, salt: &[u8]) -> Result<Aead, SealError> {
        let master = self.master(epoch)?;
        let parts: &[&[u8]] = &[self.repository.as_bytes(), &n.to_le_bytes(), salt];
        Ok(Aead::new(&derive(context::RECORD, &*master.0, parts)))
    }
}

fn number(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The epoch that the header of a record names.
fn record_epoch(header: &[u8]) -> Epoch {
    number(header, 8)
}

impl RecordSeal for KeyRing {
    fn seal_record(&self, n: u64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let epoch = self.newest();
        let salt: [u8; 16] = id::random()?;
        let mut sealed = Vec::with_capacity(RECORD_HEADER_LEN + plain.len() + TAG_LEN);
        sealed.extend_from_slice(&RECORD_MAGIC);
        sealed.extend_from_slice(&RECORD_VERSION.to_le_bytes());
        sealed.extend_from_slice(&epoch.to_le_bytes());
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(plain);
        let (header, text) = sealed.split_at_mut(RECORD_HEADER_LEN);
        let tag = self.record(epoch, n, &salt)?.seal(NONCE_ZERO, header, text);
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    fn open_record(&self, n: u64, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() < RECORD_HEADER_LEN + TAG_LEN {
            return Err(SealError::Malformed { what: "shorter than an empty record" });
        }
        let (header, text) = sealed.split_at(RECORD_HEADER_LEN);
        if header[..4] != RECORD_MAGIC {
            return Err(SealError::Malformed { what: "no record of a log" });
        }
        if number(header, 4) != RECORD_VERSION {
            return Err(SealError::Malformed { what: "a record of an unknown version" });
        }
        let mut text = text.to_vec();
        let key = self.record(record_epoch(header), n, &header[12..])?;
        let len = key.open(NONCE_ZERO, header, &mut text)?.len();
        text.truncate(len);
        Ok(text)
    }
}

/// The keys of an opened repository, which a rotation replaces while others use them.
#[derive(Debug)]
pub(crate) struct Keys {
    ring: RwLock<Arc<KeyRing>>,
    /// The lowest and the highest record of each epoch that was opened.
    records: Mutex<BTreeMap<Epoch, (u64, u64)>>,
}

/// The log seals things that are no records under numbers with this bit.
const NO_RECORD: u64 = 1 << 63;

impl Keys {
    pub(crate) fn new(ring: KeyRing) -> Self {
        Self { ring: RwLock::new(Arc::new(ring)), records: Mutex::default() }
    }

    pub(crate) fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, ring: KeyRing) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Epochs never go back along the log: after a rotation, whoever holds only older keys can append nothing.
    fn in_order(&self, n: u64, epoch: Epoch) -> bool {
        if n & NO_RECORD != 0 {
            return true;
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let newer_before = records.range(epoch + 1..).any(|(_, (lowest, _))| *lowest < n);
        let older_behind = records.range(..epoch).any(|(_, (_, highest))| *highest > n);
        let (lowest, highest) = records.entry(epoch).or_insert((n, n));
        (*lowest, *highest) = ((*lowest).min(n), (*highest).max(n));
        !newer_before && !older_behind
    }
}

impl RecordSeal for Keys {
    fn seal_record(&self, n: u64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.ring().seal_record(n, plain)
    }

    fn open_record(&self, n: u64, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let plain = self.ring().open_record(n, sealed)?;
        if self.in_order(n, record_epoch(sealed)) { Ok(plain) } else { Err(SealError::Forged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(repository: u8, epochs: u8) -> KeyRing {
        let masters = (0..epochs).map(|epoch| MasterKey(Zeroizing::new([epoch; KEY_LEN]))).collect();
        KeyRing::new(RepositoryId([repository; 16]), masters)
    }

    #[test]
    fn records_open_only_at_their_place() {
        let keys = ring(1, 2);
        let sealed = keys.seal_record(5, b"open").unwrap();
        assert_eq!(keys.open_record(5, &sealed).unwrap(), b"open");
        assert_eq!(keys.open_record(6, &sealed), Err(SealError::Forged));
        assert_eq!(ring(2, 2).open_record(5, &sealed), Err(SealError::Forged));
        assert_eq!(ring(1, 1).open_record(5, &sealed), Err(SealError::NewerEpoch { epoch: 1, newest: 0 }));
        let older = ring(1, 1).seal_record(5, b"open").unwrap();
        assert_eq!(keys.open_record(5, &older).unwrap(), b"open");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open_record(5, &changed).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(keys.open_record(5, &sealed[..len]).is_err());
        }
    }

    #[test]
    fn older_keys_append_nothing_after_a_rotation() {
        let (old, new) = (ring(1, 1), ring(1, 2));
        let keys = Keys::new(ring(1, 2));
        for (n, by) in [(0, &old), (1, &old), (2, &new), (3, &new)] {
            assert_eq!(keys.open_record(n, &by.seal_record(n, b"x").unwrap()).unwrap(), b"x");
        }
        // A checkpoint is no record.
        assert!(keys.open_record(NO_RECORD | 9, &old.seal_record(NO_RECORD | 9, b"x").unwrap()).is_ok());
        assert_eq!(keys.open_record(4, &old.seal_record(4, b"x").unwrap()), Err(SealError::Forged));
    }

    #[test]
    fn debug_shows_no_key() {
        assert!(!format!("{:?}", ring(1, 2)).contains("1, 1"));
    }
}
