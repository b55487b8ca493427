//! Writing a backup: many threads, each with its own writer, one commit.
//!
//! Memory of a session, whatever the size of the backup: one pack for each writer, [`upload::UPLOADERS`] in work and as many kept for
//! the next, one for the manifest (each about [`crate::PACK_TARGET`]); the index of known frames (32 MiB at most); entries (24 MiB at most).
//! Measured with four writers: about 150 MiB.

mod commit;
mod entries;
mod known;
mod upload;
mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use serde_json::Value;

pub use writer::FrameWriter;

use crate::{
    error::RepositoryError,
    frame::{COMPRESSION_LEVEL, Encoder, Identity, Kind},
    id::{BackupId, PackId, SessionId},
    log::{FreshPack, WalStart},
    manifest::{
        ENTRIES_MAX, Entry, Extent, FrameRef, META_MAX, NAME_MAX, RUNS_MAX, RawEntry, RawRun, Root, TableBuilder,
    },
    pack::{Locator, PACK_TARGET, PackBuilder},
    repository::Inner as RepositoryInner,
    wire::len_u32,
};
use entries::Entries;
use known::{Hit, Index, KnownFrames};
use upload::Uploader;

/// The most writers of a session at a time: each holds a pack.
pub const WRITERS_MAX: usize = 16;

/// What a new session is.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The name under which the cluster is backed up here. One live session at a time for each.
    pub cluster: String,
    /// End the live session of this cluster, whose process is dead, and go on in its place. It can't commit any more, should it live.
    pub take_over: bool,
    /// Whatever is to be remembered of the session while it lives: host, process, start.
    pub info: Value,
}

/// What a session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Packs in the store.
    pub stored_packs: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Frames that were there already.
    pub shared_frames: u64,
    /// Their plain bytes.
    pub shared_bytes: u64,
}

/// Marks a pack that is not in a table yet.
const UNPLACED: u32 = u32::MAX;

/// Where a pack of this session's numbering is listed.
#[derive(Clone, Copy, Debug)]
struct PackPlace {
    table: u32,
    index: u32,
}

/// A frame of tables that the manifest will name.
#[derive(Debug)]
enum SessionTable {
    /// This session's, still growing.
    Growing,
    /// Sealed, by this session or an earlier one.
    Sealed { place: Locator, packs: u32, ours: bool },
}

/// A pack that this session wrote.
#[derive(Clone, Copy, Debug)]
struct Written {
    fresh: FreshPack,
    /// Its number; `None`: it holds tables, pages and roots.
    number: Option<u32>,
}

struct State {
    packs: Vec<PackPlace>,
    tables: Vec<SessionTable>,
    /// For tables of the index: the number of their first pack here.
    adopted: HashMap<u32, u32>,
    growing: Option<(u32, TableBuilder)>,
    written: Vec<Written>,
    /// Packs that a dropped writer left unfinished.
    parked: Vec<(u32, PackBuilder)>,
    meta: Option<PackBuilder>,
    encoder: Encoder,
    entries: Entries,
    shared: (u64, u64),
    committed: bool,
}

struct Inner {
    repository: Arc<RepositoryInner>,
    id: SessionId,
    backup: BackupId,
    cluster: String,
    owner: u32,
    pack_target: usize,
    known: KnownFrames,
    uploader: Uploader,
    writers: AtomicUsize,
    state: Mutex<State>,
}

/// A session that writes one backup. Dropped without commit it stays open in the log, for the next one to take over: what a killed
/// process leaves looks the same.
pub struct Session {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.inner.id)
            .field("cluster", &self.inner.cluster)
            .finish_non_exhaustive()
    }
}

