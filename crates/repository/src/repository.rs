//! The facade: a repository, opened with a secret.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    error::RepositoryError,
    frame::FRAME_PLAIN_MAX,
    holder::Holder,
    id::{BackupId, RepositoryId, SessionId},
    key::{KdfCost, KeyError, KeyStore, Opened, Secret},
    log::{
        Collected, Expired, Footprint, KeyTip, Log, LogError, Opening, Purpose, RollbackAlarm, Seen, State, TipMemory,
    },
    manifest::ENTRIES_MAX,
    pack::{self, PACK_TARGET},
    reader::{BackupReader, read_root},
    record::BackupRecord,
    repository_keys::{RepositoryKeys, newest_in},
    seal::{Keys, RecordSeal},
    session::{Session, SessionInfo},
    store::Store,
    vault::{Vault, pack_object},
};

/// How often a session begins anew because a backup that it wanted to share with expired meanwhile.
const BEGIN_ATTEMPTS: usize = 5;

/// How a repository is opened or made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file in which this host remembers the newest record that it saw. Without it, an older copy put in the repository's place
    /// goes unnoticed.
    pub remembered: Option<PathBuf>,
    /// What a guess at a passphrase of new slots costs.
    pub cost: KdfCost,
    /// At how many bytes packs are closed; at most [`PACK_TARGET`]. Smaller only makes sense in tests.
    pub pack_target: usize,
    /// How large a backup may become.
    pub limits: Limits,
}

/// How large one backup may become. Lower ones only make sense in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most entries; at most [`ENTRIES_MAX`].
    pub entries: u64,
    /// The longest root of a manifest, in bytes; at most [`FRAME_PLAIN_MAX`].
    pub root_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: ENTRIES_MAX, root_bytes: FRAME_PLAIN_MAX }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { remembered: None, cost: KdfCost::RECOMMENDED, pack_target: PACK_TARGET, limits: Limits::default() }
    }
}

pub(crate) struct Inner {
    pub(crate) vault: Arc<Vault>,
    pub(crate) pack_target: usize,
    pub(crate) limits: Limits,
    log: Mutex<Log>,
    pub(crate) key_store: KeyStore,
    opened: Mutex<Opened>,
    pub(crate) cost: KdfCost,
    memory: Option<TipMemory>,
}

impl Inner {
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key_store(&self) -> &KeyStore {
        &self.key_store
    }

    /// This process, for its holds.
    pub(crate) fn holder(&self) -> Holder {
        let remembered = self.memory.as_ref().and_then(|memory| memory.load().ok().flatten());
        Holder::this(remembered.and_then(|remembered| remembered.mark))
    }

    /// As with records: a memory that can't be written must not keep anything from being done.
    pub(crate) fn remember_keys(&self, keys: KeyTip) {
        if let Some(memory) = &self.memory
            && let Err(error) = memory.store_keys(self.vault.keys.ring().repository, keys)
        {
            tracing::warn!(%error, "the newest keys are not remembered");
        }
    }
}

