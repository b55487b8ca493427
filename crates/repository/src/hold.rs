//! Holds: what keeps a backup from expiring while it is restored or proven, and what becomes of those whose process was killed.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

use crate::{
    error::RepositoryError,
    holder::{Holder, Standing},
    id::{BackupId, SessionId},
    log::{Opening, Purpose, Session, State},
    repository::{Inner, Repository},
};

/// Keeps a backup from expiring while it lives.
#[derive(Debug)]
pub struct Hold {
    inner: Arc<Inner>,
    session: SessionId,
}

/// A hold as the log has it, and what this host knows of its process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldRecord {
    /// Its session: what [`Repository::release_hold`] takes.
    pub session: SessionId,
    /// The backups that it keeps.
    pub backups: Vec<BackupId>,
    /// Their cluster.
    pub cluster: String,
    /// When it began, as its host's clock said. For people: no age ends a hold.
    pub since: Timestamp,
    /// Whose it is; `None` where that was not written down.
    pub holder: Option<Holder>,
    /// What its maker told.
    pub told: Value,
    /// Whether its process still runs, as far as this host can know.
    pub standing: Standing,
}

impl HoldRecord {
    fn new(id: SessionId, session: &Session, this: &Holder) -> Self {
        let holder = Holder::deserialize(&session.info["holder"]).ok();
        let standing = holder.as_ref().map_or(Standing::Unknown, |holder| this.judge(holder));
        // Before holders were written down, all was what the maker told.
        let told = session.info.get("told").unwrap_or(&session.info).clone();
        Self {
            session: id,
            backups: session.bases.clone(),
            cluster: session.cluster.clone(),
            since: session.time,
            holder,
            told,
            standing,
        }
    }
}

fn holds_in(state: &State, this: &Holder) -> Vec<HoldRecord> {
    let of_readers = state.sessions().iter().filter(|(_, session)| session.purpose == Purpose::Hold);
    let mut holds: Vec<_> =
        of_readers.map(|(id, session)| (session.opened, HoldRecord::new(*id, session, this))).collect();
    holds.sort_by_key(|(opened, _)| *opened);
    holds.into_iter().map(|(_, hold)| hold).collect()
}

impl Repository {
    /// Keeps a backup from expiring until the hold is released: for a restore or a proof. `told` is kept with it, for people.
    ///
    /// # Errors
    /// There is no such backup; the store or the log failed.
    pub fn hold(&self, backup: BackupId, told: Value) -> Result<Hold, RepositoryError> {
        let session = SessionId::random()?;
        let mut info = json!({ "holder": self.inner.holder() });
        info["told"] = told;
        let mut log = self.inner.log();
        let found = log.refresh()?.backups().get(&backup).map(|found| found.cluster.clone());
        let cluster = found.ok_or(RepositoryError::NoBackup { backup })?;
        log.begin(&Opening { session, purpose: Purpose::Hold, cluster, bases: vec![backup], info }, None)?;
        Ok(Hold { inner: Arc::clone(&self.inner), session })
    }

    /// All holds, oldest first. Call [`Repository::refresh`] before, where others write too.
    pub fn holds(&self) -> Vec<HoldRecord> {
        let this = self.inner.holder();
        self.with_state(|state| holds_in(state, &this))
    }

    /// Releases the holds whose process certainly is gone: see [`Standing::Gone`]. Returns them. [`Repository::collect`] does it by
    /// itself; whoever plans what expires calls it before the plan.
    ///
    /// # Errors
    /// The store or the log failed. Run again, it goes on.
    pub fn release_dead_holds(&self) -> Result<Vec<HoldRecord>, RepositoryError> {
        self.refresh()?;
        let mut dead = self.holds();
        dead.retain(|hold| hold.standing == Standing::Gone);
        for hold in &dead {
            self.inner.log().close(hold.session, "its process is gone")?;
        }
        Ok(dead)
    }

    /// Releases one hold, because a person says that its process is dead. What it kept may expire from then on: should the process
    /// live all the same, its restore ends with an error, never with wrong content.
    ///
    /// # Errors
    /// There is no such hold; its process runs on this host; the store or the log failed.
    pub fn release_hold(&self, session: SessionId) -> Result<HoldRecord, RepositoryError> {
        self.refresh()?;
        let found = self.holds().into_iter().find(|hold| hold.session == session);
        let hold = found.ok_or(RepositoryError::NoHold { session })?;
        if let (Standing::Running, Some(holder)) = (hold.standing, &hold.holder) {
            return Err(RepositoryError::HoldRuns { session, pid: holder.pid });
        }
        self.inner.log().close(session, "released by hand")?;
        Ok(hold)
    }
}

impl Hold {
    /// Its session, for whoever cleans up after a killed process.
    pub fn session(&self) -> SessionId {
        self.session
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Err(error) = self.inner.log().close(self.session, "done") {
            tracing::warn!(%error, session = %self.session, "a hold on a backup could not be released; a prune does it once this process has ended");
        }
    }
}
