//! The journal's own clock, by which its entries age.
//!
//! Wall clocks are stepped, so "older than a day" must not be asked of them: a step of a year into the future would delete everything. The
//! journal's age only moves forward: with the boot clock while the host is the same boot, and over a reboot with the wall clock, but by
//! at most [`REBOOT_COUNTS`]. Every so often the age is noted together with the newest entries (table `ticks`); whatever is not newer
//! than the latest note of an age is at least that old.

use std::time::Duration;

use model::Moment;
use rusqlite::OptionalExtension;

use crate::{JournalError, store::Store};

/// The most that the time between two boots counts, for only the wall clock knows it. After a longer absence entries are kept longer;
/// the bound on size holds all the same.
pub(crate) const REBOOT_COUNTS: Duration = Duration::from_secs(6 * 3600);

/// The journal's clock within this boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Age {
    /// The age at `since`, in microseconds.
    base_us: i64,
    since: Moment,
    /// The age of the newest note; `None` where there is none.
    noted_us: Option<i64>,
}

/// A note of the age.
#[derive(Clone, Debug)]
struct Tick {
    age_us: i64,
    wall_us: i64,
    boot_us: i64,
    boot_id: String,
}

impl Age {
    /// Takes the clock up where the newest note left it.
    pub(crate) fn resume(store: &Store, now: Moment, boot_id: &str) -> Result<Self, JournalError> {
        let sql = "SELECT age_us, wall_us, boot_us, boot_id FROM ticks ORDER BY id DESC LIMIT 1";
        let tick = store.connection.query_row(sql, [], |row| {
            Ok(Tick { age_us: row.get(0)?, wall_us: row.get(1)?, boot_us: row.get(2)?, boot_id: row.get(3)? })
        });
        let tick = tick.optional().map_err(store.failed("read"))?;
        let base_us = tick.as_ref().map_or(0, |tick| tick.age_us + passed_us(tick, now, boot_id));
        Ok(Self { base_us, since: now, noted_us: tick.map(|tick| tick.age_us) })
    }

    /// The age at `now`, in microseconds.
    pub(crate) fn at(&self, now: Moment) -> i64 {
        self.base_us.saturating_add(micros(now.since(self.since)))
    }

    /// The age that entries have which were written `ago`.
    pub(crate) fn before(&self, now: Moment, ago: Duration) -> i64 {
        self.at(now).saturating_sub(micros(ago))
    }

    /// Notes the age if the newest note is older than `interval`, and forgets notes that nothing can need any more.
    pub(crate) fn note(
        &mut self,
        store: &mut Store,
        now: Moment,
        boot_id: &str,
        interval: Duration,
    ) -> Result<(), JournalError> {
        let age_us = self.at(now);
        if self.noted_us.is_some_and(|noted| age_us.saturating_sub(noted) < micros(interval)) {
            return Ok(());
        }
        store.sync_commits(false)?;
        let failed = store.failed("note the age of");
        let longest = store.retention.events.max(store.retention.readings).max(crate::Retention::PROTECTED);
        let transaction = crate::store::begin(&mut store.connection).map_err(&failed)?;
        let noted = transaction.execute(
            "INSERT INTO ticks (age_us, wall_us, boot_us, boot_id, last_event, last_reading) VALUES (?1, ?2, ?3, ?4, \
             (SELECT coalesce(max(id), 0) FROM events), (SELECT coalesce(max(id), 0) FROM readings))",
            (age_us, now.wall.as_microsecond(), i64::try_from(now.boot_us).unwrap_or(i64::MAX), boot_id),
        );
        noted.map_err(&failed)?;
        let forget = "DELETE FROM ticks WHERE id < (SELECT max(id) FROM ticks WHERE age_us <= ?1)";
        transaction.execute(forget, [self.before(now, longest)]).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        self.noted_us = Some(age_us);
        Ok(())
    }
}

/// How much the clock moves from a note to `now`.
fn passed_us(tick: &Tick, now: Moment, boot_id: &str) -> i64 {
    let boot_us = i64::try_from(now.boot_us).unwrap_or(i64::MAX);
    if !boot_id.is_empty() && boot_id == tick.boot_id {
        boot_us.saturating_sub(tick.boot_us).max(0)
    } else {
        now.wall.as_microsecond().saturating_sub(tick.wall_us).clamp(0, micros(REBOOT_COUNTS))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn time_passes_by_the_boot_clock_and_over_a_reboot_within_reason() {
        const DAY_US: i64 = 86_400_000_000;
        let tick = Tick { age_us: 0, wall_us: 400 * DAY_US, boot_us: DAY_US, boot_id: "first".into() };
        let reboot_us = micros(REBOOT_COUNTS);
        for (what, boot_id, wall_us, boot_us, passed) in [
            ("an hour", "first", 400 * DAY_US + 3_600, DAY_US as u64 + 3_600, 3_600),
            ("a step into the future", "first", 800 * DAY_US, DAY_US as u64 + 5, 5),
            ("a step into the past", "first", 0, DAY_US as u64 + 5, 5),
            ("a week off on the same boot", "first", 407 * DAY_US, 8 * DAY_US as u64, 7 * DAY_US),
            ("a boot clock that ran backwards", "first", 400 * DAY_US, 1, 0),
            ("a reboot", "second", 400 * DAY_US + 60_000_000, 5, 60_000_000),
            ("a reboot into a wrong century", "second", 40_000 * DAY_US, 5, reboot_us),
            ("a reboot without a battery", "second", 0, 5, 0),
            ("no boot id", "", 400 * DAY_US + 7, 5, 7),
        ] {
            let now = Moment { wall: Timestamp::from_microsecond(wall_us).unwrap(), boot_us };
            assert_eq!(passed_us(&tick, now, boot_id), passed, "{what}");
        }
    }
}
