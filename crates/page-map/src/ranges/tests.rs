use pg_format::{
    Major,
    wal::{
        Fork, Relation, SegmentSize, rmgr,
        testing::{WalWriter, body},
    },
};
use proptest::prelude::*;

use super::*;

const MIB: SegmentSize = match SegmentSize::new(1 << 20) {
    Ok(size) => size,
    Err(_) => panic!(),
};
const STREAM: Stream = Stream { major: Major::V18, segment_size: MIB, block_size: 8192, system_identifier: Some(77) };
/// The second segment of a range.
const ORIGIN: u64 = 0x70_0000;
const RANGE: u64 = 2 << 20;
const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16_384 };
const HEAP: u8 = 10;

fn change(writer: &mut WalWriter, block: u32, size: usize) -> Lsn {
    writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, block)], &vec![7; size])).0
}

/// A record of which only a part was written before the server crashed; it is told where it began.
fn aborted(writer: &mut WalWriter, size: usize) {
    let (previous, had) = (writer.previous, writer.bytes.len());
    let lsn = change(writer, 4_000_000, size.max(10_000));
    // Some of its pages, one at least.
    let kept = (had + (writer.bytes.len() - had) / 2).next_multiple_of(8192);
    if kept >= writer.bytes.len() {
        return;
    }
    writer.bytes.truncate(kept);
    writer.page_header(8, 0);
    writer.previous = previous;
    writer.record(rmgr::XLOG, 0xD0, &body(&[], &lsn.0.to_le_bytes()));
}

/// WAL with records of all sizes: some are as long as ranges.
fn mixed(sizes: &[usize]) -> Vec<u8> {
    let mut writer = WalWriter::new(STREAM, ORIGIN);
    change(&mut writer, 0, 10);
    for (block, size) in (1u32..).zip(sizes) {
        match size % 20 {
            0 => {
                writer.switch();
            }
            1..=2 => aborted(&mut writer, *size),
            _ => {
                change(&mut writer, block, *size);
            }
        }
    }
    writer.bytes
}

fn mapper(from: u64) -> RangeMapper {
    RangeMapper::new(STREAM, RANGE, Lsn(from), Limits::DEFAULT).unwrap()
}

/// All maps of WAL from `from` on.
fn maps(bytes: &[u8], from: u64) -> (Vec<RangeMap>, RangeMap) {
    let mut mapper = mapper(from);
    let all = mapper.feed(Lsn(from), &bytes[usize::try_from(from - ORIGIN).unwrap()..]);
    let rest = mapper.unfinished();
    (all, rest)
}

#[test]
fn a_record_belongs_to_where_it_begins() {
    let mut writer = WalWriter::new(STREAM, ORIGIN);
    let first = change(&mut writer, 1, 1_000_000);
    // Over the end, and over all of the range behind it.
    let over = change(&mut writer, 2, 3_000_000);
    let behind = change(&mut writer, 3, 100);
    let (all, rest) = maps(&writer.bytes, ORIGIN);
    let numbers: Vec<u64> = all.iter().map(|range| range.number).collect();
    assert_eq!((numbers, rest.number), (vec![3, 4], 5));
    let told: Vec<_> = all.iter().map(|range| (range.map.start(), range.map.end(), range.map.records())).collect();
    assert_eq!(told, [(Lsn(ORIGIN), behind, 2), (behind, behind, 0)]);
    assert!(first < over && over < Lsn(4 * RANGE) && behind > Lsn(5 * RANGE));
    assert_eq!((rest.map.start(), rest.map.pages()), (behind, 1));
    // Not before something behind it is whole.
    let mut mapper = mapper(ORIGIN);
    let end = writer.bytes.len();
    assert!(mapper.feed(Lsn(ORIGIN), &writer.bytes[..end - 1]).is_empty());
    assert_eq!(mapper.feed(mapper.position(), &writer.bytes[end - 1..]).len(), 2);
}

