//! Stores that fail, receivers that are killed, servers that have nothing to give.

use std::time::{Duration, Instant};

use repository::wal::WalError;
use wal::receive::{Event, ReceiveError, decide};

use crate::support::*;

pub fn a_store_that_fails(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let cluster = builder.setting("wal_sender_timeout", "1s").start().unwrap();
    let (store, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    let before = now(&cluster);
    store.down(true);
    write(&cluster);
    write(&cluster);
    let written = now(&cluster);
    receiver.until_told("that it fails", &cluster, |event| matches!(event, Event::StoreFailing { .. }));
    // Statuses go on meanwhile: the server does not lose patience, and hears of nothing that is not durable.
    let sent = format!("select count(*) from pg_stat_replication where sent_lsn >= '{written}'");
    receiver.until("all was sent", &cluster, || sql(&cluster, &[&sent]) == "1");
    let pid = sql(&cluster, &["select pid from pg_stat_replication"]);
    let patience = Instant::now() + Duration::from_secs(2);
    while Instant::now() < patience {
        assert_eq!(sql(&cluster, &["select pid from pg_stat_replication"]), pid, "{}", cluster.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(lsn(&cluster, "select coalesce(flush_lsn, '0/0') from pg_stat_replication") < written);
    store.down(false);
    receiver.until_acknowledged(&cluster, written);
    receiver.until_told("that it is back", &cluster, |event| matches!(event, Event::StoreBack { .. }));
    assert_stored(&wal, 1, &cluster, from, written);
    assert!(before < written);
    receiver.stop();
}

/// The server writes more than we hold: it must never wait for us, and we must not grow without end.
pub fn a_store_that_is_stuck_for_long(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    let (store, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    store.stuck(true);
    for _ in 0..120 {
        switch(&cluster);
    }
    receiver.until_told("that it gives way", &cluster, |event| matches!(event, Event::GaveWay { .. }));
    receiver.until("nobody streams", &cluster, || sql(&cluster, &["select count(*) from pg_stat_replication"]) == "0");
    let began = Instant::now();
    cluster.stop_fast().unwrap();
    assert!(began.elapsed() < decide::FULL_MAX + Duration::from_secs(30));
    cluster.start_again().unwrap();
    store.stuck(false);
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    receiver.stop();
}

/// As `kill -9` at each write to the store, one after the other.
pub fn a_kill_at_any_write(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let cluster = builder.start().unwrap();
    let (store, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    for writes in 1..=8 {
        store.dies_at(Some(writes));
        let receiver = Receiver::start(&options(&cluster), &repository);
        let began = Instant::now();
        // It writes on until the receiver has died of it.
        let error = loop {
            assert!(began.elapsed() < PATIENCE);
            switch(&cluster);
            write(&cluster);
            if receiver.ended() {
                break receiver.error();
            }
        };
        assert!(matches!(&error, ReceiveError::Store(WalError::Store(_))), "{error:?}");
        store.dies_at(None);
        // What was acknowledged is there.
        let durable = sql(&cluster, &["select restart_lsn from pg_replication_slots"]);
        let reach = wal.reach(1, from.0 / SEGMENT).unwrap();
        let reached = model::Lsn(reach.segment * SEGMENT + reach.bytes);
        let names = store.names();
        assert!(
            durable.is_empty() || reached >= durable.parse().unwrap(),
            "{writes}: {durable} {reached} {reach:?} {from} {names:#?}"
        );
    }
    let receiver = Receiver::start(&options(&cluster), &repository);
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. })), "{told:#?}");
}

/// wal_level = minimal and no walsenders: said, tried again, and fine once a person has mended it.
pub fn a_server_without_wal(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    sql(&cluster, &["alter system set wal_level = 'minimal'", "alter system set max_wal_senders = 0"]);
    cluster.stop_fast().unwrap();
    cluster.start_again().unwrap();
    let (_, repository) = repository();
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_told(
        "why",
        &cluster,
        |event| matches!(event, Event::Disconnected { why, .. } if why.contains("raise max_wal_senders")),
    );
    sql(&cluster, &["alter system reset wal_level", "alter system reset max_wal_senders"]);
    cluster.stop_fast().unwrap();
    cluster.start_again().unwrap();
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    receiver.stop();
}

/// Two copies of one cluster write different WAL of the same name.
pub fn another_history_of_the_same(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    cluster.stop_fast().unwrap();
    let copy = copy_of(&cluster.data_dir());
    cluster.start_again().unwrap();
    let twin = scratch::ScratchCluster::builder(cluster.installation()).template_of(copy.path().join("data"));
    let twin = twin.setting("wal_keep_size", "1GB").setting("max_slot_wal_keep_size", "2GB").start().unwrap();
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    receiver.stop();

    sql(&twin, &["create table not_the_same (i int)"]);
    switch(&twin);
    switch(&twin);
    let error = Receiver::start(&options(&twin), &repository).error();
    let diverged = matches!(
        &error,
        ReceiveError::Store(WalError::Diverged { .. } | WalError::Differs { .. }) | ReceiveError::Server(_)
    );
    assert!(diverged && error.to_string().contains("hint: "), "{error:?}");
    assert_stored(&wal, 1, &cluster, from, end);
}
