//! The clocks that the journal reads for its own entries and its own age.

use jiff::Timestamp;
use model::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Where Linux shows which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This instant on both clocks.
pub(crate) fn now() -> Moment {
    let boot = clock_gettime(ClockId::Boottime);
    let us = boot.tv_sec.saturating_mul(1_000_000).saturating_add(boot.tv_nsec / 1_000);
    Moment { wall: Timestamp::now(), boot_us: u64::try_from(us).unwrap_or(0) }
}

/// Which boot of the host this is; empty where the kernel does not say.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}
