//! When the core was first saturated, by the drill's own readings: the moment from which detection is timed.

use super::cpu::{CoreReading, busy_share};

/// How busy a saturated core is at least. Not 1: the kernel's ticks are coarse and the sampling jitters.
pub(crate) const SATURATED: f64 = 0.95;
/// How long it must be so busy: shorter peaks are what an open load at 55 % looks like on a good day.
const WINDOW_US: u64 = 1_000_000;

/// The start of the first whole second, from `from_us` on, in which the core was saturated; none where there was none.
pub(crate) fn first_saturated(readings: &[CoreReading], from_us: u64) -> Option<u64> {
    let after: Vec<_> = readings.iter().filter(|reading| reading.boot_us >= from_us).collect();
    after.iter().enumerate().find_map(|(index, &&start)| {
        let end = after[index..].iter().find(|reading| reading.boot_us >= start.boot_us + WINDOW_US)?;
        (busy_share(start, **end) >= SATURATED).then_some(start.boot_us)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Readings every 50 ms in which the core is as busy as the function says.
    fn readings(length_ms: u64, busy: impl Fn(u64) -> f64) -> Vec<CoreReading> {
        let mut idle = Duration::ZERO;
        (0..length_ms / 50)
            .map(|step| {
                let idle_us = u64::try_from(idle.as_micros()).unwrap();
                let reading = CoreReading { boot_us: step * 50_000, idle_us };
                idle += Duration::from_millis(50).mul_f64(1.0 - busy(step * 50));
                reading
            })
            .collect()
    }

    #[test]
    fn the_first_saturated_second_is_found() {
        for (name, busy, from_us, expected_ms) in [
            ("never", (|_| 0.6) as fn(u64) -> f64, 0, None),
            ("always", |_| 1.0, 0, Some(0)),
            ("from 2 s on", |ms| if ms < 2_000 { 0.5 } else { 1.0 }, 0, Some(1_900)),
            ("a peak of 500 ms does not count", |ms| if (1_000..1_500).contains(&ms) { 1.0 } else { 0.5 }, 0, None),
            ("what was before does not count", |ms| if ms < 1_500 { 1.0 } else { 0.5 }, 1_000_000, None),
            ("too late to fill a second", |ms| if ms < 3_500 { 0.5 } else { 1.0 }, 0, None),
        ] {
            let found = first_saturated(&readings(4_000, busy), from_us).map(|us| us / 1_000);
            assert_eq!(found, expected_ms, "{name}");
        }
    }
}
