//! The golden repositories: what earlier versions of the format wrote is read by every later one. `v1` is from before WAL was part of it.
//! `tests/independent_reader` reads the same without a line of this crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{path::Path, sync::Arc};

use repository::{
    RecoveryKey, Repository, Secret, WalExpire, WalStart,
    store::{LocalStore, Store},
    wal::{Inspector, Run, Segment, Wal},
};
use serde_json::json;
use support::*;

/// What [`make_golden`] makes.
const NEWEST: &str = "v2";

fn golden(version: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn text(version: &str, name: &str) -> String {
    std::fs::read_to_string(golden(version).join(name)).unwrap()
}

/// A copy in memory: opening and checking must not write into the checkout.
fn copy(version: &str) -> Arc<dyn Store> {
    fn walk(directory: &Path, prefix: &str, store: &Arc<dyn Store>) {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), store);
            } else {
                store.put_if_absent(&name.parse().unwrap(), &std::fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
    let store = memory();
    walk(&golden(version).join("repository"), "", &store);
    store
}

fn secrets(version: &str) -> [Secret; 3] {
    [
        Secret::passphrase(&text(version, "passphrase.txt")).unwrap(),
        Secret::key_file(&golden(version).join("key-file.txt")).unwrap(),
        Secret::recovery_key(&text(version, "recovery-key.txt")).unwrap(),
    ]
}

fn contents(version: &str) -> serde_json::Value {
    serde_json::from_str(&text(version, "contents.json")).unwrap()
}

fn backups_are_read(version: &str) {
    let contents = contents(version);
    for secret in secrets(version) {
        let repository = Repository::open(copy(version), &options(), &secret).unwrap();
        assert!(repository.is_recoverable());
        let backups = repository.backups();
        assert_eq!(backups.len(), 2);
        for (backup, expected) in backups.iter().zip(contents["backups"].as_array().unwrap()) {
            assert_eq!(hashes(&restore(&repository, backup.id)), expected["files"]);
        }
        assert!(repository.check(true, &|_| {}).unwrap().is_clean());
    }
}

#[test]
fn the_first_golden_repository_is_read_and_goes_on() {
    backups_are_read("v1");
    // A backup that speaks of WAL is the first that older programs refuse.
    let store = copy("v1");
    let repository = Repository::open(store.clone(), &options(), &secrets("v1")[0]).unwrap();
    assert!(repository.backups().iter().all(|backup| backup.wal.is_none() && !backup.wal_cut));
    let session = begin(&repository);
    let wal = WalStart { stream: "1".to_owned(), line: 1, segment: 2, segment_bytes: 256 };
    session.commit_with_wal(&json!({}), Some(wal.clone())).unwrap();
    let again = Repository::open(store, &options(), &secrets("v1")[1]).unwrap();
    assert_eq!(again.backups().last().unwrap().wal, Some(wal));
}

#[test]
fn the_golden_repository_with_wal_is_read() {
    backups_are_read("v2");
    let expected = &contents("v2")["wal"];
    let repository = Repository::open(copy("v2"), &options(), &secrets("v2")[0]).unwrap();
    let wal = repository.find_wal(expected["stream"].as_str().unwrap()).unwrap().unwrap();
    let report = wal.verify(&mut Anything).unwrap();
    assert!(report.is_clean(), "{report:?}");
    for line in report.lines {
        let told = &expected["lines"][line.seen.line.to_string()];
        let number = |name: &str| told[name].as_u64().unwrap();
        let run = Run { first: number("first"), end: number("end"), tail_bytes: number("tail_bytes") };
        assert_eq!(line.runs, [run]);
        for (segment, hash) in (run.first..run.end).zip(told["segments"].as_array().unwrap()) {
            let Segment::Whole(bytes) = wal.get_segment(line.seen.line, segment).unwrap() else { panic!() };
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash.as_str().unwrap());
        }
    }
    let floors = repository.with_state(|state| state.wal_floors(expected["stream"].as_str().unwrap()));
    assert_eq!(serde_json::to_value(floors).unwrap(), expected["floors"]);
}

struct Anything;

