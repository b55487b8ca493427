//! `archive_command`: stores a file that PostgreSQL wants archived, and the next ones that wait, sealed side by side and put in their order.
//!
//! PostgreSQL calls it once for each file and goes on when it says that the file is stored. So a push may be repeated for ever; the same again is
//! one small read, something else under the same name an error that stops the archiving until a person has looked. Files ahead are pushed only by a
//! push that stored its own anew: the calls for them follow, find them there, and do not look ahead themselves. Nothing need be remembered
//! between two calls.

mod check;

use std::{
    collections::VecDeque,
    fs,
    io::{self, Read as _},
    ops::Range,
    path::{Path, PathBuf},
    thread,
};

use pg_format::wal::{SegmentName, WalFile};
use repository::{
    Repository,
    wal::{SealedSegment, Stored, Wal, WalError},
};

use crate::{
    Cluster, ClusterError, data_dir_of, get,
    map::{self, MapError},
};

/// Segments that are pushed by one call at most, the one that is asked for included.
pub const AHEAD_MAX: u64 = 64;
/// Bytes of segments that are in memory at a time.
const MEMORY_MAX: u64 = 128 << 20;
/// The most bytes of a history or a backup's note.
const SMALL_MAX: u64 = 1 << 20;

/// A push failed: PostgreSQL tries it again, and keeps the file until then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The path does not lie in a data directory.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// It is no file that PostgreSQL archives.
    #[error(
        "{} is no file of WAL\n  hint: archive_command = 'oxpecker wal push %p'; only segments, .partial, .history and .backup files are archived",
        path.display()
    )]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("can't read {}: {source}\n  hint: see that this user may read it; PostgreSQL gives the path from its data directory", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what its name says.
    #[error("{}: {why}\n  hint: nothing was stored; see the disk, and whether something else writes into pg_wal", path.display())]
    Content {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The repository did not take it.
    #[error(transparent)]
    Store(#[from] WalError),
}

impl PushError {
    /// Something else is stored under this name: nobody but a person may decide which is right.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(WalError::Differs { .. } | WalError::Diverged { .. }))
    }
}

/// What a push is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many of the segments that wait behind are pushed too.
    pub ahead: u64,
}

impl Default for Options {
    /// Enough for a second of heavy writing, and not much to wait for.
    fn default() -> Self {
        Self { ahead: 8 }
    }
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The file's name.
    pub name: String,
    /// Whether it was there.
    pub stored: Stored,
    /// Segments behind it that were stored too.
    pub ahead: u64,
    /// What is over with what was stored, so that its page maps can be made: [`make_maps`].
    pub over: Option<Over>,
}

/// Ranges of which all WAL is there, and something behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// The timeline.
    pub timeline: u32,
    /// Their numbers; see [`map::RANGE`].
    pub ranges: Range<u64>,
}

impl Over {
    /// With the segments from `first` on, so many of them.
    fn with(first: SegmentName, count: u64) -> Option<Self> {
        // The first segment of a range ends the one before.
        let begun = |number: u64| number.div_ceil(map::RANGE);
        let (from, to) = (begun(first.number).max(1), begun(first.number.saturating_add(count)));
        (from < to).then(|| Self { timeline: first.timeline, ranges: from - 1..to - 1 })
    }
}

