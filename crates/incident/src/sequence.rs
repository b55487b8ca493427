//! Events in the order in which they happened, each on the boot of the host that it belongs to.

use std::{cmp::Ordering, fmt, time::Duration};

use model::{Event, EventId, EventKind, Moment};
use serde::Serialize;

use crate::words;

/// A moment and the boot of the host that its boot clock counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// The moment.
    #[serde(flatten)]
    pub at: Moment,
    /// Which boot, counted from the first event given; below zero for one before it.
    pub boot: i32,
}

impl PartialOrd for Stamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stamp {
    /// By boot and boot clock: a stepped wall clock does not change the order.
    fn cmp(&self, other: &Self) -> Ordering {
        (self.boot, self.at.boot_us, self.at.wall).cmp(&(other.boot, other.at.boot_us, other.at.wall))
    }
}

impl Stamp {
    /// The time from `earlier` to `self`, never negative.
    pub fn since(self, earlier: Self) -> Span {
        if self.boot == earlier.boot {
            return Span { duration: self.at.since(earlier.at), clock: Clock::Boot };
        }
        let wall = self.at.wall.duration_since(earlier.at.wall);
        Span { duration: wall.try_into().unwrap_or(Duration::ZERO), clock: Clock::Wall }
    }
}

impl fmt::Display for Stamp {
    /// The wall clock, in seconds, with the zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at.wall.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// Which clock measured a duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The boot clock: steps of the wall clock do not change it.
    #[default]
    Boot,
    /// The wall clock, for no other runs across boots: as good as it was set.
    Wall,
}

/// A duration and the clock that measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// How long.
    pub duration: Duration,
    /// By which clock.
    pub clock: Clock,
}

impl Span {
    /// This and another; by the wall clock as soon as one of them is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let clock = if other.clock == Clock::Wall { Clock::Wall } else { self.clock };
        Self { duration: self.duration.saturating_add(other.duration), clock }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words::duration(self.duration))?;
        match self.clock {
            Clock::Boot => Ok(()),
            Clock::Wall => f.write_str(" (wall clock)"),
        }
    }
}

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placed {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub event: Event,
}

impl Placed {
    /// Its number.
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// What happened.
    pub fn kind(&self) -> &EventKind {
        &self.event.kind
    }

    /// A moment that this event speaks of as past, such as an alert's `since`: of this boot, or of the one before where the boot
    /// clock shows more than it does now.
    pub fn past(&self, at: Moment) -> Stamp {
        let boot =
            if at.boot_us <= self.stamp.at.boot_us { self.stamp.boot } else { self.stamp.boot.saturating_sub(1) };
        Stamp { at, boot }
    }
}

/// Puts events in order, drops repeated ones (the first of a number stays) and tells boots apart.
///
/// Numbers increase in the order of writing, so boots follow each other in the order of numbers; within a boot its clock decides,
/// because an event is written some time after it happened.
pub fn arrange(events: &[Event]) -> Vec<Placed> {
    let mut by_number: Vec<&Event> = events.iter().collect();
    by_number.sort_by_key(|e| e.id);
    by_number.dedup_by_key(|e| e.id);
    let mut boot = 0_i32;
    let mut boot_id: Option<&str> = None;
    let mut placed = Vec::with_capacity(by_number.len());
    for (n, event) in by_number.into_iter().enumerate() {
        match &event.kind {
            EventKind::GuardStarted { boot_id: now, .. } => {
                boot += i32::from(boot_id.is_some_and(|before| before != now));
                boot_id = Some(now);
            }
            EventKind::HostRebooted { boot_id: now } => {
                boot += i32::from(n > 0 && boot_id != Some(now.as_str()));
                boot_id = Some(now);
            }
            _ => {}
        }
        placed.push(Placed { stamp: Stamp { at: event.at, boot }, event: event.clone() });
    }
    placed.sort_by_key(|p| (p.stamp, p.id()));
    placed
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn stamp(wall_s: i64, boot_s: u64, boot: i32) -> Stamp {
        Stamp { at: Moment { wall: Timestamp::from_second(wall_s).unwrap(), boot_us: boot_s * 1_000_000 }, boot }
    }

    #[test]
    fn each_duration_names_its_clock() {
        let before = stamp(1_000, 100, 0);
        let cases = [
            (stamp(400, 105, 0), "5.0 s"),
            (stamp(1_090, 3, 1), "1 min 30 s (wall clock)"),
            (stamp(900, 3, 1), "0 ms (wall clock)"),
        ];
        for (after, text) in cases {
            assert_eq!(after.since(before).to_string(), text);
        }
    }

    #[test]
    fn repeated_numbers_count_once_and_order_is_by_boot_clock() {
        let event = |id, boot_s| Event {
            id: EventId(id),
            at: stamp(1_000, boot_s, 0).at,
            kind: EventKind::ClockStepped { by_ms: id },
        };
        let placed = arrange(&[event(3, 5), event(1, 9), event(3, 7), event(2, 6)]);
        assert_eq!(placed.iter().map(|p| p.id().0).collect::<Vec<_>>(), [3, 2, 1]);
    }
}
