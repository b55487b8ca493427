//! What we know of a stream and what the server knows of us: when a status is due, and whether the server seems to stop.
//!
//! Pure: the time is an argument.

use std::time::{Duration, Instant};

use model::Lsn;

use super::Progress;

/// After the last status, how long the next one waits that only answers a question. A server that waits at its shutdown for our
/// acknowledgement asks again the moment it has an answer: without this both sides would burn a core each.
const REPLY_PAUSE: Duration = Duration::from_millis(100);
/// After how many questions in a row that came too soon the server counts as stopping.
const HURRIED_MAX: u32 = 3;

/// Further than was received: the server would drop WAL that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFar {
    pub(super) reported: Lsn,
    pub(super) received: Lsn,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    interval: Duration,
    /// How long a server leaves us in peace after a status: half of `wal_sender_timeout`. `None`: for ever.
    peace: Option<Duration>,
    received: Lsn,
    progress: Progress,
    /// When the last status went, and what was in it.
    told: Option<(Instant, Progress)>,
    /// The server wants an answer.
    owed: bool,
    /// How many questions in a row came though the answer to the last one had just gone.
    hurried: u32,
}

impl Pulse {
    /// Of a stream that starts at `start`. `sender_timeout` is the server's, zero for none.
    pub(super) fn new(start: Lsn, interval: Duration, sender_timeout: Duration) -> Self {
        let peace = (!sender_timeout.is_zero()).then(|| sender_timeout / 2);
        let progress = Progress::default();
        Self { interval, peace, received: start, progress, told: None, owed: false, hurried: 0 }
    }

    pub(super) const fn received(&self) -> Lsn {
        self.received
    }

    pub(super) const fn progress(&self) -> Progress {
        self.progress
    }

    /// WAL up to here has come.
    pub(super) fn receive(&mut self, end: Lsn) {
        self.received = end;
        self.hurried = 0;
    }

    /// Takes over what is reported, as far as it is news: nothing that was acknowledged is taken back, for the slot would go back
    /// with it, to WAL that the server has dropped.
    pub(super) fn report(&mut self, progress: Progress) -> Result<(), TooFar> {
        let reported = progress.written.max(progress.flushed).max(progress.applied);
        if reported > self.received {
            return Err(TooFar { reported, received: self.received });
        }
        // What is on disk is also written.
        let written = progress.written.max(progress.flushed);
        self.progress = Progress {
            written: self.progress.written.max(written),
            flushed: self.progress.flushed.max(progress.flushed),
            applied: self.progress.applied.max(progress.applied),
        };
        Ok(())
    }

    /// The server wants a status.
    pub(super) fn ask(&mut self, now: Instant) {
        self.owed = true;
        let soon = |told: Instant| self.peace.is_none_or(|peace| now.saturating_duration_since(told) < peace / 2);
        self.hurried = if self.told.is_some_and(|(told, _)| soon(told)) { self.hurried.saturating_add(1) } else { 0 };
    }

    /// When the next status is due.
    pub(super) fn due(&self, now: Instant) -> Instant {
        match self.told {
            None => now,
            Some((_, last)) if last != self.progress => now,
            Some((told, _)) if self.owed => told + self.interval.min(REPLY_PAUSE),
            Some((told, _)) => told + self.interval,
        }
    }

    /// A status goes out now.
    pub(super) fn tell(&mut self, now: Instant) -> Progress {
        self.told = Some((now, self.progress));
        self.owed = false;
        self.progress
    }

    /// Whether the server asks again and again though it is answered: it does so while it waits at its shutdown.
    pub(super) const fn is_hurried(&self) -> bool {
        self.hurried >= HURRIED_MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flushed(lsn: u64) -> Progress {
        Progress { flushed: Lsn(lsn), ..Progress::default() }
    }

    #[test]
    fn when_a_status_is_due() {
        let begin = Instant::now();
        let mut pulse = Pulse::new(Lsn(10), 10 * SECOND, 60 * SECOND);
        assert_eq!(pulse.due(begin), begin);
        pulse.tell(begin);
        assert_eq!(pulse.due(begin), begin + 10 * SECOND);
        // A question is answered at once, unless it was just answered.
        pulse.ask(begin + SECOND);
        assert_eq!(pulse.due(begin + SECOND), begin + REPLY_PAUSE);
        pulse.tell(begin + SECOND);
        assert_eq!(pulse.due(begin + SECOND), begin + 11 * SECOND);
        // News do not wait.
        pulse.receive(Lsn(20));
        pulse.report(flushed(15)).unwrap();
        assert_eq!(pulse.due(begin + 2 * SECOND), begin + 2 * SECOND);
        assert_eq!(pulse.tell(begin + 2 * SECOND), Progress { written: Lsn(15), ..flushed(15) });
        pulse.report(flushed(12)).unwrap();
        assert_eq!(pulse.due(begin + 2 * SECOND), begin + 12 * SECOND);
    }

    #[test]
    fn who_asks_too_often_is_stopping() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(Lsn(10), 10 * SECOND, 60 * SECOND);
        pulse.tell(now);
        // A server whose patience is half over.
        for _ in 0..10 {
            now += 31 * SECOND;
            pulse.ask(now);
            pulse.tell(now);
        }
        assert!(!pulse.is_hurried());
        for hurried in [false, false, true] {
            now += REPLY_PAUSE;
            pulse.ask(now);
            pulse.tell(now);
            assert_eq!(pulse.is_hurried(), hurried);
        }
        pulse.receive(Lsn(11));
        assert!(!pulse.is_hurried());
        // A server without a time-out has no other reason to ask.
        let mut pulse = Pulse::new(Lsn(10), 10 * SECOND, Duration::ZERO);
        pulse.tell(now);
        for _ in 0..3 {
            pulse.ask(now + 3600 * SECOND);
        }
        assert!(pulse.is_hurried());
    }

    proptest! {
        #[test]
        fn nothing_is_taken_back_and_nothing_acknowledged_that_is_not_here(
            steps in proptest::collection::vec((0u64..100, 0u64..100, 0u64..100, 0u64..100), 1..40),
        ) {
            let mut pulse = Pulse::new(Lsn(0), SECOND, SECOND);
            let mut last = Progress::default();
            for (more, written, flushed, applied) in steps {
                pulse.receive(Lsn(pulse.received().0 + more / 10));
                let progress = Progress { written: Lsn(written), flushed: Lsn(flushed), applied: Lsn(applied) };
                let taken = pulse.report(progress);
                prop_assert_eq!(taken.is_err(), written.max(flushed).max(applied) > pulse.received().0);
                let now = pulse.tell(Instant::now());
                prop_assert!(now.written >= last.written && now.flushed >= last.flushed && now.applied >= last.applied);
                prop_assert!(now.flushed <= now.written && now.written <= pulse.received() && now.applied <= pulse.received());
                last = now;
            }
        }
    }
}
