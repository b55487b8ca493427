//! The data path: workers that read each file once, and on the way check its pages, add up its checksum, compress and seal it.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::SyncSender,
    },
};

use pg_format::page::is_zero;
use repository::{Entry, Extent, FRAME_PLAIN_TARGET, FrameWriter};

use super::{
    CreateError,
    pages::{BadPage, FilePages, LiveBounds},
    scan::FoundFile,
    uncached::Uncached,
};
use crate::{
    entry::{Kind, Meta},
    progress::{Progress, step_back},
};

/// Bytes that are read at once and become one frame.
pub(crate) const EXTENT_BYTES: usize = FRAME_PLAIN_TARGET;
/// How many messages may wait for the thread that holds the session. Small: an entry of a segment of 1 GiB has 2048 extents.
pub(crate) const MESSAGES_MAX: usize = 64;

/// What a worker tells the thread that holds the session.
pub(crate) enum Message {
    /// A file is in the repository.
    Entry(Entry),
    /// Pages of a file are corrupt.
    Corrupt(Box<[u8]>, Vec<BadPage>),
    /// A worker can't go on.
    Failed(CreateError),
    /// A worker must know where WAL ends now.
    Refresh,
}

/// What all workers share.
pub(crate) struct Work<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) files: &'a [FoundFile],
    /// The next file that nobody has begun.
    pub(crate) next: AtomicUsize,
    pub(crate) bounds: &'a LiveBounds,
    pub(crate) block_size: usize,
    pub(crate) segment_blocks: u32,
    pub(crate) reads: Uncached,
    pub(crate) progress: &'a dyn Progress,
    /// Somebody failed: everybody ends.
    pub(crate) stop: AtomicBool,
    pub(crate) bytes_done: AtomicU64,
    pub(crate) files_done: AtomicU64,
}

impl Work<'_> {
    /// One worker: until no file is left, or somebody failed.
    pub(crate) fn run(&self, mut writer: FrameWriter, session: &SyncSender<Message>) {
        if let Err(error) = self.all(&mut writer, session) {
            self.stop.store(true, Ordering::Release);
            // Whoever listens has ended only after a failure of its own.
            let _ = session.send(Message::Failed(error));
        }
    }

    fn all(&self, writer: &mut FrameWriter, session: &SyncSender<Message>) -> Result<(), CreateError> {
        let mut buffer = vec![0; EXTENT_BYTES];
        while !self.stop.load(Ordering::Acquire) {
            let Some(file) = self.files.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            let entry = self.file(file, writer, session, &mut buffer)?;
            self.files_done.fetch_add(1, Ordering::Relaxed);
            if let Some(entry) = entry
                && session.send(Message::Entry(entry)).is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `None` for a file that has gone: its relation was dropped, and the WAL of the backup says so too.
    fn file(
        &self,
        found: &FoundFile,
        writer: &mut FrameWriter,
        session: &SyncSender<Message>,
        buffer: &mut [u8],
    ) -> Result<Option<Entry>, CreateError> {
        let path = self.data_dir.join(OsStr::from_bytes(&found.path));
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CreateError::io("open", path)(error)),
        };
        let fail = |what| CreateError::io(what, &path);
        let metadata = file.metadata().map_err(fail("look at"))?;
        let first_block = found.relation.and_then(|relation| relation.first_block(self.segment_blocks));
        let mut pages = first_block.map(|first_block| FilePages {
            file: &file,
            bounds: self.bounds,
            block_size: self.block_size,
            first_block,
            session,
            corrupt: 0,
        });
        let mut content = Content::default();
        // Not beyond its length of now: a file that grows as fast as it is read would never end, and what is new is in WAL.
        while content.size < metadata.len() {
            if self.stop.load(Ordering::Acquire) || !step_back(self.progress) {
                return Err(CreateError::Cancelled);
            }
            let left = usize::try_from(metadata.len() - content.size).unwrap_or(usize::MAX);
            let wanted = left.min(buffer.len());
            let count = self.reads.read_full(&file, &mut buffer[..wanted], content.size).map_err(fail("read"))?;
            let bytes = &mut buffer[..count];
            if let Some(pages) = &mut pages {
                let corrupt = pages.check(content.size, bytes);
                if !corrupt.is_empty() && session.send(Message::Corrupt(found.path.clone(), corrupt)).is_err() {
                    return Err(CreateError::Cancelled);
                }
            }
            content.add(bytes, writer)?;
            self.bytes_done.fetch_add(count as u64, Ordering::Relaxed);
            // Truncated meanwhile.
            if count < wanted {
                break;
            }
        }
        let meta = Meta {
            kind: Kind::File,
            mode: metadata.permissions().mode() & 0o7777,
            modified: metadata.mtime(),
            crc32c: content.crc32c,
        };
        Ok(Some(content.into_entry(found.path.to_vec(), meta)))
    }
}

/// Content on its way into the repository.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) crc32c: u32,
    extents: Vec<Extent>,
}

impl Content {
    /// Adds the next bytes as one extent.
    pub(crate) fn add(&mut self, bytes: &[u8], writer: &mut FrameWriter) -> Result<(), CreateError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.size += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        if !is_zero(bytes) {
            self.extents.push(Extent::Frame(writer.put(bytes)?));
        } else if let Some(Extent::Zero { len }) = self.extents.last_mut() {
            *len += bytes.len() as u64;
        } else {
            self.extents.push(Extent::Zero { len: bytes.len() as u64 });
        }
        Ok(())
    }

    pub(crate) fn into_entry(self, name: Vec<u8>, mut meta: Meta) -> Entry {
        meta.crc32c = self.crc32c;
        Entry { name, meta: meta.to_bytes(), size: self.size, extents: self.extents }
    }
}

/// Opens for reading, without changing its access time where that is allowed.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOATIME.bits()).unwrap_or(0);
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // Only the owner may.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        result => result,
    }
}
