//! Pages of relations (PostgreSQL's storage/bufpage.h) and what a backup may conclude from one.

mod checksum;

pub use checksum::checksum;
use model::Lsn;

use crate::le;

/// Length of the header that every page starts with, `SizeOfPageHeaderData`.
pub const HEADER_LEN: usize = 24;
/// The bits that `pd_flags` may have.
const FLAGS_KNOWN: u16 = 0x0007;

/// The header of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The end of the WAL record that last changed the page; zero where none did.
    pub lsn: Lsn,
    /// The stored checksum; zero where the cluster has none.
    pub checksum: u16,
    /// Flag bits.
    pub flags: u16,
    /// Offset to the start of free space.
    pub lower: u16,
    /// Offset to the end of free space; zero in a page that nobody has initialised.
    pub upper: u16,
    /// Offset to the start of the access method's own space.
    pub special: u16,
    /// Page size and layout version.
    pub size_and_version: u16,
}

impl Header {
    /// Reads the header; `None` when `page` is shorter than one.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<Self> {
        let page = page.get(..HEADER_LEN)?;
        Some(Self {
            // Two halves, the higher first: not a little-endian u64.
            lsn: Lsn(u64::from(le::u32(page, 0)?) << 32 | u64::from(le::u32(page, 4)?)),
            checksum: le::u16(page, 8)?,
            flags: le::u16(page, 10)?,
            lower: le::u16(page, 12)?,
            upper: le::u16(page, 14)?,
            special: le::u16(page, 16)?,
            size_and_version: le::u16(page, 18)?,
        })
    }

    /// What PostgreSQL itself demands of a header when it reads a page (`PageIsVerified`).
    #[must_use]
    pub fn is_plausible(&self, page_len: usize) -> bool {
        self.flags & !FLAGS_KNOWN == 0
            && self.lower <= self.upper
            && self.upper <= self.special
            && usize::from(self.special) <= page_len
            && self.special.is_multiple_of(8)
    }
}

/// What a page is judged against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Where the backup started. WAL repairs every page that was changed since.
    pub start: Lsn,
    /// The server's insert position (a standby's: replay position), asked for *after* the page was read: no sound page is newer.
    pub insert: Lsn,
    /// Whether the cluster has data checksums (`data_checksum_version` of the control file is not zero).
    pub checksums: bool,
}

/// What a page looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageVerdict {
    /// Header and checksum are in order.
    Good,
    /// All zero: allocated and never written, which is in order.
    Empty,
    /// Changed since the backup's start. Torn or not, replay of WAL writes it anew from a full image.
    Newer,
    /// Not in order, unless it was torn by a concurrent write: read again, some times and some time apart. Only when the bytes stay the
    /// same it is corrupt.
    Corrupt(Corruption),
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// The stored checksum is not that of the page.
    #[error("its checksum is {stored:04x}, computed is {computed:04x} (page LSN {lsn})")]
    Checksum {
        /// As stored.
        stored: u16,
        /// As it should be.
        computed: u16,
        /// The page's LSN.
        lsn: Lsn,
    },
    /// The page claims to come from WAL that does not exist yet.
    #[error("its LSN {lsn} is beyond the end of WAL at {insert}")]
    FromTheFuture {
        /// The page's LSN.
        lsn: Lsn,
        /// The end of WAL.
        insert: Lsn,
    },
    /// It says that it was never initialised, but is not all zero.
    #[error("its header is that of an empty page, its body is not zero")]
    NotInitialised,
    /// The header can't be one.
    #[error("its header is none (lower {lower}, upper {upper}, special {special}, flags {flags:#06x})")]
    Header {
        /// `pd_lower`.
        lower: u16,
        /// `pd_upper`.
        upper: u16,
        /// `pd_special`.
        special: u16,
        /// `pd_flags`.
        flags: u16,
    },
    /// A relation's file ends inside of a page.
    #[error("only {len} bytes of it are there")]
    Short {
        /// How many.
        len: usize,
    },
}

