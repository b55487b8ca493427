use model::Lsn;
use pg_format::{
    Major,
    wal::{
        Fork, Relation, SegmentSize,
        testing::{WalWriter, body},
    },
};
use proptest::prelude::*;

use super::*;
use crate::{Change, FullRead};

const MIB: SegmentSize = match SegmentSize::new(1 << 20) {
    Ok(size) => size,
    Err(_) => panic!(),
};
const STREAM: Stream = Stream { major: Major::V16, segment_size: MIB, block_size: 8192, system_identifier: Some(77) };
const ORIGIN: u64 = 0x30_0000;
const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16_384 };
const OTHER: Relation = Relation { number: 16_385, ..RELATION };
const HEAP: u8 = 10;

fn writer() -> (WalWriter, Lsn) {
    let mut writer = WalWriter::new(STREAM, ORIGIN);
    let (start, _) = writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 1)], b"first"));
    (writer, start)
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    body(&[], &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
}

/// Fed in pieces of these sizes, over and over.
fn mapped(bytes: &[u8], start: Lsn, pieces: &[usize]) -> PageMap {
    let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap();
    let (mut at, mut rest, mut sizes) = (ORIGIN, bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        mapper.feed(Lsn(at), piece);
        (at, rest) = (at + piece.len() as u64, behind);
    }
    mapper.cut()
}

fn map_of(writer: &WalWriter, start: Lsn) -> PageMap {
    mapped(&writer.bytes, start, &[usize::MAX])
}

fn reason(map: &PageMap) -> Option<&Reason> {
    map.full_read().first().map(|full| &full.reason)
}

#[test]
fn blocks_are_in_the_map() {
    let (mut writer, start) = writer();
    let blocks = [(RELATION, Fork::Main, 7), (RELATION, Fork::VisibilityMap, 0), (OTHER, Fork::Init, 0)];
    writer.record(HEAP, 0, &body(&blocks, &[0; 9000]));
    writer.record(rmgr::SPGIST, 0, &body(&[(OTHER, Fork::Main, 9)], b""));
    writer.switch();
    let (last, end) = writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 70_000)], b""));
    let map = map_of(&writer, start);
    assert_eq!((map.start(), map.end(), map.last, map.records()), (start, end, Some(last), 5));
    assert!(
        matches!(map.change(RELATION, Fork::Main), Change::Pages { blocks, from: None } if blocks.iter().eq([1, 7, 70_000]))
    );
    assert!(matches!(map.change(OTHER, Fork::Main), Change::Pages { blocks, from: None } if blocks.iter().eq([0, 9])));
    assert!(matches!(map.change(OTHER, Fork::Init), Change::Pages { blocks, .. } if blocks.len() == 1));
    assert_eq!((map.pages(), map.files().count(), map.timelines()), (6, 3, &[(1, start)][..]));
    assert!(map.full_read().is_empty());
}

#[test]
fn files_that_come_and_go() {
    let (mut writer, start) = writer();
    writer.record(rmgr::SMGR, 0x10, &numbers(&[1663, 5, 16_385, 0]));
    writer.record(rmgr::SMGR, 0x20, &numbers(&[4, 1663, 5, 16_384, 7]));
    writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 3), (RELATION, Fork::Main, 6)], b""));
    // Only the visibility map.
    writer.record(rmgr::SMGR, 0x21, &numbers(&[0, 1663, 5, 16_384, 2]));
    for (number, info) in [(100, 0x80), (101, 0xA1), (102, 0xB0), (103, 0xC0)] {
        writer.record(rmgr::XACT, info, &numbers(&[0, 0, 4, 1, 1663, 5, number]));
    }
    writer.record(rmgr::DATABASE, 0x00, &numbers(&[20, 1663, 1, 1663]));
    writer.record(rmgr::DATABASE, 0x10, &numbers(&[21, 1664]));
    writer.record(rmgr::DATABASE, 0x20, &numbers(&[22, 2, 1663, 1700]));
    let map = map_of(&writer, start);
    assert_eq!(map.change(OTHER, Fork::Main), Change::Whole);
    assert!(
        matches!(map.change(RELATION, Fork::Main), Change::Pages { blocks, from: Some(4) } if blocks.iter().eq([1, 3]))
    );
    for number in 100..104 {
        assert_eq!(map.change(Relation { number, ..RELATION }, Fork::Main), Change::Whole, "{number}");
    }
    assert_eq!(map.databases().collect::<Vec<_>>(), [(1663, 20), (1663, 22), (1664, 21), (1700, 22)]);
    assert!(map.full_read().is_empty());
}

