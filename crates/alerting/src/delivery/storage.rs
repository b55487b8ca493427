//! The outbox on its own thread: fsync may take seconds on the disk whose trouble we report, and nothing may block the runtime.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread,
};

use model::{Alert, AlertKey};
use tokio::sync::{mpsc, watch};

use crate::{
    hush::{Book, Hush},
    outbox::{Outbox, OutboxError, Pending},
};

/// Writes that wait for the disk. Beyond it the disk is as good as gone, and that is said.
const WAITING_WRITES: usize = 4_096;

/// What the thread is asked to do, in order.
pub(super) enum Write {
    Put(Box<Pending>),
    Remove(u64),
    Note(Box<Alert>, BTreeSet<String>),
    /// Read again what people said.
    LookAtHush,
}

/// A write that failed.
pub(super) struct WriteFailed {
    /// Whose alert is not durable; none for a removal.
    pub(super) key: Option<AlertKey>,
    pub(super) error: String,
}

/// The thread's end in the supervisor. Dropping it lets the thread finish its writes and end.
pub(super) struct Storage {
    writes: std_mpsc::SyncSender<Write>,
    failures: mpsc::Sender<WriteFailed>,
}

impl Storage {
    /// Starts the thread. The second receiver ends when the thread has.
    pub(super) fn start(
        dir: PathBuf,
        outbox: Option<Outbox>,
        hush: watch::Sender<Hush>,
    ) -> (Self, mpsc::Receiver<WriteFailed>) {
        let (writes, queue) = std_mpsc::sync_channel(WAITING_WRITES);
        let (failures, failures_rx) = mpsc::channel(WAITING_WRITES);
        let report = failures.clone();
        let thread = thread::Builder::new().name("outbox".into()).stack_size(256 * 1024);
        if let Err(error) = thread.spawn(move || run(&dir, outbox, &queue, &report, &hush)) {
            // Then every write is refused below, and said so.
            tracing::error!(
                "outbox: no thread for it: {error}. Hint: raise the limit on tasks of the guard's user or unit"
            );
        }
        (Self { writes, failures }, failures_rx)
    }

    pub(super) fn ask(&self, write: Write) {
        let (refused, error) = match self.writes.try_send(write) {
            Ok(()) => return,
            Err(std_mpsc::TrySendError::Full(write)) => (write, "its disk does not keep up"),
            Err(std_mpsc::TrySendError::Disconnected(write)) => (write, "its thread is gone"),
        };
        let error = format!("outbox: {error}. Hint: see whether the disk of the state directory answers");
        let _ = self.failures.try_send(WriteFailed { key: key(&refused), error });
    }
}

fn key(write: &Write) -> Option<AlertKey> {
    match write {
        Write::Put(pending) => Some(pending.alert.key.clone()),
        Write::Note(alert, _) => Some(alert.key.clone()),
        Write::Remove(_) | Write::LookAtHush => None,
    }
}

fn run(
    dir: &Path,
    mut outbox: Option<Outbox>,
    queue: &std_mpsc::Receiver<Write>,
    failures: &mpsc::Sender<WriteFailed>,
    hush: &watch::Sender<Hush>,
) {
    let book = Book::new(dir);
    let mut broken = None;
    for write in queue {
        if matches!(write, Write::LookAtHush) {
            look(&book, hush, &mut broken);
            continue;
        }
        let key = key(&write);
        if let Err(error) = perform(dir, &mut outbox, write) {
            let _ = failures.try_send(WriteFailed { key, error: error.to_string() });
        }
    }
}

/// Passes on what people said, also where nothing changed: then that is known. What can't be read is told once, and silences nothing.
fn look(book: &Book, hush: &watch::Sender<Hush>, broken: &mut Option<String>) {
    let (said, error) = match book.read() {
        Ok(said) => (said, None),
        Err(error) => (Hush::default(), Some(error.to_string())),
    };
    if let Some(error) = error.as_ref().filter(|error| broken.as_ref() != Some(error)) {
        tracing::error!("no alert is silenced: {error}");
    }
    *broken = error;
    hush.send_replace(said);
}

fn perform(dir: &Path, outbox: &mut Option<Outbox>, write: Write) -> Result<(), OutboxError> {
    let outbox = match outbox {
        Some(outbox) => outbox,
        // It could not be opened at the start; perhaps now. What lies there is left to the next guard: its numbers are lower.
        None => outbox.insert(Outbox::open(dir)?.0),
    };
    match write {
        Write::Put(pending) => outbox.put(&pending),
        Write::Remove(id) => outbox.remove(id),
        Write::Note(alert, told) => outbox.note(&alert, &told),
        Write::LookAtHush => Ok(()),
    }
}