#[test]
fn damage_costs_the_maps_that_it_touches() {
    let mut writer = WalWriter::new(STREAM, ORIGIN);
    for block in 0..600 {
        change(&mut writer, block, 20_000);
    }
    let sound = maps(&writer.bytes, ORIGIN).0;
    let mut bytes = writer.bytes.clone();
    bytes[usize::try_from(5 * RANGE - ORIGIN).unwrap() + 500_000] ^= 1;
    let broken = maps(&bytes, ORIGIN).0;
    assert_eq!(sound.len(), broken.len());
    for (sound, broken) in sound.iter().zip(&broken) {
        assert_eq!(broken.map.full_read().is_empty(), broken.number != 5, "{}", broken.number);
        assert!(broken.number >= 5 || sound == broken);
    }
    // What lacks is as long as many ranges, and asks for no more maps than its ends touch.
    let mut mapper = mapper(ORIGIN);
    assert!(mapper.feed(Lsn(ORIGIN), &bytes[..100_000]).is_empty());
    let mut far = WalWriter::new(STREAM, 1 << 50);
    for block in 0..100 {
        change(&mut far, block, 100_000);
    }
    let after = mapper.feed(Lsn(1 << 50), &far.bytes);
    let numbers: Vec<_> = after.iter().map(|range| (range.number, range.map.full_read().is_empty())).collect();
    let first = (1 << 50) / RANGE;
    assert_eq!(numbers[..3], [(3, false), (first, false), (first + 1, true)]);
}

#[test]
fn it_begins_with_a_page() {
    for from in [1, 100, 8191] {
        assert!(RangeMapper::new(STREAM, RANGE, Lsn(from), Limits::DEFAULT).is_err(), "{from}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whoever_makes_it_makes_the_same(
        sizes in proptest::collection::vec(prop_oneof![3 => 0usize..20_000, 2 => 100_000usize..900_000], 1..40),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..300_000], 1..20),
    ) {
        let bytes = mixed(&sizes);
        let (all, rest) = maps(&bytes, ORIGIN);
        // In pieces.
        let (mut mapper, mut at, mut same) = (mapper(ORIGIN), 0, Vec::new());
        for piece in pieces.iter().cycle() {
            let end = bytes.len().min(at + piece);
            same.extend(mapper.feed(Lsn(ORIGIN + at as u64), &bytes[at..end]));
            at = end;
            if at == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(&same, &all);
        // By somebody who begins with the range, or with a segment of it.
        for range in &all {
            let start = (range.number * RANGE).max(ORIGIN);
            let alone = maps(&bytes, start).0;
            prop_assert_eq!(alone.first(), Some(range));
            let late = maps(&bytes, start.max(range.number * RANGE + RANGE / 2)).0.swap_remove(0);
            prop_assert_eq!((late.number, late.map.end()), (range.number, range.map.end()));
            prop_assert!(late.map.start() >= range.map.start() && late.map.records() <= range.map.records());
        }
        // They join, and say what one map of it all says.
        let mut joined: Option<PageMap> = None;
        for range in all.iter().chain([&rest]) {
            prop_assert!(range.map.full_read().is_empty(), "{:?}", range.map.full_read());
            match &mut joined {
                Some(joined) => joined.append(&range.map, Limits::DEFAULT).unwrap(),
                None => joined = Some(range.map.clone()),
            }
        }
        let mut whole = Mapper::new(STREAM, Lsn(ORIGIN), Limits::DEFAULT).unwrap();
        whole.feed(Lsn(ORIGIN), &bytes);
        prop_assert_eq!(joined.unwrap(), whole.cut());
    }

    #[test]
    fn nothing_panics(
        feeds in proptest::collection::vec((0u64..8_000_000, proptest::collection::vec(any::<u8>(), 0..3_000)), 0..10),
        far in any::<u64>(),
    ) {
        for base in [0, far - far % 8192, u64::MAX - 16_383] {
            let mut mapper = mapper(base);
            for (at, bytes) in &feeds {
                drop(mapper.feed(Lsn(base.saturating_add(*at)), bytes));
            }
            drop(mapper.unfinished());
        }
    }
}
