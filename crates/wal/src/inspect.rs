//! Whether stored WAL is what its name says, and how far each backup can be replayed with it. Pure, but for [`runs`], which looks.

use std::collections::BTreeMap;

use model::Lsn;
use pg_format::{
    Major,
    wal::{LongPageHeader, PageHeader, SegmentSize, TimelineHistory},
};
use repository::{
    WalStart,
    wal::{Inspector, LineSeen, Run, Wal, WalError},
};

/// Bytes of a WAL page where its first one does not say. All but those who compile their own have this.
const PAGE_BYTES: u32 = 8192;

/// Looks at the header of every page: is it WAL of this system, of this timeline, and of this place?
#[derive(Debug)]
pub struct Pages {
    system_identifier: Option<u64>,
    size: SegmentSize,
    histories: BTreeMap<u32, TimelineHistory>,
}

impl Pages {
    /// For the stream of this name.
    #[must_use]
    pub fn new(stream: &str, size: SegmentSize) -> Self {
        Self { system_identifier: stream.parse().ok(), size, histories: BTreeMap::new() }
    }

    /// The histories that were seen, by timeline.
    #[must_use]
    pub fn histories(&self) -> &BTreeMap<u32, TimelineHistory> {
        &self.histories
    }

    /// What a page at `at`, of a segment of `timeline`, says of itself.
    fn page(&self, timeline: u32, at: Lsn, header: &PageHeader) -> Result<(), String> {
        if Major::from_wal_magic(header.magic).is_none() {
            return Err(format!("at {at} there is no WAL page: its magic number is {:04X}", header.magic));
        }
        if header.address != at {
            return Err(format!("the page at {at} says that it is the one at {}", header.address));
        }
        if header.timeline == timeline {
            return Ok(());
        }
        // Before the switch it is the ancestor's.
        let ancestor = match self.histories.get(&timeline) {
            Some(history) => history.switch_of(header.timeline).is_some_and(|switch| at < switch),
            // The history may come later.
            None => header.timeline != 0 && header.timeline < timeline,
        };
        let of = header.timeline;
        if ancestor { Ok(()) } else { Err(format!("the page at {at} is of timeline {of}, not of {timeline}")) }
    }
}

impl Inspector for Pages {
    fn segment(&mut self, line: u32, segment: u64, bytes: &[u8]) -> Result<(), String> {
        let start = self.size.start_of(segment);
        let mut page_bytes = PAGE_BYTES;
        if let Some(long) = LongPageHeader::parse(bytes) {
            if let Some(expected) = self.system_identifier.filter(|expected| *expected != long.system_identifier) {
                return Err(format!("it is WAL of system {}, not of {expected}", long.system_identifier));
            }
            if u64::from(long.segment_size) != self.size.bytes() {
                return Err(format!("its segments have {} bytes, not {}", long.segment_size, self.size.bytes()));
            }
            if long.block_size.is_power_of_two() && long.block_size as usize >= LongPageHeader::LEN {
                page_bytes = long.block_size;
            }
        } else if bytes.len() >= LongPageHeader::LEN {
            return Err(format!("its first page, at {start}, does not begin like one of a segment"));
        }
        for (at, page) in (start.0..).step_by(page_bytes as usize).zip(bytes.chunks(page_bytes as usize)) {
            let Some(header) = PageHeader::parse(page) else { break };
            // Behind a switch to the next segment nothing was written.
            if page[..PageHeader::LEN].iter().all(|byte| *byte == 0) {
                continue;
            }
            self.page(line, Lsn(at), &header)?;
        }
        Ok(())
    }

    fn history(&mut self, line: u32, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
        let history = TimelineHistory::parse(text).map_err(|error| error.to_string())?;
        if history.entries.last().is_none_or(|last| last.timeline >= line) {
            return Err(format!("it is not the history of timeline {line}"));
        }
        self.histories.insert(line, history);
        Ok(())
    }
}

/// The byte `bytes` behind the beginning of a segment.
#[must_use]
pub fn place(segment_bytes: u64, segment: u64, bytes: u64) -> Lsn {
    Lsn(segment.saturating_mul(segment_bytes).saturating_add(bytes))
}

/// The runs of a timeline that have not expired, without a gap in each: by the listing, and a look at the end of what grows, which is in chunks
/// whose names don't say what they hold.
///
/// # Errors
/// The store failed, or a chunk is damaged.
pub fn runs(wal: &Wal, seen: &LineSeen) -> Result<Vec<Run>, WalError> {
    let floor = wal.floor(seen.line);
    let mut runs: Vec<Run> =
        seen.runs().filter(|run| run.end > floor).map(|run| Run { first: run.first.max(floor), ..run }).collect();
    if seen.chunks > 0 {
        let from = runs.last().map_or(seen.first, |run| run.end);
        let reach = wal.reach(seen.line, from)?;
        if reach.bytes > 0 || reach.segment > from {
            let begins = runs.pop().unwrap_or(Run { first: from, end: from, tail_bytes: 0 });
            runs.push(Run { end: reach.segment, tail_bytes: reach.bytes, ..begins });
        }
    }
    Ok(runs)
}

