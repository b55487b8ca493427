//! AES-256-GCM over slices, without copies.

use ring::aead::{self, LessSafeKey, UnboundKey};

use super::KEY_LEN;
use crate::id::NoRandom;

/// Bytes that sealing adds.
pub(crate) const TAG_LEN: usize = 16;
/// For keys that seal one message in their life.
pub(crate) const NONCE_ZERO: [u8; 12] = [0; 12];

/// Something sealed could not be opened, or not be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes are not what was sealed at this place with this key.
    #[error(
        "it does not authenticate: changed, moved from another place, or from another repository\n  hint: `backup check` says \
         what is still restorable"
    )]
    Forged,
    /// It has not the form of a sealed thing.
    #[error(
        "it is no sealed object of this format ({what})\n  hint: it was cut off or overwritten; `backup check` says what is still \
         restorable"
    )]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// It was sealed after a rotation that the opened keys do not know.
    #[error(
        "it was sealed with key epoch {epoch}, and the opened keys end at {newest}\n  hint: the keys were rotated: open the \
         repository again, with a secret that was kept or added since"
    )]
    NewerEpoch {
        /// The epoch that it names.
        epoch: u32,
        /// The newest that is known.
        newest: u32,
    },
    /// There are no random numbers.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// The nonce of the `n`-th message under a key.
pub(crate) fn counter_nonce(n: u32) -> [u8; 12] {
    let mut nonce = NONCE_ZERO;
    nonce[..4].copy_from_slice(&n.to_le_bytes());
    nonce
}

/// One key, ready for use.
pub(crate) struct Aead(LessSafeKey);

impl Aead {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&aead::AES_256_GCM, key).expect("a key of AES-256 has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Seals in place and returns the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(associated), text)
            .expect("messages are far below the 64 GiB that AES-GCM can take");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Seals in place and appends the tag.
    pub(crate) fn seal_vec(&self, nonce: [u8; 12], associated: &[u8], text: &mut Vec<u8>) {
        let tag = self.seal(nonce, associated, text);
        text.extend_from_slice(&tag);
    }

    /// Opens in place what `seal` made with its tag behind it; returns the plain part.
    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, aead::Aad::from(associated), sealed).map_err(|_| SealError::Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let aead = Aead::new(&[7; KEY_LEN]);
        let mut sealed = b"a frame".to_vec();
        aead.seal_vec(counter_nonce(3), b"place", &mut sealed);
        assert_eq!(aead.open(counter_nonce(3), b"place", &mut sealed.clone()).unwrap(), b"a frame");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(aead.open(counter_nonce(3), b"place", &mut changed), Err(SealError::Forged));
        }
        for len in 0..sealed.len() {
            assert!(aead.open(counter_nonce(3), b"place", &mut sealed[..len].to_vec()).is_err());
        }
        assert!(aead.open(counter_nonce(4), b"place", &mut sealed.clone()).is_err());
        assert!(aead.open(counter_nonce(3), b"plate", &mut sealed.clone()).is_err());
        assert!(Aead::new(&[8; KEY_LEN]).open(counter_nonce(3), b"place", &mut sealed.clone()).is_err());
    }
}
