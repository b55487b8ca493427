//! The thread that makes WAL durable, and the bounded buffer between it and the one that reads the stream.
//!
//! The reader hands over bytes in order and never waits for the store; the store's thread cuts them into segments, seals up to
//! [`SEALING_MAX`] of them side by side, puts them one after the other, flushes the tail, and acknowledges what is durable.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use model::Lsn;
use pg_format::wal::SegmentSize;
use pg_replication::StatusSender;
use repository::wal::Wal;

use super::{Listener, ReceiveError, assemble::Assembly, mapping::Mapping, plan::Place};

/// Bytes that were received and not yet taken by the store's thread. At 300 MB/s a tenth of a second.
const PENDING_BYTES_MAX: usize = 32 << 20;

/// What reader and store share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What the store's thread has not taken yet, and since when the oldest of it waits.
    pending: Vec<u8>,
    pending_since: Option<Instant>,
    /// Behind the last byte that was handed over.
    received: Lsn,
    /// Everything before this is durable.
    durable: Lsn,
    /// Since when the oldest byte waits that the store's thread has taken and that is not durable.
    taken_since: Option<Instant>,
    /// Nothing follows: store all, and end.
    closed: bool,
    /// Somebody waits for what is there.
    hurry: bool,
    /// Nobody waits any more: give up.
    abandoned: bool,
    /// The thread has ended.
    ended: bool,
    error: Option<ReceiveError>,
}

/// What the store's thread has to do.
pub(super) enum Work {
    /// Bytes, and since when the oldest of them waits.
    Bytes(Vec<u8>, Instant),
    /// The time is up.
    Nothing,
    /// There is no more.
    End,
    /// Nobody waits.
    Abandoned,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes; waits for them until `until`. `spare` comes back as the buffer.
    pub(super) fn take(&self, mut spare: Vec<u8>, until: Option<Instant>) -> Work {
        spare.clear();
        let mut state = self.state();
        loop {
            if state.abandoned {
                return Work::Abandoned;
            }
            if !state.pending.is_empty() {
                let since = state.pending_since.take().unwrap_or_else(Instant::now);
                state.taken_since.get_or_insert(since);
                let bytes = mem::replace(&mut state.pending, spare);
                drop(state);
                self.changed.notify_all();
                return Work::Bytes(bytes, since);
            }
            if state.closed {
                return Work::End;
            }
            let now = Instant::now();
            match until {
                Some(until) if until <= now || state.hurry => return Work::Nothing,
                Some(until) => {
                    let waited = self.changed.wait_timeout(state, until - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub(super) fn has_more(&self) -> bool {
        !self.state().pending.is_empty()
    }

    /// Whether somebody waits for the tail.
    pub(super) fn hurry(&self) -> bool {
        let state = self.state();
        state.hurry || state.closed
    }

    /// Sleeps, but not longer than anybody waits; false when nobody does any more.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while !state.abandoned {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Everything before `durable` is; `since` is the oldest that is not, of what was taken.
    pub(super) fn advance(&self, durable: Lsn, since: Option<Instant>) {
        let mut state = self.state();
        state.durable = state.durable.max(durable);
        state.taken_since = since;
        if state.durable >= state.received {
            state.hurry = false;
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// How far the store is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) received: Lsn,
    pub(super) durable: Lsn,
    /// How long the oldest byte waits that is not durable.
    pub(super) waiting: Duration,
    pub(super) ended: bool,
}

impl Look {
    pub(super) fn all_durable(&self) -> bool {
        self.durable >= self.received
    }
}

/// What the store's thread is given.
pub(super) struct Task {
    pub(super) wal: Arc<Wal>,
    pub(super) size: SegmentSize,
    /// Where the stream begins: the start of a segment.
    pub(super) start: Place,
    /// Everything before this is stored already, by an earlier life: nothing less is acknowledged, or the slot would go back.
    pub(super) stored: Lsn,
    /// How long bytes may wait for a flush of the tail.
    pub(super) interval: Duration,
    pub(super) status: StatusSender,
    pub(super) listener: Listener,
    /// Who makes page maps of segments that are stored.
    pub(super) mapping: Option<Arc<Mapping>>,
}

/// The store's thread, seen by the reader.
pub(super) struct Storing {
    shared: Arc<Shared>,
    /// `None` once it was waited for.
    thread: Option<JoinHandle<()>>,
}

impl Storing {
    pub(super) fn start(task: Task) -> Result<Self, ReceiveError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                pending: Vec::new(),
                pending_since: None,
                received: task.start.lsn,
                durable: task.stored,
                taken_since: None,
                closed: false,
                hurry: false,
                abandoned: false,
                ended: false,
                error: None,
            }),
            changed: Condvar::new(),
        });
        let run = {
            let shared = Arc::clone(&shared);
            move || {
                let _ended = Ended(Arc::clone(&shared));
                if let Err(error) = Assembly::run(&task, &shared) {
                    shared.state().error = Some(error);
                }
            }
        };
        let thread = thread::Builder::new().name("wal-store".to_owned()).spawn(run).map_err(ReceiveError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes bytes that follow what was handed over before; gives false, and takes nothing, when there is no room.
    pub(super) fn offer(&self, bytes: &[u8]) -> bool {
        let mut state = self.shared.state();
        // One message always fits into an empty buffer, however long it is.
        if !state.pending.is_empty() && state.pending.len() + bytes.len() > PENDING_BYTES_MAX {
            return false;
        }
        state.pending.extend_from_slice(bytes);
        state.pending_since.get_or_insert_with(Instant::now);
        state.received = Lsn(state.received.0.saturating_add(bytes.len() as u64));
        drop(state);
        self.shared.changed.notify_all();
        true
    }

    /// Asks for what is there to be made durable at once.
    pub(super) fn hurry(&self) {
        let mut state = self.shared.state();
        if state.durable < state.received && !state.hurry {
            state.hurry = true;
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    pub(super) fn look(&self) -> Look {
        let state = self.shared.state();
        let oldest = [state.taken_since, state.pending_since].into_iter().flatten().min();
        Look {
            received: state.received,
            durable: state.durable,
            waiting: oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed()),
            ended: state.ended,
        }
    }

    /// Waits for a change, at most so long.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.shared.state();
        if !state.ended {
            drop(self.shared.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Nothing follows: what is there is stored, then the thread ends.
    pub(super) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
    }

    /// The end of a thread that has ended.
    pub(super) fn finish(mut self) -> Result<Lsn, ReceiveError> {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            return Err(ReceiveError::Thread(std::io::Error::other("the thread that stores WAL panicked")));
        }
        let mut state = self.shared.state();
        state.error.take().map_or(Ok(state.durable), Err)
    }

    /// Lets the thread end by itself when the store gives it back; nobody waits for it.
    pub(super) fn abandon(self) -> Look {
        self.look()
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.shared.state().abandoned = true;
        self.shared.changed.notify_all();
    }
}

/// Tells that the thread has ended, however it does.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}
