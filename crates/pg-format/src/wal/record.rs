//! Records: the header, and the parts of the body.

use model::Lsn;

use crate::{Major, le};

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record, this header included, page headers between not.
    pub total_len: u32,
    /// The transaction; zero for none.
    pub xid: u32,
    /// Where the record before starts.
    pub prev: Lsn,
    /// What it is, in the upper four bits, for the resource manager; the lower ones are WAL's own.
    pub info: u8,
    /// The resource manager.
    pub rmgr: u8,
    /// CRC-32C over the body, then the header up to here.
    pub crc: u32,
}

impl RecordHeader {
    /// Its length.
    pub const LEN: usize = 24;
    /// How many of its bytes the CRC covers.
    pub(super) const CRC_COVERS: usize = 20;

    /// Reads one; `None` when there are too few bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            total_len: le::u32(bytes, 0)?,
            xid: le::u32(bytes, 4)?,
            prev: Lsn(le::u64(bytes, 8)?),
            info: le::u8(bytes, 16)?,
            rmgr: le::u8(bytes, 17)?,
            crc: le::u32(bytes, 20)?,
        })
    }
}

/// A whole record, its CRC checked.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// Where the next one may start: behind it, aligned; after a segment switch the next segment's start.
    pub end: Lsn,
    /// The timeline of the page that it starts on.
    pub timeline: u32,
    /// The header.
    pub header: RecordHeader,
    /// What follows the header; of a long one only the first [`super::BODY_KEPT_MAX`] bytes.
    pub body: &'a [u8],
}

impl Record<'_> {
    /// Whether `body` is only the first part.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        (self.body.len() as u64) < (self.header.total_len as u64).saturating_sub(RecordHeader::LEN as u64)
    }
}

/// The number of a relation's fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map, `_fsm`.
    FreeSpaceMap,
    /// The visibility map, `_vm`.
    VisibilityMap,
    /// What an unlogged relation is reset to, `_init`.
    Init,
}

impl Fork {
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Main),
            1 => Some(Self::FreeSpaceMap),
            2 => Some(Self::VisibilityMap),
            3 => Some(Self::Init),
            _ => None,
        }
    }
}

/// Which relation, by its place on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// The tablespace's oid.
    pub tablespace: u32,
    /// The database's oid; zero for shared relations.
    pub database: u32,
    /// The number in the file's name.
    pub number: u32,
}

/// A full page image in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Whether replay writes it; else it is there for checks only.
    pub apply: bool,
    /// How it is compressed.
    pub compression: Compression,
    /// Where the page has a stretch of zeros that was left out; zero for none.
    pub hole_offset: u16,
    /// How long that stretch is, where the record says so: of an image that is not compressed it is what is missing to a page.
    pub hole_len: Option<u16>,
    /// Its bytes, without the hole.
    pub bytes: &'a [u8],
}

/// How an image is compressed (`wal_compression`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// PostgreSQL's own; all that 13 and 14 have.
    Pglz,
    /// LZ4, from 15 on.
    Lz4,
    /// Zstandard, from 15 on.
    Zstd,
    /// By a method that is not known.
    Unknown,
}

/// A block that a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef<'a> {
    /// Its number in the record.
    pub id: u8,
    /// The relation.
    pub relation: Relation,
    /// The fork.
    pub fork: Fork,
    /// The block, counted over all segment files.
    pub block: u32,
    /// Whether replay initialises the page.
    pub will_init: bool,
    /// Its full image, if there.
    pub image: Option<Image<'a>>,
    /// What the resource manager stored for it.
    pub data: &'a [u8],
}

/// The parts of a record's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordParts<'a> {
    /// The blocks, in rising order of their ids; at most 33.
    pub blocks: Vec<BlockRef<'a>>,
    /// What the resource manager stored for the record itself.
    pub main: &'a [u8],
    /// The replication origin, if there.
    pub origin: Option<u16>,
    /// The top-level transaction of a subtransaction, if there (from 14 on).
    pub top_xid: Option<u32>,
    /// Whether only the first part of the record is known ([`Record::is_cut`]): the blocks are all there, their bytes and `main`
    /// may be missing, that is empty.
    pub cut: bool,
}

