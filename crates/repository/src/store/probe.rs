//! Whether a store keeps the one promise that everything rests on.

use super::{ObjectName, Operation, Put, Store, StoreError, StoreErrorKind};

/// Creates an object twice under one name and looks whether the second attempt was told so and changed nothing. Some stores accept
/// the condition and ignore it, so it has to be seen, when a repository is made and whenever a writer begins.
///
/// # Errors
/// `NoCreateIfAbsent` where the promise is not kept: then nobody may write but one registered writer. Others as they come.
pub fn probe(store: &dyn Store) -> Result<(), StoreError> {
    let place = store.describe();
    let broken =
        |what: &str| Err(StoreError::new(Operation::Put, "a probe", &place, StoreErrorKind::NoCreateIfAbsent, what));
    let random = crate::id::random::<16>()
        .map_err(|error| StoreError::new(Operation::Open, "a probe", &place, StoreErrorKind::Io, error))?;
    let name = ObjectName::new(format!("probe/{}", data_encoding::HEXLOWER.encode(&random)))
        .expect("hexadecimal digits make a name");
    let result = (|| {
        if store.put_if_absent(&name, b"first")? != Put::Created {
            return broken("a name that nobody used is said to exist");
        }
        if store.put_if_absent(&name, b"second")? != Put::Exists {
            return broken("it created the same object twice");
        }
        if store.get(&name)? != b"first" {
            return broken("it said that the object exists, and overwrote it");
        }
        Ok(())
    })();
    match (result, store.delete(&name)) {
        (Ok(()), Err(error)) => {
            tracing::warn!(%error, "the probe's object stays; it does no harm");
            Ok(())
        }
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    /// Two ways in which a store breaks the promise.
    #[derive(Debug)]
    struct Broken {
        inner: MemoryStore,
        says: Put,
    }

    impl Store for Broken {
        fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
            let new = self.inner.size(name)?.is_none();
            self.inner.tamper(name, bytes);
            Ok(if new { Put::Created } else { self.says })
        }

        fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
            self.inner.get(name)
        }

        fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
            self.inner.get_range(name, offset, len)
        }

        fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
            self.inner.size(name)
        }

        fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
            self.inner.delete(name)
        }

        fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
            self.inner.list(prefix, each)
        }

        fn describe(&self) -> String {
            "broken".to_owned()
        }
    }

    #[test]
    fn a_store_that_overwrites_is_found() {
        let good = MemoryStore::new();
        probe(&good).unwrap();
        assert!(good.snapshot().is_empty());
        for says in [Put::Created, Put::Exists] {
            let error = probe(&Broken { inner: MemoryStore::new(), says }).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::NoCreateIfAbsent);
            assert!(!error.is_passing());
        }
    }
}
