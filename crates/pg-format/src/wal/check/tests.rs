use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Major,
    wal::{SegmentSize, testing::WalWriter},
};

const STREAM: Stream = Stream { major: Major::V16, segment_size: MIB, block_size: 8192, system_identifier: Some(77) };
const MIB: SegmentSize = match SegmentSize::new(1 << 20) {
    Ok(size) => size,
    Err(_) => panic!(),
};

/// As [`WalWriter`], of this stream, with records that have main data only.
struct Writer(WalWriter);

impl std::ops::Deref for Writer {
    type Target = WalWriter;

    fn deref(&self) -> &WalWriter {
        &self.0
    }
}

impl std::ops::DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut WalWriter {
        &mut self.0
    }
}

impl Writer {
    fn new(origin: u64) -> Self {
        Self(WalWriter::new(STREAM, origin))
    }

    /// Returns where it starts and ends.
    fn record(&mut self, rmgr: u8, info: u8, main: &[u8]) -> (Lsn, Lsn) {
        let mut body = vec![254];
        body.extend(u32::try_from(main.len()).unwrap().to_le_bytes());
        body.extend(main);
        self.0.record(rmgr, info, &body)
    }
}

fn lsns(bytes: &[u8], origin: u64, start: Lsn, pieces: usize) -> Result<Vec<Lsn>, WalError> {
    let mut found = Vec::new();
    let mut decoder = Decoder::new(STREAM, Lsn(origin), start)?;
    for piece in bytes.chunks(pieces) {
        decoder.feed(piece, |record| {
            found.push(record.lsn);
            Flow::Continue
        })?;
    }
    Ok(found)
}

#[test]
fn records_come_back_whatever_the_pieces() {
    let mut writer = Writer::new(0x30_0000);
    let mut expected = Vec::new();
    for index in 0..400usize {
        expected.push(writer.record(10, 0, &vec![7; index * 37 % 20_000]).0);
    }
    expected.push(writer.switch().0);
    let (last, end) = writer.record(10, 0, b"behind the switch");
    expected.push(last);
    let start = expected[0];
    for pieces in [1, 7, 24, 8192, 8193, 1 << 20] {
        assert_eq!(lsns(&writer.bytes, 0x30_0000, start, pieces).unwrap(), expected, "{pieces}");
    }
    let segments: BTreeMap<u64, &[u8]> = (3..).zip(writer.bytes.chunks(1 << 20)).collect();
    let open =
        |name: SegmentName| segments.get(&name.number).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    let report = check_range(&STREAM, 1, start, end, open, |_| {}).unwrap();
    assert_eq!((report.records, report.end, report.timelines), (402, end, vec![(1, start)]));
    // Starting at a page's start finds the first record that begins on it.
    let page = Lsn(0x30_0000 + 8192);
    let from_page = lsns(&writer.bytes[8192..], page.0, page, 8192).unwrap();
    assert_eq!(from_page, expected.iter().copied().filter(|lsn| *lsn >= page).collect::<Vec<_>>());
}

#[test]
fn a_missing_piece_is_named() {
    let mut writer = Writer::new(0x30_0000);
    let (start, _) = writer.record(10, 0, b"first");
    let mut ends = Vec::new();
    while writer.bytes.len() < 5 << 19 {
        ends.push(writer.record(10, 0, &[9; 5000]).1);
    }
    let stop = *ends.last().unwrap();
    let check = |bytes: &[u8]| {
        let mut check = RangeCheck::new(STREAM, Lsn(0x30_0000), start, stop)?;
        check.feed(bytes, |_| {})?;
        check.finish()
    };
    assert_eq!(check(&writer.bytes).unwrap().end, stop);
    let cut = check(&writer.bytes[..writer.bytes.len() - 1]).unwrap_err();
    assert!(matches!(cut, WalError::Incomplete { end, wanted } if end == ends[ends.len() - 2] && wanted == stop));
    // A page of zeros, a page of an earlier round (a recycled segment), a page that was swapped.
    for damage in [vec![0; 8192], writer.bytes[..8192].to_vec()] {
        let mut bytes = writer.bytes.clone();
        bytes[8192 * 9..8192 * 10].copy_from_slice(&damage);
        assert!(matches!(check(&bytes), Err(WalError::Page { at: Lsn(0x31_2000), .. })));
    }
    let next = check_range(
        &STREAM,
        1,
        start,
        stop,
        |name| if name.number == 3 { Ok(&writer.bytes[..1 << 20]) } else { Err(io::ErrorKind::NotFound.into()) },
        |_| {},
    );
    assert!(matches!(next, Err(WalError::Read { name, .. }) if name == "000000010000000000000004"));
    assert!(matches!(RangeCheck::new(STREAM, Lsn(0x30_0000), stop, start), Err(WalError::Range { .. })));
}

