//! Whatever is done to the objects, the check finds it and says rightly what is still restorable.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::collections::BTreeMap;

use repository::{BackupId, CheckReport, Fault, Repository};
use support::*;

type Objects = BTreeMap<String, Vec<u8>>;

struct Two {
    objects: Objects,
    files: [Files; 2],
    backups: [BackupId; 2],
}

/// Two backups that share most of their packs.
fn two() -> Two {
    let store = memory();
    let repository = create(&store);
    let old = files(1, 30);
    let mut new = old.clone();
    new.insert(b"base/1/00001".to_vec(), noise(99, 9000));
    let backups = [backup(&repository, &old), backup(&repository, &new)];
    Two { objects: objects(&store), files: [old, new], backups }
}

/// Opens, or says why not.
fn check(objects: &Objects) -> Result<(Repository, CheckReport), String> {
    let store = store_of(objects);
    let repository = Repository::open(store, &options(), &secret()).map_err(|error| error.to_string())?;
    let report = repository.check(true, &|_| {}).map_err(|error| error.to_string())?;
    Ok((repository, report))
}

/// What the report calls restorable comes back; what it calls damaged does not come back whole.
fn is_honest(two: &Two, repository: &Repository, report: &CheckReport) {
    // Backups whose commit record is gone are not known to anybody; the report then says that of the log.
    let log_is_cut = report.findings.iter().any(|finding| finding.object.starts_with("log/"));
    for (backup, files) in two.backups.iter().zip(&two.files) {
        let whole = try_restore(repository, *backup).is_ok_and(|found| found == *files);
        assert_eq!(report.restorable.contains(backup), whole, "{report:?}");
        let damaged = report.damaged.iter().any(|damaged| damaged.backup == *backup);
        assert!(damaged != whole || log_is_cut, "{report:?}");
    }
}

#[test]
fn a_sound_repository_has_no_findings() {
    let two = two();
    let (repository, report) = check(&two.objects).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.restorable, two.backups);
    is_honest(&two, &repository, &report);
}

#[test]
fn a_missing_object_is_found() {
    let two = two();
    for name in two.objects.keys() {
        let mut objects = two.objects.clone();
        objects.remove(name);
        match check(&objects) {
            // The newest record may be missing unseen by a host that remembers nothing: see the next test.
            Ok((_, report)) if Some(name) == two.objects.keys().rfind(|name| name.starts_with("log/")) => {
                assert!(report.unneeded_packs > 0, "{name}: its packs look like those of a running session");
            }
            Ok((repository, report)) => {
                assert!(!report.is_clean(), "{name}");
                assert!(report.findings.iter().any(|finding| finding.fault == Fault::Missing), "{name}: {report:?}");
                is_honest(&two, &repository, &report);
            }
            Err(_) => assert!(name.starts_with("log/") || name.starts_with("key/"), "{name}"),
        }
    }
}

#[test]
fn a_missing_last_record_is_found_by_who_remembers() {
    let two = two();
    let directory = tempfile::tempdir().unwrap();
    let options = || repository::Options { remembered: Some(directory.path().join("tip")), ..options() };
    drop(Repository::open(store_of(&two.objects), &options(), &secret()).unwrap());
    let mut objects = two.objects;
    let last = objects.keys().rev().find(|name| name.starts_with("log/")).unwrap().clone();
    objects.remove(&last);
    let error = Repository::open(store_of(&objects), &options(), &secret()).unwrap_err().to_string();
    assert!(error.contains("ALARM"), "{error}");
}

#[test]
fn a_cut_or_longer_object_is_found() {
    let two = two();
    for (name, bytes) in &two.objects {
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1, bytes.len() + 1] {
            let mut objects = two.objects.clone();
            objects.get_mut(name).unwrap().resize(len, 0);
            found(&two, &objects, name);
        }
    }
}

#[test]
fn flipped_bits_are_found() {
    let two = two();
    for (name, bytes) in &two.objects {
        // All objects, and of each a bit in every region: both ends byte by byte, and steps in between.
        let ends = (0..80.min(bytes.len())).chain(bytes.len().saturating_sub(80)..bytes.len());
        for at in ends.chain((0..bytes.len()).step_by(1 + bytes.len() / 20)) {
            let mut objects = two.objects.clone();
            objects.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            found(&two, &objects, &format!("{name}, byte {at} of {}", bytes.len()));
        }
    }
}

