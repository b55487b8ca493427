//! Checkpoints, WAL, archiver and slots: from the answer's row to a reading.

use std::time::Duration;

use model::{
    ByteSize, Lsn, Moment,
    reading::{Archiver, SlotReading, WalReading},
};
use tokio_postgres::{Error, Row};

use super::row::{Columns, unsigned};

/// The WAL position of the reading before, for the rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    before: Option<(Moment, Lsn)>,
}

impl Position {
    /// WAL per second since the reading before; `None` for the first, and where the position went back: the server was restored,
    /// promoted or replaced.
    fn rate(&mut self, now: Moment, lsn: Lsn) -> Option<ByteSize> {
        let (then, before) = self.before.replace((now, lsn))?;
        let window = now.since(then);
        (lsn >= before && window > Duration::ZERO).then(|| {
            let per_second = u128::from(lsn.bytes_since(before)) * 1_000_000 / window.as_micros().max(1);
            ByteSize(u64::try_from(per_second).unwrap_or(u64::MAX))
        })
    }
}

/// Decodes the row of [`super::sql::wal`].
pub fn decode(row: &Row, at: Moment, position: &mut Position) -> Result<WalReading, Error> {
    let row = Columns(row);
    let lsn: Lsn = row.get::<Option<String>>("lsn")?.and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
    let archived = row.get::<Option<String>>("last_archived_wal")?;
    let in_recovery = row.get::<bool>("in_recovery")?;
    let segment = row.count("segment_bytes")?;
    // A standby archives nothing by default, and may remember what it archived when it was a primary.
    let archived = archived.filter(|_| !in_recovery);
    let behind =
        archived.and_then(|name| end_of_segment(&name, segment)).map(|end| ByteSize(lsn.0.saturating_sub(end.0)));
    Ok(WalReading {
        at,
        checkpoints_timed: row.count("timed")?,
        checkpoints_requested: row.count("requested")?,
        lsn,
        wal_per_second: position.rate(at, lsn),
        max_wal: row.get::<Option<i64>>("max_wal_bytes")?.map(|bytes| ByteSize(unsigned(Some(bytes)))),
        checkpoint_timeout: row
            .get::<Option<i64>>("checkpoint_timeout_s")?
            .map(|s| Duration::from_secs(unsigned(Some(s)))),
        archiver: Archiver {
            enabled: row.get("archiving")?,
            archived: row.count("archived_count")?,
            failed: row.count("failed_count")?,
            failing: row.get("failing")?,
            last_archived: row.time("last_archived_us")?,
            behind,
        },
        slots: slots(row)?,
    })
}

/// Where a segment ends, by its file's name: timeline, and number in two parts of eight hexadecimal digits each. `None` for the archive's other files
/// (timeline histories, backup histories, partial segments).
fn end_of_segment(name: &str, segment: u64) -> Option<Lsn> {
    if name.len() != 24 || segment == 0 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| u64::from_str_radix(name.get(range)?, 16).ok();
    let number = (part(8..16)? << 32).checked_div(segment)?.checked_add(part(16..24)?)?;
    number.checked_add(1)?.checked_mul(segment).map(Lsn)
}

fn slots(row: Columns<'_>) -> Result<Vec<SlotReading>, Error> {
    let names = row.array::<String>("names")?;
    let active = row.array::<bool>("active")?;
    let retained = row.array::<i64>("retained")?;
    let status = row.array::<String>("status")?;
    let safe = row.array::<i64>("safe")?;
    let slots = names.into_iter().zip(active).zip(retained).zip(status).zip(safe);
    Ok(slots
        .filter_map(|((((name, active), retained), wal_status), safe)| {
            let (retained, safe) = (ByteSize(unsigned(retained)), safe.map(|safe| ByteSize(unsigned(Some(safe)))));
            Some(SlotReading { name: name?, active: active.unwrap_or(false), retained, wal_status, safe })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_a_reading_before() {
        let start = crate::clock::now();
        let mut position = Position::default();
        let mut at = |seconds: u64, lsn: u64| position.rate(start.plus(Duration::from_secs(seconds)), Lsn(lsn));
        assert_eq!(at(0, 1_000), None);
        assert_eq!(at(10, 6_000), Some(ByteSize(500)));
        assert_eq!(at(10, 6_000), None, "no time passed");
        assert_eq!(at(20, 6_000), Some(ByteSize(0)));
        assert_eq!(at(30, 10), None, "the server was restored");
        assert_eq!(at(40, u64::MAX), Some(ByteSize((u64::MAX - 10) / 10)));
    }

    #[test]
    fn segments_end_where_their_names_say() {
        const MIB: u64 = 1 << 20;
        for (name, segment, end) in [
            ("000000010000000000000001", 16 * MIB, Some(Lsn(32 * MIB))),
            ("0000000200000001000000FF", 16 * MIB, Some(Lsn(2 << 32))),
            ("000000010000000A00000003", 1024 * MIB, Some(Lsn(11 << 32))),
            ("000000010000000000000001.partial", 16 * MIB, None),
            ("00000002.history", 16 * MIB, None),
            ("000000010000000000000001.00000028.backup", 16 * MIB, None),
            ("00000001FFFFFFFFFFFFFFFF", 1024 * MIB, None),
            ("00000001000000000000000G", 16 * MIB, None),
            ("000000010000000000000001", 0, None),
        ] {
            assert_eq!(end_of_segment(name, segment), end, "{name}");
        }
    }
}
