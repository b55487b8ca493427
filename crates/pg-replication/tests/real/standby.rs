//! A backup from a standby.

use std::{
    fs,
    time::{Duration, Instant},
};

use pg_replication::{BaseBackupOptions, Connection};
use scratch::ScratchCluster;

use crate::{backup::receive, builder, socket, sql};

pub fn is_copied(major: u32) {
    let Some(builder) = builder(major) else { return };
    let primary = builder.setting("wal_keep_size", "256MB").start().unwrap();
    sql(&primary, &["create table t as select i from generate_series(1, 1000) i"]);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("data");
    let mut connection = Connection::open(&socket(&primary)).unwrap();
    let mut backup = connection.base_backup(&BaseBackupOptions::new("for a standby")).unwrap();
    receive(&mut backup, &copy);
    backup.finish().unwrap();
    drop(connection);

    fs::write(copy.join("standby.signal"), "").unwrap();
    let upstream = format!("host={} port={} user=postgres", primary.socket_dir().display(), primary.tcp_port());
    let standby = ScratchCluster::builder(primary.installation()).template_of(&copy);
    let standby = standby.setting("primary_conninfo", upstream).setting("hot_standby", "on").start().unwrap();
    sql(&primary, &["insert into t select i from generate_series(1, 1000) i", "checkpoint"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while sql(&standby, &["select count(*) from t"]) != "2000" {
        assert!(Instant::now() < deadline, "the standby does not follow: {}", standby.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }

    let mut connection = Connection::open(&socket(&standby)).unwrap();
    assert_eq!(connection.is_standby(), (major >= 14).then_some(true));
    let copy = dir.path().join("second");
    let mut backup = connection.base_backup(&BaseBackupOptions::new("from a standby")).unwrap();
    let received = receive(&mut backup, &copy);
    let (start, stop) = (backup.start(), backup.finish().unwrap());
    assert!(stop.lsn >= start.lsn && received.files.contains_key("global/pg_control"));
    let label = fs::read_to_string(copy.join("backup_label")).unwrap();
    assert!(label.contains("BACKUP FROM: standby\n"), "{label}");
    let _ = fs::remove_file(copy.join("standby.signal"));
    let restored = ScratchCluster::builder(standby.installation()).template_of(&copy).start().unwrap();
    assert_eq!(sql(&restored, &["select count(*) from t"]), "2000");
}