/// How far replay from `start` gets, by timeline: all that it can follow, and the first byte that is not there. Empty where its first
/// segment is not there.
#[must_use]
pub fn replays_to(
    runs: &BTreeMap<u32, Vec<Run>>,
    histories: &BTreeMap<u32, TimelineHistory>,
    start: &WalStart,
) -> Vec<(u32, Lsn)> {
    // Where the run of `line` ends that has `segment`.
    let end = |line: u32, segment: u64| {
        let has = |run: &&Run| run.first <= segment && (segment < run.end || segment == run.end && run.tail_bytes > 0);
        runs.get(&line)?.iter().find(has).map(|run| place(start.segment_bytes, run.end, run.tail_bytes))
    };
    let mut all: Vec<(u32, Lsn)> = end(start.line, start.segment).map(|to| (start.line, to)).into_iter().collect();
    for (&line, history) in histories {
        // From the backup's timeline on, each up to its switch.
        let way = history.entries.iter().filter(|entry| entry.timeline >= start.line);
        let mut segment = start.segment;
        let mut on = history.switch_of(start.line).is_some();
        for entry in way {
            on = on && entry.switch.0 / start.segment_bytes >= segment;
            // The segment of the switch is read of the timeline behind it.
            let until = place(start.segment_bytes, entry.switch.0 / start.segment_bytes, 0);
            let needs = until.0 > place(start.segment_bytes, segment, 0).0;
            on = on && (!needs || end(entry.timeline, segment).is_some_and(|end| end >= until));
            segment = entry.switch.0 / start.segment_bytes;
        }
        if let Some(to) = end(line, segment).filter(|_| on) {
            all.push((line, to));
        }
    }
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use pg_format::wal::{Stream, testing::WalWriter};

    use super::*;

    const SYSTEM: u64 = 7_301_924_918_273_645_021;

    fn size() -> SegmentSize {
        SegmentSize::new(1 << 20).unwrap()
    }

    /// A segment with records up to its end, from a server of `timeline`.
    fn segment(number: u64, timeline: u32) -> Vec<u8> {
        let stream =
            Stream { major: Major::V16, segment_size: size(), block_size: 8192, system_identifier: Some(SYSTEM) };
        let mut writer = WalWriter::new(stream, size().start_of(number).0);
        writer.timeline = timeline;
        while writer.bytes.len() < 1 << 20 {
            writer.record(0, 0x20, &[7; 3000]);
        }
        writer.bytes.truncate(1 << 20);
        writer.bytes
    }

    #[test]
    fn pages_tell_what_they_are() {
        let stream = SYSTEM.to_string();
        let mut pages = Pages::new(&stream, size());
        let good = segment(3, 2);
        assert_eq!(pages.segment(2, 3, &good), Ok(()));
        for len in [0, 1, 30, 8192, 8200, 100_000] {
            assert_eq!(pages.segment(2, 3, &good[..len]), Ok(()), "a beginning of {len}");
        }
        // Of the ancestor, while its history is not there, and up to the switch.
        assert_eq!(pages.segment(5, 3, &good), Ok(()));
        assert_eq!(pages.history(5, b"2\t0/308000\tno recovery target specified\n"), Ok(()));
        assert_eq!(pages.segment(5, 3, &good[..0x8000]), Ok(()));
        assert!(pages.segment(5, 3, &good).unwrap_err().contains("at 0/308000 is of timeline 2"));
        assert!(pages.segment(1, 3, &good).unwrap_err().contains("timeline 2, not of 1"));
        assert!(pages.segment(2, 4, &good).unwrap_err().contains("says that it is the one at 0/300000"));
        let mut other = good.clone();
        other[24] ^= 1;
        assert!(pages.segment(2, 3, &other).unwrap_err().contains("WAL of system"));
        let mut switched = good.clone();
        switched[0x8000..].fill(0);
        assert_eq!(pages.segment(2, 3, &switched), Ok(()), "behind a switch there is nothing");
        switched[0x10000] = 1;
        assert!(pages.segment(2, 3, &switched).unwrap_err().contains("no WAL page"));
        assert!(pages.segment(2, 3, &vec![0; 1 << 20]).is_err(), "a segment without a beginning");
        for bad in [&b""[..], b"nonsense", b"5\t0/3000000\tx\n", b"\xff"] {
            assert!(pages.history(5, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn replay_follows_timelines_as_far_as_there_is_wal() {
        let run = |first, end, tail_bytes| Run { first, end, tail_bytes };
        let runs: BTreeMap<_, _> = [
            (1, vec![run(2, 10, 0), run(12, 20, 5)]),
            (2, vec![run(8, 15, 0)]),
            (3, vec![run(14, 16, 0)]),
            (4, vec![run(18, 19, 0)]),
            (5, vec![]),
        ]
        .into();
        let history = |text: &str| TimelineHistory::parse(text).unwrap();
        let histories: BTreeMap<_, _> = [
            (2, history("1 0/8A0000 x\n")),
            (3, history("1 0/8A0000 x\n2 0/E00001 y\n")),
            (4, history("1 0/1280000 x\n")),
            (5, history("1 0/900000 x\n")),
        ]
        .into();
        let start = |line, segment| WalStart { stream: "x".to_owned(), line, segment, segment_bytes: 1 << 20 };
        let reach = |line, segment| replays_to(&runs, &histories, &start(line, segment));
        assert_eq!(reach(1, 3), [(1, Lsn(0xA0_0000)), (2, Lsn(0xF0_0000)), (3, Lsn(0x100_0000))]);
        // Behind the gap; the fork to the second is before.
        assert_eq!(reach(1, 13), [(1, Lsn(0x140_0005)), (4, Lsn(0x130_0000))]);
        assert_eq!(reach(2, 9), [(2, Lsn(0xF0_0000)), (3, Lsn(0x100_0000))]);
        assert_eq!(reach(1, 10), []);
        assert_eq!(reach(1, 20), [(1, Lsn(0x140_0005))], "the tail alone");
    }
}
