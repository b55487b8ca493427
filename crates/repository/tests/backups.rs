//! Backups through the facade: what goes in comes back, and what is there is not stored again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::sync::Arc;

use repository::{
    Entry, Extent, RepositoryError, SessionInfo,
    store::{LocalStore, Store},
};
use serde_json::{Value, json};
use support::*;

fn stored(store: &Arc<dyn Store>) -> u64 {
    let mut bytes = 0;
    store.list("pack/", &mut |_, size| bytes += size).unwrap();
    bytes
}

#[test]
fn a_backup_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(directory.path()).unwrap());
    let files = files(1, 200);
    let id = backup(&create(&store), &files);

    let repository = open(&store);
    assert_eq!(restore(&repository, id), files);
    let found = repository.find(&id.to_string()[..8]).unwrap();
    assert_eq!((found.id, found.entries, &found.info["files"]), (id, 200, &json!(200)));
    assert_eq!(found.content_bytes, files.values().map(|content| content.len() as u64).sum::<u64>());
    assert!(found.stored_bytes < found.content_bytes, "zeros, copies and repetitions cost nothing");
    assert_eq!(repository.find("latest").unwrap().id, id);

    let reader = repository.read(id).unwrap();
    let name = b"base/1/00003";
    let entry = reader.find(name).unwrap().unwrap();
    assert_eq!(content(&reader, &entry).unwrap(), files[&name[..]]);
    for absent in [&b"base"[..], b"base/1/00003x", b"z", b""] {
        assert_eq!(reader.find(absent).unwrap(), None);
    }
    assert!(repository.check(true, &|_| {}).unwrap().is_clean());
}

#[test]
fn frames_are_read_together() {
    let store = memory();
    let files = files(2, 50);
    let repository = create(&store);
    let id = backup(&repository, &files);
    let reader = repository.read(id).unwrap();
    for entry in reader.entries().map(Result::unwrap) {
        let frames: Vec<_> = entry
            .extents
            .iter()
            .filter_map(|extent| match extent {
                Extent::Frame(frame) => Some(*frame),
                Extent::Zero { .. } => None,
            })
            .collect();
        let mut together = Vec::new();
        reader
            .frames(&frames, |at, plain| {
                assert_eq!(at, together.len());
                together.push(plain);
                Ok::<_, RepositoryError>(())
            })
            .unwrap();
        let single: Vec<_> = frames.iter().map(|frame| reader.frame(frame).unwrap()).collect();
        assert_eq!(together, single);
    }
}

#[test]
fn an_unchanged_cluster_costs_almost_nothing() {
    let store = memory();
    let repository = create(&store);
    let mut files = files(3, 3000);
    backup(&repository, &files);
    let first = stored(&store);
    let second = backup(&repository, &files);
    let again = stored(&store) - first;
    assert!(again * 100 < first, "{again} of {first} bytes were stored again");
    assert_eq!(restore(&repository, second), files);

    // And one changed file costs about that file.
    files.insert(b"base/1/00500".to_vec(), noise(77, PIECE));
    let before = stored(&store);
    let third = backup(&open(&store), &files);
    let cost = stored(&store) - before;
    assert!(cost < 60_000, "one changed file cost {cost} bytes");
    assert_eq!(restore(&repository_with(&store), third), files);
}

fn repository_with(store: &Arc<dyn Store>) -> repository::Repository {
    open(store)
}

#[test]
fn an_interrupted_backup_is_resumed_from_its_draft() {
    let store = memory();
    let repository = create(&store);
    let files = files(4, 400);
    let session = begin(&repository);
    store_files(&session, &files, 2);
    session.draft(&json!({"unfinished": true})).unwrap();
    assert!(repository.backups().is_empty(), "a draft is no backup");
    drop(session);
    let drafted = stored(&store);

    // The process is gone: its session is still open.
    let repository = open(&store);
    let info = |take_over| SessionInfo { cluster: "main".to_owned(), take_over, info: Value::Null };
    assert!(repository.begin(info(false)).is_err(), "two writers of one cluster");
    let session = repository.begin(info(true)).unwrap();
    store_files(&session, &files, 2);
    let id = session.commit(&Value::Null).unwrap();
    let again = stored(&store) - drafted;
    assert!(again * 20 < drafted, "{again} of {drafted} bytes were stored again");
    assert_eq!(restore(&repository, id), files);
    assert!(repository.check(true, &|_| {}).unwrap().is_clean());
}

