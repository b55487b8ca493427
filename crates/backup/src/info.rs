//! What a backup says of itself: the JSON in the repository's commit record, sealed there with everything else.
//!
//! Versioned by [`BackupInfo::format`]. Keys are only ever added within a format; readers pass over what they don't know.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Lsn, PgVersion};
use serde::{Deserialize, Serialize};

use crate::proof::Census;

/// The format that this program writes, and the newest that it reads.
pub const INFO_FORMAT: u32 = 1;
/// How many corrupt pages are named in the info; beyond it they are counted.
pub const CORRUPT_PAGES_NAMED_MAX: usize = 1000;

/// How the files came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Read from the data directory.
    Direct,
    /// Sent by the server over the replication protocol.
    BaseBackup,
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// [`INFO_FORMAT`].
    pub format: u32,
    /// What the cluster is called in this repository.
    pub cluster: String,
    /// Made by initdb: the same in the cluster, its standbys and its clones. As text: JSON's numbers are not exact everywhere.
    #[serde(with = "as_text")]
    pub system_id: u64,
    /// The server's version.
    pub pg_version: PgVersion,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// The timeline of the backup's write-ahead log.
    pub timeline: u32,
    /// Where replay starts.
    pub start_lsn: Lsn,
    /// Replay must reach this: before it the files are not consistent.
    pub stop_lsn: Lsn,
    /// When the first file was read, by this host's clock.
    pub start_time: Timestamp,
    /// When the last one had been read.
    pub stop_time: Timestamp,
    /// How the files came here.
    pub source: Source,
    /// Taken from a standby.
    pub standby: bool,
    /// `backup_label` as the server gave it.
    pub backup_label: String,
    /// `tablespace_map` as the server gave it; empty where it gave none.
    #[serde(default)]
    pub tablespace_map: String,
    /// The tablespaces that lie outside of the data directory.
    #[serde(default)]
    pub tablespaces: Vec<Tablespace>,
    /// Tablespaces that were made while the backup ran. Replay makes their links and directories where they were made, whatever a mapping
    /// says and whatever lies there.
    #[serde(default)]
    pub tablespaces_in_wal: Vec<Tablespace>,
    /// Tablespaces that are directories in the data directory (`allow_in_place_tablespaces`, for developers): recovery wants that setting.
    #[serde(default)]
    pub in_place_tablespaces: Vec<u32>,
    /// Bytes of a page.
    pub block_size: u32,
    /// Pages of a full segment file of a relation.
    pub segment_blocks: u32,
    /// Bytes of a WAL segment.
    pub wal_segment_size: u32,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// Where it was taken.
    pub host: Host,
    /// Files in the data directory and the tablespaces.
    pub files: u64,
    /// Their plain bytes.
    pub bytes: u64,
    /// Bytes of write-ahead log that belong to the backup.
    pub wal_bytes: u64,
    /// How many pages were damaged in the source.
    #[serde(default)]
    pub corrupt_pages_count: u64,
    /// The first of them, at most [`CORRUPT_PAGES_NAMED_MAX`].
    #[serde(default)]
    pub corrupt_pages: Vec<CorruptPage>,
    /// The databases, and what was counted in them.
    #[serde(default)]
    pub databases: Vec<Database>,
    /// What was in the cluster right before the files were read, and right after, for a proof to compare with; empty where it could not be
    /// counted.
    #[serde(default)]
    pub censuses: Vec<Census>,
    /// What `postgresql.auto.conf` said before a temporary throttle of ours that may be in the copy: by name, `None` where it said nothing.
    /// A restore puts that back.
    #[serde(default)]
    pub throttled: BTreeMap<String, Option<String>>,
    /// Configuration files outside of the data directory, by the setting that names them: `config_file`, `hba_file`, `ident_file`.
    #[serde(default)]
    pub outside: BTreeMap<String, String>,
}

/// A tablespace outside of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it lay.
    pub location: String,
}

/// A page that was damaged in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorruptPage {
    /// The file, relative to the data directory.
    pub path: String,
    /// The block, counted over all segment files of the fork.
    pub block: u32,
    /// What is wrong.
    pub why: String,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its oid, which names its directories.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Files that were copied of its relations.
    pub relation_files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// `datcollate`.
    #[serde(default)]
    pub collate: String,
    /// `datcollversion`, known from 15 on.
    #[serde(default)]
    pub collation_version: Option<String>,
}

