//! A fault at every operation of the store, one after the other, while backups are made, keys are rotated, backups expire and garbage is
//! collected. Whatever is left, the check finds it sound; a committed backup comes back; and the next run leaves no garbage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use repository::{
    BackupId, Options, Repository, RepositoryError, SessionInfo,
    log::Expired,
    store::{Fault, FaultyStore, MemoryStore, Store},
};
use serde_json::{Value, json};
use support::*;

/// What each backup of the story holds, by what its commit tells.
fn story(n: u64) -> Files {
    let mut files = files(1, 12);
    files.insert(format!("base/2/{n}").into_bytes(), noise(50 + n, 3000));
    files
}

fn small() -> Options {
    Options { pack_target: 8 << 10, ..options() }
}

fn opened(store: &Arc<dyn Store>) -> Result<Repository, RepositoryError> {
    match Repository::create(store.clone(), &small(), &secret(), "test", Value::Null) {
        Err(RepositoryError::Key(repository::key::KeyError::Exists { .. })) => {
            Repository::open(store.clone(), &small(), &secret())
        }
        result => result,
    }
}

fn write(repository: &Repository, n: u64, draft: bool) -> Result<BackupId, RepositoryError> {
    let session = repository.begin(SessionInfo { cluster: "main".to_owned(), take_over: true, info: Value::Null })?;
    let files = story(n);
    let mut writer = session.writer()?;
    for (at, (name, content)) in files.iter().enumerate() {
        if draft && at == files.len() / 2 {
            session.draft(&json!({ "story": n }))?;
        }
        let extents = content.chunks(PIECE).map(|piece| Ok(repository::Extent::Frame(writer.put(piece)?)));
        let extents = extents.collect::<Result<Vec<_>, RepositoryError>>()?;
        let meta = format!("mode of {}", String::from_utf8_lossy(name)).into_bytes();
        session.entry(&repository::Entry { name: name.clone(), meta, size: content.len() as u64, extents })?;
    }
    drop(writer);
    session.commit(&json!({ "story": n }))
}

/// The whole story. What is heard of goes into `heard`: whoever was told that a backup is there must find it.
fn run(store: &Arc<dyn Store>, heard: &mut BTreeMap<BackupId, bool>) -> Result<(), RepositoryError> {
    let repository = opened(store)?;
    let first = write(&repository, 1, true)?;
    heard.insert(first, true);
    let hold = repository.hold(first, json!("a restore"))?;
    repository.add_proof(first, true, &json!("good"))?;
    drop(hold);
    let second = write(&repository, 2, false)?;
    heard.insert(second, true);
    repository.keys().rotate(&[secret()])?;
    let third = write(&repository, 3, true)?;
    heard.insert(third, true);
    repository.add_proof(third, true, &json!("good"))?;
    // From the attempt on nobody can say, until it is read from the log.
    heard.remove(&first);
    heard.remove(&second);
    let old = [first, second].map(|backup| Expired { backup, reason: "old".to_owned() });
    repository.expire(&old)?;
    repository.collect()?;
    Ok(())
}

/// Everything that the log calls a backup comes back.
fn is_sound(store: &Arc<dyn Store>, heard: &BTreeMap<BackupId, bool>, what: &str) -> Repository {
    let repository = opened(store).unwrap_or_else(|error| panic!("{what}: {error}"));
    let report = repository.check(true, &|_| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.is_clean(), "{what}: {report:?}");
    let backups = repository.backups();
    assert_eq!(report.restorable, backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), "{what}");
    for backup in &backups {
        assert_eq!(restore(&repository, backup.id), story(backup.info["story"].as_u64().unwrap()), "{what}");
    }
    for told in heard.keys() {
        assert!(backups.iter().any(|backup| backup.id == *told), "{what}: {told} was committed and is lost");
    }
    repository
}

/// The next night: another backup, all others expire, garbage goes.
fn next_run(store: &Arc<dyn Store>, heard: &BTreeMap<BackupId, bool>, what: &str) {
    let repository = is_sound(store, heard, what);
    let newest = write(&repository, 9, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    repository.add_proof(newest, true, &json!("good")).unwrap();
    // This process lives, though its holds of the story do not.
    for hold in repository.holds() {
        repository.with_log(|log| log.close(hold.session, "test")).unwrap();
    }
    let old: Vec<_> = repository.with_state(|state| {
        let others = state.backups().keys().filter(|backup| **backup != newest);
        others.map(|backup| Expired { backup: *backup, reason: "old".to_owned() }).collect()
    });
    if !old.is_empty() {
        repository.expire(&old).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    repository.collect().unwrap_or_else(|error| panic!("{what}: {error}"));
    let repository = is_sound(store, &BTreeMap::from([(newest, true)]), what);
    let report = repository.check(false, &|_| {}).unwrap();
    assert_eq!(report.unneeded_packs, 0, "{what}: {report:?}");
}

fn at_every_operation(faults: &[Fault]) {
    let calm: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let counting = Arc::new(FaultyStore::new(calm.clone(), []));
    run(&(counting.clone() as Arc<dyn Store>), &mut BTreeMap::new()).unwrap();
    let operations = counting.operations();
    assert!(operations > 80, "{operations}");
    next_run(&calm, &BTreeMap::new(), "calm");
    for fault in faults {
        // Two threads upload, so that runs differ by a few operations.
        for k in 1..=operations {
            let what = format!("{fault:?} at operation {k}");
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let faulty = Arc::new(FaultyStore::new(inner.clone(), [(k, *fault)]));
            let mut heard = BTreeMap::new();
            let ended = run(&(faulty.clone() as Arc<dyn Store>), &mut heard);
            assert!(ended.is_err() || !faulty.stopped(), "{what}: it went on after its death");
            is_sound(&inner, &heard, &what);
            // A request that hung arrives now, after everybody has looked.
            faulty.deliver().unwrap();
            next_run(&inner, &heard, &what);
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_and_leaves_nothing() {
    at_every_operation(&[Fault::CrashBefore, Fault::CrashAfter]);
}

#[test]
fn slow_a_lost_or_late_reply_at_any_operation_loses_nothing() {
    at_every_operation(&[Fault::LoseReply, Fault::Limbo]);
}
