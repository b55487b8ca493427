//! Moments that are hard to find: prepared transactions, a name that was used twice, a clock that was set back.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::Lsn;
use scratch::Installation;

use crate::{
    pitr::{Scene, sql, try_sql},
    wal_fault_recovery::majors,
};

majors! {
    prepared_transactions: slow_prepared_14 = 14, slow_prepared_15 = 15, slow_prepared_16 = 16, slow_prepared_17 = 17, slow_prepared_18 = 18;
    a_name_that_was_used_twice: slow_name_twice_14 = 14, slow_name_twice_15 = 15, slow_name_twice_16 = 16, slow_name_twice_17 = 17, slow_name_twice_18 = 18;
    a_clock_that_was_set_back: slow_clock_back_14 = 14, slow_clock_back_15 = 15, slow_clock_back_16 = 16, slow_clock_back_17 = 17, slow_clock_back_18 = 18;
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Another transaction's number is in the record that ends a prepared one; the database at its end is what is wanted.
fn prepared_transactions(installation: &Installation) {
    block_on(async {
        let mut scene = Scene::begin(installation, &[("max_prepared_transactions", "5")]).await;
        scene.back_up().await;
        sql(&scene.cluster, "create table other as select g from generate_series(1, 100) g").await;
        sql(&scene.cluster, "create index on other (g)").await;
        let mut xids = Vec::new();
        // The second one drops relations and their statistics: what its record says of them comes before its number.
        for (id, name, more) in [(100, "one", ""), (102, "two", "drop table other;")] {
            let (client, connection) =
                tokio_postgres::connect(&scene.cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
                .batch_execute(&format!("begin; savepoint s; insert into ledger values ({id}); {more}"))
                .await
                .unwrap();
            let row = client.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
            xids.push(row.get::<_, String>(0));
            client.batch_execute(&format!("prepare transaction '{name}'")).await.unwrap();
            scene.enter(id + 1).await;
            sql(&scene.cluster, &format!("commit prepared '{name}'")).await;
        }
        scene.enter(104).await;
        scene.archived().await;
        assert_eq!(scene.rows("one", &["--to-xid", &xids[0]]).await, Some(vec![100, 101]));
        assert_eq!(scene.rows("not-one", &["--to-xid", &xids[0], "--exclusive"]).await, Some(vec![101]));
        assert_eq!(scene.rows("two", &["--to-xid", &xids[1]]).await, Some(vec![100, 101, 102, 103]));
    });
}

/// The server would take the first, which lies before the backup is consistent, and stop with an error.
fn a_name_that_was_used_twice(installation: &Installation) {
    block_on(async {
        let mut scene = Scene::begin(installation, &[]).await;
        let done = Arc::new(AtomicBool::new(false));
        let url = scene.cluster.url("postgres");
        let naming = {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                block_on(async {
                    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
                    tokio::spawn(connection);
                    let mut places = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let row = client.query_one("select pg_create_restore_point('twice')::text", &[]).await.unwrap();
                        places.push(row.get::<_, String>(0).parse::<Lsn>().unwrap());
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    places
                })
            })
        };
        scene.back_up().await;
        done.store(true, Ordering::Relaxed);
        let places = naming.join().unwrap();
        let shown = scene.place.json(&["backup", "show"]);
        let place = |name: &str| shown["backup"]["info"][name].as_str().unwrap().parse::<Lsn>().unwrap();
        let (start, stop) = (place("start_lsn"), place("stop_lsn"));
        assert!(places.iter().any(|lsn| *lsn > start && *lsn < stop), "{start} {stop}: {places:?}");
        // What was named behind the backup's end before it was told to stop is not wanted either: a second backup, then.
        scene.place.json(&["backup", "create"]);
        scene.give();
        for id in 1..=3 {
            scene.enter(id).await;
        }
        sql(&scene.cluster, "select pg_create_restore_point('twice')").await;
        scene.enter(4).await;
        scene.archived().await;
        assert_eq!(scene.rows("newest", &["--to-name", "twice"]).await, Some(vec![1, 2, 3]));
        // With the first backup: the first of that name behind its end, whatever lies before.
        let first = scene.place.json(&["backup", "list"]);
        let ids: Vec<&str> =
            first["backups"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        let oldest = ids.iter().find(|id| shown["backup"]["id"] == **id).unwrap();
        let rows = scene.rows("oldest", &[oldest, "--to-name", "twice"]).await;
        let behind = places.iter().any(|lsn| *lsn > stop);
        assert_eq!(rows, Some(if behind { vec![] } else { vec![1, 2, 3] }));
    });
}

/// Where libfaketime is.
pub fn libfaketime() -> Option<PathBuf> {
    let multiarch = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime"));
    let found = multiarch.map(|directory| directory.join("libfaketimeMT.so.1")).find(|library| library.is_file());
    if found.is_none() {
        println!("skipped: libfaketime is not installed (package faketime)");
    }
    found
}

/// An installation whose server has a clock of its own, which is off by what the file says.
fn with_a_clock(installation: &Installation, dir: &Path, clock: &Path, library: &Path) -> Installation {
    let bin_dir = dir.join("bin");
    fs::create_dir(&bin_dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(&installation.bin_dir).unwrap().flatten() {
        if entry.file_name() != "postgres" {
            std::os::unix::fs::symlink(entry.path(), bin_dir.join(entry.file_name())).unwrap();
        }
    }
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\nexec {}/postgres \"$@\"\n",
        library.display(),
        clock.display(),
        installation.bin_dir.display()
    );
    fs::write(bin_dir.join("postgres"), script).unwrap();
    fs::set_permissions(bin_dir.join("postgres"), fs::Permissions::from_mode(0o755)).unwrap();
    Installation { bin_dir, version_num: installation.version_num }
}

/// Rows at two hours ahead, then at one hour, then at three. What came once is reached; what came twice is refused, with the places to choose from.
fn a_clock_that_was_set_back(installation: &Installation) {
    let Some(library) = libfaketime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    let set = |offset: &str| fs::write(&clock, offset).unwrap();
    set("+2h");
    let installation = with_a_clock(installation, dir.path(), &clock, &library);
    block_on(async {
        let mut scene = Scene::begin(&installation, &[]).await;
        // The archive command is a child of the server, and has its clock.
        scene.back_up().await;
        let mut id = 0;
        for offset in ["+2h", "+1h", "+3h"] {
            set(offset);
            for _ in 0..3 {
                id += 1;
                scene.enter(id).await;
            }
        }
        sql(&scene.cluster, "create table afterwards ()").await;
        scene.archived().await;
        let times: Vec<_> = scene.ledger.iter().map(|entry| entry.time).collect();
        assert!(times[3] < times[2] && times[8] > times[5], "the server's clock: {times:?}");
        let rows = try_sql(&scene.cluster, "select id from ledger order by id").await.unwrap();
        assert_eq!(rows.len(), 9);

        let time = |row: usize| times[row - 1].to_string();
        // After it had caught up.
        assert_eq!(scene.rows("late", &["--to-time", &time(8)]).await, Some((1..=8).collect()));
        // Of row 5 and of row 2 the server wrote on both sides.
        for row in [5, 2] {
            scene.refused(&["--to-time", &time(row)], &["the server's clock was set back", "--to-lsn", "hint: "]);
        }
        // The places are exact.
        let (second, fifth) = (scene.ledger[1].lsn.to_string(), scene.ledger[4].lsn.to_string());
        assert_eq!(scene.rows("second", &["--to-lsn", &second, "--exclusive"]).await, Some(vec![1, 2]));
        assert_eq!(scene.rows("fifth", &["--to-lsn", &fifth, "--exclusive"]).await, Some(vec![1, 2, 3, 4, 5]));
        let xid = scene.ledger[4].xid.clone();
        assert_eq!(scene.rows("xid", &["--to-xid", &xid]).await, Some(vec![1, 2, 3, 4, 5]));
    });
}
