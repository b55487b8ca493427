//! The page map: which blocks of which relations a range of WAL changes, made while the WAL passes by.
//!
//! An incremental backup has to read what changed since the one before. This map answers that from WAL alone, for PostgreSQL 13 to 18, on
//! primaries and standbys alike, with nothing installed in the server.
//!
//! ```text
//!   bytes of WAL ──▶ Mapper ──cut()──▶ PageMap [start, end) ──encode()──▶ bytes, stored beside the WAL
//!                                        │
//!                    PageMap::append ◀───┘   the map of a longer range, if the ranges join
//!                                        │
//!                    PageMap::change(relation, fork) ──▶ what to read of it
//! ```
//!
//! [`RangeMapper`] cuts by itself, where ranges of a fixed size end: whoever makes the map of a range makes the same one, whether he saw the
//! WAL before it or not, so that several may make it and it is stored once.
//!
//! # What the map promises
//!
//! Take two copies of a cluster, the later one consistent at a point in the range, the earlier one begun at `start`, which is the *redo*
//! position of a checkpoint (for a backup: of the one that began it, not of the one that the backup ended with). Then each page that
//! differs is in the map, or its file is there as a whole, or the map says that everything must be read ([`PageMap::full_read`]).
//! The map may hold more than what differs, never less. Where a file is unknown to the earlier copy, has no whole number of pages, or
//! is longer than it was there, what is new is read in any case: extending a file by zeros is not in WAL.
//!
//! Exceptions, each with its reason:
//! - *Hint bits* with neither `wal_log_hints` nor checksums are not in WAL. An old copy of such a page is as good as a new one: what a
//!   hint says can be found out again. So a page whose hash differs though the map does not name it is no proof of damage.
//! - *Free space maps and visibility maps* are whole always: the first are not in WAL, and bits of the second were cleared without
//!   naming the block until the minor releases of July 2026.
//! - *Files that are no relation's* (`pg_xact`, `pg_filenode.map` ...) are not in the map and are always read.
//! - *The main fork of an unlogged relation* is not in WAL and not in a backup; its `_init` fork is in both.
//! - *Changes past WAL*: `pg_checksums`, `pg_resetwal`, a file system's snapshot put back. Whoever joins a map with a backup compares
//!   `data_checksum_version`, the system identifier and the timeline's history; the map only knows that its own chain is whole.
//!
//! The rules are those of PostgreSQL's own walsummarizer.c (17 and 18) and of pg_rewind's parsexlog.c, made to hold for 13 to 16 too;
//! [`Mapper`] names each.
//!
//! # Bounds
//!
//! A map takes at most [`Limits::memory_bytes`], by its own count. Beyond that the relation with the most changed pages becomes whole,
//! then databases, then everything. Nothing is dropped: what the map loses is precision.
//!
//! This crate opens no file, reads no clock and starts no thread. It knows no offset of PostgreSQL (that is `pg-format`'s) and decides
//! not where its bytes are kept.

#![forbid(unsafe_code)]

mod blocks;
mod collect;
mod encode;
mod map;
mod mapper;
mod ranges;
mod reason;

pub use blocks::BlockSet;
pub use encode::{DECODED_BYTES_MAX, DecodeError, VERSION};
pub use map::{Change, Limits, NotNext, PageMap};
pub use mapper::Mapper;
pub use ranges::{RangeMap, RangeMapper};
pub use reason::{FullRead, Reason};
