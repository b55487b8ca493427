//! The fence: what keeps a scratch server away from production.
//!
//! A restored cluster remembers the original's tablespaces, publishers, archive and libraries, and WAL that is replayed on the original's
//! host acts on the original's paths: CREATE TABLESPACE makes a link to the *live* tablespace and replay writes there. Settings alone
//! can't prevent that. So the server gets, as far as this host and this user allow:
//!
//! - a root directory of its own, in a mount namespace: programs and libraries, read-only, and the scratch directory. Nothing else
//!   exists in it, neither data nor unix sockets. A tablespace that WAL will create is a directory of ours there, under its own path;
//! - a network namespace without any interface, so that no address can be reached;
//! - process and IPC namespaces: when its first process dies, the kernel ends all others and frees their memory;
//! - Landlock, which denies it every write outside of the scratch directory, and TCP.
//!
//! [`plan`] decides what is used and whether that is enough, [`enter`] builds the namespaces, [`keeper`] starts processes inside.

pub(super) mod abilities;
pub(super) mod enter;
pub(super) mod keeper;
pub(super) mod landlock;
pub(super) mod memory;
pub(super) mod plan;

use serde::{Deserialize, Serialize};

/// Parts of the fence to go without, for a host where one of them misbehaves. What is left out is said in the receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FenceLimits {
    /// No namespaces.
    pub no_namespaces: bool,
    /// No Landlock.
    pub no_landlock: bool,
}

/// What stood between the scratch server and production.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// It had a root directory of its own in a mount namespace.
    pub own_root: bool,
    /// It had a network namespace without interfaces.
    pub own_network: bool,
    /// It had process and IPC namespaces.
    pub own_processes: bool,
    /// Landlock confined its writes.
    pub landlock: bool,
    /// Tablespaces that WAL creates, which were directories of the proof's own for it.
    pub rebound_tablespaces: Vec<String>,
    /// The bound on its memory, in bytes, where one is enforced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_bytes: Option<u64>,
    /// What is not enforced, and why.
    pub gaps: Vec<String>,
}
