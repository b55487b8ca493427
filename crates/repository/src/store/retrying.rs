//! Trying again, within bounds, what may pass by itself.

use std::{fmt, time::Duration};

use super::{Leftovers, ObjectName, Put, Store, StoreError};

/// How often and how long: every operation is tried at most `attempts` times, with pauses that double from `first` to at most
/// `longest`, each shortened by chance to between a half and the whole, so that many writers do not come back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts altogether, at least one.
    pub attempts: u32,
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Retries {
    /// Six attempts over at most 6.2 seconds of pauses: long enough for a failing-over store or a remounted share to answer again,
    /// short enough that a person at the terminal hears of it. Whoever may wait longer begins the whole run again.
    fn default() -> Self {
        Self { attempts: 6, first: Duration::from_millis(200), longest: Duration::from_secs(5) }
    }
}

impl Retries {
    /// The pause after the `failed`-th failure (from 1); `chance` is between 0 and 1.
    fn pause(&self, failed: u32, chance: f64) -> Duration {
        let whole = self.first.saturating_mul(1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX)).min(self.longest);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

type Wait = dyn Fn(Duration) + Send + Sync;

/// A store that tries passing failures again; permanent ones are returned at once.
pub struct Retrying<S> {
    inner: S,
    retries: Retries,
    wait: Box<Wait>,
}

impl<S: fmt::Debug> fmt::Debug for Retrying<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("inner", &self.inner).field("retries", &self.retries).finish_non_exhaustive()
    }
}

impl<S: Store> Retrying<S> {
    /// `inner` with retries; the calling thread sleeps between them.
    pub fn new(inner: S, retries: Retries) -> Self {
        Self::waiting(inner, retries, std::thread::sleep)
    }

    /// The same, with another way to let time pass.
    pub fn waiting(inner: S, retries: Retries, wait: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self { inner, retries, wait: Box::new(wait) }
    }

    /// Runs `act` until it goes well, fails for good, or was tried often enough. `act` hears how many attempts failed before it.
    fn run<T>(&self, mut act: impl FnMut(u32) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut failed = 0;
        loop {
            match act(failed) {
                Err(error) if error.is_passing() && failed + 1 < self.retries.attempts => {
                    failed += 1;
                    let pause = self.retries.pause(failed, chance());
                    tracing::warn!(%error, attempt = failed, ?pause, "trying again");
                    (self.wait)(pause);
                }
                result => return result,
            }
        }
    }
}

fn chance() -> f64 {
    // Without random numbers the pauses are merely in step.
    crate::id::random::<4>().map_or(1.0, |bytes| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

impl<S: Store> Store for Retrying<S> {
    /// After an unclear failure `Exists` may mean our own object: the bytes decide.
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.run(|failed| match self.inner.put_if_absent(name, bytes)? {
            Put::Exists if failed > 0 => {
                Ok(if self.run(|_| self.inner.get(name))? == bytes { Put::Created } else { Put::Exists })
            }
            put => Ok(put),
        })
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        self.run(|_| self.inner.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.run(|_| self.inner.get_range(name, offset, len))
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.run(|_| self.inner.size(name))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.run(|_| self.inner.delete(name))
    }

    /// Not tried again: `each` would hear the same objects twice. Whoever lists can begin again.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.run(|_| self.inner.settle(name))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn clean_leftovers(&self) -> Result<Leftovers, StoreError> {
        self.run(|_| self.inner.clean_leftovers())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::{Fault, FaultyStore, MemoryStore, StoreErrorKind};

    type Pauses = Arc<Mutex<Vec<Duration>>>;

    fn store(faults: &[(u64, Fault)]) -> (Retrying<FaultyStore<MemoryStore>>, Pauses) {
        let pauses = Pauses::default();
        let kept = Arc::clone(&pauses);
        let inner = FaultyStore::new(MemoryStore::new(), faults.iter().copied());
        (Retrying::waiting(inner, Retries::default(), move |pause| kept.lock().unwrap().push(pause)), pauses)
    }

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    #[test]
    fn passing_failures_are_tried_again_with_longer_pauses() {
        let down = Fault::Fail(StoreErrorKind::Unavailable);
        let (store, pauses) = store(&[(1, down), (2, down), (3, down)]);
        assert_eq!(store.put_if_absent(&name("a"), b"1").unwrap(), Put::Created);
        let pauses = pauses.lock().unwrap();
        assert_eq!(pauses.len(), 3);
        for (pause, whole) in pauses.iter().zip([200, 400, 800].map(Duration::from_millis)) {
            assert!(*pause >= whole / 2 && *pause <= whole, "{pause:?} of {whole:?}");
        }
    }

    #[test]
    fn what_does_not_pass_ends_after_the_attempts() {
        let faults: Vec<_> = (1..=20).map(|n| (n, Fault::Fail(StoreErrorKind::Unavailable))).collect();
        let (store, pauses) = store(&faults);
        assert!(store.get(&name("a")).unwrap_err().is_passing());
        assert_eq!(store.inner.operations(), 6);
        assert_eq!(pauses.lock().unwrap().len(), 5);
    }

    #[test]
    fn permanent_failures_are_not_tried_again() {
        for kind in [StoreErrorKind::NoSpace, StoreErrorKind::Permission, StoreErrorKind::ReadOnly, StoreErrorKind::Io]
        {
            let (store, _) = store(&[(1, Fault::Fail(kind))]);
            assert_eq!(store.put_if_absent(&name("a"), b"1").unwrap_err().kind(), kind);
            assert_eq!(store.inner.operations(), 1);
        }
    }

    #[test]
    fn a_lost_reply_is_not_taken_for_somebody_elses_object() {
        let (store, _) = store(&[(1, Fault::LoseReply), (3, Fault::Fail(StoreErrorKind::Unavailable))]);
        assert_eq!(store.put_if_absent(&name("a"), b"1").unwrap(), Put::Created);
        assert_eq!(store.put_if_absent(&name("a"), b"1").unwrap(), Put::Exists);
    }

    #[test]
    fn somebody_elses_object_is_not_taken_for_ours() {
        let (store, _) = store(&[(2, Fault::Fail(StoreErrorKind::Unavailable))]);
        assert_eq!(store.put_if_absent(&name("a"), b"1").unwrap(), Put::Created);
        assert_eq!(store.put_if_absent(&name("a"), b"2").unwrap(), Put::Exists);
        assert_eq!(store.get(&name("a")).unwrap(), b"1");
    }
}
