//! A thin client for PostgreSQL's replication protocol, versions 13 to 18: `IDENTIFY_SYSTEM`, `SHOW`, `BASE_BACKUP`, slots,
//! `START_REPLICATION PHYSICAL`, `TIMELINE_HISTORY`.
//!
//! It blocks: a base backup or a stream of WAL is read by the thread that stores it. Memory is bounded by one protocol message
//! ([`MESSAGE_MAX`]), whatever the size of the cluster and however far its WAL is ahead: what is not read yet stays on the server.
//!
//! # A base backup
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
//! # A stream of WAL
//!
//! [`WalStream`] is read by one thread. Its [`StatusSender`] may be used by any: whoever made WAL durable says so itself, also while the
//! reader waits for storage.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use pg_replication::{Connection, StreamEnd, StreamOptions, Target, WalEvent};
//!
//! # fn store(_: model::Lsn, _: &[u8]) -> model::Lsn { model::Lsn(0) }
//! # let target: Target = "postgresql://backup@db.example/".parse()?;
//! let mut connection = Connection::open(&target)?;
//! let here = connection.identify_system()?;
//! let segment = connection.wal_segment_size()?;
//! let start = model::Lsn(here.flushed.0 / segment * segment);
//! let mut options = StreamOptions { slot: Some("oxpecker".parse()?), ..StreamOptions::new(start, here.timeline) };
//! loop {
//!     let mut stream = connection.stream_wal(&options)?;
//!     let status = stream.status();
//!     loop {
//!         match stream.next(Duration::from_secs(1))? {
//!             WalEvent::Wal { start, bytes } => {
//!                 let durable = store(start, bytes);
//!                 status.flushed(durable)?;
//!             }
//!             WalEvent::KeepAlive | WalEvent::Nothing => {}
//!             WalEvent::End => break,
//!         }
//!         // The store is down, and the server waits for nobody but us.
//!         if stream.server_seems_stopping() {
//!             status.disconnect();
//!         }
//!     }
//!     match stream.finish()? {
//!         StreamEnd::NextTimeline { timeline, switch } => {
//!             let history = connection.timeline_history(timeline)?;
//!             # let _ = history;
//!             options.start = model::Lsn(switch.0 / segment * segment);
//!             options.timeline = timeline;
//!         }
//!         StreamEnd::Finished | StreamEnd::ServerStopped => break,
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a receiver should know of PostgreSQL, each shown by a test in `tests/real/wal/`:
//!
//! - *Shutdown waits for us, without end.* In a fast or smart shutdown a walsender ends when the last byte is acknowledged as flushed (where
//!   no flush was ever reported: as written). Until then it asks again the moment it is answered; answers are paced here, so that this costs
//!   nothing. [`WalStream::server_seems_stopping`] sees it within a second, [`StatusSender::disconnect`] ends it at once, and the slot keeps
//!   what was not acknowledged.
//! - *Who reads nothing can stop the checkpoints.* See [`StatusSender::heartbeat`].
//! - *A slot goes back at a restart* to what the last checkpoint saved of it: acknowledged WAL may come a second time, the same bytes.
//! - *A slot that was given up* (`max_slot_wal_keep_size`) breaks the stream like a lost connection. Only 18 refuses the next one
//!   ([`Refusal::SlotInvalidated`]); before that it fails with [`Refusal::SegmentRemoved`] or, where the WAL is still there, goes on.
//!   [`Connection::read_slot`] (from 15 on) or `pg_replication_slots` tells.
//! - *The end of a timeline may lie before what was received.* See [`StreamEnd::NextTimeline`].
//!
//! [`Error::refusal`] says what a refusal means, [`Error::is_passing`] whether another try may help.
//!
//! Invariants: it knows the protocol and not the formats of what is transferred; WAL comes without a gap or with an error; nothing is
//! acknowledged that was not received, and no acknowledgement is taken back; no error shows a password; with `sslmode=verify-full` nothing but
//! the server that the certificate names gets one.
//!
//! Sources: the manual's chapter "Frontend/Backend Protocol", above all "Streaming Replication Protocol", and PostgreSQL's
//! basebackup.c, basebackup_copy.c and walsender.c.

#![forbid(unsafe_code)]

mod auth;
mod backup;
mod connection;
mod error;
mod refusal;
mod shared;
mod slot;
mod socket;
mod stream;
mod tar;
mod tls;
mod wire;

pub use backup::{BaseBackup, BaseBackupOptions, Event, ManifestChecksums, Tablespace};
pub use connection::{Connection, SystemIdentity, TimelineFile, WalPosition};
pub use error::{Error, ServerError};
pub use pg_connect::{ChannelBinding, FileError, Host, ParseTargetError, SslMode, Target};
pub use refusal::Refusal;
pub use slot::{ParseSlotNameError, SlotName, SlotOptions, SlotState};
pub use stream::{Heartbeat, Progress, StatusSender, StreamEnd, StreamOptions, WalEvent, WalStream};
pub use tar::{Entry, EntryKind};
pub use wire::MESSAGE_MAX;
