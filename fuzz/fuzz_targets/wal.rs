//! WAL: no input panics, and how the bytes are cut into pieces changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Lsn;
use pg_format::{
    Major,
    wal::{Decoder, Flow, Kind, SegmentName, SegmentSize, Stream, TimelineHistory, WalFile},
};

fuzz_target!(|bytes: &[u8]| {
    let [major, start, piece, bytes @ ..] = bytes else { return };
    let major = Major::ALL[usize::from(*major) % Major::ALL.len()];
    let stream = Stream { major, segment_size: SegmentSize::DEFAULT, block_size: 8192, system_identifier: None };
    let from = Lsn(1 << 24);
    let start = Lsn(from.0 + u64::from(*start) * 8);
    let mut bytes = bytes.to_vec();
    // A first page header that fits, or little else would be reached; and the lengths of records within reason.
    if bytes.len() >= 40 {
        bytes[..2].copy_from_slice(&major.wal_magic().to_le_bytes());
        bytes[2] = (bytes[2] & 0x0D) | 2;
        bytes[3] = 0;
        bytes[8..16].copy_from_slice(&from.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&(1u32 << 24).to_le_bytes());
        bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    }
    let run = |size: usize| {
        let mut found = Vec::new();
        let mut decoder = Decoder::new(stream, from, start).expect("a page's start before the start");
        let mut error = None;
        for piece in bytes.chunks(size.max(1)) {
            let result = decoder.feed(piece, |record| {
                if let Some(parts) = record.parts(major) {
                    let _ = Kind::of(major, record, &parts);
                }
                found.push(record.lsn);
                Flow::Continue
            });
            if let Err(why) = result {
                error = Some(why.to_string());
                break;
            }
        }
        (found, error, decoder.end())
    };
    assert_eq!(run(usize::from(*piece) + 1), run(usize::MAX));
    if let Ok(text) = std::str::from_utf8(&bytes) {
        let _ = (WalFile::parse(text, SegmentSize::DEFAULT), SegmentName::parse(text, SegmentSize::DEFAULT));
        let _ = TimelineHistory::parse(text);
    }
    // Bodies of records, without the CRC in the way.
    let header = pg_format::wal::RecordHeader::parse(&[0; 24]).expect("24 bytes");
    for rmgr in 0..8 {
        let header = pg_format::wal::RecordHeader { rmgr, info: *piece, ..header };
        let record = pg_format::wal::Record { lsn: from, end: from, timeline: 1, header, body: &bytes };
        if let Some(parts) = record.parts(major) {
            let _ = Kind::of(major, &record, &parts);
        }
    }
});
