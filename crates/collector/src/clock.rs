//! The two clocks of this host, and which boot of it this is.

use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;
use model::Moment;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Now, on the wall clock and on the boot clock.
pub fn now() -> Moment {
    let wall = clock_gettime(ClockId::Realtime);
    let boot = since_boot();
    let nanoseconds = i32::try_from(wall.tv_nsec).unwrap_or(0);
    Moment {
        wall: Timestamp::new(wall.tv_sec, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH),
        boot_us: u64::try_from(boot.as_micros()).unwrap_or(u64::MAX),
    }
}

/// Time since the host booted, suspended time included.
pub fn since_boot() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

/// Time since the host booted in which it was not suspended.
pub(crate) fn awake_since_boot() -> Duration {
    duration(clock_gettime(ClockId::Monotonic))
}

/// `/proc/sys/kernel/random/boot_id`: tells one boot of the host from the next. `None` where it can't be read.
pub fn boot_id() -> Option<String> {
    boot_id_under(Path::new("/proc"))
}

pub(crate) fn boot_id_under(proc_root: &Path) -> Option<String> {
    let text = fs::read_to_string(proc_root.join("sys/kernel/random/boot_id")).ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

fn duration(time: Timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_on_both_clocks() {
        let (before, moment) = (since_boot(), now());
        assert!(u128::from(moment.boot_us) >= before.as_micros());
        assert!((Timestamp::now().as_second() - moment.wall.as_second()).abs() <= 1);
    }

    #[test]
    fn a_boot_has_a_name() {
        let id = boot_id().expect("Linux names its boots");
        assert_eq!((id.len(), id.matches('-').count()), (36, 4));
        assert_eq!(boot_id_under(Path::new("/nonexistent")), None);
    }
}
