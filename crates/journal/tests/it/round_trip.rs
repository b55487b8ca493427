//! What goes in comes out.

use std::collections::BTreeSet;

use journal::{EventQuery, Journal, Reader, ReadingQuery, Retention};
use model::{Event, EventKind, Reading};
use proptest::{
    prelude::*,
    strategy::{Union, ValueTree},
    test_runner::TestRunner,
};

use crate::{any_event, any_reading, support::*};

/// The names of all kinds that `model` has: serde lists them when it does not know one.
fn known_kinds() -> BTreeSet<String> {
    let error = serde_json::from_str::<EventKind>(r#"{"event": "no such kind"}"#).unwrap_err().to_string();
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_kind_is_tried() {
    let mut runner = TestRunner::deterministic();
    let tried: BTreeSet<String> = any_event::each_kind()
        .iter()
        .map(|kind| kind.new_tree(&mut runner).unwrap().current().name().to_owned())
        .collect();
    assert!(tried.len() > 20);
    assert_eq!(tried, known_kinds(), "a new kind of event needs its strategy in tests/it/any_event.rs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_come_back_as_they_were(
        written in proptest::collection::vec((any_event::moment(), Union::new(any_event::each_kind())), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), hasty()).unwrap();
        let tickets: Vec<_> = written.iter().map(|(at, kind)| journal.append(*at, kind)).collect();
        let ids: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
        let events: Vec<_> =
            ids.iter().zip(written).map(|(id, (at, kind))| Event { id: *id, at, kind }).collect();
        prop_assert_eq!(&all_events(dir.path()), &events);
        let mut reader = Reader::open(dir.path()).unwrap();
        for event in events {
            prop_assert_eq!(reader.event(event.id).unwrap(), event);
        }
    }
}

#[test]
fn readings_come_back_as_they_were_and_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    let mut written = Vec::new();
    for second in 0..20 {
        written.push(any_reading::host(at(second), 3));
        written.push(any_reading::activity(at(second), 2));
    }
    for reading in &written {
        journal.record(reading);
    }
    journal.close(PATIENCE).unwrap();

    let mut reader = Reader::open(dir.path()).unwrap();
    let of = |kind: &str, seconds: std::ops::Range<i64>| -> Vec<Reading> {
        let wanted = at(seconds.start)..at(seconds.end);
        let within =
            |r: &&Reading| r.kind() == kind && r.at().wall >= wanted.start.wall && r.at().wall < wanted.end.wall;
        written.iter().filter(within).cloned().collect()
    };
    let mut ask = |query: ReadingQuery| {
        let found = reader.readings(&query).unwrap();
        assert_eq!(found.skipped, 0);
        found.readings
    };
    assert_eq!(ask(ReadingQuery::newest("host", 100)), of("host", 0..20));
    assert_eq!(ask(ReadingQuery::newest("activity", 5)), of("activity", 15..20));
    assert_eq!(ask(ReadingQuery::between("host", at(3).wall, at(9).wall, 100)), of("host", 3..9));
    assert_eq!(ask(ReadingQuery::between("host", at(3).wall, at(9).wall, 2)), of("host", 3..5));
    assert_eq!(ask(ReadingQuery::newest("wal", 5)), []);
    assert_eq!(reader.latest_reading("activity").unwrap(), of("activity", 19..20).pop());
    let size = reader.size().unwrap();
    assert_eq!((size.events, size.readings, size.oldest_reading), (0, 40, Some(at(0).wall)));
}

#[test]
fn events_come_back_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    for second in 0..10 {
        let kind = match second % 2 {
            0 => noted(second.to_string()),
            _ => EventKind::GuardStopped { reason: second.to_string() },
        };
        journal.append(at(second), &kind).wait().unwrap();
    }
    let mut reader = Reader::open(dir.path()).unwrap();
    let mut ask = |query: EventQuery| -> Vec<i64> {
        let found = reader.events(&query).unwrap();
        assert_eq!(found.last, found.events.last().map(|event| event.id));
        found.events.iter().map(|event| event.id.0).collect()
    };
    let all = EventQuery::default;
    assert_eq!(ask(all()), (1..=10).collect::<Vec<_>>());
    assert_eq!(ask(EventQuery { limit: 3, ..all() }), [1, 2, 3]);
    assert_eq!(ask(EventQuery { limit: 3, newest: true, ..all() }), [8, 9, 10]);
    assert_eq!(ask(EventQuery { after: Some(model::EventId(7)), ..all() }), [8, 9, 10]);
    assert_eq!(ask(EventQuery { since: Some(at(2).wall), until: Some(at(4).wall), ..all() }), [3, 4]);
    assert_eq!(ask(EventQuery { kinds: vec!["noted".into()], newest: true, limit: 2, ..all() }), [7, 9]);
    assert_eq!(ask(EventQuery { kinds: vec!["noted".into(), "guard_stopped".into()], ..all() }).len(), 10);
    assert_eq!(ask(EventQuery { kinds: vec!["it's".into()], ..all() }), [0_i64; 0]);
    assert_eq!(reader.latest_event("guard_stopped").unwrap().map(|event| event.id.0), Some(10));
    assert_eq!(reader.latest_event("server_up").unwrap(), None);
    let missing = reader.event(model::EventId(11)).unwrap_err().to_string();
    assert!(missing.contains("E11") && missing.contains("hint: "), "{missing}");
}

#[test]
fn a_reading_costs_the_disk_what_is_declared() {
    // What the default size is made for: two readings a second of this kind for more than a day.
    let dir = tempfile::tempdir().unwrap();
    let journal =
        Journal::open(dir.path(), journal::JournalOptions { backlog: model::ByteSize(64 << 20), ..hasty() }).unwrap();
    // Kills and queues for locks do not last all day.
    let ordinary = |mut reading| {
        match &mut reading {
            model::Reading::Host(host) => host.oom = None,
            model::Reading::Activity(activity) => activity.locks.head_session = None,
            _ => {}
        }
        reading
    };
    for second in 0..2000 {
        journal.record(&ordinary(any_reading::host(at(second), 10)));
        journal.record(&ordinary(any_reading::activity(at(second), 3)));
    }
    journal.close(PATIENCE).unwrap();
    let size = Reader::open(dir.path()).unwrap().size().unwrap();
    assert_eq!(size.readings, 4000);
    let each = size.file.0 / size.readings;
    let of = |reading| serde_json::to_string(&reading).unwrap().len();
    println!(
        "host {} B, activity {} B as JSON; {each} B each on the disk",
        of(any_reading::host(at(0), 10)),
        of(any_reading::activity(at(0), 3))
    );
    let day = each * 2 * 86_400;
    // A quarter is left for events. Readings of this size just miss three to a page of the database; smaller ones cost a fifth less.
    assert!(each > 300 && day < Retention::default().max_size.0 * 3 / 4, "{each} bytes for a reading");
}
