//! The log: what the repository's state is, and who may change it.
//!
//! The state is a log of sealed records, `log/000000000000` and on. Each is made by create-if-absent under the next number and
//! names the hash of the one before: whoever appends has read all that came before, and of two who try at once, one reads the
//! other's record and judges again. So every record was allowed by the state that it meets, and there is one order of all changes,
//! without clocks, leases or listings.
//!
//! What keeps data safe, in the order in which it matters:
//! - a backup counts from its commit record on, which is written after all that it refers to is there;
//! - a pack is removed only after a `delete` record; that needs a `condemn` record before it, and no commit between them. A commit
//!   revives what is condemned and is refused what is in `delete`. All of them are in one order, so no removal ever hits a pack that
//!   a committed backup refers to, however long a writer slept;
//! - names are random and never used twice: what a late writer adds is garbage, what a late collector removes is gone already;
//! - a session that was closed or taken over never commits again, so what it left behind can be cleaned up;
//! - WAL is removed only before the number that a `wal-expire` record says, which never goes down. Such a record names every live backup
//!   that loses its way on by it, takes nothing from the bases of open sessions, and a commit that needs earlier WAL is refused after it.
//!
//! [`State`] and [`policy`] are pure; [`Log`] joins them with a store. For the facade:
//!
//! ```text
//! Log::create / Log::open          replay to the tip, rollback alarm
//! log.begin(Opening, take_over)    open or takeover
//! log.commit(Commitment)           also drafts: what an interrupted backup can be resumed from
//! log.close / prove / pin / expire / expire_wal / damaged / key_slot / accept_clock
//! log.collect(|pack| name)         condemn, delete, remove, deleted
//! log.state()                      backups, packs, sessions, slots
//! state.footprint(session, pack)   what an object found in the store is: referenced, in work, an orphan
//! policy::plan(...)                what a retention keeps and why
//! ```

mod act;
mod append;
mod checkpoint;
mod collect;
mod error;
mod hex;
mod judge;
mod memory;
mod numbers;
pub mod policy;
mod record;
mod state;

pub use act::Commitment;
pub use append::{Clock, LOOK_AHEAD, Log};
pub use collect::Collected;
pub use error::{LogError, RollbackAlarm, Seen};
pub use hex::{Digest, Nonce};
pub use judge::Refusal;
pub use memory::{KeyTip, Remembered, Tip, TipMemory};
pub use numbers::Numbers;
pub use record::{Body, Commit, Expired, FORMAT, FreshPack, Opening, Purpose, Record, WalExpire, WalStart};
pub use state::{Backup, Footprint, KeySlot, Pack, PackStatus, Proof, Session, SessionEnd, State};

use crate::store::ObjectName;

/// The name of record `n`.
pub fn record_name(n: u64) -> ObjectName {
    ObjectName::new(format!("log/{n:012}")).expect("digits make a name")
}

/// The name of the checkpoint after record `n`.
pub fn checkpoint_name(n: u64) -> ObjectName {
    ObjectName::new(format!("checkpoint/{n:012}")).expect("digits make a name")
}
