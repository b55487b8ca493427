//! Key slots: who opens what, before and after changes, and what damage does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use repository::{RecoveryKey, Repository, RepositoryError, Secret, SlotKind, key::KeyError};
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
