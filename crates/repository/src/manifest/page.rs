//! Pages of entries.

use std::collections::HashMap;

use super::{META_MAX, NAME_MAX};
use crate::{
    frame::Identity,
    wire::{BadBytes, Bytes, Put, len_u32},
};

const MAGIC: [u8; 4] = *b"OXEP";
const VERSION: u32 = 1;
const TAG_ZERO: u8 = 0;
const TAG_FRAMES: u8 = 1;
/// A page is not cut before it has this many bytes of entries ...
const PAGE_MIN: usize = 8 << 10;
/// ... and always is when it has this many.
const PAGE_MAX: usize = 256 << 10;
/// Between the two it is cut behind one name in this many. Where pages are cut depends on names only, so that pages before and
/// behind a new or removed file stay the same.
const CUT_ONE_IN: u16 = 64;
/// The most runs of one entry. Together with [`PAGE_MAX`] and the bounds of names and opaque bytes it keeps a page within a frame.
pub(crate) const RUNS_MAX: usize = 64 << 10;
const RUN_LEN_MIN: usize = 9;
const ENTRY_LEN_MIN: usize = 2 + 4 + 8 + 4;

/// A run as it stands in a page: `P` says which pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawRun<P> {
    Zero {
        len: u64,
    },
    /// Frames of one pack, one after the other.
    Frames {
        pack: P,
        first: u32,
        count: u32,
    },
}

/// An entry with its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawEntry<P> {
    pub(crate) name: Vec<u8>,
    pub(crate) meta: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) runs: Vec<RawRun<P>>,
}

/// Where a page finds a pack: which of its tables, and which pack of it.
pub(crate) type InTable = (Identity, u32);

/// Collects entries, which must come in ascending order.
#[derive(Debug, Default)]
pub(crate) struct PageBuilder {
    tables: Vec<Identity>,
    packs: Vec<(u32, u32)>,
    pack_at: HashMap<InTable, u32>,
    body: Vec<u8>,
    entries: u32,
    first: Vec<u8>,
    cut: bool,
}

impl PageBuilder {
    pub(crate) fn push(&mut self, entry: &RawEntry<InTable>) {
        if self.entries == 0 {
            self.first.clone_from(&entry.name);
        }
        self.entries += 1;
        self.body.put_u16(u16::try_from(entry.name.len()).expect("names are bounded by NAME_MAX"));
        self.body.put(&entry.name);
        self.body.put_u32(len_u32(entry.meta.len()));
        self.body.put(&entry.meta);
        self.body.put_u64(entry.size);
        self.body.put_u32(len_u32(entry.runs.len()));
        for run in &entry.runs {
            match *run {
                RawRun::Zero { len } => {
                    self.body.put_u8(TAG_ZERO);
                    self.body.put_u64(len);
                }
                RawRun::Frames { pack, first, count } => {
                    let pack = self.local(pack);
                    self.body.put_u8(TAG_FRAMES);
                    for n in [pack, first, count] {
                        self.body.put_u32(n);
                    }
                }
            }
        }
        let hash = blake3::hash(&entry.name);
        let draw = u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
        self.cut = draw.is_multiple_of(CUT_ONE_IN);
    }

    fn local(&mut self, pack: InTable) -> u32 {
        let (tables, packs) = (&mut self.tables, &mut self.packs);
        *self.pack_at.entry(pack).or_insert_with(|| {
            let (table, index) = pack;
            let slot = tables.iter().position(|known| *known == table).unwrap_or_else(|| {
                tables.push(table);
                tables.len() - 1
            });
            packs.push((len_u32(slot), index));
            len_u32(packs.len() - 1)
        })
    }

    /// The page ends here.
    pub(crate) fn is_full(&self) -> bool {
        self.body.len() >= PAGE_MAX || self.tables.len() >= 1024 || (self.cut && self.body.len() >= PAGE_MIN)
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// The plain bytes and the first name.
    pub(crate) fn finish(self) -> (Vec<u8>, Vec<u8>) {
        let mut plain = Vec::with_capacity(32 + self.tables.len() * 32 + self.packs.len() * 8 + self.body.len());
        plain.put(&MAGIC);
        plain.put_u32(VERSION);
        plain.put_u32(len_u32(self.tables.len()));
        self.tables.iter().for_each(|table| plain.put(&table.0));
        plain.put_u32(len_u32(self.packs.len()));
        for (table, index) in self.packs {
            plain.put_u32(table);
            plain.put_u32(index);
        }
        plain.put_u32(self.entries);
        plain.put(&self.body);
        (plain, self.first)
    }
}

/// A page, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<RawEntry<InTable>>,
}

impl Page {
    pub(crate) fn parse(plain: &[u8]) -> Result<Self, BadBytes> {
        let mut bytes = Bytes::new(plain);
        bytes.magic(&MAGIC, "it is no page of entries")?;
        if bytes.u32()? != VERSION {
            return Err(BadBytes("it is a page of entries of an unknown version"));
        }
        let count = bytes.count(32)?;
        let tables: Vec<Identity> = (0..count).map(|_| bytes.array().map(Identity)).collect::<Result<_, _>>()?;
        let count = bytes.count(8)?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            let table = *tables.get(bytes.u32()? as usize).ok_or(BadBytes("a page names a table that it has not"))?;
            packs.push((table, bytes.u32()?));
        }
        let count = bytes.count(ENTRY_LEN_MIN)?;
        let mut entries: Vec<RawEntry<InTable>> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = parse_entry(&mut bytes, &packs)?;
            if entries.last().is_some_and(|last| last.name >= entry.name) {
                return Err(BadBytes("its entries are out of order"));
            }
            entries.push(entry);
        }
        bytes.end()?;
        Ok(Self { entries })
    }
}

fn parse_entry(bytes: &mut Bytes<'_>, packs: &[InTable]) -> Result<RawEntry<InTable>, BadBytes> {
    let name_len = usize::from(bytes.u16()?);
    let name = bytes.take(name_len)?.to_vec();
    let meta_len = bytes.count(1)?;
    let meta = bytes.take(meta_len)?.to_vec();
    if name_len > NAME_MAX || meta_len > META_MAX {
        return Err(BadBytes("an entry is too long"));
    }
    let size = bytes.u64()?;
    let count = bytes.count(RUN_LEN_MIN)?;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        runs.push(match bytes.u8()? {
            TAG_ZERO => RawRun::Zero { len: bytes.u64()? },
            TAG_FRAMES => {
                let pack = *packs.get(bytes.u32()? as usize).ok_or(BadBytes("a page names a pack that it has not"))?;
                RawRun::Frames { pack, first: bytes.u32()?, count: bytes.u32()? }
            }
            _ => return Err(BadBytes("an entry has content of a kind that this version does not know")),
        });
    }
    Ok(RawEntry { name, meta, size, runs })
}
