//! Readers of all sorts: beside the writer, without the right to write, and of what they don't know.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use journal::{EventQuery, FORMAT, Journal, JournalError, JournalOptions, Reader, ReadingQuery, Retention};
use model::{ByteSize, EventId, EventKind};

use crate::{any_reading, support::*};

fn edit(dir: &Path, sql: &str) {
    rusqlite::Connection::open(dir.join(journal::FILE_NAME)).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_reader_beside_the_writer_sees_a_consistent_prefix() {
    const EVENTS: i64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    journal.append(at(0), &noted("1")).wait().unwrap();
    let writer = thread::spawn(move || {
        for n in 2..=EVENTS {
            let ticket = journal.append(at(n), &noted(n.to_string()));
            journal.record(&any_reading::host(at(n), 1));
            if n % 7 == 0 {
                ticket.wait().unwrap();
            }
        }
        journal.close(PATIENCE).unwrap();
    });
    let mut reader = Reader::open(dir.path()).unwrap();
    let (mut seen, mut looks) = (0, 0);
    while seen < EVENTS {
        let found = reader.events(&EventQuery { limit: usize::MAX, ..EventQuery::default() }).unwrap().events;
        for (n, event) in (1..).zip(&found) {
            assert_eq!((event.id, text(event)), (EventId(n), n.to_string().as_str()));
        }
        let now = i64::try_from(found.len()).unwrap();
        assert!(now >= seen, "what was there went away");
        seen = now;
        looks += 1;
        assert!(!writer.is_finished() || seen == EVENTS || looks < 10_000, "the writer is done, the reader is not");
    }
    writer.join().unwrap();
    assert!(looks > 3, "{looks} looks are no test");
}

#[test]
fn a_flood_stays_within_the_declared_size() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_size: Retention::LEAST_SIZE, ..Retention::default() };
    let journal = Journal::open(dir.path(), JournalOptions { retention, ..hasty() }).unwrap();
    let first = journal.append(at(0), &noted("first")).wait().unwrap();
    let mut reader = Reader::open(dir.path()).unwrap();
    let mut largest = ByteSize(0);
    for n in 0..8_000 {
        journal.record(&any_reading::host(at(n), 10));
        if n % 50 == 0 {
            journal.append(at(n), &noted(n.to_string())).wait().unwrap();
            let size = reader.size().unwrap();
            largest = largest.max(ByteSize(size.file.0 + size.log.0));
            assert!(largest <= retention.max_size, "{largest} after {n}: {size:?}");
        }
    }
    journal.close(PATIENCE).unwrap();
    let health = journal.health();
    assert_eq!((health.lost.events, health.history_cut), (0, 0));
    assert!(largest > ByteSize(4 << 20), "{largest}: no flood at all");
    assert_eq!(text(&reader.event(first).unwrap()), "first", "readings go before events");
    let newest = reader.latest_reading("host").unwrap().unwrap();
    assert_eq!(newest.at(), at(7_999), "and the oldest readings go first");
}

#[test]
fn a_reader_that_does_not_let_go_holds_up_readings_but_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    journal.append(at(0), &noted("first")).wait().unwrap();
    let stuck = rusqlite::Connection::open(dir.path().join(journal::FILE_NAME)).unwrap();
    stuck.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let mut n = 0;
    while journal.health().is_ok() {
        n += 1;
        assert!(n < 200_000, "the log grows for ever");
        journal.record(&any_reading::host(at(n), 10));
        if n % 100 == 0 {
            journal.append(at(n), &noted(n.to_string())).wait().unwrap();
        }
    }
    let journal::Recording::Failing { error, .. } = journal.health().recording else {
        panic!("it recovered by itself")
    };
    assert!(error.contains("a reader holds it"), "{error}");
    journal.append(at(n), &noted("meanwhile")).wait().unwrap();
    let log = Reader::open(dir.path()).unwrap().size().unwrap().log;
    assert!(log < ByteSize(4 << 20), "{log}");
    drop(stuck);
    until(&journal, "recovery", journal::JournalHealth::is_ok);
    journal.close(PATIENCE).unwrap();
}

