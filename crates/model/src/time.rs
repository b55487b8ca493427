//! Time, twice: the wall clock for people, the boot clock for arithmetic.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An instant on both clocks of one boot of the host.
///
/// Wall clocks are stepped by people and NTP, so no duration is ever computed from them while the host is the same boot:
/// [`Moment::since`] uses `CLOCK_BOOTTIME` (clock_gettime(2)), which also counts suspended time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// The wall clock, UTC.
    pub wall: Timestamp,
    /// Microseconds since the host booted.
    pub boot_us: u64,
}

impl Moment {
    /// The time from `earlier` to `self` on the boot clock; zero where `earlier` is later or of another boot.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.boot_us.saturating_sub(earlier.boot_us))
    }

    /// This moment moved forward on both clocks.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self {
            wall: self.wall.saturating_add(duration).unwrap_or(Timestamp::MAX),
            boot_us: self.boot_us.saturating_add(us),
        }
    }

    /// How far the wall clock was stepped between `earlier` and `self`, in microseconds: positive where it was put
    /// forward. Only meaningful for two moments of one boot.
    pub fn clock_step_us(self, earlier: Self) -> i64 {
        let wall = self.wall.as_microsecond() - earlier.wall.as_microsecond();
        let boot = i64::try_from(self.boot_us).unwrap_or(i64::MAX) - i64::try_from(earlier.boot_us).unwrap_or(i64::MAX);
        wall.saturating_sub(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_s: i64, boot_s: u64) -> Moment {
        Moment { wall: Timestamp::from_second(wall_s).unwrap(), boot_us: boot_s * 1_000_000 }
    }

    #[test]
    fn durations_ignore_a_stepped_wall_clock() {
        let before = at(1_000, 10);
        let after = at(400, 15);
        assert_eq!(after.since(before), Duration::from_secs(5));
        assert_eq!(after.clock_step_us(before), -605_000_000);
        assert_eq!(before.since(after), Duration::ZERO);
    }

    #[test]
    fn plus_moves_both_clocks() {
        assert_eq!(at(1_000, 10).plus(Duration::from_secs(3)), at(1_003, 13));
        assert_eq!(at(1_000, 10).plus(Duration::MAX).boot_us, u64::MAX);
    }
}