/// Judges block `block` (counted over all segment files of the relation's fork) of a relation that a backup has read.
#[must_use]
pub fn verify(page: &[u8], block: u32, bounds: &Bounds) -> PageVerdict {
    let Some(header) = Header::parse(page) else {
        return PageVerdict::Corrupt(Corruption::Short { len: page.len() });
    };
    if header.upper == 0 && is_zero(page) {
        return PageVerdict::Empty;
    }
    // Before the comparison with the start: garbage would pass for a new page.
    if header.lsn > bounds.insert {
        return PageVerdict::Corrupt(Corruption::FromTheFuture { lsn: header.lsn, insert: bounds.insert });
    }
    if header.lsn >= bounds.start {
        return PageVerdict::Newer;
    }
    if header.upper == 0 {
        return PageVerdict::Corrupt(Corruption::NotInitialised);
    }
    if bounds.checksums {
        let computed = checksum(page, block);
        if computed != header.checksum {
            let (stored, lsn) = (header.checksum, header.lsn);
            return PageVerdict::Corrupt(Corruption::Checksum { stored, computed, lsn });
        }
    }
    if !header.is_plausible(page.len()) {
        let Header { lower, upper, special, flags, .. } = header;
        return PageVerdict::Corrupt(Corruption::Header { lower, upper, special, flags });
    }
    PageVerdict::Good
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    // Without an early exit inside of a chunk, so that it becomes vector instructions.
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { start: Lsn(0x300), insert: Lsn(0x500), checksums: true };

    fn page(lsn: u64, block: u32) -> Vec<u8> {
        let mut page = vec![0x5A; 8192];
        page[..4].copy_from_slice(&u32::try_from(lsn >> 32).unwrap().to_le_bytes());
        page[4..8].copy_from_slice(&u32::try_from(lsn & 0xFFFF_FFFF).unwrap().to_le_bytes());
        page[10..24].fill(0);
        for (at, value) in [(12, 24u16), (14, 8192), (16, 8192), (18, 8192 | 4)] {
            page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn verdicts() {
        assert_eq!(verify(&page(0x200, 7), 7, &BOUNDS), PageVerdict::Good);
        assert_eq!(verify(&vec![0; 8192], 7, &BOUNDS), PageVerdict::Empty);
        let wrong_block = verify(&page(0x200, 7), 8, &BOUNDS);
        assert!(matches!(wrong_block, PageVerdict::Corrupt(Corruption::Checksum { lsn: Lsn(0x200), .. })));
        assert_eq!(verify(&page(0x200, 7), 8, &Bounds { checksums: false, ..BOUNDS }), PageVerdict::Good);
        let mut torn = page(0x300, 7);
        torn[5000] ^= 1;
        assert_eq!(verify(&torn, 7, &BOUNDS), PageVerdict::Newer);
        let garbage = Corruption::FromTheFuture { lsn: Lsn(0x501), insert: Lsn(0x500) };
        assert_eq!(verify(&page(0x501, 7), 7, &BOUNDS), PageVerdict::Corrupt(garbage));
        let mut body_only = vec![0; 8192];
        body_only[8191] = 1;
        assert_eq!(verify(&body_only, 7, &BOUNDS), PageVerdict::Corrupt(Corruption::NotInitialised));
        assert_eq!(verify(&[1; 23], 7, &BOUNDS), PageVerdict::Corrupt(Corruption::Short { len: 23 }));
        let mut header = page(0x200, 7);
        header[11] = 0x80;
        let verdict = verify(&header, 7, &Bounds { checksums: false, ..BOUNDS });
        assert!(matches!(verdict, PageVerdict::Corrupt(Corruption::Header { flags: 0x8000, .. })));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..9000), block: u32) {
            let _ = verify(&bytes, block, &BOUNDS);
        }

        #[test]
        fn the_stored_checksum_does_not_count_and_is_never_zero(block: u32, stored: u16, lsn in 0..0x300u64) {
            let mut page = page(lsn, block);
            let sum = checksum(&page, block);
            page[8..10].copy_from_slice(&stored.to_le_bytes());
            prop_assert_eq!(checksum(&page, block), sum);
            prop_assert_ne!(sum, 0);
        }
    }

    /// Sixteen bits of checksum can't tell all flips apart, PostgreSQL's no more than others: about one of 65,535 escapes. Which ones is a matter
    /// of the page, so this page's are counted, not drawn.
    #[test]
    fn a_flipped_bit_is_found_unless_the_checksum_collides() {
        let sound = page(0x200, 3);
        let escaped = (HEADER_LEN..sound.len()).filter(|at| {
            let mut page = sound.clone();
            page[*at] ^= 1 << (at % 8);
            let found = matches!(verify(&page, 3, &BOUNDS), PageVerdict::Corrupt(Corruption::Checksum { .. }));
            assert_eq!(found, checksum(&page, 3) != checksum(&sound, 3), "bit {} of byte {at}", at % 8);
            !found
        });
        assert!(escaped.count() <= 2);
    }
}
