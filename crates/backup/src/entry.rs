//! What the manifest says of each file besides its content: opaque to the repository, JSON with short keys.
//!
//! An entry's name is the path relative to the data directory, any bytes: `base/5/16400`, `pg_tblspc/16390/PG_15_202209061/5/7`,
//! `pg_wal/000000010000000000000002`. Unknown keys are passed over, so that later versions may add some.

use serde::{Deserialize, Serialize};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file of the data directory or a tablespace; part of `backup_manifest`.
    File,
    /// A directory.
    Directory,
    /// A segment of write-ahead log or a timeline's history; `backup_manifest` does not list these.
    Wal,
    /// A configuration file that lies outside of the data directory, under its own absolute path; see `restore`.
    Outside,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// What it is.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// Permission bits.
    #[serde(rename = "m")]
    pub mode: u32,
    /// When it was last changed, in seconds since 1970.
    #[serde(rename = "t", default)]
    pub modified: i64,
    /// CRC-32C of the whole content, as `backup_manifest` has it; zero for what has no content. Frames are authenticated with much stronger
    /// means; this one is carried from the read of the source to the file that the restore wrote.
    #[serde(rename = "c", default)]
    pub crc32c: u32,
}

/// Bytes that are no metadata of ours.
#[derive(Debug, thiserror::Error)]
#[error(
    "the manifest's metadata of {name} can't be read: {source}; hint: a newer oxpecker wrote this backup, use that one"
)]
pub struct MetaError {
    /// Of which entry.
    pub name: String,
    /// Why.
    pub source: serde_json::Error,
}

impl Meta {
    /// As the manifest keeps it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and a word are always JSON")
    }

    /// Reads what [`Meta::to_bytes`] made.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(name: &[u8], bytes: &[u8]) -> Result<Self, MetaError> {
        let fail = |source| MetaError { name: shown(name), source };
        serde_json::from_slice(bytes).map_err(fail)
    }
}

/// A path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_back_and_may_grow() {
        let meta = Meta { kind: Kind::File, mode: 0o600, modified: -5, crc32c: u32::MAX };
        assert_eq!(meta.to_bytes(), br#"{"k":"file","m":384,"t":-5,"c":4294967295}"#);
        assert_eq!(Meta::parse(b"a", &meta.to_bytes()).unwrap(), meta);
        let grown = br#"{"k":"directory","m":448,"x":1}"#;
        assert_eq!(
            Meta::parse(b"a", grown).unwrap(),
            Meta { kind: Kind::Directory, mode: 0o700, modified: 0, crc32c: 0 }
        );
        assert!(Meta::parse(b"a\xff", b"{}").unwrap_err().to_string().contains("hint"));
    }
}
