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
