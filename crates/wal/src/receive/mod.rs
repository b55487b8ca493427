//! The receiver: streams WAL from a server into the repository, durable before it is acknowledged.
//!
//! ```text
//! decide    when to flush, when to give way, what after an error   (pure)
//! plan      where to begin, timelines                              (pure)
//! event     what it tells
//! find      how far the repository's WAL goes
//! follow    one stream, read by this thread
//! storing   the bounded buffer between reader and store
//! assemble  the store's thread: segments, tails, acknowledgements
//! mapping   the thread that makes page maps of what is stored
//! ```
//!
//! Nothing is acknowledged that is not durable, so a receiver may be killed at any moment: the next one looks how far the repository is and
//! begins at the start of that segment. What it receives a second time is compared with what is stored. What passes (a server that restarts, a
//! store that is away, a setting that a person mends) is tried again for ever, with bounded pauses; what would go on wrongly ends it.

mod assemble;
pub mod decide;
mod error;
mod event;
mod find;
mod follow;
mod mapping;
pub mod plan;
mod storing;

pub(crate) use assemble::may_pass;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use model::Lsn;
use pg_format::wal::{SegmentSize, TimelineHistory};
use pg_replication::{Connection, Refusal, SlotName, SlotOptions, StreamEnd, StreamOptions, Target};
use repository::{
    Repository,
    wal::{Segment, Wal},
};

use self::{
    decide::Next,
    follow::{Ended, Follow, Watched},
    mapping::Mapping,
    plan::{Place, Server, Start},
    storing::Task,
};
pub use self::{
    decide::SlotHealth,
    error::ReceiveError,
    event::{Event, Listener, Progress},
};
use crate::{Cluster, gap};

/// How long bytes wait for a flush of the tail on a local directory or a mounted share, where a flush costs two fsyncs.
pub const FLUSH_LOCAL: Duration = Duration::from_millis(500);
/// The same on an object store, where each flush is a request that is billed: a month of steady writing costs 1.30 $ at 5 $ a million.
pub const FLUSH_OBJECT_STORE: Duration = Duration::from_secs(10);
/// How long one look at `stop` waits in pauses.
const GLANCE: Duration = Duration::from_millis(100);
/// A stream that ran so long ends a row of failures.
const CALM: Duration = Duration::from_secs(30);

/// Whether a slot that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateSlot {
    /// No.
    Never,
    /// Where `max_slot_wal_keep_size` bounds what it can hold.
    IfCapped,
    /// Also where nothing does: then a receiver that is away for long fills the server's disk.
    Always,
}

/// What is received, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub target: Target,
    /// The slot that keeps WAL until it is acknowledged; without one the server keeps what `wal_keep_size` says.
    pub slot: Option<SlotName>,
    /// Whether it is made.
    pub create_slot: CreateSlot,
    /// How long bytes may wait until the tail is flushed: [`FLUSH_LOCAL`], [`FLUSH_OBJECT_STORE`].
    pub flush_interval: Duration,
}

/// Puts of tails in a month of steady writing with this interval, at most.
#[must_use]
pub fn puts_a_month(flush_interval: Duration) -> u64 {
    const MONTH_MILLIS: u128 = 30 * 24 * 3600 * 1000;
    u64::try_from(MONTH_MILLIS / flush_interval.as_millis().max(1)).unwrap_or(u64::MAX)
}

/// Receives WAL until `stop` is set. Everything that happens is told to `listener`.
///
/// # Errors
/// When going on would be wrong or in vain: what the server sends differs from what is stored, it is another cluster, a slot may not be made,
/// what is stored is damaged. [`ReceiveError::Unfinished`] when it was to stop, and the store did not take the rest in time.
pub fn receive(
    options: &Options,
    repository: &Repository,
    stop: &AtomicBool,
    listener: &Listener,
) -> Result<(), ReceiveError> {
    Receiver {
        options,
        repository,
        stop,
        listener,
        cluster: None,
        wal: None,
        mapping: None,
        had_slot: false,
        skip: None,
        histories: BTreeSet::new(),
    }
    .all()
}

/// A number in 0..1, another one each time.
pub(crate) fn chance(salt: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is a chance")]
    let part = (RandomState::new().hash_one(salt) >> 11) as f64;
    part / (1_u64 << 53) as f64
}

