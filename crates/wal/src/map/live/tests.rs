use std::ops::Range;

use super::*;
use crate::map::testing::*;

/// What a run of segments brought: ranges with a map, whether it is of use, and ranges that are to be read again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Brought {
    maps: Vec<(u64, bool)>,
    older: Vec<u64>,
    errors: usize,
}

struct Run {
    live: Live,
    wal: Segments,
    brought: Brought,
    /// Of which timeline the segments before a new one's first are.
    before: u32,
}

impl Run {
    fn new() -> Self {
        Self { live: Live::new(CLUSTER), wal: Segments::new(), brought: Brought::default(), before: 1 }
    }

    fn take(&mut self, line: u32, number: u64, bytes: &[u8]) -> Vec<RangeMap> {
        let before = self.before;
        let seen = self.live.segment(line, number, bytes, |_| Ok(before));
        self.brought.maps.extend(seen.maps.iter().map(|found| (found.number, found.map.full_read().is_empty())));
        self.brought.older.extend(seen.older);
        self.brought.errors += usize::from(seen.error.is_some());
        seen.maps
    }

    fn all(&mut self, line: u32, numbers: Range<u64>) {
        for number in numbers {
            let bytes = self.wal.segment(line, number);
            self.take(line, number, &bytes);
        }
    }

    /// They pass by somewhere else.
    fn unseen(&mut self, line: u32, numbers: Range<u64>) {
        numbers.for_each(|number| drop(self.wal.segment(line, number)));
    }

    fn brought(self) -> Brought {
        self.brought
    }
}

#[test]
fn ranges_seen_from_the_beginning_have_maps() {
    let mut run = Run::new();
    run.all(1, 0..129);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true), (1, true)], ..Brought::default() });
}

#[test]
fn what_was_not_seen_from_the_beginning_is_read_again_when_it_is_over() {
    let mut run = Run::new();
    run.all(1, 5..64);
    assert!(run.brought.older.is_empty());
    run.all(1, 64..129);
    assert_eq!(run.brought(), Brought { maps: vec![(1, true)], older: vec![0], errors: 0 });
    // Whoever came before may have ended just before its last map.
    let mut run = Run::new();
    run.all(1, 128..130);
    assert_eq!(run.brought().older, [1]);
}

#[test]
fn what_comes_again_is_passed_over_and_what_lacks_is_noticed() {
    let mut run = Run::new();
    run.all(1, 0..70);
    let again = Segments::new().segment(1, 69);
    run.take(1, 69, &again);
    run.unseen(1, 70..71);
    run.all(1, 71..193);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true), (2, true)], older: vec![1], errors: 0 });
    // At the border the range before is not over with its own last segment.
    let mut run = Run::new();
    run.all(1, 0..64);
    run.unseen(1, 64..65);
    run.all(1, 65..129);
    assert_eq!(run.brought(), Brought { maps: vec![], older: vec![0, 1], errors: 0 });
    // Several ranges at once.
    let mut run = Run::new();
    run.all(1, 0..3);
    run.unseen(1, 3..200);
    run.all(1, 200..257);
    assert_eq!(run.brought(), Brought { maps: vec![], older: vec![0, 1, 2, 3], errors: 0 });
}

#[test]
fn timelines() {
    // The way of the new one leads along the old one.
    let mut run = Run::new();
    run.all(1, 0..70);
    run.all(2, 70..129);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true), (1, true)], ..Brought::default() });
    // It does not: it was of another history.
    let mut run = Run::new();
    run.before = 3;
    run.all(1, 0..70);
    run.all(2, 70..129);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true)], older: vec![1], errors: 0 });
    // The old one was seen beyond the switch.
    let mut run = Run::new();
    run.all(1, 0..70);
    run.wal = Segments::new();
    run.all(2, 66..129);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true)], older: vec![1], errors: 0 });
    // On the border: the range before ends on the new one.
    let mut run = Run::new();
    run.all(1, 0..64);
    run.all(2, 64..65);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true)], ..Brought::default() });
}

#[test]
fn one_bad_place_costs_one_map() {
    let mut run = Run::new();
    run.all(1, 0..70);
    let bytes = run.wal.with(1, 70, unknown);
    run.take(1, 70, &bytes);
    run.all(1, 71..193);
    assert_eq!(run.brought(), Brought { maps: vec![(0, true), (1, false), (2, true)], ..Brought::default() });
    // Damage in the last segment of a range is none of the next one's.
    let mut run = Run::new();
    run.all(1, 0..63);
    let mut bytes = run.wal.segment(1, 63);
    bytes[100] ^= 1;
    run.take(1, 63, &bytes);
    run.all(1, 64..129);
    assert_eq!(run.brought(), Brought { maps: vec![(0, false), (1, true)], ..Brought::default() });
    // What is no WAL at all.
    let mut run = Run::new();
    run.take(1, 0, &[0; 1 << 20]);
    run.all(1, 1..65);
    assert_eq!(run.brought(), Brought { maps: vec![], older: vec![0], errors: 1 });
}
