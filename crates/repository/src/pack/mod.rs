//! Packs: many sealed frames in one object. No I/O.
//!
//! ```text
//! header    magic, version, epoch, pack id                 in the clear, bound into the footer's seal
//! frames    sealed one by one, back to back                nonce = ordinal
//! footer    the table of the frames, sealed                nonce = 2^32 - 1
//! trailer   length of the footer, count, magic             in the clear, bound into the footer's seal
//! ```
//! The table is also kept in the manifests, so that a reader asks for exactly the bytes that it needs. The footer makes a pack
//! say by itself what it holds: for the check, and for whoever has nothing but packs.

mod build;
mod open;
mod table;

pub(crate) use build::{PackBuilder, SealedPack};
pub(crate) use open::{FrameError, PackOpener, frames_of, parse_header, parse_trailer};
pub(crate) use table::{FrameInfo, Locator, PackTable};

use crate::{
    frame::{FRAME_PLAIN_MAX, Kind},
    id::{PackId, RepositoryId},
    seal::{Epoch, TAG_LEN},
};

/// A pack is closed once it has this many bytes. Few objects for a store, and still little memory for a writer.
pub const PACK_TARGET: usize = 16 << 20;
/// The most frames in a pack: bounds its table where frames are small.
pub(crate) const PACK_FRAMES_MAX: usize = 16 << 10;
/// The most bytes that a pack can have: one frame may begin just below the target.
pub(crate) const PACK_LEN_MAX: usize =
    HEADER_LEN + PACK_TARGET + 1 + FRAME_PLAIN_MAX + TAG_LEN + footer_len(PACK_FRAMES_MAX) + TRAILER_LEN;

pub(crate) const HEADER_LEN: usize = 32;
pub(crate) const TRAILER_LEN: usize = 16;
const HEADER_MAGIC: [u8; 8] = *b"OXPKPACK";
const TRAILER_MAGIC: [u8; 8] = *b"OXPKEND\n";
/// The only format of packs so far.
const PACK_VERSION: u32 = 1;
/// The footer's ordinal, and so its nonce. No frame gets there: see [`PACK_FRAMES_MAX`].
const FOOTER_ORDINAL: u32 = u32::MAX;
/// The footer's kind in its associated data; frames' kinds are those of [`Kind`].
const FOOTER_KIND: u32 = 255;

/// Bytes of a sealed footer of `frames` frames, tag included.
pub(crate) const fn footer_len(frames: usize) -> usize {
    table::FOOTER_FIXED_LEN + frames * FrameInfo::LEN + TAG_LEN
}

/// The object of a pack.
pub(crate) fn object_name(pack: PackId) -> String {
    let hex = pack.to_string();
    format!("pack/{}/{hex}", &hex[..2])
}

/// The pack that an object's name says.
pub(crate) fn pack_of(name: &str) -> Option<PackId> {
    let (_, hex) = name.strip_prefix("pack/")?.split_once('/')?;
    let pack = hex.parse().ok()?;
    (object_name(pack) == name).then_some(pack)
}

fn header(epoch: Epoch, pack: PackId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&HEADER_MAGIC);
    header[8..12].copy_from_slice(&PACK_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&epoch.to_le_bytes());
    header[16..].copy_from_slice(pack.as_bytes());
    header
}

fn trailer(footer_len: u32, frames: u32) -> [u8; TRAILER_LEN] {
    let mut trailer = [0; TRAILER_LEN];
    trailer[..4].copy_from_slice(&footer_len.to_le_bytes());
    trailer[4..8].copy_from_slice(&frames.to_le_bytes());
    trailer[8..].copy_from_slice(&TRAILER_MAGIC);
    trailer
}

const FRAME_AAD_LEN: usize = 48;

/// What a frame's seal is bound to: where it stands and what it is.
fn frame_aad(repository: RepositoryId, pack: PackId, ordinal: u32, kind: Kind) -> [u8; FRAME_AAD_LEN] {
    aad(repository, pack, ordinal, u32::from(kind as u8))
}

fn aad(repository: RepositoryId, pack: PackId, ordinal: u32, kind: u32) -> [u8; FRAME_AAD_LEN] {
    let mut aad = [0; FRAME_AAD_LEN];
    aad[..4].copy_from_slice(b"OXPK");
    aad[4..8].copy_from_slice(&PACK_VERSION.to_le_bytes());
    aad[8..24].copy_from_slice(repository.as_bytes());
    aad[24..40].copy_from_slice(pack.as_bytes());
    aad[40..44].copy_from_slice(&ordinal.to_le_bytes());
    aad[44..].copy_from_slice(&kind.to_le_bytes());
    aad
}

fn footer_aad(
    repository: RepositoryId,
    header: &[u8; HEADER_LEN],
    trailer: &[u8; TRAILER_LEN],
    pack: PackId,
) -> Vec<u8> {
    let mut bound = aad(repository, pack, FOOTER_ORDINAL, FOOTER_KIND).to_vec();
    bound.extend_from_slice(header);
    bound.extend_from_slice(trailer);
    bound
}

#[cfg(test)]
mod tests;
