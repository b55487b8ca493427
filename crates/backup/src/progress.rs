//! How far a long piece of work is; whom to tell; when to step back; whether to stop.
//!
//! The caller implements [`Progress`]. Everything in it may be called from any thread and must return soon: the work waits for it.

use std::time::{Duration, Instant};

use model::Lsn;

/// The longest that a worker sleeps at once for [`Progress::pace`]; then it asks again, up to [`PACE_TURNS_MAX`] times for each extent.
pub const PACE_SLICE_MAX: Duration = Duration::from_millis(250);
/// How often a worker asks again before it does its next extent whatever the answer: a backup that holds WAL back must end some day.
pub const PACE_TURNS_MAX: u32 = 40;
/// How often [`Progress::update`] is called at most.
pub(crate) const UPDATE_EVERY: Duration = Duration::from_millis(250);

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking at the source and the repository.
    Preparing,
    /// PostgreSQL writes the checkpoint that a backup starts with.
    Checkpoint,
    /// Files are copied.
    Copying,
    /// The write-ahead log that belongs to the backup is copied and checked.
    Wal,
    /// The backup becomes visible in the repository.
    Committing,
    /// Files are written to the target.
    Writing,
    /// What was written is forced to disk.
    Syncing,
    /// All is there.
    Done,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// What is being done.
    pub stage: Stage,
    /// Plain bytes that are done.
    pub bytes_done: u64,
    /// Plain bytes altogether, as far as is known: files grow and shrink while they are copied.
    pub bytes_total: u64,
    /// Files that are done.
    pub files_done: u64,
    /// Files altogether.
    pub files_total: u64,
    /// Plain bytes per second, over the last seconds; 0 as long as nobody can say, above all in the first moments of a stage.
    pub bytes_per_second: f64,
    /// How long it will take at this rate; `None` as long as nobody can say.
    pub remaining: Option<Duration>,
}

/// What is worth a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// What is about to be done, said before it begins.
    Plan {
        /// Files.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// What it will take in the repository (create) or on the target's disk (restore), in bytes: an upper estimate.
        space_needed: u64,
        /// What is free there, where that is known.
        space_free: Option<u64>,
        /// How `space_needed` was found.
        basis: &'static str,
    },
    /// A page of the source is damaged.
    CorruptPage {
        /// The file, relative to the data directory.
        path: String,
        /// The block, counted over all segment files of the fork.
        block: u32,
        /// What is wrong with it.
        why: String,
    },
    /// Something that the user should know and that stops nothing.
    Warning(String),
    /// The backup's range of write-ahead log begins here.
    Started(Lsn),
}

/// Whom to tell, and whom to ask. All methods have a default that does nothing.
pub trait Progress: Sync {
    /// Called some times a second, from one thread.
    fn update(&self, update: &Update) {
        let _ = update;
    }

    /// Called when a stage of a proof begins.
    fn proving(&self, stage: crate::proof::Stage) {
        let _ = stage;
    }

    /// Called for what is worth a line.
    fn note(&self, note: &Note) {
        let _ = note;
    }

    /// How long a worker shall sleep before its next extent (some 512 KiB): the caller's answer to pressure on the host. Asked again after
    /// at most [`PACE_SLICE_MAX`].
    fn pace(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether to stop. The repository stays valid, the source's backup mode ends, a half restore can be run again.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Sleeps as the caller wishes, within the bounds. False when the work was cancelled meanwhile.
pub(crate) fn step_back(progress: &dyn Progress) -> bool {
    for _ in 0..PACE_TURNS_MAX {
        if progress.cancelled() {
            return false;
        }
        let pause = progress.pace();
        if pause.is_zero() {
            return true;
        }
        std::thread::sleep(pause.min(PACE_SLICE_MAX));
    }
    !progress.cancelled()
}

/// Makes rates and remaining times of counts.
#[derive(Debug)]
pub(crate) struct Meter {
    rate: Rate,
    told: Option<Instant>,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { rate: Rate::new(now), told: None }
    }

    /// Tells `progress` unless it was told a moment ago; always where `stage` is a new one.
    pub(crate) fn tell(&mut self, progress: &dyn Progress, now: Instant, stage: Stage, done: Counts, total: Counts) {
        let due = self.told.is_none_or(|told| now.duration_since(told) >= UPDATE_EVERY);
        if !due && matches!(stage, Stage::Copying | Stage::Writing) {
            return;
        }
        self.told = Some(now);
        let bytes_per_second = self.rate.add(now, done.bytes);
        progress.update(&Update {
            stage,
            bytes_done: done.bytes,
            bytes_total: total.bytes.max(done.bytes),
            files_done: done.files,
            files_total: total.files.max(done.files),
            bytes_per_second,
            remaining: remaining(done.bytes, total.bytes, bytes_per_second),
        });
    }
}

/// Files and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// How long the rate remembers: long enough to be steady, short enough to follow a disk that changes its mind.
const RATE_MEMORY: Duration = Duration::from_secs(10);

/// Before this much of the copying is over, a rate is chance: what lay ready in a buffer is divided by next to no time.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// An exponentially forgetting rate.
#[derive(Debug)]
struct Rate {
    began: Instant,
    last: (Instant, u64),
    value: f64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { began: now, last: (now, 0), value: 0.0 }
    }

