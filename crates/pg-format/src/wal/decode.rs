//! From the bytes of WAL to its records.
//!
//! Bytes are pushed in pieces of any size, in order: what reads a file, copies it, or receives it over the wire can check it on the way.

use model::Lsn;

use super::{
    LongPageHeader, PageHeader, Record, RecordHeader, SegmentSize, WalError,
    kind::{XLOG_OVERWRITE_CONTRECORD, XLOG_SWITCH, rmgr},
};
use crate::{Major, le};

/// The longest record that a server makes (`XLogRecordMaxSize`): 1020 MiB.
const RECORD_LEN_MAX: u32 = 1020 << 20;
/// How much of a record's body is kept until it is whole: 64 MiB. What the headers of its blocks say is in the first kilobyte; only the
/// record of a commit that drops millions of relations needs more, and logical messages, which nobody here reads. Of a longer one only
/// the first part is handed out ([`Record::is_cut`]), its CRC is checked over all of it.
pub const BODY_KEPT_MAX: usize = 64 << 20;
/// Records start at multiples of this.
const ALIGNMENT: u64 = 8;

/// Whose WAL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The server's version.
    pub major: Major,
    /// Bytes of a segment.
    pub segment_size: SegmentSize,
    /// Bytes of a WAL page; 8192 in all packages.
    pub block_size: u32,
    /// The cluster; `None` takes any.
    pub system_identifier: Option<u64>,
}

impl Stream {
    /// The WAL of the cluster with this control file.
    ///
    /// # Errors
    /// When its segments' size is none; the control file's parser has seen to that.
    pub fn of(control: &crate::ControlFile) -> Result<Self, super::BadSegmentSize> {
        Ok(Self {
            major: control.major,
            segment_size: SegmentSize::new(u64::from(control.wal_segment_size))?,
            block_size: control.wal_block_size,
            system_identifier: Some(control.system_identifier),
        })
    }

    const fn page_start(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.block_size as u64)
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More is wanted.
    Continue,
    /// Enough: the rest of the bytes was not looked at.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first record that is wanted.
    Before,
    /// The rest of a record that began before the first wanted one.
    SkipRest(u64),
    /// In a record, or between two.
    Record,
    /// Behind a segment switch: nothing of this segment matters any more.
    SkipSegment,
}

/// Makes records of pages. It checks every page header, every record's CRC, and that each record names the one before.
#[derive(Debug)]
pub struct Decoder {
    stream: Stream,
    start: Lsn,
    /// Where the next byte of input lies.
    at: Lsn,
    state: State,
    /// The header of the page at hand, as far as it is there.
    page_header: Vec<u8>,
    /// The timeline of the page at hand; zero before the first.
    timeline: u32,
    /// The record at hand, as far as it is there and kept.
    record: Vec<u8>,
    /// How many bytes of it are there.
    taken: u64,
    /// The CRC of its body, as far as it is there.
    body_crc: u32,
    /// How much of a body is kept: [`BODY_KEPT_MAX`].
    body_kept: usize,
    record_lsn: Lsn,
    record_timeline: u32,
    /// Where the last whole record starts.
    previous: Option<Lsn>,
    /// Where the last whole record ends.
    end: Lsn,
    /// The next record must stand for the unfinished one there.
    overwritten: Option<Lsn>,
}

impl Decoder {
    /// A decoder whose input begins with the byte at `from`, the start of a page (of a segment, say), and that is interested in records
    /// from `start` on. A record starts at `start`, or `start` is the start of a page: then the first that starts on or after it.
    ///
    /// # Errors
    /// When `from` is no page's start or lies behind `start`.
    pub fn new(stream: Stream, from: Lsn, start: Lsn) -> Result<Self, WalError> {
        Self::resume(stream, from, start, None)
    }

    /// As [`Decoder::new`], where the record before `start` is known: it starts at `previous`, and the first record must name it.
    ///
    /// # Errors
    /// As there.
    pub fn resume(stream: Stream, from: Lsn, start: Lsn, previous: Option<Lsn>) -> Result<Self, WalError> {
        // A block size of zero would be divided by.
        if stream.block_size < 1024 || stream.page_start(from) != from || from > start {
            return Err(WalError::Range { start: from, stop: start });
        }
        Ok(Self {
            stream,
            start,
            at: from,
            state: State::Before,
            page_header: Vec::with_capacity(LongPageHeader::LEN),
            timeline: 0,
            record: Vec::new(),
            taken: 0,
            body_crc: 0,
            body_kept: BODY_KEPT_MAX,
            record_lsn: start,
            record_timeline: 0,
            previous,
            end: start,
            overwritten: None,
        })
    }

