//! PostgreSQL's on-disk formats, versions 13 to 18: pages and their checksums, the control file, write-ahead log, `backup_manifest`,
//! `backup_label`, `tablespace_map`, the names of files, and the parts of configuration files that a restore has to change.
//!
//! Invariants: this is the only crate that knows a byte offset of PostgreSQL, and what differs between major versions is in one place
//! ([`Major`] and, for the control file, its table of fields). Nothing here opens a file or reads a clock; whoever calls brings the
//! bytes. Bytes are never trusted: every parser takes any input without panicking.
//!
//! The authority for each format is PostgreSQL's source; each module names the file. Only little-endian machines with eight-byte
//! alignment are known here, which is every machine that PostgreSQL's own packages run on; a control file of another is refused.

#![forbid(unsafe_code)]

pub mod conf;
pub mod control;
pub mod files;
pub mod label;
mod le;
mod major;
pub mod manifest;
pub mod page;
pub mod wal;

pub use control::ControlFile;
pub use major::{Major, UnsupportedMajor, parse_version_file};