#[test]
fn a_session_that_was_taken_over_never_commits() {
    let store = memory();
    let (first, second) = (create(&store), open(&store));
    let zombie = begin(&first);
    store_files(&zombie, &files(5, 20), 1);
    let info = SessionInfo { cluster: "main".to_owned(), take_over: true, info: Value::Null };
    let session = second.begin(info).unwrap();
    assert!(zombie.commit(&Value::Null).is_err());
    let files = files(6, 20);
    store_files(&session, &files, 1);
    let id = session.commit(&Value::Null).unwrap();
    // What the zombie wrote is garbage, and nobody else's is.
    assert!(second.check(false, &|_| {}).unwrap().unneeded_packs > 0);
    assert!(second.collect().unwrap().removed > 0);
    let report = second.check(true, &|_| {}).unwrap();
    assert!(report.is_clean() && report.unneeded_packs == 0, "{report:?}");
    assert_eq!(restore(&second, id), files);
}

#[test]
fn expired_backups_leave_what_others_need() {
    let store = memory();
    let repository = create(&store);
    let (old, new) = (files(7, 100), {
        let mut new = files(7, 100);
        new.extend(files(8, 50).into_iter().map(|(mut name, content)| {
            name.extend(b".new");
            (name, content)
        }));
        new
    });
    let first = backup(&repository, &old);
    let second = backup(&repository, &new);
    let expired = repository::log::Expired { backup: first, reason: "test".to_owned() };
    assert_eq!(repository.expire(&[expired]).unwrap(), 1);
    repository.collect().unwrap();
    assert!(repository.read(first).is_err());
    assert_eq!(restore(&open(&store), second), new);
    assert!(repository.check(true, &|_| {}).unwrap().is_clean());
}

