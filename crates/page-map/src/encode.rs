//! The map as bytes. Where they are kept is decided by others.
//!
//! Version 1. Numbers are LEB128 (seven bits a byte, low ones first, no superfluous bytes) unless said otherwise; an optional number is a
//! byte, 0 or 1, and the number if it is 1.
//!
//! | field | |
//! |---|---|
//! | magic | `OXPM`, then the version, one byte |
//! | major version | number |
//! | system identifier | optional |
//! | start, end, records | numbers |
//! | record before the first, last record | optional each |
//! | timelines | count; each: timeline, LSN |
//! | reasons to read everything | count; each: LSN, kind (one byte), its fields |
//! | whole databases | count; each: tablespace, database; sorted |
//! | forks | count; each: tablespace, database, relation, fork (one byte: 0 main, 3 init), from (optional), chunks; sorted |
//! | chunks of a fork | count; each: number of the chunk (65,536 blocks), form (one byte), blocks; sorted |
//! | blocks, form 0 | count of runs; each: blocks since the end of the run before, length - 1 |
//! | blocks, form 1 | a bitmap of 8,192 bytes, lowest bit first; where runs would take more |
//! | check | CRC-32C of all before, four bytes, little-endian |
//!
//! The same map always gives the same bytes, and only those bytes are read as that map.

use model::Lsn;
use pg_format::{
    Major,
    wal::{Fork, Relation, SegmentSize, Stream},
};

use crate::{
    blocks::{BlockSet, CHUNK_BLOCKS},
    map::{FULL_READS_MAX, Limits, PageMap, TIMELINES_MAX},
    reason::{FullRead, Reason, TEXT_BYTES_MAX},
};

/// The version of the encoding that is written; older ones are read.
pub const VERSION: u8 = 1;
/// How large a map may become by being read, by its own count: bytes from elsewhere may promise more than they hold.
pub const DECODED_BYTES_MAX: usize = 256 << 20;

const MAGIC: &[u8; 4] = b"OXPM";
const BITMAP_BYTES: usize = CHUNK_BLOCKS as usize / 8;
const FORM_RUNS: u8 = 0;
const FORM_BITMAP: u8 = 1;

/// Bytes that are no page map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Something else.
    #[error("these bytes are no page map; hint: the object holds something else")]
    NotAMap,
    /// Written by a newer program.
    #[error(
        "the page map has version {0}, known is up to {VERSION}; hint: a newer oxpecker wrote it; without it, read everything"
    )]
    Version(u8),
    /// Damaged.
    #[error("the page map is damaged: {0}; hint: without it everything must be read, which is always safe")]
    Damaged(&'static str),
}

impl PageMap {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(64 + self.files.len() * 16);
        to.extend(MAGIC);
        to.push(VERSION);
        put(&mut to, u64::from(self.major.number()));
        put_option(&mut to, self.system_identifier);
        for number in [self.start.0, self.end.0, self.records] {
            put(&mut to, number);
        }
        put_option(&mut to, self.first_prev.map(|lsn| lsn.0));
        put_option(&mut to, self.last.map(|lsn| lsn.0));
        put(&mut to, self.timelines.len() as u64);
        for (timeline, from) in &self.timelines {
            put(&mut to, u64::from(*timeline));
            put(&mut to, from.0);
        }
        put(&mut to, self.full.len() as u64);
        for full in &self.full {
            put(&mut to, full.at.0);
            put_reason(&mut to, &full.reason);
        }
        put(&mut to, self.databases.len() as u64);
        for (tablespace, database) in &self.databases {
            put(&mut to, u64::from(*tablespace));
            put(&mut to, u64::from(*database));
        }
        put(&mut to, self.files.len() as u64);
        for ((relation, fork), file) in &self.files {
            for number in [relation.tablespace, relation.database, relation.number] {
                put(&mut to, u64::from(number));
            }
            to.push(if *fork == Fork::Init { 3 } else { 0 });
            put_option(&mut to, file.from.map(u64::from));
            put_blocks(&mut to, &file.blocks);
        }
        let crc = crc32c::crc32c(&to);
        to.extend(crc.to_le_bytes());
        to
    }

    /// Reads what [`PageMap::encode`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotAMap)?;
        let (version, _) = rest.split_first().ok_or(DecodeError::NotAMap)?;
        if *version != VERSION {
            return Err(DecodeError::Version(*version));
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::NotAMap)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Damaged("its checksum is wrong"));
        }
        let body = body.get(MAGIC.len() + 1..).ok_or(DecodeError::NotAMap)?;
        let map = read(&mut Reader(body)).ok_or(DecodeError::Damaged("a field makes no sense, or it is too large"))?;
        // Sorted, nothing twice, nothing superfluous: whatever is not as we would write it, we did not write.
        if map.encode() != bytes {
            return Err(DecodeError::Damaged("it is not in the one form that is written"));
        }
        Ok(map)
    }
}

fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(0x80 | (number & 0x7F) as u8);
        number >>= 7;
    }
    to.push((number & 0x7F) as u8);
}

fn put_option(to: &mut Vec<u8>, number: Option<u64>) {
    to.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put(to, number);
    }
}

fn put_reason(to: &mut Vec<u8>, reason: &Reason) {
    match reason {
        Reason::Gap { to: lsn } => {
            to.push(0);
            put(to, lsn.0);
        }
        Reason::Broken(why) => {
            to.push(1);
            put(to, why.len() as u64);
            to.extend(why.as_bytes());
        }
        Reason::WalLevelMinimal => to.push(2),
        Reason::Unknown { rmgr, info } => to.extend([3, *rmgr, *info]),
        Reason::Unreadable { rmgr, info } => to.extend([4, *rmgr, *info]),
        Reason::CustomRmgr(rmgr) => to.extend([5, *rmgr]),
        Reason::Memory => to.push(6),
        Reason::Timelines => to.push(7),
    }
}

