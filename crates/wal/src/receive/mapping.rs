//! The thread that makes page maps, beside the one that stores WAL and never in its way.
//!
//! It is handed segments once they are stored. It takes them while it can keep up; a range that it did not see from its beginning (a restart, a
//! gap, too much at once) it reads again from the store when the range is over and nothing else is to be done. So what a restart costs is
//! one range, once, and a map is whole or not there.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use page_map::PageMap;
use repository::wal::{RANGE, Wal};

use super::{Event, Listener, assemble::may_pass, decide};
use crate::{
    Cluster,
    map::{self, Kept, Live, Making, MapError, Step, Way},
};

/// Bytes of segments that wait to be looked at: three at the usual size. One always may.
const QUEUE_BYTES_MAX: usize = 48 << 20;
/// Ranges that wait to be read again. The oldest goes first; what no longer fits has no map until somebody makes it.
const OLDER_MAX: usize = 16;
/// How often a map is tried that the store does not give or take.
const TRIES_MAX: u32 = 5;
/// How old a receiver is before it reads a range again: one that is restarted over and over must not read one each time.
const CALM: Duration = Duration::from_secs(5);
/// How long the end of the thread is waited for: a segment's worth of work.
const END_MAX: Duration = Duration::from_secs(2);
/// By how much it stands back behind the threads that receive.
const NICE: i32 = 5;

/// The thread, seen by whoever stores segments.
#[derive(Debug)]
pub(super) struct Mapping(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Stored>,
    bytes: usize,
    stop: bool,
    ended: bool,
}

/// A segment that is stored.
#[derive(Debug)]
struct Stored {
    line: u32,
    number: u64,
    bytes: Arc<Vec<u8>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mapping {
    /// Starts it. `None`, and said, where that can't be.
    pub(super) fn start(wal: &Arc<Wal>, cluster: Cluster, listener: &Listener) -> Option<Self> {
        Self::start_within(wal, cluster, listener, CALM)
    }

    /// As [`Mapping::start`]; nothing is read again for so long.
    fn start_within(wal: &Arc<Wal>, cluster: Cluster, listener: &Listener, calm: Duration) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let work = Work {
            wal: Arc::clone(wal),
            cluster,
            listener: Arc::clone(listener),
            live: Live::new(cluster),
            older: VecDeque::new(),
            calm_at: Instant::now() + calm,
        };
        let ended = Ended(Arc::clone(&shared));
        let run = move || {
            // Where that is not allowed, it does without.
            let _ = rustix::process::nice(NICE);
            work.run(&ended.0);
            drop(ended);
        };
        match thread::Builder::new().name("wal-map".to_owned()).spawn(run) {
            Ok(_) => Some(Self(shared)),
            Err(error) => {
                let error = MapError::Thread(error);
                tracing::warn!(%error, "no page maps");
                None
            }
        }
    }

    /// A segment is stored. Never waits.
    pub(super) fn segment(&self, line: u32, number: u64, bytes: Arc<Vec<u8>>) {
        let mut state = self.0.state();
        if state.ended || (!state.queue.is_empty() && state.bytes + bytes.len() > QUEUE_BYTES_MAX) {
            return;
        }
        state.bytes += bytes.len();
        state.queue.push_back(Stored { line, number, bytes });
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let until = Instant::now() + END_MAX;
        let mut state = self.0.state();
        state.stop = true;
        self.0.changed.notify_all();
        // Not for ever: the store may be what it waits for.
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Tells that the thread has ended, however it does.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.queue.clear();
        drop(state);
        self.0.changed.notify_all();
    }
}

/// A range that is read again.
#[derive(Debug)]
struct Older {
    line: u32,
    range: u64,
    tried: u32,
    due: Instant,
    making: Option<Making>,
}

/// What the thread does next.
enum Next {
    Segment(Stored),
    /// Nothing came: there is time for what is older.
    Time,
    Stop,
}

struct Work {
    wal: Arc<Wal>,
    cluster: Cluster,
    listener: Listener,
    live: Live,
    older: VecDeque<Older>,
    /// Nothing is read again before.
    calm_at: Instant,
}

impl Work {
    fn run(mut self, shared: &Shared) {
        loop {
            match next(shared, self.older.iter().map(|older| older.due).min()) {
                Next::Segment(segment) => self.segment(&segment),
                Next::Time => self.step(),
                Next::Stop => return,
            }
        }
    }

