//! Slots: made, looked at, fought over, dropped by someone, given up by the server.

use std::time::{Duration, Instant};

use pg_replication::{Connection, Error, Refusal, SlotOptions, StreamOptions, WalEvent, WalStream};

use super::{GLANCE, KEPT, PATIENCE, first_refusal, here, keeping, load, lsn, restart_lsn, slot, tables, until};
use crate::{socket, sql};

/// How long a receiver that reads nothing is kept alive.
const HELD: Duration = Duration::from_secs(8);
const UNKEPT: SlotOptions = SlotOptions { temporary: false, reserve_wal: false };

fn refusal<T>(result: Result<T, Error>) -> Option<Refusal> {
    let error = result.err().unwrap();
    assert!(error.to_string().contains("hint: "), "{error}");
    error.refusal()
}

pub fn are_managed(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let cluster = builder.setting("max_replication_slots", "3").setting("wal_level", "logical").start().unwrap();
    tables(&cluster);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    connection.create_slot(&slot("unkept"), UNKEPT).unwrap();
    assert_eq!(refusal(connection.create_slot(&slot("ours"), KEPT)), Some(Refusal::SlotExists));
    connection.create_slot(&slot("passing"), SlotOptions { temporary: true, reserve_wal: true }).unwrap();
    assert_eq!(refusal(connection.create_slot(&slot("fourth"), KEPT)), Some(Refusal::NoSlotLeft));
    if major >= 15 {
        let state = connection.read_slot(&slot("ours")).unwrap().unwrap();
        assert_eq!((state.restart, state.timeline), (Some(restart_lsn(&cluster, "ours")), Some(1)));
        assert_eq!(connection.read_slot(&slot("unkept")).unwrap().unwrap().restart, None);
        assert_eq!(connection.read_slot(&slot("nobodys")).unwrap(), None);
    } else {
        let error = connection.read_slot(&slot("ours")).unwrap_err();
        assert!(matches!(error, Error::TooOld { .. }), "{error}");
    }
    connection.drop_slot(&slot("unkept")).unwrap();
    assert_eq!(refusal(connection.drop_slot(&slot("unkept"))), Some(Refusal::SlotAbsent));
    drop(connection);
    let count = "select count(*) from pg_replication_slots where slot_name = 'passing'";
    until("the temporary slot is gone", &cluster, || sql(&cluster, &[count]) == "0");
    sql(&cluster, &["select pg_create_logical_replication_slot('logical', 'pgoutput')"]);

    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    if major >= 15 {
        assert_eq!(refusal(connection.read_slot(&slot("logical"))), Some(Refusal::SlotIsLogical));
    }
    let options = here(&mut connection);
    let with = |name: &str| StreamOptions { slot: Some(slot(name)), ..options.clone() };
    assert_eq!(refusal(connection.stream_wal(&with("nobodys"))), Some(Refusal::SlotAbsent));
    assert_eq!(refusal(connection.stream_wal(&with("logical"))), Some(Refusal::SlotIsLogical));

    // One at a time.
    let mut stream = connection.stream_wal(&with("ours")).unwrap();
    stream.next(GLANCE).unwrap();
    let mut other = Connection::open(&socket(&cluster)).unwrap();
    let error = other.stream_wal(&with("ours")).err().unwrap();
    assert_eq!((error.refusal(), error.is_passing()), (Some(Refusal::SlotInUse), true), "{error}");
    assert_eq!(refusal(other.drop_slot(&slot("ours"))), Some(Refusal::SlotInUse));

    // Somebody wants the slot gone.
    let terminate = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'ours'";
    sql(&cluster, &[terminate]);
    // Only who reads lets the server say it, and go.
    let error = broken(&mut stream);
    until("the slot is free to be dropped", &cluster, || other.drop_slot(&slot("ours")).is_ok());
    assert!(error.is_passing(), "{error}");
    drop(stream);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let error = connection.stream_wal(&with("ours")).err().unwrap();
    assert_eq!((error.refusal(), error.is_passing()), (Some(Refusal::SlotAbsent), false));
    assert!(error.to_string().contains("dropped the slot"), "{error}");
}

