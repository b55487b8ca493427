//! The repository: packs of compressed, authenticated and encrypted frames on a local directory or an object store.
//!
//! Invariant: this crate knows nothing of PostgreSQL. Whoever uses it hands over plain bytes, opaque names and opaque
//! information, and gets exactly these back or an error that says which object is damaged. The format is written down in
//! `docs/src/format.md`; no other crate knows a byte of it.
//!
//! ```text
//! store/     objects: put_if_absent, get, get_range, delete          (I/O, nothing else knows a file)
//! log/       the totally ordered log of sealed records: the state    (pure `state`, the append protocol)
//! seal/      AEAD, derived keys                                      (no I/O)
//! key/       master keys, slots, recovery key
//! frame, pack/, manifest/   bytes of frames, packs and manifests     (no I/O)
//! wal/       segments, tails, histories of WAL; its retention and check    (objects of its own)
//! repository, session, reader, check                                 (the facade: joins all of these)
//! ```

mod check;
mod error;
mod frame;
mod hold;
mod holder;
pub mod id;
pub mod key;
pub mod log;
mod manifest;
mod pack;
mod reader;
mod record;
mod repository;
mod repository_keys;
pub mod seal;
mod session;
pub mod store;
mod vault;
pub mod wal;
mod wire;

pub use check::{CheckProgress, CheckReport, DamagedBackup, FINDINGS_MAX, Fault, Finding, WalWindow};
pub use error::RepositoryError;
pub use frame::{COMPRESSION_LEVEL, FRAME_PLAIN_MAX, FRAME_PLAIN_TARGET};
pub use hold::{Hold, HoldRecord};
pub use holder::{Holder, Standing};
pub use id::{BackupId, PackId, RepositoryId, SessionId, SlotId};
pub use key::{KdfCost, RecoveryKey, Secret, Slot, SlotKind};
pub use log::{WalExpire, WalStart};
pub use manifest::{ENTRIES_MAX, Entry, Extent, FrameRef, META_MAX, NAME_MAX};
pub use pack::PACK_TARGET;
pub use reader::{BackupReader, Entries};
pub use record::{BackupRecord, ProofRecord};
pub use repository::{Limits, Options, Repository};
pub use repository_keys::RepositoryKeys;
pub use session::{FrameWriter, Session, SessionCounts, SessionInfo, WRITERS_MAX};
