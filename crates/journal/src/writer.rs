//! The writer's thread: takes what waits, writes it, tries again where the store fails, and prunes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use model::{EventId, EventKind, Moment};

use crate::{
    JournalError, JournalOptions,
    age::Age,
    clock,
    health::Lost,
    queue::{Queue, QueuedEvent, Row, acknowledge},
    store::Store,
};

/// The least time between two entries of the journal about itself: a store on the brink must not fill up with them.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Steps of pruning between two looks at the queue.
const PRUNE_STEPS: u32 = 8;

/// See the module.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    path: PathBuf,
    options: JournalOptions,
    boot_id: String,
    /// The store and its clock; `None` where it could not be opened or has to be opened anew.
    store: Option<(Store, Age)>,
    /// Events that are being written, until they surely are.
    events: Vec<QueuedEvent>,
    readings: Vec<Row>,
    /// The newest event that was surely there when the store failed, and how many were being written: a commit that failed may yet be
    /// found done when the store is opened again.
    unclear: Option<(i64, usize)>,
    failures: u32,
    /// A failure that is over and not yet recorded.
    episode: Option<(Moment, String)>,
    reported: Lost,
    /// Events of the last week that were deleted, not yet recorded.
    cut: u64,
    last_report: Option<Instant>,
    /// Whether pruning has more to do.
    prune_more: bool,
    #[cfg(test)]
    knobs: Arc<crate::tests::Knobs>,
}

impl Writer {
    pub(crate) fn new(
        queue: Arc<Queue>,
        path: PathBuf,
        options: JournalOptions,
        #[cfg(test)] knobs: Arc<crate::tests::Knobs>,
    ) -> Self {
        Self {
            queue,
            path,
            options,
            boot_id: clock::boot_id(),
            store: None,
            events: Vec::new(),
            readings: Vec::new(),
            unclear: None,
            failures: 0,
            episode: None,
            reported: Lost::default(),
            cut: 0,
            last_report: None,
            prune_more: true,
            #[cfg(test)]
            knobs,
        }
    }

    /// Opens the store, or says what is in the way. What may pass is tried again when something is to be written.
    pub(crate) fn open(&mut self) -> Result<(), JournalError> {
        match self.reopen() {
            Err(error) if error.may_pass() => {
                self.note_failure(&error);
                Ok(())
            }
            other => other,
        }
    }

    /// Works until the journal is closed.
    pub(crate) fn run(&mut self) {
        loop {
            let work = self.queue.take((self.events.len(), self.readings.len()), self.wake_at());
            self.events.extend(work.events);
            self.readings.extend(work.readings);
            match self.attempt(work.closing) {
                Ok(()) if work.closing && self.queue.is_empty() => return,
                Ok(()) => {}
                Err(error) => {
                    self.note_failure(&error);
                    if work.closing {
                        return;
                    }
                    self.queue.pause(self.backoff());
                }
            }
        }
    }

    /// Closes the file and settles whatever could not be written.
    pub(crate) fn end(mut self) {
        self.store = None;
        self.queue.stop(std::mem::take(&mut self.events), self.readings.len());
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.failures > 0 || self.prune_more {
            return Some(Instant::now());
        }
        let report = self.report_pending().then(|| self.last_report.map(|last| last + REPORT_INTERVAL)).flatten();
        let tick = Instant::now() + self.tick_interval();
        Some(report.map_or(tick, |report| report.min(tick)))
    }

    /// Ages need not be known more precisely than an eighth of the shortest retention.
    fn tick_interval(&self) -> Duration {
        let retention = &self.options.retention;
        let shortest = retention.readings.min(retention.events) / 8;
        self.options.tick_interval.min(shortest).max(Duration::from_secs(1))
    }

    fn backoff(&self) -> Duration {
        let doubled = self.options.retry_first.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        doubled.min(self.options.retry_longest)
    }

    /// One attempt at everything that is to be done: events first, for somebody waits for them.
    fn attempt(&mut self, closing: bool) -> Result<(), JournalError> {
        self.reopen()?;
        self.write_events()?;
        self.write_readings()?;
        self.chores()?;
        if let Some(failure) = self.queue.succeeded() {
            tracing::info!("the journal is written again");
            self.failures = 0;
            self.episode.get_or_insert(failure);
        }
        self.report(closing)
    }