#[test]
fn swapped_objects_are_found() {
    let two = two();
    let names: Vec<_> = two.objects.keys().collect();
    for pair in names.windows(2) {
        let mut objects = two.objects.clone();
        objects.insert(pair[0].clone(), two.objects[pair[1]].clone());
        objects.insert(pair[1].clone(), two.objects[pair[0]].clone());
        found(&two, &objects, &format!("{} and {}", pair[0], pair[1]));
    }
}

#[test]
fn objects_of_another_repository_are_found() {
    let two = two();
    let other = self::two();
    let kinds = ["key/", "log/000000000002", "pack/"];
    for kind in kinds {
        let ours = two.objects.keys().find(|name| name.starts_with(kind)).unwrap();
        let theirs = other.objects.keys().find(|name| name.starts_with(kind)).unwrap();
        // In the place of one of ours.
        let mut objects = two.objects.clone();
        objects.insert(ours.clone(), other.objects[theirs].clone());
        found(&two, &objects, ours);
    }
    // And beside ours.
    for (name, bytes) in [
        ("readme.txt", b"hello".to_vec()),
        ("pack/zz/hello", b"hello".to_vec()),
        ("key/7x", Vec::new()),
        ("log/000000000777", b"hello".to_vec()),
        (
            other.objects.keys().find(|name| name.starts_with("pack/")).unwrap(),
            other.objects.values().next_back().unwrap().clone(),
        ),
    ] {
        let mut objects = two.objects.clone();
        objects.insert(name.to_owned(), bytes);
        let (repository, report) = check(&objects).unwrap();
        assert!(report.findings.iter().any(|finding| finding.fault == Fault::Foreign), "{name}: {report:?}");
        assert_eq!(report.restorable, two.backups, "{name}");
        is_honest(&two, &repository, &report);
    }
}

/// An old object put back under the name of a newer one.
#[test]
fn replayed_records_are_found() {
    let two = two();
    let logs: Vec<_> = two.objects.keys().filter(|name| name.starts_with("log/")).collect();
    for pair in logs.windows(2) {
        let mut objects = two.objects.clone();
        objects.insert(pair[1].clone(), two.objects[pair[0]].clone());
        assert!(check(&objects).is_err(), "{} as {}", pair[0], pair[1]);
    }
}

fn found(two: &Two, objects: &Objects, what: &str) {
    if let Ok((repository, report)) = check(objects) {
        assert!(!report.findings.is_empty(), "{what}: nothing was found");
        is_honest(two, &repository, &report);
    }
}

#[test]
fn damage_names_the_touched_files_only() {
    let store = memory();
    let repository = create(&store);
    let mut files = Files::new();
    files.insert(b"a".to_vec(), noise(1, 4000));
    files.insert(b"b".to_vec(), noise(2, 4000));
    let id = backup(&repository, &files);
    let mut objects = objects(&store);
    // The first byte behind a pack's header is in its first frame; packs of content are those with the noise, so the larger ones.
    let largest = objects
        .iter()
        .filter(|(name, _)| name.starts_with("pack/"))
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap()
        .0
        .clone();
    objects.get_mut(&largest).unwrap()[40] ^= 1;
    let (_, report) = check(&objects).unwrap();
    let [damaged] = &report.damaged[..] else { panic!("{report:?}") };
    assert_eq!((damaged.backup, damaged.manifest_readable, damaged.entries), (id, true, 1));
    assert_eq!(report.findings[0].backups, [id]);
}

#[test]
fn a_damaged_pack_is_never_shared_again() {
    let two = two();
    let mut objects = two.objects.clone();
    let largest = objects
        .iter()
        .filter(|(name, _)| name.starts_with("pack/"))
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap()
        .0
        .clone();
    objects.get_mut(&largest).unwrap()[40] ^= 1;
    let (repository, report) = check(&objects).unwrap();
    assert!(!report.damaged.is_empty());
    let third = backup(&repository, &two.files[0]);
    assert_eq!(restore(&repository, third), two.files[0]);
    let report = repository.check(true, &|_| {}).unwrap();
    assert!(report.restorable.contains(&third), "{report:?}");
}
