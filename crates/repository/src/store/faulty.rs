//! A store that fails on purpose, for tests: at the n-th operation it refuses, loses the reply, dies before or after the effect, or
//! lets the effect happen long after its writer gave up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use super::{Leftovers, ObjectName, Operation, Put, Store, StoreError, StoreErrorKind};

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this kind of error, and has no effect.
    Fail(StoreErrorKind),
    /// The process dies before it: no effect, and every later operation fails with `Stopped`.
    CrashBefore,
    /// The process dies right after it: the effect is there, nobody hears of it, and every later operation fails with `Stopped`.
    CrashAfter,
    /// It has its effect, but the reply is lost (`Unavailable`).
    LoseReply,
    /// The reply is lost (`Unavailable`), and a write or removal takes effect only when [`FaultyStore::deliver`] is called: a request
    /// that hangs in some network.
    Limbo,
    /// It goes well, but late.
    Delay(Duration),
}

#[derive(Debug)]
enum Pending {
    Put(ObjectName, Vec<u8>),
    Delete(ObjectName),
}

#[derive(Debug, Default)]
struct Script {
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    stopped: bool,
    limbo: Vec<Pending>,
}

/// A store with a script of faults. Operations are counted from 1, over all methods that take a name, and listings.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    script: Mutex<Script>,
}

impl<S: Store> FaultyStore<S> {
    /// `inner` with `faults`: the number of the operation, and what happens to it.
    pub fn new(inner: S, faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        let script = Script { faults: faults.into_iter().collect(), ..Script::default() };
        Self { inner, script: Mutex::new(script) }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many operations there were: a test runs once without faults and then puts one at each.
    pub fn operations(&self) -> u64 {
        self.script().operations
    }

    /// Puts a fault at the operation `ahead` from now on; 1 is the next one.
    pub fn plan(&self, ahead: u64, fault: Fault) {
        let mut script = self.script();
        let at = script.operations + ahead;
        script.faults.insert(at, fault);
    }

    /// Whether a crash happened.
    pub fn stopped(&self) -> bool {
        self.script().stopped
    }

    /// Lets everything in limbo happen now, whoever waits for it or not.
    ///
    /// # Errors
    /// What the store below says.
    pub fn deliver(&self) -> Result<(), StoreError> {
        let limbo = std::mem::take(&mut self.script().limbo);
        for pending in limbo {
            match pending {
                Pending::Put(name, bytes) => drop(self.inner.put_if_absent(&name, &bytes)?),
                Pending::Delete(name) => self.inner.delete(&name)?,
            }
        }
        Ok(())
    }

    fn run<T>(
        &self,
        operation: Operation,
        name: &str,
        pending: impl FnOnce() -> Option<Pending>,
        act: impl FnOnce(&S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let error = |kind, reason| Err(StoreError::new(operation, name, self.inner.describe(), kind, reason));
        let fault = {
            let mut script = self.script();
            if script.stopped {
                return error(StoreErrorKind::Stopped, "the process died before");
            }
            script.operations += 1;
            let at = script.operations;
            script.faults.remove(&at)
        };
        match fault {
            None => act(&self.inner),
            Some(Fault::Delay(time)) => {
                std::thread::sleep(time);
                act(&self.inner)
            }
            Some(Fault::Fail(kind)) => error(kind, "as the test wants it"),
            Some(Fault::CrashBefore) => {
                self.script().stopped = true;
                error(StoreErrorKind::Stopped, "the process died before it")
            }
            Some(Fault::CrashAfter) => {
                let _unheard = act(&self.inner);
                self.script().stopped = true;
                error(StoreErrorKind::Stopped, "the process died after it")
            }
            Some(Fault::LoseReply) => {
                let _unheard = act(&self.inner);
                error(StoreErrorKind::Unavailable, "the reply is lost")
            }
            Some(Fault::Limbo) => {
                if let Some(pending) = pending() {
                    self.script().limbo.push(pending);
                }
                error(StoreErrorKind::Unavailable, "no reply")
            }
        }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let pending = || Some(Pending::Put(name.clone(), bytes.to_vec()));
        self.run(Operation::Put, name.as_str(), pending, |store| store.put_if_absent(name, bytes))
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        self.run(Operation::Get, name.as_str(), || None, |store| store.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.run(Operation::Get, name.as_str(), || None, |store| store.get_range(name, offset, len))
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.run(Operation::Size, name.as_str(), || None, |store| store.size(name))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let pending = || Some(Pending::Delete(name.clone()));
        self.run(Operation::Delete, name.as_str(), pending, |store| store.delete(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.run(Operation::List, prefix, || None, |store| store.list(prefix, each))
    }

    fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.run(Operation::Put, name.as_str(), || None, |store| store.settle(name))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn clean_leftovers(&self) -> Result<Leftovers, StoreError> {
        self.inner.clean_leftovers()
    }
}
