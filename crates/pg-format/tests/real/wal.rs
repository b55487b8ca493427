//! WAL, labels and maps of a backup under work, judged by `pg_waldump`.

use std::{fs, fs::File};

use pg_format::{
    ControlFile, Major,
    label::{BackupFrom, BackupLabel, TablespaceMap},
    wal::{BlockRef, Fork, Kind, Stream, WalError, check_range},
};

use crate::{Session, cluster, text, tool};

/// As `pg_waldump` prints it.
fn describe(block: &BlockRef<'_>) -> String {
    let fork = match block.fork {
        Fork::Main => "",
        Fork::FreeSpaceMap => " fork fsm",
        Fork::VisibilityMap => " fork vm",
        Fork::Init => " fork init",
    };
    let relation = block.relation;
    format!("rel {}/{}/{}{fork} blk {}", relation.tablespace, relation.database, relation.number, block.block)
}

/// (start, end, label, map) around `work`.
fn backup(session: &Session, major: u32, work: impl FnOnce()) -> [String; 3] {
    let (start, stop) = if major >= 15 {
        ("select pg_backup_start('a label', true)", "select * from pg_backup_stop(false)")
    } else {
        ("select pg_start_backup('a label', true, false)", "select * from pg_stop_backup(false, false)")
    };
    session.one(start);
    work();
    let row = session.rows(stop).remove(0);
    [0, 1, 2].map(|column: usize| row[column].clone().unwrap_or_default())
}

pub(crate) fn agrees(major: u32) {
    let Some(cluster) = cluster(major) else { return };
    let session = Session::open(&cluster, "postgres");
    let tablespace = cluster.directory().join("a tablespace");
    fs::create_dir(&tablespace).unwrap();
    cluster.give(&tablespace).unwrap();
    session.rows(&format!("create tablespace earlier location '{}'", tablespace.display()));
    let oid: u32 = session.one("select oid from pg_tablespace where spcname = 'earlier'").parse().unwrap();
    let other = Session::open(&cluster, "postgres");
    let inner = cluster.directory().join("inner");
    let [stop, label, map] = backup(&session, major, || {
        fs::create_dir(&inner).unwrap();
        cluster.give(&inner).unwrap();
        for sql in [
            "create table t as select i, repeat('x', 200) as x from generate_series(1, 20000) i",
            "create index on t (i)",
            "checkpoint",
            "update t set i = i + 1",
            "create database d",
            "drop database d",
            &format!("create tablespace inner_one location '{}'", inner.display()),
            "drop tablespace inner_one",
            "select pg_create_restore_point('here')",
            "select pg_switch_wal()",
            "vacuum t",
        ] {
            other.rows(sql);
        }
    });
    let label_text = label;
    let label = BackupLabel::parse(&label_text).unwrap();
    assert_eq!(label.to_text(Major::from_number(major).unwrap()), label_text);
    assert_eq!((label.from, label.label.as_str(), label.timeline), (BackupFrom::Primary, "a label", Some(1)));
    let map = TablespaceMap::parse(map.as_bytes()).unwrap();
    assert_eq!(map.links.into_iter().collect::<Vec<_>>(), [(oid, tablespace.to_str().unwrap().as_bytes().to_vec())]);

    let control = ControlFile::parse(&fs::read(cluster.data_dir().join("global/pg_control")).unwrap()).unwrap();
    let stream = Stream::of(&control).unwrap();
    let known = Major::from_number(major).unwrap();
    let (start, stop) = (label.start, stop.parse().unwrap());
    let wal = cluster.data_dir().join("pg_wal");
    let mut found = Vec::new();
    let mut kinds = Vec::new();
    let open = |name: pg_format::wal::SegmentName| File::open(wal.join(name.file_name(stream.segment_size)));
    let report = check_range(&stream, 1, start, stop, open, |record| {
        let parts = record.parts(known).unwrap();
        let kind = Kind::of(known, record, &parts);
        kinds.push(match kind {
            Kind::CheckpointOnline(checkpoint) => format!("checkpoint redo {}", checkpoint.redo),
            Kind::BackupEnd { start } => format!("backup from {start}"),
            Kind::TablespaceCreate { path, .. } => format!("tablespace {}", String::from_utf8_lossy(path)),
            Kind::TablespaceDrop { .. } => "tablespace dropped".to_owned(),
            Kind::DatabaseCopy { .. } => "database copied".to_owned(),
            Kind::DatabaseCreate { .. } => "database created".to_owned(),
            Kind::DatabaseDrop { tablespaces, .. } => format!("database dropped {tablespaces:?}"),
            Kind::RestorePoint { name, .. } => format!("restore point {}", String::from_utf8_lossy(name)),
            Kind::CheckpointRedo { wal_level } => format!("redo {wal_level:?}"),
            Kind::Switch => "switch".to_owned(),
            Kind::Unreadable => panic!("unreadable: {record:?}"),
            _ => String::new(),
        });
        found.push((record.lsn, record.header.prev, parts.blocks.iter().map(describe).collect::<Vec<_>>()));
    })
    .unwrap();
    assert_eq!((report.end, report.timelines.len(), report.records), (stop, 1, found.len() as u64));
    for expected in [
        format!("checkpoint redo {start}"),
        format!("backup from {start}"),
        format!("tablespace {}", inner.display()),
        "tablespace dropped".to_owned(),
        if major >= 15 { "database created" } else { "database copied" }.to_owned(),
        "database dropped [1663]".to_owned(),
        "restore point here".to_owned(),
        "switch".to_owned(),
    ] {
        assert!(kinds.contains(&expected), "{expected}");
    }
    assert_eq!(kinds.iter().any(|kind| kind == "redo Some(Replica)"), major >= 17);

    // A segment too few is an error that names it.
    let last = stream.segment_size.number_before(stop);
    let without_last = |name: pg_format::wal::SegmentName| {
        if name.number == last { Err(std::io::ErrorKind::NotFound.into()) } else { open(name) }
    };
    let gap = check_range(&stream, 1, start, stop, without_last, |_| {});
    assert!(matches!(gap, Err(WalError::Read { .. })), "{gap:?}");

    let Some(mut waldump) = tool(cluster.installation(), "pg_waldump") else { return };
    let said = text(waldump.arg("-p").arg(&wal).args(["-s", &start.to_string(), "-e", &stop.to_string()]));
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("rmgr:")).collect();
    assert_eq!(lines.len(), found.len());
    for (line, (lsn, prev, blocks)) in lines.iter().zip(&found) {
        let word = |key: &str| line.split_once(key).map(|(_, rest)| rest.split([',', ' ']).next().unwrap());
        let same = |text: Option<&str>| text.and_then(|text| text.parse::<model::Lsn>().ok());
        assert_eq!((same(word("lsn: ")), same(word("prev "))), (Some(*lsn), Some(*prev)), "{line}");
        assert_eq!(line.matches("blkref #").count(), blocks.len(), "{line}");
        for block in blocks {
            assert!(line.contains(block.as_str()), "{block}: {line}");
        }
    }
}
