//! What goes wrong around a backup: after each the repository is valid, and the next run completes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "all of it is tests, also outside of functions marked so"
)]

mod common;

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use backup::create::Road;
use backup::{CreateError, Note, Progress, RestoreError, RestoreOptions};
use common::{
    Done, Notes, Repo, Sql, cluster, contents, create, installation, options, place, repository_options, restore,
    secret, start, until, verify,
};
use repository::{
    Repository, SessionInfo,
    store::{Fault, FaultyStore, LocalStore, StoreErrorKind},
};
use scratch::{Installation, ScratchCluster};

/// A small cluster with something in it.
fn source(installation: &Installation) -> ScratchCluster {
    let source = cluster(installation).setting("autovacuum", "off").start().unwrap();
    Sql::connect(&source.url("postgres"))
        .run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g; CHECKPOINT");
    source
}

/// What is restored from the newest backup is what the source holds.
fn comes_back(repo: &Repo, installation: &Installation, expected: &[String]) {
    let repository = repo.reopen();
    let newest = repository.backups().last().expect("there is a backup").id;
    let place = place();
    let target = place.path().join("data");
    backup::restore(&RestoreOptions::new(newest, &target), &repository, &Notes::default()).unwrap();
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
}

/// Calls a hook at the n-th extent.
struct At<F> {
    count: AtomicU32,
    at: u32,
    hook: F,
    cancelled: AtomicBool,
}

impl<F: Fn(&AtomicBool) + Sync> At<F> {
    fn new(at: u32, hook: F) -> Self {
        Self { count: AtomicU32::new(0), at, hook, cancelled: AtomicBool::new(false) }
    }
}

impl<F: Fn(&AtomicBool) + Sync> Progress for At<F> {
    fn pace(&self) -> Duration {
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            (self.hook)(&self.cancelled);
        }
        Duration::ZERO
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

#[test]
fn corrupt_pages_are_named_and_not_fatal_unless_asked() -> Done {
    let Some(installation) = installation(18) else { return Ok(()) };
    let mut source = source(&installation);
    let sql = Sql::connect(&source.url("postgres"));
    if sql.one("SHOW data_checksums") != "on" {
        // Header checks alone find less; 18 has checksums by default.
        return Ok(());
    }
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
    }
    Ok(())
}

#[test]
fn two_at_once_are_one_too_many() -> Done {
    let Some(installation) = installation(16) else { return Ok(()) };
    let source = source(&installation);
    let repo = Repo::new();
    let second = repo.reopen();
    let refused = std::sync::Mutex::new(None);
    let other = At::new(20, |_: &AtomicBool| {
        let result = backup::create(&options(&source), &second, &Notes::default());
        *refused.lock().unwrap() = Some(result.map(|created| created.id));
    });
    backup::create(&options(&source), &repo.repository, &other)?;
    assert!(matches!(refused.lock().unwrap().take(), Some(Err(CreateError::Busy(_)))));
    Ok(())
}

/// Another host's agent holds the session of this name: only a person can say that it is dead.
#[test]
fn another_agents_session_is_respected_until_it_is_taken_over() -> Done {
    let Some(installation) = installation(18) else { return Ok(()) };
    let source = source(&installation);
    let repo = Repo::new();
    let other = repo.reopen().begin(SessionInfo {
        cluster: "main".to_owned(),
        take_over: false,
        info: serde_json::json!({ "writer": { "host": "elsewhere", "machine": "", "boot": "", "pids": "", "pid": 1, "data_dir": null } }),
    })?;
    let mut given = options(&source);
    match backup::create(&given, &repo.repository, &Notes::default()) {
        Err(CreateError::Repository(error)) => assert!(error.to_string().contains("backing up"), "{error}"),
        other => panic!("{other:?}"),
    }
    given.take_over = true;
    backup::create(&given, &repo.repository, &Notes::default())?;
    // Should it live after all, it can't commit.
    assert!(other.commit(&serde_json::Value::Null).is_err());
    assert_eq!(repo.reopen().backups().len(), 1);
    Ok(())
}