#[test]
fn what_forces_a_full_read() {
    let custom = |info, body: &[u8]| {
        let (mut writer, start) = writer();
        writer.record(130, info, body);
        let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap().harmless(130).harmless(10);
        mapper.feed(Lsn(ORIGIN), &writer.bytes);
        mapper.cut()
    };
    let blocks = body(&[(OTHER, Fork::Main, 3)], b"");
    for (rmgr, info, body, expected) in [
        (rmgr::XLOG, 0x60, numbers(&[1, 1, 1, 1, 1, 0, 0]), Some(Reason::WalLevelMinimal)),
        (rmgr::XLOG, 0x60, numbers(&[1, 1, 1, 1, 1, 1, 0]), None),
        (rmgr::XLOG, 0x60, numbers(&[1, 1, 1, 1, 1, 9, 0]), Some(Reason::Unreadable { rmgr: 0, info: 0x60 })),
        (rmgr::XLOG, 0xF0, numbers(&[1]), Some(Reason::Unknown { rmgr: 0, info: 0xF0 })),
        (rmgr::SMGR, 0x30, numbers(&[1]), Some(Reason::Unknown { rmgr: 2, info: 0x30 })),
        (rmgr::SMGR, 0x10, numbers(&[1]), Some(Reason::Unreadable { rmgr: 2, info: 0x10 })),
        (HEAP, 0x01, blocks.clone(), Some(Reason::Unknown { rmgr: HEAP, info: 1 })),
        (HEAP, 0x00, vec![0, 0, 0], Some(Reason::Unreadable { rmgr: HEAP, info: 0 })),
        (22, 0x00, blocks.clone(), Some(Reason::Unknown { rmgr: 22, info: 0 })),
        (130, 0x00, numbers(&[1]), Some(Reason::CustomRmgr(130))),
        (130, 0x00, blocks, None),
    ] {
        let (mut writer, start) = writer();
        let (at, _) = writer.record(rmgr, info, &body);
        let map = map_of(&writer, start);
        assert_eq!(reason(&map), expected.as_ref(), "{rmgr} {info}");
        assert!(expected.is_none() || map.full_read()[0].at == at);
        assert_eq!(map.change(OTHER, Fork::Main) == Change::Whole, expected.is_some());
        assert_eq!(PageMap::decode(&map.encode()), Ok(map));
    }
    assert_eq!(reason(&custom(0, &numbers(&[1]))), None);
    assert_eq!(reason(&custom(1, &numbers(&[1]))), Some(&Reason::Unknown { rmgr: 130, info: 1 }));
}

#[test]
fn minimal_lasts_until_it_is_over() {
    let (mut writer, start) = writer();
    let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap();
    let mut step = |record: Option<u32>| {
        match record {
            Some(level) => writer.record(rmgr::XLOG, 0x60, &numbers(&[1, 1, 1, 1, 1, level, 0])),
            None => writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 1)], b"")),
        };
        mapper.feed(Lsn(ORIGIN), &writer.bytes);
        mapper.cut().full_read().is_empty()
    };
    assert_eq!([step(None), step(Some(0)), step(None), step(Some(1)), step(None)], [true, false, false, false, true]);
}

