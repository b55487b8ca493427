//! Records along a road: commits with their times, restore points. Segment by segment, so that memory is bounded by one.

use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};
use model::Lsn;
use pg_format::{
    Major,
    wal::{Decoder, Flow, Kind, Record, SegmentName, SegmentSize, Stream, WalError as FormatError},
};
use repository::wal::{Segment, Wal, WalError};

use super::{Road, Target};

/// Segments from the end backwards in which the newest commit is looked for, at most: a server that commits nothing in a gigabyte of WAL is
/// rare, and its end is known by position all the same.
const END_SEGMENTS_MAX: u64 = 64;
/// How much older a commit may be than one that comes before it without anything being wrong: each takes its time before it gets its place,
/// and clocks are put right by a little all the time.
pub(super) const JITTER: SignedDuration = SignedDuration::from_secs(10);
/// Segments behind a time in which is looked whether the clock was set back, at most.
const BEHIND_SEGMENTS_MAX: u64 = 64;
/// Bytes of a WAL page; all but those who compile their own have this.
const PAGE_BYTES: u32 = 8192;
/// 2000-01-01, from which PostgreSQL counts, in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A moment of PostgreSQL's as one of ours; none beyond the years that there are.
fn moment(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros.checked_add(EPOCH_MICROS)?).ok()
}

/// WAL can't be read where it should be.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The repository does not give it.
    #[error(transparent)]
    Store(#[from] WalError),
    /// It makes no sense.
    #[error("{name}: {source}; hint: `oxpecker wal verify` reads all of it and says what is still reachable")]
    Format {
        /// The segment.
        name: String,
        /// What is wrong.
        source: FormatError,
    },
    /// What a listing showed is not there.
    #[error("{name} is not in the repository any more; hint: try again: it may just have expired")]
    Vanished {
        /// The segment.
        name: String,
    },
}

/// Where a road ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Where the last whole record begins.
    pub last_record: Option<Lsn>,
    /// The newest commit or abort, by the clock of the server that wrote it.
    pub newest: Option<Timestamp>,
}

/// A target as it stands in WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the record begins at which recovery stops.
    pub lsn: Lsn,
    /// Its time, where it has one.
    pub time: Option<Timestamp>,
    /// Where the record of the last commit or abort before it begins, if there is one since the backup.
    pub ended_before: Option<Lsn>,
}

/// Reads WAL of one server.
pub(super) struct Scanner<'a> {
    pub(super) wal: &'a Wal,
    pub(super) major: Major,
    pub(super) size: SegmentSize,
    pub(super) system_identifier: u64,
}

