//! The root of a manifest.

use super::NAME_MAX;
use crate::{
    pack::{Locator, PACK_FRAMES_MAX},
    wire::{BadBytes, Bytes, Put, len_u32},
};

const MAGIC: [u8; 4] = *b"OXRT";
const VERSION: u32 = 1;
/// Features that a reader must know or refuse. None so far; overlays of pages will be the first.
const FEATURES: u32 = 0;
const TABLE_LEN_MIN: usize = Locator::LEN + 4;
const PAGE_LEN_MIN: usize = Locator::LEN + 4 + 2;

/// A frame of tables of packs, and which of its packs the backup uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRef {
    pub(crate) place: Locator,
    /// One for each of its packs.
    pub(crate) used: Vec<bool>,
}

/// A page of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) place: Locator,
    pub(crate) entries: u32,
    /// The name of its first entry.
    pub(crate) first: Vec<u8>,
}

/// A manifest's root: small, and enough to find everything else.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Root {
    pub(crate) entries: u64,
    /// What all entries' sizes add up to.
    pub(crate) content_bytes: u64,
    pub(crate) tables: Vec<TableRef>,
    pub(crate) pages: Vec<PageRef>,
}

impl Root {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put(&MAGIC);
        plain.put_u32(VERSION);
        plain.put_u32(FEATURES);
        plain.put_u64(self.entries);
        plain.put_u64(self.content_bytes);
        plain.put_u32(len_u32(self.tables.len()));
        for table in &self.tables {
            table.place.put(&mut plain);
            plain.put_u32(len_u32(table.used.len()));
            for eight in table.used.chunks(8) {
                plain.put_u8(eight.iter().enumerate().fold(0, |byte, (bit, used)| byte | u8::from(*used) << bit));
            }
        }
        plain.put_u32(len_u32(self.pages.len()));
        for page in &self.pages {
            page.place.put(&mut plain);
            plain.put_u32(page.entries);
            plain.put_u16(u16::try_from(page.first.len()).expect("names are bounded by NAME_MAX"));
            plain.put(&page.first);
        }
        plain
    }

    pub(crate) fn parse(plain: &[u8]) -> Result<Self, BadBytes> {
        let mut bytes = Bytes::new(plain);
        bytes.magic(&MAGIC, "it is no root of a manifest")?;
        if bytes.u32()? != VERSION {
            return Err(BadBytes("it is a manifest of an unknown version"));
        }
        if bytes.u32()? != FEATURES {
            return Err(BadBytes("it is a manifest with features that this version does not know"));
        }
        let (entries, content_bytes) = (bytes.u64()?, bytes.u64()?);
        let count = bytes.count(TABLE_LEN_MIN)?;
        let tables = (0..count).map(|_| parse_table(&mut bytes)).collect::<Result<_, _>>()?;
        let count = bytes.count(PAGE_LEN_MIN)?;
        let pages: Vec<PageRef> = (0..count).map(|_| parse_page(&mut bytes)).collect::<Result<_, _>>()?;
        bytes.end()?;
        if !pages.is_sorted_by(|a, b| a.first < b.first) {
            return Err(BadBytes("its pages are out of order"));
        }
        if pages.iter().map(|page| u64::from(page.entries)).sum::<u64>() != entries {
            return Err(BadBytes("its pages do not add up"));
        }
        Ok(Self { entries, content_bytes, tables, pages })
    }
}

fn parse_table(bytes: &mut Bytes<'_>) -> Result<TableRef, BadBytes> {
    let place = Locator::parse(bytes)?;
    let count = bytes.u32()? as usize;
    // A frame of tables is far smaller than this bound; it only keeps the next line from allocating at a stranger's word.
    if count > PACK_FRAMES_MAX * 16 {
        return Err(BadBytes("it names too many packs"));
    }
    let bits = bytes.take(count.div_ceil(8))?;
    let used = (0..count).map(|at| bits[at / 8] >> (at % 8) & 1 == 1).collect();
    Ok(TableRef { place, used })
}

fn parse_page(bytes: &mut Bytes<'_>) -> Result<PageRef, BadBytes> {
    let (place, entries) = (Locator::parse(bytes)?, bytes.u32()?);
    let len = usize::from(bytes.u16()?);
    if len > NAME_MAX {
        return Err(BadBytes("a name is too long"));
    }
    Ok(PageRef { place, entries, first: bytes.take(len)?.to_vec() })
}