struct Receiver<'a> {
    options: &'a Options,
    repository: &'a Repository,
    stop: &'a AtomicBool,
    listener: &'a Listener,
    cluster: Option<Cluster>,
    wal: Option<Arc<Wal>>,
    /// Outlives streams: a map is made of what came by several.
    mapping: Option<Arc<Mapping>>,
    /// Our slot was there once: that it is not is news.
    had_slot: bool,
    /// Where the server refused to begin, because it has removed that.
    skip: Option<Place>,
    /// Timelines whose histories are stored.
    histories: BTreeSet<u32>,
}

/// What is known of a server before a stream.
struct Known {
    server: Server,
    size: SegmentSize,
    slot: Option<Lsn>,
    cap: Option<u64>,
}

impl Receiver<'_> {
    fn all(mut self) -> Result<(), ReceiveError> {
        let mut failed = 0_u32;
        while !self.stopped() {
            let began = Instant::now();
            let error = match self.attempt() {
                Ok(()) => {
                    failed = 0;
                    continue;
                }
                Err(ReceiveError::Server(error)) => error,
                Err(ReceiveError::Store(error)) if assemble::may_pass(&error) => {
                    (self.listener)(&Event::StoreFailing { error: error.to_string(), since: began.elapsed() });
                    failed = failed.saturating_add(1);
                    self.pause(decide::pause(failed, chance(failed)));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.stopped() {
                break;
            }
            let refusal = error.refusal();
            match decide::after(refusal.as_ref(), error.is_passing()) {
                Next::Stop => return Err(error.into()),
                Next::NewSlot => self.lose_slot(&error, refusal.as_ref())?,
                Next::Again | Next::Skip => {}
            }
            failed = if began.elapsed() >= CALM { 1 } else { failed.saturating_add(1) };
            let again_in = decide::pause(failed, chance(failed));
            (self.listener)(&Event::Disconnected { why: error.to_string(), again_in });
            self.pause(again_in);
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopped() && Instant::now() < until {
            thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Connects and streams until that ends. An end that is none of anybody's fault is `Ok`.
    fn attempt(&mut self) -> Result<(), ReceiveError> {
        let mut connection = Connection::open(&self.options.target)?;
        let wal = self.identify(&mut connection)?;
        loop {
            let known = self.know(&mut connection, &wal)?;
            let start = self.begin(&known, &wal)?;
            let ended = self.stream(&mut connection, &wal, &known, start)?;
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::GaveWay => {
                    // Everything is durable by now: the store works again.
                    return Ok(());
                }
                Ended::Stream(StreamEnd::ServerStopped) => {
                    (self.listener)(&Event::Disconnected {
                        why: "the server stopped; all that it has is stored".to_owned(),
                        again_in: GLANCE,
                    });
                    self.pause(GLANCE);
                    return Ok(());
                }
                Ended::Stream(StreamEnd::Finished) => return Ok(()),
                Ended::Stream(StreamEnd::NextTimeline { timeline, switch }) => {
                    (self.listener)(&Event::Timeline { from: start.at.timeline, to: timeline, switch });
                    if timeline == start.at.timeline {
                        return Err(ReceiveError::NoSuchTimeline { from: start.at.timeline, to: timeline });
                    }
                    self.store_history(&mut connection, &wal, timeline)?;
                    // On we go on the same connection: with the plan, which looks where we are and what the server has by now.
                }
                Ended::Broken(error) => {
                    if matches!(error.refusal(), Some(Refusal::SegmentRemoved(_))) {
                        self.skip = Some(start.at);
                    }
                    return Err(error.into());
                }
            }
            if self.stopped() {
                return Ok(());
            }
        }
    }

    /// Which cluster it is, and its WAL in the repository.
    fn identify(&mut self, connection: &mut Connection) -> Result<Arc<Wal>, ReceiveError> {
        let found = connection.identify_system()?.system_identifier;
        let segment = SegmentSize::new(connection.wal_segment_size()?)?;
        let cluster = Cluster { system_identifier: found, segment };
        match (&self.cluster, &self.wal) {
            (Some(before), _) if before.system_identifier != found => {
                Err(ReceiveError::OtherCluster { expected: before.system_identifier, found })
            }
            (Some(before), Some(wal)) if *before == cluster => Ok(Arc::clone(wal)),
            _ => {
                let wal = Arc::new(cluster.open(self.repository)?);
                self.mapping = Mapping::start(&wal, cluster, self.listener).map(Arc::new);
                (self.cluster, self.wal) = (Some(cluster), Some(Arc::clone(&wal)));
                Ok(wal)
            }
        }
    }

    /// What the server has, what its slot holds. Makes the slot, and stores the history of its timeline.
    fn know(&mut self, connection: &mut Connection, wal: &Wal) -> Result<Known, ReceiveError> {
        let identity = connection.identify_system()?;
        let size = self.cluster.map_or(SegmentSize::DEFAULT, |cluster| cluster.segment);
        let history = match identity.timeline {
            1 => TimelineHistory::default(),
            timeline => self.store_history(connection, wal, timeline)?,
        };
        let server = Server { timeline: identity.timeline, flushed: identity.flushed, history };
        let newer = identity.timeline.saturating_add(1);
        if wal.get_history(newer)?.is_some() {
            (self.listener)(&Event::Superseded { timeline: identity.timeline, newer });
        }
        let cap = cap_of(&connection.show("max_slot_wal_keep_size")?);
        let slot = match &self.options.slot {
            Some(name) => self.slot(connection, name, cap)?,
            None => None,
        };
        Ok(Known { server, size, slot, cap })
    }

    /// From where on the slot holds WAL, as far as the server tells. Makes it where it is not.
    fn slot(
        &mut self,
        connection: &mut Connection,
        name: &SlotName,
        cap: Option<u64>,
    ) -> Result<Option<Lsn>, ReceiveError> {
        match connection.read_slot(name) {
            Ok(Some(state)) => {
                if state.restart.is_none() && self.had_slot {
                    // Given up: WAL was lost to the archive, or is about to be. Whether it was, the stream tells.
                    let why = "the server gave it up (max_slot_wal_keep_size)".to_owned();
                    (self.listener)(&Event::SlotLost { slot: name.to_string(), why });
                }
                self.had_slot = true;
                Ok(state.restart)
            }
            Ok(None) => self.make_slot(connection, name, cap),
            // 13 and 14 can't be asked. Whether it is there tells whoever makes it.
            Err(pg_replication::Error::TooOld { .. }) if self.had_slot => Ok(None),
            Err(pg_replication::Error::TooOld { .. }) if self.options.create_slot == CreateSlot::Never => Ok(None),
            Err(pg_replication::Error::TooOld { .. }) => self.make_slot(connection, name, cap),
            Err(error) => Err(error.into()),
        }
    }

    fn make_slot(
        &mut self,
        connection: &mut Connection,
        name: &SlotName,
        cap: Option<u64>,
    ) -> Result<Option<Lsn>, ReceiveError> {
        if self.had_slot {
            let why = "it is not there any more".to_owned();
            (self.listener)(&Event::SlotLost { slot: name.to_string(), why });
            self.had_slot = false;
        }
        match (self.options.create_slot, cap) {
            (CreateSlot::Never, _) => return Err(ReceiveError::NoSlot { slot: name.to_string() }),
            (CreateSlot::IfCapped, None) => return Err(ReceiveError::UnlimitedSlot),
            (CreateSlot::IfCapped, Some(_)) | (CreateSlot::Always, _) => {}
        }
        match connection.create_slot(name, SlotOptions { temporary: false, reserve_wal: true }) {
            Ok(()) => (self.listener)(&Event::SlotCreated { slot: name.to_string() }),
            Err(error) if error.refusal() == Some(Refusal::SlotExists) => {}
            Err(error) => return Err(error.into()),
        }
        self.had_slot = true;
        match connection.read_slot(name) {
            Ok(state) => Ok(state.and_then(|state| state.restart)),
            Err(pg_replication::Error::TooOld { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A stream said that the slot is not there, or was given up.
    fn lose_slot(&mut self, error: &pg_replication::Error, refusal: Option<&Refusal>) -> Result<(), ReceiveError> {
        let Some(name) = &self.options.slot else { return Ok(()) };
        (self.listener)(&Event::SlotLost { slot: name.to_string(), why: error.to_string() });
        if self.options.create_slot == CreateSlot::Never {
            return Err(ReceiveError::NoSlot { slot: name.to_string() });
        }
        self.had_slot = false;
        if refusal == Some(&Refusal::SlotInvalidated) {
            // It is of no use to anybody, and can't be used again.
            let mut connection = Connection::open(&self.options.target)?;
            match connection.drop_slot(name) {
                Err(error) if error.refusal() != Some(Refusal::SlotAbsent) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Stores the histories of `timeline` and its ancestors, so that whoever restores finds the way.
    fn store_history(
        &mut self,
        connection: &mut Connection,
        wal: &Wal,
        timeline: u32,
    ) -> Result<TimelineHistory, ReceiveError> {
        let file = connection.timeline_history(timeline)?;
        let history = TimelineHistory::parse(&String::from_utf8_lossy(&file.content))?;
        if self.histories.insert(timeline)
            && let Err(error) = wal.put_history(timeline, &file.content)
        {
            self.histories.remove(&timeline);
            return Err(error.into());
        }
        for ancestor in history.entries.iter().map(|entry| entry.timeline).filter(|ancestor| *ancestor > 1) {
            if !self.histories.contains(&ancestor) {
                // A server that was made from a backup may lack old ones: nobody needs them who has the newest.
                match connection.timeline_history(ancestor) {
                    Ok(file) => drop(wal.put_history(ancestor, &file.content)?),
                    Err(error) if error.refusal() == Some(Refusal::NoHistory) => {}
                    Err(error) => return Err(error.into()),
                }
                self.histories.insert(ancestor);
            }
        }
        Ok(history)
    }

    /// Where to begin. Tells of what is missing before it.
    fn begin(&mut self, known: &Known, wal: &Wal) -> Result<Start, ReceiveError> {
        let found = find::end_of(wal, &known.server, known.size, known.slot)?;
        let start = plan::start(&known.server, known.size, found, known.slot);
        if let (Some(stored), Some(next)) =
            (start.beyond_switch, found.and_then(|found| known.server.after(found.timeline)))
        {
            let (timeline, stored) = (stored.timeline, stored.lsn);
            (self.listener)(&Event::BeyondSwitch { timeline, switch: next.lsn, stored });
        }
        let (timeline, due) = (start.at.timeline, start.due(known.size));
        let Some(refused) = self.skip.take() else { return Ok(start) };
        if refused == start.at && due != refused {
            // Only what is stored already is gone from the server: there is nothing to compare with, and nothing missing. What an earlier
            // life left in chunks takes its place now, for it does not come again.
            let before = known.size.number_of(refused.lsn);
            if let Segment::Whole(bytes) = wal.get_segment(timeline, before)? {
                wal.tail(timeline, before)?.finish(&bytes)?;
            }
            return Ok(Start { at: due, ..start });
        }
        if refused != due {
            return Ok(start);
        }
        // What would be next is gone: it goes on behind the gap.
        let Some(next) = plan::after_removed(&known.server, known.size, refused, known.slot) else { return Ok(start) };
        gap::mark(wal, timeline, known.size.number_of(due.lsn), start.stored, next)?;
        (self.listener)(&Event::Gap { timeline, from: start.stored, to: next.lsn, next: next.timeline });
        Ok(Start { at: next, stored: next.lsn, beyond_switch: None })
    }

    fn stream(
        &self,
        connection: &mut Connection,
        wal: &Arc<Wal>,
        known: &Known,
        start: Start,
    ) -> Result<Ended, ReceiveError> {
        let Start { at: start, stored, .. } = start;
        let options =
            StreamOptions { slot: self.options.slot.clone(), ..StreamOptions::new(start.lsn, start.timeline) };
        let slot = self.options.slot.as_ref().map(ToString::to_string);
        let connected = Event::Connected {
            host: connection.host().to_owned(),
            version: connection.version().to_owned(),
            system_identifier: self.cluster.map_or(0, |cluster| cluster.system_identifier),
            timeline: start.timeline,
            start: start.lsn,
            slot: slot.clone(),
            slot_cap: known.cap,
        };
        let follow = Follow {
            stop: self.stop,
            listener: self.listener,
            watched: Watched { slot, cap: known.cap },
            timeline: start.timeline,
        };
        let task = |status| Task {
            wal: Arc::clone(wal),
            size: known.size,
            start,
            stored,
            interval: self.options.flush_interval,
            status,
            listener: Arc::clone(self.listener),
            mapping: self.mapping.clone(),
        };
        follow.run(connection, &options, task, || (self.listener)(&connected))
    }
}

/// A size as `SHOW` prints it, in bytes; `None` where there is no bound.
fn cap_of(text: &str) -> Option<u64> {
    if text == "-1" {
        return None;
    }
    let units = [("kB", 10), ("MB", 20), ("GB", 30), ("TB", 40), ("B", 0), ("", 20)];
    units.into_iter().find_map(|(unit, shift)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_shl(shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps() {
        for (text, expected) in
            [("-1", None), ("64MB", Some(64 << 20)), ("20GB", Some(20 << 30)), ("1TB", Some(1 << 40)), ("0", Some(0))]
        {
            assert_eq!(cap_of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_flushing_costs() {
        assert_eq!(puts_a_month(FLUSH_OBJECT_STORE), 259_200);
        assert!(puts_a_month(Duration::ZERO) > puts_a_month(FLUSH_LOCAL));
    }
}
