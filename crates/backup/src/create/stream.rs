//! Files that come as one stream: parted into extents, which workers check, hash, compress and seal at the same time, and put together again.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
};

use pg_format::{
    files::RelationFile,
    page::{Bounds, Corruption, PageVerdict, is_zero, verify},
    wal::{Fork, Relation},
};
use repository::{Entry, Extent, FrameWriter, Session};

use super::{CreateError, tally::Tally};
use crate::entry::{Kind, Meta};

/// Extents that may wait for a worker: with those in work and two in the reader's hands, all the memory that the stream takes.
pub(super) const CHUNKS_MAX: usize = 8;
/// Suspected pages that are remembered until WAL was read; a source with more is damaged as a whole.
const SUSPECTS_MAX: usize = 100_000;

/// A piece of a file on its way to a worker.
pub(super) struct Chunk {
    pub(super) file: u64,
    pub(super) index: usize,
    pub(super) bytes: Vec<u8>,
    /// Where its first page is, in a relation's file.
    pub(super) pages: Option<(RelationFile, u32)>,
}

/// A page that is not in order as it came: torn, and then in WAL, or corrupt.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) path: Vec<u8>,
    pub(super) why: Corruption,
}

/// A page by its place.
pub(super) type PageKey = (Relation, Fork, u32);

struct Pending {
    name: Vec<u8>,
    meta: Meta,
    size: u64,
    /// With the CRC and length of each.
    extents: Vec<Option<(Extent, u32)>>,
    left: usize,
    /// No more will come.
    closed: bool,
}

/// What reader and workers share.
pub(super) struct Assembly<'a> {
    pub(super) session: &'a Session,
    pub(super) bounds: Bounds,
    pub(super) block_size: usize,
    pub(super) stop: AtomicBool,
    files: Mutex<HashMap<u64, Pending>>,
    tally: Mutex<Tally>,
    suspects: Mutex<HashMap<PageKey, Suspect>>,
    failed: Mutex<Option<CreateError>>,
    /// Buffers that can be used again.
    spare: Mutex<Vec<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Assembly<'a> {
    pub(super) fn new(session: &'a Session, bounds: Bounds, block_size: usize) -> Self {
        Self {
            session,
            bounds,
            block_size,
            stop: AtomicBool::new(false),
            files: Mutex::default(),
            tally: Mutex::default(),
            suspects: Mutex::default(),
            failed: Mutex::default(),
            spare: Mutex::default(),
        }
    }

    /// A file begins.
    pub(super) fn open(&self, file: u64, name: Vec<u8>, meta: Meta) {
        let pending = Pending { name, meta, size: 0, extents: Vec::new(), left: 0, closed: false };
        lock(&self.files).insert(file, pending);
    }

    /// A chunk of it is about to go to a worker; returns its index.
    pub(super) fn announce(&self, file: u64, len: usize) -> usize {
        let mut files = lock(&self.files);
        let Some(pending) = files.get_mut(&file) else { return 0 };
        pending.left += 1;
        pending.size += len as u64;
        pending.extents.push(None);
        pending.extents.len() - 1
    }

    /// It ended.
    pub(super) fn close(&self, file: u64) -> Result<(), CreateError> {
        let done = {
            let mut files = lock(&self.files);
            match files.get_mut(&file) {
                Some(pending) if pending.left > 0 => {
                    pending.closed = true;
                    None
                }
                _ => files.remove(&file),
            }
        };
        done.map_or(Ok(()), |pending| self.keep(pending))
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        lock(&self.spare).pop().unwrap_or_default()
    }

    /// One worker: until there are no chunks.
    pub(super) fn run(&self, chunks: &Mutex<Receiver<Chunk>>, writer: &mut FrameWriter) {
        loop {
            let chunk = lock(chunks).recv();
            let Ok(chunk) = chunk else { return };
            if self.stop.load(Ordering::Acquire) {
                continue;
            }
            if let Err(error) = self.chunk(chunk, writer) {
                self.stop.store(true, Ordering::Release);
                lock(&self.failed).get_or_insert(error);
            }
        }
    }

    fn chunk(&self, chunk: Chunk, writer: &mut FrameWriter) -> Result<(), CreateError> {
        let Chunk { file, index, mut bytes, pages } = chunk;
        let crc = crc32c::crc32c(&bytes);
        if let Some((relation, block)) = pages {
            self.pages(file, &relation, block, &bytes);
        }
        let extent =
            if is_zero(&bytes) { Extent::Zero { len: bytes.len() as u64 } } else { Extent::Frame(writer.put(&bytes)?) };
        bytes.clear();
        lock(&self.spare).push(bytes);
        let done = {
            let mut files = lock(&self.files);
            let Some(pending) = files.get_mut(&file) else { return Ok(()) };
            pending.extents[index] = Some((extent, crc));
            pending.left -= 1;
            if pending.left == 0 && pending.closed { files.remove(&file) } else { None }
        };
        done.map_or(Ok(()), |pending| self.keep(pending))
    }

    /// Looks at pages. What is not in order can't be read again: WAL will say whether it was torn.
    fn pages(&self, file: u64, relation: &RelationFile, first: u32, bytes: &[u8]) {
        // A free space map is neither in WAL nor trusted: the server mends it when it reads it.
        if relation.fork == Fork::FreeSpaceMap {
            return;
        }
        for (page, block) in bytes.chunks_exact(self.block_size).zip(first..) {
            let PageVerdict::Corrupt(why) = verify(page, block, &self.bounds) else { continue };
            let path = lock(&self.files).get(&file).map(|pending| pending.name.clone()).unwrap_or_default();
            let mut suspects = lock(&self.suspects);
            if suspects.len() < SUSPECTS_MAX {
                suspects.insert((relation.relation, relation.fork, block), Suspect { path, why });
            }
        }
    }

    fn keep(&self, pending: Pending) -> Result<(), CreateError> {
        let mut crc32c = 0;
        let mut extents = Vec::with_capacity(pending.extents.len());
        for (extent, crc) in pending.extents.into_iter().flatten() {
            crc32c = crc32c::crc32c_combine(crc32c, crc, usize::try_from(extent.len()).unwrap_or(usize::MAX));
            extents.push(extent);
        }
        let meta = Meta { crc32c, ..pending.meta };
        let entry = Entry { name: pending.name, meta: meta.to_bytes(), size: pending.size, extents };
        if meta.kind == Kind::File {
            lock(&self.tally).count(&entry);
        }
        Ok(self.session.entry(&entry)?)
    }

    /// What a worker failed with.
    pub(super) fn failure(&self) -> Option<CreateError> {
        lock(&self.failed).take()
    }

    /// Whether all files that were closed are stored.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.files).values().all(|pending| !pending.closed)
    }

    /// A page that WAL writes anew is not corrupt, whatever came.
    pub(super) fn clear(&self, page: &PageKey) {
        lock(&self.suspects).remove(page);
    }

    pub(super) fn has_suspects(&self) -> bool {
        !lock(&self.suspects).is_empty()
    }

    /// What is left at the end.
    pub(super) fn into_parts(self) -> (Tally, HashMap<PageKey, Suspect>) {
        let tally = self.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        (tally, self.suspects.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