/// Highest id of a block in a record, `XLR_MAX_BLOCK_ID`.
const MAX_BLOCK_ID: u8 = 32;
const ID_SHORT: u8 = 255;
const ID_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOP_XID: u8 = 252;

const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_RELATION: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;

/// What an image's flags say: whether replay writes it, and how it is compressed. 15 moved the bits.
const fn image_flags(major: Major, flags: u8) -> (bool, Compression) {
    match major {
        Major::V13 | Major::V14 => {
            (flags & 0x04 != 0, if flags & 0x02 == 0 { Compression::None } else { Compression::Pglz })
        }
        Major::V15 | Major::V16 | Major::V17 | Major::V18 => {
            let compression = match flags & 0x1C {
                0x00 => Compression::None,
                0x04 => Compression::Pglz,
                0x08 => Compression::Lz4,
                0x10 => Compression::Zstd,
                _ => Compression::Unknown,
            };
            (flags & 0x02 != 0, compression)
        }
    }
}

/// A block's header before its bytes are cut out.
struct Pending {
    id: u8,
    relation: Relation,
    fork: Fork,
    block: u32,
    will_init: bool,
    /// Without its bytes, and how many those are.
    image: Option<(Image<'static>, usize)>,
    data_len: usize,
}

impl<'a> Record<'a> {
    /// Takes the body apart; `None` when it is none (the CRC fits, so that only a bug, a forgery or an unknown version has that).
    #[must_use]
    pub fn parts(&self, major: Major) -> Option<RecordParts<'a>> {
        let total = (self.header.total_len as usize).saturating_sub(RecordHeader::LEN);
        parts(self.body, total.saturating_sub(self.body.len()), major)
    }
}

/// `missing`: how many bytes of the body were not kept.
fn parts(body: &[u8], missing: usize, major: Major) -> Option<RecordParts<'_>> {
    let mut parts = RecordParts { cut: missing > 0, ..RecordParts::default() };
    let mut pending: Vec<Pending> = Vec::new();
    let mut rest = Cursor(body);
    // The sum of all lengths that the headers announce; the headers end where just these are left.
    let mut announced = 0usize;
    let mut main_len = 0;
    while rest.0.len().checked_add(missing)? > announced {
        match rest.u8()? {
            ID_SHORT => main_len = usize::from(rest.u8()?),
            ID_LONG => main_len = usize::try_from(rest.u32()?).ok()?,
            ID_ORIGIN => {
                parts.origin = Some(rest.u16()?);
                continue;
            }
            ID_TOP_XID => {
                parts.top_xid = Some(rest.u32()?);
                continue;
            }
            id if id <= MAX_BLOCK_ID && pending.last().is_none_or(|last| last.id < id) => {
                let block = block_header(id, &mut rest, pending.last().map(|last| last.relation), major)?;
                announced =
                    announced.checked_add(block.data_len)?.checked_add(block.image.map_or(0, |(_, len)| len))?;
                pending.push(block);
                continue;
            }
            _ => return None,
        }
        // The main data's header is always the last.
        announced = announced.checked_add(main_len)?;
        break;
    }
    if rest.0.len().checked_add(missing)? != announced {
        return None;
    }
    for block in pending {
        let Pending { id, relation, fork, block: number, will_init, image, data_len } = block;
        let image = match image {
            Some((image, len)) => Some(Image { bytes: rest.take_kept(len, missing > 0)?, ..image }),
            None => None,
        };
        let data = rest.take_kept(data_len, missing > 0)?;
        parts.blocks.push(BlockRef { id, relation, fork, block: number, will_init, image, data });
    }
    parts.main = rest.take_kept(main_len, missing > 0)?;
    Some(parts)
}

