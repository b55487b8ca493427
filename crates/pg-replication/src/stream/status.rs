//! Telling the server how far we are, from any thread.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use model::Lsn;

use super::{Progress, message, pulse::Pulse};
use crate::{Error, shared::SharedSocket};

/// How long the server may refuse to take a status of forty bytes: it then reads nothing any more.
const SEND_MAX: Duration = Duration::from_secs(30);

/// What reader and senders share.
#[derive(Debug)]
pub(super) struct Shared {
    socket: Arc<SharedSocket>,
    host: String,
    /// Held while a message is written, so that two do not mix. Always taken before the state, which is only held for a moment.
    sending: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pulse: Pulse,
    /// Nothing may be sent any more.
    over: bool,
}

impl Shared {
    pub(super) fn new(socket: Arc<SharedSocket>, host: String, pulse: Pulse) -> Self {
        Self { socket, host, sending: Mutex::new(()), state: Mutex::new(State { pulse, over: false }) }
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Pulse) -> T) -> T {
        look(&mut self.state().pulse)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// From now on nothing is sent. Waits for a message that is half written.
    pub(super) fn end(&self) {
        let _sending = lock(&self.sending);
        self.state().over = true;
    }

    /// Sends what `compose` makes of the pulse; false when the stream is over, or it makes nothing.
    fn send(&self, compose: impl FnOnce(&mut Pulse, Instant) -> Option<BytesMut>) -> Result<bool, Error> {
        let _sending = lock(&self.sending);
        let message = {
            let mut state = self.state();
            if state.over {
                return Ok(false);
            }
            compose(&mut state.pulse, Instant::now())
        };
        let Some(message) = message else { return Ok(false) };
        self.socket.write_all(&message, Instant::now() + SEND_MAX).map(|()| true).or_else(|source| {
            // Half a message may have gone: nothing that follows would be understood.
            self.state().over = true;
            if is_gone(&source) {
                // Its last words may still wait to be read: that it ended in order, or why not. The reader tells.
                return Ok(false);
            }
            self.socket.shut_down();
            Err(Error::Io { host: self.host.clone(), doing: "sending a status", source })
        })
    }

    /// By when the next status is due, if there are to be any.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let state = self.state();
        (!state.over).then(|| state.pulse.due(now))
    }

    pub(super) fn send_status(&self, reply: bool) -> Result<bool, Error> {
        self.send(|pulse, now| Some(message::status(pulse.tell(now), SystemTime::now(), reply)))
    }

    pub(super) fn send_if_due(&self) -> Result<bool, Error> {
        self.send(|pulse, now| {
            (pulse.due(now) <= now).then(|| message::status(pulse.tell(now), SystemTime::now(), false))
        })
    }

    /// Ends our side of the stream.
    pub(super) fn send_done(&self) -> Result<bool, Error> {
        let sent = self.send(|_, _| Some(message::done()));
        self.end();
        sent
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Whether the other side has ended the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}

/// Nothing panics while it holds one of these, and if: what they guard is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the server how far we are, while another thread reads the stream, or nobody does. Clones are the same sender.
#[derive(Clone, Debug)]
pub struct StatusSender(pub(super) Arc<Shared>);

impl StatusSender {
    /// Tells the server at once how far we are. What was reported before and is further counts on.
    ///
    /// Returns false when the stream is over or the server gone, so that it did not hear of it. Why, the reader is told.
    ///
    /// # Errors
    /// [`Error::NotReceived`] when it is further than what was received, which would let the server drop WAL that nobody has; or when
    /// the connection breaks.
    pub fn report(&self, progress: Progress) -> Result<bool, Error> {
        let taken = self.0.with(|pulse| pulse.report(progress));
        taken.map_err(|too_far| Error::NotReceived {
            host: self.0.host.clone(),
            reported: too_far.reported,
            received: too_far.received,
        })?;
        self.0.send_status(false)
    }

    /// [`StatusSender::report`]s that everything before `lsn` is durable. With a slot the server drops what is older.
    ///
    /// # Errors
    /// As [`StatusSender::report`].
    pub fn flushed(&self, lsn: Lsn) -> Result<bool, Error> {
        self.report(Progress { flushed: lsn, ..Progress::default() })
    }

    /// Asks the server for a sign of life, which the reader gets.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn ping(&self) -> Result<bool, Error> {
        self.0.send_status(true)
    }

    /// How far WAL was received.
    #[must_use]
    pub fn received(&self) -> Lsn {
        self.0.with(|pulse| pulse.received())
    }

    /// What was reported so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.0.with(|pulse| pulse.progress())
    }

    /// Whether the stream is over: nothing is sent any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }

    /// Cuts the connection at once, without an acknowledgement; a reader that waits returns with an error. The server then does not wait for
    /// us any more, and a slot keeps what was not acknowledged.
    pub fn disconnect(&self) {
        // Without waiting for a status that can't be written: that one fails now.
        self.0.state().over = true;
        self.0.socket.shut_down();
    }

    /// Keeps the stream alive from a thread of its own as long as the returned value lives: for when the reader waits for storage longer
    /// than the server's `wal_sender_timeout`. After `at_most` it [`disconnect`](StatusSender::disconnect)s.
    ///
    /// The bound is there for the server's sake. A walsender whose messages nobody reads can't even be terminated once the buffers are full,
    /// for it first tries to say that it is. The checkpointer waits for that when it has to give up the walsender's slot
    /// (`max_slot_wal_keep_size`): no checkpoint ends any more, and `pg_wal` grows after all.
    ///
    /// # Errors
    /// When there can't be another thread.
    pub fn heartbeat(&self, at_most: Duration) -> io::Result<Heartbeat> {
        let (stop, stopped) = mpsc::channel::<()>();
        let sender = self.clone();
        thread::Builder::new().name("wal-heartbeat".to_owned()).spawn(move || {
            let begin = Instant::now();
            loop {
                let now = Instant::now();
                let left = at_most.saturating_sub(now.saturating_duration_since(begin));
                let Some(due) = sender.0.due(now) else { return };
                match stopped.recv_timeout(due.saturating_duration_since(now).min(left)) {
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
                if begin.elapsed() >= at_most {
                    sender.disconnect();
                    return;
                }
                // What broke it, the reader learns too.
                if sender.0.send_if_due().is_err() {
                    return;
                }
            }
        })?;
        Ok(Heartbeat { _stop: stop })
    }
}

/// Sends statuses until it is dropped; see [`StatusSender::heartbeat`].
#[derive(Debug)]
pub struct Heartbeat {
    _stop: mpsc::Sender<()>,
}
