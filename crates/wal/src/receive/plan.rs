//! Where to begin: what the server has, what its slot holds and what the repository has, put together. Pure.

use model::Lsn;
use pg_format::wal::{SegmentSize, TimelineHistory};

/// A place on a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The timeline.
    pub timeline: u32,
    /// Where on it.
    pub lsn: Lsn,
}

/// What the server says of its WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The timeline that it writes or replays.
    pub timeline: u32,
    /// How far it is.
    pub flushed: Lsn,
    /// Its ancestors.
    pub history: TimelineHistory,
}

impl Server {
    /// The timelines on which WAL of ours may lie, the newest first, each with where its WAL ends for this server.
    #[must_use]
    pub fn lines(&self) -> Vec<Place> {
        let ancestors = self.history.entries.iter().rev();
        let ancestors = ancestors.map(|entry| Place { timeline: entry.timeline, lsn: entry.switch });
        [Place { timeline: self.timeline, lsn: self.flushed }].into_iter().chain(ancestors).collect()
    }

    /// The timeline that holds the byte at `lsn` in this server's past.
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> u32 {
        let left = self.history.entries.iter().find(|entry| lsn < entry.switch);
        left.map_or(self.timeline, |entry| entry.timeline)
    }

    /// The timeline that branched off `timeline`, and where.
    #[must_use]
    pub fn after(&self, timeline: u32) -> Option<Place> {
        let entries = &self.history.entries;
        let at = entries.iter().position(|entry| entry.timeline == timeline)?;
        let next = entries.get(at + 1).map_or(self.timeline, |next| next.timeline);
        Some(Place { timeline: next, lsn: entries[at].switch })
    }
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The timeline, and the start of a segment on it.
    pub at: Place,
    /// Everything on it before here is stored.
    pub stored: Lsn,
    /// WAL of ours lies beyond the point where the server left the timeline: what is there the server does not know. A failover that lost
    /// transactions.
    pub beyond_switch: Option<Place>,
}

fn segment_start(size: SegmentSize, lsn: Lsn) -> Lsn {
    size.start_of(size.number_of(lsn))
}

impl Start {
    /// Where to begin at the latest.
    #[must_use]
    pub fn due(&self, size: SegmentSize) -> Place {
        Place { lsn: segment_start(size, self.stored), ..self.at }
    }
}

/// Where to begin. Something of what is stored always comes a second time, and is compared: a server that is not the one that we knew would
/// else go unnoticed at the border of two segments. `found`: the end of what the repository has, on the newest of [`Server::lines`] that has anything. `slot`: from where on
/// the slot holds WAL.
#[must_use]
pub fn start(server: &Server, size: SegmentSize, found: Option<Place>, slot: Option<Lsn>) -> Start {
    let Some(found) = found else {
        let lsn = segment_start(size, slot.unwrap_or(server.flushed));
        let at = Place { timeline: server.timeline_at(slot.unwrap_or(server.flushed)), lsn };
        return Start { at, stored: lsn, beyond_switch: None };
    };
    match server.after(found.timeline) {
        Some(next) if found.lsn >= next.lsn => {
            let at = Place { timeline: next.timeline, lsn: segment_start(size, next.lsn) };
            Start { at, stored: at.lsn, beyond_switch: (found.lsn > next.lsn).then_some(found) }
        }
        _ => {
            let at = Place { lsn: size.start_of(size.number_before(found.lsn)), ..found };
            Start { at, stored: found.lsn, beyond_switch: None }
        }
    }
}