    fn segment(&mut self, segment: &Stored) {
        let Stored { line, number, bytes } = segment;
        let (wal, size) = (&self.wal, self.cluster.segment);
        let before = |number: u64| Way::load(wal, size, *line).map(|way| way.line_of(number));
        let seen = self.live.segment(*line, *number, bytes, before);
        if let Some(error) = seen.error {
            self.not_mapped(*line, number / RANGE, &error);
        }
        for found in seen.maps {
            self.keep(*line, found.number, &found.map, 0);
        }
        for range in seen.older {
            self.later(Older { line: *line, range, tried: 0, due: self.calm_at.max(Instant::now()), making: None });
        }
    }

    fn later(&mut self, older: Older) {
        if self.older.len() < OLDER_MAX {
            return self.older.push_back(older);
        }
        let why = "too many ranges wait to be read again; hint: `oxpecker wal verify --maps` makes what lacks";
        self.tell_not(older.line, older.range, why.to_owned());
    }

    /// Goes on with a range that was not seen as it came.
    fn step(&mut self) {
        let first = self.older.iter().enumerate().min_by_key(|(_, older)| older.due).map(|(at, _)| at);
        let Some(mut older) = first.and_then(|at| self.older.remove(at)) else { return };
        match self.make(&mut older) {
            Ok(None) => self.older.push_front(older),
            Ok(Some(Step::Done(map))) => self.keep(older.line, older.range, &map, older.tried),
            // Nothing is there of it: nobody misses a map.
            Ok(Some(_)) => {}
            Err(error) => self.again(&older, &error),
        }
    }

    /// `None`: there is more to do.
    fn make(&self, older: &mut Older) -> Result<Option<Step>, MapError> {
        let making = match &mut older.making {
            Some(making) => making,
            None if self.wal.has_map(older.line, older.range, map::VERSION)? => return Ok(Some(Step::Ends(None))),
            None => {
                let way = Way::load(&self.wal, self.cluster.segment, older.line)?;
                older.making.insert(Making::new(self.cluster, way, older.range))
            }
        };
        match making.step(&self.wal)? {
            Step::More => Ok(None),
            Step::Ends(Some(_)) => Err(MapError::Lacks { timeline: older.line, range: older.range }),
            step => Ok(Some(step)),
        }
    }

    /// Whether it is tried again, and when.
    fn again(&mut self, older: &Older, error: &MapError) {
        let passes = match error {
            MapError::Store(error) => may_pass(error),
            MapError::Lacks { .. } => true,
            _ => false,
        };
        let tried = older.tried + 1;
        if !passes || tried >= TRIES_MAX {
            return self.not_mapped(older.line, older.range, error);
        }
        tracing::debug!(%error, "no page map yet");
        let due = Instant::now() + decide::pause(tried, super::chance(tried));
        self.later(Older { line: older.line, range: older.range, tried, due, making: None });
    }

    fn keep(&mut self, line: u32, range: u64, map: &PageMap, tried: u32) {
        match map::keep(&self.wal, line, range, map) {
            Ok(Kept::There(_)) => {
                let (from, to, pages) = (map.start(), map.end(), map.pages());
                (self.listener)(&Event::Mapped { timeline: line, from, to, pages });
            }
            Ok(Kept::Other { start }) => tracing::debug!(line, range, %start, "another page map was there"),
            Err(error) => {
                self.again(&Older { line, range, tried, due: Instant::now(), making: None }, &error);
            }
        }
    }

    fn not_mapped(&self, line: u32, range: u64, error: &MapError) {
        self.tell_not(line, range, error.to_string());
    }

    fn tell_not(&self, line: u32, range: u64, why: String) {
        tracing::warn!(line, range, why, "no page map");
        let (from, to) = (map::start_of(&self.cluster, range), map::start_of(&self.cluster, range + 1));
        (self.listener)(&Event::NotMapped { timeline: line, from, to, why });
    }
}

/// Waits for what is next; `due` is when there is something older to do.
fn next(shared: &Shared, due: Option<Instant>) -> Next {
    let mut state = shared.state();
    loop {
        if state.stop {
            return Next::Stop;
        }
        if let Some(segment) = state.queue.pop_front() {
            state.bytes -= segment.bytes.len();
            return Next::Segment(segment);
        }
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        state = match left {
            Some(left) if left.is_zero() => return Next::Time,
            Some(left) => shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

#[cfg(test)]
mod tests;
