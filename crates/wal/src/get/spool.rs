//! Segments that were fetched ahead: a directory beside the target, with at most [`AHEAD_MAX`] of them.
//!
//! Only whole segments get there, never a tail, so that nothing in it can be out of date. Each has a hash of its content and its name behind it: what a
//! kill cut off, or a disk garbled, is not used. One process fills it at a time, which a lock sees to; it may be killed at any moment.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use pg_format::wal::SegmentName;
use rustix::fs::{FlockOperation, flock};

use super::{GetError, write};
use crate::Cluster;

/// How many segments are fetched ahead by default.
pub const AHEAD_DEFAULT: u64 = 8;
/// The most: 1 GiB at the usual size.
pub const AHEAD_MAX: u64 = 64;
/// The directory's name.
const NAME: &str = "oxpecker-spool";
/// The file that is locked by whoever fills it, and says what he is about to fetch.
const LOCK: &str = "lock";
/// Bytes of the hash behind the content.
const HASH_LEN: usize = blake3::OUT_LEN;
/// How long is waited for a segment that another process is fetching at the moment. Then it is fetched once more.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often is looked whether it is there.
const LOOK: Duration = Duration::from_millis(2);
/// Threads that fetch, at most.
const THREADS_MAX: usize = 4;

/// The spool beside a target.
pub(super) struct Spool {
    path: PathBuf,
    cluster: Cluster,
}

/// Whoever fills a spool. Dropping it lets others.
pub(super) struct Filler<'a> {
    spool: &'a Spool,
    _lock: File,
    segments: Vec<SegmentName>,
}

fn directory_beside(path: &Path) -> PathBuf {
    path.with_file_name(NAME)
}

/// Removes the spool beside `path`, unless somebody fills it.
pub(super) fn remove_beside(path: &Path) {
    let directory = directory_beside(path);
    let Ok(lock) = File::open(directory.join(LOCK)) else { return };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        && let Err(error) = fs::remove_dir_all(&directory)
    {
        tracing::warn!(%error, "{} stays", directory.display());
    }
}