/// The server gives the slot up when it would have to keep too much.
pub fn are_given_up(major: u32) {
    let Some(builder) = crate::builder(major) else { return };
    let builder = builder.initdb_args(["--wal-segsize=1"]).setting("max_slot_wal_keep_size", "1MB");
    let builder = builder.setting("max_wal_size", "2MB").setting("min_wal_size", "2MB").setting("wal_keep_size", "0");
    let cluster = builder.start().unwrap();
    tables(&cluster);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    let held = restart_lsn(&cluster, "ours");
    let options = StreamOptions { slot: Some(slot("ours")), ..StreamOptions::new(super::segment_start(held), 1) };
    // We acknowledge nothing; the server ends our stream for that.
    let mut stream = connection.stream_wal(&options).unwrap();
    let state = "select coalesce(wal_status, '') from pg_replication_slots where slot_name = 'ours'";
    let lose = || {
        until("the slot is lost", &cluster, || {
            load(&cluster, 3, &false.into());
            sql(&cluster, &["select pg_switch_wal()", "checkpoint", state]) == "lost"
        });
    };
    let error = std::thread::scope(|scope| {
        scope.spawn(lose);
        broken(&mut stream)
    });
    // Terminated for the slot, or out of WAL: whichever came first.
    assert!(error.is_passing() || matches!(error.refusal(), Some(Refusal::SegmentRemoved(_))), "{error}");
    drop(stream);

    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    if major >= 15 {
        assert_eq!(connection.read_slot(&slot("ours")).unwrap().unwrap().restart, None);
    }
    let removed = Refusal::SegmentRemoved(Some(super::name_of(1, held)));
    let expected = if major >= 18 { Refusal::SlotInvalidated } else { removed.clone() };
    assert_eq!(first_refusal(&mut connection, &options), Some(expected));
    assert_eq!(first_refusal(&mut connection, &StreamOptions { slot: None, ..options }), Some(removed));
    assert!(lsn(&cluster, "select pg_current_wal_lsn()") > held);
}

/// Reads, whatever comes, until the stream breaks.
fn broken(stream: &mut WalStream<'_>) -> Error {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it does not break");
        match stream.next(GLANCE) {
            Ok(WalEvent::End) => panic!("it ended in order"),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// A receiver that reads nothing keeps the server from giving up its slot, and with that its checkpoints: until it is cut off.
pub fn hold_up_checkpoints(major: u32) {
    let Some(builder) = crate::builder(major) else { return };
    let builder = builder.initdb_args(["--wal-segsize=1"]).setting("max_slot_wal_keep_size", "1MB");
    let builder = builder.setting("max_wal_size", "2MB").setting("min_wal_size", "2MB").setting("wal_keep_size", "0");
    let cluster = builder.start().unwrap();
    tables(&cluster);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    let start = super::segment_start(restart_lsn(&cluster, "ours"));
    let options = StreamOptions { slot: Some(slot("ours")), ..StreamOptions::new(start, 1) };
    let mut stream = connection.stream_wal(&options).unwrap();
    let begin = Instant::now();
    let heartbeat = stream.status().heartbeat(HELD).unwrap();
    let state = "select coalesce(wal_status, '') from pg_replication_slots where slot_name = 'ours'";
    until("the slot is lost", &cluster, || {
        load(&cluster, 3, &false.into());
        sql(&cluster, &["select pg_switch_wal()", "checkpoint", state]) == "lost"
    });
    println!("{major}: the slot was given up after {:?}", begin.elapsed());
    assert!(begin.elapsed() >= HELD, "it was not held up: the heartbeat needs no bound");
    drop(heartbeat);
    assert!(broken(&mut stream).is_passing());
}
