//! The way of a recovery: from a backup along timelines, as far as there is WAL without a gap. Pure.
//!
//! On a timeline that was left, WAL counts up to the switch. The segment in which that lies is read of the timeline behind it, which has a copy
//! of its beginning: as PostgreSQL does (xlogrecovery.c, `XLogFileReadAnyTLI`).

use std::collections::BTreeMap;

use model::Lsn;
use pg_format::wal::{SegmentName, SegmentSize, TimelineHistory};

use super::Stock;

/// Which timeline is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimelineChoice {
    /// The newest that descends from the backup.
    #[default]
    Latest,
    /// The one that the backup is of.
    Current,
    /// This one.
    Number(u32),
}

/// A piece of the way: segments of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The timeline.
    pub timeline: u32,
    /// The first byte, the beginning of a segment.
    pub from: Lsn,
    /// Behind the last byte.
    pub to: Lsn,
}

impl Leg {
    /// Its segments, the last perhaps in part.
    pub fn segments(&self, size: SegmentSize) -> impl Iterator<Item = SegmentName> + use<> {
        let timeline = self.timeline;
        let end = self.to.0.div_ceil(size.bytes());
        (size.number_of(self.from)..end).map(move |number| SegmentName { timeline, number })
    }
}

/// The way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Road {
    /// The timeline that it ends on.
    pub timeline: u32,
    /// In order; none where not even the backup's own WAL is stored.
    pub legs: Vec<Leg>,
    /// Behind the last byte that can be replayed.
    pub end: Lsn,
}

/// There is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoad {
    /// Nobody stored how the timeline came about.
    #[error(
        "the history of timeline {timeline} is not in the repository, so that nobody can tell where it came from; hint: push the file (`oxpecker wal push .../pg_wal/{timeline:08X}.history`, on a server that has it), or choose another timeline with --timeline: `oxpecker wal list` shows those that are there"
    )]
    NoHistory {
        /// Which.
        timeline: u32,
    },
    /// The timeline was begun elsewhere, or before the backup ended.
    #[error(
        "timeline {timeline} does not lead on from the backup, which is of timeline {of} and ends at {stop}; hint: choose an earlier backup, or another timeline: `oxpecker wal list`"
    )]
    NoDescendant {
        /// What was asked for.
        timeline: u32,
        /// The backup's.
        of: u32,
        /// Where it ends.
        stop: Lsn,
    },
}

/// Whether recovery can go from `timeline` at `stop` to a descendant with this history.
fn leads(history: &TimelineHistory, timeline: u32, stop: Lsn) -> bool {
    history.switch_of(timeline).is_some_and(|switch| switch >= stop)
}

/// The way from a backup of `timeline` whose replay reads from `start` on and is consistent at `stop`.
///
/// # Errors
/// No timeline that was asked for leads on from it.
pub fn road(stock: &Stock, timeline: u32, start: Lsn, stop: Lsn, choice: TimelineChoice) -> Result<Road, NoRoad> {
    let target = match choice {
        TimelineChoice::Current => timeline,
        TimelineChoice::Latest => {
            let newest = stock.histories.iter().rev().find(|(_, history)| leads(history, timeline, stop));
            newest.map_or(timeline, |(newest, _)| *newest)
        }
        TimelineChoice::Number(number) if number == timeline => number,
        TimelineChoice::Number(number) => {
            let history = stock.histories.get(&number).ok_or(NoRoad::NoHistory { timeline: number })?;
            if !leads(history, timeline, stop) {
                return Err(NoRoad::NoDescendant { timeline: number, of: timeline, stop });
            }
            number
        }
    };
    let size = stock.size;
    let no_history = TimelineHistory::default();
    let history = if target == timeline { &no_history } else { stock.histories.get(&target).unwrap_or(&no_history) };
    let mut legs: Vec<Leg> = Vec::new();
    let mut from = size.start_of(size.number_of(start));
    let ways = history.entries.iter().filter(|entry| entry.timeline >= timeline);
    let ways = ways.map(|entry| (entry.timeline, Some(entry.switch))).chain([(target, None)]);
    for (on, switch) in ways {
        let until = switch.map(|switch| size.start_of(size.number_of(switch)));
        if until.is_some_and(|until| until <= from) {
            continue;
        }
        let reach = stock.reach(on, from);
        // What lies behind the switch on the old timeline never happened for the new one.
        let to = until.map_or(reach, |until| reach.min(until));
        if to > from {
            legs.push(Leg { timeline: on, from, to });
        }
        match until {
            Some(until) if reach >= until => from = until,
            // The way breaks off on this timeline: up to the switch what is there counts.
            Some(_) => {
                if let (Some(last), Some(switch)) = (legs.last_mut(), switch) {
                    last.to = reach.min(switch);
                }
                break;
            }
            None => {}
        }
    }
    let end = legs.last().map_or(from, |last| last.to);
    Ok(Road { timeline: target, legs, end })
}

