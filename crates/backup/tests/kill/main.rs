//! kill -9 at every write point of a backup, a restore and a prune, on each major: the repository stays valid, a half restore can't be started, and the next run
//! completes.
//!
//! The worker is this very program as a child: it kills itself before or after its n-th operation on the store, or before its n-th extent.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "all of it is tests, also outside of functions marked so"
)]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;
mod syscalls;

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use backup::{CreateOptions, Progress, RestoreOptions, Stage, Update};
use common::{
    Done, Notes, Repo, Sql, amcheck, cluster, contents, create, installation, open, place, restore, start, verify,
};
use repository::{
    BackupId, Repository, RepositoryError,
    log::Expired,
    store::{LocalStore, ObjectName, Put, Store, StoreError},
};
use scratch::Installation;

/// Tells the child what to do: `create URL REPO` or `restore ID TARGET REPO`, and where to die.
const TASK: &str = "OXPECKER_TEST_TASK";

/// Kills this process at the n-th time that it is asked.
#[derive(Debug)]
struct Death {
    count: AtomicU32,
    at: u32,
}

impl Death {
    fn new(at: u32) -> Self {
        Self { count: AtomicU32::new(0), at }
    }

    fn comes(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

impl Progress for Death {
    fn pace(&self) -> Duration {
        self.comes();
        Duration::ZERO
    }

    fn update(&self, update: &Update) {
        // The steps behind the last extent.
        if matches!(update.stage, Stage::Wal | Stage::Committing | Stage::Syncing) {
            self.comes();
        }
    }
}

/// A store in which the process dies before or after a write.
#[derive(Debug)]
struct Mortal<S> {
    inner: S,
    death: Death,
}

impl<S: Store> Store for Mortal<S> {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.death.comes();
        let put = self.inner.put_if_absent(name, bytes);
        self.death.comes();
        put
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.inner.size(name)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.death.comes();
        let deleted = self.inner.delete(name);
        self.death.comes();
        deleted
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Not a test: what the children run.
#[test]
#[ignore = "run by the other tests of this file"]
fn child() -> Done {
    let Ok(task) = std::env::var(TASK) else { return Ok(()) };
    let words: Vec<&str> = task.split('\n').collect();
    let store = |path: &str| LocalStore::open(Path::new(path)).unwrap();
    match words[..] {
        ["create", url, path, "write", at] => {
            let repository = open(Arc::new(Mortal { inner: store(path), death: Death::new(at.parse()?) }));
            backup::create(&drafting(url), &repository, &Notes::default())?;
        }
        ["create", url, path, "extent", at] => {
            backup::create(&drafting(url), &open(Arc::new(store(path))), &Death::new(at.parse()?))?;
        }
        ["prune", id, path, at] => {
            let repository = open(Arc::new(Mortal { inner: store(path), death: Death::new(at.parse()?) }));
            expire(&repository, id.parse()?)?;
            repository.collect()?;
        }
        ["restore", id, target, path, at] => {
            let options = RestoreOptions::new(id.parse::<BackupId>()?, target);
            backup::restore(&options, &open(Arc::new(store(path))), &Death::new(at.parse()?))?;
        }
        _ => panic!("what is {task:?}?"),
    }
    Ok(())
}

fn drafting(url: &str) -> CreateOptions {
    CreateOptions { draft_every: Duration::from_millis(20), ..CreateOptions::new(url, "main") }
}

/// Runs a child; true when it was killed, false when it came to its end.
fn dies(task: &[&str]) -> bool {
    dies_under(Command::new(std::env::current_exe().unwrap()), task)
}

/// As [`dies`], with the command that the child's arguments are given to.
fn dies_under(mut command: Command, task: &[&str]) -> bool {
    command.args(["--exact", "child", "--ignored", "--nocapture"]).env(TASK, task.join("\n"));
    let output = command.output().unwrap();
    let killed = output.status.signal() == Some(9);
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(killed || output.status.success(), "{task:?}: {}", said());
    killed
}

/// A backup that dies at `points(n)` for each n, until it lives through.
fn killed_backups(installation: &Installation, how: &str, points: impl Iterator<Item = u32>) -> Done {
    let source = cluster(installation).setting("autovacuum", "off").start()?;
    let sql = Sql::connect(&source.url("postgres"));
    sql.run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 60000) g; CHECKPOINT");
    let expected = contents(&source.url("postgres"));
    let repo = Repo::new();
    let path = repo.path().display().to_string();
    let url = source.url("postgres");
    let mut deaths = 0;
    for at in points {
        let before = repo.reopen().backups().len();
        if !dies(&["create", &url, &path, how, &at.to_string()]) {
            break;
        }
        deaths += 1;
        let repository = repo.reopen();
        // The last write may be the commit itself.
        assert!(repository.backups().len() <= before + 1, "at {at}");
        assert_eq!(
            sql.one(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'oxpecker backup' AND state = 'active'"
            ),
            "0"
        );
    }
    assert!(deaths > 3, "only {deaths} runs were killed");
    let created = create(&source, &repo);
    let place = place();
    let target = place.path().join("data");
    restore(&created, &repo, &target);
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    drop(server);
    amcheck(&target, installation.major());
    // What the killed ones left goes.
    repo.repository.collect()?;
    let target = place.path().join("again");
    restore(&created, &repo, &target);
    Ok(())
}

on_majors!(a_backup_killed_at_a_write_is_made_by_the_next_run, 17);

fn a_backup_killed_at_a_write_is_made_by_the_next_run(installation: &Installation) -> Done {
    killed_backups(installation, "write", [1, 2, 3, 4, 7, 10, 15, 20].into_iter())
}

#[test]
fn slow_a_backup_killed_at_any_write_is_made_by_the_next_run() -> Done {
    let Some(installation) = installation(16) else { return Ok(()) };
    killed_backups(&installation, "write", 1..)
}

#[test]
fn slow_a_backup_killed_at_any_extent_is_made_by_the_next_run() -> Done {
    let Some(installation) = installation(14) else { return Ok(()) };
    killed_backups(&installation, "extent", (1..).step_by(40))
}

fn killed_restores(installation: &Installation, points: impl Iterator<Item = u32>) -> Done {
    let source = cluster(installation).setting("autovacuum", "off").start()?;
    Sql::connect(&source.url("postgres"))
        .run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 60000) g");
    let expected = contents(&source.url("postgres"));
    let repo = Repo::new();
    let created = create(&source, &repo);
    let place = place();
    let target = place.path().join("data");
    let (path, id, to) = (repo.path().display().to_string(), created.id.to_string(), target.display().to_string());
    let mut deaths = 0;
    for at in points {
        if !dies(&["restore", &id, &to, &path, &at.to_string()]) {
            break;
        }
        deaths += 1;
        assert!(!target.join("global/pg_control").exists(), "at {at} a half restore could be started");
    }
    assert!(deaths > 3, "only {deaths} runs were killed");
    if !target.join("global/pg_control").exists() {
        restore(&created, &repo, &target);
    }
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    drop(server);
    amcheck(&target, installation.major());
    Ok(())
}

on_majors!(a_restore_killed_midway_goes_on, 18);

fn a_restore_killed_midway_goes_on(installation: &Installation) -> Done {
    killed_restores(installation, [1, 5, 20, 100, 250].into_iter())
}

#[test]
fn slow_a_restore_killed_anywhere_goes_on() -> Done {
    let Some(installation) = installation(13) else { return Ok(()) };
    killed_restores(&installation, (1..).step_by(50))
}

/// As a prune says it, with the oldest backup named.
fn expire(repository: &Repository, id: BackupId) -> Result<usize, RepositoryError> {
    repository.expire(&[Expired { backup: id, reason: "the test says so".to_owned() }])
}

/// A prune that dies at each of `points`, until one lives through. What is kept is whole after each.
fn killed_prunes(installation: &Installation, points: impl Iterator<Item = u32>) -> Done {
    let source = cluster(installation).setting("autovacuum", "off").start()?;
    let sql = Sql::connect(&source.url("postgres"));
    let (repo, place) = (Repo::new(), place());
    let path = repo.path().display().to_string();
    let mut deaths = 0;
    sql.run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 30000) g");
    let mut old = create(&source, &repo).id;
    for at in points {
        // Everything new: the old backup's packs are garbage once it has expired.
        sql.run("UPDATE thing SET text = md5(text); CHECKPOINT");
        let kept = create(&source, &repo);
        let lives = !dies(&["prune", &old.to_string(), &path, &at.to_string()]);
        deaths += u32::from(!lives);
        let repository = repo.reopen();
        let report = repository.check(true, &|_| {})?;
        assert!(report.damaged.is_empty() && report.restorable.contains(&kept.id), "at {at}: {report:?}");
        // The next prune takes what this one left.
        if repository.backups().iter().any(|backup| backup.id == old) {
            expire(&repository, old)?;
        }
        repository.collect()?;
        let report = repository.check(true, &|_| {})?;
        assert!(
            report.findings.is_empty() && report.restorable == [kept.id],
            "after the one that followed {at}: {report:?}"
        );
        old = kept.id;
        if lives {
            break;
        }
    }
    assert!(deaths > 3, "only {deaths} runs were killed");
    let target = place.path().join("data");
    backup::restore(&RestoreOptions::new(old, &target), &repo.reopen(), &Notes::default())?;
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), contents(&source.url("postgres")));
    drop(server);
    amcheck(&target, installation.major());
    Ok(())
}

