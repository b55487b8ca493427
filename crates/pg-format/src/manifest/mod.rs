//! `backup_manifest`, versions 1 (13 to 16) and 2 (17 and newer): read and written in a stream, however many files there are.
//!
//! Sources: PostgreSQL's backup_manifest.c, parse_manifest.c and the manual's chapter "Backup Manifest Format". The first key is the
//! version; the last line holds the SHA-256 of everything before it.

mod parse;
mod write;

use std::fmt;

use model::Lsn;
use serde::{Deserialize, Serialize};

pub use parse::{ManifestError, parse, read};
pub use write::ManifestWriter;

/// The name of the file, in the data directory.
pub const FILE_NAME: &str = "backup_manifest";

/// What a manifest says besides its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestSummary {
    /// 1 or 2.
    pub version: u32,
    /// The cluster; version 2 only.
    pub system_identifier: Option<u64>,
    /// WAL that a restore needs.
    pub wal_ranges: Vec<WalRange>,
    /// How many files were listed.
    pub files: u64,
}

/// A file of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Relative to the data directory; a tablespace's as `pg_tblspc/OID/...`. Any bytes.
    pub path: Vec<u8>,
    /// In bytes.
    pub size: u64,
    /// As the manifest has it: `2026-01-02 03:04:05 GMT`.
    pub last_modified: String,
    /// `None` for a backup that was made without checksums.
    pub checksum: Option<Checksum>,
}

/// A file's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// Its bytes; [`Algorithm::checksum_len`] of them.
    pub bytes: Vec<u8>,
}

/// How a file's checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// CRC-32C; its four bytes from the lowest to the highest.
    #[serde(rename = "CRC32C")]
    Crc32c,
    /// SHA-224.
    #[serde(rename = "SHA224")]
    Sha224,
    /// SHA-256.
    #[serde(rename = "SHA256")]
    Sha256,
    /// SHA-384.
    #[serde(rename = "SHA384")]
    Sha384,
    /// SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
}

/// A range of WAL on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: u32,
    /// Its first record's start.
    pub start: Lsn,
    /// Its last record's end.
    pub end: Lsn,
}

impl Algorithm {
    /// How many bytes its checksums have.
    #[must_use]
    pub const fn checksum_len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A running checksum over a file's bytes.
#[derive(Clone)]
pub struct Hasher(Running);

#[derive(Clone)]
enum Running {
    Crc32c(u32),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts with no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        use sha2::Digest;
        Self(match algorithm {
            Algorithm::Crc32c => Running::Crc32c(0),
            Algorithm::Sha224 => Running::Sha224(sha2::Sha224::new()),
            Algorithm::Sha256 => Running::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Running::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Running::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        use sha2::Digest;
        match &mut self.0 {
            Running::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Running::Sha224(hash) => hash.update(bytes),
            Running::Sha256(hash) => hash.update(bytes),
            Running::Sha384(hash) => hash.update(bytes),
            Running::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The checksum of all bytes.
    #[must_use]
    pub fn finish(self) -> Checksum {
        use sha2::Digest;
        let (algorithm, bytes) = match self.0 {
            Running::Crc32c(crc) => (Algorithm::Crc32c, crc.to_le_bytes().to_vec()),
            Running::Sha224(hash) => (Algorithm::Sha224, hash.finalize().to_vec()),
            Running::Sha256(hash) => (Algorithm::Sha256, hash.finalize().to_vec()),
            Running::Sha384(hash) => (Algorithm::Sha384, hash.finalize().to_vec()),
            Running::Sha512(hash) => (Algorithm::Sha512, hash.finalize().to_vec()),
        };
        Checksum { algorithm, bytes }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Running::Crc32c(_) => "Hasher(CRC32C)",
            Running::Sha224(_) => "Hasher(SHA224)",
            Running::Sha256(_) => "Hasher(SHA256)",
            Running::Sha384(_) => "Hasher(SHA384)",
            Running::Sha512(_) => "Hasher(SHA512)",
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests;
