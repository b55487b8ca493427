//! Create and restore on real servers: what was there is there again, and the restored server starts by itself.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "all of it is tests, also outside of functions marked so"
)]

#[macro_use]
mod common;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backup::{Note, Progress, RestoreOptions, create::Road, info::Source};
use common::{
    CHANGES, Counts, Done, Load, Notes, Repo, Sql, amcheck, check_load, cluster, contents, create, installation,
    options, place, restore, start, start_with, verify,
};
use scratch::Installation;

/// How long a backup is held at each of its extents, until each kind of change has been made since the first. It is never stopped: what
/// PostgreSQL sends a base backup with must go on to read its signals, or DROP DATABASE waits for it.
const HELD: Duration = Duration::from_millis(25);

/// Slows a backup down while the load has not had its time.
struct Amid {
    counts: Arc<Counts>,
    from: OnceLock<[u64; CHANGES.len()]>,
    all: AtomicBool,
    notes: Notes,
}

impl Progress for Amid {
    fn note(&self, note: &Note) {
        self.notes.note(note);
    }

    fn pace(&self) -> Duration {
        let now = self.counts.now();
        let from = self.from.get_or_init(|| now);
        if !self.all.load(Ordering::Relaxed) && now.iter().zip(from).all(|(now, before)| now > before) {
            self.all.store(true, Ordering::Relaxed);
        }
        if self.all.load(Ordering::Relaxed) { Duration::ZERO } else { HELD }
    }
}

/// A cluster under load is backed up and restored; its state is one of those that it went through.
fn under_load(installation: &Installation, road: Road) -> Done {
    let major = installation.major();
    let source = cluster(installation).start()?;
    let sql = Sql::connect(&source.url("postgres"));
    sql.run("CREATE TABLE still AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g; ALTER TABLE still ADD PRIMARY KEY (id)");
    let repo = Repo::new();
    let load = Load::start(&source);
    let counts = load.counts();
    let notes = Amid { counts, from: OnceLock::new(), all: AtomicBool::new(false), notes: Notes::default() };
    let mut options = options(&source);
    // Spread out a little, so that the load has its time.
    options.workers = std::num::NonZero::new(2);
    options.road = road;
    let created = backup::create(&options, &repo.repository, &notes)?;
    load.stop();
    // Each of them between the first extent and the last: what was made behind a file's copying must come back by WAL.
    assert!(notes.all.load(Ordering::Relaxed), "of {CHANGES:?} from {:?} to {:?}", notes.from, notes.counts.now());
    assert_eq!((created.info.corrupt_pages_count, created.info.pg_version.major()), (0, major));
    assert!(notes.notes.0.lock().unwrap().iter().any(|note| matches!(note, Note::Plan { .. })));
    let expected = if road == Road::BaseBackup { Source::BaseBackup } else { Source::Direct };
    assert_eq!(created.info.source, expected);
    assert!(created.info.databases.iter().any(|database| database.name == "postgres" && database.relation_files > 100));
    let expected: Vec<_> =
        contents(&source.url("postgres")).into_iter().filter(|line| line.starts_with("public.still")).collect();
    drop(source);
    let place = place();
    let target = place.path().join("data");
    let restored = restore(&created, &repo, &target);
    assert!(restored.plan.start_command.contains("pg_ctl"), "{}", restored.plan.start_command);
    verify(&target, major);
    let server = start(installation, &target);
    check_load(|database| server.url(database));
    let found: Vec<_> =
        contents(&server.url("postgres")).into_iter().filter(|line| line.starts_with("public.still")).collect();
    assert_eq!(found, expected);
    let sql = Sql::connect(&server.url("postgres"));
    assert_eq!(sql.one("SHOW archive_mode"), "off");
    assert_eq!(sql.one("SHOW max_logical_replication_workers"), "0");
    drop((sql, server));
    amcheck(&target, major);
    Ok(())
}

on_majors!(a_cluster_under_load_comes_back: slow_v13 = 13, slow_v14 = 14, v15 = 15, slow_v16 = 16, slow_v17 = 17, v18 = 18);

fn a_cluster_under_load_comes_back(installation: &Installation) -> Done {
    under_load(installation, Road::Auto)
}

on_majors!(the_servers_stream_is_a_backup_too: slow_v13 = 13, slow_v14 = 14, slow_v15 = 15, v16 = 16, slow_v17 = 17, v18 = 18);

fn the_servers_stream_is_a_backup_too(installation: &Installation) -> Done {
    under_load(installation, Road::BaseBackup)
}