on_majors!(a_prune_killed_at_a_write_is_finished_by_the_next, 16);

fn a_prune_killed_at_a_write_is_finished_by_the_next(installation: &Installation) -> Done {
    killed_prunes(installation, [1, 2, 3, 5, 8, 11, 14].into_iter())
}

#[test]
fn slow_a_prune_killed_at_any_write_is_finished_by_the_next() -> Done {
    let Some(installation) = installation(15) else { return Ok(()) };
    killed_prunes(&installation, 1..)
}

/// How often it is tried to kill a backup while a draft holds what it stored.
const ATTEMPTS: usize = 10;

#[test]
fn what_a_killed_backup_had_stored_is_not_stored_again() -> Done {
    let Some(installation) = installation(16) else { return Ok(()) };
    let source = cluster(&installation).setting("autovacuum", "off").start()?;
    Sql::connect(&source.url("postgres"))
        .run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 100000) g");
    let fresh = create(&source, &Repo::new());
    let mut options = drafting(&source.url("postgres"));
    options.workers = std::num::NonZero::new(1);
    let mut shares = Vec::new();
    // Drafts are made by the clock, and the kill may come between the last file and the draft that holds it: then nothing is shared.
    for _ in 0..ATTEMPTS {
        let repo = Repo::new();
        // Dies after the last file, before the commit: everything is in a draft or nearly so.
        assert!(dies(&["create", &source.url("postgres"), &repo.path().display().to_string(), "extent", "800"]));
        let second = backup::create(&options, &repo.reopen(), &Notes::default())?;
        let share = second.stored_bytes * 100 / fresh.stored_bytes;
        if share < 80 {
            return Ok(());
        }
        shares.push(share);
    }
    panic!("per cent stored again: {shares:?}");
}