/// Where to go on when the server has removed what is needed from `wanted` on: at what the slot holds, else at the server's newest
/// segment. `None` when that is what was refused.
#[must_use]
pub fn after_removed(server: &Server, size: SegmentSize, wanted: Place, slot: Option<Lsn>) -> Option<Place> {
    let held = slot.map(|slot| Place { timeline: server.timeline_at(slot), lsn: segment_start(size, slot) });
    let newest = Place { timeline: server.timeline, lsn: segment_start(size, server.flushed) };
    [held, Some(newest)].into_iter().flatten().find(|place| (place.lsn, place.timeline) > (wanted.lsn, wanted.timeline))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const SEGMENT: u64 = 1 << 24;

    fn at(timeline: u32, segments: f64) -> Place {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's small positive numbers")]
        Place { timeline, lsn: Lsn((segments * SEGMENT as f64) as u64) }
    }

    /// On timeline 5, which left 3 at 20.5, which left 1 at 10.25; at 30.5.
    fn server() -> Server {
        let line = |place: Place| format!("{}\t{}\twhy\n", place.timeline, place.lsn);
        let text = line(at(1, 10.25)) + &line(at(3, 20.5));
        Server { timeline: 5, flushed: at(5, 30.5).lsn, history: TimelineHistory::parse(&text).unwrap() }
    }

    #[test]
    fn begins() {
        for (found, slot, expected, beyond) in [
            (None, None, at(5, 30.0), false),
            (None, Some(at(5, 28.5)), at(5, 28.0), false),
            (None, Some(at(3, 12.5)), at(3, 12.0), false),
            (None, Some(at(1, 10.125)), at(1, 10.0), false),
            (Some(at(5, 29.75)), Some(at(5, 28.5)), at(5, 29.0), false),
            (Some(at(5, 30.0)), None, at(5, 29.0), false),
            // Behind on a timeline that was left: first the rest of that.
            (Some(at(3, 15.5)), None, at(3, 15.0), false),
            (Some(at(3, 20.25)), None, at(3, 20.0), false),
            // All of it: the next one, from the segment of the switch.
            (Some(at(3, 20.5)), None, at(5, 20.0), false),
            (Some(at(1, 10.25)), None, at(3, 10.0), false),
            // More than the server ever saw.
            (Some(at(3, 21.5)), None, at(5, 20.0), true),
            (Some(at(1, 11.0)), Some(at(5, 30.0)), at(3, 10.0), true),
        ] {
            let start = start(&server(), SIZE, found, slot.map(|slot| slot.lsn));
            assert_eq!(start.at, expected, "{found:?} {slot:?}");
            assert_eq!(start.beyond_switch, found.filter(|_| beyond));
        }
    }

    #[test]
    fn goes_on_behind_what_is_gone() {
        for (wanted, slot, expected) in [
            (at(5, 25.0), Some(at(5, 28.5)), Some(at(5, 28.0))),
            (at(5, 25.0), None, Some(at(5, 30.0))),
            (at(5, 28.0), Some(at(5, 28.5)), Some(at(5, 30.0))),
            (at(5, 30.0), Some(at(5, 30.25)), None),
            (at(1, 5.0), Some(at(3, 12.0)), Some(at(3, 12.0))),
        ] {
            assert_eq!(after_removed(&server(), SIZE, wanted, slot.map(|slot| slot.lsn)), expected, "{wanted:?}");
        }
    }

    #[test]
    fn lines() {
        assert_eq!(server().lines(), [at(5, 30.5), at(3, 20.5), at(1, 10.25)]);
        assert_eq!((server().after(3), server().after(5)), (Some(at(5, 20.5)), None));
    }

    proptest! {
        #[test]
        fn never_behind_what_is_there(line in 0..3_usize, part in 0.0..1.0_f64, slot in proptest::option::of(0.0..30.5_f64)) {
            let server = server();
            let (timeline, from, to) = [(1, 0.0, 10.25), (3, 10.25, 20.5), (5, 20.5, 30.5)][line];
            let found = at(timeline, from + (to - from) * part);
            let slot = slot.map(|slot| at(0, slot).lsn);
            let start = start(&server, SIZE, Some(found), slot);
            prop_assert!(start.at.lsn <= found.lsn && SIZE.offset_of(start.at.lsn) == 0);
            prop_assert!(found.lsn.0 - start.at.lsn.0 <= SEGMENT, "no more than a segment comes twice");
            prop_assert!(found.lsn.0 == 0 || start.at.lsn < found.lsn || start.at.timeline != timeline, "something is compared");
            prop_assert!(start.stored <= found.lsn && start.due(SIZE).lsn >= start.at.lsn);
            prop_assert_eq!(start.beyond_switch, None);
        }
    }
}
