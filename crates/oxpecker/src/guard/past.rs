//! What a starting guard says about the time before it: that the host booted, that its predecessor died, how long nobody watched.

use std::time::Duration;

use model::{EventKind, Moment, event::SilentBy};

/// What the journal knows of the guard before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The boot in which it ran.
    pub boot_id: String,
    /// The newest thing that it recorded, event or reading.
    pub last_record: Moment,
    /// Whether it said goodbye.
    pub stopped: bool,
}

/// A silence shorter than this after an orderly stop is a restart and not worth an event.
const RESTART: Duration = Duration::from_secs(60);

/// The events that open this guard's part of the journal.
pub fn explain(before: Option<&Before>, now: Moment, boot_id: &str) -> Vec<EventKind> {
    let Some(before) = before else { return Vec::new() };
    let rebooted = before.boot_id != boot_id;
    // Across a reboot only the wall clock spans the gap.
    let silence = if rebooted {
        let ms = now.wall.as_millisecond() - before.last_record.wall.as_millisecond();
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    } else {
        now.since(before.last_record)
    };
    let mut events = Vec::new();
    if rebooted {
        events.push(EventKind::HostRebooted { boot_id: boot_id.to_owned() });
    }
    let (by, cause) = match (before.stopped, rebooted) {
        (true, _) if silence < RESTART => return events,
        (true, _) => (SilentBy::Stopped, "it had been stopped, and nobody started another"),
        (false, true) => (SilentBy::Rebooted, "the host went down without an orderly stop of the guard"),
        (false, false) => (SilentBy::Killed, "the guard before was killed or crashed: it said no goodbye"),
    };
    events.push(EventKind::GuardWasSilent { silence, cause: cause.to_owned(), by });
    events
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn at(wall_s: i64, boot_s: u64) -> Moment {
        Moment { wall: Timestamp::from_second(wall_s).unwrap(), boot_us: boot_s * 1_000_000 }
    }

    #[test]
    fn the_past_is_told_as_it_was() {
        let before = |stopped| Some(Before { boot_id: "a".into(), last_record: at(1000, 100), stopped });
        let silent = |s, by| vec![("guard_was_silent", s, Some(by))];
        let rebooted = ("host_rebooted", 0, None);
        for (before, now, boot, says) in [
            (None, at(2000, 200), "a", vec![]),
            (before(true), at(1010, 110), "a", vec![]),
            (before(true), at(9000, 8100), "a", silent(8000, SilentBy::Stopped)),
            (before(false), at(1010, 110), "a", silent(10, SilentBy::Killed)),
            // The wall clock was put back meanwhile: the boot clock tells the truth.
            (before(false), at(500, 110), "a", silent(10, SilentBy::Killed)),
            (before(false), at(1090, 20), "b", vec![rebooted, ("guard_was_silent", 90, Some(SilentBy::Rebooted))]),
            (before(true), at(1030, 20), "b", vec![rebooted]),
            (before(true), at(1090, 20), "b", vec![rebooted, ("guard_was_silent", 90, Some(SilentBy::Stopped))]),
            // After a reboot with a clock that went backwards nothing better than zero is known.
            (before(false), at(900, 20), "b", vec![rebooted, ("guard_was_silent", 0, Some(SilentBy::Rebooted))]),
        ] {
            let told: Vec<(&str, u64, Option<SilentBy>)> = explain(before.as_ref(), now, boot)
                .iter()
                .map(|e| match e {
                    EventKind::GuardWasSilent { silence, by, .. } => (e.name(), silence.as_secs(), Some(*by)),
                    _ => (e.name(), 0, None),
                })
                .collect();
            assert_eq!(told, says);
        }
    }
}
