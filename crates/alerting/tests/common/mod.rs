//! What several test programs need.

use jiff::Timestamp;
use model::Moment;

/// This instant. An age is counted by the boot clock: an alert "of boot" is given up on a host that is up for long enough.
pub(crate) fn now() -> Moment {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot_us = u64::try_from(boot.tv_sec).unwrap() * 1_000_000 + u64::try_from(boot.tv_nsec / 1_000).unwrap();
    Moment { wall: Timestamp::now(), boot_us }
}
