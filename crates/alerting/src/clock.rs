//! Both clocks, read at once.

use jiff::Timestamp;
use model::Moment;

/// This instant.
pub(crate) fn now() -> Moment {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(boot.tv_nsec).unwrap_or(0);
    Moment { wall: Timestamp::now(), boot_us: seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000) }
}
