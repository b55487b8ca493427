//! `START_REPLICATION PHYSICAL`: WAL as it is written, and statuses the other way.

mod message;
mod options;
mod pulse;
mod status;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use model::Lsn;

use self::{message::Message, pulse::Pulse, status::Shared};
pub use self::{
    options::StreamOptions,
    status::{Heartbeat, StatusSender},
};
use crate::{
    Connection, Error,
    refusal::{START, STREAM},
    wire::parse_row,
};

/// The longest wait of one call, whatever was asked for.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How long the server may take to end a stream that we ended. It may have a few megabytes under way.
const FINISH_MAX: Duration = Duration::from_secs(60);

/// How far we are with the WAL, each the position behind the last byte; 0/0 for "not yet said".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Handed to the operating system or a store.
    pub written: Lsn,
    /// Durable. With a slot the server drops what lies before; a synchronous commit waits for it.
    pub flushed: Lsn,
    /// Replayed, which a receiver does not.
    pub applied: Lsn,
}

/// What comes next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum WalEvent<'a> {
    /// WAL: it follows what came before without a gap.
    Wal {
        /// The position of the first byte.
        start: Lsn,
        /// At least one byte, of any number of segments.
        bytes: &'a [u8],
    },
    /// The server lives, and may have said how far its WAL goes: see [`WalStream::server_end`].
    KeepAlive,
    /// Nothing came in the time given.
    Nothing,
    /// There is no more: the timeline ended, or the server stops. Acknowledge what is durable, then [`WalStream::finish`].
    End,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The timeline ended: go on with `timeline`, from the start of the segment that holds `switch`.
    NextTimeline {
        /// The timeline that branched off.
        timeline: u32,
        /// Where. May lie *before* the end of what was received: the server can have sent the first half of a record that was never
        /// completed. What is behind it does not count.
        switch: Lsn,
    },
    /// We ended it, and the timeline goes on.
    Finished,
    /// The server stops. It has sent all of its WAL, and everything was acknowledged.
    ServerStopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Both sides may send.
    Streaming,
    /// The server has sent all.
    ServerDone,
    /// The server has sent all, and ended the command.
    ServerStopped,
    /// There was nothing to stream: the start is the timeline's end.
    Empty,
    /// The server gave up.
    Failed,
}

/// A stream of WAL. Dropping it before [`WalStream::finish`] leaves the connection unusable; [`StatusSender::disconnect`] or dropping
/// the connection is right when the stream failed.
#[derive(Debug)]
pub struct WalStream<'c> {
    connection: &'c mut Connection,
    shared: Arc<Shared>,
    phase: Phase,
    /// Behind the last byte that was received.
    received: Lsn,
    server_end: Lsn,
    silence_max: Duration,
    /// How long was waited for the server since it said something.
    silent: Duration,
    /// Whether it was asked meanwhile.
    pinged: bool,
}

/// What a message was, while it still lies in the buffer.
enum Taken {
    Wal(Lsn, Range<usize>),
    KeepAlive,
    End,
}

impl<'c> WalStream<'c> {
    pub(crate) fn begin(connection: &'c mut Connection, options: &StreamOptions) -> Result<Self, Error> {
        let sender_timeout = connection.show_time("wal_sender_timeout")?;
        connection.send_query(&options.command(), START)?;
        let phase = match connection.wire.read(START) {
            Ok(message) => match message.tag {
                b'W' => Phase::Streaming,
                b'T' => Phase::Empty,
                _ => return Err(connection.wire.unexpected(START, &message)),
            },
            Err(refused @ Error::Server { .. }) => {
                // A refused command leaves the connection in order: what ended it says so itself.
                let _ = connection.read_ready(START);
                return Err(refused);
            }
            Err(error) => return Err(error),
        };
        connection.in_stream = true;
        let pulse = Pulse::new(options.start, options.interval(sender_timeout), sender_timeout);
        let shared = Shared::new(Arc::clone(&connection.wire.socket), connection.host().to_owned(), pulse);
        if phase == Phase::Empty {
            shared.end();
        }
        Ok(Self {
            connection,
            shared: Arc::new(shared),
            phase,
            received: options.start,
            server_end: options.start,
            silence_max: options.silence_max,
            silent: Duration::ZERO,
            pinged: false,
        })
    }