/// A prune beside a running backup, from another process: what is stored and not yet committed looks like garbage, and is none.
#[test]
fn a_collection_beside_a_running_backup_takes_nothing_of_it() {
    let store = memory();
    let (writer, pruner) = (create(&store), open(&store));
    let files = files(12, 200);
    let session = begin(&writer);
    store_files(&session, &files, 2);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while session.counts().stored_packs == 0 {
        assert!(std::time::Instant::now() < deadline, "no pack was stored before the commit");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    pruner.collect().unwrap();
    assert!(pruner.check(false, &|_| {}).unwrap().unneeded_packs > 0);
    let id = session.commit(&Value::Null).unwrap();
    pruner.refresh().unwrap();
    pruner.collect().unwrap();
    assert_eq!(restore(&pruner, id), files);
    assert!(pruner.check(true, &|_| {}).unwrap().is_clean());
}

#[test]
fn what_a_hold_needs_does_not_expire() {
    let store = memory();
    let repository = create(&store);
    let first = backup(&repository, &files(9, 10));
    backup(&repository, &files(9, 11));
    let expired = [repository::log::Expired { backup: first, reason: "test".to_owned() }];
    let hold = repository.hold(first, json!({"restore": 1})).unwrap();
    assert!(repository.expire(&expired).is_err());
    drop(hold);
    assert_eq!(repository.expire(&expired).unwrap(), 1);
}

#[test]
fn bad_entries_are_refused() {
    let repository = create(&memory());
    let (session, other) = (
        begin(&repository),
        repository.begin(SessionInfo { cluster: "b".to_owned(), take_over: false, info: Value::Null }).unwrap(),
    );
    let mut writer = session.writer().unwrap();
    let frame = Extent::Frame(writer.put(b"abc").unwrap());
    let entry = |name: &[u8], size, extents| Entry { name: name.to_vec(), meta: Vec::new(), size, extents };
    for bad in [entry(b"", 0, vec![]), entry(b"a", 4, vec![frame]), entry(&[b'a'; 5000], 0, vec![])] {
        assert!(matches!(session.entry(&bad), Err(RepositoryError::Entry { .. })));
    }
    assert!(matches!(other.entry(&entry(b"a", 3, vec![frame])), Err(RepositoryError::StrangeFrame)));
    assert!(matches!(writer.put(&vec![0; repository::FRAME_PLAIN_MAX + 1]), Err(RepositoryError::FrameTooLong { .. })));
    // A writer that is still open may hold the frame back.
    session.entry(&entry(b"a", 3, vec![frame])).unwrap();
    assert!(session.commit(&Value::Null).is_err());
    drop(writer);
    session.entry(&entry(b"a", 3, vec![frame])).unwrap();
    assert!(matches!(session.commit(&Value::Null), Err(RepositoryError::Entry { .. })), "a name twice");
}

#[test]
fn nothing_readable_is_in_the_store() {
    let store = memory();
    let repository = create(&store);
    let mut files = Files::new();
    files.insert(b"pg_hba.conf.secret".to_vec(), b"a very recognisable line ".repeat(3));
    backup(&repository, &files);
    repository
        .keys()
        .add(&repository::Secret::passphrase("another passphrase").unwrap(), "recognisable label")
        .unwrap();
    for (name, bytes) in objects(&store) {
        for text in ["recognisable", "pg_hba", "main"] {
            assert!(!name.contains(text), "{name}");
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{name} has {text}");
        }
    }
}

/// A backup that is too large is refused, as early as it can be, and takes nothing with it.
#[test]
fn a_backup_beyond_the_bounds_changes_nothing() {
    use repository::{ENTRIES_MAX, Limits, Options, Repository};

    let store = memory();
    let first = backup(&create(&store), &files(1, 30));
    let before = objects(&store);
    let limited = |limits| {
        let options = Options { limits, ..options() };
        Repository::open(Arc::clone(&store), &options, &secret()).unwrap()
    };
    let empty = |n: u32| Entry { name: n.to_be_bytes().to_vec(), meta: Vec::new(), size: 0, extents: Vec::new() };
    let says = |error: &RepositoryError| {
        let text = error.to_string();
        assert!(
            matches!(error, RepositoryError::TooManyEntries { .. }) && text.contains("Nothing was committed"),
            "{text}"
        );
    };

    // By their count: at the entry that is one too many, before the rest is copied.
    let repository = limited(Limits { entries: 100, ..Limits::default() });
    let session = begin(&repository);
    (0..100).for_each(|n| session.entry(&empty(n)).unwrap());
    let error = session.entry(&empty(100)).unwrap_err();
    says(&error);
    assert!(matches!(error, RepositoryError::TooManyEntries { entries: 100, entries_max: 100, .. }), "{error}");
    session.abandon("too many").unwrap();

    // By what their list takes: at the commit, before its record.
    let repository = limited(Limits { root_bytes: 400, ..Limits::default() });
    let session = begin(&repository);
    (0..5000).for_each(|n| session.entry(&empty(n)).unwrap());
    says(&session.draft(&Value::Null).unwrap_err());
    let error = session.commit(&Value::Null).unwrap_err();
    says(&error);
    assert!(matches!(error, RepositoryError::TooManyEntries { entries: 5000, root_bytes: 401.., .. }), "{error}");
    session.abandon("too large").unwrap();

    // What was there is as it was; what was stored in vain goes.
    let repository = open(&store);
    repository.collect().unwrap();
    let after = objects(&store);
    for (name, bytes) in before {
        assert_eq!(after.get(&name), Some(&bytes), "{name}");
    }
    let report = repository.check(true, &|_| {}).unwrap();
    assert!(report.is_clean() && report.unneeded_packs == 0 && report.restorable == [first], "{report:?}");
    const { assert!(ENTRIES_MAX >= 1_000_000) };
}