/// Nothing changes between two backups: the second one stores next to nothing.
#[test]
fn a_second_backup_stores_little() -> Done {
    let Some(installation) = installation(17) else { return Ok(()) };
    let source = cluster(&installation).setting("autovacuum", "off").start()?;
    let sql = Sql::connect(&source.url("postgres"));
    sql.run("CREATE TABLE big AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS text FROM generate_series(1, 100000) g; VACUUM big");
    let repo = Repo::new();
    let first = create(&source, &repo);
    let second = create(&source, &repo);
    // Some catalogue pages and the WAL of the backup itself.
    assert!(second.stored_bytes * 20 < first.stored_bytes, "{} after {}", second.stored_bytes, first.stored_bytes);
    let place = place();
    let target = place.path().join("data");
    restore(&second, &repo, &target);
    let server = start(&installation, &target);
    assert_eq!(contents(&server.url("postgres")), contents(&source.url("postgres")));
    Ok(())
}

#[test]
fn tablespaces_go_where_they_are_sent() -> Done {
    tablespaces(Road::Direct)
}

#[test]
fn tablespaces_of_a_stream_go_where_they_are_sent() -> Done {
    tablespaces(Road::BaseBackup)
}

fn tablespaces(road: Road) -> Done {
    let Some(installation) = installation(16) else { return Ok(()) };
    let source = cluster(&installation).setting("allow_in_place_tablespaces", "on").start()?;
    let place = place();
    let space = place.path().join("space");
    std::fs::create_dir(&space)?;
    source.give(&space)?;
    let sql = Sql::connect(&source.url("postgres"));
    sql.run(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    sql.run("CREATE TABLE there TABLESPACE space AS SELECT g AS id FROM generate_series(1, 1000) g");
    sql.run("CREATE TABLESPACE inside LOCATION ''");
    sql.run("CREATE TABLE within TABLESPACE inside AS SELECT g AS id FROM generate_series(1, 500) g");
    let repo = Repo::new();
    let given = backup::CreateOptions { road, ..options(&source) };
    let created = backup::create(&given, &repo.repository, &Notes::default())?;
    assert_eq!(created.info.tablespaces.len(), 1);
    let expected = contents(&source.url("postgres"));
    let target = place.path().join("data");
    let mut options = RestoreOptions::new(created.id, &target);
    // Where it lay is the running server's.
    let refused = backup::restore(&options, &repo.repository, &Notes::default()).unwrap_err();
    assert!(refused.to_string().contains("--tablespace-mapping"), "{refused}");
    assert!(!target.exists());
    let elsewhere = place.path().join("elsewhere");
    options.tablespaces = vec![(space.to_str().unwrap().to_owned(), elsewhere.clone())];
    let plan = backup::restore::plan(&options, &repo.repository)?;
    assert_eq!(plan.tablespaces[0].to, elsewhere);
    assert!(!target.exists() && !elsewhere.exists(), "a plan changes nothing");
    backup::restore(&options, &repo.repository, &Notes::default())?;
    verify(&target, 16);
    let server = start(&installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    let link = format!("pg_tblspc/{}", created.info.tablespaces[0].oid);
    assert_eq!(std::fs::read_link(target.join(link))?, elsewhere);
    Ok(())
}

/// Debian keeps the configuration in /etc: a restore that lacks it could not be started.
#[test]
fn configuration_from_outside_comes_along() -> Done {
    let Some(installation) = installation(15) else { return Ok(()) };
    let first = cluster(&installation).start()?;
    let (repo, place) = (Repo::new(), place());
    let created = create(&first, &repo);
    let data = place.path().join("data");
    restore(&created, &repo, &data);
    let etc = place.path().join("etc");
    std::fs::create_dir(&etc)?;
    first.give(&etc)?;
    for name in ["postgresql.conf", "pg_hba.conf", "scratch.conf"] {
        std::fs::rename(data.join(name), etc.join(name))?;
    }
    let conf = etc.join("postgresql.conf");
    let more = format!("\ndata_directory = '{}'\nwork_mem = '7MB'\n", data.display());
    std::fs::write(&conf, std::fs::read_to_string(&conf)? + &more)?;
    let outside =
        [format!("config_file={}", conf.display()), format!("hba_file={}", etc.join("pg_hba.conf").display())];
    let server = start_with(&installation, &data, &outside);
    let created = backup::create(
        &backup::CreateOptions::new(server.url("postgres"), "debian"),
        &repo.repository,
        &Notes::default(),
    )?;
    assert_eq!(created.info.outside.len(), 2, "{:?}", created.info.outside);
    let target = place.path().join("restored");
    let restored = restore(&created, &repo, &target);
    assert!(restored.plan.notes.iter().any(|note| note.contains("outside")));
    verify(&target, 15);
    drop(server);
    // Whatever the copy says of data_directory, it is the restored one that starts.
    std::fs::remove_dir_all(&data)?;
    std::fs::remove_dir_all(&etc)?;
    let server = start(&installation, &target);
    let sql = Sql::connect(&server.url("postgres"));
    assert_eq!(sql.one("SHOW data_directory"), target.display().to_string());
    assert_eq!(sql.one("SHOW work_mem"), "7MB");
    Ok(())
}
