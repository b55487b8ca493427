//! Backup, restore and proof of a PostgreSQL cluster: the only crate that knows both PostgreSQL's files and the repository.
//!
//! ```text
//! create/    a running cluster -> a committed backup that is restorable by itself
//! restore/   a committed backup -> an empty directory that a server starts from
//! proof/     a restore to scratch, recovered and checked behind a fence
//! info       what a backup says of itself (JSON in the commit)
//! entry      what the manifest says of each file (opaque to the repository)
//! progress   how far it is, whom to tell, when to step back, whether to stop
//! schedule   when a backup is due, and what after a failure (pure)
//! pressure   when the worker steps back (pure)
//! ```
//!
//! Threads carry the data; the one SQL session of a backup runs on a small runtime of its own. Nothing here prints.

#![forbid(unsafe_code)]

pub mod create;
pub mod entry;
pub mod info;
mod names;
pub mod pressure;
pub mod progress;
pub mod proof;
pub mod restore;
pub mod schedule;

pub use create::{CreateError, CreateOptions, Created, create};
pub use info::{BackupInfo, InfoError};
pub use progress::{Note, Progress, Silent, Stage, Update};
pub use restore::{RestoreError, RestoreOptions, RestorePlan, Restored, restore};
