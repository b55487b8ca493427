//! Packs on their way to the store: a few threads write while the writers go on compressing.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use crate::{error::RepositoryError, pack::SealedPack, store::StoreError, vault::Vault};

/// Threads that write packs. Two keep a disk busy while one waits for its fsync.
pub(super) const UPLOADERS: usize = 2;
/// Packs that wait for a thread: none. Whoever closes a pack waits until a thread takes it: memory stays bounded however slow the store is.
pub(super) const UPLOAD_QUEUE_MAX: usize = 0;
/// Buffers of stored packs that are kept for the next ones: asking the system for 16 MiB anew, and having it zero them, costs more than
/// sealing them.
const BUFFERS_KEPT_MAX: usize = UPLOADERS;

/// Why a pack is not there.
#[derive(Clone, Debug)]
enum Failure {
    Store(StoreError),
    Taken(String),
}

impl From<Failure> for RepositoryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => Self::Store(error),
            Failure::Taken(object) => Self::Taken { object },
        }
    }
}

#[derive(Debug, Default)]
struct Progress {
    /// Packs that were handed over and are neither stored nor failed.
    under_way: usize,
    stored_bytes: u64,
    stored_packs: u64,
    /// Packs that could not be stored, with the bytes as they were sealed: they may have got there, so they must never be sealed
    /// anew under the same name.
    failed: Vec<SealedPack>,
    failure: Option<Failure>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads that write a session's packs.
#[derive(Debug)]
pub(super) struct Uploader {
    vault: Arc<Vault>,
    shared: Arc<Shared>,
    sender: Option<SyncSender<SealedPack>>,
    threads: Vec<JoinHandle<()>>,
}

impl Uploader {
    pub(super) fn start(vault: &Arc<Vault>) -> Result<Self, RepositoryError> {
        let (sender, receiver) = sync_channel(UPLOAD_QUEUE_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let shared = Arc::new(Shared::default());
        let mut uploader =
            Self { vault: Arc::clone(vault), shared: Arc::clone(&shared), sender: Some(sender), threads: Vec::new() };
        for _ in 0..UPLOADERS {
            let (vault, shared, receiver) = (Arc::clone(vault), Arc::clone(&shared), Arc::clone(&receiver));
            let thread = thread::Builder::new()
                .name("upload".to_owned())
                .spawn(move || upload(&vault, &shared, &receiver))
                .map_err(RepositoryError::Thread)?;
            uploader.threads.push(thread);
        }
        Ok(uploader)
    }

    /// Hands a pack over; waits while too many are waiting. Fails as soon as one could not be stored.
    pub(super) fn submit(&self, pack: SealedPack) -> Result<(), RepositoryError> {
        {
            let mut progress = self.shared.lock();
            if let Some(failure) = progress.failure.clone() {
                progress.failed.push(pack);
                return Err(failure.into());
            }
            progress.under_way += 1;
        }
        let sender = self.sender.as_ref().expect("it is taken only when dropped");
        sender.send(pack).expect("the threads end only when the sender is dropped");
        Ok(())
    }

    /// Memory for a new pack: of a stored one, where there is one.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.shared.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Fails if a pack could not be stored.
    pub(super) fn check(&self) -> Result<(), RepositoryError> {
        self.shared.lock().failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Waits until all that was handed over is stored. Packs that failed are tried once more, with the same bytes.
    pub(super) fn drain(&self) -> Result<(), RepositoryError> {
        let mut progress = self.shared.lock();
        while progress.under_way > 0 {
            progress = self.shared.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        let failed = std::mem::take(&mut progress.failed);
        progress.failure = None;
        drop(progress);
        for pack in failed {
            put(&self.vault, &self.shared, pack);
        }
        self.check()
    }

    /// Bytes and packs that are stored.
    pub(super) fn stored(&self) -> (u64, u64) {
        let progress = self.shared.lock();
        (progress.stored_bytes, progress.stored_packs)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        drop(self.sender.take());
        for thread in self.threads.drain(..) {
            // It ended by a panic: whoever waits for its packs was told that they are under way, and never commits.
            drop(thread.join());
        }
    }
}

fn upload(vault: &Vault, shared: &Shared, receiver: &Mutex<Receiver<SealedPack>>) {
    loop {
        // The lock is held while waiting: the other threads wait for the lock instead, which is the same.
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(pack) = next else { return };
        put(vault, shared, pack);
        shared.lock().under_way -= 1;
        shared.changed.notify_all();
    }
}

fn put(vault: &Vault, shared: &Shared, pack: SealedPack) {
    let result = vault.put(&pack);
    let mut progress = shared.lock();
    match result {
        Ok(()) => {
            progress.stored_bytes += pack.bytes().len() as u64;
            progress.stored_packs += 1;
            drop(progress);
            let mut buffers = shared.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if buffers.len() < BUFFERS_KEPT_MAX {
                buffers.push(pack.into_buffer());
            }
        }
        Err(error) => {
            let failure = match error {
                RepositoryError::Store(error) => Failure::Store(error),
                other => Failure::Taken(crate::error::first_line(&other.to_string())),
            };
            progress.failure.get_or_insert(failure);
            progress.failed.push(pack);
        }
    }
}
