//! When the core was saturated, by the drill's own readings: the moments from which detection is timed.

use super::cpu::{CoreReading, busy_share};

/// How busy a saturated core is at least. Not 1: the kernel's ticks are coarse and the sampling jitters.
pub(crate) const SATURATED: f64 = 0.95;
/// How long it must be so busy: shorter peaks are what an open load at 55 % looks like on a good day.
const WINDOW_US: u64 = 1_000_000;

/// The spans of whole seconds, between two moments, in which the core was saturated: from and to, on the boot clock. Those that are
/// less than a second apart are one.
pub(crate) fn saturations(readings: &[CoreReading], from_us: u64, to_us: u64) -> Vec<(u64, u64)> {
    let within: Vec<_> = readings.iter().filter(|reading| (from_us..=to_us).contains(&reading.boot_us)).collect();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for (index, &&start) in within.iter().enumerate() {
        let Some(end) = within[index..].iter().find(|reading| reading.boot_us >= start.boot_us + WINDOW_US) else {
            break;
        };
        if busy_share(start, **end) < SATURATED {
            continue;
        }
        match spans.last_mut() {
            Some((_, to)) if start.boot_us < *to + WINDOW_US => *to = end.boot_us,
            _ => spans.push((start.boot_us, end.boot_us)),
        }
    }
    spans
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
    fn saturated_seconds_are_found() {
        for (name, busy, (from_us, to_us), expected_ms) in [
            ("never", (|_| 0.6) as fn(u64) -> f64, (0, 9_000_000), &[][..]),
            ("always", |_| 1.0, (0, 9_000_000), &[(0, 3_950)]),
            ("from 2 s on", |ms| if ms < 2_000 { 0.5 } else { 1.0 }, (0, 9_000_000), &[(1_900, 3_950)]),
            ("a peak of 500 ms", |ms| if (1_000..1_500).contains(&ms) { 1.0 } else { 0.5 }, (0, 9_000_000), &[]),
            ("what was before", |ms| if ms < 1_500 { 1.0 } else { 0.5 }, (1_000_000, 9_000_000), &[]),
            ("what came after", |ms| if ms < 2_500 { 0.5 } else { 1.0 }, (0, 3_000_000), &[]),
            ("too late to fill a second", |ms| if ms < 3_500 { 0.5 } else { 1.0 }, (0, 9_000_000), &[]),
            (
                "twice, far apart",
                |ms| if (1_200..2_800).contains(&ms) { 0.0 } else { 1.0 },
                (0, 9_000_000),
                &[(0, 1_250), (2_750, 3_950)],
            ),
            ("with a dip", |ms| if (1_500..1_700).contains(&ms) { 0.2 } else { 1.0 }, (0, 9_000_000), &[(0, 3_950)]),
        ] {
            let found: Vec<_> = saturations(&readings(4_000, busy), from_us, to_us)
                .into_iter()
                .map(|(from, to)| (from / 1_000, to / 1_000))
                .collect();
            assert_eq!(found, expected_ms, "{name}");
        }
    }
}