    fn reopen(&mut self) -> Result<(), JournalError> {
        if let Some((store, _)) = &self.store {
            #[cfg(test)]
            self.knobs.apply(store);
            return store.check_place();
        }
        let store = Store::open(&self.path, self.options.retention)?;
        let age = Age::resume(&store, clock::now(), &self.boot_id)?;
        if let Some((before, count)) = self.unclear.take() {
            // A transaction is there as a whole or not at all.
            let found = store.last_event() - before;
            if count > 0 && count == self.events.len() && usize::try_from(found) == Ok(count) {
                acknowledge(std::mem::take(&mut self.events), EventId(before + 1));
            }
        }
        #[cfg(test)]
        self.knobs.apply(&store);
        self.store = Some((store, age));
        Ok(())
    }

    fn write_events(&mut self) -> Result<(), JournalError> {
        let Some((store, _)) = &mut self.store else { return Ok(()) };
        if self.events.is_empty() {
            return Ok(());
        }
        let before = store.last_event();
        let rows = || self.events.iter().map(|event| &event.row);
        let mut written = store.write_events(rows());
        if written.as_ref().is_err_and(JournalError::is_full) && store.make_room().is_ok_and(|given_up| given_up > 0) {
            written = store.write_events(rows());
        }
        match written {
            Ok(first) => {
                acknowledge(std::mem::take(&mut self.events), first);
                Ok(())
            }
            Err(error) => {
                self.unclear = Some((before, self.events.len()));
                Err(error)
            }
        }
    }

    fn write_readings(&mut self) -> Result<(), JournalError> {
        let Some((store, _)) = &mut self.store else { return Ok(()) };
        if !self.readings.is_empty() {
            store.write_readings(&self.readings)?;
            self.readings = Vec::new();
            self.prune_more = true;
        }
        Ok(())
    }

    /// Notes the journal's age and prunes, a bounded number of steps and fewer when an event comes.
    fn chores(&mut self) -> Result<(), JournalError> {
        let interval = self.tick_interval();
        let Some((store, age)) = &mut self.store else { return Ok(()) };
        let now = clock::now();
        age.note(store, now, &self.boot_id, interval)?;
        for _ in 0..PRUNE_STEPS {
            let pruned = store.prune(age, now)?;
            self.cut += pruned.protected;
            self.queue.cut_history(pruned.protected);
            self.prune_more = pruned.more;
            if !pruned.more || self.queue.has_events() {
                break;
            }
        }
        Ok(())
    }

    fn report_pending(&self) -> bool {
        self.episode.is_some() || self.cut > 0 || self.queue.lost() != self.reported
    }

    /// Records what could not be recorded, once all that waited is written, so that the count is complete.
    fn report(&mut self, closing: bool) -> Result<(), JournalError> {
        let waited = self.last_report.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        if !self.report_pending() || self.queue.has_events() || !(waited || closing) {
            return Ok(());
        }
        let Some((store, _)) = &mut self.store else { return Ok(()) };
        let (lost, now) = (self.queue.lost(), clock::now());
        let new = lost.total() - self.reported.total();
        let mut rows = Vec::new();
        if self.episode.is_some() || new > 0 {
            let (since, error) = match &self.episode {
                Some((since, error)) => {
                    (*since, format!("{error}; it lasted {:.1} s", now.since(*since).as_secs_f64()))
                }
                None => (now, "more came than could be written or was allowed".to_owned()),
            };
            rows.push((since, EventKind::RecordingFailed { error, lost: new }));
        }
        if self.cut > 0 {
            let max_size = self.options.retention.max_size;
            rows.push((now, EventKind::HistoryCut { events: self.cut, max_size }));
        }
        let rows: Vec<_> = rows.iter().filter_map(|(at, kind)| crate::event_row(*at, kind).ok()).collect();
        store.write_events(rows.iter())?;
        self.episode = None;
        self.cut = 0;
        self.reported = lost;
        self.last_report = Some(Instant::now());
        Ok(())
    }

    fn note_failure(&mut self, error: &JournalError) {
        if self.failures == 0 {
            tracing::error!("recording fails: {error}");
        }
        self.failures = self.failures.saturating_add(1);
        self.queue.failed(clock::now(), error, (self.events.len(), self.readings.len()));
        // A connection that has seen an I/O error may have a wrong idea of the file; one that lacks space or a lock has not.
        let keep = error.is_full() || error.is_busy() || matches!(error, JournalError::LogHeld { .. });
        if !keep {
            self.store = None;
        } else if self.store.is_some() {
            // It was rolled back for sure.
            self.unclear = None;
        }
    }
}