#[test]
fn another_clusters_backups_are_left_alone() -> Done {
    let Some(installation) = installation(15) else { return Ok(()) };
    let first = source(&installation);
    let repo = Repo::new();
    let created = create(&first, &repo);
    let other = cluster(&installation).fresh().start()?;
    match backup::create(&options(&other), &repo.repository, &Notes::default()) {
        Err(CreateError::OtherCluster { theirs, .. }) => assert_eq!(theirs, created.info.system_id),
        other => panic!("{other:?}"),
    }
    // A clone: the same system identifier, elsewhere, and with less WAL.
    let place = place();
    let target = place.path().join("data");
    restore(&created, &repo, &target);
    Sql::connect(&first.url("postgres")).run("CREATE TABLE more AS SELECT generate_series(1, 50000) g");
    create(&first, &repo);
    let clone = start(&installation, &target);
    let mut of_clone = backup::CreateOptions::new(clone.url("postgres"), "main");
    match backup::create(&of_clone, &repo.repository, &Notes::default()) {
        Err(CreateError::Clone { .. }) => {}
        other => panic!("{other:?}"),
    }
    // The wrong directory for the right server.
    of_clone.data_dir = Some(first.data_dir());
    match backup::create(&of_clone, &repo.repository, &Notes::default()) {
        Err(CreateError::NotItsDirectory { .. } | CreateError::Clone { .. }) => {}
        other => panic!("{other:?}"),
    }
    of_clone.data_dir = None;
    of_clone.cluster = "clone".to_owned();
    backup::create(&of_clone, &repo.repository, &Notes::default())?;
    assert_eq!(repo.reopen().backups().len(), 3);
    Ok(())
}

#[test]
fn a_restart_meanwhile_fails_the_backup_and_the_next_one_completes() -> Done {
    let Some(installation) = installation(17) else { return Ok(()) };
    let source = std::sync::Mutex::new(source(&installation));
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
    comes_back(&repo, &installation, &expected);
    Ok(())
}

#[test]
fn cancelling_leaves_all_in_order() -> Done {
    let Some(installation) = installation(14) else { return Ok(()) };
    let source = source(&installation);
    let expected = contents(&source.url("postgres"));
    let repo = Repo::new();
    let cancel = At::new(100, |cancelled: &AtomicBool| cancelled.store(true, Ordering::Relaxed));
    match backup::create(&options(&source), &repo.repository, &cancel) {
        Err(CreateError::Cancelled) => {}
        other => panic!("{other:?}"),
    }
    let sql = Sql::connect(&source.url("postgres"));
    until("the slot is gone", || sql.one("SELECT count(*) FROM pg_replication_slots") == "0");
    create(&source, &repo);
    comes_back(&repo, &installation, &expected);
    Ok(())
}

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

#[test]
fn a_standby_is_backed_up_too() -> Done {
    let Some(installation) = installation(16) else { return Ok(()) };
    let primary = source(&installation);
    let repo = Repo::new();
    let standby = standby(&installation, &primary, &repo);
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
    comes_back(&repo, &installation, &expected);
    Ok(())
}

#[test]
fn a_standby_promoted_meanwhile_gives_no_backup() -> Done {
    let Some(installation) = installation(15) else { return Ok(()) };
    let primary = source(&installation);
    let repo = Repo::new();
    let standby = standby(&installation, &primary, &repo);
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
    Ok(())
}

/// Faults of the repository's store, one at a time, at every operation of a backup: none leaves a wrong backup, and the next run completes.
#[test]
fn a_failing_store_never_makes_a_wrong_backup() -> Done {
    let Some(installation) = installation(18) else { return Ok(()) };
    let source = source(&installation);
    let expected = contents(&source.url("postgres"));
    let repo = Repo::new();
    let faulty = |faults: &[(u64, Fault)]| {
        let store = Arc::new(FaultyStore::new(LocalStore::open(&repo.path()).unwrap(), faults.iter().copied()));
        (Repository::open(Arc::clone(&store) as _, &repository_options(), &secret()), store)
    };
    let (repository, store) = faulty(&[]);
    let before = store.operations();
    backup::create(&options(&source), &repository?, &Notes::default())?;
    let operations = store.operations() - before;
    let kinds = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::LoseReply,
        Fault::Fail(StoreErrorKind::NoSpace),
        Fault::Fail(StoreErrorKind::ReadOnly),
    ];
    let mut made = 1;
    // Every operation has its turn over the runs; each run meets one kind of fault.
    for (round, at) in (1..=operations).step_by(usize::try_from(operations / 10).unwrap_or(1).max(1)).enumerate() {
        let fault = kinds[round % kinds.len()];
        let (repository, store) = faulty(&[]);
        store.plan(at, fault);
        // The table changes, so that there is something to store each time.
        Sql::connect(&source.url("postgres")).run("UPDATE thing SET id = id");
        let result = backup::create(&options(&source), &repository?, &Notes::default());
        let backups = repo.reopen().backups().len();
        // A commit whose reply was lost counts, though the writer can't know it.
        assert!(
            backups == made + usize::from(result.is_ok()) || (backups == made + 1 && fault != Fault::CrashBefore),
            "{fault:?} at {at}"
        );
        made = backups;
    }
    let last = backup::create(&options(&source), &repo.reopen(), &Notes::default())?;
    assert!(last.info.files > 0);
    comes_back(&repo, &installation, &expected);
    Ok(())
}

