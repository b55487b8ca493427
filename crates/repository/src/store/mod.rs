//! Where objects lie: a flat set of names, each with bytes that never change.
//!
//! One primitive carries the whole repository: [`Store::put_if_absent`]. There is no overwrite and no rename, so a late writer
//! (one that slept through its own replacement) can add garbage but can't harm anything that is there. Listings are for checks and
//! for cleaning only: object stores may serve them late, so no state is ever read from one.

mod error;
mod faulty;
mod local;
mod memory;
mod name;
mod probe;
mod retrying;

pub use error::{Operation, StoreError, StoreErrorKind};
pub use faulty::{Fault, FaultyStore};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use name::{BadName, ObjectName};
pub use probe::probe;
pub use retrying::{Retries, Retrying};

use std::{fmt::Debug, sync::Arc};

/// Largest object that is read or written as a whole, in bytes. A pack stays well below; what is larger is not ours, and reading
/// it would break the bound on memory.
pub const MAX_OBJECT_BYTES: u64 = 256 << 20;

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is new and is ours.
    Created,
    /// There was an object of this name. Nothing was changed. After an unclear reply it may be our own: compare the bytes.
    Exists,
}

/// What [`Store::clean_leftovers`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Unfinished objects that it removed.
    pub removed: u64,
    /// Their bytes, as far as they took room of their own.
    pub bytes: u64,
    /// Unfinished objects that it left: somebody writes them, or nobody can tell.
    pub kept: u64,
}

/// A place for objects. Every method may be called from many threads at once.
///
/// Whoever decorates a store (retries, faults) keeps these promises:
/// - an object is there whole or not at all, for every reader, at every moment;
/// - of all puts of one name at most one creates, and it stays as it is until it is deleted;
/// - when `put_if_absent` returns `Ok`, `Created` *or* `Exists`, the object survives a loss of power; so does a `delete`;
/// - when a mutation returns an error, it may have happened, may not have, and may still happen later.
pub trait Store: Send + Sync + Debug {
    /// Writes an object unless there is one of that name.
    ///
    /// # Errors
    /// See [`StoreErrorKind`]. The object may be there all the same.
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError>;

    /// The whole object, at most [`MAX_OBJECT_BYTES`].
    ///
    /// # Errors
    /// `NotFound` where there is none; `TooLarge` beyond the bound; others as they come.
    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError>;

    /// Exactly `len` bytes from `offset` on.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Short` where the object ends before.
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// How long the object is, in bytes; `None` where there is none.
    ///
    /// # Errors
    /// Where the store can't say.
    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError>;

    /// Removes the object. That there is none is fine.
    ///
    /// # Errors
    /// Where the store refuses or can't say.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Calls `each` with every object whose name begins with `prefix`, and its length in bytes, in no promised order. What changes
    /// meanwhile may be seen or not. For checks and for cleaning, never for state.
    ///
    /// # Errors
    /// Where the store can't be listed; some objects may have been told before.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError>;

    /// Makes sure that an object which was seen survives a loss of power, as after a put of one's own. Needed by whoever builds upon
    /// what another writer stored without storing it again. Nothing to do where what can be read is durable.
    ///
    /// # Errors
    /// Where the store can't promise it.
    fn settle(&self, _name: &ObjectName) -> Result<(), StoreError> {
        Ok(())
    }

    /// How a person calls this store: a path or an address, without secrets.
    fn describe(&self) -> String;

    /// Bytes that can still be written, where the store has such a bound and knows it.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Removes what writers that died have left half written, where the store shows such a thing at all. Safe at any time, beside any
    /// number of writers.
    ///
    /// # Errors
    /// Where something can't be read or not be removed.
    fn clean_leftovers(&self) -> Result<Leftovers, StoreError> {
        Ok(Leftovers::default())
    }
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        (**self).put_if_absent(name, bytes)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        (**self).get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        (**self).get_range(name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        (**self).size(name)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        (**self).delete(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        (**self).list(prefix, each)
    }

    fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        (**self).settle(name)
    }

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn free_bytes(&self) -> Option<u64> {
        (**self).free_bytes()
    }

    fn clean_leftovers(&self) -> Result<Leftovers, StoreError> {
        (**self).clean_leftovers()
    }
}