/// Tells sessions and readers of this process apart.
pub(crate) fn next_owner() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Session {
    /// `roots` are the manifests of the bases that the log keeps for this session.
    pub(crate) fn new(
        repository: Arc<RepositoryInner>,
        id: SessionId,
        cluster: String,
        roots: &[Root],
        shareable: &dyn Fn(PackId) -> bool,
    ) -> Result<Self, RepositoryError> {
        let index = Index::build(&repository.vault, roots, shareable);
        let state = State {
            packs: Vec::new(),
            tables: Vec::new(),
            adopted: HashMap::new(),
            growing: None,
            written: Vec::new(),
            parked: Vec::new(),
            meta: None,
            encoder: Encoder::new(COMPRESSION_LEVEL).map_err(RepositoryError::Compression)?,
            entries: Entries::new(),
            shared: (0, 0),
            committed: false,
        };
        let inner = Inner {
            id,
            backup: BackupId::random()?,
            cluster,
            owner: next_owner(),
            pack_target: repository.pack_target.min(PACK_TARGET),
            known: KnownFrames { index: Arc::new(index), recent: known::Recent::default() },
            uploader: Uploader::start(&repository.vault)?,
            writers: AtomicUsize::new(0),
            state: Mutex::new(state),
            repository,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.inner.id
    }

    /// The id that its backup will have.
    pub fn backup_id(&self) -> BackupId {
        self.inner.backup
    }

    /// A writer for one thread.
    ///
    /// # Errors
    /// There are [`WRITERS_MAX`] already, or memory for zstd is lacking.
    pub fn writer(&self) -> Result<FrameWriter, RepositoryError> {
        FrameWriter::new(&self.inner)
    }

    /// Adds an entry. Its frames come from this session's writers; any thread may call, in any order.
    ///
    /// # Errors
    /// The entry breaks a bound, or is one more than [`ENTRIES_MAX`]; a frame is not of this session. That a name came twice is found at the commit.
    pub fn entry(&self, entry: &Entry) -> Result<(), RepositoryError> {
        let raw = self.inner.raw(entry)?;
        let mut state = self.inner.lock();
        // Here and not at the commit: hours of copying would be in vain.
        if state.entries.len() >= self.inner.repository.limits.entries.min(ENTRIES_MAX) {
            return Err(self.inner.too_many(state.entries.len(), 0));
        }
        state.entries.push(&raw)
    }

    /// What it has done so far.
    pub fn counts(&self) -> SessionCounts {
        let (stored_bytes, stored_packs) = self.inner.uploader.stored();
        let (shared_frames, shared_bytes) = self.inner.lock().shared;
        SessionCounts { stored_packs, stored_bytes, shared_frames, shared_bytes }
    }

    /// Commits what is complete so far as a draft: not a backup, but after an interruption the next session of this cluster shares its
    /// frames instead of storing them again. Replaces the draft before.
    ///
    /// # Errors
    /// The store or the log failed, or the session was taken over.
    pub fn draft(&self, info: &Value) -> Result<(), RepositoryError> {
        self.inner.commit(false, BackupId::random()?, None, info)
    }

    /// Writes the manifest and commits. From its return on the backup counts. May be called again after an error.
    ///
    /// # Errors
    /// The store or the log failed; the session was closed or taken over; a name came twice.
    pub fn commit(&self, info: &Value) -> Result<BackupId, RepositoryError> {
        self.commit_with_wal(info, None)
    }

    /// As [`Session::commit`], and says which WAL leads on from the backup: none of it expires unseen while the backup is there.
    ///
    /// # Errors
    /// As there; that WAL has expired already.
    pub fn commit_with_wal(&self, info: &Value, wal: Option<WalStart>) -> Result<BackupId, RepositoryError> {
        self.inner.commit(true, self.inner.backup, wal, info)?;
        Ok(self.inner.backup)
    }

    /// Ends it without a backup. What it wrote is removed by the next collection, except what a draft holds.
    ///
    /// # Errors
    /// The store or the log failed; the session then stays open, and the next one may take it over.
    pub fn abandon(self, reason: &str) -> Result<(), RepositoryError> {
        self.inner.repository.log().close(self.inner.id, reason)?;
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry as it is kept until the commit: frames that follow one another are one run.
    fn raw(&self, entry: &Entry) -> Result<RawEntry<u32>, RepositoryError> {
        let bad = |why| RepositoryError::Entry { name: String::from_utf8_lossy(&entry.name).into_owned(), why };
        if entry.name.is_empty() || entry.name.len() > NAME_MAX {
            return Err(bad("its name is empty or too long"));
        }
        if entry.meta.len() > META_MAX {
            return Err(bad("what goes with it is too long"));
        }
        if entry.extents.iter().map(Extent::len).sum::<u64>() != entry.size {
            return Err(bad("its extents do not add up to its size"));
        }
        let mut runs: Vec<RawRun<u32>> = Vec::new();
        for extent in &entry.extents {
            match (*extent, runs.last_mut()) {
                (Extent::Zero { len: 0 }, _) => {}
                (Extent::Zero { len: more }, Some(RawRun::Zero { len })) => *len += more,
                (Extent::Zero { len }, _) => runs.push(RawRun::Zero { len }),
                (Extent::Frame(frame), _) if frame.owner != self.owner => return Err(RepositoryError::StrangeFrame),
                (Extent::Frame(frame), Some(RawRun::Frames { pack, first, count }))
                    if *pack == frame.pack && *first + *count == frame.ordinal =>
                {
                    *count += 1;
                }
                (Extent::Frame(FrameRef { pack, ordinal, .. }), _) => {
                    runs.push(RawRun::Frames { pack, first: ordinal, count: 1 });
                }
            }
        }
        if runs.len() > RUNS_MAX {
            return Err(bad("its content is in too many pieces"));
        }
        Ok(RawEntry { name: entry.name.clone(), meta: entry.meta.clone(), size: entry.size, runs })
    }

    /// A frame with these plain bytes that is there already.
    fn find(&self, identity: Identity, len: u32) -> Result<Option<FrameRef>, RepositoryError> {
        if let Some(frame) = self.known.recent.find(identity, len) {
            self.count_shared(len);
            return Ok(Some(frame));
        }
        let vault = &self.repository.vault;
        // A table that can't be read any more only costs space: its frames are stored again.
        let hit = self.known.index.find(vault, identity, len).unwrap_or_else(|error| {
            tracing::warn!(%error, "a table of an earlier backup can't be read; the frame is stored again");
            None
        });
        let Some(Hit { table, pack, ordinal }) = hit else { return Ok(None) };
        let mut state = self.lock();
        let base = state.adopt(&self.known.index, table);
        state.shared = (state.shared.0 + 1, state.shared.1 + u64::from(len));
        Ok(Some(FrameRef { owner: self.owner, pack: base + pack, ordinal, len }))
    }

    fn too_many(&self, entries: u64, root_bytes: usize) -> RepositoryError {
        let crate::repository::Limits { entries: entries_max, root_bytes: root_bytes_max } = self.repository.limits;
        RepositoryError::TooManyEntries { entries, root_bytes, entries_max, root_bytes_max }
    }

    fn count_shared(&self, len: u32) {
        let shared = &mut self.lock().shared;
        *shared = (shared.0 + 1, shared.1 + u64::from(len));
    }

    fn new_pack(&self) -> Result<PackBuilder, RepositoryError> {
        let buffer = self.uploader.buffer();
        Ok(PackBuilder::new(&self.repository.vault.keys.ring(), self.id, self.pack_target, buffer)?)
    }

    /// Closes a pack of content: lists it, and hands it to the uploader.
    fn seal_pack(&self, number: u32, builder: PackBuilder) -> Result<(), RepositoryError> {
        let pack = builder.finish();
        let mut state = self.lock();
        let fresh = FreshPack { id: pack.table.pack, bytes: pack.bytes().len() as u64 };
        state.written.push(Written { fresh, number: Some(number) });
        let (table, full, index) = state.list(&pack.table);
        state.packs[number as usize] = PackPlace { table, index };
        if full {
            self.seal_tables(&mut state)?;
        }
        drop(state);
        self.uploader.submit(pack)
    }

    /// Closes the growing frame of tables.
    fn seal_tables(&self, state: &mut State) -> Result<(), RepositoryError> {
        let Some((table, builder)) = state.growing.take() else { return Ok(()) };
        let packs = len_u32(builder.packs());
        let plain = builder.finish();
        let place = self.put_meta(state, Kind::Table, &plain)?;
        state.tables[table as usize] = SessionTable::Sealed { place, packs, ours: true };
        Ok(())
    }

    /// Stores a frame of the manifest.
    fn put_meta(&self, state: &mut State, kind: Kind, plain: &[u8]) -> Result<Locator, RepositoryError> {
        let identity = Identity::of(&self.repository.vault.keys.ring().identity(), plain);
        let mut builder = match state.meta.take() {
            Some(builder) => builder,
            None => self.new_pack()?,
        };
        let place = builder.append(kind, identity, plain, &mut state.encoder);
        state.meta = Some(builder);
        if state.meta.as_ref().is_some_and(PackBuilder::is_full) {
            self.flush_meta(state)?;
        }
        Ok(place)
    }

    fn flush_meta(&self, state: &mut State) -> Result<(), RepositoryError> {
        let Some(builder) = state.meta.take() else { return Ok(()) };
        let pack = builder.finish();
        let fresh = FreshPack { id: pack.table.pack, bytes: pack.bytes().len() as u64 };
        state.written.push(Written { fresh, number: None });
        self.uploader.submit(pack)
    }
}

impl State {
    /// A number for a new pack of content.
    fn number(&mut self) -> u32 {
        self.packs.push(PackPlace { table: UNPLACED, index: 0 });
        len_u32(self.packs.len() - 1)
    }

    /// Gives the packs of a known table numbers; returns the first.
    fn adopt(&mut self, index: &Index, known: u32) -> u32 {
        if let Some(base) = self.adopted.get(&known) {
            return *base;
        }
        let found = &index.tables[known as usize];
        let table = len_u32(self.tables.len());
        self.tables.push(SessionTable::Sealed { place: found.place, packs: found.packs, ours: false });
        let base = len_u32(self.packs.len());
        self.packs.extend((0..found.packs).map(|index| PackPlace { table, index }));
        self.adopted.insert(known, base);
        base
    }

    /// Lists a pack in the growing frame of tables: which one, whether that is full now, and the index there.
    fn list(&mut self, pack: &crate::pack::PackTable) -> (u32, bool, u32) {
        let tables = &mut self.tables;
        let (table, builder) = self.growing.get_or_insert_with(|| {
            tables.push(SessionTable::Growing);
            (len_u32(tables.len() - 1), TableBuilder::default())
        });
        let index = builder.push(pack);
        (*table, builder.is_full(), index)
    }
}
