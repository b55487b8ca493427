//! What the log's records hold of ours: where a manifest is, and how large.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    frame::Identity,
    id::{BackupId, PackId, SessionId},
    log::{self, WalStart},
    pack::Locator,
    seal::Epoch,
    wire::{BadBytes, Bytes, Put},
};

/// The only format of this part of a commit so far.
const FORMAT: u32 = 1;

/// The `manifest` of a commit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestRecord {
    format: u32,
    pack: PackId,
    epoch: Epoch,
    ordinal: u32,
    offset: u32,
    sealed_len: u32,
    plain_len: u32,
    identity: String,
    pub(crate) entries: u64,
    pub(crate) content_bytes: u64,
    pub(crate) stored_bytes: u64,
}

impl ManifestRecord {
    pub(crate) fn new(place: &Locator, entries: u64, content_bytes: u64, stored_bytes: u64) -> Self {
        Self {
            format: FORMAT,
            pack: place.pack,
            epoch: place.epoch,
            ordinal: place.ordinal,
            offset: place.offset,
            sealed_len: place.sealed_len,
            plain_len: place.plain_len,
            identity: place.identity.to_string(),
            entries,
            content_bytes,
            stored_bytes,
        }
    }

    pub(crate) fn parse(value: &Value) -> Result<Self, BadBytes> {
        let record = Self::deserialize(value).map_err(|_| BadBytes("the commit's manifest is of an unknown form"))?;
        if record.format == FORMAT {
            Ok(record)
        } else {
            Err(BadBytes("the commit's manifest is of an unknown version"))
        }
    }

    /// Where the root lies.
    pub(crate) fn place(&self) -> Result<Locator, BadBytes> {
        let identity = data_encoding::HEXLOWER.decode(self.identity.as_bytes());
        let identity = identity.ok().and_then(|bytes| bytes.try_into().ok()).map(Identity);
        let place = Locator {
            pack: self.pack,
            epoch: self.epoch,
            ordinal: self.ordinal,
            offset: self.offset,
            sealed_len: self.sealed_len,
            plain_len: self.plain_len,
            identity: identity.ok_or(BadBytes("the commit's manifest has no identity"))?,
        };
        // The same bounds as everywhere.
        let mut bytes = Vec::new();
        place.put(&mut bytes);
        bytes.put(&[]);
        Locator::parse(&mut Bytes::new(&bytes))
    }
}

/// A proof of a backup, as the log keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProofRecord {
    /// When, as the prover's clock said.
    pub time: Timestamp,
    /// Whether the backup was found good.
    pub passed: bool,
    /// The receipt, as the prover wrote it.
    pub receipt: Value,
}

/// A committed backup.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupRecord {
    /// Its id.
    pub id: BackupId,
    /// The session that wrote it.
    pub session: SessionId,
    /// The name under which its cluster is backed up.
    pub cluster: String,
    /// The number of the log's record that committed it: later is newer, whatever the clocks say.
    pub committed: u64,
    /// When it was committed, as its writer's clock said.
    pub time: Timestamp,
    /// What its maker told of it.
    pub info: Value,
    /// Entries in it.
    pub entries: u64,
    /// What their sizes add up to.
    pub content_bytes: u64,
    /// Bytes that were stored for it: the rest was there already.
    pub stored_bytes: u64,
    /// Why a person wants it kept, whatever the retention says.
    pub pinned: Option<String>,
    /// Where the WAL begins that leads on from it to later moments; `None` where its maker did not say.
    pub wal: Option<WalStart>,
    /// That WAL has expired: the backup can be restored to its own moment only.
    pub wal_cut: bool,
    /// Its proofs, oldest first; of many, the newest.
    pub proofs: Vec<ProofRecord>,
}

impl BackupRecord {
    pub(crate) fn new(id: BackupId, backup: &log::Backup) -> Self {
        // A record of a form that is not known is shown without its sizes; reading it fails with a reason.
        let manifest = ManifestRecord::parse(&backup.manifest).ok();
        let size = |of: fn(&ManifestRecord) -> u64| manifest.as_ref().map_or(0, of);
        let proof =
            |proof: &log::Proof| ProofRecord { time: proof.time, passed: proof.passed, receipt: proof.receipt.clone() };
        Self {
            id,
            session: backup.session,
            cluster: backup.cluster.clone(),
            committed: backup.committed,
            time: backup.time,
            info: backup.info.clone(),
            entries: size(|manifest| manifest.entries),
            content_bytes: size(|manifest| manifest.content_bytes),
            stored_bytes: size(|manifest| manifest.stored_bytes),
            pinned: backup.pinned.clone(),
            wal: backup.wal.clone(),
            wal_cut: backup.wal_cut,
            proofs: backup.proofs.iter().map(proof).collect(),
        }
    }

    /// What its newest proof found; `None` where it was never proven.
    pub fn proven(&self) -> Option<bool> {
        self.proofs.last().map(|proof| proof.passed)
    }
}
