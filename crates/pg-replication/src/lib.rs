//! A thin client for PostgreSQL's replication protocol, versions 13 to 18: `IDENTIFY_SYSTEM`, `SHOW`, `BASE_BACKUP`.
//!
//! It blocks: a base backup is one stream, read by the thread that stores it. Memory is bounded by one protocol message
//! ([`MESSAGE_MAX`]), whatever the size of the cluster.
//!
//! ```no_run
//! use pg_replication::{BaseBackupOptions, Connection, Event, Target};
//!
//! let target: Target = "postgresql://backup@db.example/?sslmode=verify-full".parse()?;
//! let mut connection = Connection::open(&target)?;
//! let mut backup = connection.base_backup(&BaseBackupOptions::new("nightly"))?;
//! while let Some(event) = backup.next()? {
//!     if let Event::Entry(entry) = event {
//!         let _ = (entry.path, entry.size);
//!     }
//! }
//! let stop = backup.finish()?;
//! # let _ = stop;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: it knows the protocol and not the formats of what is transferred; no error shows a password; with `sslmode=verify-full` nothing
//! but the server that the certificate names gets one.
//!
//! Sources: the manual's chapter "Frontend/Backend Protocol", above all "Streaming Replication Protocol", and PostgreSQL's
//! basebackup.c and basebackup_copy.c.

#![forbid(unsafe_code)]

mod auth;
mod backup;
mod connection;
mod error;
mod passfile;
mod socket;
mod tar;
mod target;
mod tls;
mod wire;

pub use backup::{BaseBackup, BaseBackupOptions, Event, ManifestChecksums, Tablespace};
pub use connection::{Connection, SystemIdentity, WalPosition};
pub use error::{Error, ServerError};
pub use tar::{Entry, EntryKind};
pub use target::{ChannelBinding, Host, ParseTargetError, SslMode, Target};
pub use wire::MESSAGE_MAX;
