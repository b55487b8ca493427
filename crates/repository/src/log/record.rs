//! The records, as they are written.
//!
//! The plain bytes of a record are one JSON object: small (packs are numbered, see [`Commit`]), the same for every reader, and
//! readable by a person who has the key and nothing else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, LogError, Nonce, Numbers};
use crate::id::{BackupId, PackId, RepositoryId, SessionId, SlotId};

/// The newest version of records. Each names the lowest one that knows all that it says, see [`Body::format`], so that a repository
/// which uses nothing new is open to older programs. Newer ones are refused: a record that is not understood may forbid what its reader
/// is about to do.
pub const FORMAT: u32 = 2;
/// The version of everything but WAL: the first one.
pub(super) const FORMAT_FIRST: u32 = 1;
/// The version from which on commits say which WAL leads on from them, and WAL may expire.
pub(super) const FORMAT_WAL: u32 = 2;

/// Largest record, in bytes before sealing. A first backup of 10 TB in packs of 16 MiB has 42 MB.
pub(super) const RECORD_BYTES_MAX: usize = 128 << 20;

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`Body::format`], or more, up to [`FORMAT`].
    pub format: u32,
    /// Its number: the first is 0.
    pub n: u64,
    /// The hash of the sealed bytes of record `n - 1`; zeros in record 0.
    pub prev: Digest,
    /// Random: tells one's own record from anybody else's.
    pub nonce: Nonce,
    /// The writer's clock. For people and for the retention; nothing that keeps data safe rests on it.
    pub time: Timestamp,
    /// What changes.
    pub body: Body,
}

/// What a record changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// The repository begins. Record 0 and no other.
    Create {
        /// Its id.
        repository: RepositoryId,
        /// Whatever the facade wants to remember.
        info: Value,
    },
    /// A session begins.
    Open(Opening),
    /// A session ends the session `over`, whose writer is believed dead, and begins in its place. The dead one, should it live, can't
    /// commit any more.
    Takeover {
        /// Which one it ends.
        over: SessionId,
        /// The one that begins.
        open: Opening,
    },
    /// A session ends without (further) commit.
    Close {
        /// Which.
        session: SessionId,
        /// Why, for people.
        reason: String,
    },
    /// A backup, or a draft of one, counts from now on.
    Commit(Commit),
    /// A backup was restored and checked.
    Prove {
        /// Which.
        backup: BackupId,
        /// Whether it was found good.
        passed: bool,
        /// The receipt, as the prover wrote it.
        receipt: Value,
    },
    /// A person wants a backup kept, or no longer.
    Pin {
        /// Which.
        backup: BackupId,
        /// Whether it is to be kept whatever the retention says.
        pinned: bool,
        /// Why, for people.
        note: String,
    },
    /// Backups end: they can't be restored any more, and what only they need becomes garbage.
    Expire {
        /// Which, and why.
        backups: Vec<Expired>,
    },
    /// These packs are needed by no live backup.
    Condemn {
        /// Which.
        packs: Numbers,
    },
    /// These condemned packs will be removed from now on; nothing may refer to them any more.
    Delete {
        /// Which.
        packs: Numbers,
    },
    /// These packs are removed.
    Deleted {
        /// Which.
        packs: Numbers,
    },
    /// These packs failed a check: nobody shares them any more. Their backups stay; what can be read can be read.
    Damage {
        /// Which.
        packs: Numbers,
        /// What was found, for people.
        note: String,
    },
    /// WAL may go.
    WalExpire(WalExpire),
    /// A key slot was made, changed or removed. The slot itself is an object of its own: without it no record can be opened.
    KeySlot {
        /// Which.
        slot: SlotId,
        /// False: removed.
        present: bool,
        /// Whatever the facade wants to remember, such as that the recovery key was confirmed.
        info: Value,
    },
    /// A person says that the newest recorded time is wrong (a clock was ahead): ages count from this record's time again.
    Clock {
        /// Why, for people.
        note: String,
    },
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// It writes a backup. One at a time for each cluster.
    Backup,
    /// It only keeps its bases from expiring: a restore or a proof that is running. Any number at a time.
    Hold,
}

