//! Headers of WAL pages.

use model::Lsn;

use super::{SegmentSize, WalError};
use crate::{Major, le};

/// Flag: the page begins with the rest of a record.
const CONTINUES: u16 = 0x0001;
/// Flag: the header is the long one.
const LONG: u16 = 0x0002;
/// Flag: the page begins with a record that replaces an unfinished one (a crash in the midst of a record).
const OVERWRITES: u16 = 0x0008;
/// All flags; 0x0004 tells an archiver that backup blocks may be removed.
const KNOWN: u16 = 0x000F;

/// The header of every WAL page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// Tells the major version, see [`Major::from_wal_magic`].
    pub magic: u16,
    /// Flag bits.
    pub flags: u16,
    /// The timeline of the page's first record.
    pub timeline: u32,
    /// Where in WAL the page lies.
    pub address: Lsn,
    /// How many bytes of a record from earlier pages are still to come, those of this page included.
    pub remaining: u32,
}

/// What the first page of a segment says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPageHeader {
    /// The cluster.
    pub system_identifier: u64,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Bytes of a WAL page.
    pub block_size: u32,
}

impl PageHeader {
    /// Its length, padded.
    pub const LEN: usize = 24;

    /// Reads one; `None` when `page` is too short.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<Self> {
        let page = page.get(..Self::LEN)?;
        Some(Self {
            magic: le::u16(page, 0)?,
            flags: le::u16(page, 2)?,
            timeline: le::u32(page, 4)?,
            address: Lsn(le::u64(page, 8)?),
            remaining: le::u32(page, 16)?,
        })
    }

    /// Whether a [`LongPageHeader`] belongs to it.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        self.flags & LONG != 0
    }

    /// Whether the page begins with the rest of a record.
    #[must_use]
    pub const fn continues(&self) -> bool {
        self.flags & CONTINUES != 0
    }

    /// Whether the page's first record stands for an unfinished one before.
    #[must_use]
    pub const fn overwrites(&self) -> bool {
        self.flags & OVERWRITES != 0
    }

    /// How long the header is with the long part, if it has one.
    #[must_use]
    pub const fn full_len(&self) -> usize {
        if self.is_long() { LongPageHeader::LEN } else { Self::LEN }
    }

    /// Checks what the page at `at` must say. `first_of_segment`: it must have a long header, and others must not.
    pub(super) fn check(&self, major: Major, at: Lsn, first_of_segment: bool) -> Result<(), WalError> {
        let fail = |why: String| Err(WalError::page(at, why));
        if self.magic != major.wal_magic() {
            return match Major::from_wal_magic(self.magic) {
                Some(other) => fail(format!("it was written by PostgreSQL {other}, expected is {major}")),
                None => fail(format!("its magic number is {:04X}, expected is {:04X}", self.magic, major.wal_magic())),
            };
        }
        if self.flags & !KNOWN != 0 {
            return fail(format!("its flags are {:#06x}", self.flags));
        }
        if self.address != at {
            return fail(format!("it says that it is the page at {}", self.address));
        }
        if self.is_long() != first_of_segment {
            let which = if first_of_segment { "lacks" } else { "has" };
            return fail(format!("it {which} the header of a segment's first page"));
        }
        Ok(())
    }
}

impl LongPageHeader {
    /// Length of the whole header, the short part included.
    pub const LEN: usize = 40;

    /// Reads the long part of the header at the start of `page`; `None` when it is too short or the page has none.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<Self> {
        let page = page.get(..Self::LEN)?;
        PageHeader::parse(page)?.is_long().then_some(())?;
        Some(Self {
            system_identifier: le::u64(page, 24)?,
            segment_size: le::u32(page, 32)?,
            block_size: le::u32(page, 36)?,
        })
    }

    pub(super) fn check(
        &self,
        at: Lsn,
        system_identifier: Option<u64>,
        segment_size: SegmentSize,
        block_size: u32,
    ) -> Result<(), WalError> {
        if let Some(expected) = system_identifier.filter(|expected| *expected != self.system_identifier) {
            let why = format!("it belongs to the cluster {}, expected is {expected}", self.system_identifier);
            return Err(WalError::page(at, why));
        }
        if u64::from(self.segment_size) != segment_size.bytes() || self.block_size != block_size {
            let (segment, block) = (self.segment_size, self.block_size);
            return Err(WalError::page(at, format!("its segments have {segment} bytes, its pages {block}")));
        }
        Ok(())
    }
}
