//! The table of a pack's frames, and where one frame lies.

use crate::{
    frame::{FRAME_PLAIN_MAX, Identity, Kind},
    id::{ID_LEN, PackId, SessionId},
    pack::{HEADER_LEN, PACK_FRAMES_MAX, PACK_LEN_MAX, TRAILER_LEN, footer_len},
    seal::{Epoch, TAG_LEN},
    wire::{BadBytes, Bytes, Put, len_u32},
};

/// Session and count before the frames of a footer.
pub(super) const FOOTER_FIXED_LEN: usize = ID_LEN + 4;

/// One frame of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameInfo {
    pub(crate) kind: Kind,
    /// Where it begins in the pack. Not stored: the frames before it say so.
    pub(crate) offset: u32,
    /// Its bytes in the pack, tag included.
    pub(crate) sealed_len: u32,
    pub(crate) plain_len: u32,
    pub(crate) identity: Identity,
}

impl FrameInfo {
    pub(crate) const LEN: usize = 1 + 4 + 4 + 32;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind as u8);
        out.put_u32(self.sealed_len);
        out.put_u32(self.plain_len);
        out.put(&self.identity.0);
    }

    fn parse(bytes: &mut Bytes<'_>, offset: u32) -> Result<Self, BadBytes> {
        let kind = Kind::from_code(bytes.u8()?).ok_or(BadBytes("a frame is of an unknown kind"))?;
        let (sealed_len, plain_len) = (bytes.u32()?, bytes.u32()?);
        check_lengths(sealed_len, plain_len)?;
        Ok(Self { kind, offset, sealed_len, plain_len, identity: Identity(bytes.array()?) })
    }

    /// The first byte behind it.
    pub(crate) fn end(&self) -> u32 {
        self.offset + self.sealed_len
    }
}

fn check_lengths(sealed_len: u32, plain_len: u32) -> Result<(), BadBytes> {
    let (sealed, plain) = (sealed_len as usize, plain_len as usize);
    if plain > FRAME_PLAIN_MAX || sealed <= TAG_LEN || sealed > 1 + plain + TAG_LEN {
        return Err(BadBytes("a frame has an impossible length"));
    }
    Ok(())
}

/// A pack's frames, as its footer and a manifest's table of packs hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackTable {
    pub(crate) pack: PackId,
    pub(crate) epoch: Epoch,
    pub(crate) frames: Vec<FrameInfo>,
}

impl PackTable {
    /// The least bytes of one in a table of packs: what bounds their count.
    pub(crate) const LEN_MIN: usize = ID_LEN + 4 + 4;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put(self.pack.as_bytes());
        out.put_u32(self.epoch);
        put_frames(&self.frames, out);
    }

    pub(crate) fn parse(bytes: &mut Bytes<'_>) -> Result<Self, BadBytes> {
        Ok(Self { pack: PackId(bytes.array()?), epoch: bytes.u32()?, frames: parse_frames(bytes)? })
    }

    pub(crate) fn wire_len(&self) -> usize {
        Self::LEN_MIN + self.frames.len() * FrameInfo::LEN
    }

    /// The size of the pack's object, to the byte.
    pub(crate) fn object_len(&self) -> u64 {
        let frames_end = self.frames.last().map_or(HEADER_LEN as u64, |last| u64::from(last.end()));
        frames_end + (footer_len(self.frames.len()) + TRAILER_LEN) as u64
    }

    pub(crate) fn locate(&self, ordinal: u32) -> Option<Locator> {
        let frame = self.frames.get(ordinal as usize)?;
        Some(Locator {
            pack: self.pack,
            epoch: self.epoch,
            ordinal,
            offset: frame.offset,
            sealed_len: frame.sealed_len,
            plain_len: frame.plain_len,
            identity: frame.identity,
        })
    }
}

fn put_frames(frames: &[FrameInfo], out: &mut Vec<u8>) {
    out.put_u32(len_u32(frames.len()));
    frames.iter().for_each(|frame| frame.put(out));
}

fn parse_frames(bytes: &mut Bytes<'_>) -> Result<Vec<FrameInfo>, BadBytes> {
    let count = bytes.count(FrameInfo::LEN)?;
    if count > PACK_FRAMES_MAX {
        return Err(BadBytes("a pack has too many frames"));
    }
    let mut offset = len_u32(HEADER_LEN);
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        let frame = FrameInfo::parse(bytes, offset)?;
        offset = frame.end();
        if offset as usize > PACK_LEN_MAX {
            return Err(BadBytes("a pack is too long"));
        }
        frames.push(frame);
    }
    Ok(frames)
}

/// A footer's plain bytes.
pub(super) fn put_footer(session: SessionId, frames: &[FrameInfo], out: &mut Vec<u8>) {
    out.put(session.as_bytes());
    put_frames(frames, out);
}

pub(super) fn parse_footer(bytes: &[u8]) -> Result<(SessionId, Vec<FrameInfo>), BadBytes> {
    let mut bytes = Bytes::new(bytes);
    let session = SessionId(bytes.array()?);
    let frames = parse_frames(&mut bytes)?;
    bytes.end()?;
    Ok((session, frames))
}

/// All that is needed to fetch one frame and to know that it is the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Locator {
    pub(crate) pack: PackId,
    pub(crate) epoch: Epoch,
    pub(crate) ordinal: u32,
    pub(crate) offset: u32,
    pub(crate) sealed_len: u32,
    pub(crate) plain_len: u32,
    pub(crate) identity: Identity,
}

impl Locator {
    pub(crate) const LEN: usize = ID_LEN + 5 * 4 + 32;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put(self.pack.as_bytes());
        for n in [self.epoch, self.ordinal, self.offset, self.sealed_len, self.plain_len] {
            out.put_u32(n);
        }
        out.put(&self.identity.0);
    }

    pub(crate) fn parse(bytes: &mut Bytes<'_>) -> Result<Self, BadBytes> {
        let pack = PackId(bytes.array()?);
        let (epoch, ordinal, offset) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
        let (sealed_len, plain_len) = (bytes.u32()?, bytes.u32()?);
        check_lengths(sealed_len, plain_len)?;
        if offset as usize > PACK_LEN_MAX || ordinal as usize >= PACK_FRAMES_MAX {
            return Err(BadBytes("a frame lies outside of any pack"));
        }
        Ok(Self { pack, epoch, ordinal, offset, sealed_len, plain_len, identity: Identity(bytes.array()?) })
    }
}
