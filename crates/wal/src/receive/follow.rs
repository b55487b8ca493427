//! One stream: what the server sends goes to the store's thread, until the stream ends or has to be ended.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pg_replication::{Connection, StreamEnd, StreamOptions, WalEvent};

use super::{
    Event, Listener, Progress, ReceiveError,
    decide::{self, Patience, SlotHealth},
    storing::{Storing, Task},
};

/// How long one look at the stream waits for something to come.
const GLANCE: Duration = Duration::from_millis(100);
/// How often it is told how far the WAL is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often somebody who waits for the store looks whether he is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// How a stream ended. Unless an error says otherwise, all that was received is durable.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server went on to another timeline, or stopped.
    Stream(StreamEnd),
    /// We cut it, so that the server does not wait for the store.
    GaveWay,
    /// We were asked to stop.
    Stopped,
    /// The server gave up, or the connection broke.
    Broken(pg_replication::Error),
}

/// What a slot makes the server keep, and what it may.
pub(super) struct Watched {
    pub(super) slot: Option<String>,
    pub(super) cap: Option<u64>,
}

pub(super) struct Follow<'a> {
    pub(super) stop: &'a AtomicBool,
    pub(super) listener: &'a Listener,
    pub(super) watched: Watched,
    pub(super) timeline: u32,
}

impl Follow<'_> {
    /// Streams until the end.
    pub(super) fn run(
        &self,
        connection: &mut Connection,
        options: &StreamOptions,
        task: impl FnOnce(pg_replication::StatusSender) -> Task,
        connected: impl FnOnce(),
    ) -> Result<Ended, ReceiveError> {
        let options = StreamOptions { silence_max: decide::SILENT_MAX, ..options.clone() };
        let mut stream = match connection.stream_wal(&options) {
            Ok(stream) => stream,
            Err(error) => return Ok(Ended::Broken(error)),
        };
        let status = stream.status();
        let storing = Storing::start(task(status.clone()))?;
        connected();
        let mut health = SlotHealth::Fine;
        let mut told: Option<Instant> = None;
        let mut stopping: Option<Instant> = None;
        let ended = loop {
            if self.stop.load(Ordering::Relaxed) {
                break Ended::Stopped;
            }
            match stream.next(GLANCE) {
                Ok(WalEvent::Wal { bytes, .. }) => {
                    if !storing.offer(bytes) {
                        // The message is copied: the stream lends it only until it is asked for the next.
                        let held = bytes.to_vec();
                        match self.wait_for_room(&storing, &status, &held)? {
                            Patience::Wait => {}
                            Patience::Disconnect if self.stop.load(Ordering::Relaxed) => break Ended::Stopped,
                            Patience::Disconnect => {
                                status.disconnect();
                                let why = "the store does not take what is received";
                                (self.listener)(&Event::GaveWay { why });
                                break Ended::GaveWay;
                            }
                        }
                    }
                }
                Ok(WalEvent::KeepAlive | WalEvent::Nothing) => {}
                Ok(WalEvent::End) => {
                    // Ended before it is stored: a server that stops must not wait for the store in between.
                    let ended = stream.finish();
                    self.settle(storing)?;
                    return Ok(ended.map_or_else(Ended::Broken, Ended::Stream));
                }
                Err(error) => {
                    // A server that goes on to send to somebody who does not read can't be stopped.
                    status.disconnect();
                    break Ended::Broken(error);
                }
            }
            let look = storing.look();
            if look.ended {
                break Ended::GaveWay;
            }
            if stream.server_seems_stopping() {
                storing.hurry();
                let since = *stopping.get_or_insert_with(Instant::now);
                if decide::stopping(since.elapsed(), look.all_durable()) == Patience::Disconnect {
                    status.disconnect();
                    (self.listener)(&Event::GaveWay { why: "the server stops, and the store does not take the rest" });
                    break Ended::GaveWay;
                }
            } else {
                stopping = None;
            }
            if told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY) {
                told = Some(Instant::now());
                let server = stream.server_end().max(look.received);
                let lag_bytes = server.bytes_since(look.durable);
                self.watch(&mut health, lag_bytes);
                (self.listener)(&Event::Progress(Progress {
                    timeline: self.timeline,
                    durable: look.durable,
                    received: look.received,
                    server,
                    lag_bytes,
                    waiting: look.waiting,
                }));
            }
        };
        // Whatever came is made durable, also when the server that sent it is gone for ever; while the connection lives, it hears of it.
        self.settle(storing)?;
        drop(stream);
        Ok(ended)
    }

    fn watch(&self, health: &mut SlotHealth, held: u64) {
        let Some(slot) = &self.watched.slot else { return };
        let now = decide::slot_health(held, self.watched.cap);
        if now != *health {
            *health = now;
            (self.listener)(&Event::SlotHealth { slot: slot.clone(), health: now, held });
        }
    }

    /// Waits until there is room for `held`. Meanwhile statuses go to the server.
    fn wait_for_room(
        &self,
        storing: &Storing,
        status: &pg_replication::StatusSender,
        held: &[u8],
    ) -> Result<Patience, ReceiveError> {
        let began = Instant::now();
        let _beat = status.heartbeat(decide::FULL_MAX).map_err(ReceiveError::Thread)?;
        loop {
            if storing.offer(held) {
                return Ok(Patience::Wait);
            }
            let give_up = storing.look().ended || self.stop.load(Ordering::Relaxed);
            if give_up || decide::full(began.elapsed()) == Patience::Disconnect {
                return Ok(Patience::Disconnect);
            }
            storing.wait(LOOK);
        }
    }

    /// Waits until all that was received is durable; not for ever once we are to stop.
    fn settle(&self, storing: Storing) -> Result<(), ReceiveError> {
        storing.close();
        let mut stopped: Option<Instant> = None;
        while !storing.look().ended {
            if self.stop.load(Ordering::Relaxed) {
                let since = *stopped.get_or_insert_with(Instant::now);
                if since.elapsed() >= decide::STOP_MAX {
                    let look = storing.abandon();
                    return Err(ReceiveError::Unfinished { durable: look.durable, received: look.received });
                }
            }
            storing.wait(LOOK);
        }
        storing.finish().map(drop)
    }
}
