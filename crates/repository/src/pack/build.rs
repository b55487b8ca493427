//! Building a pack: frames are compressed and sealed in the pack's own buffer, without a copy.

use super::{
    FrameInfo, HEADER_LEN, Locator, PACK_FRAMES_MAX, PACK_TARGET, PackTable, footer_aad, footer_len, frame_aad, header,
    table, trailer,
};
use crate::{
    frame::{Encoder, FRAME_PLAIN_MAX, Identity, Kind, encoded_max},
    id::{PackId, RepositoryId, SessionId},
    pack::FOOTER_ORDINAL,
    seal::{Aead, KeyRing, SealError, TAG_LEN, counter_nonce},
    wire::len_u32,
};

/// A pack that takes frames.
pub(crate) struct PackBuilder {
    repository: RepositoryId,
    session: SessionId,
    table: PackTable,
    key: Aead,
    /// Longer than what is written so far: the encoder writes into a slice of it. It comes zeroed from the system, which gives memory
    /// for what is touched only.
    buffer: Vec<u8>,
    len: usize,
    target: usize,
}

/// A closed pack. Its bytes are final: whoever retries, writes these and never seals again, so that no nonce seals twice.
#[derive(Debug)]
pub(crate) struct SealedPack {
    pub(crate) table: PackTable,
    buffer: Vec<u8>,
    len: usize,
}

impl SealedPack {
    /// The object.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Its memory, for the next pack.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl PackBuilder {
    /// An empty pack with a name of its own, under the newest key. `target` is at most [`PACK_TARGET`]. `buffer` may be one that an
    /// earlier pack was written from: its memory is used again, its content is not.
    pub(crate) fn new(
        keys: &KeyRing,
        session: SessionId,
        target: usize,
        mut buffer: Vec<u8>,
    ) -> Result<Self, SealError> {
        let (pack, epoch) = (PackId::random()?, keys.newest());
        let target = target.min(PACK_TARGET);
        let capacity = HEADER_LEN + target + encoded_max(FRAME_PLAIN_MAX) + TAG_LEN;
        if buffer.len() < capacity {
            buffer = vec![0; capacity];
        }
        buffer[..HEADER_LEN].copy_from_slice(&header(epoch, pack));
        Ok(Self {
            repository: keys.repository,
            session,
            table: PackTable { pack, epoch, frames: Vec::new() },
            key: keys.pack(epoch, pack)?,
            buffer,
            len: HEADER_LEN,
            target,
        })
    }

    /// Nothing more goes in: close it.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.target || self.table.frames.len() >= PACK_FRAMES_MAX
    }

    /// Compresses and seals `plain`, of at most [`FRAME_PLAIN_MAX`] bytes, into a pack that is not full.
    pub(crate) fn append(&mut self, kind: Kind, identity: Identity, plain: &[u8], encoder: &mut Encoder) -> Locator {
        let ordinal = len_u32(self.table.frames.len());
        let start = self.len;
        let encoded = encoder.encode(plain, &mut self.buffer[start..]);
        let text = &mut self.buffer[start..start + encoded];
        let bound = frame_aad(self.repository, self.table.pack, ordinal, kind);
        let tag = self.key.seal(counter_nonce(ordinal), &bound, text);
        self.len += encoded + TAG_LEN;
        self.buffer[start + encoded..self.len].copy_from_slice(&tag);
        self.table.frames.push(FrameInfo {
            kind,
            offset: len_u32(start),
            sealed_len: len_u32(encoded + TAG_LEN),
            plain_len: len_u32(plain.len()),
            identity,
        });
        self.table.locate(ordinal).expect("it was just pushed")
    }

    /// Writes footer and trailer.
    pub(crate) fn finish(mut self) -> SealedPack {
        let frames = &self.table.frames;
        let header = header(self.table.epoch, self.table.pack);
        let trailer = trailer(len_u32(footer_len(frames.len())), len_u32(frames.len()));
        let mut footer = Vec::with_capacity(footer_len(frames.len()));
        table::put_footer(self.session, frames, &mut footer);
        let bound = footer_aad(self.repository, &header, &trailer, self.table.pack);
        self.key.seal_vec(counter_nonce(FOOTER_ORDINAL), &bound, &mut footer);
        footer.extend_from_slice(&trailer);
        let end = self.len + footer.len();
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer[self.len..end].copy_from_slice(&footer);
        SealedPack { table: self.table, buffer: self.buffer, len: end }
    }
}
