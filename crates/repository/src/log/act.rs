//! What a writer does, each as one record. All of it may be tried again after any failure.

use serde_json::Value;

use super::{
    Body, Commit, Expired, FreshPack, Log, LogError, Opening, Refusal, SessionEnd, State, WalExpire, WalStart,
};
use crate::id::{BackupId, PackId, SessionId, SlotId};

/// A commit as the facade knows it: packs by their ids. See [`Commit`].
#[derive(Clone, Debug, PartialEq)]
pub struct Commitment {
    /// The session.
    pub session: SessionId,
    /// The backup's id, random; the same one again where a commit is tried again.
    pub backup: BackupId,
    /// False for a draft.
    pub complete: bool,
    /// Where the manifest is.
    pub manifest: Value,
    /// All packs that it refers to and that this session has not written.
    pub shared: Vec<PackId>,
    /// All packs that it refers to and that this session has written, whether a draft brought them or not.
    pub written: Vec<FreshPack>,
    /// The WAL that leads on from it.
    pub wal: Option<WalStart>,
    /// What is to be remembered of the backup.
    pub info: Value,
}

impl Commitment {
    fn body(&self, state: &State) -> Result<Body, Refusal> {
        let number = |id: PackId| state.number_of(id);
        let shared = self.shared.iter().map(|&id| number(id).ok_or_else(|| Refusal::NoPack { pack: id.to_string() }));
        let drafted = self.written.iter().filter_map(|pack| number(pack.id)).map(Ok);
        Ok(Body::Commit(Commit {
            session: self.session,
            backup: self.backup,
            complete: self.complete,
            manifest: self.manifest.clone(),
            known: shared.chain(drafted).collect::<Result<_, _>>()?,
            fresh: self.written.iter().filter(|pack| number(pack.id).is_none()).copied().collect(),
            wal: self.wal.clone(),
            info: self.info.clone(),
        }))
    }
}

impl Log {
    /// Opens a session, in the place of the live session `over` where one is named.
    ///
    /// # Errors
    /// `InUse` where another session backs up this cluster.
    pub fn begin(&mut self, open: &Opening, over: Option<SessionId>) -> Result<(), LogError> {
        self.append(|state| {
            // A record of ours that came through although nobody confirmed it.
            if state.sessions().contains_key(&open.session) {
                return Ok(None);
            }
            Ok(Some(match over {
                Some(over) => Body::Takeover { over, open: open.clone() },
                None => Body::Open(open.clone()),
            }))
        })?;
        Ok(())
    }

    /// Closes a session. That it has ended already is fine.
    ///
    /// # Errors
    /// Where there never was such a session.
    pub fn close(&mut self, session: SessionId, reason: &str) -> Result<(), LogError> {
        self.append(|state| {
            let body = Body::Close { session, reason: reason.to_owned() };
            Ok(state.ended(session).is_none().then_some(body))
        })?;
        Ok(())
    }

    /// Commits a backup or a draft. Everything that it refers to is in the store, durable and verified.
    ///
    /// # Errors
    /// `Refused`: the session has ended, or a pack that it shares is gone or damaged. After `Unclear` it may have been committed: try
    /// it again as it is.
    pub fn commit(&mut self, commitment: &Commitment) -> Result<(), LogError> {
        let done = |state: &State| {
            state.backups().get(&commitment.backup).is_some_and(|found| found.session == commitment.session)
                || state.ended(commitment.session) == Some(SessionEnd::Committed(commitment.backup))
        };
        self.append(|state| if done(state) { Ok(None) } else { commitment.body(state).map(Some) })?;
        Ok(())
    }

    /// Attaches a receipt to a backup.
    ///
    /// # Errors
    /// Where there is no such complete backup any more.
    pub fn prove(&mut self, backup: BackupId, passed: bool, receipt: &Value) -> Result<(), LogError> {
        self.append(|state| {
            let newest = state.backups().get(&backup).and_then(|found| found.proofs.last());
            let there = newest.is_some_and(|proof| proof.passed == passed && proof.receipt == *receipt);
            Ok((!there).then(|| Body::Prove { backup, passed, receipt: receipt.clone() }))
        })?;
        Ok(())
    }

    /// Keeps a backup whatever the retention says (`Some`: why), or no longer.
    ///
    /// # Errors
    /// Where there is no such complete backup any more.
    pub fn pin(&mut self, backup: BackupId, note: Option<&str>) -> Result<(), LogError> {
        self.append(|state| {
            let there = state.backups().get(&backup).is_some_and(|found| found.pinned.as_deref() == note);
            let body = Body::Pin { backup, pinned: note.is_some(), note: note.unwrap_or_default().to_owned() };
            Ok((!there).then_some(body))
        })?;
        Ok(())
    }

    /// Lets backups expire, together or not at all. Those that have expired already are passed over. Returns how many did.
    ///
    /// # Errors
    /// `Refused` where one of them is needed, or where the clock is behind the newest record.
    pub fn expire(&mut self, backups: &[Expired]) -> Result<usize, LogError> {
        let mut count = 0;
        self.append(|state| {
            let backups: Vec<_> = backups.iter().filter(|b| !state.is_expired(b.backup)).cloned().collect();
            count = backups.len();
            Ok((!backups.is_empty()).then_some(Body::Expire { backups }))
        })?;
        Ok(count)
    }

    /// Lets WAL expire, as `make` says, given the state at the tip; it is called again whenever somebody else was quicker. Returns whether
    /// it wrote a record.
    ///
    /// # Errors
    /// `Refused` where a backup that `make` did not name, or a session, needs some of it, or where the clock is behind the newest record.
    pub fn expire_wal(
        &mut self,
        mut make: impl FnMut(&State) -> Result<Option<WalExpire>, Refusal>,
    ) -> Result<bool, LogError> {
        let appended = self.append(|state| Ok(make(state)?.map(Body::WalExpire)))?;
        Ok(appended.is_some())
    }

    /// Says that packs failed a check. Those that the log does not know, or knows as damaged, are passed over.
    ///
    /// # Errors
    /// Only the store's and the log's own.
    pub fn damaged(&mut self, packs: &[PackId], note: &str) -> Result<(), LogError> {
        self.append(|state| {
            let new = |number: &u32| state.pack(*number).is_some_and(|pack| !pack.damaged);
            let packs: super::Numbers = packs.iter().filter_map(|&id| state.number_of(id)).filter(new).collect();
            Ok((!packs.is_empty()).then(|| Body::Damage { packs, note: note.to_owned() }))
        })?;
        Ok(())
    }

    /// Remembers something of a key slot (`Some`), or that it was removed.
    ///
    /// # Errors
    /// Only the store's and the log's own.
    pub fn key_slot(&mut self, slot: SlotId, info: Option<&Value>) -> Result<(), LogError> {
        self.append(|state| {
            let there = state.key_slots().get(&slot).map(|found| &found.info) == info;
            let body = Body::KeySlot { slot, present: info.is_some(), info: info.cloned().unwrap_or_default() };
            Ok((!there).then_some(body))
        })?;
        Ok(())
    }

    /// A person says that the present time is right although a record claims a later one.
    ///
    /// # Errors
    /// Only the store's and the log's own.
    pub fn accept_clock(&mut self, note: &str) -> Result<(), LogError> {
        let now = self.now();
        self.append(|state| {
            let behind = state.newest_time().is_some_and(|newest| now < newest);
            Ok(behind.then(|| Body::Clock { note: note.to_owned() }))
        })?;
        Ok(())
    }
}
