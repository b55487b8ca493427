//! How often we ask, so that what we cost stays bounded. Pure.

use std::time::Duration;

/// How much of a core, or where that can't be seen of the time, all our readings together may take of the server.
pub const OWN_SHARE: f64 = 0.05;
/// However dear a reading is, it is not put off for longer than this.
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// The rhythm of one kind of reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Time between two readings while they are cheap.
    pub interval: Duration,
    /// Its part of [`OWN_SHARE`].
    pub part: f64,
    /// However dear the reading is, it is not put off for longer than this: some are needed most when the server is slow.
    pub at_most: Duration,
}

impl Pace {
    /// How long to wait from the begin of one reading to the begin of the next, after one that cost `cost`.
    pub fn after(&self, cost: Duration) -> Duration {
        let affordable = cost.as_secs_f64() / (OWN_SHARE * self.part);
        let stretched = Duration::try_from_secs_f64(affordable).unwrap_or(MAX_INTERVAL);
        stretched.clamp(self.interval, self.at_most.max(self.interval))
    }
}

/// Waiting times between connection attempts: short at first, for a restart takes a second; bounded, so that recovery is seen.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The first wait.
    pub const FIRST: Duration = Duration::from_millis(250);
    /// The longest.
    pub const LONGEST: Duration = Duration::from_secs(5);

    /// Before the first attempt.
    pub fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(Self::LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { interval: Duration::from_secs(1), part: 0.5, at_most: Duration::from_secs(30) };

    #[test]
    fn a_dear_reading_is_rarer() {
        for (cost_ms, after_ms) in [(0, 1_000), (1, 1_000), (25, 1_000), (50, 2_000), (250, 10_000), (9_000, 30_000)] {
            assert_eq!(PACE.after(Duration::from_millis(cost_ms)), Duration::from_millis(after_ms), "{cost_ms}");
        }
    }

    #[test]
    fn attempts_get_rarer_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..7).map(|_| backoff.wait().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    }

    proptest! {
        #[test]
        fn the_budget_holds_within_the_bound(cost_us in 0..60_000_000u64) {
            let cost = Duration::from_micros(cost_us);
            let wait = PACE.after(cost);
            prop_assert!(wait >= PACE.interval && wait <= PACE.at_most);
            let share = cost.as_secs_f64() / wait.as_secs_f64();
            prop_assert!(share <= OWN_SHARE * PACE.part + 1e-9 || wait == PACE.at_most);
        }
    }
}
