//! What the repository is: all records up to one, added up. Pure: no store, no clock.
//!
//! Applying trusts no writer: a record that could break what keeps data safe (see [`super`]) is a contradiction and ends the replay,
//! whoever wrote it. What a *careful* writer must not do on top of that is in [`State::judge`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Body, Commit, Digest, Numbers, Opening, Purpose, Record, Refusal, Tip, WalExpire, WalStart,
    record::{FORMAT_FIRST, FORMAT_WAL},
};
use crate::id::{BackupId, PackId, RepositoryId, SessionId, SlotId};

/// Receipts of one backup that are kept in the state; the newest. All are in the log.
const PROOFS_KEPT_MAX: usize = 16;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionEnd {
    /// It committed this backup.
    Committed(BackupId),
    /// It was closed.
    Closed,
    /// This one took its place.
    TakenOver(SessionId),
}

/// A live session: one that has not ended, as far as the log knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The record that opened it.
    pub opened: u64,
    /// That record's time.
    pub time: Timestamp,
    /// What it is for.
    pub purpose: Purpose,
    /// The cluster's name.
    pub cluster: String,
    /// What it keeps from expiring.
    pub bases: Vec<BackupId>,
    /// The WAL that led on from its bases when it began: none of it expires while it is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wal: Vec<WalStart>,
    /// What its writer told.
    pub info: Value,
}

/// What a pack is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackStatus {
    /// It may be referred to.
    Live,
    /// No backup needs it; a commit may revive it.
    Condemned,
    /// It is being removed.
    Deleting,
}

/// A pack that some commit brought and that is not deleted yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// Its id.
    pub id: PackId,
    /// The session that wrote it.
    pub session: SessionId,
    /// Its length in the store, in bytes.
    pub bytes: u64,
    /// What it is.
    pub status: PackStatus,
    /// It failed a check: nobody shares it any more.
    pub damaged: bool,
    /// How many live backups and drafts refer to it.
    pub references: u32,
}

/// A proof of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Its record.
    pub n: u64,
    /// That record's time.
    pub time: Timestamp,
    /// Whether the backup was found good.
    pub passed: bool,
    /// The receipt.
    pub receipt: Value,
}

/// A live backup, or a draft of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// The session that committed it.
    pub session: SessionId,
    /// The cluster's name.
    pub cluster: String,
    /// The record that committed it: later is newer, whatever the clocks say.
    pub committed: u64,
    /// That record's time.
    pub time: Timestamp,
    /// False: a draft.
    pub complete: bool,
    /// Where its manifest is.
    pub manifest: Value,
    /// All packs that it needs.
    pub packs: Numbers,
    /// Where the WAL begins that leads on from it, or led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalStart>,
    /// That WAL, or some of it, has expired: it can be restored to its own moment only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wal_cut: bool,
    /// What the caller told.
    pub info: Value,
    /// Why a person wants it kept.
    pub pinned: Option<String>,
    /// Its proofs, oldest first.
    pub proofs: Vec<Proof>,
}

impl Backup {
    /// What its newest proof found; `None` where it was never proven.
    pub fn proven(&self) -> Option<bool> {
        self.proofs.last().map(|proof| proof.passed)
    }

    /// The WAL that leads on from it and must not expire unseen; `None` where it never was known, or was cut.
    pub fn leads_on(&self) -> Option<&WalStart> {
        self.wal.as_ref().filter(|_| !self.wal_cut)
    }
}

/// A key slot, as the log knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeySlot {
    /// The newest record about it.
    pub n: u64,
    /// That record's time.
    pub time: Timestamp,
    /// What the facade told.
    pub info: Value,
}

/// What an object that claims to be a pack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footprint {
    /// The log knows the pack under this number.
    Known(u32),
    /// Its session is live and may yet commit it.
    InWork,
    /// Its session has ended and can't commit any more: garbage, safe to remove.
    Orphan,
    /// No session of this repository wrote it: not ours to remove.
    Foreign,
}