impl Spool {
    pub(super) fn beside(target: &Path, cluster: Cluster) -> Self {
        Self { path: directory_beside(target), cluster }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn file(&self, segment: SegmentName) -> PathBuf {
        self.path.join(segment.file_name(self.cluster.segment))
    }

    fn hash(&self, segment: SegmentName, content: &[u8]) -> [u8; HASH_LEN] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.cluster.system_identifier.to_le_bytes());
        hasher.update(segment.file_name(self.cluster.segment).as_bytes());
        *hasher.update(content).finalize().as_bytes()
    }

    /// Moves a segment to the target, if it is there and right.
    pub(super) fn serve(&self, segment: SegmentName, target: &Path) -> Result<bool, GetError> {
        let began = Instant::now();
        let path = self.file(segment);
        let failed = |source| GetError::Write { path: target.to_owned(), source };
        let mut file = loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => break file,
                Err(_) if self.is_being_fetched(segment) && began.elapsed() < WAIT_MAX => thread::sleep(LOOK),
                Err(_) => return Ok(false),
            }
        };
        let size = usize::try_from(self.cluster.segment.bytes()).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size + HASH_LEN + 1);
        let read = (&mut file).take((size + HASH_LEN + 1) as u64).read_to_end(&mut bytes);
        let right =
            read.is_ok() && bytes.len() == size + HASH_LEN && self.hash(segment, &bytes[..size]) == bytes[size..];
        if !right {
            tracing::warn!("{} is not what was written: removed, and fetched again", path.display());
            let _ = fs::remove_file(&path);
            return Ok(false);
        }
        file.set_len(size as u64).and_then(|()| file.sync_all()).map_err(failed)?;
        write::appear(&path, target).map_err(failed)?;
        Ok(true)
    }

    /// Whether less than half of what should be there behind `segment` is, and nobody is at it.
    pub(super) fn is_low(&self, segment: SegmentName, ahead: u64) -> bool {
        let there = self.there();
        let behind = there.iter().filter(|found| found.timeline == segment.timeline && found.number > segment.number);
        (behind.count() as u64) < ahead.min(AHEAD_MAX).div_ceil(2) && self.plan().is_none()
    }

    /// Segments that are there, whatever is in them.
    fn there(&self) -> Vec<SegmentName> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| SegmentName::parse(&name, self.cluster.segment)).collect()
    }

    /// What the process that fills it at the moment is about to fetch: the first and the last. `None` where nobody does.
    fn plan(&self) -> Option<(SegmentName, SegmentName)> {
        let mut lock = File::open(self.path.join(LOCK)).ok()?;
        if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut text = String::new();
        (&mut lock).take(200).read_to_string(&mut text).ok()?;
        let parse = |name: &str| SegmentName::parse(name, self.cluster.segment);
        let (first, last) = text.split_once(' ')?;
        Some((parse(first)?, parse(last)?))
    }

    fn is_being_fetched(&self, segment: SegmentName) -> bool {
        self.plan().is_some_and(|(first, last)| first <= segment && segment <= last)
    }

    /// Makes ready to fetch the `ahead` segments behind `after`, as far as they are not there, and removes what nobody will ask for.
    /// `None` where somebody else fills it.
    pub(super) fn fill(&self, after: SegmentName, ahead: u64) -> io::Result<Option<Filler<'_>>> {
        let ahead = ahead.min(AHEAD_MAX);
        fs::create_dir_all(&self.path)?;
        let mut lock = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join(LOCK))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let wanted = |segment: &SegmentName| {
            segment.timeline == after.timeline
                && segment.number > after.number
                && segment.number <= after.number.saturating_add(ahead)
        };
        let mut there = self.there();
        there.retain(|segment| wanted(segment) || fs::remove_file(self.file(*segment)).is_err());
        self.remove_unfinished();
        let all = (1..=ahead).map(|n| SegmentName { number: after.number.saturating_add(n), ..after });
        let segments: Vec<SegmentName> = all.filter(|segment| !there.contains(segment)).collect();
        let name = |segment: Option<&SegmentName>| segment.map_or(String::new(), |s| s.file_name(self.cluster.segment));
        lock.set_len(0)?;
        lock.write_all(format!("{} {}", name(segments.first()), name(segments.last())).as_bytes())?;
        Ok(Some(Filler { spool: self, _lock: lock, segments }))
    }

    /// What a killed filler left. Only he who holds the lock may.
    fn remove_unfinished(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let known = name == LOCK || SegmentName::parse(&name.to_string_lossy(), self.cluster.segment).is_some();
            if !known {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn put(&self, segment: SegmentName, mut content: Vec<u8>) -> io::Result<()> {
        let hash = self.hash(segment, &content);
        content.extend_from_slice(&hash);
        let path = self.file(segment);
        // Not synced: what a loss of power leaves of it is not used, and who serves it syncs.
        let temporary = write::unfinished(&path);
        fs::write(&temporary, &content)?;
        fs::rename(temporary, path)
    }
}

impl Filler<'_> {
    /// Fetches all, several at a time and in order, up to the first that is not there. Returns how many there were.
    pub(super) fn all(
        self,
        fetch: impl Fn(SegmentName) -> Result<Option<Vec<u8>>, GetError> + Sync,
    ) -> Result<u64, GetError> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let mut fetched = 0;
        for group in self.segments.chunks(threads) {
            let one = |segment: SegmentName| -> Result<bool, GetError> {
                let Some(content) = fetch(segment)? else { return Ok(false) };
                let failed = |source| GetError::Write { path: self.spool.file(segment), source };
                self.spool.put(segment, content).map_err(failed)?;
                Ok(true)
            };
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = group.iter().map(|segment| scope.spawn(|| one(*segment))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(false))).collect()
            });
            for result in results {
                if !result? {
                    return Ok(fetched);
                }
                fetched += 1;
            }
        }
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use pg_format::wal::SegmentSize;

    use super::*;

    const CLUSTER: Cluster = Cluster { system_identifier: 7, segment: SegmentSize::DEFAULT };

    fn segment(number: u64) -> SegmentName {
        SegmentName { timeline: 1, number }
    }

    fn content(number: u64) -> Vec<u8> {
        vec![u8::try_from(number).unwrap(); 1 << 24]
    }

    #[test]
    fn what_was_fetched_is_served_once_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("RECOVERYXLOG");
        let spool = Spool::beside(&target, CLUSTER);
        assert!(!spool.serve(segment(1), &target).unwrap() && spool.is_low(segment(1), 4));
        let filler = spool.fill(segment(1), 4).unwrap().unwrap();
        assert!(spool.fill(segment(1), 4).unwrap().is_none(), "one at a time");
        assert!(!spool.is_low(segment(1), 4), "somebody is at it");
        assert_eq!(spool.plan(), Some((segment(2), segment(5))));
        let there = |segment: SegmentName| Ok((segment.number < 5).then(|| content(segment.number)));
        assert_eq!(filler.all(there).unwrap(), 3);
        assert_eq!(spool.plan(), None);
        assert!(spool.serve(segment(2), &target).unwrap());
        assert!(fs::read(&target).unwrap() == content(2));
        assert!(!spool.serve(segment(2), &target).unwrap(), "it was moved");

        // Cut off, garbled, and another's.
        let path = spool.file(segment(3));
        let mut bytes = fs::read(&path).unwrap();
        bytes[1000] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(!spool.serve(segment(3), &target).unwrap() && !path.exists());
        fs::rename(spool.file(segment(4)), &path).unwrap();
        assert!(!spool.serve(segment(3), &target).unwrap());
        fs::write(&path, &bytes[..5000]).unwrap();
        assert!(!spool.serve(segment(3), &target).unwrap());
        assert!(fs::read(&target).unwrap() == content(2));

        // What nobody will ask for goes, and what a kill left.
        fs::write(write::unfinished(&spool.file(segment(9))), "x").unwrap();
        fs::write(spool.file(segment(1)), "x").unwrap();
        drop(spool.fill(segment(6), 2).unwrap());
        assert_eq!(fs::read_dir(&spool.path).unwrap().count(), 1, "the lock");
        remove_beside(&target);
        assert!(!spool.path.exists());
    }
}
