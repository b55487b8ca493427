//! What the disks do: the repository's, and the one that is restored to.

use std::sync::{Arc, atomic::AtomicU64};

use backup::{CreateError, RestoreError};
use repository::{
    Repository,
    store::{Fault, FaultyStore, LocalStore, Store, StoreErrorKind},
};

use super::*;
use crate::common::{repository_options, secret};

on_majors!(a_failing_store_never_makes_a_wrong_backup, 18);

/// Kinds of fault.
const KINDS: [Fault; 5] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::LoseReply,
    Fault::Fail(StoreErrorKind::NoSpace),
    Fault::Fail(StoreErrorKind::ReadOnly),
];

/// The most operations that fail in the default tier.
const TURNS_MAX: usize = 40;

/// Operations spread evenly over all of a backup, each with one kind of fault, one after the other.
fn a_failing_store_never_makes_a_wrong_backup(installation: &Installation) -> Done {
    failing_backups(installation, &|operations| {
        let step = usize::try_from(operations).unwrap().div_ceil(TURNS_MAX).max(1);
        (1..=operations).step_by(step).zip(KINDS.into_iter().cycle()).collect()
    })
}

/// Every operation, with every kind of fault.
#[test]
fn slow_a_store_that_fails_at_any_operation_never_makes_a_wrong_backup() -> Done {
    let Some(installation) = crate::common::installation(18) else { return Ok(()) };
    failing_backups(&installation, &|operations| {
        KINDS.into_iter().flat_map(|kind| (1..=operations).map(move |at| (at, kind))).collect()
    })
}

/// Faults of the repository's store, one for each backup: none leaves a wrong backup, and the next run completes. `turns` says of the
/// operations of a backup which ones fail, and how.
fn failing_backups(installation: &Installation, turns: &dyn Fn(u64) -> Vec<(u64, Fault)>) -> Done {
    let source = source(installation);
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
    let (mut made, mut met) = (1, 0);
    for (at, fault) in turns(operations) {
        let (repository, store) = faulty(&[]);
        store.plan(at, fault);
        // The table changes, so that there is something to store each time.
        Sql::connect(&source.url("postgres")).run("UPDATE thing SET id = id");
        let result = backup::create(&options(&source), &repository?, &Notes::default());
        met += u32::from(result.is_err());
        let backups = repo.reopen().backups().len();
        // A commit whose reply was lost counts, though the writer can't know it.
        assert!(
            backups == made + usize::from(result.is_ok()) || (backups == made + 1 && fault != Fault::CrashBefore),
            "{fault:?} at {at}"
        );
        made = backups;
    }
    assert!(met >= 3, "of {operations} operations only {met} failed a backup");
    let last = backup::create(&options(&source), &repo.reopen(), &Notes::default())?;
    assert!(last.info.files > 0);
    comes_back(&repo, installation, &expected);
    Ok(())
}

on_majors!(an_interrupted_restore_is_run_again, 17);

/// An interrupted restore is run again; what is not ours is left alone.
fn an_interrupted_restore_is_run_again(installation: &Installation) -> Done {
    let source = source(installation);
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
    verify(&target, installation.major());
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
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    Ok(())
}

on_majors!(a_failing_store_never_makes_a_wrong_restore, 16);

/// One fault at a time while a backup is restored: it fails and says so, never starts from half, and goes on in the next run.
fn a_failing_store_never_makes_a_wrong_restore(installation: &Installation) -> Done {
    let (source, repo) = (source(installation), Repo::new());
    let created = create(&source, &repo);
    let place = place();
    let open = |faults: &[(u64, Fault)]| {
        let store = Arc::new(FaultyStore::new(LocalStore::open(&repo.path()).unwrap(), faults.iter().copied()));
        (Repository::open(Arc::clone(&store) as _, &repository_options(), &secret()).unwrap(), store)
    };
    let (repository, store) = open(&[]);
    let before = store.operations();
    backup::restore(&RestoreOptions::new(created.id, place.path().join("whole")), &repository, &Notes::default())?;
    let operations = store.operations() - before;
    let target = place.path().join("data");
    let kinds = [Fault::CrashBefore, Fault::Fail(StoreErrorKind::NotFound), Fault::Fail(StoreErrorKind::ReadOnly)];
    let mut failed = 0;
    for (round, at) in (1..=operations).step_by(usize::try_from(operations / 12).unwrap_or(1).max(1)).enumerate() {
        let (repository, store) = open(&[]);
        store.plan(at, kinds[round % kinds.len()]);
        if backup::restore(&RestoreOptions::new(created.id, &target), &repository, &Notes::default()).is_ok() {
            break;
        }
        failed += 1;
        assert!(!target.join("global/pg_control").exists(), "a half restore can't be started");
    }
    assert!(failed > 0, "{operations} operations");
    if !target.join("global/pg_control").exists() {
        restore(&created, &repo, &target);
    }
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), contents(&source.url("postgres")));
    Ok(())
}

on_majors!(a_slow_store_is_waited_for_and_can_be_called_off, 14);

/// What a backup that is called off may still do: what its workers have in hand, a draft, and the end of its session.
const OPERATIONS_BEHIND_MAX: u64 = 16;

/// Every operation takes its time: the backup is made all the same, and whoever calls it off is not kept waiting for all of it.
fn a_slow_store_is_waited_for_and_can_be_called_off(installation: &Installation) -> Done {
    let (source, repo) = (source(installation), Repo::new());
    let slow = || {
        let late = (1..10_000).map(|at| (at, Fault::Delay(Duration::from_millis(10))));
        let store = Arc::new(FaultyStore::new(LocalStore::open(&repo.path()).unwrap(), late));
        (Repository::open(Arc::clone(&store) as Arc<dyn Store>, &repository_options(), &secret()).unwrap(), store)
    };
    let (repository, _) = slow();
    backup::create(&options(&source), &repository, &Notes::default())?;
    Sql::connect(&source.url("postgres"))
        .run("CREATE TABLE more AS SELECT md5(g::text) FROM generate_series(1, 200000) g");
    let (repository, store) = slow();
    let then = AtomicU64::new(0);
    let cancel = At::new(2, |cancelled: &AtomicBool| {
        then.store(store.operations(), Ordering::Relaxed);
        cancelled.store(true, Ordering::Relaxed);
    });
    match backup::create(&options(&source), &repository, &cancel) {
        Err(CreateError::Cancelled) => {}
        other => panic!("{other:?}"),
    }
    let behind = store.operations() - then.load(Ordering::Relaxed);
    assert!(behind <= OPERATIONS_BEHIND_MAX, "{behind} operations after it was called off");
    create(&source, &repo);
    comes_back(&repo, installation, &contents(&source.url("postgres")));
    Ok(())
}
