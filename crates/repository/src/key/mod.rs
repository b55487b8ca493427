//! Secrets that people and hosts hold, and the key objects that give the master keys to who has one.
//!
//! ```text
//! passphrase --Argon2id--\
//! key file   --BLAKE3-----> slot key --opens--> newest master key --opens--> body: older master keys, what people call slots
//! recovery   --BLAKE3----/
//! ```
//! The key objects `key/0`, `key/1`, ... are generations: each is complete, names its predecessor's hash, and is made by
//! create-if-absent. The last one counts. Nothing is ever overwritten.

mod object;
mod recovery;
mod secret;
mod store;

pub(crate) use object::{BadKeys, KeyObject, SlotInfo};
pub use recovery::{BadRecoveryKey, RecoveryKey};
pub use secret::{BadSecret, KdfCost, Secret, SlotKind};
pub use store::{KeyError, Slot};
pub(crate) use store::{KeyStore, Opened, SLOTS_MAX, object_name as key_object_name};