#[test]
fn a_gap_costs_one_map() {
    let (mut writer, start) = writer();
    let mut ends = Vec::new();
    for block in 0..600 {
        ends.push(writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, block)], &[7; 300])).1);
    }
    let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap();
    mapper.feed(Lsn(ORIGIN), &writer.bytes[..20_000]);
    // Again, and less than there was: passed over.
    mapper.feed(Lsn(ORIGIN + 5_000), &writer.bytes[5_000..15_000]);
    assert!(mapper.map().full_read().is_empty());
    mapper.feed(Lsn(ORIGIN + 30_000), &writer.bytes[30_000..31_000]);
    let broken = mapper.cut();
    let gap = FullRead { at: Lsn(ORIGIN + 20_000), reason: Reason::Gap { to: Lsn(ORIGIN + 30_000) } };
    assert_eq!(broken.full_read(), std::slice::from_ref(&gap));
    // The records up to the next page are missing here.
    mapper.feed(Lsn(ORIGIN + 31_000), &writer.bytes[31_000..60_000]);
    let next = mapper.cut();
    assert_eq!(next.full_read(), [gap]);
    mapper.feed(Lsn(ORIGIN + 60_000), &writer.bytes[60_000..]);
    let whole = mapper.cut();
    assert!(whole.full_read().is_empty() && whole.pages() > 200);
    assert_eq!((whole.start(), whole.end()), (next.end(), *ends.last().unwrap()));
    let mut joined = next.clone();
    joined.append(&whole, Limits::DEFAULT).unwrap();
    assert_eq!(joined.full_read(), next.full_read());
}

#[test]
fn damage_is_found_and_said() {
    let (mut writer, start) = writer();
    for block in 0..100 {
        writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, block)], &[7; 300]));
    }
    let sound = map_of(&writer, start);
    writer.bytes[12_345] ^= 1;
    let broken = map_of(&writer, start);
    assert!(matches!(reason(&broken), Some(Reason::Broken(why)) if why.contains("CRC")), "{broken:?}");
    assert_eq!(broken.end(), sound.end());
    // A record that names another one before it.
    let (mut writer, start) = self::writer();
    writer.previous = ORIGIN;
    writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 1)], b""));
    assert!(matches!(reason(&map_of(&writer, start)), Some(Reason::Broken(why)) if why.contains("record before it")));
}

#[test]
fn a_promotion() {
    let (mut old, start) = writer();
    let (_, switch) = old.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 2)], b""));
    let mut new = old.clone();
    old.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 3)], &[0; 50]));
    let (begins, _) = new.record(rmgr::XLOG, 0x90, &numbers(&[0, 0, 2, 1]));
    assert_eq!(begins, switch);
    new.timeline = 2;
    new.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 4)], &[0; 9000]));
    new.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 5)], b""));
    let upto = |bytes: u64| &old.bytes[..usize::try_from(switch.0 - ORIGIN + bytes).unwrap()];
    // A part of a record of the old timeline came along.
    let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap();
    mapper.feed(Lsn(ORIGIN), upto(30));
    mapper.rewind(switch).unwrap();
    mapper.feed(Lsn(ORIGIN), &new.bytes);
    let map = mapper.cut();
    assert_eq!(map.timelines(), [(1, start), (2, switch)]);
    assert!(map.full_read().is_empty());
    assert!(matches!(map.change(RELATION, Fork::Main), Change::Pages { blocks, .. } if blocks.iter().eq([1, 2, 4, 5])));
    assert_eq!(map, map_of(&new, start));
    assert_eq!(mapper.cut().timelines(), [(2, map.end())]);
    // A whole one: the servers have diverged.
    let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap();
    mapper.feed(Lsn(ORIGIN), &old.bytes);
    mapper.rewind(switch).unwrap();
    assert!(matches!(reason(mapper.map()), Some(Reason::Broken(why)) if why.contains("diverged")));
}

