//! Timelines: the server is promoted, or another one takes over.

use std::fs;

use model::Lsn;
use scratch::ScratchCluster;
use wal::receive::Event;

use crate::support::*;

/// A standby of a cluster, made of a copy of it while it is stopped.
pub fn standby_of(primary: &mut ScratchCluster) -> ScratchCluster {
    primary.stop_fast().unwrap();
    let copy = copy_of(&primary.data_dir());
    primary.start_again().unwrap();
    let data = copy.path().join("data");
    fs::write(data.join("standby.signal"), "").unwrap();
    let upstream = format!("host={} port={} user=postgres", primary.socket_dir().display(), primary.tcp_port());
    let standby = ScratchCluster::builder(primary.installation()).template_of(&data);
    let standby =
        standby.setting("primary_conninfo", upstream).setting("hot_standby", "on").setting("autovacuum", "off");
    let standby = standby.setting("wal_keep_size", "1GB").setting("max_slot_wal_keep_size", "2GB");
    standby.start().unwrap()
}

fn replayed(standby: &ScratchCluster, to: Lsn) -> bool {
    sql(standby, &[&format!("select coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{to}'")]) == "t"
}

/// The timeline that is acknowledged by `cluster`'s receiver is the new one.
fn promoted(receiver: &Receiver, cluster: &ScratchCluster) -> Lsn {
    sql(cluster, &["select pg_promote()"]);
    write(cluster);
    let to = now(cluster);
    receiver.until_acknowledged(cluster, to);
    to
}

fn switch_point(cluster: &ScratchCluster) -> Lsn {
    let text = fs::read_to_string(cluster.data_dir().join("pg_wal/00000002.history")).unwrap();
    text.split('\t').nth(1).unwrap().parse().unwrap()
}

/// The server from which we stream is promoted.
pub fn a_promotion(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut primary = builder.start().unwrap();
    let standby = standby_of(&mut primary);
    let (_, repository) = repository();
    let wal = wal_of(&repository, &primary);
    let from = now(&primary);
    let receiver = Receiver::start(&options(&standby), &repository);
    receiver.until_connected(&standby);
    write(&primary);
    write(&primary);
    let before = now(&primary);
    receiver.until("the standby has it", &standby, || replayed(&standby, before));
    let to = promoted(&receiver, &standby);
    receiver.until_told("the switch", &standby, |event| matches!(event, Event::Timeline { from: 1, to: 2, .. }));
    let switch = switch_point(&standby);
    assert_stored(&wal, 1, &standby, from, before);
    assert_stored(&wal, 2, &standby, switch, to);
    let history = fs::read(standby.data_dir().join("pg_wal/00000002.history")).unwrap();
    assert_eq!(wal.get_history(2).unwrap(), Some(history));
    receiver.stop();
}

/// The primary is lost, and a standby takes over: the next receiver finds out by itself.
pub fn a_failover(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut primary = builder.start().unwrap();
    let standby = standby_of(&mut primary);
    let (_, repository) = repository();
    let wal = wal_of(&repository, &primary);
    let from = now(&primary);
    let receiver = Receiver::start(&options(&primary), &repository);
    receiver.until_connected(&primary);
    write(&primary);
    let before = now(&primary);
    receiver.until_acknowledged(&primary, before);
    receiver.until("the standby has it", &standby, || replayed(&standby, before));
    // The old receiver stops, WAL goes on, the standby has it, the primary goes.
    receiver.stop();
    write(&primary);
    write(&primary);
    let last = now(&primary);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !replayed(&standby, last) {
        assert!(std::time::Instant::now() < deadline, "{}", standby.log_tail());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    primary.kill9().unwrap();
    sql(&standby, &["select pg_promote()"]);
    let receiver = Receiver::start(&options(&standby), &repository);
    receiver.until_connected(&standby);
    write(&standby);
    let to = now(&standby);
    receiver.until_acknowledged(&standby, to);
    let switch = switch_point(&standby);
    // The rest of the old timeline came from the new server.
    assert_stored(&wal, 1, &standby, from, switch);
    assert_stored(&wal, 2, &standby, switch, to);
    let told = receiver.stop();
    assert!(told.iter().any(|event| matches!(event, Event::Connected { timeline: 1, .. })), "{told:#?}");
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. } | Event::BeyondSwitch { .. })), "{told:#?}");

    // The old primary comes back and writes on where it was: that is said, and stored on its own timeline.
    primary.start_again().unwrap();
    let stale = Receiver::start(&options(&primary), &repository);
    stale.until_told("that it is old", &primary, |event| matches!(event, Event::Superseded { timeline: 1, newer: 2 }));
    write(&primary);
    let to = now(&primary);
    stale.until_acknowledged(&primary, to);
    assert_stored(&wal, 1, &primary, from, to);
    stale.stop();
}
