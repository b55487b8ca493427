//! Sealing: authenticated encryption under derived keys. No I/O.
//!
//! Every key is used for one purpose and one object: [`derive`] makes it from its parent, a constant that names the purpose,
//! and what it is bound to. So nonces are plain counters (packs) or nought (keys that are used once), and no random nonce can
//! ever repeat. `docs/src/format.md` has the table of contexts.

mod aead;
mod keys;
mod record;

pub use aead::SealError;
pub(crate) use aead::{Aead, NONCE_ZERO, TAG_LEN, counter_nonce};
pub use keys::Epoch;
pub(crate) use keys::{KeyRing, Keys, MasterKey};
pub use record::RecordSeal;

/// Bytes in every key.
pub(crate) const KEY_LEN: usize = 32;

/// What keys are derived for. Part of the format: a changed letter is another key.
pub(crate) mod context {
    pub(crate) const PACK: &str = "oxpecker repository v1 2026-11 pack key";
    pub(crate) const RECORD: &str = "oxpecker repository v1 2026-11 log record key";
    pub(crate) const IDENTITY: &str = "oxpecker repository v1 2026-11 frame identity key";
    pub(crate) const KEY_BODY: &str = "oxpecker repository v1 2026-11 key object body";
    pub(crate) const SLOT: &str = "oxpecker repository v1 2026-11 key slot";
    pub(crate) const SECRET_FILE: &str = "oxpecker repository v1 2026-11 key file secret";
    pub(crate) const SECRET_RECOVERY: &str = "oxpecker repository v1 2026-11 recovery key secret";
    pub(crate) const WAL_STREAM: &str = "oxpecker repository v1 2026-11 wal stream name";
    pub(crate) const WAL_OBJECT: &str = "oxpecker repository v1 2026-11 wal object key";
    pub(crate) const WAL_IDENTITY: &str = "oxpecker repository v1 2026-11 wal identity key";
    pub(crate) const RECOVERY_CHECK: &str = "oxpecker repository v1 2026-11 recovery key checksum";
}

/// A key for the purpose `context`, bound to `parts`. The parts of one context always have the same lengths, so that two
/// different lists never make the same bytes.
pub(crate) fn derive(context: &str, parent: &[u8], parts: &[&[u8]]) -> zeroize::Zeroizing<[u8; KEY_LEN]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(parent);
    for part in parts {
        hasher.update(part);
    }
    zeroize::Zeroizing::new(*hasher.finalize().as_bytes())
}
