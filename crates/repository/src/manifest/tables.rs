//! Tables of packs: one frame with the tables of many packs, in the order in which a session wrote them.

use crate::{
    pack::PackTable,
    wire::{BadBytes, Bytes, Put, len_u32},
};

const MAGIC: [u8; 4] = *b"OXTB";
const VERSION: u32 = 1;
/// A frame of tables is closed once it has this many bytes: what a reader holds for a part of the backup.
pub(crate) const TABLES_TARGET: usize = 256 << 10;
const HEAD_LEN: usize = 4 + 4 + 4;

/// Collects the tables of packs for one frame.
#[derive(Debug, Default)]
pub(crate) struct TableBuilder {
    body: Vec<u8>,
    packs: usize,
}

impl TableBuilder {
    /// Takes a pack's table; returns its index within the frame.
    pub(crate) fn push(&mut self, table: &PackTable) -> u32 {
        self.body.reserve(table.wire_len());
        table.put(&mut self.body);
        self.packs += 1;
        len_u32(self.packs - 1)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.body.len() >= TABLES_TARGET
    }

    pub(crate) fn packs(&self) -> usize {
        self.packs
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(HEAD_LEN + self.body.len());
        plain.put(&MAGIC);
        plain.put_u32(VERSION);
        plain.put_u32(len_u32(self.packs));
        plain.put(&self.body);
        plain
    }
}

pub(crate) fn parse_tables(plain: &[u8]) -> Result<Vec<PackTable>, BadBytes> {
    let mut bytes = Bytes::new(plain);
    bytes.magic(&MAGIC, "it is no table of packs")?;
    if bytes.u32()? != VERSION {
        return Err(BadBytes("it is a table of packs of an unknown version"));
    }
    let count = bytes.count(PackTable::LEN_MIN)?;
    let tables = (0..count).map(|_| PackTable::parse(&mut bytes)).collect::<Result<_, _>>()?;
    bytes.end()?;
    Ok(tables)
}
