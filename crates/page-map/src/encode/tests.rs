use proptest::prelude::*;

use super::*;
use crate::{Change, NotNext};

const LIMITS: Limits = Limits { memory_bytes: usize::MAX };

#[derive(Clone, Debug)]
enum Step {
    Mark(u32, u32),
    Run(u32, u32, u32),
    Cut(u32, u32),
    Whole(u32),
    Database(u32),
    Init(u32, u32),
    Map(u32, u32),
    Force(u64, u8),
}

fn relation(number: u32) -> Relation {
    Relation { tablespace: 1663 + number % 2, database: 5 + number % 3, number }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0u32..20, prop_oneof![0u32..200_000, any::<u32>()]).prop_map(|(a, b)| Step::Mark(a, b)),
        1 => (0u32..20, 0u32..200_000, 0u32..9_000).prop_map(|(a, b, c)| Step::Run(a, b, c)),
        4 => (0u32..20, 0u32..200_000).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => (0u32..20).prop_map(Step::Whole),
        1 => (0u32..3).prop_map(Step::Database),
        1 => (0u32..20, any::<u32>()).prop_map(|(a, b)| Step::Init(a, b)),
        1 => (0u32..20, any::<u32>()).prop_map(|(a, b)| Step::Map(a, b)),
    ];
    let force = (any::<u64>(), 0u8..8).prop_map(|(at, kind)| Step::Force(at, kind));
    (proptest::collection::vec(step, 0..60), proptest::option::weighted(0.1, force)).prop_map(|(mut steps, force)| {
        steps.extend(force);
        steps
    })
}

fn apply(map: &mut PageMap, step: &Step, limits: Limits) {
    match *step {
        Step::Mark(number, block) => map.mark(relation(number), Fork::Main, block, limits),
        Step::Run(number, first, len) => {
            (first..first + len).for_each(|block| map.mark(relation(number), Fork::Main, block, limits));
        }
        Step::Cut(number, from) => map.cut_off(relation(number), Fork::Main, from, limits),
        Step::Whole(number) => map.whole_relation(relation(number), limits),
        Step::Database(number) => map.whole_database(1663 + number % 2, 5 + number, limits),
        Step::Init(number, block) => map.mark(relation(number), Fork::Init, block, limits),
        Step::Map(number, block) => {
            map.mark(relation(number), Fork::VisibilityMap, block, limits);
            map.mark(relation(number), Fork::FreeSpaceMap, block, limits);
        }
        Step::Force(at, kind) => map.force(
            Lsn(at),
            match kind {
                0 => Reason::Gap { to: Lsn(at) },
                1 => Reason::broken(&"ä".repeat(300)),
                2 => Reason::WalLevelMinimal,
                3 => Reason::Unknown { rmgr: 30, info: 1 },
                4 => Reason::Unreadable { rmgr: 30, info: 1 },
                5 => Reason::CustomRmgr(130),
                6 => Reason::Memory,
                _ => Reason::Timelines,
            },
        ),
    }
}

fn empty(start: u64) -> PageMap {
    let stream =
        Stream { major: Major::V17, segment_size: SegmentSize::DEFAULT, block_size: 8192, system_identifier: Some(7) };
    PageMap::new(&stream, Lsn(start))
}