fn block_header(id: u8, rest: &mut Cursor<'_>, last: Option<Relation>, major: Major) -> Option<Pending> {
    let flags = rest.u8()?;
    let data_len = usize::from(rest.u16()?);
    if (flags & HAS_DATA == 0) != (data_len == 0) {
        return None;
    }
    let image = if flags & HAS_IMAGE == 0 {
        None
    } else {
        let (len, hole_offset, flags) = (rest.u16()?, rest.u16()?, rest.u8()?);
        let (apply, compression) = image_flags(major, flags);
        let has_hole_len = compression != Compression::None && flags & IMAGE_HAS_HOLE != 0;
        let hole_len = if has_hole_len { Some(rest.u16()?) } else { None };
        Some((Image { apply, compression, hole_offset, hole_len, bytes: &[] }, usize::from(len)))
    };
    let relation = if flags & SAME_RELATION == 0 {
        Relation { tablespace: rest.u32()?, database: rest.u32()?, number: rest.u32()? }
    } else {
        last?
    };
    let (fork, block, will_init) = (Fork::from_number(flags & FORK_MASK)?, rest.u32()?, flags & WILL_INIT != 0);
    Some(Pending { id, relation, fork, block, will_init, image, data_len })
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// As [`Cursor::take`]; of a cut record what is not there is empty, and so is all that follows.
    fn take_kept(&mut self, len: usize, cut: bool) -> Option<&'a [u8]> {
        if cut && len > self.0.len() {
            self.0 = &[];
            return Some(&[]);
        }
        self.take(len)
    }

    fn u8(&mut self) -> Option<u8> {
        le::u8(self.take(1)?, 0)
    }

    fn u16(&mut self) -> Option<u16> {
        le::u16(self.take(2)?, 0)
    }

    fn u32(&mut self) -> Option<u32> {
        le::u32(self.take(4)?, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_comes_apart() {
        let mut body = vec![0, HAS_IMAGE | HAS_DATA, 2, 0, 3, 0, 0, 0, 0x02];
        for number in [1663u32, 5, 16384, 7] {
            body.extend(number.to_le_bytes());
        }
        body.extend([1, SAME_RELATION | WILL_INIT | 2, 0, 0, 9, 0, 0, 0]);
        body.extend([ID_ORIGIN, 4, 0, ID_TOP_XID, 8, 0, 0, 0, ID_SHORT, 4]);
        body.extend(b"imgdamain");
        let parts = parts(&body, 0, Major::V16).unwrap();
        assert_eq!((parts.origin, parts.top_xid, parts.main), (Some(4), Some(8), &b"main"[..]));
        let relation = Relation { tablespace: 1663, database: 5, number: 16384 };
        let [first, second] = parts.blocks[..] else { panic!("two blocks") };
        assert_eq!((first.relation, first.block, first.data), (relation, 7, &b"da"[..]));
        assert_eq!(
            first.image,
            Some(Image { apply: true, compression: Compression::None, hole_offset: 0, hole_len: None, bytes: b"img" })
        );
        assert_eq!((second.relation, second.fork, second.block), (relation, Fork::VisibilityMap, 9));
        assert!(second.will_init && second.data.is_empty() && second.image.is_none());
        // In 14 the same flag says that it is compressed.
        let parts = super::parts(&body, 0, Major::V14).unwrap();
        assert_eq!(
            parts.blocks[0].image.map(|image| (image.apply, image.compression)),
            Some((false, Compression::Pglz))
        );
        for len in 0..body.len() {
            let _ = super::parts(&body[..len], 0, Major::V16);
        }
        assert_eq!(super::parts(&body[..body.len() - 1], 0, Major::V16), None);
    }

    #[test]
    fn of_a_cut_body_the_blocks_are_there() {
        let mut body = vec![0, HAS_DATA, 2, 0];
        for number in [1663u32, 5, 16384, 7] {
            body.extend(number.to_le_bytes());
        }
        body.extend([ID_LONG, 100, 0, 0, 0]);
        body.extend(b"da");
        let parts = parts(&body, 100, Major::V16).unwrap();
        assert!(parts.cut && parts.main.is_empty());
        assert_eq!((parts.blocks[0].block, parts.blocks[0].data), (7, &b"da"[..]));
        let parts = super::parts(&body[..body.len() - 1], 101, Major::V16).unwrap();
        assert_eq!((parts.blocks[0].block, parts.blocks[0].data), (7, &b""[..]));
        assert_eq!(super::parts(&body, 99, Major::V16), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..300), missing in 0usize..100, major in 0usize..6) {
            let _ = parts(&body, missing, Major::ALL[major]);
        }
    }
}
