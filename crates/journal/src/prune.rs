//! Retention: small, bounded deletions, the oldest first, by order and never by the wall clock.

use std::time::Duration;

use model::Moment;

use crate::{JournalError, Retention, age::Age, format, store::Store};

/// Rows that one transaction deletes at most: some milliseconds of work, so that no event waits long behind it.
const BATCH_ROWS: u64 = 256;
/// Free pages that any file may keep for what comes next.
const FREE_PAGES: u64 = 256;
/// The part of its pages that a larger file may keep free: where readings come and go at the bound, giving space back only to take it
/// again would be wasted work.
const FREE_PART: u64 = 8;
/// Pages that one transaction gives back at most.
const VACUUM_PAGES: u64 = 256;
/// Pages below the bound at which deleting begins: room for what is written between two looks.
const HEADROOM_PAGES: u64 = 384;

/// What one step of pruning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// Rows deleted.
    pub rows: u64,
    /// Events among them that were younger than [`Retention::PROTECTED`].
    pub protected: u64,
    /// Whether there is more to do.
    pub more: bool,
}

impl Store {
    /// One bounded step towards what the retention declares.
    pub(crate) fn prune(&mut self, age: &Age, now: Moment) -> Result<Pruned, JournalError> {
        self.sync_commits(false)?;
        for (table, last, keep) in
            [("readings", "last_reading", self.retention.readings), ("events", "last_event", self.retention.events)]
        {
            let rows = self.delete_oldest(table, self.newest_older_than(last, age, now, keep)?)?;
            if rows > 0 {
                return Ok(Pruned { rows, more: true, protected: 0 });
            }
        }
        let (pages, free) = self.pages()?;
        let bound = format::max_pages(&self.retention).saturating_sub(HEADROOM_PAGES);
        if pages - free > bound {
            return self.prune_for_space(age, now);
        }
        let keep = if pages > bound + HEADROOM_PAGES { 0 } else { FREE_PAGES.max(pages / FREE_PART) };
        if free > keep {
            self.give_back(VACUUM_PAGES)?;
            return Ok(Pruned { more: true, ..Pruned::default() });
        }
        Ok(Pruned::default())
    }

    /// Deletes the oldest readings, else the oldest events, else even those of the last week.
    fn prune_for_space(&mut self, age: &Age, now: Moment) -> Result<Pruned, JournalError> {
        let rows = self.delete_oldest("readings", i64::MAX)?;
        if rows > 0 {
            return Ok(Pruned { rows, more: true, protected: 0 });
        }
        let old = self.newest_older_than("last_event", age, now, Retention::PROTECTED)?;
        let rows = self.delete_oldest("events", old)?;
        if rows > 0 {
            return Ok(Pruned { rows, more: true, protected: 0 });
        }
        let protected = self.delete_oldest("events", i64::MAX)?;
        Ok(Pruned { rows: protected, protected, more: protected > 0 })
    }

    /// Where there is no space: gives up the oldest readings for the sake of events, which can be written into their pages. On a file system
    /// without a free block it may fail like any other transaction. Returns the readings given up.
    pub(crate) fn make_room(&mut self) -> Result<u64, JournalError> {
        // Whether it succeeds shows in what follows.
        let _ = self.checkpoint("passive");
        self.delete_oldest("readings", i64::MAX)
    }

    /// The newest entry that is surely older than `ago`; zero where none is.
    fn newest_older_than(&self, column: &str, age: &Age, now: Moment, ago: Duration) -> Result<i64, JournalError> {
        let sql = format!("SELECT coalesce(max({column}), 0) FROM ticks WHERE age_us <= ?1");
        let mut statement = self.connection.prepare_cached(&sql).map_err(self.failed("prune"))?;
        statement.query_row([age.before(now, ago)], |row| row.get(0)).map_err(self.failed("prune"))
    }