    fn add(&mut self, now: Instant, total: u64) -> f64 {
        let (then, before) = self.last;
        let passed = now.duration_since(then).as_secs_f64();
        if passed > 0.0 {
            let fresh = total.saturating_sub(before) as f64 / passed;
            // In the beginning the plain mean: an average that starts at zero would promise too long a time.
            let age = now.duration_since(self.began).min(RATE_MEMORY).as_secs_f64();
            let weight = (passed / age).min(1.0);
            self.value += weight * (fresh - self.value);
            self.last = (now, total);
        }
        if now.duration_since(self.began) < RATE_AFTER { 0.0 } else { self.value }
    }
}

/// Longer promises than this are none.
const REMAINING_MAX: Duration = Duration::from_secs(100 * 24 * 3600);

fn remaining(done: u64, total: u64, rate: f64) -> Option<Duration> {
    let seconds = total.saturating_sub(done) as f64 / rate;
    (rate > 0.0 && seconds < REMAINING_MAX.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_promised() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        let mut value = 0.0;
        for tick in 1..=20u32 {
            value = rate.add(begin + Duration::from_millis(500) * tick, u64::from(tick) * 500);
        }
        assert!((value - 1000.0).abs() < 1e-6, "{value}");
        assert_eq!(remaining(1000, 3000, value), Some(Duration::from_secs(2)));
        assert_eq!(remaining(0, 1, 0.0), None);
        assert_eq!(remaining(5, 5, 1.0), Some(Duration::ZERO));
    }

    #[derive(Default)]
    struct Seen(std::sync::Mutex<Vec<Update>>);

    impl Progress for Seen {
        fn update(&self, update: &Update) {
            self.0.lock().unwrap().push(*update);
        }
    }

    #[test]
    fn the_first_moments_promise_nothing() {
        let (begin, seen) = (Instant::now(), Seen::default());
        let mut meter = Meter::new(begin);
        let total = Counts { files: 1, bytes: 1 << 40 };
        let after = [Duration::from_nanos(1), RATE_AFTER / 2, RATE_AFTER - Duration::from_nanos(1), RATE_AFTER * 2];
        for (passed, bytes) in after.into_iter().zip([1 << 20, 2 << 20, 3 << 20, 4 << 20]) {
            meter.tell(&seen, begin + passed, Stage::Copying, Counts { files: 0, bytes }, total);
        }
        let (last, first) = seen.0.lock().unwrap().split_last().map(|(last, first)| (*last, first.to_vec())).unwrap();
        assert_eq!(first.len(), 3);
        assert!(first.iter().all(|update| update.bytes_per_second == 0.0 && update.remaining.is_none()), "{first:?}");
        // Of the first burst no more than its share is left.
        assert!((last.bytes_per_second - f64::from(2 << 20)).abs() < 1.0, "{last:?}");
        assert!(last.remaining.is_some());
    }

    struct Pressed(AtomicU32);

    impl Progress for Pressed {
        fn pace(&self) -> Duration {
            self.0.fetch_add(1, Ordering::Relaxed);
            Duration::from_nanos(1)
        }
    }

    #[test]
    fn pressure_without_end_does_not_stop_the_work_for_ever() {
        let pressed = Pressed(AtomicU32::new(0));
        assert!(step_back(&pressed));
        assert_eq!(pressed.0.into_inner(), PACE_TURNS_MAX);
    }

    struct Stopped;

    impl Progress for Stopped {
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn cancelling_is_seen() {
        assert!(!step_back(&Stopped));
        assert!(step_back(&Silent));
    }
}
