//! A server that stops waits for its receivers: never for long for ours.

use std::time::{Duration, Instant};

use wal::receive::{Event, decide};

use crate::support::*;

/// A busy machine may take so much longer.
const SLACK: Duration = Duration::from_secs(40);

pub fn is_not_held_up(major: u32) {
    let Some(builder) = keeping(major) else { return };
    // A server that never ends a silent connection by itself would wait for ever.
    let mut cluster = builder.setting("wal_sender_timeout", "0").start().unwrap();
    let (store, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));

    // All is well: the stop takes no longer than without us, and the last byte is stored.
    let began = Instant::now();
    cluster.stop_fast().unwrap();
    println!("{major}: stopped in {:?}", began.elapsed());
    receiver.until_told(
        "the end of the server",
        &cluster,
        |event| matches!(event, Event::Disconnected { why, .. } if why.contains("all that it has is stored")),
    );
    assert!(!receiver.told().iter().any(|event| matches!(event, Event::GaveWay { .. })), "{:#?}", receiver.told());
    cluster.start_again().unwrap();
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));

    // The store answers nobody: we give way.
    store.stuck(true);
    sql(&cluster, &["create table never_acknowledged (i int)"]);
    let written = now(&cluster);
    let began = Instant::now();
    cluster.stop_fast().unwrap();
    let took = began.elapsed();
    println!("{major}: with the store stuck, stopped in {took:?}");
    assert!(took < decide::STOPPING_MAX + SLACK);
    receiver.until_told("that it gave way", &cluster, |event| matches!(event, Event::GaveWay { .. }));

    // What was received is stored as soon as the store is back, with the server still away.
    store.stuck(false);
    receiver.until("it is stored", &cluster, || {
        let reach = wal.reach(1, from.0 / SEGMENT).unwrap();
        reach.segment * SEGMENT + reach.bytes >= written.0
    });
    cluster.start_again().unwrap();
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    assert_stored(&wal, 1, &cluster, from, now(&cluster));
    receiver.stop();
}
