//! When a failed delivery is tried again, and when it is given up: pure.

use std::time::Duration;

/// Pause after the first failure.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause of our own: how late an alert may be after the receiver is back, unless another alert finds that out first.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Longest `Retry-After` that is honoured.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(900);

/// Attempts after which a delivery is given up.
pub(crate) const MAX_ATTEMPTS: u32 = 100;

/// Age after which a delivery is given up: nobody acts on an alert of yesterday's shift, and its episode is in the journal.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(6 * 3600);

/// The pause after the failed attempt number `attempt` (from 1): doubling, at least half of it, the rest by `chance` (any number),
/// so that several guards do not come back at once; and not before the receiver asked for.
pub(crate) fn pause(attempt: u32, retry_after: Option<Duration>, chance: u64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    let half = doubled.min(LONGEST_PAUSE) / 2;
    let ours = half + half.mul_f64(chance as f64 / u64::MAX as f64);
    ours.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

/// Whether it is tried again after the failed attempt number `attempt`, at this age.
pub(crate) fn tries_again(attempt: u32, age: Duration) -> bool {
    attempt < MAX_ATTEMPTS && age < MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_within_their_bounds(attempt in 1_u32..10_000, asked in proptest::option::of(0_u64..100_000), chance: u64) {
            let asked = asked.map(Duration::from_secs);
            let pause = pause(attempt, asked, chance);
            prop_assert!(pause >= FIRST_PAUSE / 2);
            prop_assert!(pause <= LONGEST_PAUSE.max(LONGEST_RETRY_AFTER));
            prop_assert!(pause >= asked.unwrap_or_default().min(LONGEST_RETRY_AFTER));
            if asked.is_none() {
                prop_assert!(pause <= LONGEST_PAUSE);
                prop_assert!(attempt < 12 || pause >= LONGEST_PAUSE / 2);
            }
        }
    }

    #[test]
    fn attempts_and_age_are_bounded() {
        assert!(tries_again(1, Duration::ZERO));
        assert!(!tries_again(MAX_ATTEMPTS, Duration::ZERO));
        assert!(!tries_again(1, MAX_AGE));
    }
}