#[test]
fn an_unfinished_record_is_passed_over() {
    let (mut writer, start) = writer();
    writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 2)], &[0; 7900]));
    let previous = writer.previous;
    let (aborted, _) = writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, 3)], &[0; 20_000]));
    // Two of its pages were written, then the server crashed.
    writer.bytes.truncate(3 * 8192);
    writer.page_header(8, 0);
    writer.previous = previous;
    let (at, _) = writer.record(rmgr::XLOG, 0xD0, &body(&[], &aborted.0.to_le_bytes()));
    let map = map_of(&writer, start);
    assert!(map.full_read().is_empty(), "{:?}", map.full_read());
    assert!(matches!(map.change(RELATION, Fork::Main), Change::Pages { blocks, .. } if blocks.iter().eq([1, 2])));
    assert_eq!(map.last, Some(at));
    // Begun within the unfinished record.
    let page = Lsn(ORIGIN + 2 * 8192);
    let mut mapper = Mapper::new(STREAM, page, Limits::DEFAULT).unwrap();
    mapper.feed(page, &writer.bytes[2 * 8192..]);
    assert!(mapper.map().full_read().is_empty(), "{:?}", mapper.map().full_read());
    assert_eq!((mapper.map().records(), mapper.map().last), (1, Some(at)));
}

#[test]
fn no_stream_no_mapper() {
    let none = Stream { block_size: 0, ..STREAM };
    assert!(Mapper::new(none, Lsn(ORIGIN), Limits::DEFAULT).is_err());
}

/// WAL with records of all sizes, among them some that matter.
fn mixed(sizes: &[usize]) -> (WalWriter, Lsn) {
    let (mut writer, start) = writer();
    for (block, size) in (0u32..).zip(sizes) {
        match size % 50 {
            0 => drop(writer.switch()),
            1 => drop(writer.record(rmgr::SMGR, 0x20, &numbers(&[block, 1663, 5, 16_384, 7]))),
            _ => drop(writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, block)], &vec![7; *size]))),
        }
    }
    (writer, start)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn pieces_change_nothing(
        sizes in proptest::collection::vec(0usize..20_000, 1..40),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..30_000], 1..20),
        damage in proptest::option::of((any::<usize>(), any::<u8>())),
    ) {
        let (mut writer, start) = mixed(&sizes);
        if let Some((at, with)) = damage {
            let at = at % writer.bytes.len();
            writer.bytes[at] ^= with;
        }
        let whole = map_of(&writer, start);
        let other = mapped(&writer.bytes, start, &pieces);
        prop_assert_eq!(other.encode(), whole.encode());
        prop_assert_eq!(other, whole);
    }

    #[test]
    fn cuts_change_nothing(
        sizes in proptest::collection::vec(0usize..20_000, 1..40),
        pieces in proptest::collection::vec(1usize..30_000, 1..20),
    ) {
        let (writer, start) = mixed(&sizes);
        let mut mapper = Mapper::new(STREAM, start, Limits::DEFAULT).unwrap();
        let mut joined: Option<PageMap> = None;
        let mut rest = &writer.bytes[..];
        for piece in pieces.iter().chain([&usize::MAX]) {
            let at = ORIGIN + (writer.bytes.len() - rest.len()) as u64;
            let (piece, behind) = rest.split_at((*piece).min(rest.len()));
            mapper.feed(Lsn(at), piece);
            rest = behind;
            let cut = mapper.cut();
            match &mut joined {
                Some(joined) => joined.append(&cut, Limits::DEFAULT).unwrap(),
                None => joined = Some(cut),
            }
        }
        prop_assert_eq!(joined.unwrap(), map_of(&writer, start));
    }

    #[test]
    fn nothing_panics(
        feeds in proptest::collection::vec((0u64..100_000, proptest::collection::vec(any::<u8>(), 0..3_000)), 0..10),
        start in 0u64..20_000,
        far in any::<u64>(),
    ) {
        for base in [0, far, u64::MAX - 60_000] {
            let Ok(mut mapper) = Mapper::new(STREAM, Lsn(base.saturating_add(start)), Limits { memory_bytes: 500 }) else { continue };
            for (at, bytes) in &feeds {
                mapper.feed(Lsn(base.saturating_add(*at)), bytes);
                prop_assert_eq!(PageMap::decode(&mapper.cut().encode()).is_ok(), true);
                mapper.rewind(Lsn(*at)).unwrap();
            }
        }
    }
}
