//! A reader that waits for its storage, on a server of little patience.

use pg_replication::{Connection, StreamEnd, StreamOptions, WalEvent};

use super::{GLANCE, Segments, here, keeping, load, pump, until};
use crate::{socket, sql};

pub fn while_storage_is_slow(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let cluster = builder.setting("wal_sender_timeout", "4s").start().unwrap();
    super::tables(&cluster);
    let open = |name: &str| {
        let target = pg_replication::Target { application_name: name.to_owned(), ..socket(&cluster) };
        Connection::open(&target).unwrap()
    };
    let (mut with, mut without) = (open("with"), open("without"));
    let options = here(&mut with);
    let mut kept = with.stream_wal(&options).unwrap();
    let mut lost = without.stream_wal(&StreamOptions::new(options.start, options.timeline)).unwrap();
    assert!(matches!(lost.next(GLANCE).unwrap(), WalEvent::Wal { .. } | WalEvent::Nothing));
    let heartbeat = kept.status().heartbeat(super::PATIENCE).unwrap();
    // Both readers store, which takes them long: nobody calls `next`. Much more comes than fits into any buffer.
    load(&cluster, 40, &false.into());
    let alive = |name: &str| {
        let query = format!("select count(*) from pg_stat_replication where application_name = '{name}'");
        sql(&cluster, &[&query]) == "1"
    };
    until("the server gives up on who does not answer", &cluster, || !alive("without"));
    assert!(alive("with"));
    let broken = loop {
        match lost.next(GLANCE) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(broken.is_passing(), "{broken}");
    drop(heartbeat);
    let end = super::switch(&cluster);
    let mut segments = Segments::new(1);
    assert!(pump(&mut kept, &mut segments, |_, segments| segments.end >= end));
    assert_eq!(kept.finish().unwrap(), StreamEnd::Finished);
    super::assert_within(&segments.complete(), &cluster, 4);
}
