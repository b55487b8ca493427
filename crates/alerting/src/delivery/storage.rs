//! The outbox on its own thread: fsync may take seconds on the disk whose trouble we report, and nothing may block the runtime.

use std::{
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread,
};

use model::{Alert, AlertKey};
use tokio::sync::mpsc;

use crate::outbox::{Outbox, OutboxError, Pending};

/// Writes that wait for the disk. Beyond it the disk is as good as gone, and that is said.
const WAITING_WRITES: usize = 4_096;

/// What the thread is asked to do, in order.
pub(super) enum Write {
    Put(Box<Pending>),
    Remove(u64),
    Note(Box<Alert>),
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
    pub(super) fn start(dir: PathBuf, outbox: Option<Outbox>) -> (Self, mpsc::Receiver<WriteFailed>) {
        let (writes, queue) = std_mpsc::sync_channel(WAITING_WRITES);
        let (failures, failures_rx) = mpsc::channel(WAITING_WRITES);
        let report = failures.clone();
        let thread = thread::Builder::new().name("outbox".into()).stack_size(256 * 1024);
        if let Err(error) = thread.spawn(move || run(&dir, outbox, &queue, &report)) {
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
        Write::Note(alert) => Some(alert.key.clone()),
        Write::Remove(_) => None,
    }
}

fn run(
    dir: &Path,
    mut outbox: Option<Outbox>,
    queue: &std_mpsc::Receiver<Write>,
    failures: &mpsc::Sender<WriteFailed>,
) {
    for write in queue {
        let key = key(&write);
        if let Err(error) = perform(dir, &mut outbox, write) {
            let _ = failures.try_send(WriteFailed { key, error: error.to_string() });
        }
    }
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
        Write::Note(alert) => outbox.note(&alert),
    }
}
