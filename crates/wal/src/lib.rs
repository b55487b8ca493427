//! WAL on its way into the repository and back: the receiver that streams it, the archive command that pushes it, and the restore command
//! that fetches it.
//!
//! ```text
//! cluster   which cluster's WAL it is
//! gap       what says that WAL is missing
//! inspect   is stored WAL what its name says, and how far does it reach?
//! push/     archive_command: a file and those that wait behind it
//! get/      restore_command: a file, "not there" only when that is certain
//! receive/  streaming: durable before it is acknowledged, never the reason that a server hangs or runs out of disk
//! map/      page maps: which blocks a range of WAL changed, made of the stream or of what is stored
//! recover/  back to a moment: the backup, the way along timelines, and whether it gets there
//! ```
//!
//! `repository::wal` knows how WAL is stored and nothing of PostgreSQL, `pg_replication` how it is streamed and nothing of storing;
//! this crate joins the two, and decides. What decides is pure: `receive::decide`, `receive::plan`, `get::decide`.
//!
//! A receiver and an archive command may run side by side: the same WAL is stored once, other WAL under the same name is an error.

#![forbid(unsafe_code)]

mod cluster;
pub mod gap;
pub mod get;
pub mod inspect;
pub mod map;
pub mod push;
pub mod receive;
pub mod recover;

pub use cluster::{Cluster, ClusterError, data_dir_of};