#[test]
fn an_unfinished_record_is_replaced() {
    let mut writer = Writer::new(0x30_0000);
    let (start, _) = writer.record(10, 0, &[1; 8000]);
    let previous = writer.previous;
    let (aborted, _) = writer.record(10, 0, &[2; 9000]);
    // The crash: nothing of it but its part on the first page was written.
    writer.bytes.truncate(8192);
    writer.page_header(8, 0);
    writer.previous = previous;
    let (replacement, _) = writer.record(0, 0xD0, &aborted.0.to_le_bytes());
    assert_eq!(lsns(&writer.bytes, 0x30_0000, start, 100).unwrap(), [start, replacement]);
    writer.bytes.truncate(8192);
    writer.page_header(8, 0);
    writer.previous = previous;
    writer.record(0, 0xD0, &start.0.to_le_bytes());
    assert!(lsns(&writer.bytes, 0x30_0000, start, 100).is_err());
}

#[test]
fn timelines_only_rise() {
    let mut writer = Writer::new(0x30_0000);
    let (start, _) = writer.record(10, 0, &[1; 8000]);
    writer.timeline = 2;
    let (_, end) = writer.record(10, 0, &[1; 8000]);
    let (third, end_of_third) = writer.record(10, 0, &[1; 8000]);
    let mut check = RangeCheck::new(STREAM, Lsn(0x30_0000), start, end_of_third).unwrap();
    check.feed(&writer.bytes, |_| {}).unwrap();
    assert_eq!(check.finish().unwrap().timelines, [(1, start), (2, third)]);
    assert!(end <= third);
    writer.timeline = 1;
    writer.record(10, 0, &[1; 9000]);
    assert!(matches!(lsns(&writer.bytes, 0x30_0000, start, 100), Err(WalError::Page { .. })));
}

proptest! {
    #[test]
    fn every_flipped_bit_is_found(at in 0usize..60_000, bit in 0u8..8) {
        let mut writer = Writer::new(0x30_0000);
        let (start, _) = writer.record(10, 0, b"first");
        let mut stop = start;
        while writer.bytes.len() < 60_000 {
            stop = writer.record(10, 0, &[9; 3000]).1;
        }
        let sound = writer.bytes.clone();
        writer.bytes[at] ^= 1 << bit;
        let mut check = RangeCheck::new(STREAM, Lsn(0x30_0000), start, stop).unwrap();
        let mut count = 0;
        let whole = check.feed(&writer.bytes, |_| count += 1).is_ok() && check.is_whole();
        // Padding, unused bytes of headers, the flag that concerns archivers, and a page's timeline that rises pass.
        if whole {
            let page = at % 8192;
            let header = if at < 8192 { 40 } else { 24 };
            let in_header = page < header;
            let padding = sound[at] == 0;
            prop_assert!(in_header || padding, "{at} {bit}");
        }
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), start in 0u64..9000) {
        let _ = lsns(&bytes, 0, Lsn(start), 1000);
    }

    #[test]
    fn nothing_panics_behind_a_good_header(mut bytes in proptest::collection::vec(any::<u8>(), 40..9_000)) {
        let mut writer = Writer::new(0x30_0000);
        writer.page_header(0, 0);
        bytes[..40].copy_from_slice(&writer.bytes);
        // A length that fits more often than chance would have it.
        if bytes.len() > 48 {
            bytes[42] = 0;
            bytes[43] = 0;
        }
        let _ = lsns(&bytes, 0x30_0000, Lsn(0x30_0028), 1000);
    }
}