/// Makes the page maps that a push of `path` and `ahead` segments behind it made possible, where they are not there yet: from the stored WAL, so it takes
/// a while, and nobody should wait for it.
///
/// # Errors
/// One can't be made or stored; the others are.
pub fn make_maps(path: &Path, ahead: u64, repository: &Repository) -> Result<(), MapsError> {
    let cluster = Cluster::of_data_dir(&data_dir_of(path)).map_err(PushError::from)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(WalFile::Segment(segment)) = WalFile::parse(name, cluster.segment) else { return Ok(()) };
    let wal = cluster.open(repository).map_err(PushError::from)?;
    let Some(over) = Over::with(segment, ahead.saturating_add(1)) else { return Ok(()) };
    let mut failed = None;
    for range in over.ranges {
        let made = || -> Result<(), MapError> {
            // Of what was to be pushed ahead not all may have been there.
            let is_over = wal.has_segment(over.timeline, (range + 1).saturating_mul(map::RANGE))?;
            if is_over && !wal.has_map(over.timeline, range, map::VERSION)? {
                map::keep(&wal, over.timeline, range, &map::make(&wal, &cluster, over.timeline, range)?)?;
            }
            Ok(())
        };
        if let Err(error) = made() {
            tracing::warn!(%error, "no page map");
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Maps were not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapsError {
    /// It is not even known whose.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The last one that failed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Stores the file at `path`, as PostgreSQL gives it (`%p`).
///
/// # Errors
/// It is not stored, or not all of it.
pub fn push(path: &Path, repository: &Repository, options: &Options) -> Result<Pushed, PushError> {
    let data_dir = data_dir_of(path);
    let cluster = Cluster::of_data_dir(&data_dir)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some(file) = WalFile::parse(&name, cluster.segment) else {
        return Err(PushError::Name { path: path.to_owned() });
    };
    let wal = cluster.open(repository)?;
    let (stored, ahead) = match file {
        WalFile::Segment(segment) => push_segments(path, segment, cluster, &wal, options)?,
        WalFile::Partial(segment) => {
            let bytes = read(path, cluster.segment.bytes())?;
            check::segment(path, &bytes, segment, cluster)?;
            (wal.put_companion(segment.timeline, segment.number, "partial", &bytes)?, 0)
        }
        WalFile::BackupHistory(segment) => {
            let bytes = read(path, SMALL_MAX)?;
            (wal.put_companion(segment.timeline, segment.number, &companion_of(&name), &bytes)?, 0)
        }
        WalFile::History(timeline) => (wal.put_history(timeline, &read(path, SMALL_MAX)?)?, 0),
    };
    get::clean_after_recovery(&data_dir, path);
    let over = match file {
        WalFile::Segment(segment) if stored == Stored::Now => Over::with(segment, ahead + 1),
        _ => None,
    };
    Ok(Pushed { name, stored, ahead, over })
}

/// What the repository calls what goes with a segment: `000000010000000000000002.0000002A.backup` is its `0000002a.backup`.
pub(crate) fn companion_of(name: &str) -> String {
    name.split_once('.').map_or("", |(_, companion)| companion).to_ascii_lowercase()
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, PushError> {
    let unreadable = |source| PushError::Unreadable { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::with_capacity(usize::try_from(most.min(MEMORY_MAX)).unwrap_or(0));
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        let why = format!("it is longer than {most} bytes");
        return Err(PushError::Content { path: path.to_owned(), why });
    }
    Ok(bytes)
}

/// Reads, checks and seals a segment.
fn seal(path: &Path, segment: SegmentName, cluster: Cluster, wal: &Wal) -> Result<SealedSegment, PushError> {
    let bytes = read(path, cluster.segment.bytes())?;
    check::segment(path, &bytes, segment, cluster)?;
    Ok(wal.seal_segment(segment.timeline, segment.number, &bytes)?)
}

/// Stores a segment, and those behind it that wait. Only what becomes of the first one counts: the others' turns come.
fn push_segments(
    path: &Path,
    first: SegmentName,
    cluster: Cluster,
    wal: &Wal,
    options: &Options,
) -> Result<(Stored, u64), PushError> {
    let sealed = seal(path, first, cluster, wal)?;
    let stored = wal.put_sealed(&sealed)?;
    drop(sealed);
    if stored == Stored::Before {
        return Ok((stored, 0));
    }
    let waiting = waiting_behind(path, first, cluster, options.ahead.min(AHEAD_MAX));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let at_a_time = usize::try_from(MEMORY_MAX / cluster.segment.bytes() / 2).unwrap_or(1).clamp(1, threads);
    let mut rest = waiting.iter();
    let mut ahead = 0;
    thread::scope(|scope| {
        let begin = |(path, segment): &(PathBuf, SegmentName)| {
            let (path, segment) = (path.clone(), *segment);
            scope.spawn(move || seal(&path, segment, cluster, wal))
        };
        let mut sealing: VecDeque<_> = rest.by_ref().take(at_a_time).map(begin).collect();
        // In order, and no further than where it goes well.
        while let Some(oldest) = sealing.pop_front() {
            let put = match oldest.join() {
                Ok(Ok(sealed)) => {
                    // The next one is sealed while this one is put.
                    sealing.extend(rest.next().map(begin));
                    wal.put_sealed(&sealed).map_err(PushError::from)
                }
                Ok(Err(error)) => Err(error),
                Err(_) => break,
            };
            if let Err(error) = put {
                tracing::debug!(%error, "not pushed ahead");
                break;
            }
            ahead += 1;
        }
    });
    Ok((stored, ahead))
}

/// The segments behind `first` that PostgreSQL has marked as ready, without a hole.
fn waiting_behind(path: &Path, first: SegmentName, cluster: Cluster, most: u64) -> Vec<(PathBuf, SegmentName)> {
    let pg_wal = path.parent().unwrap_or(Path::new(""));
    let status = pg_wal.join("archive_status");
    let mut waiting = Vec::new();
    let mut segment = first;
    for _ in 0..most {
        segment = segment.next();
        let name = segment.file_name(cluster.segment);
        if !status.join(format!("{name}.ready")).exists() {
            break;
        }
        waiting.push((pg_wal.join(name), segment));
    }
    waiting
}