/// The state after some record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    next: u64,
    digest: Option<Digest>,
    repository: Option<RepositoryId>,
    info: Value,
    newest_time: Option<Timestamp>,
    sessions: BTreeMap<SessionId, Session>,
    ended: BTreeMap<SessionId, SessionEnd>,
    backups: BTreeMap<BackupId, Backup>,
    expired: BTreeSet<BackupId>,
    packs: BTreeMap<u32, Pack>,
    next_pack: u32,
    slots: BTreeMap<SlotId, KeySlot>,
    /// By stream and line: the first segment that stays.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    wal_floors: BTreeMap<String, BTreeMap<u32, u64>>,
    #[serde(skip)]
    numbers: HashMap<PackId, u32>,
}

impl State {
    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The hash of the newest record; zeros before the first.
    pub fn digest(&self) -> Digest {
        self.digest.unwrap_or(Digest::NONE)
    }

    /// The newest record; `None` before the first.
    pub fn tip(&self) -> Option<Tip> {
        Some(Tip { repository: self.repository?, n: self.next.checked_sub(1)?, digest: self.digest? })
    }

    /// The repository's id.
    pub fn repository(&self) -> Option<RepositoryId> {
        self.repository
    }

    /// What was told when the repository was made.
    pub fn info(&self) -> &Value {
        &self.info
    }

    /// The newest time that any record claims (since a person corrected it).
    pub fn newest_time(&self) -> Option<Timestamp> {
        self.newest_time
    }

    /// The live sessions.
    pub fn sessions(&self) -> &BTreeMap<SessionId, Session> {
        &self.sessions
    }

    /// How `session` ended; `None` where it is live or never was.
    pub fn ended(&self, session: SessionId) -> Option<SessionEnd> {
        self.ended.get(&session).copied()
    }

    /// The live session that backs up `cluster`.
    pub fn writer_of(&self, cluster: &str) -> Option<(SessionId, &Session)> {
        let found =
            self.sessions.iter().find(|(_, session)| session.purpose == Purpose::Backup && session.cluster == cluster);
        found.map(|(&id, session)| (id, session))
    }

    /// All live backups and drafts.
    pub fn backups(&self) -> &BTreeMap<BackupId, Backup> {
        &self.backups
    }

    /// Whether there was such a backup and it has expired.
    pub fn is_expired(&self, backup: BackupId) -> bool {
        self.expired.contains(&backup)
    }

    /// The newest complete backup of `cluster`.
    pub fn newest_of(&self, cluster: &str) -> Option<(BackupId, &Backup)> {
        self.newest(cluster, |_| true)
    }

    /// The newest backup of `cluster` whose newest proof passed: the last proven one.
    pub fn newest_proven_of(&self, cluster: &str) -> Option<(BackupId, &Backup)> {
        self.newest(cluster, |backup| backup.proven() == Some(true))
    }

    fn newest(&self, cluster: &str, wanted: impl Fn(&Backup) -> bool) -> Option<(BackupId, &Backup)> {
        let of_cluster = self.backups.iter().filter(|(_, b)| b.complete && b.cluster == cluster && wanted(b));
        of_cluster.max_by_key(|(_, backup)| backup.committed).map(|(&id, backup)| (id, backup))
    }

    /// The session that keeps `backup` from expiring.
    pub fn holder_of(&self, backup: BackupId) -> Option<SessionId> {
        self.sessions.iter().find(|(_, session)| session.bases.contains(&backup)).map(|(&id, _)| id)
    }

    /// A pack that is not deleted.
    pub fn pack(&self, number: u32) -> Option<&Pack> {
        self.packs.get(&number)
    }

    /// All packs that are not deleted, by number.
    pub fn packs(&self) -> &BTreeMap<u32, Pack> {
        &self.packs
    }

    /// The number of a pack that is not deleted.
    pub fn number_of(&self, pack: PackId) -> Option<u32> {
        self.numbers.get(&pack).copied()
    }

    /// Whether a session may refer to this pack instead of writing its frames again.
    pub fn is_shareable(&self, pack: PackId) -> bool {
        let pack = self.number_of(pack).and_then(|number| self.pack(number));
        pack.is_some_and(|pack| pack.status != PackStatus::Deleting && !pack.damaged)
    }

