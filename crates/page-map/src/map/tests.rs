use pg_format::wal::SegmentSize;

use super::*;

const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16_384 };

fn empty() -> PageMap {
    let stream =
        Stream { major: Major::V13, segment_size: SegmentSize::DEFAULT, block_size: 8192, system_identifier: None };
    PageMap::new(&stream, Lsn(100))
}

#[test]
fn truncation_keeps_the_least_length() {
    let (mut map, limits) = (empty(), Limits::DEFAULT);
    for block in [1, 5, 9] {
        map.mark(RELATION, Fork::Main, block, limits);
    }
    map.cut_off(RELATION, Fork::Main, 5, limits);
    map.mark(RELATION, Fork::Main, 7, limits);
    map.cut_off(RELATION, Fork::Main, 8, limits);
    let change = map.change(RELATION, Fork::Main);
    let found: Vec<u32> = (0..12).filter(|block| change.contains(*block, 11)).collect();
    assert_eq!(found, [1, 5, 6, 7, 8, 9, 10, 11]);
    assert!(matches!(change, Change::Pages { from: Some(5), blocks } if blocks.iter().eq([1])));
    // Beyond the older copy's end all is new, also of what the map does not name.
    let other = map.change(Relation { number: 1, ..RELATION }, Fork::Main);
    assert_eq!((other, other.contains(3, 3), other.contains(2, 3)), (Change::None, true, false));
    map.cut_off(RELATION, Fork::Main, 0, limits);
    assert_eq!(map.change(RELATION, Fork::Main), Change::Whole);
    for fork in [Fork::FreeSpaceMap, Fork::VisibilityMap] {
        assert_eq!(empty().change(RELATION, fork), Change::Whole);
    }
}

#[test]
fn the_costliest_becomes_whole_first() {
    let mut map = empty();
    let limits = Limits { memory_bytes: 3_000 };
    let other = Relation { number: 7, ..RELATION };
    map.mark(other, Fork::Main, 1, limits);
    (0..2_000).for_each(|block| map.mark(RELATION, Fork::Main, block, limits));
    assert_eq!(map.change(RELATION, Fork::Main), Change::Whole);
    assert!(matches!(map.change(other, Fork::Main), Change::Pages { .. }));
    (0..1_000).for_each(|number| map.cut_off(Relation { number, ..RELATION }, Fork::Main, 0, limits));
    assert_eq!(map.databases().collect::<Vec<_>>(), [(1663, 5)]);
    assert!(map.full_read().is_empty());
    (0..1_000).for_each(|database| map.whole_database(1663, database, limits));
    assert_eq!(map.full_read()[0].reason, Reason::Memory);
    assert_eq!((map.memory_bytes(), map.change(other, Fork::Main)), (0, Change::Whole));
}

#[test]
fn reasons_and_timelines_are_bounded() {
    let mut map = empty();
    for at in 0..100 {
        map.force(Lsn(at), Reason::WalLevelMinimal);
        map.force(Lsn(at), Reason::WalLevelMinimal);
    }
    assert_eq!(map.full_read().len(), FULL_READS_MAX);
    let mut map = empty();
    (1..=200).for_each(|timeline| map.on_timeline(timeline, Lsn(u64::from(timeline))));
    assert_eq!((map.timelines().len(), map.full_read().len()), (TIMELINES_MAX, FULL_READS_MAX));
    // The page's header says the old one, the record that begins it the new one.
    let mut map = empty();
    for (timeline, at) in [(1, 100), (1, 150), (2, 150), (1, 160), (2, 170)] {
        map.on_timeline(timeline, Lsn(at));
    }
    assert_eq!(map.timelines(), [(1, Lsn(100)), (2, Lsn(150))]);
}
