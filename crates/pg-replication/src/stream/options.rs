//! What is asked of a stream.

use std::time::Duration;

use model::Lsn;

use crate::SlotName;

/// How often the server hears of us unless it says sooner. The same as pg_receivewal's.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the server may say nothing, though it was asked to. The same as `wal_receiver_timeout`.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often at least a status is sent within `wal_sender_timeout`: one may be late, and one lost in a stall.
const STATUSES_PER_TIMEOUT: u32 = 4;
/// The shortest time between two statuses that bring no news, whatever the server's time-out.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// What is streamed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// The slot that keeps the WAL until it is acknowledged. Without one the server keeps what `wal_keep_size` says.
    pub slot: Option<SlotName>,
    /// The first byte. Streams are begun at the start of a segment, so that each segment has one origin.
    pub start: Lsn,
    /// The timeline.
    pub timeline: u32,
    /// How often a status is sent when there is no news; more often where the server's `wal_sender_timeout` wants it.
    pub status_interval: Duration,
    /// How long the server may be silent while we wait. At half of it, it is asked whether it lives.
    pub silence_max: Duration,
}

impl StreamOptions {
    /// From `start` on `timeline`, without a slot.
    #[must_use]
    pub const fn new(start: Lsn, timeline: u32) -> Self {
        Self { slot: None, start, timeline, status_interval: STATUS_INTERVAL, silence_max: SILENCE_MAX }
    }

    pub(super) fn command(&self) -> String {
        let slot = self.slot.as_ref().map(|name| format!("SLOT \"{name}\" ")).unwrap_or_default();
        format!("START_REPLICATION {slot}PHYSICAL {} TIMELINE {}", self.start, self.timeline)
    }

    /// How often a status is sent to a server with this `wal_sender_timeout` (zero: never ends a stream).
    pub(super) fn interval(&self, sender_timeout: Duration) -> Duration {
        let bound = if sender_timeout.is_zero() { Duration::MAX } else { sender_timeout / STATUSES_PER_TIMEOUT };
        self.status_interval.min(bound).max(INTERVAL_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        let mut options = StreamOptions::new(Lsn(0x1_0300_0000), 7);
        assert_eq!(options.command(), "START_REPLICATION PHYSICAL 1/3000000 TIMELINE 7");
        options.slot = Some("mine".parse().unwrap());
        assert_eq!(options.command(), "START_REPLICATION SLOT \"mine\" PHYSICAL 1/3000000 TIMELINE 7");
        for (timeout, interval) in [(0, 10_000), (60_000, 10_000), (8000, 2000), (1, 10)] {
            assert_eq!(options.interval(Duration::from_millis(timeout)), Duration::from_millis(interval), "{timeout}");
        }
    }
}