fn made(steps: &[Step], limits: Limits) -> PageMap {
    let mut map = empty(100);
    steps.iter().for_each(|step| apply(&mut map, step, limits));
    (map.end, map.records, map.first_prev, map.last) = (Lsn(300), steps.len() as u64, Some(Lsn(90)), Some(Lsn(290)));
    map.on_timeline(1, Lsn(100));
    map.on_timeline(3, Lsn(200));
    map
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_is_read(steps in steps()) {
        let map = made(&steps, LIMITS);
        let bytes = map.encode();
        let read = PageMap::decode(&bytes);
        prop_assert_eq!(read.as_ref().map(PageMap::memory_bytes), Ok(map.memory_bytes()));
        prop_assert_eq!(read, Ok(map));
        let mut damaged = bytes.clone();
        let at = steps.len() * 7 % bytes.len();
        damaged[at] ^= 4;
        prop_assert!(PageMap::decode(&damaged).is_err());
        prop_assert!(PageMap::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn what_is_read_would_be_written_so(body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..80)) {
        let mut bytes = b"OXPM\x01\x0d\x00".to_vec();
        bytes.extend(body);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        if let Ok(map) = PageMap::decode(&bytes) {
            prop_assert_eq!(map.encode(), bytes);
        }
    }

    #[test]
    fn joined_maps_say_what_one_map_says(steps in steps(), at in 0usize..60) {
        let at = at.min(steps.len());
        let whole = made(&steps, LIMITS);
        let (mut first, mut second) = (empty(100), empty(200));
        steps[..at].iter().for_each(|step| apply(&mut first, step, LIMITS));
        steps[at..].iter().for_each(|step| apply(&mut second, step, LIMITS));
        (first.end, first.records, first.first_prev, first.last) = (Lsn(200), at as u64, Some(Lsn(90)), Some(Lsn(190)));
        first.on_timeline(1, Lsn(100));
        (second.end, second.records) = (Lsn(300), (steps.len() - at) as u64);
        (second.first_prev, second.last) = (Some(Lsn(190)), Some(Lsn(290)));
        second.on_timeline(3, Lsn(200));
        prop_assert_eq!(first.append(&second, LIMITS), Ok(()));
        prop_assert_eq!(first.memory_bytes(), whole.memory_bytes());
        prop_assert_eq!(first, whole);
    }

    #[test]
    fn a_bound_costs_precision_and_nothing_else(steps in steps(), memory_bytes in 0usize..20_000) {
        let limits = Limits { memory_bytes };
        let (exact, coarse) = (made(&steps, LIMITS), made(&steps, limits));
        prop_assert!(coarse.memory_bytes() <= memory_bytes);
        prop_assert!(coarse.full_read().is_empty() || exact.memory_bytes() > memory_bytes || !exact.full_read().is_empty());
        for (relation, fork, change) in exact.files() {
            let coarse = coarse.change(relation, fork);
            match change {
                Change::None => prop_assert!(false, "a fork with nothing to say"),
                Change::Whole => prop_assert_eq!(coarse, Change::Whole),
                Change::Pages { blocks, from } => {
                    prop_assert!(blocks.iter().chain(from).all(|block| coarse.contains(block, u32::MAX)));
                }
            }
        }
        for (tablespace, database) in exact.databases() {
            prop_assert_eq!(coarse.change(Relation { tablespace, database, number: 1 }, Fork::Main), Change::Whole);
        }
    }
}

#[test]
fn a_known_map_has_known_bytes() {
    let mut map = empty(0x0100_0028);
    map.mark(relation(1), Fork::Main, 3, LIMITS);
    map.mark(relation(1), Fork::Main, 4, LIMITS);
    map.mark(relation(1), Fork::Main, 0x2_0001, LIMITS);
    map.cut_off(relation(1), Fork::Main, 0x3_0000, LIMITS);
    map.whole_database(1664, 9, LIMITS);
    (map.end, map.records, map.first_prev, map.last) = (Lsn(0x0100_0100), 3, Some(Lsn(8)), Some(Lsn(0x0100_0080)));
    map.on_timeline(1, Lsn(0x0100_0028));
    let hex: String = map.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "4f58504d01110107a88080088082800803010801808180080101a8808008000180\
                    0d0901800d0601000180800c0200000103010200010100";
    assert_eq!(&hex[..hex.len() - 8], expected, "the encoding of version 1 never changes");
    // Each block of every second: a bitmap is smaller.
    let mut map = empty(0);
    (0..40_000).for_each(|block| map.mark(relation(1), Fork::Main, block * 2 % 65_536, LIMITS));
    assert!(map.encode().len() < BITMAP_BYTES + 50);
    assert_eq!(PageMap::decode(&map.encode()), Ok(map));
}

#[test]
fn what_does_not_join() {
    let map = |start: u64, end: u64, prev: u64, last: u64, timeline| {
        let mut map = empty(start);
        (map.end, map.first_prev, map.last) = (Lsn(end), Some(Lsn(prev)), Some(Lsn(last)));
        map.on_timeline(timeline, Lsn(start));
        map
    };
    let first = map(100, 200, 90, 190, 2);
    for (next, expected) in [
        (map(200, 300, 190, 290, 2), Ok(())),
        (map(208, 300, 190, 290, 2), Err(NotNext::Gap { end: Lsn(200), start: Lsn(208) })),
        (map(200, 300, 180, 290, 2), Err(NotNext::Chain { start: Lsn(200), prev: Lsn(180), last: Lsn(190) })),
        (map(200, 300, 190, 290, 1), Err(NotNext::Timeline { start: Lsn(200), timeline: 1 })),
    ] {
        let mut joined = first.clone();
        assert_eq!(joined.append(&next, LIMITS), expected);
        assert_eq!(joined == first, expected.is_err());
    }
    let mut other = map(200, 300, 190, 290, 2);
    other.system_identifier = None;
    assert_eq!(first.clone().append(&other, LIMITS), Err(NotNext::Cluster));
    // Nothing happened, then something.
    let mut empty = empty(100);
    assert_eq!(empty.append(&first, LIMITS), Ok(()));
    assert_eq!(empty, first);
}

#[test]
fn what_is_no_map() {
    assert_eq!(PageMap::decode(b""), Err(DecodeError::NotAMap));
    assert_eq!(PageMap::decode(b"OXPM\x02"), Err(DecodeError::Version(2)));
    assert!(matches!(PageMap::decode(b"OXPM\x01abcd"), Err(DecodeError::Damaged(_))));
}