fn put_blocks(to: &mut Vec<u8>, blocks: &BlockSet) {
    let chunks: Vec<_> = blocks.chunks().collect();
    put(to, chunks.len() as u64);
    for (number, blocks) in chunks {
        put(to, u64::from(number));
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for block in blocks.map(u32::from) {
            match runs.last_mut() {
                Some((first, len)) if *first + *len == block => *len += 1,
                _ => runs.push((block, 1)),
            }
        }
        let mut bytes = Vec::new();
        put(&mut bytes, runs.len() as u64);
        let mut end = 0;
        for (first, len) in &runs {
            put(&mut bytes, u64::from(first - end));
            put(&mut bytes, u64::from(len - 1));
            end = first + len;
        }
        if bytes.len() <= BITMAP_BYTES {
            to.push(FORM_RUNS);
            to.extend(bytes);
            continue;
        }
        let mut bitmap = vec![0; BITMAP_BYTES];
        for block in runs.iter().flat_map(|(first, len)| *first..first + len) {
            bitmap[block as usize / 8] |= 1 << (block % 8);
        }
        to.push(FORM_BITMAP);
        to.extend(bitmap);
    }
}

/// `None` for anything that makes no sense. Most of the form is judged by writing the result again.
fn read(from: &mut Reader<'_>) -> Option<PageMap> {
    let major = Major::from_number(u32::try_from(from.number()?).ok()?).ok()?;
    let system_identifier = from.option()?;
    // Neither size is in a map.
    let stream = Stream { major, segment_size: SegmentSize::DEFAULT, block_size: 8192, system_identifier };
    let start = Lsn(from.number()?);
    let mut map = PageMap::new(&stream, start);
    (map.end, map.records) = (Lsn(from.number()?), from.number()?);
    (map.first_prev, map.last) = (from.option()?.map(Lsn), from.option()?.map(Lsn));
    for _ in 0..from.count(TIMELINES_MAX)? {
        map.timelines.push((from.number32()?, Lsn(from.number()?)));
    }
    if map.end < map.start || !map.timelines.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
        return None;
    }
    for _ in 0..from.count(FULL_READS_MAX)? {
        let full = FullRead { at: Lsn(from.number()?), reason: read_reason(from)? };
        map.full.push(full);
    }
    let limits = Limits { memory_bytes: usize::MAX };
    for _ in 0..from.count(usize::MAX)? {
        map.whole_database(from.number32()?, from.number32()?, limits);
        (map.memory_bytes() <= DECODED_BYTES_MAX).then_some(())?;
    }
    for _ in 0..from.count(usize::MAX)? {
        read_file(from, &mut map)?;
    }
    from.0.is_empty().then_some(map)
}

fn read_file(from: &mut Reader<'_>, map: &mut PageMap) -> Option<()> {
    let relation = Relation { tablespace: from.number32()?, database: from.number32()?, number: from.number32()? };
    let fork = match from.byte()? {
        0 => Fork::Main,
        3 => Fork::Init,
        _ => return None,
    };
    let limit = match from.option()? {
        Some(block) => Some(u32::try_from(block).ok()?),
        None => None,
    };
    let (mut blocks, mut bytes, mut least) = (BlockSet::default(), map.memory_bytes(), 0u32);
    for _ in 0..from.count(CHUNK_BLOCKS as usize)? {
        let number = u32::from(u16::try_from(from.number()?).ok()?);
        // Each but once, or a few bytes could ask for a lot of work.
        (number >= least).then_some(())?;
        least = number + 1;
        let first = number << 16;
        match from.byte()? {
            FORM_RUNS => {
                let mut end = 0u32;
                for _ in 0..from.count(CHUNK_BLOCKS as usize)? {
                    let start = end.checked_add(from.number32()?)?;
                    end = start.checked_add(from.number32()?)?.checked_add(1)?;
                    (end <= CHUNK_BLOCKS).then_some(())?;
                    blocks.insert_run(first | start, end - start);
                }
            }
            FORM_BITMAP => {
                for (index, byte) in (0u32..).zip(from.take(BITMAP_BYTES)?) {
                    for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                        blocks.insert(first | (index * 8 + bit));
                    }
                }
            }
            _ => return None,
        }
        bytes = bytes.saturating_add(blocks.bytes_around(first));
        (bytes <= DECODED_BYTES_MAX).then_some(())?;
    }
    map.put(relation, fork, limit, blocks)?;
    (map.memory_bytes() <= DECODED_BYTES_MAX).then_some(())
}

fn read_reason(from: &mut Reader<'_>) -> Option<Reason> {
    Some(match from.byte()? {
        0 => Reason::Gap { to: Lsn(from.number()?) },
        1 => {
            let len = from.count(TEXT_BYTES_MAX)?;
            Reason::Broken(std::str::from_utf8(from.take(len)?).ok()?.to_owned())
        }
        2 => Reason::WalLevelMinimal,
        3 => Reason::Unknown { rmgr: from.byte()?, info: from.byte()? },
        4 => Reason::Unreadable { rmgr: from.byte()?, info: from.byte()? },
        5 => Reason::CustomRmgr(from.byte()?),
        6 => Reason::Memory,
        7 => Reason::Timelines,
        _ => return None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            (bits << shift >> shift == bits).then_some(())?;
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn number32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// How many things follow. Each takes a byte at least, so that no more than the bytes left are looked for.
    fn count(&mut self, max: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= max && count <= self.0.len()).then_some(count)
    }

    fn option(&mut self) -> Option<Option<u64>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(self.number()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
