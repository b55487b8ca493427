//! What the store's thread does: bytes become segments and tails.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use model::Lsn;
use repository::{
    store::StoreErrorKind,
    wal::{SealedSegment, Tail, Wal, WalError},
};

use super::{
    Event, ReceiveError,
    decide::{self, Flush},
    storing::{Shared, Task, Work},
};

/// Segments that are sealed at a time: compressing one takes about twice as long as writing it.
const SEALING_MAX: u64 = 3;
/// Bytes of these, so that large segments do not take all memory.
const SEALING_BYTES_MAX: u64 = 64 << 20;
/// How often a store that fails is told of.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// A whole segment on its way: its number, its bytes, and its thread.
struct Sealing {
    number: u64,
    bytes: Arc<Vec<u8>>,
    /// Since when its oldest byte waits.
    since: Option<Instant>,
    thread: JoinHandle<Result<SealedSegment, WalError>>,
}

pub(super) struct Assembly<'a> {
    task: &'a Task,
    wal: &'a Arc<Wal>,
    shared: &'a Shared,
    /// The segment that grows.
    number: u64,
    segment: Vec<u8>,
    /// Its chunks; `None` until the first flush, and after it was begun by nobody.
    tail: Option<Tail<'a>>,
    /// How much of it is durable.
    flushed: u64,
    /// Since when the oldest byte of it waits that is not.
    since: Option<Instant>,
    sealing: VecDeque<Sealing>,
    /// When the last flush of the tail ended, and how long it took.
    last: Option<(Instant, Duration)>,
}

/// Why a step was not done.
enum Stop {
    Failed(ReceiveError),
    Abandoned,
}

impl From<WalError> for Stop {
    fn from(error: WalError) -> Self {
        Self::Failed(error.into())
    }
}

