//! Key slots: who opens what, before and after changes, and what damage does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use repository::{RecoveryKey, Repository, RepositoryError, Secret, SlotId, SlotKind, key::KeyError, log::LogError};
use support::*;

fn other() -> Secret {
    Secret::passphrase("another passphrase").unwrap()
}

fn open_with(
    store: &std::sync::Arc<dyn repository::store::Store>,
    secret: &Secret,
) -> Result<Repository, RepositoryError> {
    Repository::open(store.clone(), &options(), secret)
}

fn is_wrong_secret(result: &Result<Repository, RepositoryError>) -> bool {
    matches!(result, Err(RepositoryError::Key(KeyError::WrongSecret { .. })))
}

#[test]
fn a_wrong_secret_opens_nothing() {
    let store = memory();
    assert!(matches!(open_with(&store, &secret()), Err(RepositoryError::Key(KeyError::NoRepository { .. }))));
    let repository = create(&store);
    assert!(is_wrong_secret(&open_with(&store, &other())));
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    let typed = Secret::recovery_key(&paper.to_lowercase()).unwrap();
    assert!(open_with(&store, &typed).is_ok());
    assert!(matches!(
        Repository::create(store, &options(), &secret(), "again", serde_json::Value::Null),
        Err(RepositoryError::Key(KeyError::Exists { .. }))
    ));
}

#[test]
fn an_interrupted_creation_goes_on() {
    let store = memory();
    let repository = create(&store);
    let mut objects = objects(&store);
    objects.retain(|name, _| name.starts_with("key/"));
    let store = store_of(&objects);
    let again = create(&store);
    assert_eq!(again.id(), repository.id());
    assert!(open_with(&store, &secret()).is_ok());
}

#[test]
fn slots_come_and_go() {
    let store = memory();
    let repository = create(&store);
    let added = repository.keys().add(&other(), "second person").unwrap();
    assert!(open_with(&store, &other()).is_ok());
    let labels: Vec<_> = repository.keys().list().into_iter().map(|slot| slot.label).collect();
    assert_eq!(labels, ["test", "second person"]);
    repository.keys().remove(added).unwrap();
    assert!(is_wrong_secret(&open_with(&store, &other())));
    assert!(matches!(repository.keys().remove(added), Err(RepositoryError::Key(KeyError::NoSlot { .. }))));
    let last = repository.keys().list()[0].id;
    assert!(matches!(repository.keys().remove(last), Err(RepositoryError::Key(KeyError::LastSlot))));
}

#[test]
fn two_who_change_the_keys_both_succeed() {
    let store = memory();
    let (one, two) = (create(&store), open(&store));
    one.keys().add(&other(), "one").unwrap();
    two.keys().add(&Secret::passphrase("third passphrase").unwrap(), "two").unwrap();
    assert_eq!(open(&store).keys().list().len(), 3);
}

#[test]
fn a_recovery_key_counts_when_it_is_confirmed() {
    let store = memory();
    let repository = create(&store);
    assert!(!repository.is_recoverable());
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    assert!(!open(&store).is_recoverable());
    let strange: RecoveryKey = create(&memory()).keys().export_recovery_key("x").unwrap().parse().unwrap();
    assert!(matches!(
        repository.keys().confirm_recovery_key(&strange),
        Err(RepositoryError::Key(KeyError::NotOurRecoveryKey))
    ));
    repository.keys().confirm_recovery_key(&paper.parse().unwrap()).unwrap();
    let opened = open(&store);
    assert!(opened.is_recoverable());
    assert!(opened.keys().list().iter().any(|slot| slot.kind == SlotKind::Recovery && slot.confirmed));
    let slot = opened.keys().list().into_iter().find(|slot| slot.kind == SlotKind::Recovery).unwrap();
    opened.keys().remove(slot.id).unwrap();
    assert!(!open(&store).is_recoverable());
}

#[test]
fn a_rotation_rewrites_no_pack_and_shuts_out_old_keys() {
    let store = memory();
    let repository = create(&store);
    repository.keys().add(&other(), "who leaves").unwrap();
    let files = files(1, 40);
    let before = backup(&repository, &files);
    let packs = |store| objects(store).into_iter().filter(|(name, _)| name.starts_with("pack/")).collect::<Vec<_>>();
    let old_packs = packs(&store);
    let left = open_with(&store, &other()).unwrap();
    // Session begun with the old keys.
    let session = begin(&left);

    repository.keys().rotate(&[secret()]).unwrap();
    assert_eq!(packs(&store), old_packs);
    assert!(is_wrong_secret(&open_with(&store, &other())));
    assert!(session.commit(&serde_json::Value::Null).is_err(), "who has only old keys appends nothing");
    assert!(left.refresh().is_err());
    drop(session);

    let reopened = open(&store);
    assert_eq!(restore(&reopened, before), files);
    let info = repository::SessionInfo { cluster: "main".to_owned(), take_over: true, info: serde_json::Value::Null };
    let session = reopened.begin(info).unwrap();
    store_files(&session, &files, 2);
    let after = session.commit(&serde_json::Value::Null).unwrap();
    assert_eq!(restore(&open(&store), after), files);
    let report = reopened.check(true, &|_| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.restorable, [before, after]);
}

