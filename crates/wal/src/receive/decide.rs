//! When to flush, when to give way, and what comes after an error. Pure: times are arguments.

use std::time::Duration;

use pg_replication::Refusal;

/// How long the reader may wait for room while storage does not take what was received. Then it disconnects: a walsender whose messages
/// nobody reads can't be ended, and holds up the checkpoints when its slot is to be given up.
pub const FULL_MAX: Duration = Duration::from_secs(10);
/// How long a server that stops may wait for us, once all that it has was received.
pub const STOPPING_MAX: Duration = Duration::from_secs(5);
/// How long a server may be silent, though it was asked at half of it whether it lives: then the connection counts as dead, whatever the network
/// says. A living one answers in milliseconds; what it writes meanwhile is lost with it, so the wait is part of what may be lost.
pub const SILENT_MAX: Duration = Duration::from_secs(20);
/// How long our own stop waits for what was received to become durable.
pub const STOP_MAX: Duration = Duration::from_secs(5);
/// The first pause after a failure.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A slot's cap counts as near from this part of it on: in percent.
const CAP_NEAR: u64 = 50;
/// And as critical.
const CAP_CRITICAL: u64 = 80;

/// What is known when somebody asks whether the tail is to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Bytes that were received and are not durable.
    pub bytes: u64,
    /// How long the oldest of them waits.
    pub waits: Duration,
    /// How long ago the last flush ended.
    pub since_last: Duration,
    /// How long it took.
    pub last_took: Duration,
    /// How long bytes may wait.
    pub interval: Duration,
    /// Somebody waits: the server stops, the stream ended, or we stop.
    pub hurry: bool,
}

/// Whether the tail is to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Yes.
    Now,
    /// Not before this time has passed.
    In(Duration),
    /// There is nothing to flush.
    Idle,
}

/// Nothing waits longer than the interval, and a slow store is not asked more than half of the time.
#[must_use]
pub fn flush(tail: &Tail) -> Flush {
    if tail.bytes == 0 {
        return Flush::Idle;
    }
    let due = tail.interval.saturating_sub(tail.waits);
    let rested = tail.last_took.saturating_sub(tail.since_last);
    match due.max(rested) {
        Duration::ZERO => Flush::Now,
        _ if tail.hurry => Flush::Now,
        wait => Flush::In(wait),
    }
}

/// Whether the reader goes on to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Yes.
    Wait,
    /// No: cut the connection. The slot keeps what was not acknowledged.
    Disconnect,
}

/// While the server seems to stop: for how long it did so, and whether all that was received is durable.
#[must_use]
pub fn stopping(waits: Duration, all_durable: bool) -> Patience {
    if !all_durable && waits >= STOPPING_MAX { Patience::Disconnect } else { Patience::Wait }
}

/// While there is no room for what the server sent.
#[must_use]
pub fn full(waits: Duration) -> Patience {
    if waits >= FULL_MAX { Patience::Disconnect } else { Patience::Wait }
}

/// The pause before attempt `failed` + 1, `failed` from 1 on; `chance` in 0..1 keeps many receivers out of step.
#[must_use]
pub fn pause(failed: u32, chance: f64) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(PAUSE_MAX).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// What is done after an error of the server or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Connect again, from where we are.
    Again,
    /// The WAL that we need is gone: say so, and go on with the oldest there is.
    Skip,
    /// Our slot is not there any more: say so, and make it again where that is allowed.
    NewSlot,
    /// It would go on wrongly, or never: a person has to look.
    Stop,
}

/// After a refusal, or after an error without one (`None`), which is `passing` or not.
#[must_use]
pub fn after(refusal: Option<&Refusal>, passing: bool) -> Next {
    match refusal {
        Some(Refusal::SegmentRemoved(_)) => Next::Skip,
        Some(Refusal::SlotAbsent | Refusal::SlotInvalidated) => Next::NewSlot,
        // A server that starts on, or another's slot that becomes free, passes; so does a setting that a person mends with a restart.
        Some(
            Refusal::SlotInUse
            | Refusal::SlotExists
            | Refusal::NoSenderLeft
            | Refusal::NoSlotLeft
            | Refusal::WalLevelTooLow
            | Refusal::NotPermitted
            | Refusal::NoHistory,
        ) => Next::Again,
        Some(Refusal::AheadOfServer | Refusal::NotInHistory | Refusal::SlotIsLogical) => Next::Stop,
        None if passing => Next::Again,
        None => Next::Stop,
    }
}

/// How far a slot is from the bound at which the server gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotHealth {
    /// Far.
    Fine,
    /// Half of what it may hold is held.
    Near,
    /// Soon the server gives it up, and WAL is lost to the archive.
    Critical,
}

