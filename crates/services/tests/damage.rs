//! Data directories of real servers, damaged for real: what is recognised, and that nothing else is.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
};

use scratch::{Installation, ScratchCluster};
use services::{
    boot::server::Sign,
    damage::{Damage, Verdict, verdict},
    evidence::{directory::directory, server},
};

fn looked_at(data: &Path) -> Verdict {
    verdict(&directory(data))
}

fn damage(data: &Path) -> (Damage, String) {
    match looked_at(data) {
        Verdict::Damaged { findings } => (findings[0].damage, findings[0].evidence.clone()),
        other => panic!("{}: {other:?}", data.display()),
    }
}

/// All damages on one cluster, each mended before the next.
fn each_damage(installation: &Installation) {
    let mut cluster = ScratchCluster::builder(installation).start().unwrap();
    let data = cluster.data_dir();
    let is_sound = |what: &str| {
        let found = looked_at(&data);
        assert!(matches!(found, Verdict::Sound { .. }), "{}, {what}: {found:?}", installation.major());
    };
    is_sound("while it runs");
    cluster.stop_fast().unwrap();
    is_sound("stopped in order");
    cluster.start_again().unwrap();
    cluster.kill9().unwrap();
    is_sound("killed");

    let control = data.join("global/pg_control");
    let kept = fs::read(&control).unwrap();
    fs::write(&control, vec![0; kept.len()]).unwrap();
    assert_eq!(damage(&data).0, Damage::ControlFile);
    let mut flipped = kept.clone();
    flipped[40] ^= 1;
    fs::write(&control, &flipped).unwrap();
    let (found, evidence) = damage(&data);
    assert!(found == Damage::ControlFile && evidence.contains("CRC"), "{evidence}");
    // Moved and not made anew, which would make it root's.
    fs::rename(&control, data.join("control")).unwrap();
    assert_eq!(damage(&data).0, Damage::NoControlFile);
    fs::rename(data.join("control"), &control).unwrap();
    fs::write(&control, &kept).unwrap();

    fs::rename(data.join("PG_VERSION"), data.join("version")).unwrap();
    assert_eq!(damage(&data).0, Damage::NoVersion);
    fs::rename(data.join("version"), data.join("PG_VERSION")).unwrap();
    is_sound("mended");

    // Without the WAL to begin with the server says so itself; its words alone are believed too.
    let aside = data.with_extension("wal");
    fs::create_dir(&aside).unwrap();
    for entry in fs::read_dir(data.join("pg_wal")).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            fs::rename(entry.path(), aside.join(entry.file_name())).unwrap();
        }
    }
    let (found, evidence) = damage(&data);
    assert!(found == Damage::WalMissing && evidence.contains("recovery begins at 0/"), "{evidence}");
    cluster.start_again().unwrap_err();
    let log = fs::read_to_string(cluster.log_path()).unwrap();
    let signs: Vec<Sign> = services::boot::server::marks("log", log.lines()).iter().map(|mark| mark.sign).collect();
    assert!(signs.contains(&Sign::NoCheckpoint), "{log}");

    let elsewhere = data.with_extension("gone");
    fs::rename(&data, &elsewhere).unwrap();
    assert_eq!(damage(&data).0, Damage::Removed);
    fs::create_dir(&data).unwrap();
    assert_eq!(damage(&data).0, Damage::Empty);
    fs::remove_dir(&data).unwrap();
    fs::rename(&elsewhere, &data).unwrap();
}

#[test]
fn what_nothing_can_be_started_on_is_recognised() {
    let installations = scratch::installations();
    let supported: Vec<&Installation> = installations.iter().filter(|one| (13..=18).contains(&one.major())).collect();
    let mut ends = vec![supported.first(), supported.last()];
    ends.dedup_by_key(|one| one.map(|one| one.major()));
    if supported.is_empty() {
        println!("skipped: no PostgreSQL 13 to 18 is installed");
    }
    ends.into_iter().flatten().for_each(|one| each_damage(one));
}

#[test]
fn slow_what_nothing_can_be_started_on_is_recognised_on_all_majors() {
    scratch::installations().iter().filter(|one| (13..=18).contains(&one.major())).for_each(each_damage);
}

#[test]
fn a_broken_page_is_told_and_keeps_nobody_from_starting() {
    let Ok(installation) = scratch::newest_installation().map_err(|error| println!("skipped: {error}")) else { return };
    let builder = ScratchCluster::builder(&installation).fresh().initdb_args(["--data-checksums"]);
    let mut cluster = builder.setting("logging_collector", "on").start().unwrap();
    let ask = |cluster: &ScratchCluster, sql: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let said = client.simple_query(sql).await;
            drop(client);
            let _ = connection.await;
            said
        })
    };
    let made = "create table t as select generate_series(1, 1000) as n; checkpoint";
    for sql in made.split("; ") {
        ask(&cluster, sql).unwrap();
    }
    let said = ask(&cluster, "select pg_relation_filepath('t')").unwrap();
    let path = said.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    let data = cluster.data_dir();
    cluster.stop_fast().unwrap();
    let file = OpenOptions::new().write(true).open(data.join(path.unwrap())).unwrap();
    file.write_all_at(b"broken", 4_000).unwrap();
    cluster.start_again().unwrap();
    ask(&cluster, "select count(*) from t").unwrap_err();
    cluster.kill9().unwrap();
    let Verdict::Sound { pages } = looked_at(&data) else { panic!("{:?}", looked_at(&data)) };
    assert!(pages.iter().any(|line| line.contains("invalid page in block 0 of relation")), "{pages:?}");
    assert!(server::log_file(&data).is_some());
}