/// The beginning of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// Its id, random, never used before.
    pub session: SessionId,
    /// What it is for.
    pub purpose: Purpose,
    /// The name under which the cluster is backed up here.
    pub cluster: String,
    /// Live backups and drafts that it shares packs with, or reads: none of them expires while it is open.
    pub bases: Vec<BackupId>,
    /// Whatever the caller wants to remember: host, process, start.
    pub info: Value,
}

/// A pack that a commit brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(PackId, u64)", into = "(PackId, u64)")]
pub struct FreshPack {
    /// Its id.
    pub id: PackId,
    /// Its length in the store, in bytes.
    pub bytes: u64,
}

impl From<(PackId, u64)> for FreshPack {
    fn from((id, bytes): (PackId, u64)) -> Self {
        Self { id, bytes }
    }
}

impl From<FreshPack> for (PackId, u64) {
    fn from(pack: FreshPack) -> Self {
        (pack.id, pack.bytes)
    }
}

/// A commit.
///
/// Packs are numbered in the order in which commits bring them, over the whole log, from 0. A number is never given twice, so a
/// commit that lost a race stands unchanged at a later place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The session. A complete commit ends it.
    pub session: SessionId,
    /// The backup's id, random, never used before.
    pub backup: BackupId,
    /// False for a draft: what an interrupted backup has so far. It is never restored; the session's next commit replaces it, and
    /// another session may share its packs.
    pub complete: bool,
    /// Where the manifest is, as the facade wrote it.
    pub manifest: Value,
    /// All packs that it refers to and that commits before it brought.
    pub known: Numbers,
    /// All packs that it refers to and brings: their numbers are the next ones, in this order.
    pub fresh: Vec<FreshPack>,
    /// The WAL that leads on from it to later moments, where the caller knows of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalStart>,
    /// What the caller wants to remember of the backup.
    pub info: Value,
}

/// Where the WAL begins that leads on from a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalStart {
    /// The stream, as [`crate::Repository::wal`] knows it: a text.
    pub stream: String,
    /// The line that the backup is of.
    pub line: u32,
    /// The first segment that replay from the backup on reads.
    pub segment: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

impl WalStart {
    /// Whether what lies before `segment` of `line` (of the same stream) may hold something that leads on from here. Lines have higher
    /// numbers than those that they come from; more is not known of them here.
    pub fn needs_before(&self, line: u32, segment: u64) -> bool {
        line >= self.line && segment > self.segment
    }
}

/// WAL that may go: of each line all before some segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalExpire {
    /// The stream.
    pub stream: String,
    /// Lines, each with its first segment that stays. Ascending, none twice.
    pub lines: Vec<(u32, u64)>,
    /// Live backups that nothing leads on from any more: they can be restored to their own moment only. Whoever writes the record has seen
    /// each backup that needs what goes; one that is not named here forbids the record.
    pub cut: Vec<BackupId>,
}

/// A backup that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// Which.
    pub backup: BackupId,
    /// Why, for people.
    pub reason: String,
}

impl Body {
    /// The record's kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Open(_) => "open",
            Self::Takeover { .. } => "takeover",
            Self::Close { .. } => "close",
            Self::Commit(_) => "commit",
            Self::Prove { .. } => "prove",
            Self::Pin { .. } => "pin",
            Self::Expire { .. } => "expire",
            Self::Condemn { .. } => "condemn",
            Self::Delete { .. } => "delete",
            Self::Deleted { .. } => "deleted",
            Self::Damage { .. } => "damage",
            Self::WalExpire(_) => "wal-expire",
            Self::KeySlot { .. } => "key-slot",
            Self::Clock { .. } => "clock",
        }
    }

    /// The lowest version of records that knows all of it.
    pub fn format(&self) -> u32 {
        match self {
            Self::WalExpire(_) | Self::Commit(Commit { wal: Some(_), .. }) => FORMAT_WAL,
            _ => FORMAT_FIRST,
        }
    }
}

impl Record {
    /// The plain bytes.
    ///
    /// # Errors
    /// Where it is larger than a record may be.
    pub fn encode(&self) -> Result<Vec<u8>, LogError> {
        let plain = serde_json::to_vec(self).map_err(|error| LogError::garbled(self.n, &error))?;
        if plain.len() > RECORD_BYTES_MAX {
            return Err(LogError::TooLarge { n: self.n, bytes: plain.len() });
        }
        Ok(plain)
    }

