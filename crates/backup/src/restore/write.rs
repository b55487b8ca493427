//! The data path of a restore: workers that fetch frames, check them and write files.

use std::{
    fs::{File, OpenOptions},
    io,
    num::NonZeroU64,
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, fchown},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender},
    },
};

use repository::{BackupReader, Entry, Extent, FrameRef};

use super::RestoreError;
use crate::progress::{Progress, step_back};

/// Files longer than this are written by several workers at once, in parts of this length.
pub(super) const PART_BYTES: u64 = 64 << 20;
/// Frames that are fetched between two looks at [`Progress`].
const FRAMES_AT_ONCE: usize = 8;
/// How many jobs may wait. A part of a file has some 130 extents.
pub(super) const JOBS_MAX: usize = 64;
/// What is read at once of a file that an interrupted restore left.
const REREAD_BYTES: usize = 1 << 20;

/// Who the files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A file that is to be.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// As read from the source.
    pub(super) crc32c: u32,
}

/// A file that several workers write.
#[derive(Debug)]
pub(super) struct Shared {
    target: Target,
    file: File,
    left: AtomicUsize,
    /// CRC and length of each part.
    parts: Mutex<Vec<Option<(u32, u64)>>>,
}

/// Something for a worker to do.
pub(super) enum Job {
    /// A whole file.
    Whole(Target, Vec<Extent>),
    /// Part `index` of a file, from `offset` on.
    Part { shared: Arc<Shared>, index: usize, offset: u64, extents: Vec<Extent> },
}

/// What all workers share.
pub(super) struct Work<'a> {
    pub(super) reader: &'a BackupReader,
    pub(super) owner: Option<Ids>,
    /// Files may be there already, whole or not.
    pub(super) continues: bool,
    pub(super) progress: &'a dyn Progress,
    pub(super) stop: AtomicBool,
    pub(super) failed: Mutex<Option<RestoreError>>,
    pub(super) bytes_done: AtomicU64,
    pub(super) files_done: AtomicU64,
}

