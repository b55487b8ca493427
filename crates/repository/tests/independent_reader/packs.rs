//! Packs and their frames.

use crate::{
    bytes::Cursor,
    keys::{Keys, open_sealed},
    object,
};

/// One frame, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub pack: [u8; 16],
    pub epoch: u32,
    pub ordinal: u32,
    pub offset: u32,
    pub sealed_len: u32,
    pub plain_len: u32,
    pub identity: [u8; 32],
}

pub struct Packs<'a> {
    pub keys: &'a Keys,
}

fn pack_object(keys: &Keys, pack: &[u8; 16]) -> Vec<u8> {
    let hex = data_encoding::HEXLOWER.encode(pack);
    object(&keys.root, &format!("pack/{}/{hex}", &hex[..2])).expect("the pack is there")
}

impl Packs<'_> {
    fn bound(&self, pack: &[u8; 16], ordinal: u32, kind: u32) -> Vec<u8> {
        let mut bound = b"OXPK".to_vec();
        bound.extend(1_u32.to_le_bytes());
        bound.extend(self.keys.repository);
        bound.extend(pack);
        bound.extend(ordinal.to_le_bytes());
        bound.extend(kind.to_le_bytes());
        bound
    }

    /// The plain bytes of a frame of this kind.
    pub fn open(&self, frame: &Frame, kind: u32) -> Vec<u8> {
        let object = pack_object(self.keys, &frame.pack);
        let sealed = &object[frame.offset as usize..(frame.offset + frame.sealed_len) as usize];
        let key = self.keys.pack(frame.epoch, &frame.pack);
        let bound = self.bound(&frame.pack, frame.ordinal, kind);
        let encoded = open_sealed(&key, frame.ordinal, &bound, sealed).expect("the frame opens");
        let plain = match encoded[0] {
            0 => encoded[1..].to_vec(),
            1 => zstd::bulk::decompress(&encoded[1..], frame.plain_len as usize).unwrap(),
            other => panic!("unknown encoding {other}"),
        };
        assert_eq!(plain.len(), frame.plain_len as usize);
        assert_eq!(blake3::keyed_hash(&self.keys.identity(), &plain), frame.identity);
        plain
    }

    /// A pack by its header, footer and trailer alone.
    pub fn check_whole(&self, hex: &str, len: u64) {
        let pack: [u8; 16] = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
        let object = pack_object(self.keys, &pack);
        assert_eq!(object.len() as u64, len);
        let mut header = Cursor(&object[..32]);
        assert_eq!((header.take(8), header.u32()), (&b"OXPKPACK"[..], 1));
        let epoch = header.u32();
        assert_eq!(header.array(), pack);
        let trailer = &object[object.len() - 16..];
        let mut cursor = Cursor(trailer);
        let (footer_len, count) = (cursor.u32() as usize, cursor.u32());
        assert_eq!(cursor.take(8), b"OXPKEND\n");
        let at = object.len() - 16 - footer_len;
        let bound = [self.bound(&pack, u32::MAX, 255), object[..32].to_vec(), trailer.to_vec()].concat();
        let key = self.keys.pack(epoch, &pack);
        let footer = open_sealed(&key, u32::MAX, &bound, &object[at..at + footer_len]).expect("the footer opens");
        let mut footer = Cursor(&footer);
        footer.take(16);
        assert_eq!(footer.u32(), count);
        let mut offset = 32;
        for ordinal in 0..count {
            let (kind, frame) = table_frame(&mut footer, pack, epoch, ordinal, offset);
            self.open(&frame, kind.into());
            offset += frame.sealed_len;
        }
        footer.end();
        assert_eq!(offset as usize, at);
    }
}

fn table_frame(cursor: &mut Cursor<'_>, pack: [u8; 16], epoch: u32, ordinal: u32, offset: u32) -> (u8, Frame) {
    let kind = cursor.u8();
    let (sealed_len, plain_len) = (cursor.u32(), cursor.u32());
    (kind, Frame { pack, epoch, ordinal, offset, sealed_len, plain_len, identity: cursor.array() })
}

/// The packs of a frame of tables.
pub fn tables(plain: &[u8]) -> Vec<Vec<Frame>> {
    let mut cursor = Cursor(plain);
    assert_eq!((cursor.take(4), cursor.u32()), (&b"OXTB"[..], 1));
    let mut packs = Vec::new();
    for _ in 0..cursor.u32() {
        let (pack, epoch, count) = (cursor.array(), cursor.u32(), cursor.u32());
        let (mut frames, mut offset) = (Vec::new(), 32);
        for ordinal in 0..count {
            let (_, frame) = table_frame(&mut cursor, pack, epoch, ordinal, offset);
            offset += frame.sealed_len;
            frames.push(frame);
        }
        packs.push(frames);
    }
    cursor.end();
    packs
}
