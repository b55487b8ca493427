//! What the server does meanwhile.

use std::{fs::OpenOptions, os::unix::fs::FileExt, sync::Arc};

use backup::{CreateError, Note, RestoreError, create::Road};

use super::*;
use crate::common::until;

/// A standby of `primary`, made from a backup of it.
fn standby(installation: &Installation, primary: &ScratchCluster, repo: &Repo) -> ScratchCluster {
    let created = create(primary, repo);
    let place = place();
    let target = place.path().join("data");
    restore(&created, repo, &target);
    let signal = target.join("standby.signal");
    std::fs::write(&signal, "").unwrap();
    primary.give(&signal).unwrap();
    let url = format!("host={} port={} user=postgres", primary.socket_dir().display(), primary.tcp_port());
    cluster(installation)
        .setting("primary_conninfo", url)
        .setting("hot_standby", "on")
        .template_of(&target)
        .start()
        .unwrap()
}

on_majors!(corrupt_pages_are_named_and_not_fatal_unless_asked, 18);

fn corrupt_pages_are_named_and_not_fatal_unless_asked(installation: &Installation) -> Done {
    // Header checks alone find less; 18 has checksums by default.
    let mut source = cluster(installation).initdb_args(["--data-checksums"]).setting("autovacuum", "off").start()?;
    let sql = Sql::connect(&source.url("postgres"));
    sql.run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g; CHECKPOINT");
    assert_eq!(sql.one("SHOW data_checksums"), "on");
    let path = sql.one("SELECT pg_relation_filepath('thing')");
    drop(sql);
    source.stop_fast()?;
    let file = OpenOptions::new().write(true).open(source.data_dir().join(&path))?;
    file.write_all_at(b"\xde\xad\xbe\xef", 3 * 8192 + 5000)?;
    source.start_again()?;
    for road in [Road::Direct, Road::BaseBackup] {
        let (repo, notes) = (Repo::new(), Notes::default());
        let given = backup::CreateOptions { road, ..options(&source) };
        let created = backup::create(&given, &repo.repository, &notes)?;
        assert_eq!(created.info.corrupt_pages_count, 1, "{road:?}");
        let named = |note: &Note| matches!(note, Note::CorruptPage { path: found, block: 3, .. } if *found == path);
        assert!(notes.0.lock().unwrap().iter().any(named), "{road:?} {:?}", notes.0);
        let strict = backup::CreateOptions { fail_on_corruption: true, ..given };
        match backup::create(&strict, &repo.repository, &Notes::default()) {
            Err(CreateError::CorruptPage { block: 3, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(repo.reopen().backups().len(), 1);
        // What could not be read better is restored as it was.
        let place = place();
        let target = place.path().join("data");
        restore(&created, &repo, &target);
        verify(&target, installation.major());
        let damaged = std::fs::read(target.join(&path))?;
        assert_eq!(damaged[3 * 8192 + 5000..][..4], *b"\xde\xad\xbe\xef", "{road:?}");
        start(installation, &target);
    }
    Ok(())
}

on_majors!(a_restart_meanwhile_fails_the_backup_and_the_next_one_completes, 17);

fn a_restart_meanwhile_fails_the_backup_and_the_next_one_completes(installation: &Installation) -> Done {
    let source = std::sync::Mutex::new(source(installation));
    let expected = contents(&source.lock().unwrap().url("postgres"));
    let repo = Repo::new();
    let given = options(&source.lock().unwrap());
    let restart = At::new(100, |_: &AtomicBool| {
        let mut source = source.lock().unwrap();
        source.stop_immediate().unwrap();
        source.start_again().unwrap();
    });
    match backup::create(&given, &repo.repository, &restart) {
        Err(CreateError::SessionLost(_)) => {}
        other => panic!("{other:?}"),
    }
    assert!(repo.reopen().backups().is_empty());
    backup::create(&given, &repo.reopen(), &Notes::default())?;
    comes_back(&repo, installation, &expected);
    Ok(())
}

on_majors!(a_standby_is_backed_up_too, 16);

fn a_standby_is_backed_up_too(installation: &Installation) -> Done {
    let primary = source(installation);
    let repo = Repo::new();
    let standby = standby(installation, &primary, &repo);
    let sql = Sql::connect(&primary.url("postgres"));
    sql.run("CREATE TABLE later AS SELECT generate_series(1, 30000) g; CHECKPOINT");
    let of_standby = Sql::connect(&standby.url("postgres"));
    let position = sql.one("SELECT pg_current_wal_flush_lsn()");
    until("the standby has it all", || {
        of_standby.one(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'")) == "t"
    });
    let expected = contents(&primary.url("postgres"));
    let busy = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // On a standby the backup ends only when something comes from the primary, in some versions.
        scope.spawn(|| {
            while !busy.load(Ordering::Relaxed) {
                sql.run("CHECKPOINT");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let created = backup::create(&options(&standby), &repo.repository, &Notes::default());
        busy.store(true, Ordering::Relaxed);
        assert!(created.unwrap().info.standby);
    });
    comes_back(&repo, installation, &expected);
    Ok(())
}

on_majors!(a_standby_promoted_meanwhile_gives_no_backup, 15);

fn a_standby_promoted_meanwhile_gives_no_backup(installation: &Installation) -> Done {
    let primary = source(installation);
    let repo = Repo::new();
    let standby = standby(installation, &primary, &repo);
    let promote = At::new(50, |_: &AtomicBool| {
        Sql::connect(&standby.url("postgres")).run("SELECT pg_promote()");
    });
    match backup::create(&options(&standby), &repo.repository, &promote) {
        Err(CreateError::Promoted) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(repo.reopen().backups().len(), 1);
    // As a primary of a new timeline it goes on under the old name.
    let created = backup::create(&options(&standby), &repo.repository, &Notes::default());
    match created {
        Ok(created) => assert_eq!(created.info.timeline, 2),
        Err(error) => panic!("{error}"),
    }
    comes_back(&repo, installation, &contents(&standby.url("postgres")));
    Ok(())
}

on_majors!(a_tablespace_made_meanwhile_is_not_replayed_into, 14);

/// Replay makes a tablespace again where it was made, on the same host in its original's files: such a restore is refused.
fn a_tablespace_made_meanwhile_is_not_replayed_into(installation: &Installation) -> Done {
    let source = source(installation);
    let (place, repo) = (place(), Repo::new());
    let space = place.path().join("space");
    std::fs::create_dir(&space)?;
    source.give(&space)?;
    let make = At::new(20, |_: &AtomicBool| {
        let sql = Sql::connect(&source.url("postgres"));
        sql.run(&format!("CREATE TABLESPACE made LOCATION '{}'", space.display()));
        sql.run("CREATE TABLE there TABLESPACE made AS SELECT 1 AS id");
    });
    let created = backup::create(&options(&source), &repo.repository, &make)?;
    assert_eq!(created.info.tablespaces_in_wal.len(), 1);
    assert_eq!(created.info.tablespaces, []);
    let target = place.path().join("data");
    match backup::restore(&RestoreOptions::new(created.id, &target), &repo.repository, &Notes::default()) {
        Err(RestoreError::TablespaceInWal { path, .. }) => assert_eq!(path, space),
        other => panic!("{other:?}"),
    }
    // Once its original is out of the way, it comes back.
    let expected = contents(&source.url("postgres"));
    std::fs::rename(&space, place.path().join("away"))?;
    restore(&created, &repo, &target);
    verify(&target, installation.major());
    assert_eq!(contents(&start(installation, &target).url("postgres")), expected);
    Ok(())
}

on_majors!(a_standby_whose_primary_writes_no_full_pages_gives_no_backup, 17);

/// Pages that are torn in the copy are mended by full page images only.
fn a_standby_whose_primary_writes_no_full_pages_gives_no_backup(installation: &Installation) -> Done {
    let primary = source(installation);
    let repo = Repo::new();
    let standby = standby(installation, &primary, &repo);
    let sql = Sql::connect(&primary.url("postgres"));
    let of_standby = Sql::connect(&standby.url("postgres"));
    let replayed = || {
        let position = sql.one("SELECT pg_current_wal_flush_lsn()");
        until("the standby has it all", || {
            of_standby.one(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'")) == "t"
        });
    };
    let off = At::new(50, |_: &AtomicBool| {
        sql.run("ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()");
        until("it is off", || Sql::connect(&primary.url("postgres")).one("SHOW full_page_writes") == "off");
        sql.run("CREATE TABLE torn AS SELECT generate_series(1, 1000) g; CHECKPOINT");
        replayed();
    });
    let refused = backup::create(&options(&standby), &repo.repository, &off).expect_err("no full page images");
    assert!(refused.to_string().contains("full_page_writes"), "{refused}");
    assert_eq!(repo.reopen().backups().len(), 1);
    sql.run("ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf()");
    until("it is on", || Sql::connect(&primary.url("postgres")).one("SHOW full_page_writes") == "on");
    sql.run("CHECKPOINT");
    replayed();
    // The restart point that follows is one with full page images behind it.
    of_standby.run("CHECKPOINT");
    let expected = contents(&primary.url("postgres"));
    let created = backup::create(&options(&standby), &repo.repository, &Notes::default())?;
    assert!(created.info.standby);
    comes_back(&repo, installation, &expected);
    Ok(())
}

on_majors!(a_throttle_does_not_come_back_with_the_backup, 15);

/// What the governor had set while the backup was made is not in the restored server, and what stood there before is.
fn a_throttle_does_not_come_back_with_the_backup(installation: &Installation) -> Done {
    let source = source(installation);
    let sql = Sql::connect(&source.url("postgres"));
    sql.run(
        "ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 1; ALTER SYSTEM SET autovacuum_vacuum_cost_delay = '77ms'",
    );
    sql.run("ALTER SYSTEM SET work_mem = '7MB'");
    for road in [Road::Direct, Road::BaseBackup] {
        let repo = Repo::new();
        let mut given = backup::CreateOptions { road, ..options(&source) };
        given.held_settings = Some(Arc::new(|| {
            let former = |value: Option<&str>| value.map(ToOwned::to_owned);
            [("autovacuum_vacuum_cost_limit", former(Some("321"))), ("autovacuum_vacuum_cost_delay", former(None))]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        }));
        let created = backup::create(&given, &repo.repository, &Notes::default())?;
        let place = place();
        let target = place.path().join("data");
        restore(&created, &repo, &target);
        verify(&target, installation.major());
        let server = start(installation, &target);
        let sql = Sql::connect(&server.url("postgres"));
        assert_eq!(sql.one("SHOW autovacuum_vacuum_cost_limit"), "321", "{road:?}");
        assert_eq!(
            sql.one("SELECT source FROM pg_settings WHERE name = 'autovacuum_vacuum_cost_delay'"),
            "default",
            "{road:?}"
        );
        assert_eq!(sql.one("SHOW work_mem"), "7MB", "{road:?}");
    }
    Ok(())
}

on_majors!(a_throttle_in_an_included_file_does_not_come_back_either, 17);

/// The governor's better home: a file outside of the data directory, which postgresql.conf includes if it exists.
fn a_throttle_in_an_included_file_does_not_come_back_either(installation: &Installation) -> Done {
    let (source, place) = (source(installation), place());
    let included = place.path().join("throttle.conf");
    let throttle = "autovacuum_vacuum_cost_limit = 3\nautovacuum_vacuum_cost_delay = 77ms\n";
    let config = source.data_dir().join("postgresql.conf");
    let mut text = std::fs::read_to_string(&config)?;
    text.push_str(&format!("\nautovacuum_vacuum_cost_limit = 321\ninclude_if_exists = '{}'\n", included.display()));
    std::fs::write(&config, text)?;
    let sql = Sql::connect(&source.url("postgres"));
    let limit = |expected: &str| {
        sql.run("SELECT pg_reload_conf()");
        until("the server has read it", || {
            Sql::connect(&source.url("postgres")).one("SHOW autovacuum_vacuum_cost_limit") == expected
        });
    };
    for road in [Road::Direct, Road::BaseBackup] {
        let repo = Repo::new();
        std::fs::write(&included, throttle)?;
        limit("3");
        let given = backup::CreateOptions { road, ..options(&source) };
        let created = backup::create(&given, &repo.repository, &Notes::default())?;
        // Let go of, as a guard does it.
        std::fs::write(&included, "# no throttle\n")?;
        limit("321");
        let target = place.path().join(format!("{road:?}"));
        restore(&created, &repo, &target);
        verify(&target, installation.major());
        for entry in std::fs::read_dir(&target)? {
            let path = entry?.path();
            let settings = if path.is_file() { std::fs::read(&path)? } else { Vec::new() };
            assert!(!String::from_utf8_lossy(&settings).contains("77ms"), "{}", path.display());
        }
        let server = start(installation, &target);
        let restored = Sql::connect(&server.url("postgres"));
        assert_eq!(restored.one("SHOW autovacuum_vacuum_cost_limit"), "321", "{road:?}");
        let source = "SELECT source FROM pg_settings WHERE name = 'autovacuum_vacuum_cost_delay'";
        assert_eq!(restored.one(source), "default", "{road:?}");
        // The lever is there for whoever governs this server next.
        drop((restored, server));
        std::fs::write(&included, throttle)?;
        let server = start(installation, &target);
        assert_eq!(Sql::connect(&server.url("postgres")).one("SHOW autovacuum_vacuum_cost_limit"), "3", "{road:?}");
    }
    Ok(())
}