    /// What tells the server how far we are, for any thread.
    #[must_use]
    pub fn status(&self) -> StatusSender {
        StatusSender(Arc::clone(&self.shared))
    }

    /// Behind the last byte that was received.
    #[must_use]
    pub const fn received(&self) -> Lsn {
        self.received
    }

    /// How far the server's WAL went when it last said so.
    #[must_use]
    pub const fn server_end(&self) -> Lsn {
        self.server_end
    }

    /// Whether all was received that the server had when it last said so.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.received >= self.server_end
    }

    /// Whether the server seems to stop and waits only for us: it has sent everything and, though it is answered, asks on and on.
    ///
    /// PostgreSQL ends at a shutdown only when the last byte is acknowledged as flushed (or, where no flush was ever reported, as
    /// written), however long that takes. Whoever can't acknowledge in time [`StatusSender::disconnect`]s; the slot keeps the rest.
    #[must_use]
    pub fn server_seems_stopping(&self) -> bool {
        self.is_caught_up() && self.shared.with(|pulse| pulse.is_hurried())
    }

    /// The next event, or [`WalEvent::Nothing`] when there is none `within` that time. Sends the statuses that are due.
    ///
    /// # Errors
    /// When the server gives up, it is silent for too long, there is a gap in what it sends, or the connection breaks. The stream is of no use
    /// then. [`Error::refusal`] tells what also a server that began well finds out only now: [`crate::Refusal::SegmentRemoved`],
    /// [`crate::Refusal::AheadOfServer`]. After these the connection is in order.
    pub fn next(&mut self, within: Duration) -> Result<WalEvent<'_>, Error> {
        match self.phase {
            Phase::Streaming => {}
            Phase::Failed => return Err(self.failed()),
            Phase::ServerDone | Phase::ServerStopped | Phase::Empty => return Ok(WalEvent::End),
        }
        let deadline = Instant::now() + within.min(WAIT_MAX);
        loop {
            self.shared.send_if_due()?;
            let begin = Instant::now();
            // The silence before which something is to be done, measured only while somebody listens.
            let limit = if self.pinged { self.silence_max } else { self.silence_max / 2 };
            let until = begin + limit.saturating_sub(self.silent);
            let until = self.shared.due(begin).map_or(until, |due| until.min(due));
            let Some(message) = self.read_until(until.min(deadline))? else {
                let now = Instant::now();
                self.silent += now.saturating_duration_since(begin);
                if self.silent >= self.silence_max && self.pinged {
                    return Err(self.connection.wire.silent(STREAM));
                }
                if self.silent >= self.silence_max / 2 && !self.pinged {
                    self.pinged = true;
                    self.shared.send_status(true)?;
                }
                if now >= deadline {
                    return Ok(WalEvent::Nothing);
                }
                continue;
            };
            (self.silent, self.pinged) = (Duration::ZERO, false);
            match self.take(&message)? {
                Some(Taken::Wal(start, range)) => {
                    return Ok(WalEvent::Wal { start, bytes: self.connection.wire.slice(&range) });
                }
                Some(Taken::KeepAlive) => {
                    self.shared.send_if_due()?;
                    return Ok(WalEvent::KeepAlive);
                }
                Some(Taken::End) => return Ok(WalEvent::End),
                None => {}
            }
        }
    }

    /// Ends the stream, and tells why it ended. WAL that is still under way is thrown away: a later stream brings it again.
    ///
    /// # Errors
    /// When the connection breaks, or the server does not end it in a minute.
    pub fn finish(mut self) -> Result<StreamEnd, Error> {
        if self.phase == Phase::Failed {
            return Err(self.failed());
        }
        let deadline = Instant::now() + FINISH_MAX;
        if self.phase == Phase::Streaming || self.phase == Phase::ServerDone {
            self.shared.send_done()?;
        }
        while self.phase == Phase::Streaming {
            let message = self.read_by(deadline)?;
            // Only its place counts now.
            let _ = self.take(&message)?;
        }
        if self.phase == Phase::ServerStopped {
            return Ok(StreamEnd::ServerStopped);
        }
        let mut next = None;
        loop {
            let message = self.read_by(deadline)?;
            match message.tag {
                b'T' | b'C' => {}
                b'D' => {
                    let row = parse_row(self.connection.wire.bytes(&message));
                    next = Some(self.next_timeline(row.as_deref())?);
                }
                b'Z' => break,
                _ => return Err(self.connection.wire.unexpected(STREAM, &message)),
            }
        }
        self.connection.in_stream = false;
        Ok(next.unwrap_or(StreamEnd::Finished))
    }

    fn read_by(&mut self, deadline: Instant) -> Result<crate::wire::Message, Error> {
        let message = self.read_until(deadline)?;
        message.ok_or_else(|| self.connection.wire.silent(STREAM))
    }

    fn read_until(&mut self, deadline: Instant) -> Result<Option<crate::wire::Message>, Error> {
        let result = self.connection.wire.read_until(STREAM, deadline);
        if let Err(Error::Server { error, .. }) = &result {
            self.phase = Phase::Failed;
            self.shared.end();
            // An error ends the command, anything worse the connection.
            if error.severity == "ERROR" {
                self.connection.in_stream = !self.is_ready_again();
            }
        }
        result
    }

    /// Reads to the end of a command that failed.
    fn is_ready_again(&mut self) -> bool {
        let deadline = Instant::now() + FINISH_MAX;
        while let Ok(Some(message)) = self.connection.wire.read_until(STREAM, deadline) {
            if message.tag == b'Z' {
                return true;
            }
        }
        false
    }

    fn failed(&self) -> Error {
        self.connection.wire.protocol(STREAM, "the server had given this stream up already")
    }

    fn take(&mut self, message: &crate::wire::Message) -> Result<Option<Taken>, Error> {
        let wire = &self.connection.wire;
        match message.tag {
            b'd' => {}
            b'c' => {
                self.phase = Phase::ServerDone;
                return Ok(Some(Taken::End));
            }
            // At its shutdown the server ends the command without ending the copy (WalSndDone).
            b'C' => {
                self.phase = Phase::ServerStopped;
                self.shared.end();
                return Ok(Some(Taken::End));
            }
            _ => return Err(wire.unexpected(STREAM, message)),
        }
        match message::parse(wire.bytes(message)) {
            Some(Message::Wal { start, server_end, offset }) => {
                if start != self.received {
                    let why = format!("WAL from {start} came where {} was due", self.received);
                    return Err(wire.protocol(STREAM, why));
                }
                let range = message.body.start + offset..message.body.end;
                let len = u64::try_from(range.len()).map_err(|_| wire.protocol(STREAM, "too long a message"))?;
                self.received = Lsn(start.0.saturating_add(len));
                self.server_end = server_end.max(self.received);
                self.shared.with(|pulse| pulse.receive(self.received));
                Ok((len > 0).then_some(Taken::Wal(start, range)))
            }
            Some(Message::KeepAlive { server_end, reply }) => {
                self.server_end = server_end;
                if reply {
                    self.shared.with(|pulse| pulse.ask(Instant::now()));
                }
                Ok(Some(Taken::KeepAlive))
            }
            None => Err(wire.protocol(STREAM, "a message of the stream is of an unknown kind")),
        }
    }

    fn next_timeline(&self, row: Option<&[Option<String>]>) -> Result<StreamEnd, Error> {
        let column = |index: usize| row?.get(index)?.as_deref();
        let next = (|| {
            Some(StreamEnd::NextTimeline { timeline: column(0)?.parse().ok()?, switch: column(1)?.parse().ok()? })
        })();
        next.ok_or_else(|| self.connection.wire.protocol(STREAM, "the next timeline is none"))
    }
}

impl Drop for WalStream<'_> {
    fn drop(&mut self) {
        self.shared.end();
    }
}
