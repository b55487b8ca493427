//! Scratch PostgreSQL clusters: real servers for tests, drills and proofs that nobody needs afterwards.
//!
//! A [`ScratchCluster`] lives in a fresh private directory, listens on a unix socket there and on a free loopback port, trusts whoever
//! gets that far, and ends with its owner: when the value is dropped, and when the owning process is killed.
//!
//! ```no_run
//! let newest = scratch::newest_installation()?;
//! let cluster = scratch::ScratchCluster::builder(&newest).setting("autovacuum_naptime", "1s").start()?;
//! let url = cluster.url("postgres");
//! # let _ = url;
//! # Ok::<(), scratch::ScratchError>(())
//! ```
//!
//! [`node`] has whole nodes with a systemd of their own, [`engine`] container engines.
//!
//! Everything here blocks; from async code call it on a blocking thread when the wait matters.
//!
//! What this crate must not know: anything of oxpecker. It depends on no other crate of the workspace.

#![forbid(unsafe_code)]

mod builder;
mod cache;
#[cfg(feature = "certificates")]
pub mod certificates;
mod cluster;
mod directory;
pub mod engine;
mod error;
mod identity;
mod installation;
mod leftovers;
pub mod node;
mod postmaster;
mod template;

pub use builder::Builder;
pub use cache::{shared_cache_dir, testbed_dir};
pub use cluster::{LeftRunning, ScratchCluster};
pub use directory::{DataDir, Storage};
pub use error::ScratchError;
pub use installation::{Installation, complete_installation, installation, installations, newest_installation};
pub use leftovers::{Process, processes_below};
