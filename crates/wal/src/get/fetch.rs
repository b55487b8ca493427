//! What the repository has of a file.

use pg_format::wal::{SegmentName, WalFile};
use repository::{
    Repository,
    wal::{Segment, Wal},
};

use super::{GetError, decide::Found};
use crate::{Cluster, gap, push::companion_of};

/// The file, as PostgreSQL wants it: a segment has all of its bytes, noughts behind the last one that is stored.
pub(super) fn fetch(repository: &Repository, cluster: Cluster, file: WalFile, name: &str) -> Result<Found, GetError> {
    let wal = cluster.open(repository)?;
    let found = match file {
        WalFile::Segment(segment) => return get_segment(&wal, segment, cluster, name),
        WalFile::Partial(segment) => wal.get_companion(segment.timeline, segment.number, "partial")?,
        WalFile::BackupHistory(segment) => wal.get_companion(segment.timeline, segment.number, &companion_of(name))?,
        WalFile::History(timeline) => wal.get_history(timeline)?,
    };
    Ok(found.map_or(Found::Absent, Found::Bytes))
}

fn get_segment(wal: &Wal, segment: SegmentName, cluster: Cluster, name: &str) -> Result<Found, GetError> {
    let found = match wal.get_segment(segment.timeline, segment.number)? {
        Segment::Whole(bytes) => return Ok(Found::Bytes(bytes)),
        Segment::Beginning(mut bytes) => {
            bytes.resize(usize::try_from(cluster.segment.bytes()).unwrap_or(bytes.len()), 0);
            Found::Bytes(bytes)
        }
        Segment::Absent => Found::Absent,
    };
    // Nothing later was found; but a gap may be longer than anybody looks.
    match gap::noted(wal, segment.timeline, segment.number)? {
        Some(gap) => Err(GetError::Gap { name: name.to_owned(), from: gap.from, to: gap.to }),
        None => Ok(found),
    }
}

/// A whole segment; `None` where it is not there or not whole. For those who fetch ahead: they decide nothing.
pub(super) fn whole(wal: &Wal, segment: SegmentName) -> Result<Option<Vec<u8>>, GetError> {
    match wal.get_segment(segment.timeline, segment.number)? {
        Segment::Whole(bytes) => Ok(Some(bytes)),
        Segment::Beginning(_) | Segment::Absent => Ok(None),
    }
}