/// A repository. Clones are the same repository; threads may share it.
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("id", &self.id())
            .field("store", &self.inner.vault.store)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Makes a repository in an empty place. `label` names the secret's slot for people. When it was interrupted, it goes on with the
    /// same secret.
    ///
    /// # Errors
    /// There is one already; the store failed.
    pub fn create(
        store: Arc<dyn Store>,
        options: &Options,
        secret: &Secret,
        label: &str,
        info: Value,
    ) -> Result<Self, RepositoryError> {
        let key_store = KeyStore(Arc::clone(&store));
        let opened = match key_store.create(secret, options.cost, label) {
            Ok(opened) => opened,
            // Keys without a log are all that an interrupted creation leaves.
            Err(exists @ KeyError::Exists { .. }) => match store.size(&crate::log::record_name(0))? {
                Some(_) => return Err(exists.into()),
                None => key_store.open(secret, None)?,
            },
            Err(error) => return Err(error.into()),
        };
        let tip = opened.tip;
        let made = Self::join(store, options, opened, |store, seal, memory, id| {
            Log::create(store, seal, clock(), memory, id, info)
        })?;
        made.inner.remember_keys(tip);
        Ok(made)
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// There is none; no slot opens; its log is damaged or older than what this host has seen.
    pub fn open(store: Arc<dyn Store>, options: &Options, secret: &Secret) -> Result<Self, RepositoryError> {
        let memory = options.remembered.clone().map(TipMemory::new);
        let remembered = memory.as_ref().map(TipMemory::load).transpose()?.flatten();
        let seen = remembered.and_then(|remembered| remembered.keys);
        let opened = KeyStore(Arc::clone(&store)).open(secret, seen).map_err(|error| match (error, seen) {
            (KeyError::WentBack { place, found }, Some(seen)) => {
                let (remembered, memory) = (Seen::Keys(seen), options.remembered.clone().unwrap_or_default());
                LogError::from(Box::new(RollbackAlarm { place, found, remembered, memory })).into()
            }
            (error, _) => RepositoryError::from(error),
        })?;
        let tip = opened.tip;
        let repository =
            Self::join(store, options, opened, |store, seal, memory, _| Log::open(store, seal, clock(), memory))?;
        let (said, keyed) = (repository.inner.log().state().repository(), repository.id());
        if said != Some(keyed) {
            let what = format!("its log belongs to another repository than its keys, {keyed}");
            return Err(RepositoryError::Damaged { object: "log/000000000000".to_owned(), what });
        }
        repository.inner.remember_keys(tip);
        if let Some(told) = repository.with_state(newest_in).filter(|told| *told > repository.inner.opened().generation)
        {
            // No alarm: whoever holds nothing but an incomplete copy must still be able to restore from it.
            tracing::warn!(
                told,
                newest = tip.generation,
                "the log tells of newer keys than are there: removed secrets may open the repository again; see `oxpecker backup check`"
            );
        }
        Ok(repository)
    }

    fn join(
        store: Arc<dyn Store>,
        options: &Options,
        opened: Opened,
        log: impl FnOnce(Arc<dyn Store>, Arc<dyn RecordSeal>, Option<TipMemory>, RepositoryId) -> Result<Log, LogError>,
    ) -> Result<Self, RepositoryError> {
        let keys = Arc::new(Keys::new(opened.keys.clone()));
        let seal: Arc<dyn RecordSeal> = Arc::clone(&keys) as Arc<dyn RecordSeal>;
        let memory = options.remembered.clone().map(TipMemory::new);
        let log = log(Arc::clone(&store), seal, memory, opened.keys.repository)?;
        let inner = Inner {
            vault: Arc::new(Vault::new(Arc::clone(&store), keys)),
            pack_target: options.pack_target,
            limits: options.limits,
            log: Mutex::new(log),
            key_store: KeyStore(store),
            opened: Mutex::new(opened),
            cost: options.cost,
            memory: options.remembered.clone().map(TipMemory::new),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.inner.vault.keys.ring().repository
    }

    /// How a person calls the place where it lies.
    pub fn describe(&self) -> String {
        self.inner.vault.store.describe()
    }

    /// Bytes that can still be written there, where the store knows it.
    pub fn free_bytes(&self) -> Option<u64> {
        self.inner.vault.store.free_bytes()
    }

    /// What was told when it was made.
    pub fn info(&self) -> Value {
        self.with_state(|state| state.info().clone())
    }

    /// Reads what others have appended to its log.
    ///
    /// # Errors
    /// The store failed, or a record is damaged.
    pub fn refresh(&self) -> Result<(), RepositoryError> {
        self.inner.log().refresh()?;
        Ok(())
    }

    /// Looks at the state as of the newest record that was read: sessions, backups, packs.
    pub fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(self.inner.log().state())
    }

    /// The log, for what this facade does not wrap: `policy`, pins, the clock's correction.
    pub fn with_log<T>(&self, work: impl FnOnce(&mut Log) -> T) -> T {
        work(&mut self.inner.log())
    }

    /// All committed backups, oldest first. Call [`Repository::refresh`] before, where others write too.
    pub fn backups(&self) -> Vec<BackupRecord> {
        self.with_state(|state| {
            let complete = state.backups().iter().filter(|(_, backup)| backup.complete);
            let mut backups: Vec<_> = complete.map(|(id, backup)| BackupRecord::new(*id, backup)).collect();
            backups.sort_by_key(|backup| backup.committed);
            backups
        })
    }

    /// The backup that `text` names: its id, the first digits of it, or `latest`.
    ///
    /// # Errors
    /// It names none or several.
    pub fn find(&self, text: &str) -> Result<BackupRecord, RepositoryError> {
        let mut fitting = self.backups();
        if text == "latest" {
            let newest = fitting.len().saturating_sub(1);
            fitting.drain(..newest);
        } else {
            fitting.retain(|backup| !text.is_empty() && backup.id.to_string().starts_with(text));
        }
        let found = fitting.len();
        match fitting.pop() {
            Some(backup) if found == 1 => Ok(backup),
            _ => Err(RepositoryError::Ambiguous { text: text.to_owned(), found }),
        }
    }

    /// Begins a backup. Frames are shared with the cluster's newest backup and with drafts; both are kept from expiring meanwhile.
    ///
    /// # Errors
    /// Another session backs up this cluster and `take_over` is not set; the store or the log failed.
    #[expect(clippy::needless_pass_by_value, reason = "a session is begun with it, once")]
    pub fn begin(&self, info: SessionInfo) -> Result<Session, RepositoryError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_begin(&info) {
                // A base expired between the look and the record.
                Err(RepositoryError::Log(LogError::Refused(crate::log::Refusal::NoBackup { .. })))
                    if attempt < BEGIN_ATTEMPTS => {}
                other => return other,
            }
        }
    }

    fn try_begin(&self, info: &SessionInfo) -> Result<Session, RepositoryError> {
        let id = SessionId::random()?;
        let mut log = self.inner.log();
        let state = log.refresh()?;
        let newest = state.newest_of(&info.cluster).map(|(id, backup)| (id, backup.manifest.clone()));
        let drafts = state.backups().iter().filter(|(_, b)| !b.complete && b.cluster == info.cluster);
        let drafts = drafts.map(|(id, backup)| (*id, backup.manifest.clone()));
        let bases: Vec<(BackupId, Value)> = newest.into_iter().chain(drafts).collect();
        let over = state.writer_of(&info.cluster).map(|(session, _)| session).filter(|_| info.take_over);
        let opening = Opening {
            session: id,
            purpose: Purpose::Backup,
            cluster: info.cluster.clone(),
            bases: bases.iter().map(|(id, _)| *id).collect(),
            info: info.info.clone(),
        };
        log.begin(&opening, over)?;
        let shareable: std::collections::HashSet<_> =
            log.state().packs().values().map(|pack| pack.id).filter(|id| log.state().is_shareable(*id)).collect();
        drop(log);
        let roots: Vec<_> = bases
            .iter()
            .filter_map(|(backup, manifest)| match read_root(&self.inner.vault, manifest) {
                Ok(root) => Some(root),
                Err(error) => {
                    tracing::warn!(%backup, %error, "an earlier backup can't be read; nothing is shared with it");
                    None
                }
            })
            .collect();
        let shareable = |pack| shareable.contains(&pack);
        Session::new(Arc::clone(&self.inner), id, info.cluster.clone(), &roots, &shareable)
    }

    /// Opens a backup for reading.
    ///
    /// # Errors
    /// There is no such backup, or its manifest can't be read.
    pub fn read(&self, backup: BackupId) -> Result<BackupReader, RepositoryError> {
        let (record, manifest) = self.with_state(|state| {
            let found = state.backups().get(&backup).filter(|found| found.complete);
            let found = found.ok_or(RepositoryError::NoBackup { backup })?;
            Ok::<_, RepositoryError>((BackupRecord::new(backup, found), found.manifest.clone()))
        })?;
        BackupReader::new(&self.inner.vault, record, &manifest)
    }

    /// Attaches a proof's receipt to a backup. It is sealed like every record: only who holds the keys can make one.
    ///
    /// # Errors
    /// There is no such backup; the store or the log failed.
    pub fn add_proof(&self, backup: BackupId, passed: bool, receipt: &Value) -> Result<(), RepositoryError> {
        Ok(self.inner.log().prove(backup, passed, receipt)?)
    }

    /// Lets backups expire, together or not at all; what only they needed goes with the next [`Repository::collect`].
    ///
    /// # Errors
    /// One of them is needed (the last proven one, one that a session holds), or the clock is behind the newest record.
    pub fn expire(&self, backups: &[Expired]) -> Result<usize, RepositoryError> {
        Ok(self.inner.log().expire(backups)?)
    }

    /// Removes packs that nobody needs, also those of sessions that ended without a commit. Holds whose process is gone are released
    /// before, so that what they kept can expire.
    ///
    /// # Errors
    /// The store or the log failed. Run again, it goes on.
    pub fn collect(&self) -> Result<Collected, RepositoryError> {
        for hold in self.release_dead_holds()? {
            tracing::info!(session = %hold.session, "released the hold of a process that is gone");
        }
        let mut collected = self.inner.log().collect(&pack_object)?;
        let vault = &self.inner.vault;
        let mut found = Vec::new();
        vault
            .store
            .list("pack/", &mut |name, size| found.extend(pack::pack_of(name.as_str()).map(|pack| (pack, size))))?;
        for (id, size) in found {
            if self.with_state(|state| state.number_of(id).is_some()) {
                continue;
            }
            // What does not open is not ours to remove: the check names it.
            let Ok((session, _)) = vault.footer(id, size) else { continue };
            // Judged after it was seen: a session that has ended by now never commits it.
            let footprint = self.inner.log().refresh()?.footprint(session, id);
            if footprint == Footprint::Orphan {
                vault.store.delete(&pack_object(id))?;
                collected.removed += 1;
                collected.bytes += size;
            }
        }
        Ok(collected)
    }

    /// The keys.
    pub fn keys(&self) -> RepositoryKeys<'_> {
        RepositoryKeys::of(&self.inner)
    }

    /// A recovery key was exported and confirmed. Whoever calls a repository *protected* asks this, and where it lies.
    pub fn is_recoverable(&self) -> bool {
        self.inner.opened().is_recoverable()
    }
}

fn clock() -> crate::log::Clock {
    Arc::new(Timestamp::now)
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("store", &self.vault.store).finish_non_exhaustive()
    }
}
