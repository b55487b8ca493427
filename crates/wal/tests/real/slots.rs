//! The slot: made only where it can do no harm, missed at once, and what is missing is said.

use wal::receive::{CreateSlot, Event, ReceiveError};

use crate::support::*;

fn count(cluster: &scratch::ScratchCluster) -> String {
    sql(cluster, &["select count(*) from pg_replication_slots"])
}

pub fn come_and_go(major: u32) {
    let Some(builder) = builder(major) else { return };
    let cluster = builder.setting("wal_keep_size", "1GB").start().unwrap();
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    // Nothing bounds what it would hold.
    let error = Receiver::start(&options(&cluster), &repository).error();
    assert!(matches!(error, ReceiveError::UnlimitedSlot), "{error}");
    let never = wal::receive::Options { create_slot: CreateSlot::Never, ..options(&cluster) };
    let error = Receiver::start(&never, &repository).error();
    assert!(matches!(error, ReceiveError::NoSlot { .. }), "{error}");
    assert!(error.to_string().contains("hint: "), "{error}");
    assert_eq!(count(&cluster), "0");

    sql(&cluster, &["alter system set max_slot_wal_keep_size = '1GB'", "select pg_reload_conf()"]);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    assert!(receiver.told().contains(&Event::SlotCreated { slot: SLOT.to_owned() }));
    assert_eq!(count(&cluster), "1");
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));

    // Somebody drops it.
    let kick = "select pg_terminate_backend(active_pid) from pg_replication_slots where active";
    receiver.until("the slot is dropped", &cluster, || {
        sql(&cluster, &[kick]);
        let drop = "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots where not active";
        sql(&cluster, &[drop]) == "1"
    });
    receiver.until_told("that it is lost", &cluster, |event| matches!(event, Event::SlotLost { .. }));
    receiver.until("it is there again", &cluster, || count(&cluster) == "1");
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    // The server still had everything.
    assert_stored(&wal, 1, &cluster, from, now(&cluster));
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. })), "{told:#?}");

    // Without one.
    let without = wal::receive::Options { slot: None, ..options(&cluster) };
    let receiver = Receiver::start(&without, &repository);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    assert_stored(&wal, 1, &cluster, from, now(&cluster));
    receiver.stop();
}

/// The receiver was away for so long that the server has removed what it needs.
pub fn leave_a_gap(major: u32) {
    let Some(builder) = builder(major) else { return };
    let builder = builder.setting("max_slot_wal_keep_size", "1MB").setting("wal_keep_size", "0");
    let cluster = builder.setting("max_wal_size", "2MB").setting("min_wal_size", "2MB").start().unwrap();
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let first = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    write(&cluster);
    let stored = now(&cluster);
    receiver.until_acknowledged(&cluster, stored);
    receiver.stop();
    let gone = cluster
        .data_dir()
        .join("pg_wal")
        .join(pg_format::wal::SegmentName { timeline: 1, number: stored.0 / SEGMENT }.file_name(size()));
    for _ in 0..200 {
        switch(&cluster);
        sql(&cluster, &["checkpoint"]);
        if !gone.exists() {
            break;
        }
    }
    assert!(!gone.exists(), "the server keeps it");

    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_told("the gap", &cluster, |event| matches!(event, Event::Gap { .. }));
    write(&cluster);
    let end = now(&cluster);
    receiver.until_acknowledged(&cluster, end);
    let told = receiver.told();
    let (from, to) = told
        .iter()
        .find_map(|event| match event {
            Event::Gap { timeline: 1, from, to, next: 1 } => Some((*from, *to)),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{told:#?}"));
    assert!(from >= stored && to > from && to <= end, "{from} {to}");
    // What is behind it is stored, and nobody takes what is before it for the end.
    assert_stored(&wal, 1, &cluster, to, end);
    let reach = wal.reach(1, first.0 / SEGMENT).unwrap();
    assert!(reach.segment * SEGMENT + reach.bytes == from.0, "{reach:?} {from}");
    let noted = wal::gap::noted(&wal, 1, from.0 / SEGMENT).unwrap();
    assert_eq!(noted, Some(wal::gap::Gap { from, to, next: 1 }), "a gap is no end");
    receiver.stop();
}