impl Inspector for Anything {
    fn segment(&mut self, _line: u32, _segment: u64, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn history(&mut self, _line: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

fn hashes(files: &Files) -> serde_json::Value {
    let hash = |content: &Vec<u8>| blake3::hash(content).to_hex().to_string();
    files.iter().map(|(name, content)| (String::from_utf8(name.clone()).unwrap(), json!(hash(content)))).collect()
}

const STREAM: &str = "7301924918273645021";
/// Bytes of a segment.
const SEGMENT: u64 = 300;

fn segment(line: u32, number: u64) -> Vec<u8> {
    noise(u64::from(line) << 32 | number, 300)
}

fn put(wal: &Wal, line: u32, segments: std::ops::Range<u64>) {
    for number in segments {
        wal.put_segment(line, number, &segment(line, number)).unwrap();
    }
}

fn backup_with(repository: &Repository, files: &Files, wal: WalStart) {
    let session = begin(repository);
    store_files(&session, files, 3);
    session.commit_with_wal(&json!({"format": 1, "files": files.len()}), Some(wal)).unwrap();
}

/// Makes the golden repository anew, where there is none: for a new version of the format, whose directory gets a new name. Run
/// with `--run-ignored only`.
#[test]
#[ignore = "makes files of the checkout"]
fn make_golden() {
    let golden = golden(NEWEST);
    assert!(!golden.exists(), "what is golden stays as it is");
    let directory = golden.join("repository");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(golden.join("passphrase.txt"), "correct horse battery staple\n").unwrap();
    std::fs::write(golden.join("key-file.txt"), &*Secret::new_key_file().unwrap()).unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&directory).unwrap());
    let passphrase = Secret::passphrase(&text(NEWEST, "passphrase.txt")).unwrap();
    let options = repository::Options { pack_target: 16 << 10, ..options() };
    let repository = Repository::create(store, &options, &passphrase, "golden", json!({"golden": 1})).unwrap();
    let mut files = files(1, 12);
    let first = json!({"files": hashes(&files)});
    let start = |line, segment| WalStart { stream: STREAM.to_owned(), line, segment, segment_bytes: SEGMENT };
    backup_with(&repository, &files, start(1, 3));
    let wal = repository.wal(STREAM.as_bytes(), SEGMENT).unwrap();
    put(&wal, 1, 3..60);

    repository.keys().add(&Secret::key_file(&golden.join("key-file.txt")).unwrap(), "host").unwrap();
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    std::fs::write(golden.join("recovery-key.txt"), format!("{}\n", *paper)).unwrap();
    repository.keys().confirm_recovery_key(&paper.parse::<RecoveryKey>().unwrap()).unwrap();
    repository.keys().rotate(&secrets(NEWEST)).unwrap();

    put(&wal, 1, 60..70);
    wal.put_companion(1, 70, "partial", b"half of a segment").unwrap();
    wal.put_map(1, 0, 1, b"a page map").unwrap();
    wal.put_history(2, b"1\t0/5000\tno recovery target specified\n").unwrap();
    put(&wal, 2, 68..75);
    let grows = segment(2, 75);
    let mut tail = wal.tail(2, 75).unwrap();
    for end in [1, 20, 33, 40, 55, 60, 71, 80, 93, 100, 120] {
        tail.flush(&grows[..end]).unwrap();
    }

    files.insert(b"base/1/00003".to_vec(), noise(5, 6000));
    files.remove(&b"base/1/00004"[..]);
    backup_with(&repository, &files, start(2, 69));
    let cut = repository.backups()[0].id;
    let expire = WalExpire { stream: STREAM.to_owned(), lines: vec![(1, 5), (2, 69)], cut: vec![cut] };
    repository.with_log(|log| log.expire_wal(|_| Ok(Some(expire.clone())))).unwrap();
    assert_eq!(repository.remove_expired_wal().unwrap().objects, 3);
    let told = |line: u32, first: u64, end: u64, epoch: u32, tail: &[u8], history: Option<&[u8]>| {
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        json!({
            "first": first, "end": end, "epoch": epoch, "tail": hash(tail), "tail_bytes": tail.len(),
            "segments": (first..end).map(|number| hash(&segment(line, number))).collect::<Vec<_>>(),
            "history": history.map(hash),
        })
    };
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let wal = json!({
        "stream": STREAM, "floors": {"1": 5, "2": 69}, "origin": 3,
        "lines": {
            "1": told(1, 5, 70, 1, b"", None),
            "2": told(2, 69, 75, 1, &grows[..120], Some(b"1\t0/5000\tno recovery target specified\n")),
        },
        "others": {
            "00000001/0000000000000001/0000000000000046.partial": hash(b"half of a segment"),
            "00000001/0000000000000000/map-1": hash(b"a page map"),
        },
    });
    let contents = json!({"backups": [first, {"files": hashes(&files)}], "wal": wal});
    std::fs::write(golden.join("contents.json"), serde_json::to_string_pretty(&contents).unwrap() + "\n").unwrap();
}
