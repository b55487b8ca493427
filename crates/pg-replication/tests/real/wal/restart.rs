//! A server that stops in order, one that is killed, and the same segments in the end.

use pg_replication::{Connection, StreamEnd, StreamOptions, WalEvent};

use super::{
    GLANCE, KEPT, Segments, assert_within, here, keeping, load, pump, restart_lsn, segment_start, slot, switch, tables,
};
use crate::socket;

pub fn is_survived(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    tables(&cluster);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    let made = restart_lsn(&cluster, "ours");
    let first = StreamOptions { slot: Some(slot("ours")), ..here(&mut connection) };
    let mut segments = Segments::new(1);
    let mut stream = connection.stream_wal(&first).unwrap();
    let status = stream.status();
    load(&cluster, 5, &false.into());
    assert!(pump(&mut stream, &mut segments, |stream, _| stream.received() > first.start && stream.is_caught_up()));

    // In order: all is sent, all is acknowledged, and that ends it.
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| cluster.stop_fast());
        assert!(!pump(&mut stream, &mut segments, |_, segments| {
            status.flushed(segments.end).unwrap();
            false
        }));
        stopping.join().unwrap().unwrap();
    });
    assert!(matches!(stream.next(GLANCE), Ok(WalEvent::End)));
    assert_eq!(stream.finish().unwrap(), StreamEnd::ServerStopped);
    assert!(connection.identify_system().is_err());
    let end = segments.end;
    let error = Connection::open(&socket(&cluster)).err().unwrap();
    assert!(error.is_passing(), "{error}");

    // Again from the start of the segment, with the slot, which was kept and knows what was acknowledged.
    cluster.start_again().unwrap();
    // It is saved by checkpoints, and that of the shutdown comes before the last acknowledgement.
    let kept = restart_lsn(&cluster, "ours");
    assert!(made <= kept && kept <= end, "{made} {kept} {end}");
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let again = StreamOptions { start: segment_start(end), ..first.clone() };
    let mut stream = connection.stream_wal(&again).unwrap();
    load(&cluster, 5, &false.into());
    assert!(pump(&mut stream, &mut segments, |stream, segments| segments.end > end && stream.is_caught_up()));

    // Killed: the connection breaks.
    cluster.kill9().unwrap();
    let error = loop {
        match stream.next(GLANCE) {
            Ok(WalEvent::Wal { start, bytes }) => segments.write(start, bytes),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_passing() && error.refusal().is_none(), "{error}");
    drop(stream);
    cluster.start_again().unwrap();
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let again = StreamOptions { start: segment_start(segments.end), ..first };
    let mut stream = connection.stream_wal(&again).unwrap();
    load(&cluster, 3, &false.into());
    let end = switch(&cluster);
    assert!(pump(&mut stream, &mut segments, |_, segments| segments.end >= end));
    assert_eq!(stream.finish().unwrap(), StreamEnd::Finished);
    assert_within(&segments.complete(), &cluster, 3);
}
