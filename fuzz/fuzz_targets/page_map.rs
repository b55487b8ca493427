//! Page maps: no input panics, however the bytes of WAL are cut the map is the same, whoever makes that of a range makes the same, and what is
//! read as a map is what would be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Lsn;
use page_map::{Limits, Mapper, PageMap, RangeMap, RangeMapper};
use pg_format::{
    Major,
    wal::{SegmentSize, Stream, testing::WalWriter},
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(map) = PageMap::decode(bytes) {
        assert_eq!(map.encode(), bytes);
    }
    // The same with a checksum that fits, or little else would be reached.
    let mut sealed = b"OXPM\x01".to_vec();
    sealed.extend(bytes);
    let crc = crc32c::crc32c(&sealed);
    sealed.extend(crc.to_le_bytes());
    if let Ok(map) = PageMap::decode(&sealed) {
        assert_eq!(map.encode(), sealed);
    }
    let [major, piece, bytes @ ..] = bytes else { return };
    let major = Major::ALL[usize::from(*major) % Major::ALL.len()];
    let stream = Stream { major, segment_size: SegmentSize::DEFAULT, block_size: 8192, system_identifier: None };
    // Records with a sound frame: resource manager, info, length, body.
    let mut writer = WalWriter::new(stream, 1 << 24);
    let mut rest = bytes;
    while let [rmgr, info, len, behind @ ..] = rest {
        let (body, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        writer.record(*rmgr, *info, body);
        rest = behind;
    }
    // And what is left of the input as it is.
    writer.bytes.extend(rest);
    let start = Lsn((1 << 24) + 40);
    let run = |size: usize| {
        let mut mapper = Mapper::new(stream, start, Limits { memory_bytes: 4_000 }).expect("a sound stream");
        let mut at = 1 << 24;
        for piece in writer.bytes.chunks(size) {
            mapper.feed(Lsn(at), piece);
            at += piece.len() as u64;
        }
        mapper.cut()
    };
    let map = run(usize::MAX);
    assert_eq!(run(usize::from(*piece) + 1), map);
    assert_eq!(PageMap::decode(&map.encode()), Ok(map));

    let ranges = |from: usize, size: usize| {
        let limits = Limits { memory_bytes: 4_000 };
        let mut mapper = RangeMapper::new(stream, RANGE as u64, Lsn((1 << 24) + from as u64), limits).expect("a page");
        let mut found: Vec<RangeMap> = Vec::new();
        for piece in writer.bytes[from..].chunks(size) {
            found.extend(mapper.feed(mapper.position(), piece));
        }
        found
    };
    let all = ranges(0, usize::MAX);
    assert_eq!(ranges(0, usize::from(*piece) + 1), all);
    for (at, range) in all.iter().enumerate() {
        // What came before may have spoilt it, and may be what it is spoilt by.
        if !range.map.full_read().is_empty() {
            break;
        }
        assert_eq!(ranges(at * RANGE, usize::MAX).first(), Some(range));
        if let Some(next) = all.get(at + 1).filter(|next| next.map.full_read().is_empty()) {
            assert_eq!(range.map.joins(&next.map), Ok(()));
        }
    }
});

/// Bytes of a range: two pages.
const RANGE: usize = 16_384;
