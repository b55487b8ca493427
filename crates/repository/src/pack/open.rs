//! Opening packs and single frames.

use super::{
    FOOTER_ORDINAL, FrameInfo, HEADER_LEN, HEADER_MAGIC, Locator, PACK_VERSION, PackTable, TRAILER_LEN, TRAILER_MAGIC,
    footer_aad, footer_len, frame_aad, header, table, trailer,
};
use crate::{
    frame::{Decoder, Identity, Kind},
    id::{PackId, RepositoryId, SessionId},
    seal::{Aead, Epoch, KEY_LEN, KeyRing, SealError, counter_nonce},
    wire::{BadBytes, Bytes},
};

/// A frame is not what the table says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Authentic, so a fault of the writer's memory or program, not of the store.
    #[error("its bytes authenticate but are not those that its writer named")]
    Content,
}

/// The epoch of a pack, from its first [`HEADER_LEN`] bytes.
pub(crate) fn parse_header(bytes: &[u8], pack: PackId) -> Result<Epoch, BadBytes> {
    let mut bytes = Bytes::new(bytes);
    bytes.magic(&HEADER_MAGIC, "it does not begin like a pack")?;
    if bytes.u32()? != PACK_VERSION {
        return Err(BadBytes("it is a pack of an unknown version"));
    }
    let epoch = bytes.u32()?;
    if bytes.array()? != pack.0 {
        return Err(BadBytes("it is another pack under this one's name"));
    }
    Ok(epoch)
}

/// The length of the sealed footer, from a pack's last [`TRAILER_LEN`] bytes.
pub(crate) fn parse_trailer(bytes: &[u8]) -> Result<usize, BadBytes> {
    let mut bytes = Bytes::new(bytes);
    let (footer, frames) = (bytes.u32()? as usize, bytes.u32()? as usize);
    bytes.magic(&TRAILER_MAGIC, "it does not end like a pack")?;
    bytes.end()?;
    if frames > super::PACK_FRAMES_MAX || footer != footer_len(frames) {
        return Err(BadBytes("its trailer contradicts itself"));
    }
    Ok(footer)
}

/// Opens what is in one pack.
pub(crate) struct PackOpener {
    repository: RepositoryId,
    pack: PackId,
    epoch: Epoch,
    key: Aead,
    identity_key: zeroize::Zeroizing<[u8; KEY_LEN]>,
}

impl PackOpener {
    pub(crate) fn new(keys: &KeyRing, pack: PackId, epoch: Epoch) -> Result<Self, SealError> {
        let key = keys.pack(epoch, pack)?;
        Ok(Self { repository: keys.repository, pack, epoch, key, identity_key: keys.identity() })
    }

    /// Opens the frame at `place` from its sealed bytes, which are used up.
    pub(crate) fn frame(
        &self,
        place: &Locator,
        kind: Kind,
        sealed: &mut [u8],
        decoder: &mut Decoder,
    ) -> Result<Vec<u8>, FrameError> {
        let bound = frame_aad(self.repository, self.pack, place.ordinal, kind);
        let encoded = self.key.open(counter_nonce(place.ordinal), &bound, sealed)?;
        let plain = decoder.decode(encoded, place.plain_len as usize).ok_or(FrameError::Content)?;
        if Identity::of(&self.identity_key, &plain) == place.identity { Ok(plain) } else { Err(FrameError::Content) }
    }

    /// Opens the footer of `frames` frames; `sealed` is used up.
    pub(crate) fn footer(&self, sealed: &mut [u8], frames: usize) -> Result<(SessionId, Vec<FrameInfo>), SealError> {
        let header = header(self.epoch, self.pack);
        let len = u32::try_from(sealed.len()).map_err(|_| SealError::Malformed { what: "its footer is too long" })?;
        let count = u32::try_from(frames).map_err(|_| SealError::Malformed { what: "it has too many frames" })?;
        let bound = footer_aad(self.repository, &header, &trailer(len, count), self.pack);
        let plain = self.key.open(counter_nonce(FOOTER_ORDINAL), &bound, sealed)?;
        table::parse_footer(plain).map_err(|BadBytes(what)| SealError::Malformed { what })
    }

    /// Opens header, footer and trailer of a whole pack: its table, and whose session wrote it.
    pub(crate) fn whole(keys: &KeyRing, pack: PackId, bytes: &[u8]) -> Result<(Self, SessionId, PackTable), SealError> {
        let malformed = |BadBytes(what)| SealError::Malformed { what };
        let cut = SealError::Malformed { what: "it is cut off" };
        let (head, _) = bytes.split_at_checked(HEADER_LEN).ok_or_else(|| cut.clone())?;
        let epoch = parse_header(head, pack).map_err(malformed)?;
        let tail_at = bytes.len().checked_sub(TRAILER_LEN).ok_or_else(|| cut.clone())?;
        let footer_len = parse_trailer(&bytes[tail_at..]).map_err(malformed)?;
        let footer_at = tail_at.checked_sub(footer_len).filter(|at| *at >= HEADER_LEN).ok_or(cut)?;
        let opener = Self::new(keys, pack, epoch)?;
        let mut sealed = bytes[footer_at..tail_at].to_vec();
        let (session, frames) = opener.footer(&mut sealed, frames_of(footer_len))?;
        let table = PackTable { pack, epoch, frames };
        if table.object_len() != bytes.len() as u64 {
            return Err(SealError::Malformed { what: "its frames do not fill it" });
        }
        Ok((opener, session, table))
    }
}

/// The count of frames that a footer of `footer_len` bytes has; [`parse_trailer`] made sure that there is one.
pub(crate) fn frames_of(footer_len: usize) -> usize {
    (footer_len - super::footer_len(0)) / FrameInfo::LEN
}