    /// The packs with this status that `also` holds for.
    pub(super) fn packs_that(&self, status: PackStatus, also: impl Fn(&Pack) -> bool) -> Numbers {
        self.packs.iter().filter(|(_, pack)| pack.status == status && also(pack)).map(|(&number, _)| number).collect()
    }

    /// What the pack `pack` of `session`, found in the store, is.
    pub fn footprint(&self, session: SessionId, pack: PackId) -> Footprint {
        match self.number_of(pack) {
            Some(number) => Footprint::Known(number),
            None if self.sessions.contains_key(&session) => Footprint::InWork,
            None if self.ended.contains_key(&session) => Footprint::Orphan,
            None => Footprint::Foreign,
        }
    }

    /// The key slots that are present.
    pub fn key_slots(&self) -> &BTreeMap<SlotId, KeySlot> {
        &self.slots
    }

    /// By line: the first segment of `stream` that stays, whatever else may go. Lines that are not named keep all.
    pub fn wal_floors(&self, stream: &str) -> BTreeMap<u32, u64> {
        self.wal_floors.get(stream).cloned().unwrap_or_default()
    }

    /// The first segment of a line that stays; 0 where nothing has expired.
    pub fn wal_floor(&self, stream: &str, line: u32) -> u64 {
        self.wal_floors.get(stream).and_then(|lines| lines.get(&line)).copied().unwrap_or(0)
    }

    /// The streams of WAL that live backups lead on in, or that something has expired of.
    pub fn wal_streams(&self) -> BTreeSet<String> {
        let named = self.backups.values().filter_map(|backup| backup.wal.as_ref()).map(|wal| wal.stream.clone());
        named.chain(self.wal_floors.keys().cloned()).collect()
    }

    /// The lowest version of the format that knows all of it.
    pub(super) fn format(&self) -> u32 {
        let wal = !self.wal_floors.is_empty()
            || self.backups.values().any(|backup| backup.wal.is_some())
            || self.sessions.values().any(|session| !session.wal.is_empty());
        if wal { FORMAT_WAL } else { FORMAT_FIRST }
    }

    /// Adds `record`, whose sealed bytes have the hash `digest`.
    ///
    /// # Errors
    /// The record contradicts the state, which is then unchanged. The caller has checked number and predecessor.
    pub fn apply(&mut self, record: &Record, digest: Digest) -> Result<(), Refusal> {
        self.sound(&record.body)?;
        let (n, time) = (record.n, record.time);
        match &record.body {
            Body::Create { repository, info } => {
                self.repository = Some(*repository);
                self.info = info.clone();
            }
            Body::Open(open) => self.open(open, n, time),
            Body::Takeover { over, open } => {
                self.end(*over, SessionEnd::TakenOver(open.session));
                self.open(open, n, time);
            }
            Body::Close { session, .. } => self.end(*session, SessionEnd::Closed),
            Body::Commit(commit) => self.commit(commit, n, time),
            Body::Prove { backup, passed, receipt } => {
                if let Some(backup) = self.backups.get_mut(backup) {
                    backup.proofs.push(Proof { n, time, passed: *passed, receipt: receipt.clone() });
                    let surplus = backup.proofs.len().saturating_sub(PROOFS_KEPT_MAX);
                    backup.proofs.drain(..surplus);
                }
            }
            Body::Pin { backup, pinned, note } => {
                if let Some(backup) = self.backups.get_mut(backup) {
                    backup.pinned = pinned.then(|| note.clone());
                }
            }
            Body::Expire { backups } => backups.iter().for_each(|expired| self.expire(expired.backup)),
            Body::Condemn { packs } => self.each_pack(packs, |pack| pack.status = PackStatus::Condemned),
            Body::Delete { packs } => self.each_pack(packs, |pack| pack.status = PackStatus::Deleting),
            Body::Deleted { packs } => {
                for number in packs.iter() {
                    if let Some(pack) = self.packs.remove(&number) {
                        self.numbers.remove(&pack.id);
                    }
                }
            }
            Body::Damage { packs, .. } => self.each_pack(packs, |pack| pack.damaged = true),
            Body::WalExpire(expire) => self.expire_wal(expire),
            Body::KeySlot { slot, present: true, info } => {
                self.slots.insert(*slot, KeySlot { n, time, info: info.clone() });
            }
            Body::KeySlot { slot, present: false, .. } => drop(self.slots.remove(slot)),
            Body::Clock { .. } => self.newest_time = None,
        }
        self.newest_time = self.newest_time.max(Some(time));
        self.next = n + 1;
        self.digest = Some(digest);
        Ok(())
    }