impl<'a> Assembly<'a> {
    /// Stores what comes until its end.
    pub(super) fn run(task: &'a Task, shared: &'a Shared) -> Result<(), ReceiveError> {
        let mut this = Self {
            task,
            wal: &task.wal,
            shared,
            number: task.size.number_of(task.start.lsn),
            segment: Vec::new(),
            tail: None,
            flushed: 0,
            since: None,
            sealing: VecDeque::new(),
            last: None,
        };
        match this.all() {
            Ok(()) | Err(Stop::Abandoned) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn all(&mut self) -> Result<(), Stop> {
        // An earlier life may have left chunks of the first segment, which go when it is whole; and what it acknowledged is to be compared.
        let (wal, timeline, number) = (self.wal, self.task.start.timeline, self.number);
        self.tail = Some(self.persist(|| wal.tail(timeline, number))?);
        let mut buffer = Vec::new();
        loop {
            let until = match self.when() {
                Flush::Now => {
                    self.flush()?;
                    continue;
                }
                Flush::In(wait) => Some(Instant::now() + wait),
                Flush::Idle => None,
            };
            match self.shared.take(buffer, until) {
                Work::Bytes(bytes, since) => {
                    self.add(&bytes, since)?;
                    buffer = bytes;
                }
                Work::Nothing => buffer = Vec::new(),
                Work::End => {
                    self.flush()?;
                    return Ok(());
                }
                Work::Abandoned => return Err(Stop::Abandoned),
            }
            while self.sealing.len() >= self.sealing_max() || (!self.sealing.is_empty() && !self.shared.has_more()) {
                self.put_oldest()?;
            }
        }
    }

    fn sealing_max(&self) -> usize {
        usize::try_from((SEALING_BYTES_MAX / self.task.size.bytes()).clamp(1, SEALING_MAX)).unwrap_or(1)
    }

    fn when(&self) -> Flush {
        let (since_last, last_took) =
            self.last.map_or((Duration::MAX, Duration::ZERO), |(at, took)| (at.elapsed(), took));
        decide::flush(&decide::Tail {
            bytes: self.segment.len() as u64 - self.flushed,
            waits: self.since.map_or(Duration::ZERO, |since| since.elapsed()),
            since_last,
            last_took,
            interval: self.task.interval,
            hurry: self.shared.hurry(),
        })
    }

    fn position(&self, bytes: u64) -> Lsn {
        Lsn(self.task.size.start_of(self.number).0.saturating_add(bytes))
    }

    /// Adds bytes to the growing segment, and finishes those that are full.
    fn add(&mut self, mut bytes: &[u8], since: Instant) -> Result<(), Stop> {
        let size = usize::try_from(self.task.size.bytes()).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            if self.segment.capacity() == 0 {
                self.segment.reserve_exact(size);
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(size - self.segment.len()));
            self.segment.extend_from_slice(piece);
            self.since.get_or_insert(since);
            bytes = rest;
            if self.segment.len() == size {
                self.complete()?;
            }
        }
        Ok(())
    }

    /// The growing segment is whole.
    fn complete(&mut self) -> Result<(), Stop> {
        while self.sealing.len() >= self.sealing_max() {
            self.put_oldest()?;
        }
        let (number, timeline) = (self.number, self.task.start.timeline);
        let bytes = std::mem::take(&mut self.segment);
        if let Some(mut tail) = self.tail.take() {
            // In its turn.
            while !self.sealing.is_empty() {
                self.put_oldest()?;
            }
            // What another life stored of it is compared byte by byte; then the whole takes its place.
            self.persist(|| tail.flush(&bytes))?;
            let wal = self.wal;
            let mut tail = Some(tail);
            self.persist(|| {
                let again = match tail.take() {
                    Some(tail) => tail,
                    None => wal.tail(timeline, number)?,
                };
                again.finish(&bytes)
            })?;
            self.map(number, Arc::new(bytes));
            self.next();
            self.advance(self.position(0));
            return Ok(());
        }
        let bytes = Arc::new(bytes);
        let thread = self.seal(number, &bytes)?;
        self.sealing.push_back(Sealing { number, bytes, since: self.since, thread });
        self.next();
        Ok(())
    }

    /// A segment is stored: its page map is others' business.
    fn map(&self, number: u64, bytes: Arc<Vec<u8>>) {
        if let Some(mapping) = &self.task.mapping {
            mapping.segment(self.task.start.timeline, number, bytes);
        }
    }

    fn next(&mut self) {
        self.number += 1;
        self.flushed = 0;
        self.tail = None;
        self.since = None;
    }

    fn seal(&self, number: u64, bytes: &Arc<Vec<u8>>) -> Result<JoinHandle<Result<SealedSegment, WalError>>, Stop> {
        let (wal, bytes, timeline) = (Arc::clone(self.wal), Arc::clone(bytes), self.task.start.timeline);
        let seal = move || wal.seal_segment(timeline, number, &bytes);
        let thread = thread::Builder::new().name("wal-seal".to_owned()).spawn(seal);
        thread.map_err(|error| Stop::Failed(ReceiveError::Thread(error)))
    }

    /// Puts the oldest of the segments that are being sealed.
    fn put_oldest(&mut self) -> Result<(), Stop> {
        let Some(oldest) = self.sealing.pop_front() else { return Ok(()) };
        let (wal, timeline) = (self.wal, self.task.start.timeline);
        let sealed = oldest.thread.join().map_err(|_| {
            Stop::Failed(ReceiveError::Thread(std::io::Error::other("the thread that seals WAL panicked")))
        })?;
        let mut sealed = Some(sealed);
        self.persist(|| match sealed.take() {
            Some(Ok(ready)) => match wal.put_sealed(&ready) {
                Err(error) if matches!(error, WalError::Store(_)) => {
                    // Sealed once, and tried again byte by byte.
                    sealed = Some(Ok(ready));
                    Err(error)
                }
                other => other,
            },
            Some(Err(error)) => Err(error),
            None => wal.put_segment(timeline, oldest.number, &oldest.bytes),
        })?;
        self.map(oldest.number, Arc::clone(&oldest.bytes));
        let end = self.task.size.start_of(oldest.number + 1);
        self.advance(end);
        Ok(())
    }

    /// Makes the tail durable.
    fn flush(&mut self) -> Result<(), Stop> {
        while !self.sealing.is_empty() {
            self.put_oldest()?;
        }
        if self.segment.len() as u64 == self.flushed {
            return Ok(());
        }
        let began = Instant::now();
        let (wal, number, timeline) = (self.wal, self.number, self.task.start.timeline);
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => self.persist(|| wal.tail(timeline, number))?,
        };
        let segment = std::mem::take(&mut self.segment);
        let flushed = self.persist(|| tail.flush(&segment));
        self.segment = segment;
        self.flushed = flushed?;
        self.tail = Some(tail);
        self.since = None;
        self.last = Some((Instant::now(), began.elapsed()));
        self.advance(self.position(self.flushed));
        Ok(())
    }

    /// Everything before `durable` is.
    fn advance(&mut self, durable: Lsn) {
        let since = self.sealing.front().map_or(self.since, |oldest| oldest.since);
        self.shared.advance(durable, since);
        // Why it can't be told, the reader learns.
        if durable >= self.task.stored
            && let Err(error) = self.task.status.flushed(durable)
        {
            tracing::debug!(%error, %durable, "not acknowledged");
        }
    }

    /// Does it until it is done: what a store refuses may pass, and what was received must not be dropped.
    fn persist<T>(&self, mut act: impl FnMut() -> Result<T, WalError>) -> Result<T, Stop> {
        let mut failed = 0_u32;
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            let error = match act() {
                Ok(done) => {
                    if failed > 0 {
                        (self.task.listener)(&Event::StoreBack { after: began.elapsed() });
                    }
                    return Ok(done);
                }
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(error.into()),
            };
            failed = failed.saturating_add(1);
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                told = Some(Instant::now());
                (self.task.listener)(&Event::StoreFailing { error: error.to_string(), since: began.elapsed() });
            }
            if !self.shared.pause(decide::pause(failed, super::chance(failed))) {
                return Err(Stop::Abandoned);
            }
        }
    }
}

/// Whether it makes sense to try again: also a full disk is made room on, and a file system mounted again.
pub(crate) fn may_pass(error: &WalError) -> bool {
    match error {
        WalError::Store(error) => !matches!(
            error.kind(),
            StoreErrorKind::TooLarge | StoreErrorKind::NoCreateIfAbsent | StoreErrorKind::Stopped
        ),
        WalError::Busy { .. } | WalError::Compression(_) | WalError::NoRandom(_) => true,
        _ => false,
    }
}
