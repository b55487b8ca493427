//! Whether WAL from here to there is whole.

use std::io::{self, Read};

use model::Lsn;

use super::{Decoder, Flow, Record, SegmentName, Stream, WalError};

/// How much of a segment is read at once.
const READ_BYTES: usize = 128 * 1024;
/// How many changes of the timeline a report names. More than a few within one backup's range never happen.
const TIMELINES_MAX: usize = 64;

/// What a whole range holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReport {
    /// How many records.
    pub records: u64,
    /// Where the last of them ends: at the range's end or, if that lies within a record, behind it.
    pub end: Lsn,
    /// The timelines in order, each with the first record that is on it; the first 64.
    pub timelines: Vec<(u32, Lsn)>,
}

/// Checks that the range of WAL [start, stop] is whole while its bytes pass by.
#[derive(Debug)]
pub struct RangeCheck {
    decoder: Decoder,
    stop: Lsn,
    report: RangeReport,
}

impl RangeCheck {
    /// A check whose input begins with the byte at `from`: see [`Decoder::new`]. `stop` is the end of a record: what
    /// `pg_backup_stop` returns, or a standby's minimum recovery point.
    ///
    /// # Errors
    /// When that is no range.
    pub fn new(stream: Stream, from: Lsn, start: Lsn, stop: Lsn) -> Result<Self, WalError> {
        if stop <= start {
            return Err(WalError::Range { start, stop });
        }
        Ok(Self { decoder: Decoder::new(stream, from, start)?, stop, report: RangeReport::default() })
    }

    /// Takes the next bytes; `on_record` sees every record of the range. [`Flow::Stop`] when the range is whole.
    ///
    /// # Errors
    /// When WAL does not go on as it must: a gap, or damage.
    pub fn feed(&mut self, bytes: &[u8], mut on_record: impl FnMut(&Record<'_>)) -> Result<Flow, WalError> {
        if self.is_whole() {
            return Ok(Flow::Stop);
        }
        let (report, stop) = (&mut self.report, self.stop);
        self.decoder.feed(bytes, |record| {
            report.records += 1;
            report.end = record.end;
            if report.timelines.last().is_none_or(|(last, _)| *last != record.timeline)
                && report.timelines.len() < TIMELINES_MAX
            {
                report.timelines.push((record.timeline, record.lsn));
            }
            on_record(record);
            if record.end >= stop { Flow::Stop } else { Flow::Continue }
        })
    }

    /// Whether all of the range has passed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.report.records > 0 && self.report.end >= self.stop
    }

    /// Ends the check.
    ///
    /// # Errors
    /// When the bytes ended before the range did.
    pub fn finish(self) -> Result<RangeReport, WalError> {
        if self.is_whole() {
            return Ok(self.report);
        }
        Err(WalError::Incomplete { end: self.decoder.end(), wanted: self.stop })
    }
}

/// Reads the segments that hold [start, stop] one after the other and checks that the range is whole. `open` gets the name of each segment
/// on `timeline` (where WAL goes on on another one, it may open that one's file instead).
///
/// # Errors
/// When a segment can't be read, a gap, or damage.
pub fn check_range<R: Read>(
    stream: &Stream,
    timeline: u32,
    start: Lsn,
    stop: Lsn,
    mut open: impl FnMut(SegmentName) -> io::Result<R>,
    mut on_record: impl FnMut(&Record<'_>),
) -> Result<RangeReport, WalError> {
    let size = stream.segment_size;
    let mut name = SegmentName::holding(timeline, start, size);
    let mut check = RangeCheck::new(*stream, size.start_of(name.number), start, stop)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let failed = |source| WalError::Read { name: name.file_name(size), source };
        let mut segment = open(name).map_err(failed)?;
        let mut left = size.bytes();
        while left > 0 {
            let wanted = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            let count = match segment.read(&mut buffer[..wanted]) {
                Ok(0) => return check.finish(),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            left -= count as u64;
            if check.feed(&buffer[..count], &mut on_record)? == Flow::Stop {
                return check.finish();
            }
        }
        name = name.next();
    }
}

#[cfg(test)]
mod tests;
