//! A repository in memory, and backups of made-up files in it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{collections::BTreeMap, sync::Arc};

use repository::{
    BackupId, BackupReader, Entry, Extent, KdfCost, Options, Repository, RepositoryError, Secret, Session, SessionInfo,
    store::{MemoryStore, Store},
};
use serde_json::{Value, json};

/// Files by name: content in pieces of at most this many bytes.
pub const PIECE: usize = 5000;

pub type Files = BTreeMap<Vec<u8>, Vec<u8>>;

pub fn options() -> Options {
    Options { cost: KdfCost::CHEAP, pack_target: 64 << 10, ..Options::default() }
}

pub fn secret() -> Secret {
    Secret::passphrase("correct horse battery").unwrap()
}

pub fn create(store: &Arc<dyn Store>) -> Repository {
    Repository::create(Arc::clone(store), &options(), &secret(), "test", Value::Null).unwrap()
}

pub fn open(store: &Arc<dyn Store>) -> Repository {
    Repository::open(Arc::clone(store), &options(), &secret()).unwrap()
}

pub fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// Bytes that look random and are the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `count` files: some small, some of several pieces, some with holes, some copies of others.
pub fn files(seed: u64, count: u64) -> Files {
    let file = |n: u64| {
        let content = match n % 5 {
            0 => noise(seed * 1000 + n, 100),
            1 => noise(seed * 1000 + n, 3 * PIECE + 17),
            2 => b"the same again and again ".repeat(1000),
            3 => [noise(seed * 1000 + n, PIECE), vec![0; 2 * PIECE], noise(n, PIECE)].concat(),
            _ => Vec::new(),
        };
        (format!("base/1/{n:05}").into_bytes(), content)
    };
    (0..count).map(file).collect()
}

pub fn begin(repository: &Repository) -> Session {
    let info = SessionInfo { cluster: "main".to_owned(), take_over: false, info: Value::Null };
    repository.begin(info).unwrap()
}

/// Stores the files from `threads` threads, in no order.
pub fn store_files(session: &Session, files: &Files, threads: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut writer = session.writer().unwrap();
                for (name, content) in files.iter().rev().skip(thread).step_by(threads) {
                    let extents = content.chunks(PIECE).map(|piece| {
                        if piece.iter().all(|byte| *byte == 0) {
                            Extent::Zero { len: piece.len() as u64 }
                        } else {
                            Extent::Frame(writer.put(piece).unwrap())
                        }
                    });
                    let entry = Entry {
                        name: name.clone(),
                        meta: format!("mode of {}", String::from_utf8_lossy(name)).into_bytes(),
                        size: content.len() as u64,
                        extents: extents.collect(),
                    };
                    session.entry(&entry).unwrap();
                }
            });
        }
    });
}

pub fn backup(repository: &Repository, files: &Files) -> BackupId {
    let session = begin(repository);
    store_files(&session, files, 3);
    session.commit(&json!({"format": 1, "files": files.len()})).unwrap()
}

/// What comes back.
pub fn restore(repository: &Repository, backup: BackupId) -> Files {
    try_restore(repository, backup).unwrap()
}

/// What comes back, or the first thing that is wrong.
pub fn try_restore(repository: &Repository, backup: BackupId) -> Result<Files, RepositoryError> {
    let reader = repository.read(backup)?;
    let mut files = Files::new();
    for entry in reader.entries() {
        let entry = entry?;
        assert_eq!(entry.meta, format!("mode of {}", String::from_utf8_lossy(&entry.name)).into_bytes());
        let content = content(&reader, &entry)?;
        assert_eq!(content.len() as u64, entry.size);
        files.insert(entry.name, content);
    }
    assert_eq!(files.len() as u64, reader.entry_count());
    Ok(files)
}

pub fn content(reader: &BackupReader, entry: &Entry) -> Result<Vec<u8>, RepositoryError> {
    let mut content = Vec::new();
    for extent in &entry.extents {
        match extent {
            Extent::Zero { len } => content.resize(content.len() + usize::try_from(*len).unwrap(), 0),
            Extent::Frame(frame) => content.extend(reader.frame(frame)?),
        }
    }
    Ok(content)
}

/// All objects with their bytes.
pub fn objects(store: &Arc<dyn Store>) -> BTreeMap<String, Vec<u8>> {
    let mut names = Vec::new();
    store.list("", &mut |name, _| names.push(name)).unwrap();
    names.into_iter().map(|name| (name.to_string(), store.get(&name).unwrap())).collect()
}

/// A store with these objects.
pub fn store_of(objects: &BTreeMap<String, Vec<u8>>) -> Arc<dyn Store> {
    let store = memory();
    for (name, bytes) in objects {
        store.put_if_absent(&name.parse().unwrap(), bytes).unwrap();
    }
    store
}