    /// Where the next byte of input lies.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.at
    }

    /// Where the last whole record ends: WAL is whole from the start to here.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// The timeline of the page at hand; zero before the first.
    #[must_use]
    pub const fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Takes the next bytes and hands out every record that they complete.
    ///
    /// # Errors
    /// Where WAL does not go on as it must. The decoder is of no more use then, but [`Decoder::end`] still holds.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_record: impl FnMut(&Record<'_>) -> Flow) -> Result<Flow, WalError> {
        let page = u64::from(self.stream.block_size);
        while !bytes.is_empty() {
            if self.state == State::SkipSegment {
                let offset = self.stream.segment_size.offset_of(self.at);
                if offset != 0 {
                    self.skip(&mut bytes, self.stream.segment_size.bytes() - offset);
                    continue;
                }
                self.state = State::Record;
            }
            let in_page = self.at.0 % page;
            if in_page == 0 || !self.page_header.is_empty() {
                self.take_page_header(&mut bytes)?;
                continue;
            }
            let room = page - in_page;
            match self.state {
                State::Before if self.at < self.start => {
                    self.skip(&mut bytes, room.min(self.start.0 - self.at.0));
                }
                State::Before => self.state = State::Record,
                State::SkipRest(0) => self.state = State::Record,
                State::SkipRest(left) => {
                    let skipped = self.skip(&mut bytes, room.min(left));
                    self.state = State::SkipRest(left - skipped);
                }
                State::SkipSegment => {}
                State::Record if self.record.is_empty() && !self.at.0.is_multiple_of(ALIGNMENT) => {
                    self.skip(&mut bytes, ALIGNMENT - self.at.0 % ALIGNMENT);
                }
                State::Record => {
                    if self.take_record(&mut bytes, room)? && self.finish_record(&mut on_record)? == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Passes over at most `wanted` bytes; tells how many there were.
    fn skip(&mut self, bytes: &mut &[u8], wanted: u64) -> u64 {
        let count = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
        *bytes = &bytes[count..];
        self.at.0 = self.at.0.saturating_add(count as u64);
        count as u64
    }

    /// Moves at most `wanted` bytes of the input behind `to`.
    fn take(at: &mut Lsn, bytes: &mut &[u8], wanted: usize, to: &mut Vec<u8>) {
        let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
        to.extend_from_slice(taken);
        at.0 = at.0.saturating_add(taken.len() as u64);
        *bytes = rest;
    }

    fn take_page_header(&mut self, bytes: &mut &[u8]) -> Result<(), WalError> {
        let have = self.page_header.len();
        let wanted = PageHeader::parse(&self.page_header).map_or(PageHeader::LEN, |header| header.full_len());
        Self::take(&mut self.at, bytes, wanted - have, &mut self.page_header);
        let Some(header) = PageHeader::parse(&self.page_header) else { return Ok(()) };
        let page = Lsn(self.at.0 - self.page_header.len() as u64);
        if self.page_header.len() == PageHeader::LEN {
            let first_of_segment = self.stream.segment_size.offset_of(page) == 0;
            header.check(self.stream.major, page, first_of_segment)?;
        }
        if self.page_header.len() < header.full_len() {
            return Ok(());
        }
        if let Some(long) = LongPageHeader::parse(&self.page_header) {
            let Stream { system_identifier, segment_size, block_size, .. } = self.stream;
            long.check(page, system_identifier, segment_size, block_size)?;
        }
        self.page_header.clear();
        if header.timeline < self.timeline {
            let why = format!("it is of timeline {} after one of timeline {}", header.timeline, self.timeline);
            return Err(WalError::page(page, why));
        }
        self.timeline = header.timeline;
        self.join(page, &header)
    }

    /// Sees that the page goes on where the one before ended.
    fn join(&mut self, page: Lsn, header: &PageHeader) -> Result<(), WalError> {
        let remaining = u64::from(header.remaining);
        let expected = match self.state {
            State::Before => {
                if page == self.start && header.continues() {
                    self.state = State::SkipRest(remaining);
                }
                return Ok(());
            }
            State::SkipSegment => return Ok(()),
            State::SkipRest(_) if header.overwrites() => {
                self.state = State::Record;
                return Ok(());
            }
            State::SkipRest(left) => left,
            State::Record if self.record.is_empty() => 0,
            State::Record if header.overwrites() => {
                self.overwritten = Some(self.record_lsn);
                self.clear_record();
                return Ok(());
            }
            State::Record => {
                // Its first four bytes are there: records start at multiples of eight and so do pages.
                let total = le::u32(&self.record, 0).unwrap_or(0);
                u64::from(total).saturating_sub(self.taken)
            }
        };
        let found = if header.continues() { remaining } else { 0 };
        if found == expected {
            return Ok(());
        }
        let why = format!("it begins with {found} bytes of a record from before, expected are {expected}");
        Err(WalError::page(page, why))
    }

    /// Takes bytes of the record at hand; true when it is whole.
    fn take_record(&mut self, bytes: &mut &[u8], room: u64) -> Result<bool, WalError> {
        if self.record.is_empty() {
            (self.record_lsn, self.record_timeline) = (self.at, self.timeline);
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if self.record.len() < RecordHeader::LEN {
            let wanted = room.min(RecordHeader::LEN - self.record.len());
            Self::take(&mut self.at, bytes, wanted, &mut self.record);
            self.taken = self.record.len() as u64;
            if self.record.len() < RecordHeader::LEN {
                // What a server has not written is zero: said at once, or the end of WAL would be said of the next page.
                return match le::u32(&self.record, 0) {
                    Some(0) => Err(WalError::record(self.record_lsn, "its length is 0")),
                    _ => Ok(false),
                };
            }
            return self.check_header();
        }
        let Some(header) = RecordHeader::parse(&self.record) else { return Ok(false) };
        let left = u64::from(header.total_len).saturating_sub(self.taken);
        let count = room.min(usize::try_from(left).unwrap_or(usize::MAX)).min(bytes.len());
        let (taken, rest) = bytes.split_at(count);
        self.body_crc = crc32c::crc32c_append(self.body_crc, taken);
        let room = (RecordHeader::LEN + self.body_kept).saturating_sub(self.record.len());
        self.record.extend_from_slice(&taken[..count.min(room)]);
        (self.taken, self.at.0) = (self.taken + count as u64, self.at.0.saturating_add(count as u64));
        *bytes = rest;
        Ok(self.taken == u64::from(header.total_len))
    }

    /// Checks a record's header, now that it is there; true when there is nothing else to the record.
    fn check_header(&self) -> Result<bool, WalError> {
        let Some(header) = RecordHeader::parse(&self.record) else { return Ok(false) };
        let fail = |why: String| Err(WalError::record(self.record_lsn, why));
        let total = header.total_len;
        if usize::try_from(total).unwrap_or(usize::MAX) < RecordHeader::LEN || total > RECORD_LEN_MAX {
            return fail(format!("its length is {total}"));
        }
        if let Some(previous) = self.previous.filter(|previous| *previous != header.prev) {
            return fail(format!("it names {} as the record before it, which is at {previous}", header.prev));
        }
        if header.prev >= self.record_lsn {
            return fail(format!("it names {} as the record before it", header.prev));
        }
        Ok(usize::try_from(total).ok() == Some(RecordHeader::LEN))
    }

    fn clear_record(&mut self) {
        self.record.clear();
        (self.taken, self.body_crc) = (0, 0);
    }

    fn finish_record(&mut self, on_record: &mut impl FnMut(&Record<'_>) -> Flow) -> Result<Flow, WalError> {
        let lsn = self.record_lsn;
        let (header, body) = match RecordHeader::parse(&self.record) {
            Some(header) => (header, &self.record[RecordHeader::LEN..]),
            None => return Err(WalError::record(lsn, "it is shorter than its header")),
        };
        let crc = crc32c::crc32c_append(self.body_crc, &self.record[..RecordHeader::CRC_COVERS]);
        if crc != header.crc {
            return Err(WalError::record(lsn, format!("its CRC is {:08x}, computed is {crc:08x}", header.crc)));
        }
        let of_wal = header.rmgr == rmgr::XLOG;
        if let Some(overwritten) = self.overwritten.take() {
            let names = (of_wal && header.info & 0xF0 == XLOG_OVERWRITE_CONTRECORD)
                .then(|| super::Record { lsn, end: lsn, timeline: 0, header, body }.parts(self.stream.major))
                .flatten()
                .and_then(|parts| le::u64(parts.main, 0));
            if names != Some(overwritten.0) {
                return Err(WalError::record(
                    lsn,
                    format!("it does not stand for the unfinished one at {overwritten}"),
                ));
            }
        }
        let switch = of_wal && header.info & 0xF0 == XLOG_SWITCH;
        let mut end = Lsn(self.at.0.next_multiple_of(ALIGNMENT));
        if switch {
            self.state = State::SkipSegment;
            end = Lsn(end.0.next_multiple_of(self.stream.segment_size.bytes()));
        }
        let flow = on_record(&Record { lsn, end, timeline: self.record_timeline, header, body });
        self.clear_record();
        (self.previous, self.end) = (Some(lsn), end);
        Ok(flow)
    }
}