#[test]
fn what_a_newer_version_added_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    journal.append(at(1), &noted("one")).wait().unwrap();
    journal.close(PATIENCE).unwrap();
    edit(
        dir.path(),
        r#"INSERT INTO events (at_wall_us, boot_us, kind, body) VALUES
               (1, 2, 'flux_compensated', '{"event": "flux_compensated", "by": 1.21}'),
               (3, 4, 'noted', '{"event": "noted", "author": "a", "text": "two", "mood": "a member of tomorrow"}');
           INSERT INTO readings (at_wall_us, boot_us, kind, body) VALUES (1, 2, 'aura', X'00')"#,
    );
    let mut reader = Reader::open(dir.path()).unwrap();
    let found = reader.events(&EventQuery::default()).unwrap();
    assert_eq!(found.events.iter().map(text).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((found.skipped, found.last), (1, Some(EventId(3))));
    let page = EventQuery { after: Some(EventId(1)), limit: 1, ..EventQuery::default() };
    assert_eq!(reader.events(&page).unwrap().last, Some(EventId(2)), "pages go on behind what was skipped");
    let unreadable = reader.event(EventId(2)).unwrap_err().to_string();
    assert!(unreadable.contains("flux_compensated") && unreadable.contains("hint: "), "{unreadable}");
    let found = reader.readings(&ReadingQuery::newest("aura", 5)).unwrap();
    assert_eq!((found.readings.len(), found.skipped), (0, 1));

    let journal = Journal::open(dir.path(), hasty()).unwrap();
    let next = journal.append(at(2), &EventKind::GuardStopped { reason: "test".into() }).wait().unwrap();
    assert_eq!(next, EventId(4), "and writing goes on");
}

#[test]
fn journals_of_other_formats_are_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Reader::open(dir.path()).err().unwrap();
    assert!(matches!(missing, JournalError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("oxpecker run"));
    fs::write(dir.path().join(journal::FILE_NAME), "").unwrap();
    assert!(
        matches!(Reader::open(dir.path()).err().unwrap(), JournalError::Missing { .. }),
        "one that is being created"
    );

    Journal::open(dir.path(), hasty()).unwrap().close(PATIENCE).unwrap();
    edit(dir.path(), &format!("PRAGMA user_version = {}", FORMAT + 1));
    let newer = Reader::open(dir.path()).err().unwrap();
    assert!(matches!(newer, JournalError::NewerFormat { .. }), "{newer}");
    let also = Journal::open(dir.path(), hasty()).err().unwrap();
    assert!(matches!(also, JournalError::NewerFormat { .. }) && also.to_string().contains("hint: "), "{also}");
    edit(dir.path(), "PRAGMA user_version = 0");
    assert!(matches!(Reader::open(dir.path()).err().unwrap(), JournalError::OlderFormat { .. }));
}

/// The directory once more, read-only.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    fn new(dir: &Path) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let bound = Command::new("mount").args(["--bind", "-o", "ro"]).arg(dir).arg(place.path()).output();
        match bound {
            Ok(output) if output.status.success() => Some(Self(place)),
            other => {
                println!("skipped: no read-only view to be had: {other:?}");
                None
            }
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_read_only_directory_can_be_read_in_every_state() {
    let dir = tempfile::tempdir().unwrap();
    let Some(view) = ReadOnly::new(dir.path()) else { return };
    let count = |reader: &mut Reader| reader.events(&EventQuery::default()).unwrap().events.len();

    let journal = Journal::open(dir.path(), hasty()).unwrap();
    journal.append(at(1), &noted("1")).wait().unwrap();
    assert_eq!(count(&mut Reader::open(view.0.path()).unwrap()), 1, "while it is written");
    journal.close(PATIENCE).unwrap();

    assert!(!dir.path().join("journal.sqlite-wal").exists());
    let mut reader = Reader::open(view.0.path()).unwrap();
    assert_eq!(count(&mut reader), 1, "after it was closed");

    let journal = Journal::open(dir.path(), hasty()).unwrap();
    journal.append(at(2), &noted("2")).wait().unwrap();
    assert_eq!(count(&mut reader), 2, "and when it is written again");

    // What a kill leaves behind: the log, with the shared memory or (a copy, a reboot of a strange file system) without.
    let copy = tempfile::tempdir().unwrap();
    let copied = ReadOnly::new(copy.path()).unwrap();
    for file in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    assert_eq!(count(&mut Reader::open(copied.0.path()).unwrap()), 2, "with a log");
    fs::remove_file(copy.path().join("journal.sqlite-shm")).unwrap();
    match Reader::open(copied.0.path()) {
        Ok(mut reader) => assert_eq!(count(&mut reader), 2, "without shared memory"),
        Err(error) => assert!(error.to_string().contains("hint: "), "{error}"),
    }
    journal.close(Duration::from_secs(5)).unwrap();
}
