//! What waits between the guard, which must never wait, and the writer, which may have to.
//!
//! Bounded in bytes. When it is full the oldest readings make room first; when there are none left, the event that comes is refused and
//! counted: those that were accepted before stay, because how a trouble began tells more than how it went on. The lock is never
//! held during I/O.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use model::{ByteSize, EventId, Moment};

use crate::{
    AppendError, JournalError,
    health::{JournalHealth, Lost, Recording},
    ticket::Slot,
};

/// What one transaction takes at most, in bytes of rows: small enough to fit into a little freed space, and to keep the write-ahead
/// log within its bound.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;
/// What a queued row costs beside its body, about: the row's own fields, its ticket and the allocator's share.
const ROW_OVERHEAD: usize = 160;

/// An event or a reading, ready to be stored.
#[derive(Debug)]
pub(crate) struct Row {
    pub wall_us: i64,
    pub boot_us: i64,
    pub kind: &'static str,
    pub body: String,
}

impl Row {
    pub(crate) fn new(at: Moment, kind: &'static str, body: String) -> Self {
        Self { wall_us: at.wall.as_microsecond(), boot_us: i64::try_from(at.boot_us).unwrap_or(i64::MAX), kind, body }
    }

    fn cost(&self) -> usize {
        self.body.len() + ROW_OVERHEAD
    }
}

/// An event with the place where its outcome goes.
pub(crate) struct QueuedEvent {
    pub row: Row,
    pub slot: Arc<Slot>,
}

/// See the module.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Bound of everything that waits, in bytes.
    capacity: usize,
    /// How long a reading may wait for others before they are written together.
    reading_interval: Duration,
}

#[derive(Default)]
struct State {
    events: VecDeque<QueuedEvent>,
    readings: VecDeque<Row>,
    bytes: usize,
    reading_bytes: usize,
    /// When the oldest waiting reading came.
    readings_since: Option<Instant>,
    /// What the writer holds and could not write yet.
    in_flight: (usize, usize),
    failing: Option<(Moment, String)>,
    lost: Lost,
    /// Events of the last week that were deleted for want of space.
    history_cut: u64,
    closing: bool,
    stopped: bool,
}

/// What the writer gets.
pub(crate) struct Work {
    pub events: Vec<QueuedEvent>,
    pub readings: Vec<Row>,
    /// Nobody will append any more: write what is there and end.
    pub closing: bool,
}

impl Queue {
    pub(crate) fn new(capacity: ByteSize, reading_interval: Duration) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            capacity: usize::try_from(capacity.0).unwrap_or(usize::MAX),
            reading_interval,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event, or settles its slot at once with the reason why not.
    pub(crate) fn push_event(&self, row: Row, slot: &Arc<Slot>) {
        match self.accept(row, slot) {
            Ok(()) => self.changed.notify_all(),
            Err(error) => slot.settle(Err(error)),
        }
    }

    fn accept(&self, row: Row, slot: &Arc<Slot>) -> Result<(), AppendError> {
        let cost = row.cost();
        let mut state = self.lock();
        if state.closing || state.stopped {
            state.lost.events += 1;
            return Err(AppendError::Closed);
        }
        if row.body.len() > BATCH_BYTES {
            state.lost.events += 1;
            let size = ByteSize(row.body.len() as u64);
            return Err(AppendError::TooLarge { size, most: ByteSize(BATCH_BYTES as u64) });
        }
        state.make_room(cost, self.capacity);
        if state.bytes + cost > self.capacity {
            state.lost.events += 1;
            let error = state.failing.as_ref().map_or_else(|| "it is too slow".to_owned(), |(_, error)| error.clone());
            return Err(AppendError::BacklogFull { error, backlog: ByteSize(self.capacity as u64) });
        }
        state.bytes += cost;
        state.events.push_back(QueuedEvent { row, slot: Arc::clone(slot) });
        Ok(())
    }

