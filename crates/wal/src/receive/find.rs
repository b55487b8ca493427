//! How far the repository's WAL of a server goes.

use model::Lsn;
use pg_format::wal::SegmentSize;
use repository::wal::{Reach, Wal, WalError};

use super::plan::{Place, Server};

/// How many segments back from the server's end WAL of ours is looked for at most, in doubled steps: 2 TiB at the usual size.
const LOOK_BACK_MAX: u64 = 1 << 17;

/// The end of what is there, on the newest of the server's timelines that has anything.
///
/// # Errors
/// The store failed, or something in it is damaged.
pub(super) fn end_of(
    wal: &Wal,
    server: &Server,
    size: SegmentSize,
    slot: Option<Lsn>,
) -> Result<Option<Place>, WalError> {
    let lines = server.lines();
    let mut listed = None;
    for (index, line) in lines.iter().enumerate() {
        // It has nothing before the segment in which it branched off.
        let oldest = lines.get(index + 1).map_or(0, |before| size.number_of(before.lsn));
        // What the slot released was stored: the best place to look from.
        let slot = slot.filter(|slot| server.timeline_at(*slot) == line.timeline);
        let first = slot.map(|slot| size.number_of(slot));
        let newest = size.number_of(line.lsn);
        let back = (0..).map_while(|step: u32| 1_u64.checked_shl(step)).take_while(|back| *back <= LOOK_BACK_MAX);
        let back = [0].into_iter().chain(back).map_while(|back| newest.checked_sub(back));
        let back = back.take_while(|segment| *segment >= oldest).chain([oldest]);
        for segment in first.into_iter().chain(back) {
            if let Some(lsn) = end_from(wal, line.timeline, segment, size)? {
                return Ok(Some(Place { timeline: line.timeline, lsn }));
            }
        }
        // What is there may be shorter than the way to it, and is then stepped over. A listing may be late, and is only a hint where to look.
        let listed = match &listed {
            Some(listed) => listed,
            None => listed.insert(wal.lines()?),
        };
        let newest = listed.iter().find(|seen| seen.line == line.timeline && seen.end > seen.first);
        if let Some(newest) = newest.map(|seen| seen.end - 1).filter(|newest| *newest >= oldest)
            && let Some(lsn) = end_from(wal, line.timeline, newest, size)?
        {
            return Ok(Some(Place { timeline: line.timeline, lsn }));
        }
    }
    Ok(None)
}

/// The end of what is there from `segment` on; `None` where it and what follows it are absent.
fn end_from(wal: &Wal, timeline: u32, segment: u64, size: SegmentSize) -> Result<Option<Lsn>, WalError> {
    let end = |reach: &Reach| Lsn(size.start_of(reach.segment).0.saturating_add(reach.bytes));
    let mut from = segment;
    loop {
        let reach = wal.reach(timeline, from)?;
        let nothing = reach.segment == from && reach.bytes == 0;
        match reach.beyond {
            _ if !nothing => return Ok(Some(end(&reach))),
            // It begins later than where we looked.
            Some(later) if later > from => from = later,
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pg_format::wal::TimelineHistory;
    use repository::{KdfCost, Options, Repository, Secret, store::MemoryStore};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn wal() -> (Wal, SegmentSize) {
        let options = Options { cost: KdfCost::CHEAP, ..Options::default() };
        let secret = Secret::passphrase("correct horse battery").unwrap();
        let store = Arc::new(MemoryStore::new());
        let made = Repository::create(store, &options, &secret, "test", serde_json::Value::Null).unwrap();
        (made.wal(b"7", MIB).unwrap(), SegmentSize::new(MIB).unwrap())
    }

    fn end(wal: &Wal, size: SegmentSize, newest: u64, slot: Option<u64>) -> Option<Place> {
        let history = TimelineHistory::parse(&format!("1\t{}\tx\n", Lsn(100 * MIB + 5))).unwrap();
        let server = Server { timeline: 2, flushed: Lsn(newest * MIB), history };
        end_of(wal, &server, size, slot.map(|slot| Lsn(slot * MIB))).unwrap()
    }

    #[test]
    fn whatever_is_there_is_found() {
        let at = |timeline, lsn| Some(Place { timeline, lsn: Lsn(lsn) });
        let bytes = vec![7; usize::try_from(MIB).unwrap()];
        let (wal, size) = wal();
        assert_eq!(end(&wal, size, 5000, None), None);
        // A tail of one chunk on the old timeline, far from every doubled step.
        wal.tail(1, 37).unwrap().flush(&bytes[..100]).unwrap();
        assert_eq!(end(&wal, size, 5000, None), at(1, 37 * MIB + 100));
        wal.put_segment(1, 37, &bytes).unwrap();
        wal.put_segment(1, 38, &bytes).unwrap();
        for newest in [101, 5000, 90_000] {
            assert_eq!(end(&wal, size, newest, None), at(1, 39 * MIB));
        }
        // The newer timeline counts, whether the slot tells of it or not.
        wal.put_segment(2, 1777, &bytes).unwrap();
        wal.tail(2, 1778).unwrap().flush(&bytes[..50]).unwrap();
        for (newest, slot) in
            [(5000, None), (1778, None), (1779, Some(1777)), (90_000, Some(1778)), (90_000, Some(4000))]
        {
            assert_eq!(end(&wal, size, newest, slot), at(2, 1778 * MIB + 50), "{newest} {slot:?}");
        }
    }
}
