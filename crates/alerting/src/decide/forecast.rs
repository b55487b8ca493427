//! Where a figure goes: a straight line through the last minutes, by least squares. Pure, bounded.
//!
//! A line is trusted only where the points lie along it (the share of their variance that it explains): what goes up and down, as
//! temporary files and WAL that is recycled do, has no such line.

use std::{collections::VecDeque, time::Duration};

use model::Moment;

use crate::settings::duration;

/// Points that are kept.
const MAX_POINTS: usize = 256;
/// Fewer points are no line.
const MIN_POINTS: usize = 8;
/// How much of the time asked for the points must span.
const COVERED: f64 = 0.9;
/// Forecasts reach no farther: a year.
const HORIZON_S: f64 = 365.0 * 86_400.0;

/// A figure over the last minutes, a point each `step`.
#[derive(Clone, Debug)]
pub(super) struct History {
    step: Duration,
    kept: Duration,
    points: VecDeque<(Moment, f64)>,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) per_second: f64,
    /// Where it is now.
    pub(super) now: f64,
    /// The part of the points' variance that it explains, from 0 to 1.
    pub(super) fit: f64,
}

impl History {
    /// Points `step` apart, over `kept`; at most 256.
    pub(super) fn new(step: Duration, kept: Duration) -> Self {
        Self { step, kept, points: VecDeque::new() }
    }

    /// Takes a point in, if it is time for one, and says so. One of an earlier time, or of another boot, begins anew.
    pub(super) fn push(&mut self, at: Moment, value: f64) -> bool {
        if let Some((last, _)) = self.points.back() {
            if at.boot_us < last.boot_us {
                self.points.clear();
            } else if at.since(*last) < self.step {
                return false;
            }
        }
        self.points.push_back((at, value));
        while self.points.len() > MAX_POINTS
            || self.points.front().is_some_and(|(first, _)| at.since(*first) > self.kept + self.step)
        {
            self.points.pop_front();
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.points.clear();
    }

    /// The line through the last `over`, where there are enough points of it.
    pub(super) fn line(&self, over: Duration) -> Option<Line> {
        let (newest, _) = *self.points.back()?;
        let recent = || self.points.iter().filter(|(at, _)| newest.since(*at) <= over);
        let n = recent().count();
        let covered = recent().next().map_or(Duration::ZERO, |(first, _)| newest.since(*first));
        if n < MIN_POINTS || covered.as_secs_f64() < over.as_secs_f64() * COVERED {
            return None;
        }
        // Times count back from the newest point, so that the line's height there is its height now.
        let points = || recent().map(|(at, value)| (-newest.since(*at).as_secs_f64(), *value));
        let n = n as f64;
        let (mean_t, mean_v) = points().fold((0.0, 0.0), |(t, v), (time, value)| (t + time / n, v + value / n));
        let (mut tt, mut tv, mut vv) = (0.0, 0.0, 0.0);
        for (time, value) in points() {
            tt += (time - mean_t) * (time - mean_t);
            tv += (time - mean_t) * (value - mean_v);
            vv += (value - mean_v) * (value - mean_v);
        }
        if tt <= 0.0 {
            return None;
        }
        let per_second = tv / tt;
        let fit = if vv > 0.0 { (tv * tv / (tt * vv)).clamp(0.0, 1.0) } else { 0.0 };
        Some(Line { per_second, now: mean_v - per_second * mean_t, fit })
    }
}

impl Line {
    /// When it reaches `target`; none where it goes elsewhere, or takes longer than a year.
    pub(super) fn until(&self, target: f64) -> Option<Duration> {
        let seconds = (target - self.now) / self.per_second;
        (seconds.is_finite() && (0.0..HORIZON_S).contains(&seconds)).then(|| duration(seconds))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(second: u64) -> Moment {
        Moment { wall: Timestamp::UNIX_EPOCH, boot_us: second * 1_000_000 }
    }

    fn history(seconds: u64, value: impl Fn(f64) -> f64) -> History {
        let mut history = History::new(Duration::from_secs(5), 5 * MINUTE);
        for second in 0..seconds {
            history.push(at(second), value(f64::from(u32::try_from(second).unwrap())));
        }
        history
    }

    #[test]
    fn a_line_is_found_and_followed() {
        let falling = history(301, |t| 1_000.0 - 2.0 * t);
        let line = falling.line(5 * MINUTE).unwrap();
        assert!(
            (line.per_second + 2.0).abs() < 1e-9 && (line.now - 400.0).abs() < 1e-6 && line.fit > 0.999,
            "{line:?}"
        );
        assert_eq!(line.until(0.0).unwrap().as_secs(), 200);
        assert_eq!(line.until(500.0), None, "it is behind");
    }

    #[test]
    fn what_is_no_line_is_said() {
        let saw = history(301, |t| 1_000.0 - 5.0 * (t % 60.0));
        assert!(saw.line(5 * MINUTE).unwrap().fit < 0.2);
        let level = history(301, |_| 7.0).line(5 * MINUTE).unwrap();
        assert!(level.fit < 0.1 && level.until(0.0).is_none(), "{level:?}");
        assert_eq!(history(200, |t| t).line(5 * MINUTE), None, "too short");
        assert_eq!(history(31, |t| t).line(MINUTE / 2), None, "too few points");
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_one_boot() {
        let mut history = History::new(Duration::ZERO, Duration::MAX / 2);
        for second in 0..10_000 {
            history.push(at(second), 1.0);
        }
        assert_eq!(history.points.len(), MAX_POINTS);
        history.push(at(3), 1.0);
        assert_eq!(history.points.len(), 1);
    }
}