/// Where a backup was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The data directory.
    pub data_dir: String,
    /// Its permission bits: with those of the group where initdb allowed that.
    #[serde(default = "private")]
    pub data_dir_mode: u32,
    /// Who owns that.
    pub owner: Owner,
    /// The server's programs, where it tells.
    #[serde(default)]
    pub bin_dir: Option<String>,
    /// `version()`: says the architecture and the compiler.
    #[serde(default)]
    pub server: String,
    /// The C library's version of collations, as the server reports it; indexes on text are ordered by it.
    #[serde(default)]
    pub libc_collation: Option<String>,
    /// ICU's, likewise.
    #[serde(default)]
    pub icu_collation: Option<String>,
}

/// The mode of a data directory that says nothing else.
fn private() -> u32 {
    0o700
}

/// An owner of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Numeric.
    pub uid: u32,
    /// Numeric.
    pub gid: u32,
    /// By name, where the host knows one.
    #[serde(default)]
    pub user: Option<String>,
    /// By name, where the host knows one.
    #[serde(default)]
    pub group: Option<String>,
}

/// A backup whose info can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// Not what this program or an older one wrote.
    #[error(
        "what the backup says of itself can't be read: {0}; hint: another program may have made it, see `backup show`"
    )]
    Unreadable(#[from] serde_json::Error),
    /// From the future.
    #[error(
        "the backup's info has format {0}, this program knows up to {INFO_FORMAT}; hint: restore it with the oxpecker that made it, or a newer one"
    )]
    TooNew(u32),
}

impl BackupInfo {
    /// Reads the info of a committed backup.
    ///
    /// # Errors
    /// When it is not one of ours, or of a newer format.
    pub fn parse(value: &serde_json::Value) -> Result<Self, InfoError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = Format::deserialize(value)?;
        if format > INFO_FORMAT {
            return Err(InfoError::TooNew(format));
        }
        Ok(Self::deserialize(value)?)
    }

    /// As the commit record keeps it.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("its keys are texts and its numbers are whole")
    }
}

/// A number as text.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> BackupInfo {
        BackupInfo {
            format: INFO_FORMAT,
            cluster: "main".to_owned(),
            system_id: u64::MAX,
            pg_version: PgVersion(150_018),
            catalog_version: 202_209_061,
            timeline: 1,
            start_lsn: Lsn(0x200_0028),
            stop_lsn: Lsn(0x200_0100),
            start_time: Timestamp::UNIX_EPOCH,
            stop_time: Timestamp::UNIX_EPOCH,
            source: Source::Direct,
            standby: false,
            backup_label: String::new(),
            tablespace_map: String::new(),
            tablespaces: vec![Tablespace { oid: 16_400, location: "/srv/space".to_owned() }],
            tablespaces_in_wal: Vec::new(),
            in_place_tablespaces: Vec::new(),
            block_size: 8192,
            segment_blocks: 131_072,
            wal_segment_size: 16 << 20,
            data_checksums: true,
            host: Host::default(),
            files: 1,
            bytes: 2,
            wal_bytes: 3,
            corrupt_pages_count: 0,
            corrupt_pages: Vec::new(),
            databases: Vec::new(),
            censuses: Vec::new(),
            throttled: BTreeMap::new(),
            outside: BTreeMap::new(),
        }
    }

    #[test]
    fn info_is_read_back() {
        let info = sample();
        let mut value = info.to_value();
        assert_eq!(value["system_id"], "18446744073709551615");
        assert_eq!(BackupInfo::parse(&value).unwrap(), info);
        value["later"] = true.into();
        assert_eq!(BackupInfo::parse(&value).unwrap(), info);
        value["format"] = 2.into();
        assert!(matches!(BackupInfo::parse(&value), Err(InfoError::TooNew(2))));
        assert!(matches!(BackupInfo::parse(&serde_json::json!({"format": 1})), Err(InfoError::Unreadable(_))));
        assert!(BackupInfo::parse(&serde_json::Value::Null).is_err());
    }
}
