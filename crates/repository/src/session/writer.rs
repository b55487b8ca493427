//! One thread's way into a session.

use std::sync::{Arc, atomic::Ordering};

use zeroize::Zeroizing;

use super::{Inner, WRITERS_MAX};
use crate::{
    error::RepositoryError,
    frame::{COMPRESSION_LEVEL, Encoder, FRAME_PLAIN_MAX, Identity, Kind},
    manifest::FrameRef,
    pack::PackBuilder,
    seal::KEY_LEN,
    wire::len_u32,
};

/// Stores frames. One for each thread; what one of them stores, the others find.
pub struct FrameWriter {
    session: Arc<Inner>,
    encoder: Encoder,
    identity_key: Zeroizing<[u8; KEY_LEN]>,
    /// The pack that takes frames, and its number.
    pack: Option<(u32, PackBuilder)>,
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter").field("session", &self.session.id).finish_non_exhaustive()
    }
}

impl FrameWriter {
    pub(super) fn new(session: &Arc<Inner>) -> Result<Self, RepositoryError> {
        let encoder = Encoder::new(COMPRESSION_LEVEL).map_err(RepositoryError::Compression)?;
        let identity_key = session.repository.vault.keys.ring().identity();
        let taken = session.writers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |writers| {
            (writers < WRITERS_MAX).then_some(writers + 1)
        });
        taken.map_err(|_| RepositoryError::TooManyWriters { max: WRITERS_MAX })?;
        // A pack that a writer before left unfinished: threads may come and go without making small packs.
        let pack = session.lock().parked.pop();
        Ok(Self { session: Arc::clone(session), encoder, identity_key, pack })
    }

    /// Stores a frame of at most [`FRAME_PLAIN_MAX`] bytes, unless a committed backup or this session has one with the same bytes.
    /// Nothing is durable before the commit.
    ///
    /// # Errors
    /// The frame is too long, or a pack could not be stored: then [`super::Session::commit`] tries its bytes once more, and fails if
    /// it still can't be.
    pub fn put(&mut self, plain: &[u8]) -> Result<FrameRef, RepositoryError> {
        if plain.len() > FRAME_PLAIN_MAX {
            return Err(RepositoryError::FrameTooLong { len: plain.len() });
        }
        let (identity, len) = (Identity::of(&self.identity_key, plain), len_u32(plain.len()));
        if let Some(frame) = self.session.find(identity, len)? {
            return Ok(frame);
        }
        let (number, mut builder) = match self.pack.take() {
            Some(pack) => pack,
            None => {
                // Before more is compressed for a store that takes nothing.
                self.session.uploader.check()?;
                (self.session.lock().number(), self.session.new_pack()?)
            }
        };
        let place = builder.append(Kind::Data, identity, plain, &mut self.encoder);
        let frame = FrameRef { owner: self.session.owner, pack: number, ordinal: place.ordinal, len };
        self.session.known.recent.add(identity, frame);
        if builder.is_full() {
            self.session.seal_pack(number, builder)?;
        } else {
            self.pack = Some((number, builder));
        }
        Ok(frame)
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take() {
            self.session.lock().parked.push(pack);
        }
        self.session.writers.fetch_sub(1, Ordering::Relaxed);
    }
}