    /// Takes a reading; where there is no room, the oldest one goes.
    pub(crate) fn push_reading(&self, row: Row) {
        let cost = row.cost();
        let mut state = self.lock();
        if state.closing || state.stopped || row.body.len() > BATCH_BYTES {
            state.lost.readings += 1;
            return;
        }
        state.make_room(cost, self.capacity);
        if state.bytes + cost > self.capacity {
            state.lost.readings += 1;
            return;
        }
        let first = state.readings.is_empty();
        if first {
            state.readings_since = Some(Instant::now());
        }
        let was_small = state.reading_bytes < BATCH_BYTES;
        state.bytes += cost;
        state.reading_bytes += cost;
        state.readings.push_back(row);
        let wake = first || (was_small && state.reading_bytes >= BATCH_BYTES);
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// Counts an event that never got as far as the queue.
    pub(crate) fn count_lost_event(&self) {
        self.lock().lost.events += 1;
    }

    /// Counts a reading that never got as far as the queue.
    pub(crate) fn count_lost_reading(&self) {
        self.lock().lost.readings += 1;
    }

    /// For the writer: waits until there are events, readings are due, `until` has passed or the journal closes. What the writer still
    /// holds of a kind (`held`) is not topped up, and holding anything means not to wait.
    pub(crate) fn take(&self, held: (usize, usize), until: Option<Instant>) -> Work {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = state.readings_due(self.reading_interval);
            let readings_now = state.closing || state.reading_bytes >= BATCH_BYTES || due.is_some_and(|due| due <= now);
            let passed = until.is_some_and(|until| until <= now);
            let wanted = !state.events.is_empty() || (readings_now && !state.readings.is_empty());
            if held != (0, 0) || wanted || passed || state.closing {
                let events = if held.0 == 0 { state.take_events() } else { Vec::new() };
                let readings = if held.1 == 0 && readings_now { state.take_readings() } else { Vec::new() };
                state.in_flight = (held.0 + events.len(), held.1 + readings.len());
                return Work { events, readings, closing: state.closing };
            }
            let wake = [due, until].into_iter().flatten().min();
            state = match wake {
                Some(wake) => {
                    self.changed
                        .wait_timeout(state, wake.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// For the writer: waits out a failure; returns early when the journal closes.
    pub(crate) fn pause(&self, pause: Duration) {
        let deadline = Instant::now() + pause;
        let mut state = self.lock();
        while !state.closing {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For the writer: an attempt failed, with so many events and readings in its hands.
    pub(crate) fn failed(&self, at: Moment, error: &JournalError, in_flight: (usize, usize)) {
        let mut state = self.lock();
        state.in_flight = in_flight;
        let since = state.failing.as_ref().map_or(at, |(since, _)| *since);
        state.failing = Some((since, first_line(error)));
    }

    /// For the writer: everything that it held is written. Returns the failure that ends hereby.
    pub(crate) fn succeeded(&self) -> Option<(Moment, String)> {
        let mut state = self.lock();
        state.in_flight = (0, 0);
        state.failing.take()
    }

    /// For the writer: events of the last week that it had to delete.
    pub(crate) fn cut_history(&self, events: u64) {
        self.lock().history_cut += events;
    }

    /// Whether an event waits, so that chores should be put off.
    pub(crate) fn has_events(&self) -> bool {
        !self.lock().events.is_empty()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.events.is_empty() && state.readings.is_empty()
    }

    /// The error that was current when the writer ended.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.lock().failing.as_ref().map(|(_, error)| error.clone())
    }

    /// What was lost since the journal was opened.
    pub(crate) fn lost(&self) -> Lost {
        self.lock().lost
    }

    /// No more appends; the writer writes what is there and ends.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Waits until the writer has ended.
    pub(crate) fn wait_stopped(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !state.stopped {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The writer has ended, in whatever way: nobody may wait for an outcome for ever.
    pub(crate) fn stop(&self, held: Vec<QueuedEvent>, held_readings: usize) {
        let mut state = self.lock();
        state.stopped = true;
        let error = match &state.failing {
            Some((_, error)) => AppendError::ClosedFailing(error.clone()),
            None => AppendError::Closed,
        };
        let orphans: Vec<_> = held.into_iter().chain(state.events.drain(..)).collect();
        state.lost.events += orphans.len() as u64;
        state.lost.readings += (held_readings + state.readings.len()) as u64;
        state.readings.clear();
        state.bytes = 0;
        state.in_flight = (0, 0);
        drop(state);
        for orphan in orphans {
            orphan.slot.settle(Err(error.clone()));
        }
        self.changed.notify_all();
    }

    pub(crate) fn health(&self) -> JournalHealth {
        let state = self.lock();
        let recording = match &state.failing {
            _ if state.stopped => Recording::Stopped,
            Some((since, error)) => Recording::Failing { since: *since, error: error.clone() },
            None => Recording::Ok,
        };
        JournalHealth {
            recording,
            waiting_events: state.events.len() + state.in_flight.0,
            waiting_readings: state.readings.len() + state.in_flight.1,
            waiting_bytes: ByteSize(state.bytes as u64),
            lost: state.lost,
            history_cut: state.history_cut,
        }
    }
}

/// The message without its hint: health is shown in one line.
fn first_line(error: &JournalError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

impl State {
    fn readings_due(&self, interval: Duration) -> Option<Instant> {
        self.readings_since.map(|since| since + interval)
    }

    /// Lets the oldest readings go until `cost` more bytes fit, or none is left.
    fn make_room(&mut self, cost: usize, capacity: usize) {
        while self.bytes + cost > capacity {
            let Some(oldest) = self.readings.pop_front() else { return };
            self.bytes -= oldest.cost();
            self.reading_bytes -= oldest.cost();
            self.lost.readings += 1;
        }
    }

    fn take_events(&mut self) -> Vec<QueuedEvent> {
        let mut size = 0;
        let fits = |event: &&QueuedEvent| {
            size += event.row.cost();
            size <= BATCH_BYTES
        };
        let count = self.events.iter().take_while(fits).count().max(1).min(self.events.len());
        let events: Vec<_> = self.events.drain(..count).collect();
        self.bytes -= events.iter().map(|event| event.row.cost()).sum::<usize>();
        events
    }

    fn take_readings(&mut self) -> Vec<Row> {
        let mut size = 0;
        let fits = |row: &&Row| {
            size += row.cost();
            size <= BATCH_BYTES
        };
        let count = self.readings.iter().take_while(fits).count().max(1).min(self.readings.len());
        let readings: Vec<_> = self.readings.drain(..count).collect();
        let taken = readings.iter().map(Row::cost).sum::<usize>();
        self.bytes -= taken;
        self.reading_bytes -= taken;
        if self.readings.is_empty() {
            self.readings_since = None;
            // A burst must not leave its memory behind in a small process.
            self.readings.shrink_to(64);
        }
        readings
    }
}

/// Settles the slots of events that are now on the disk, whose numbers count up from `first`.
pub(crate) fn acknowledge(events: Vec<QueuedEvent>, first: EventId) {
    for (id, event) in (first.0..).zip(events) {
        event.slot.settle(Ok(EventId(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ticket;

    fn row(kind: &'static str, size: usize) -> Row {
        Row { wall_us: 0, boot_us: 0, kind, body: "x".repeat(size) }
    }

    fn queue(rows: usize) -> Queue {
        Queue::new(ByteSize((rows * (1000 + ROW_OVERHEAD)) as u64), Duration::from_secs(3600))
    }

    fn push_event(queue: &Queue, size: usize) -> Ticket {
        let (ticket, slot) = Ticket::new();
        queue.push_event(row("event", size), &slot);
        ticket
    }

    #[test]
    fn events_push_out_the_oldest_readings_and_then_are_refused() {
        let queue = queue(3);
        for kind in ["a", "b", "c", "d"] {
            queue.push_reading(row(kind, 1000));
        }
        assert_eq!(queue.lost(), Lost { events: 0, readings: 1 });
        let tickets: Vec<_> = (0..4).map(|_| push_event(&queue, 1000)).collect();
        assert_eq!(queue.lost(), Lost { events: 1, readings: 4 });
        let settled: Vec<_> = tickets.iter().map(|t| t.wait_for(Duration::ZERO).is_some()).collect();
        assert_eq!(settled, [false, false, false, true]);
        let health = queue.health();
        assert_eq!((health.waiting_events, health.waiting_readings), (3, 0));
    }

    #[test]
    fn one_event_that_is_too_large_harms_no_other() {
        let queue = Queue::new(ByteSize(64 << 20), Duration::from_secs(3600));
        let large = push_event(&queue, BATCH_BYTES + 1);
        assert!(matches!(large.wait(), Err(AppendError::TooLarge { .. })));
        let _ticket = push_event(&queue, BATCH_BYTES);
        let _ticket = push_event(&queue, BATCH_BYTES);
        assert_eq!(queue.take((0, 0), None).events.len(), 1, "a batch has at least one event, whatever its size");
        assert_eq!(queue.take((1, 0), None).events.len(), 0, "what is held is written first");
        assert_eq!(queue.take((0, 0), None).events.len(), 1);
        assert_eq!(queue.health().waiting_bytes, ByteSize(0));
    }

    #[test]
    fn readings_wait_for_company_but_not_longer_than_the_interval() {
        let queue = Queue::new(ByteSize(64 << 20), Duration::from_millis(5));
        queue.push_reading(row("a", 10));
        queue.push_reading(row("b", 10));
        let taken = queue.take((0, 0), None);
        assert_eq!(taken.readings.iter().map(|r| r.kind).collect::<Vec<_>>(), ["a", "b"]);

        let patient = Queue::new(ByteSize(64 << 20), Duration::from_secs(3600));
        patient.push_reading(row("a", 10));
        assert!(patient.take((0, 0), Some(Instant::now())).readings.is_empty());
        patient.close();
        assert_eq!(patient.take((0, 0), None).readings.len(), 1);
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_gone() {
        let queue = queue(3);
        let before = push_event(&queue, 1);
        queue.stop(Vec::new(), 0);
        assert_eq!(before.wait(), Err(AppendError::Closed));
        assert_eq!(push_event(&queue, 1).wait(), Err(AppendError::Closed));
        assert_eq!(queue.lost().events, 2);
        assert_eq!(queue.health().recording, Recording::Stopped);
    }
}