    /// Deletes at most [`BATCH_ROWS`] of the oldest rows up to `newest`.
    fn delete_oldest(&mut self, table: &str, newest: i64) -> Result<u64, JournalError> {
        if newest <= 0 {
            return Ok(0);
        }
        let failed = self.failed("prune");
        let sql =
            format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id <= ?1 ORDER BY id LIMIT ?2)");
        let mut statement = self.connection.prepare_cached(&sql).map_err(&failed)?;
        let rows = statement.execute((newest, BATCH_ROWS.cast_signed())).map_err(&failed)?;
        Ok(rows as u64)
    }

    /// Shortens the file by free pages.
    fn give_back(&mut self, pages: u64) -> Result<(), JournalError> {
        let failed = self.failed("shorten");
        // It frees one page per row that is asked for: all must be asked for.
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})")).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        while rows.next().map_err(&failed)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::ByteSize;

    use super::*;
    use crate::{queue::Row, tests::noise};

    const HOUR: Duration = Duration::from_secs(3600);
    const START: Moment = Moment { wall: Timestamp::UNIX_EPOCH, boot_us: 1_000_000 };

    struct Fixture {
        _dir: tempfile::TempDir,
        store: Store,
        age: Age,
    }

    impl Fixture {
        fn new(retention: Retention) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&format::path_in(dir.path()), retention).unwrap();
            let age = Age::resume(&store, START, "boot").unwrap();
            Self { _dir: dir, store, age }
        }

        /// An hour of the guard's life, in which two readings and an event were written, with the wall clock as given.
        fn hour(&mut self, boot: Duration, wall: Timestamp) {
            let now = Moment { wall, ..START.plus(boot) };
            let row = || Row::new(now, "noted", "{}".into());
            self.store.write_readings(&[row(), row()]).unwrap();
            self.store.write_events([row()].iter()).unwrap();
            self.age.note(&mut self.store, now, "boot", HOUR).unwrap();
            while self.store.prune(&self.age, now).unwrap().more {}
        }

        fn count(&self, table: &str) -> i64 {
            self.store.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        }
    }

    #[test]
    fn entries_go_when_they_are_old_and_not_before() {
        let retention = Retention { readings: HOUR * 24, events: HOUR * 100, ..Retention::default() };
        let mut journal = Fixture::new(retention);
        for hour in 0..300 {
            journal.hour(HOUR * hour, START.plus(HOUR * hour).wall);
            let (readings, events) = (journal.count("readings"), journal.count("events"));
            let hours = i64::from(hour) + 1;
            assert!(readings >= 2 * hours.min(24) && readings <= 2 * hours.min(26), "hour {hour}: {readings} readings");
            assert!(events >= hours.min(100) && events <= hours.min(102), "hour {hour}: {events} events");
        }
        // The protected week of notes, though readings and events are kept for less.
        assert!(journal.count("ticks") <= 24 * 7 + 2, "{} ticks", journal.count("ticks"));
    }

    #[test]
    fn a_stepped_wall_clock_deletes_nothing_and_keeps_nothing() {
        let retention = Retention { readings: HOUR * 24, events: HOUR * 24, ..Retention::default() };
        let mut journal = Fixture::new(retention);
        let wild = [0, 30 * 365 * 86_400, -86_400, 250_000_000_000, 5, -62_135_596_800];
        for hour in 0..100_u32 {
            let wall = Timestamp::from_second(wild[hour as usize % wild.len()]).unwrap();
            journal.hour(HOUR * hour, wall);
            let hours = i64::from(hour) + 1;
            let readings = journal.count("readings");
            assert!(readings >= 2 * hours.min(24) && readings <= 2 * hours.min(26), "hour {hour}: {readings} readings");
        }
    }

    #[test]
    fn the_file_keeps_its_bound_readings_first_then_old_events_then_all() {
        let retention = Retention { max_size: Retention::LEAST_SIZE, ..Retention::default() };
        let mut journal = Fixture::new(retention);
        let body = noise(3000);
        let row = |_| Row::new(START, "noted", body.clone());
        let events: Vec<_> = (0..64).map(row).collect();
        let mut protected = 0;
        let mut prune = |journal: &mut Fixture, now: Moment| {
            loop {
                let pruned = journal.store.prune(&journal.age, now).unwrap();
                protected += pruned.protected;
                let (pages, _) = journal.store.pages().unwrap();
                assert!(ByteSize(pages * format::PAGE_SIZE) < retention.max_size);
                if !pruned.more {
                    break protected;
                }
            }
        };
        journal.store.write_events(events.iter()).unwrap();
        journal.age.note(&mut journal.store, START, "boot", HOUR).unwrap();
        for _ in 0..80 {
            let readings: Vec<_> = (0..64).map(row).collect();
            journal.store.write_readings(&readings).unwrap();
            prune(&mut journal, START);
        }
        assert_eq!(journal.count("events"), 64, "a flood of readings costs no event");
        assert!(journal.count("readings") > 500, "no more is deleted than must be");

        let later = START.plus(HOUR * 24 * 8);
        journal.age.note(&mut journal.store, later, "boot", HOUR).unwrap();
        let mut written = 64;
        let mut flood = |journal: &mut Fixture, rounds: i64| {
            for _ in 0..rounds {
                journal.store.write_events(events.iter()).unwrap();
                written += 64;
                prune(journal, later);
            }
            (written, prune(journal, later))
        };
        let (written, cut) = flood(&mut journal, 14);
        assert_eq!((cut, journal.count("events")), (0, written), "readings go before any event");
        assert!(journal.count("readings") < 400, "{} readings", journal.count("readings"));
        let (written, cut) = flood(&mut journal, 30);
        let old = written - journal.count("events") - cut.cast_signed();
        assert!(cut > 0 && old == 64, "old events first, and the others only with a count: {cut} cut, {old} old");
    }

    #[test]
    fn what_is_freed_goes_back_to_the_file_system() {
        let mut journal = Fixture::new(Retention { readings: HOUR, ..Retention::default() });
        let body = noise(4000);
        let readings: Vec<_> = (0..64).map(|_| Row::new(START, "noted", body.clone())).collect();
        for _ in 0..40 {
            journal.store.write_readings(&readings).unwrap();
        }
        journal.age.note(&mut journal.store, START, "boot", HOUR).unwrap();
        let (before, _) = journal.store.pages().unwrap();
        let later = START.plus(HOUR * 2);
        let mut steps = 0;
        while journal.store.prune(&journal.age, later).unwrap().more {
            steps += 1;
            assert!(steps < 100);
        }
        let (after, free) = journal.store.pages().unwrap();
        assert!(before > 2000 && after < 400 && free <= FREE_PAGES, "{before} -> {after} pages, {free} free");
    }
}