impl Scanner<'_> {
    /// Decodes the road from the segment of `from` up to `until`.
    fn read(
        &self,
        road: &Road,
        from: Lsn,
        until: Lsn,
        see: &mut dyn FnMut(&Record<'_>, &Kind<'_>) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let first = self.size.start_of(self.size.number_of(from));
        let stream = Stream {
            major: self.major,
            segment_size: self.size,
            block_size: PAGE_BYTES,
            system_identifier: Some(self.system_identifier),
        };
        let format = |name: SegmentName, source| ScanError::Format { name: name.file_name(self.size), source };
        let begin = SegmentName { timeline: road.timeline, number: self.size.number_of(first) };
        let mut decoder = Decoder::new(stream, first, first).map_err(|source| format(begin, source))?;
        let mut stopped = false;
        for name in road.segments(self.size, until) {
            if self.size.start_of(name.number) < first {
                continue;
            }
            let bytes = match self.wal.get_segment(name.timeline, name.number)? {
                Segment::Whole(bytes) | Segment::Beginning(bytes) => bytes,
                Segment::Absent => return Err(ScanError::Vanished { name: name.file_name(self.size) }),
            };
            let pushed = decoder.feed(&bytes, |record| {
                let parts = record.parts(self.major);
                let kind = parts.as_ref().map_or(Kind::Unreadable, |parts| Kind::of(self.major, record, parts));
                stopped |= see(record, &kind).is_break();
                if stopped { Flow::Stop } else { Flow::Continue }
            });
            match pushed {
                _ if stopped => return Ok(()),
                Ok(_) => {}
                // Behind the last record there is what the segment held before it was used anew, or nothing.
                Err(_) if self.size.start_of(name.number + 1) >= road.end => return Ok(()),
                Err(source) => return Err(format(name, source)),
            }
        }
        Ok(())
    }

    /// What is known of the end of a road, not looking before `floor`.
    pub(super) fn end(&self, road: &Road, floor: Lsn) -> Result<End, ScanError> {
        let last = self.size.number_of(Lsn(road.end.0.saturating_sub(1)));
        let least = self.size.number_of(floor);
        let mut back = 1;
        loop {
            let from = last.saturating_sub(back - 1).max(least);
            let mut end = End::default();
            self.read(road, self.size.start_of(from), road.end, &mut |record, kind| {
                end.last_record = Some(record.lsn);
                if let Kind::Commit { time, .. } | Kind::Abort { time, .. } = kind {
                    end.newest = moment(*time).or(end.newest);
                }
                ControlFlow::Continue(())
            })?;
            if end.newest.is_some() || from == least || back >= END_SEGMENTS_MAX {
                return Ok(end);
            }
            back = (back * 4).min(END_SEGMENTS_MAX);
        }
    }

    /// Where recovery would stop for `target`, between `from` and `until`; as PostgreSQL decides it (xlogrecovery.c, `recoveryStopsBefore`,
    /// `recoveryStopsAfter`).
    pub(super) fn find(
        &self,
        road: &Road,
        from: Lsn,
        until: Lsn,
        target: &Target,
        inclusive: bool,
    ) -> Result<Option<Found>, ScanError> {
        let (mut found, mut ended_before) = (None, None);
        self.read(road, from, until, &mut |record, kind| {
            if record.lsn < from {
                return ControlFlow::Continue(());
            }
            let time = match kind {
                Kind::Commit { time, .. } | Kind::Abort { time, .. } | Kind::RestorePoint { time, .. } => moment(*time),
                _ => None,
            };
            let ends = matches!(kind, Kind::Commit { .. } | Kind::Abort { .. });
            let stops = match target {
                Target::Latest => false,
                Target::Time(target) if inclusive => ends && time.is_some_and(|time| time > *target),
                Target::Time(target) => ends && time.is_some_and(|time| time >= *target),
                Target::Lsn(target) => record.lsn >= *target,
                Target::Name(target) => matches!(kind, Kind::RestorePoint { name, .. } if *name == target.as_bytes()),
                Target::Xid(target) => {
                    let prepared = match kind {
                        Kind::Commit { prepared, .. } | Kind::Abort { prepared, .. } => *prepared,
                        _ => None,
                    };
                    // The record that ends a prepared transaction is another one's, or nobody's.
                    let xid = prepared.unwrap_or(record.header.xid);
                    ends && u64::from(xid) == target & u64::from(u32::MAX)
                }
            };
            if stops {
                found = Some(Found { lsn: record.lsn, time, ended_before });
                return ControlFlow::Break(());
            }
            if ends {
                ended_before = Some(record.lsn);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The last commit or abort behind `found`, the first one later than `time`, that is not later than it: the server's clock was set back in
    /// between. Looks a bounded way on from there, and at the end.
    pub(super) fn set_back(
        &self,
        road: &Road,
        time: Timestamp,
        found: Found,
        end: End,
    ) -> Result<Option<(Lsn, Timestamp)>, ScanError> {
        let Some(least) = found.time.and_then(|time| time.checked_sub(JITTER).ok()) else { return Ok(None) };
        let is_again = |of: Timestamp| of <= time && of <= least;
        let far = self.size.start_of(self.size.number_of(found.lsn) + BEHIND_SEGMENTS_MAX);
        let mut again = None;
        self.read(road, found.lsn, road.end.min(far), &mut |record, kind| {
            if let Kind::Commit { time, .. } | Kind::Abort { time, .. } = kind
                && record.lsn > found.lsn
                && let Some(of) = moment(*time).filter(|of| is_again(*of))
            {
                again = Some((record.lsn, of));
            }
            ControlFlow::Continue(())
        })?;
        let at_end = end.newest.filter(|newest| is_again(*newest)).zip(end.last_record).map(|(of, lsn)| (lsn, of));
        Ok(at_end.or(again))
    }
}