#[test]
fn a_damaged_generation_gives_way_to_the_one_before() {
    let store = memory();
    let repository = create(&store);
    repository.keys().add(&other(), "second").unwrap();
    for bit in 0..20 {
        let mut objects = objects(&store);
        let newest = objects.get_mut("key/1").unwrap();
        let at = bit * newest.len() / 20;
        newest[at] ^= 1;
        let store = store_of(&objects);
        let repository = open(&store);
        let report = repository.check(false, &|_| {}).unwrap();
        assert!(report.findings.iter().any(|finding| finding.object == "key/1"), "{report:?}");
        // The next change is built on what can be read.
        repository.keys().add(&other(), "again").unwrap();
        assert!(open_with(&store, &other()).is_ok());
    }
}

/// A repository whose keys are in their third generation: a slot came and went.
fn generations() -> (std::sync::Arc<dyn repository::store::Store>, SlotId) {
    let store = memory();
    let repository = create(&store);
    let slot = repository.keys().add(&other(), "who leaves").unwrap();
    repository.keys().remove(slot).unwrap();
    (store, slot)
}

fn remembering(directory: &std::path::Path) -> repository::Options {
    repository::Options { remembered: Some(directory.join("tip")), ..options() }
}

#[test]
fn keys_that_went_back_are_an_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = generations();
    Repository::open(store.clone(), &remembering(directory.path()), &secret()).unwrap();
    let whole = objects(&store);

    type Meddle = fn(&mut std::collections::BTreeMap<String, Vec<u8>>);
    let meddles: [(&str, Meddle); 3] = [
        ("has no key/2; its newest keys are key/1", |objects| drop(objects.remove("key/2"))),
        ("has another key/2", |objects| objects.get_mut("key/2").unwrap()[100] ^= 1),
        ("has no key/2; its newest keys are key/0", |objects| {
            objects.retain(|name, _| !["key/1", "key/2"].contains(&&**name));
        }),
    ];
    for (found, meddle) in meddles {
        let mut objects = whole.clone();
        meddle(&mut objects);
        // Also with the secret that was removed, and with one that never was: the alarm goes before.
        for secret in [secret(), other(), Secret::passphrase("never heard of this").unwrap()] {
            let error = Repository::open(store_of(&objects), &remembering(directory.path()), &secret).unwrap_err();
            let RepositoryError::Log(LogError::Rollback(alarm)) = &error else { panic!("{error}") };
            assert!(alarm.found.starts_with(found), "{error}");
            for part in ["ALARM", "this host has seen key/2 with hash", "oxpecker key list", "tip"] {
                assert!(error.to_string().contains(part), "{part} is not in: {error}");
            }
        }
        // Who removes the memory has decided.
        let forgetful = tempfile::tempdir().unwrap();
        Repository::open(store_of(&objects), &remembering(forgetful.path()), &secret()).unwrap();
    }
    // Nothing was remembered of what was refused, and what is right still opens.
    Repository::open(store_of(&whole), &remembering(directory.path()), &secret()).unwrap();
}

#[test]
fn changed_keys_are_remembered_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory();
    let options = remembering(directory.path());
    let repository = Repository::create(store.clone(), &options, &secret(), "test", serde_json::Value::Null).unwrap();
    let changes: [&dyn Fn(); 3] = [
        &|| _ = repository.keys().add(&other(), "second").unwrap(),
        &|| repository.keys().rotate(&[secret()]).unwrap(),
        &|| drop(repository.keys().export_recovery_key("safe").unwrap()),
    ];
    for change in changes {
        let before = objects(&store);
        change();
        let mut back = objects(&store);
        back.retain(|name, _| !name.starts_with("key/") || before.contains_key(name));
        let error = Repository::open(store_of(&back), &options, &secret()).unwrap_err();
        assert!(error.to_string().contains("ALARM"), "{error}");
    }
    Repository::open(store, &options, &secret()).unwrap();
}

/// A host that remembers nothing (a restore elsewhere, perhaps from an incomplete copy) is not stopped; the check tells.
#[test]
fn a_check_compares_the_keys_with_the_log() {
    let (store, _) = generations();
    let mut objects = objects(&store);
    objects.remove("key/2");
    let store = store_of(&objects);
    let repository = open_with(&store, &other()).expect("the removed secret opens what is there");
    let report = repository.check(false, &|_| {}).unwrap();
    let finding = report.findings.iter().find(|finding| finding.object == "key/2").expect("a finding");
    assert_eq!(finding.fault, repository::Fault::Missing);
    assert!(generations().0.size(&"key/2".parse().unwrap()).unwrap().is_some());
}

