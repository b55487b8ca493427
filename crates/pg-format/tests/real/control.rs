//! The control file, judged by the server's functions and by `pg_controldata`.

use std::{collections::BTreeMap, fs};

use pg_format::{ControlFile, control::State, wal::SegmentSize};

use crate::{Session, cluster, text, tool};

pub(crate) fn agrees(major: u32) {
    let Some(mut cluster) = cluster(major) else { return };
    let path = cluster.data_dir().join("global/pg_control");
    let session = Session::open(&cluster, "postgres");
    session.rows("checkpoint");
    let file = ControlFile::parse(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((file.major.number(), file.state, file.has_checksums()), (major, State::InProduction, true));
    assert!(!file.in_recovery());

    let system = "select system_identifier, pg_control_version, catalog_version_no from pg_control_system()";
    let expected: Vec<String> = session.rows(system).remove(0).into_iter().flatten().collect();
    let numbers = [u64::from(file.control_version), u64::from(file.catalog_version)];
    assert_eq!(expected[0], file.system_identifier.to_string());
    assert_eq!(expected[1..], numbers.map(|number| number.to_string()));

    let point = "select checkpoint_lsn, redo_lsn, timeline_id, prev_timeline_id, full_page_writes, next_oid, \
                 extract(epoch from checkpoint_time)::bigint, next_xid from pg_control_checkpoint()";
    let expected: Vec<String> = session.rows(point).remove(0).into_iter().flatten().collect();
    let checkpoint = &file.checkpoint;
    let found = [
        file.checkpoint_lsn.to_string(),
        checkpoint.redo.to_string(),
        checkpoint.timeline.to_string(),
        checkpoint.previous_timeline.to_string(),
        if checkpoint.full_page_writes { "t" } else { "f" }.to_owned(),
        checkpoint.next_oid.to_string(),
        checkpoint.time.to_string(),
        format!("{}:{}", checkpoint.next_xid >> 32, checkpoint.next_xid & 0xFFFF_FFFF),
    ];
    assert_eq!(found, expected[..]);

    let init = "select database_block_size, blocks_per_segment, wal_block_size, bytes_per_wal_segment, \
                data_page_checksum_version from pg_control_init()";
    let expected: Vec<String> = session.rows(init).remove(0).into_iter().flatten().collect();
    let found =
        [file.block_size, file.segment_blocks, file.wal_block_size, file.wal_segment_size, file.data_checksum_version];
    assert_eq!(expected, found.map(|number| number.to_string()));
    assert!(SegmentSize::new(u64::from(file.wal_segment_size)).is_ok());

    for (name, value) in [
        ("max_connections", file.max_connections),
        ("max_worker_processes", file.max_worker_processes),
        ("max_wal_senders", file.max_wal_senders),
        ("max_prepared_transactions", file.max_prepared_transactions),
        ("max_locks_per_transaction", file.max_locks_per_transaction),
    ] {
        assert_eq!(session.one(&format!("show {name}")), value.to_string(), "{name}");
    }
    assert_eq!(session.one("show wal_level"), file.wal_level.to_string());
    assert_eq!(checkpoint.wal_level.is_some(), major >= 17);
    drop(session);

    cluster.stop_fast().unwrap();
    let file = ControlFile::parse(&fs::read(&path).unwrap()).unwrap();
    assert!(file.state == State::ShutDown && file.state.is_clean());
    let Some(mut controldata) = tool(cluster.installation(), "pg_controldata") else { return };
    let text = text(controldata.arg("-D").arg(cluster.data_dir()));
    let said: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let said = |key: &str| said.get(key).copied().unwrap_or_default().trim().to_owned();
    for (key, value) in [
        ("Database cluster state", file.state.to_string()),
        ("Latest checkpoint location", file.checkpoint_lsn.to_string()),
        ("Latest checkpoint's REDO location", file.checkpoint.redo.to_string()),
        ("Minimum recovery ending location", file.min_recovery_point.to_string()),
        ("Min recovery ending loc's timeline", file.min_recovery_timeline.to_string()),
        ("Backup start location", file.backup_start.to_string()),
        ("Backup end location", file.backup_end.to_string()),
        ("End-of-backup record required", if file.backup_end_required { "yes" } else { "no" }.to_owned()),
        ("wal_level setting", file.wal_level.to_string()),
        ("wal_log_hints setting", if file.wal_log_hints { "on" } else { "off" }.to_owned()),
        ("track_commit_timestamp setting", if file.track_commit_timestamp { "on" } else { "off" }.to_owned()),
    ] {
        assert_eq!(said(key), value, "{key}");
    }
    if let Some(signed) = file.default_char_signedness {
        assert_eq!(said("Default char data signedness"), if signed { "signed" } else { "unsigned" });
    }
}
