//! A standby is promoted while we stream from it.

use std::fs;

use model::Lsn;
use pg_replication::{BaseBackupOptions, Connection, Refusal, StreamEnd, StreamOptions, WalEvent};
use scratch::ScratchCluster;

use super::{
    GLANCE, KEPT, PgReceivewal, SEGMENT, Segments, assert_same, assert_within, first_refusal, here, keeping, load,
    name_of, pump, restart_lsn, segment_start, slot, switch, tables, until,
};
use crate::{backup::receive, socket, sql};

fn standby_of(primary: &ScratchCluster) -> ScratchCluster {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("data");
    let mut connection = Connection::open(&socket(primary)).unwrap();
    let mut backup = connection.base_backup(&BaseBackupOptions::new("for a standby")).unwrap();
    receive(&mut backup, &copy);
    backup.finish().unwrap();
    fs::write(copy.join("standby.signal"), "").unwrap();
    let upstream = format!("host={} port={} user=postgres", primary.socket_dir().display(), primary.tcp_port());
    let standby = ScratchCluster::builder(primary.installation()).template_of(&copy).setting("autovacuum", "off");
    standby.setting("primary_conninfo", upstream).setting("hot_standby", "on").start().unwrap()
}

pub fn is_followed(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let primary = builder.start().unwrap();
    tables(&primary);
    let standby = standby_of(&primary);
    // The postgresql.conf of a copy asks for its own file of settings: what the primary had, the standby needs said again.
    sql(&standby, &["alter system set wal_keep_size = '1GB'", "select pg_reload_conf()"]);
    let mut connection = Connection::open(&socket(&standby)).unwrap();
    connection.create_slot(&slot("ours"), KEPT).unwrap();
    let theirs = PgReceivewal::start(&standby);
    let first = StreamOptions { slot: Some(slot("ours")), ..here(&mut connection) };
    let mut segments = Segments::new(1);
    let mut stream = connection.stream_wal(&first).unwrap();
    load(&primary, 10, &false.into());
    assert!(pump(&mut stream, &mut segments, |_, segments| segments.end.0 > first.start.0 + 2 * SEGMENT));

    sql(&standby, &["select pg_promote()"]);
    assert!(!pump(&mut stream, &mut segments, |_, _| false));
    // The end of the timeline can still be acknowledged, and nothing hurries us.
    assert!(stream.status().flushed(stream.received()).unwrap());
    until("the slot has the last of the timeline", &standby, || restart_lsn(&standby, "ours") == stream.received());
    let received = stream.received();
    let StreamEnd::NextTimeline { timeline: 2, switch: switched } = stream.finish().unwrap() else {
        panic!("the switch was not told");
    };
    assert!(switched <= received, "{switched} {received}");

    let file = connection.timeline_history(2).unwrap();
    assert_eq!(file.name, "00000002.history");
    let text = String::from_utf8_lossy(&file.content);
    assert!(text.starts_with(&format!("1\t{switched}\t")), "{text}");
    assert_eq!(file.content, fs::read(standby.data_dir().join("pg_wal/00000002.history")).unwrap());
    assert_eq!(connection.timeline_history(3).unwrap_err().refusal(), Some(Refusal::NoHistory));

    // On the new one, from the start of the segment.
    segments.follow(2);
    let second = StreamOptions { start: segment_start(switched), timeline: 2, ..first.clone() };
    let mut stream = connection.stream_wal(&second).unwrap();
    load(&standby, 10, &false.into());
    let end = switch(&standby);
    assert!(pump(&mut stream, &mut segments, |_, segments| segments.end >= end));
    assert_eq!(stream.finish().unwrap(), StreamEnd::Finished);
    let ours = segments.complete();
    let (old, new): (Vec<&String>, Vec<&String>) = ours.keys().partition(|name| name.starts_with("00000001"));
    assert!(old.len() >= 2 && new.len() >= 2, "{ours:?}", ours = ours.keys());
    let last = name_of(2, Lsn(end.0 - 1));
    if let Some(theirs) = theirs {
        theirs.until_it_has(&standby, &last);
        assert_same(&ours, &theirs.complete(), 4);
        assert_eq!(fs::read(theirs.dir.path().join(&file.name)).unwrap(), file.content);
    }
    assert_within(&ours, &standby, 4);

    // The old timeline can be streamed again, up to its end.
    let mut again = Segments::new(1);
    let mut stream = connection.stream_wal(&StreamOptions { slot: None, ..first.clone() }).unwrap();
    assert!(!pump(&mut stream, &mut again, |_, _| false));
    assert_eq!(again.end, switched);
    let next = StreamEnd::NextTimeline { timeline: 2, switch: switched };
    assert_eq!(stream.finish().unwrap(), next);
    // Given up in the midst it says the same: who asks looks at what was received.
    let stream = connection.stream_wal(&StreamOptions { slot: None, ..first.clone() }).unwrap();
    assert_eq!(stream.finish().unwrap(), next);
    // From its end on there is nothing, and the server does not even begin.
    let mut stream = connection.stream_wal(&StreamOptions::new(switched, 1)).unwrap();
    assert_eq!(stream.next(GLANCE).unwrap(), WalEvent::End);
    assert!(!stream.status().ping().unwrap());
    assert_eq!(stream.finish().unwrap(), next);

    // What this server can't have.
    for (start, timeline, expected) in [
        (Lsn(segment_start(switched).0 + 4 * SEGMENT), 1, Refusal::NotInHistory),
        (Lsn(end.0 + 64 * SEGMENT), 2, Refusal::AheadOfServer),
        (segment_start(switched), 7, Refusal::NotInHistory),
    ] {
        assert_eq!(first_refusal(&mut connection, &StreamOptions::new(start, timeline)), Some(expected));
    }
}
