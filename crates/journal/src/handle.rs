//! The guard's handle to its journal.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use model::{EventKind, Moment, Reading};

use crate::{
    AppendError, JournalError, JournalHealth, JournalOptions, Recording, Ticket, format,
    queue::{Queue, Row},
    writer::Writer,
};

/// The journal, open for appending. Clones are handles to the same journal; when the last one goes, the writer writes what is there and
/// ends by itself. Nothing here blocks but [`Journal::open`] and [`Journal::close`].
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Arc<Queue>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Journal {
    /// Opens or creates the journal of a state directory, whose lock ([`StateDir`](crate::StateDir)) the caller holds.
    ///
    /// # Errors
    /// When the journal is of a newer format, damaged, not ours or out of reach; nothing is changed then. A full disk, an I/O error or a
    /// lock of somebody else is no error: the journal opens, says [`Recording::Failing`] and keeps trying.
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Self, JournalError> {
        Self::start(
            dir,
            options,
            #[cfg(test)]
            Arc::default(),
        )
    }

    pub(crate) fn start(
        dir: &Path,
        options: JournalOptions,
        #[cfg(test)] knobs: Arc<crate::tests::Knobs>,
    ) -> Result<Self, JournalError> {
        options.retention.check()?;
        let queue = Arc::new(Queue::new(options.backlog, options.reading_interval));
        let path = format::path_in(dir);
        let mut writer = Writer::new(
            Arc::clone(&queue),
            path.clone(),
            options,
            #[cfg(test)]
            knobs,
        );
        writer.open()?;
        let work = move || {
            // Whatever happens, nobody may wait for ever for an event to become durable.
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                tracing::error!("the journal's writer panicked: nothing is recorded any more; please report this");
            }
            writer.end();
        };
        let spawned = thread::Builder::new().name("journal".to_owned()).spawn(work);
        spawned.map_err(|source| JournalError::Io { doing: "start a thread for", path, source })?;
        Ok(Self { shared: Arc::new(Shared { queue }) })
    }

    /// Appends an event that happened at `at`. Returns at once, whatever the store does; the ticket tells when it is on the disk. Instants
    /// are kept to the microsecond.
    pub fn append(&self, at: Moment, kind: &EventKind) -> Ticket {
        let (ticket, slot) = Ticket::new();
        match event_row(at, kind) {
            Ok(row) => self.shared.queue.push_event(row, &slot),
            Err(error) => {
                self.shared.queue.count_lost_event();
                slot.settle(Err(error));
            }
        }
        ticket
    }

    /// Records a reading within [`JournalOptions::reading_interval`] or so. Returns at once; where there is no room the oldest waiting
    /// reading goes, counted.
    pub fn record(&self, reading: &Reading) {
        match serde_json::to_string(reading) {
            Ok(body) => self.shared.queue.push_reading(Row::new(reading.at(), reading.kind(), body)),
            Err(error) => {
                tracing::error!("a reading can't be written as JSON: {error}");
                self.shared.queue.count_lost_reading();
            }
        }
    }

    /// How recording goes.
    pub fn health(&self) -> JournalHealth {
        self.shared.queue.health()
    }

    /// Accepts nothing more, writes what waits and closes the file; blocks for at most `timeout`. For the very end of a program.
    ///
    /// # Errors
    /// When something could not be written in time; it is lost when the program ends.
    pub fn close(&self, timeout: Duration) -> Result<(), JournalError> {
        let queue = &self.shared.queue;
        let before = queue.lost();
        queue.close();
        let stopped = queue.wait_stopped(timeout);
        let health = queue.health();
        let left = health.waiting_events + health.waiting_readings;
        let lost = health.lost.total().saturating_sub(before.total());
        if stopped && lost == 0 {
            return Ok(());
        }
        let last_error = match health.recording {
            Recording::Failing { error, .. } => error,
            _ if stopped => queue.last_error().unwrap_or_else(|| "they came after the end".to_owned()),
            _ => "the disk is slow: allow more time".to_owned(),
        };
        Err(JournalError::NotFlushed { waiting: left + usize::try_from(lost).unwrap_or(usize::MAX), last_error })
    }
}

/// An event as it is stored.
pub(crate) fn event_row(at: Moment, kind: &EventKind) -> Result<Row, AppendError> {
    let body = serde_json::to_string(kind).map_err(|error| AppendError::NotSerialisable(error.to_string()))?;
    debug_assert!(
        serde_json::from_str::<EventKind>(&body).is_ok_and(|back| back.name() == kind.name()),
        "an event that can't be read back: {body}"
    );
    Ok(Row::new(at, kind.name(), body))
}
