//! One frame: plain bytes, compressed. Sealing and place are the pack's business.
//!
//! What is sealed is one byte that names the encoding, then the bytes. Bytes that do not shrink are kept as they are.

use std::{fmt, io};

use crate::seal::KEY_LEN;

/// The most plain bytes in one frame. Bounds what a reader must hold for one.
pub const FRAME_PLAIN_MAX: usize = 4 << 20;
/// A good size for a frame of file content: large enough that zstd finds what repeats and that an object store is asked seldom,
/// small enough that a reader of one page does not fetch much.
pub const FRAME_PLAIN_TARGET: usize = 512 << 10;
/// zstd's level. On pages of PostgreSQL in frames of this size, level 2 made smaller frames than level 3 at nearly one and a half times
/// its speed; level 1 was a quarter faster and made them 6 % larger. `docs/src/format.md` has the figures.
pub const COMPRESSION_LEVEL: i32 = 2;

const ENCODING_PLAIN: u8 = 0;
const ENCODING_ZSTD: u8 = 1;

/// The keyed BLAKE3 of a frame's plain bytes: equal bytes of one repository have equal identities, and without its key nobody
/// can tell what they are of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 32]);

impl Identity {
    pub(crate) fn of(key: &[u8; KEY_LEN], plain: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, plain).as_bytes())
    }

    /// What the index of known frames sorts by.
    pub(crate) fn prefix(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[i]))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// What a frame holds. Bound into its seal: a frame of one kind never passes for one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Content that the caller handed over.
    Data = 1,
    /// A table of packs.
    Table = 2,
    /// A page of a manifest's entries.
    Entries = 3,
    /// A manifest's root.
    Root = 4,
}

impl Kind {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::Table, Self::Entries, Self::Root].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// The most bytes that [`Encoder::encode`] makes of `plain_len`.
pub(crate) fn encoded_max(plain_len: usize) -> usize {
    1 + plain_len
}

/// Compresses; keeps zstd's working memory from frame to frame.
pub(crate) struct Encoder(zstd::bulk::Compressor<'static>);

impl Encoder {
    pub(crate) fn new(level: i32) -> io::Result<Self> {
        zstd::bulk::Compressor::new(level).map(Self)
    }

    /// Encodes `plain` to the front of `out`, which has at least [`encoded_max`] bytes; returns how many.
    ///
    /// No copy is made: `out` is the pack's own buffer, where the result is sealed in place.
    pub(crate) fn encode(&mut self, plain: &[u8], out: &mut [u8]) -> usize {
        let out = &mut out[..encoded_max(plain.len())];
        // Room for one byte less than plain: what does not fit there has not shrunk, and zstd gives up by itself.
        if let Some(room) = plain.len().checked_sub(1)
            && let Ok(len) = self.0.compress_to_buffer(plain, &mut out[1..=room])
        {
            out[0] = ENCODING_ZSTD;
            return 1 + len;
        }
        out[0] = ENCODING_PLAIN;
        out[1..].copy_from_slice(plain);
        out.len()
    }
}

/// Decompresses; keeps zstd's working memory from frame to frame.
pub(crate) struct Decoder(zstd::bulk::Decompressor<'static>);

impl Decoder {
    pub(crate) fn new() -> io::Result<Self> {
        zstd::bulk::Decompressor::new().map(Self)
    }

    /// The plain bytes of an encoded frame. `None` when it is not an encoding of exactly `plain_len` bytes.
    pub(crate) fn decode(&mut self, encoded: &[u8], plain_len: usize) -> Option<Vec<u8>> {
        let (&encoding, bytes) = encoded.split_first()?;
        if plain_len > FRAME_PLAIN_MAX {
            return None;
        }
        let plain = match encoding {
            ENCODING_PLAIN => bytes.to_vec(),
            ENCODING_ZSTD => {
                let mut plain = Vec::with_capacity(plain_len);
                self.0.decompress_to_buffer(bytes, &mut plain).ok()?;
                plain
            }
            _ => return None,
        };
        (plain.len() == plain_len).then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(plain: &[u8]) -> usize {
        let mut out = vec![0; encoded_max(plain.len())];
        let len = Encoder::new(COMPRESSION_LEVEL).unwrap().encode(plain, &mut out);
        assert_eq!(Decoder::new().unwrap().decode(&out[..len], plain.len()).unwrap(), plain);
        len
    }

    #[test]
    fn what_does_not_shrink_is_kept() {
        assert_eq!(round_trip(b""), 1);
        assert_eq!(round_trip(b"a"), 2);
        assert!(round_trip(&[7; 100_000]) < 100);
        let noise: Vec<u8> = (0..3000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(round_trip(&noise), 1 + noise.len());
    }

    #[test]
    fn kinds_have_codes() {
        for code in 0..=u8::MAX {
            assert_eq!(
                Kind::from_code(code).map_or(0, |kind| kind as u8),
                if (1..=4).contains(&code) { code } else { 0 }
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(plain in proptest::collection::vec(0..4_u8, 0..5000)) {
            round_trip(&plain);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0..5_000_000_usize) {
            if let Some(plain) = Decoder::new().unwrap().decode(&bytes, len) {
                prop_assert_eq!(plain.len(), len);
            }
        }
    }
}
