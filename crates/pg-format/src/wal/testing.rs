//! A writer of WAL for tests: what a server would write, of records that a test makes up.

use model::Lsn;

use super::{Fork, RecordHeader, Relation, Stream};

/// Writes WAL as a server does.
#[derive(Clone, Debug)]
pub struct WalWriter {
    /// What was written.
    pub bytes: Vec<u8>,
    /// Where the record before starts; the next one names it.
    pub previous: u64,
    /// The timeline of the pages to come.
    pub timeline: u32,
    stream: Stream,
    origin: u64,
}

/// The body of a record: its blocks, then its main data.
#[must_use]
pub fn body(blocks: &[(Relation, Fork, u32)], main: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (id, (relation, fork, block)) in (0u8..).zip(blocks) {
        let fork = match fork {
            Fork::Main => 0,
            Fork::FreeSpaceMap => 1,
            Fork::VisibilityMap => 2,
            Fork::Init => 3,
        };
        body.extend([id, fork, 0, 0]);
        for number in [relation.tablespace, relation.database, relation.number, *block] {
            body.extend(number.to_le_bytes());
        }
    }
    if !main.is_empty() {
        body.push(254);
        body.extend(u32::try_from(main.len()).unwrap_or(u32::MAX).to_le_bytes());
        body.extend(main);
    }
    body
}

impl WalWriter {
    /// A writer whose first byte lies at `origin`, the start of a page.
    #[must_use]
    pub const fn new(stream: Stream, origin: u64) -> Self {
        Self { bytes: Vec::new(), previous: 1, timeline: 1, stream, origin }
    }

    /// Where the next byte goes.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.origin + self.bytes.len() as u64
    }

    /// Writes a page's header with these flags besides those that its place asks for.
    pub fn page_header(&mut self, flags: u16, remaining: usize) {
        let at = self.at();
        let long = at.is_multiple_of(self.stream.segment_size.bytes());
        self.bytes.extend(self.stream.major.wal_magic().to_le_bytes());
        self.bytes.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend((remaining as u64).to_le_bytes());
        if long {
            self.bytes.extend(self.stream.system_identifier.unwrap_or_default().to_le_bytes());
            let [a, b, c, d, ..] = self.stream.segment_size.bytes().to_le_bytes();
            self.bytes.extend([a, b, c, d]);
            self.bytes.extend(self.stream.block_size.to_le_bytes());
        }
    }

    /// Writes a record; returns where it starts and where the next may.
    pub fn record(&mut self, rmgr: u8, info: u8, body: &[u8]) -> (Lsn, Lsn) {
        let page = u64::from(self.stream.block_size);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        if self.at().is_multiple_of(page) {
            self.page_header(0, 0);
        }
        let lsn = self.at();
        let mut record = u32::try_from(RecordHeader::LEN + body.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        record.extend(0u32.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        self.previous = lsn;
        self.write(&record);
        (Lsn(lsn), Lsn(self.at().next_multiple_of(8)))
    }

    fn write(&mut self, mut record: &[u8]) {
        let page = u64::from(self.stream.block_size);
        loop {
            let room = usize::try_from(page - self.at() % page).unwrap_or(usize::MAX);
            let (taken, rest) = record.split_at(room.min(record.len()));
            self.bytes.extend(taken);
            record = rest;
            if record.is_empty() {
                return;
            }
            self.page_header(1, record.len());
        }
    }

    /// Writes a segment switch and what is left of the segment.
    pub fn switch(&mut self) -> (Lsn, Lsn) {
        let (lsn, _) = self.record(0, 0x40, &[]);
        let end = self.at().next_multiple_of(self.stream.segment_size.bytes());
        self.bytes.resize(usize::try_from(end - self.origin).unwrap_or(usize::MAX), 0);
        (lsn, Lsn(end))
    }
}