impl Work<'_> {
    /// One worker: until there are no jobs, or somebody failed.
    pub(super) fn run(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // Held while waiting: somebody else waits for the lock instead, which is the same.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if self.stop.load(Ordering::Acquire) {
                continue;
            }
            if let Err(error) = self.job(job) {
                self.fail(error);
            }
        }
    }

    pub(super) fn fail(&self, error: RestoreError) {
        self.stop.store(true, Ordering::Release);
        // The first is the one that matters; the others follow from it.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Hands a file to the workers, in parts where it is long. False when they have ended.
    pub(super) fn submit(&self, jobs: &SyncSender<Job>, target: Target, entry: Entry) -> Result<bool, RestoreError> {
        if entry.size <= PART_BYTES || self.continues {
            return Ok(jobs.send(Job::Whole(target, entry.extents)).is_ok());
        }
        let parts = parts(entry.extents);
        let file = create(&target.path, target.mode)?;
        let count = parts.len();
        let (left, parts_crc) = (AtomicUsize::new(count), Mutex::new(vec![None; count]));
        let shared = Arc::new(Shared { target, file, left, parts: parts_crc });
        for (index, (offset, extents)) in parts.into_iter().enumerate() {
            if jobs.send(Job::Part { shared: Arc::clone(&shared), index, offset, extents }).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn job(&self, job: Job) -> Result<(), RestoreError> {
        match job {
            Job::Whole(target, extents) => {
                if self.continues && is_whole(&target)? {
                    self.bytes_done.fetch_add(target.size, Ordering::Relaxed);
                } else {
                    let file = create(&target.path, target.mode)?;
                    let (crc, _) = self.extents(&target, &file, 0, &extents)?;
                    self.finish(&target, &file, crc)?;
                    return Ok(());
                }
                let file = File::open(&target.path).map_err(RestoreError::io("open", &target.path))?;
                self.dress(&target, &file)
            }
            Job::Part { shared, index, offset, extents } => {
                let part = self.extents(&shared.target, &shared.file, offset, &extents)?;
                shared.parts.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(part);
                if shared.left.fetch_sub(1, Ordering::AcqRel) > 1 {
                    return Ok(());
                }
                let parts = shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
                let crc = parts.iter().flatten().fold(0, |crc, (part, len)| {
                    crc32c::crc32c_combine(crc, *part, usize::try_from(*len).unwrap_or(usize::MAX))
                });
                drop(parts);
                self.finish(&shared.target, &shared.file, crc)
            }
        }
    }

    /// Writes extents from `offset` on; the CRC and length of what they hold.
    fn extents(
        &self,
        target: &Target,
        file: &File,
        offset: u64,
        extents: &[Extent],
    ) -> Result<(u32, u64), RestoreError> {
        let (mut at, mut crc) = (offset, 0);
        let mut rest = extents;
        while let Some(first) = rest.first() {
            if self.stop.load(Ordering::Acquire) || !step_back(self.progress) {
                return Err(RestoreError::Cancelled);
            }
            if let Extent::Zero { len } = first {
                crc = crc_of_zeros(crc, *len);
                at += len;
                self.bytes_done.fetch_add(*len, Ordering::Relaxed);
                rest = &rest[1..];
                continue;
            }
            let frames: Vec<FrameRef> = rest
                .iter()
                .take(FRAMES_AT_ONCE)
                .map_while(|extent| match extent {
                    Extent::Frame(frame) => Some(*frame),
                    Extent::Zero { .. } => None,
                })
                .collect();
            rest = &rest[frames.len()..];
            let begin = at;
            self.reader.frames(&frames, |_, plain| {
                crc = crc32c::crc32c_append(crc, &plain);
                file.write_all_at(&plain, at).map_err(RestoreError::io("write", &target.path))?;
                at += plain.len() as u64;
                self.bytes_done.fetch_add(plain.len() as u64, Ordering::Relaxed);
                Ok::<_, RestoreError>(())
            })?;
            start_writing(file, begin, at - begin);
        }
        Ok((crc, at - offset))
    }

    fn finish(&self, target: &Target, file: &File, crc: u32) -> Result<(), RestoreError> {
        if crc != target.crc32c {
            return Err(RestoreError::Content { path: target.path.clone(), expected: target.crc32c, found: crc });
        }
        // Zeros at the end were not written.
        file.set_len(target.size).map_err(RestoreError::io("set the length of", &target.path))?;
        self.dress(target, file)
    }

    fn dress(&self, target: &Target, file: &File) -> Result<(), RestoreError> {
        dress(file, target.mode, self.owner).map_err(RestoreError::io("set owner and mode of", &target.path))?;
        self.files_done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Has the kernel begin to write what is dirty in this range, and does not wait: else it waits until a tenth of the memory is dirty, and
/// the disk idles while frames are decompressed, only to be all that is left to wait for at the end.
///
/// `POSIX_FADV_DONTNEED` does that on Linux (mm/fadvise.c): it starts the writing of dirty pages, and drops only those that are clean, so
/// that the server which is started next still finds its files in memory. A kernel or file system that takes it otherwise only
/// makes the last [`rustix::fs::syncfs`] longer.
fn start_writing(file: &File, from: u64, len: u64) {
    if let Some(len) = NonZeroU64::new(len) {
        let _ = rustix::fs::fadvise(file, from, Some(len), rustix::fs::Advice::DontNeed);
    }
}

/// Sets owner and mode; the mode last, for a change of owner takes bits away.
pub(super) fn dress(file: &File, mode: u32, owner: Option<Ids>) -> io::Result<()> {
    if let Some(Ids { uid, gid }) = owner {
        fchown(file, Some(uid), Some(gid))?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// Creates a file, or empties the one that an interrupted restore left. Never through a link.
pub(super) fn create(path: &std::path::Path, mode: u32) -> Result<File, RestoreError> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode & 0o700).custom_flags(flags);
    options.open(path).map_err(RestoreError::io("create", path))
}

/// Parts of some [`PART_BYTES`], each with its offset.
fn parts(extents: Vec<Extent>) -> Vec<(u64, Vec<Extent>)> {
    let mut parts: Vec<(u64, Vec<Extent>)> = Vec::new();
    let (mut at, mut in_part) = (0, PART_BYTES);
    for extent in extents {
        if in_part >= PART_BYTES {
            parts.push((at, Vec::new()));
            in_part = 0;
        }
        at += extent.len();
        in_part += extent.len();
        if let Some((_, part)) = parts.last_mut() {
            part.push(extent);
        }
    }
    parts
}

/// Whether the file is there as it shall be.
fn is_whole(target: &Target) -> Result<bool, RestoreError> {
    let fail = |what| RestoreError::io(what, &target.path);
    let file = match File::open(&target.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(fail("open")(error)),
    };
    let metadata = file.metadata().map_err(fail("look at"))?;
    if !metadata.is_file() || metadata.len() != target.size {
        return Ok(false);
    }
    let mut buffer = vec![0; REREAD_BYTES.min(usize::try_from(target.size).unwrap_or(REREAD_BYTES))];
    let (mut at, mut crc) = (0, 0);
    while at < target.size {
        let count = file.read_at(&mut buffer, at).map_err(fail("read"))?;
        if count == 0 {
            return Ok(false);
        }
        crc = crc32c::crc32c_append(crc, &buffer[..count]);
        at += count as u64;
    }
    Ok(crc == target.crc32c)
}

/// The CRC with `len` zeros behind.
fn crc_of_zeros(mut crc: u32, mut len: u64) -> u32 {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while len > 0 {
        let count = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
        crc = crc32c::crc32c_append(crc, &ZEROS[..count]);
        len -= count as u64;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_file() {
        let zero = |len| Extent::Zero { len };
        let extents = vec![zero(PART_BYTES - 1), zero(2), zero(5), zero(PART_BYTES * 3), zero(1)];
        let offsets: Vec<_> = parts(extents).into_iter().map(|(offset, part)| (offset, part.len())).collect();
        assert_eq!(offsets, [(0, 2), (PART_BYTES + 1, 2), (PART_BYTES * 4 + 6, 1)]);
        assert!(parts(Vec::new()).is_empty());
    }

    #[test]
    fn zeros_count() {
        let zeros = vec![0; 200_000];
        assert_eq!(
            crc_of_zeros(crc32c::crc32c(b"abc"), 200_000),
            crc32c::crc32c_append(crc32c::crc32c(b"abc"), &zeros)
        );
        let whole = crc32c::crc32c(b"abcdef");
        assert_eq!(crc32c::crc32c_combine(crc32c::crc32c(b"abc"), crc32c::crc32c(b"def"), 3), whole);
    }

    #[test]
    fn a_half_written_file_is_told_from_a_whole_one() {
        let temp = tempfile::tempdir().unwrap();
        let target = Target { path: temp.path().join("f"), size: 3, mode: 0o600, crc32c: crc32c::crc32c(b"abc") };
        assert!(!is_whole(&target).unwrap());
        for (content, whole) in [(&b"ab"[..], false), (b"abd", false), (b"abc", true)] {
            std::fs::write(&target.path, content).unwrap();
            assert_eq!(is_whole(&target).unwrap(), whole);
        }
    }
}
