//! A store in memory, for tests and for models of the protocol.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{ObjectName, Operation, Put, Store, StoreError, StoreErrorKind};

/// Objects in memory, gone with the value. Clones share the objects.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<ObjectName, Arc<[u8]>>>>,
}

const PLACE: &str = "memory";

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Arc<[u8]>>> {
        // No code panics while it holds the lock, and a map of whole objects is right even if some did.
        self.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Breaks the rules on purpose: puts these bytes there whatever was there. For tests of checks.
    pub fn tamper(&self, name: &ObjectName, bytes: &[u8]) {
        self.objects().insert(name.clone(), bytes.into());
    }

    /// All objects as they are now.
    pub fn snapshot(&self) -> BTreeMap<ObjectName, Arc<[u8]>> {
        self.objects().clone()
    }
}

impl Store for MemoryStore {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let mut objects = self.objects();
        if objects.contains_key(name) {
            return Ok(Put::Exists);
        }
        objects.insert(name.clone(), bytes.into());
        Ok(Put::Created)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        match self.objects().get(name) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(StoreError::not_found(Operation::Get, name, PLACE)),
        }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let object = self.objects().get(name).cloned();
        let object = object.ok_or_else(|| StoreError::not_found(Operation::Get, name, PLACE))?;
        usize::try_from(offset)
            .ok()
            .and_then(|from| object.get(from..from.checked_add(len)?))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| {
                let reason = format!("it has {} bytes; {len} were wanted from {offset}", object.len());
                StoreError::new(Operation::Get, name, PLACE, StoreErrorKind::Short, reason)
            })
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        Ok(self.objects().get(name).map(|bytes| bytes.len() as u64))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects().remove(name);
        Ok(())
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        // `each` may use the store.
        let found: Vec<_> = (self.objects().iter())
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect();
        found.into_iter().for_each(|(name, size)| each(name, size));
        Ok(())
    }

    fn describe(&self) -> String {
        PLACE.to_owned()
    }
}