    fn open(&mut self, open: &Opening, n: u64, time: Timestamp) {
        let session = Session {
            opened: n,
            time,
            purpose: open.purpose,
            cluster: open.cluster.clone(),
            bases: open.bases.clone(),
            wal: open.bases.iter().filter_map(|base| self.backups.get(base)?.leads_on().cloned()).collect(),
            info: open.info.clone(),
        };
        self.sessions.insert(open.session, session);
    }

    fn end(&mut self, session: SessionId, end: SessionEnd) {
        // What ended needs nothing any more; only that it was there matters, for ever.
        self.sessions.remove(&session);
        self.ended.insert(session, end);
    }

    fn commit(&mut self, commit: &Commit, n: u64, time: Timestamp) {
        let Some(session) = self.sessions.get(&commit.session) else { return };
        let cluster = session.cluster.clone();
        let first = self.next_pack;
        for (number, fresh) in (first..).zip(&commit.fresh) {
            let pack = Pack {
                id: fresh.id,
                session: commit.session,
                bytes: fresh.bytes,
                status: PackStatus::Live,
                damaged: false,
                references: 0,
            };
            self.packs.insert(number, pack);
            self.numbers.insert(fresh.id, number);
            self.next_pack = number + 1;
        }
        let packs: Numbers = commit.known.iter().chain(first..self.next_pack).collect();
        self.each_pack(&packs, |pack| {
            pack.references += 1;
            pack.status = PackStatus::Live;
        });
        // Only now: what the draft held and the commit holds too was never without a reference.
        let drafts = self.backups.iter().filter(|(_, backup)| backup.session == commit.session).map(|(&id, _)| id);
        for draft in drafts.collect::<Vec<_>>() {
            self.expire(draft);
        }
        let backup = Backup {
            session: commit.session,
            cluster,
            committed: n,
            time,
            complete: commit.complete,
            manifest: commit.manifest.clone(),
            packs,
            wal: commit.wal.clone(),
            wal_cut: false,
            info: commit.info.clone(),
            pinned: None,
            proofs: Vec::new(),
        };
        self.backups.insert(commit.backup, backup);
        if commit.complete {
            self.end(commit.session, SessionEnd::Committed(commit.backup));
        }
    }

    fn expire(&mut self, backup: BackupId) {
        if let Some(gone) = self.backups.remove(&backup) {
            self.each_pack(&gone.packs, |pack| pack.references -= 1);
            self.expired.insert(backup);
        }
    }

    fn expire_wal(&mut self, expire: &WalExpire) {
        let floors = self.wal_floors.entry(expire.stream.clone()).or_default();
        floors.extend(expire.lines.iter().copied());
        for backup in &expire.cut {
            if let Some(backup) = self.backups.get_mut(backup) {
                backup.wal_cut = true;
            }
        }
    }

    fn each_pack(&mut self, numbers: &Numbers, mut each: impl FnMut(&mut Pack)) {
        for number in numbers.iter() {
            if let Some(pack) = self.packs.get_mut(&number) {
                each(pack);
            }
        }
    }

    pub(super) fn next_pack(&self) -> u32 {
        self.next_pack
    }

    /// Makes what is not written in a checkpoint anew.
    pub(super) fn reindex(&mut self) {
        self.numbers = self.packs.iter().map(|(&number, pack)| (pack.id, number)).collect();
    }
}
