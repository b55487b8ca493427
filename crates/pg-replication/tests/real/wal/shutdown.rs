//! A server that shuts down waits for our acknowledgement, without end. We notice, and need not keep it waiting.

use std::time::{Duration, Instant};

use pg_replication::{Connection, Progress, StreamEnd, StreamOptions, WalEvent};

use super::{
    GLANCE, KEPT, PATIENCE, Segments, assert_within, here, keeping, load, pump, restart_lsn, segment_start, slot,
    switch, tables,
};
use crate::{socket, sql};

/// How long the server is kept waiting.
const HELD: Duration = Duration::from_secs(3);

pub fn is_not_held_up(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    tables(&cluster);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    let options = StreamOptions { slot: Some(slot("ours")), ..here(&mut connection) };
    let mut segments = Segments::new(1);
    let mut stream = connection.stream_wal(&options).unwrap();
    let status = stream.status();
    load(&cluster, 2, &false.into());
    assert!(pump(&mut stream, &mut segments, |stream, _| stream.received() > options.start && stream.is_caught_up()));
    let durable = segments.end;
    status.flushed(durable).unwrap();
    sql(&cluster, &["insert into history values (1, 'never acknowledged')"]);
    assert!(pump(&mut stream, &mut segments, |_, segments| segments.end > durable));
    assert!(!stream.server_seems_stopping());

    let pid = cluster.postmaster_pid().unwrap();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| {
            let begin = Instant::now();
            cluster.stop_fast().map(|()| begin.elapsed())
        });
        assert!(pump(&mut stream, &mut segments, |stream, _| stream.server_seems_stopping()));
        // It waits, and neither side is busy with that: a question and an answer every tenth of a second.
        let (begin, mut questions) = (Instant::now(), 0);
        while begin.elapsed() < HELD {
            questions += u32::from(matches!(stream.next(GLANCE).unwrap(), WalEvent::KeepAlive));
        }
        assert!(!stopping.is_finished(), "it did not wait");
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(questions < 10 * 4, "{questions} questions in {HELD:?}");
        let released = Instant::now();
        status.disconnect();
        let took = stopping.join().unwrap().unwrap();
        println!("{major}: held for {took:?} with {questions} questions, ended {:?} after", released.elapsed());
        assert!(took > HELD);
    });
    assert!(stream.next(GLANCE).is_err() && status.is_over());
    drop(stream);

    // The slot has kept what was not acknowledged.
    cluster.start_again().unwrap();
    assert_eq!(restart_lsn(&cluster, "ours"), durable);
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let again = StreamOptions { start: segment_start(durable), ..options };
    let mut stream = connection.stream_wal(&again).unwrap();
    let end = switch(&cluster);
    assert!(pump(&mut stream, &mut segments, |_, segments| segments.end >= end));
    assert_within(&segments.complete(), &cluster, 1);

    // Who never speaks of flushing is waited for until it says that it has written, and the slot stays.
    let status = stream.status();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| cluster.stop_fast());
        assert!(pump(&mut stream, &mut segments, |stream, _| stream.server_seems_stopping()));
        status.report(Progress { written: segments.end, ..Progress::default() }).unwrap();
        let begin = Instant::now();
        while !matches!(stream.next(GLANCE).unwrap(), WalEvent::End) {
            assert!(begin.elapsed() < PATIENCE);
        }
        stopping.join().unwrap().unwrap();
    });
    assert_eq!(stream.finish().unwrap(), StreamEnd::ServerStopped);
    cluster.start_again().unwrap();
    assert_eq!(restart_lsn(&cluster, "ours"), durable);
}