#[test]
fn a_recovery_key_never_is_all_that_is_left() {
    let store = memory();
    let repository = create(&store);
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    let daily = repository.keys().list()[0].id;
    for confirm in [false, true] {
        if confirm {
            repository.keys().confirm_recovery_key(&paper.parse().unwrap()).unwrap();
        }
        let error = repository.keys().remove(daily).unwrap_err();
        assert!(matches!(error, RepositoryError::Key(KeyError::LastSlot)), "{error}");
        assert!(error.to_string().contains("oxpecker key add"), "{error}");
    }
    let recovery = || Secret::recovery_key(&paper).unwrap();
    assert!(matches!(repository.keys().rotate(&[recovery()]), Err(RepositoryError::Key(KeyError::LastSlot))));
    assert!(matches!(repository.keys().rotate(&[]), Err(RepositoryError::Key(KeyError::LastSlot))));
    // Nothing was changed by what was refused.
    assert!(open_with(&store, &secret()).is_ok());
    assert_eq!(objects(&store).keys().filter(|name| name.starts_with("key/")).count(), 3);
}

/// All daily secrets are lost: the paper opens the repository, makes new ones, and shuts out the lost ones.
#[test]
fn the_way_back_by_the_recovery_key() {
    let store = memory();
    let repository = create(&store);
    let files = files(3, 20);
    let id = backup(&repository, &files);
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    repository.keys().confirm_recovery_key(&paper.parse().unwrap()).unwrap();
    drop(repository);

    let typed = Secret::recovery_key(&paper.to_lowercase().replace('-', " ")).unwrap();
    let repository = open_with(&store, &typed).unwrap();
    assert_eq!(restore(&repository, id), files);
    repository.keys().add(&other(), "new host").unwrap();
    repository.keys().rotate(&[other(), typed.clone()]).unwrap();
    assert!(is_wrong_secret(&open_with(&store, &secret())), "the lost secret");
    assert!(open_with(&store, &typed).unwrap().is_recoverable());
    let reopened = open_with(&store, &other()).unwrap();
    assert_eq!(restore(&reopened, id), files);
    assert_eq!(backup(&reopened, &files), reopened.find("latest").unwrap().id);
}

#[test]
fn errors_of_secrets_say_what_to_do() {
    let store = memory();
    let repository = create(&store);
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    let says = |error: &dyn std::fmt::Display, parts: &[&str]| {
        let text = error.to_string();
        for part in parts.iter().chain(&["\n  hint: "]) {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    };
    // A wrong passphrase, and a key file that has no slot (any more).
    says(
        &open_with(&store, &other()).unwrap_err(),
        &["with this passphrase", "1 of kind passphrase", "1 of kind recovery key"],
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, &*Secret::new_key_file().unwrap()).unwrap();
    let key_file = Secret::key_file(&file).unwrap();
    says(&open_with(&store, &key_file).unwrap_err(), &["with this key file", "recovery key on paper"]);
    let slot = repository.keys().add(&key_file, "host").unwrap();
    repository.keys().remove(slot).unwrap();
    says(&open_with(&store, &key_file).unwrap_err(), &["with this key file"]);
    says(&repository.keys().remove(slot).unwrap_err(), &["there is no key slot", "oxpecker key list"]);
    // A slot that is lost because the object that has it is damaged: that is said, not only that the secret is wrong.
    repository.keys().add(&other(), "second").unwrap();
    let mut damaged = objects(&store);
    let newest = damaged.keys().rfind(|name| name.starts_with("key/")).unwrap().clone();
    damaged.get_mut(&newest).unwrap()[100] ^= 1;
    says(&open_with(&store_of(&damaged), &other()).unwrap_err(), &[&newest, "is damaged", "which may have one"]);
    // All of them are.
    for (name, bytes) in &mut damaged {
        if name.starts_with("key/") {
            bytes.truncate(90);
        }
    }
    says(&open_with(&store_of(&damaged), &secret()).unwrap_err(), &["is damaged", "copy of the repository"]);
    // The paper: mistyped, of another repository.
    let mut mistyped = paper.to_string();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'A' { 'B' } else { 'A' });
    says(&Secret::recovery_key(&mistyped).unwrap_err(), &["typing error", "group by group"]);
    says(&Secret::recovery_key("MV4Q").unwrap_err(), &["this text has 4"]);
    let strange = create(&memory()).keys().export_recovery_key("x").unwrap();
    says(&open_with(&store, &Secret::recovery_key(&strange).unwrap()).unwrap_err(), &["with this recovery key"]);
    says(&repository.keys().confirm_recovery_key(&strange.parse().unwrap()).unwrap_err(), &["oxpecker key export"]);
    says(&open_with(&memory(), &secret()).unwrap_err(), &["no repository", "oxpecker backup init"]);
}
