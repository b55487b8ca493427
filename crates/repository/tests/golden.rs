//! The golden repository: what version 1 of the format wrote is read by every later version. `tests/independent_reader` reads the same
//! without a line of this crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{path::Path, sync::Arc};

use repository::{RecoveryKey, Repository, Secret, store::LocalStore, store::Store};
use serde_json::json;
use support::*;

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(golden().join(name)).unwrap()
}

/// A copy in memory: opening and checking must not write into the checkout.
fn copy() -> Arc<dyn Store> {
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
    walk(&golden().join("repository"), "", &store);
    store
}

fn secrets() -> [Secret; 3] {
    [
        Secret::passphrase(&text("passphrase.txt")).unwrap(),
        Secret::key_file(&golden().join("key-file.txt")).unwrap(),
        Secret::recovery_key(&text("recovery-key.txt")).unwrap(),
    ]
}

#[test]
fn the_golden_repository_is_read() {
    let contents: serde_json::Value = serde_json::from_str(&text("contents.json")).unwrap();
    for secret in secrets() {
        let repository = Repository::open(copy(), &options(), &secret).unwrap();
        assert!(repository.is_recoverable());
        let backups = repository.backups();
        assert_eq!(backups.len(), 2);
        for (backup, expected) in backups.iter().zip(contents["backups"].as_array().unwrap()) {
            assert_eq!(hashes(&restore(&repository, backup.id)), expected["files"]);
        }
        assert!(repository.check(true, &|_| {}).unwrap().is_clean());
    }
}

fn hashes(files: &Files) -> serde_json::Value {
    let hash = |content: &Vec<u8>| blake3::hash(content).to_hex().to_string();
    files.iter().map(|(name, content)| (String::from_utf8(name.clone()).unwrap(), json!(hash(content)))).collect()
}

/// Makes the golden repository anew, where there is none: for a new version of the format, whose directory gets a new name. Run
/// with `--run-ignored only`.
#[test]
#[ignore = "makes files of the checkout"]
fn make_golden() {
    let golden = golden();
    assert!(!golden.exists(), "what is golden stays as it is");
    let directory = golden.join("repository");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(golden.join("passphrase.txt"), "correct horse battery staple\n").unwrap();
    std::fs::write(golden.join("key-file.txt"), &*Secret::new_key_file().unwrap()).unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&directory).unwrap());
    let passphrase = Secret::passphrase(&text("passphrase.txt")).unwrap();
    let options = repository::Options { pack_target: 16 << 10, ..options() };
    let repository = Repository::create(store, &options, &passphrase, "golden", json!({"golden": 1})).unwrap();
    let mut files = files(1, 12);
    let first = json!({"files": hashes(&files)});
    backup(&repository, &files);

    repository.keys().add(&Secret::key_file(&golden.join("key-file.txt")).unwrap(), "host").unwrap();
    let paper = repository.keys().export_recovery_key("safe").unwrap();
    std::fs::write(golden.join("recovery-key.txt"), format!("{}\n", *paper)).unwrap();
    repository.keys().confirm_recovery_key(&paper.parse::<RecoveryKey>().unwrap()).unwrap();
    repository.keys().rotate(&secrets()).unwrap();

    files.insert(b"base/1/00003".to_vec(), noise(5, 6000));
    files.remove(&b"base/1/00004"[..]);
    backup(&repository, &files);
    let contents = json!({"backups": [first, {"files": hashes(&files)}]});
    std::fs::write(golden.join("contents.json"), serde_json::to_string_pretty(&contents).unwrap() + "\n").unwrap();
}
