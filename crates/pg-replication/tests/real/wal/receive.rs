//! Segments under load, byte for byte as pg_receivewal has them; the slot follows the acknowledgements and nothing else.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use model::Lsn;
use pg_replication::{Connection, StreamEnd};

use super::{
    KEPT, PgReceivewal, SEGMENT, Segments, assert_same, here, keeping, load, name_of, pump, restart_lsn, segment_start,
    slot, switch, tables, until,
};
use crate::{socket, sql};

pub fn as_pg_receivewal(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let cluster = builder.start().unwrap();
    tables(&cluster);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    assert_eq!(connection.wal_segment_size().unwrap(), SEGMENT);
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    let held = restart_lsn(&cluster, "ours");
    let theirs = PgReceivewal::start(&cluster);
    let mut options = here(&mut connection);
    options.slot = Some(slot("ours"));
    let mut segments = Segments::new(options.timeline);
    let mut stream = connection.stream_wal(&options).unwrap();
    let status = stream.status();

    let (stop, end) = (AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| load(&cluster, 1000, &stop));
                }
            });
            *end.lock().unwrap() = Some(switch(&cluster));
        });
        // Nothing is acknowledged at first: the slot stays where it was, however much was sent.
        assert!(pump(&mut stream, &mut segments, |_, segments| segments.end.0 > options.start.0 + 4 * SEGMENT));
        assert_eq!(restart_lsn(&cluster, "ours"), held);
        // More than was received can't be acknowledged.
        let error = status.flushed(Lsn(stream.received().0 + 1)).unwrap_err();
        assert!(matches!(error, pg_replication::Error::NotReceived { .. }), "{error}");
        // From another thread, while this one does something else.
        let durable = segment_start(segments.end);
        assert!(
            std::thread::spawn({
                let status = status.clone();
                move || status.flushed(durable).unwrap()
            })
            .join()
            .unwrap()
        );
        until("the slot follows", &cluster, || restart_lsn(&cluster, "ours") == durable);
        // What is taken back is not.
        status.flushed(options.start).unwrap();
        assert!(pump(&mut stream, &mut segments, |_, segments| segments.end.0 > options.start.0 + 9 * SEGMENT));
        assert_eq!(restart_lsn(&cluster, "ours"), durable);
        stop.store(true, Ordering::Relaxed);
        assert!(pump(&mut stream, &mut segments, |_, segments| {
            status.flushed(segment_start(segments.end)).unwrap();
            end.lock().unwrap().is_some_and(|end| segments.end >= end)
        }));
    });
    let end = end.into_inner().unwrap().unwrap();
    until("the slot is at the end", &cluster, || restart_lsn(&cluster, "ours") >= end);
    let shown = sql(&cluster, &["select flush_lsn from pg_stat_replication where application_name = 'oxpecker'"]);
    assert_eq!(shown, status.progress().flushed.to_string());
    assert_eq!(stream.finish().unwrap(), StreamEnd::Finished);
    assert!(status.is_over() && !status.flushed(end).unwrap());

    let ours = segments.complete();
    let last = name_of(1, Lsn(end.0 - 1));
    assert!(ours.contains_key(&last), "{last}");
    if let Some(theirs) = theirs {
        theirs.until_it_has(&cluster, &last);
        assert_same(&ours, &theirs.complete(), 9);
    }
    super::assert_within(&ours, &cluster, 9);

    // The connection is as good as new, and a stream brings the same again.
    assert_eq!(connection.identify_system().unwrap().timeline, 1);
    let mut again = Segments::new(1);
    options.slot = None;
    let mut stream = connection.stream_wal(&options).unwrap();
    assert!(pump(&mut stream, &mut again, |_, segments| segments.end >= end));
    drop(stream);
    assert_same(&again.complete(), &ours, ours.len());
    // This one was not finished.
    let error = connection.identify_system().unwrap_err();
    assert!(error.to_string().contains("not finished"), "{error}");
}