impl Road {
    /// Its segments up to `until`.
    #[must_use]
    pub fn segments(&self, size: SegmentSize, until: Lsn) -> Vec<SegmentName> {
        let legs = self.legs.iter().map(|leg| Leg { to: leg.to.min(until), ..*leg });
        legs.filter(|leg| leg.to > leg.from).flat_map(|leg| leg.segments(size)).collect()
    }
}

/// Runs of segments, by timeline.
pub(super) type Runs = BTreeMap<u32, Vec<repository::wal::Run>>;

#[cfg(test)]
mod tests {
    use repository::wal::Run;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// First segment, end, bytes of the tail.
    type Runs<'a> = &'a [(u64, u64, u64)];

    fn stock(runs: &[(u32, Runs<'_>)], histories: &[(u32, &str)]) -> Stock {
        let run =
            |(first, end, tail_bytes): &(u64, u64, u64)| Run { first: *first, end: *end, tail_bytes: *tail_bytes };
        Stock {
            size: SegmentSize::new(MIB).unwrap(),
            runs: runs.iter().map(|(line, all)| (*line, all.iter().map(run).collect())).collect(),
            histories: histories.iter().map(|(line, text)| (*line, TimelineHistory::parse(text).unwrap())).collect(),
        }
    }

    fn at(segment: u64, bytes: u64) -> Lsn {
        Lsn(segment * MIB + bytes)
    }

    #[test]
    fn ways_along_timelines() {
        let stock = stock(
            &[(1, &[(2, 10, 7), (12, 20, 5)]), (2, &[(8, 15, 9)]), (3, &[(14, 16, 0)])],
            &[(2, "1 0/8A0000 x\n"), (3, "1 0/8A0000 x\n2 0/E80000 y\n")],
        );
        let way = |timeline, segment, stop: Lsn, choice| {
            road(&stock, timeline, at(segment, 40), stop, choice)
                .map(|road| (road.timeline, road.end, road.legs.iter().map(|leg| leg.timeline).collect::<Vec<_>>()))
        };
        use TimelineChoice::{Current, Latest, Number};
        let early = at(4, 0);
        assert_eq!(way(1, 3, early, Current), Ok((1, at(10, 7), vec![1])));
        assert_eq!(way(1, 3, early, Latest), Ok((3, at(16, 0), vec![1, 2, 3])));
        assert_eq!(way(1, 3, early, Number(2)), Ok((2, at(15, 9), vec![1, 2])));
        assert_eq!(way(2, 9, at(9, 9), Latest), Ok((3, at(16, 0), vec![2, 3])));
        // The backup ended behind the fork: only its own timeline leads on.
        assert_eq!(way(1, 8, at(9, 0), Latest), Ok((1, at(10, 7), vec![1])));
        assert!(matches!(way(1, 8, at(9, 0), Number(2)), Err(NoRoad::NoDescendant { timeline: 2, of: 1, .. })));
        assert_eq!(way(1, 3, early, Number(9)), Err(NoRoad::NoHistory { timeline: 9 }));
        // Behind the gap.
        assert_eq!(way(1, 12, at(13, 0), Latest), Ok((1, at(20, 5), vec![1])));
        // Nothing of it is stored: a backup without WAL.
        assert_eq!(way(1, 10, at(10, 9), Current), Ok((1, at(10, 7), vec![1])));
        assert_eq!(way(1, 11, at(11, 9), Current), Ok((1, at(11, 0), vec![])));
        let road = road(&stock, 1, at(3, 40), early, Latest).unwrap();
        let names: Vec<_> =
            road.segments(stock.size, at(9, 1)).iter().map(|name| (name.timeline, name.number)).collect();
        assert_eq!(names, [(1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (2, 8), (2, 9)]);
    }

    #[test]
    fn a_way_that_breaks_off_before_a_switch() {
        let stock = stock(&[(1, &[(2, 5, 3)]), (2, &[(8, 9, 0)])], &[(2, "1 0/8A0000 x\n")]);
        let road = road(&stock, 1, at(2, 0), at(2, 9), TimelineChoice::Latest).unwrap();
        assert_eq!((road.end, road.legs.len()), (at(5, 3), 1));
        // The tail of the old timeline, where the new one's first segment is not there yet.
        let late = super::tests::stock(&[(1, &[(2, 8, 0xB0000)])], &[(2, "1 0/8A0000 x\n")]);
        let road = super::road(&late, 1, at(2, 0), at(2, 9), TimelineChoice::Latest).unwrap();
        assert_eq!(road.end, at(8, 0));
    }
}
