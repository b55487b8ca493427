//! A second reader of stored maps, written after docs/src/format.md and nothing else.

#![allow(clippy::unwrap_used, reason = "test helpers, which clippy does not take for tests")]

use std::collections::{BTreeMap, BTreeSet};

use model::Lsn;
use page_map::{Change, Limits, PageMap, RangeMapper};
use pg_format::{
    Major,
    wal::{
        Fork, Relation, SegmentSize, Stream,
        testing::{WalWriter, body},
    },
};

/// Tablespace, database, relation, fork.
type File = (u64, u64, u64, u8);

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    major: u64,
    system: Option<u64>,
    start: u64,
    end: u64,
    records: u64,
    before: Option<u64>,
    last: Option<u64>,
    timelines: Vec<(u64, u64)>,
    reasons: u64,
    databases: Vec<(u64, u64)>,
    files: BTreeMap<File, (Option<u64>, BTreeSet<u64>)>,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        *byte
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            number |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }

    fn option(&mut self) -> Option<u64> {
        (self.byte() == 1).then(|| self.number())
    }

    fn file(&mut self) -> (File, (Option<u64>, BTreeSet<u64>)) {
        let file = (self.number(), self.number(), self.number(), self.byte());
        let (from, mut blocks) = (self.option(), BTreeSet::new());
        for _ in 0..self.number() {
            let first = self.number() * 65_536;
            if self.byte() == 0 {
                let mut at = first;
                for _ in 0..self.number() {
                    at += self.number();
                    let end = at + self.number() + 1;
                    blocks.extend(at..end);
                    at = end;
                }
            } else {
                let bitmap: Vec<u8> = (0..8192).map(|_| self.byte()).collect();
                blocks.extend(
                    (0..65_536).filter(|bit| bitmap[bit / 8] >> (bit % 8) & 1 == 1).map(|bit| first + bit as u64),
                );
            }
        }
        (file, (from, blocks))
    }
}

fn read(bytes: &[u8]) -> Read {
    let (body, check) = bytes.split_last_chunk::<4>().unwrap();
    assert_eq!(u32::from_le_bytes(*check), crc32c::crc32c(body));
    let mut from = Bytes(body.strip_prefix(b"OXPM\x01").unwrap());
    let mut read = Read { major: from.number(), system: from.option(), ..Read::default() };
    (read.start, read.end, read.records) = (from.number(), from.number(), from.number());
    (read.before, read.last) = (from.option(), from.option());
    read.timelines = (0..from.number()).map(|_| (from.number(), from.number())).collect();
    read.reasons = from.number();
    assert_eq!(read.reasons, 0, "none in maps that are stored");
    read.databases = (0..from.number()).map(|_| (from.number(), from.number())).collect();
    read.files = (0..from.number()).map(|_| from.file()).collect();
    assert!(from.0.is_empty());
    read
}

const STREAM: Stream = Stream {
    major: Major::V15,
    segment_size: match SegmentSize::new(1 << 20) {
        Ok(size) => size,
        Err(_) => panic!(),
    },
    block_size: 8192,
    system_identifier: Some(7_301_924_918_273_645_021),
};
const RANGE: u64 = 2 << 20;

fn relation(number: u32) -> Relation {
    Relation { tablespace: 1663, database: 5, number }
}

/// A range with a record at either border.
fn map() -> PageMap {
    let mut writer = WalWriter::new(STREAM, RANGE);
    let numbers =
        |numbers: &[u32]| body(&[], &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>());
    for block in (0..20).chain((100_000..110_000).step_by(2)).chain([u32::MAX - 1]) {
        writer.record(10, 0, &body(&[(relation(16_384), Fork::Main, block)], b"x"));
    }
    writer.record(10, 0, &body(&[(relation(16_385), Fork::Init, 3), (relation(16_385), Fork::VisibilityMap, 0)], b"x"));
    // Cut off to seven blocks; made; and a database, whole.
    writer.record(2, 0x20, &numbers(&[7, 1663, 5, 16_384, 7]));
    writer.record(10, 0, &body(&[(relation(16_384), Fork::Main, 70_000)], b"x"));
    writer.record(2, 0x10, &numbers(&[1663, 5, 16_390, 0]));
    writer.record(4, 0x10, &numbers(&[20, 1663]));
    for block in (1_000..11_000).step_by(2) {
        writer.record(
            10,
            0,
            &body(&[(relation(16_391), Fork::Main, block), (relation(16_391), Fork::Main, 65_536 + block)], &[0; 60]),
        );
    }
    while writer.at() < 2 * RANGE {
        writer.record(10, 0, &body(&[(relation(16_392), Fork::Main, 1)], &[0; 5000]));
    }
    writer.record(10, 0, &body(&[(relation(16_393), Fork::Main, 1)], b"behind"));
    let mut mapper = RangeMapper::new(STREAM, RANGE, Lsn(RANGE), Limits::DEFAULT).unwrap();
    let mut maps = mapper.feed(Lsn(RANGE), &writer.bytes);
    assert_eq!((maps.len(), maps[0].number), (1, 1));
    maps.remove(0).map
}

#[test]
fn a_second_reader_reads_the_same() {
    let map = map();
    let found = read(&map.encode());
    assert_eq!((found.major, found.system), (15, STREAM.system_identifier));
    assert_eq!((found.start, found.end, found.records), (RANGE, map.end().0, map.records()));
    assert!(found.end > 2 * RANGE, "the last record begins in it");
    assert_eq!((found.before, found.last.is_some_and(|last| last < 2 * RANGE)), (Some(1), true));
    assert_eq!(found.timelines, [(1, RANGE + 40)]);
    assert_eq!(found.databases, [(1663, 20)]);
    let mut expected: BTreeMap<File, (Option<u64>, BTreeSet<u64>)> = BTreeMap::new();
    for (relation, fork, change) in map.files() {
        let file = (
            relation.tablespace.into(),
            relation.database.into(),
            relation.number.into(),
            if fork == Fork::Init { 3 } else { 0 },
        );
        let change = match change {
            Change::Whole => (Some(0), BTreeSet::new()),
            Change::Pages { blocks, from } => (from.map(u64::from), blocks.iter().map(u64::from).collect()),
            Change::None => panic!("a file without a change"),
        };
        expected.insert(file, change);
    }
    assert_eq!(found.files, expected);
    let of = |number: u64, fork: u8| found.files.get(&(1663, 5, number, fork)).cloned().unwrap();
    assert_eq!(of(16_384, 0), (Some(7), (0..7).collect()));
    assert_eq!(of(16_385, 3), (None, [3].into()));
    assert_eq!(of(16_390, 0), (Some(0), BTreeSet::new()));
    assert_eq!(of(16_391, 0).1.len(), 10_000);
    assert!(!found.files.contains_key(&(1663, 5, 16_393, 0)), "it begins behind the range");
    assert_eq!(found.files.keys().filter(|(.., fork)| ![0, 3].contains(fork)).count(), 0);
}
