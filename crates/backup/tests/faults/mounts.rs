//! Disks that are full and disks that take no writes, as the kernel makes them: file systems of their own, in a mount namespace of their own,
//! so that whatever becomes of a test, nothing stays mounted.

use std::{path::Path, process::Command, sync::Arc};

use backup::{CreateError, RestoreError};
use repository::{Repository, store::LocalStore};

use super::*;
use crate::common::{open, repository_options, secret};

/// Tells the child which test, of which major version.
const TASK: &str = "OXPECKER_TEST_MOUNTS_TASK";

/// Not a test: what runs in the other namespace.
#[test]
#[ignore = "run by the other tests of this file"]
fn child() -> Done {
    let Ok(task) = std::env::var(TASK) else { return Ok(()) };
    let (what, major) = task.split_once(' ').ok_or("a task and a version")?;
    let Some(installation) = crate::common::installation(major.parse()?) else { return Ok(()) };
    match what {
        "full" => full(&installation),
        "read-only" => read_only(&installation),
        _ => panic!("what is {task:?}?"),
    }
}

/// Runs the child where its mounts are seen by nobody else. Without the right to mount it says so and is content.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn in_a_namespace(what: &str, installation: &Installation) -> Done {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may mount a file system and start a server as another user");
        return Ok(());
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?);
    command.args(["--exact", "mounts::child", "--ignored", "--nocapture"]);
    let output = match command.env(TASK, format!("{what} {}", installation.major())).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: unshare: {error} (package util-linux)");
            return Ok(());
        }
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}");
    if said.contains("unshare: ") {
        eprintln!("skipped: no mount namespace is to be had here");
        return Ok(());
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// Whether the mount was made; where not, why is printed.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn mounted(arguments: &[&str], at: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(at).output().unwrap();
    if !output.status.success() {
        eprintln!("skipped: mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

on_majors!(a_full_disk_is_said_beforehand_and_survived, 15);

fn a_full_disk_is_said_beforehand_and_survived(installation: &Installation) -> Done {
    in_a_namespace("full", installation)
}

fn full(installation: &Installation) -> Done {
    let place = place();
    let small = place.path().join("small");
    std::fs::create_dir(&small)?;
    if !mounted(&["-t", "tmpfs", "-o", "size=1200k", "tmpfs"], &small) {
        return Ok(());
    }
    let (source, repo) = (source(installation), Repo::new());
    let created = create(&source, &repo);
    let wanted = RestoreOptions::new(created.id, small.join("data"));
    let result = backup::restore(&wanted, &repo.repository, &Notes::default());
    let Err(error @ RestoreError::NoSpace { .. }) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains(" MiB at ") && error.to_string().contains(" MiB are free"), "{error}");
    // A repository on a disk that is too small: said beforehand, and where that is waved aside, found.
    let store = Arc::new(LocalStore::create(&small.join("repo"))?);
    let info = serde_json::Value::Null;
    let repository = Repository::create(store, &repository_options(), &secret(), "small", info)?;
    let mut given = backup::CreateOptions { cluster: "small".to_owned(), ..options(&source) };
    let first = backup::create(&given, &repository, &Notes::default());
    assert!(matches!(first, Err(CreateError::NoSpace { .. })), "{first:?}");
    given.skip_space_check = true;
    let second = backup::create(&given, &repository, &Notes::default());
    assert!(matches!(second, Err(CreateError::Repository(_))), "{second:?}");
    assert_eq!(repository.backups().len(), 0);
    comes_back(&repo, installation, &contents(&source.url("postgres")));
    Ok(())
}

on_majors!(a_repository_that_takes_no_writes_is_read, 16);

fn a_repository_that_takes_no_writes_is_read(installation: &Installation) -> Done {
    in_a_namespace("read-only", installation)
}

/// No backup, no prune, and each says why; what is there is checked and restored; once it takes writes again, all goes on.
fn read_only(installation: &Installation) -> Done {
    let (place, source) = (place(), source(installation));
    let disk = place.path().join("disk");
    std::fs::create_dir(&disk)?;
    if !mounted(&["-t", "tmpfs", "-o", "size=256m", "tmpfs"], &disk) {
        return Ok(());
    }
    let store = Arc::new(LocalStore::create(&disk.join("repo"))?);
    Repository::create(store, &repository_options(), &secret(), "test", serde_json::Value::Null)?;
    let reopened = || open(Arc::new(LocalStore::open(&disk.join("repo")).unwrap()));
    let old = backup::create(&options(&source), &reopened(), &Notes::default())?;
    let first = backup::create(&options(&source), &reopened(), &Notes::default())?;
    let expected = contents(&source.url("postgres"));
    Sql::connect(&source.url("postgres")).run("UPDATE thing SET text = md5(text)");

    assert!(mounted(&["-o", "remount,ro"], &disk));
    let repository = reopened();
    let refused = backup::create(&options(&source), &repository, &Notes::default()).expect_err("nothing can be stored");
    assert!(refused.to_string().contains("Read-only file system"), "{refused}");
    let expired = repository::log::Expired { backup: old.id, reason: "the test says so".to_owned() };
    let refused = repository.expire(std::slice::from_ref(&expired)).expect_err("no record can be written");
    assert!(refused.to_string().contains("Read-only file system"), "{refused}");
    let report = reopened().check(true, &|_| {})?;
    assert!(report.findings.is_empty() && report.restorable == [old.id, first.id], "{report:?}");
    let (target, notes) = (place.path().join("data"), Notes::default());
    backup::restore(&RestoreOptions::new(first.id, &target), &reopened(), &notes)?;
    // It could not be held, and that is said.
    let warned = |note: &backup::Note| matches!(note, backup::Note::Warning(text) if text.contains("expiring"));
    assert!(notes.0.lock().unwrap().iter().any(warned), "{:?}", notes.0);
    verify(&target, installation.major());
    assert_eq!(contents(&start(installation, &target).url("postgres")), expected);

    assert!(mounted(&["-o", "remount,rw"], &disk));
    assert_eq!(reopened().expire(&[expired])?, 1);
    let second = backup::create(&options(&source), &reopened(), &Notes::default())?;
    let target = place.path().join("again");
    backup::restore(&RestoreOptions::new(second.id, &target), &reopened(), &Notes::default())?;
    verify(&target, installation.major());
    assert_eq!(contents(&start(installation, &target).url("postgres")), contents(&source.url("postgres")));
    amcheck(&target, installation.major());
    Ok(())
}