/// An interrupted restore is run again; what is not ours is left alone.
#[test]
fn an_interrupted_restore_is_run_again() -> Done {
    let Some(installation) = installation(17) else { return Ok(()) };
    let source = source(&installation);
    let expected = contents(&source.url("postgres"));
    let repo = Repo::new();
    let (first, second) = (create(&source, &repo), create(&source, &repo));
    let place = place();
    let target = place.path().join("data");
    for at in [1, 2, 50, 400] {
        let cancel = At::new(at, |cancelled: &AtomicBool| cancelled.store(true, Ordering::Relaxed));
        match backup::restore(&RestoreOptions::new(first.id, &target), &repo.repository, &cancel) {
            Err(RestoreError::Cancelled) => {}
            other => panic!("{other:?}"),
        }
        assert!(!target.join("global/pg_control").exists(), "a half restore can't be started");
        match backup::restore(&RestoreOptions::new(second.id, &target), &repo.repository, &Notes::default()) {
            Err(RestoreError::OtherRestore { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let marker = target.join(backup::restore::MARKER);
    let text = std::fs::read(&marker)?;
    restore(&first, &repo, &target);
    verify(&target, 17);
    // As if the last step had not come: what is whole is not touched again, for a server may have run there since.
    std::fs::write(&marker, text)?;
    let label = target.join("backup_label");
    std::fs::rename(&label, place.path().join("label"))?;
    restore(&first, &repo, &target);
    assert!(!marker.exists() && !label.exists());
    std::fs::rename(place.path().join("label"), &label)?;
    match backup::restore(&RestoreOptions::new(first.id, &target), &repo.repository, &Notes::default()) {
        Err(RestoreError::NotEmpty { .. }) => {}
        other => panic!("{other:?}"),
    }
    let server = start(&installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    Ok(())
}

/// Replay makes a tablespace again where it was made, on the same host in its original's files: such a restore is refused.
#[test]
fn a_tablespace_made_meanwhile_is_not_replayed_into() -> Done {
    let Some(installation) = installation(14) else { return Ok(()) };
    let source = source(&installation);
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
    verify(&target, 14);
    assert_eq!(contents(&start(&installation, &target).url("postgres")), expected);
    Ok(())
}

#[test]
fn a_full_disk_is_said_beforehand_and_survived() -> Done {
    let Some(installation) = installation(15) else { return Ok(()) };
    let place = place();
    let small = place.path().join("small");
    std::fs::create_dir(&small)?;
    let mount = |args: &[&str]| {
        std::process::Command::new(args[0]).args(&args[1..]).status().is_ok_and(|status| status.success())
    };
    let at = small.to_str().unwrap();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", at]) {
        return Ok(());
    }
    let (source, repo) = (source(&installation), Repo::new());
    let created = create(&source, &repo);
    let wanted = RestoreOptions::new(created.id, small.join("data"));
    let result = backup::restore(&wanted, &repo.repository, &Notes::default());
    // A repository on a disk that is too small: said beforehand, and where that is waved aside, found.
    let repository = LocalStore::create(&small.join("repo")).map_err(|error| error.to_string());
    let refused = repository.map(|store| {
        let info = serde_json::Value::Null;
        let repository = Repository::create(Arc::new(store), &repository_options(), &secret(), "small", info).unwrap();
        let mut given = backup::CreateOptions { cluster: "small".to_owned(), ..options(&source) };
        let first = backup::create(&given, &repository, &Notes::default());
        given.skip_space_check = true;
        let second = backup::create(&given, &repository, &Notes::default());
        (first, second, repository.backups().len())
    });
    assert!(mount(&["umount", "-l", at]));
    assert!(matches!(result, Err(RestoreError::NoSpace { .. })), "{result:?}");
    let (first, second, count) = refused?;
    assert!(matches!(first, Err(CreateError::NoSpace { .. })), "{first:?}");
    assert!(matches!(second, Err(CreateError::Repository(_))), "{second:?}");
    assert_eq!(count, 0);
    Ok(())
}
