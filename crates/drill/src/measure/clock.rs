//! The boot clock, which the guard's moments are on as well (`model::Moment`).

use jiff::Timestamp;
use model::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the host booted (`CLOCK_BOOTTIME`, clock_gettime(2)).
pub(crate) fn boot_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

/// Now, on both clocks.
pub(crate) fn now() -> Moment {
    Moment { wall: Timestamp::now(), boot_us: boot_us() }
}