    /// From plain bytes that were found as record `n`.
    ///
    /// # Errors
    /// `Newer` for a format of the future, `Garbled` for anything else that is no record `n`.
    pub fn decode(n: u64, plain: &[u8]) -> Result<Self, LogError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        // The version first: what a newer one looks like is not for us to say.
        let version: Version = serde_json::from_slice(plain).map_err(|error| LogError::garbled(n, &error))?;
        if version.format > FORMAT {
            return Err(LogError::Newer { n, format: version.format });
        }
        let record: Self = serde_json::from_slice(plain).map_err(|error| LogError::garbled(n, &error))?;
        if record.format < record.body.format() || record.n != n {
            return Err(LogError::garbled(
                n,
                &format!("it says that it is record {} of format {}", record.n, record.format),
            ));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let commit = Commit {
            session: SessionId([1; 16]),
            backup: BackupId([2; 16]),
            complete: true,
            manifest: serde_json::json!({"pack": 3}),
            known: [0, 1, 2, 9].into_iter().collect(),
            fresh: vec![FreshPack { id: PackId([3; 16]), bytes: 7 }],
            wal: None,
            info: Value::Null,
        };
        Record {
            format: FORMAT_FIRST,
            n: 5,
            prev: Digest::of(b"x"),
            nonce: Nonce::try_from("ab".repeat(16)).unwrap(),
            time: "2026-11-22T03:00:00Z".parse().unwrap(),
            body: Body::Commit(commit),
        }
    }

    #[test]
    fn a_record_is_written_like_this() {
        let text = String::from_utf8(record().encode().unwrap()).unwrap();
        let tail = r#""time":"2026-11-22T03:00:00Z","body":{"kind":"commit","session":"01010101010101010101010101010101","backup":"02020202020202020202020202020202","complete":true,"manifest":{"pack":3},"known":[[0,3],[9,1]],"fresh":[["03030303030303030303030303030303",7]],"info":null}}"#;
        assert!(text.starts_with(r#"{"format":1,"n":5,"prev":""#), "{text}");
        assert!(text.ends_with(tail), "{text}");
        assert_eq!(Record::decode(5, text.as_bytes()).unwrap(), record());
    }

    #[test]
    fn what_is_no_record_is_told_from_what_is_newer() {
        let plain = record().encode().unwrap();
        assert!(matches!(Record::decode(6, &plain), Err(LogError::Garbled { n: 6, .. })));
        assert!(matches!(Record::decode(5, b"{}"), Err(LogError::Garbled { .. })));
        assert!(matches!(Record::decode(5, br#"{"format":3,"new":[]}"#), Err(LogError::Newer { n: 5, format: 3 })));
        assert!(matches!(Record::decode(5, br#"{"format":1,"n":5}"#), Err(LogError::Garbled { .. })));
    }

    #[test]
    fn what_is_new_names_its_version() {
        let mut record = record();
        let Body::Commit(commit) = &mut record.body else { panic!() };
        commit.wal = Some(WalStart { stream: "73".to_owned(), line: 1, segment: 2, segment_bytes: 16 << 20 });
        assert!(matches!(Record::decode(5, &record.encode().unwrap()), Err(LogError::Garbled { .. })));
        record.format = record.body.format();
        assert_eq!(record.format, 2, "older programs refuse it");
        let text = String::from_utf8(record.encode().unwrap()).unwrap();
        let wal = r#""wal":{"stream":"73","line":1,"segment":2,"segment_bytes":16777216},"info":null}}"#;
        assert!(text.ends_with(wal), "{text}");
        assert_eq!(Record::decode(5, text.as_bytes()).unwrap(), record);
        record.body = Body::WalExpire(WalExpire {
            stream: "73".to_owned(),
            lines: vec![(1, 7), (3, 9)],
            cut: vec![BackupId([2; 16])],
        });
        let text = String::from_utf8(record.encode().unwrap()).unwrap();
        let tail =
            r#"{"kind":"wal-expire","stream":"73","lines":[[1,7],[3,9]],"cut":["02020202020202020202020202020202"]}}"#;
        assert!(text.ends_with(tail), "{text}");
        assert_eq!(Record::decode(5, text.as_bytes()).unwrap(), record);
    }
}