/// Of what the slot makes the server keep, and the bound on that (`max_slot_wal_keep_size`), both in bytes.
#[must_use]
pub fn slot_health(held: u64, cap: Option<u64>) -> SlotHealth {
    let Some(cap) = cap else { return SlotHealth::Fine };
    let part = |percent: u64| cap / 100 * percent;
    if held >= part(CAP_CRITICAL) {
        SlotHealth::Critical
    } else if held >= part(CAP_NEAR) {
        SlotHealth::Near
    } else {
        SlotHealth::Fine
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn tail(bytes: u64, waits: u64, since_last: u64, last_took: u64) -> Tail {
        Tail {
            bytes,
            waits: ms(waits),
            since_last: ms(since_last),
            last_took: ms(last_took),
            interval: ms(500),
            hurry: false,
        }
    }

    #[test]
    fn flushes() {
        for (tail, expected) in [
            (tail(0, 9000, 9000, 0), Flush::Idle),
            (tail(1, 0, 9000, 10), Flush::In(ms(500))),
            (tail(1, 200, 9000, 10), Flush::In(ms(300))),
            (tail(1, 500, 9000, 10), Flush::Now),
            // A store that needs two seconds for a flush gets two seconds of rest.
            (tail(1, 700, 100, 2000), Flush::In(ms(1900))),
            (tail(1, 2000, 2000, 2000), Flush::Now),
            (Tail { hurry: true, ..tail(1, 0, 0, 2000) }, Flush::Now),
            (Tail { hurry: true, ..tail(0, 0, 0, 0) }, Flush::Idle),
            (Tail { interval: Duration::ZERO, ..tail(1, 0, 10, 5) }, Flush::Now),
        ] {
            assert_eq!(flush(&tail), expected, "{tail:?}");
        }
    }

    #[test]
    fn what_follows_an_error() {
        for (refusal, passing, expected) in [
            (None, true, Next::Again),
            (None, false, Next::Stop),
            (Some(Refusal::SegmentRemoved(None)), false, Next::Skip),
            (Some(Refusal::SlotAbsent), false, Next::NewSlot),
            (Some(Refusal::SlotInvalidated), false, Next::NewSlot),
            (Some(Refusal::AheadOfServer), false, Next::Stop),
            (Some(Refusal::NotInHistory), false, Next::Stop),
            (Some(Refusal::WalLevelTooLow), false, Next::Again),
        ] {
            assert_eq!(after(refusal.as_ref(), passing), expected, "{refusal:?}");
        }
    }

    #[test]
    fn patience_ends() {
        assert_eq!(stopping(STOPPING_MAX, false), Patience::Disconnect);
        assert_eq!(stopping(STOPPING_MAX, true), Patience::Wait, "the answer is under way");
        assert_eq!(stopping(ms(10), false), Patience::Wait);
        assert_eq!((full(ms(10)), full(FULL_MAX)), (Patience::Wait, Patience::Disconnect));
    }

    #[test]
    fn a_slot_is_watched() {
        for (held, cap, expected) in [
            (u64::MAX, None, SlotHealth::Fine),
            (49, Some(100), SlotHealth::Fine),
            (50, Some(100), SlotHealth::Near),
            (80, Some(100), SlotHealth::Critical),
            (1000, Some(100), SlotHealth::Critical),
        ] {
            assert_eq!(slot_health(held, cap), expected, "{held} of {cap:?}");
        }
    }

    proptest! {
        #[test]
        fn pauses_grow_and_are_bounded(failed in 1..1000_u32, chance in 0.0..1.0) {
            let this = pause(failed, chance);
            prop_assert!(this >= PAUSE_FIRST / 2 && this <= PAUSE_MAX);
            prop_assert!(pause(failed + 1, chance) >= this);
        }

        #[test]
        fn nothing_waits_longer_than_it_must(
            bytes in 1..u64::MAX, waits in 0..5000_u64, since in 0..5000_u64, took in 0..5000_u64, interval in 0..3000_u64
        ) {
            let tail = Tail { interval: ms(interval), ..tail(bytes, waits, since, took) };
            match flush(&tail) {
                Flush::Now => prop_assert!(waits >= interval && since >= took),
                Flush::In(wait) => {
                    prop_assert!(wait > Duration::ZERO && wait <= ms(interval.max(took)));
                    let later = Tail { waits: tail.waits + wait, since_last: tail.since_last + wait, ..tail };
                    prop_assert_eq!(flush(&later), Flush::Now);
                }
                Flush::Idle => prop_assert!(false),
            }
            let hurried = flush(&Tail { hurry: true, ..tail });
            prop_assert_eq!(hurried, Flush::Now);
        }
    }
}
