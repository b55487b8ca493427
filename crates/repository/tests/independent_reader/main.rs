//! A reader written from `docs/src/format.md` alone: it uses no code of this crate, only the primitives that the format names. It reads
//! the golden repositories below `tests/golden`, which no later version of the program may fail to read either.
//!
//! Whoever changes the format changes this reader, the chapter, and adds a golden repository; never an old one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod bytes;
mod keys;
mod packs;
mod wal;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Cursor;
use packs::{Frame, Packs};

fn golden(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn object(root: &Path, name: &str) -> Option<Vec<u8>> {
    std::fs::read(root.join(name)).ok()
}

/// A frame's place, as the root and the commit record have it.
fn frame(cursor: &mut Cursor<'_>) -> Frame {
    let pack = cursor.array();
    let (epoch, ordinal, offset) = (cursor.u32(), cursor.u32(), cursor.u32());
    let (sealed_len, plain_len) = (cursor.u32(), cursor.u32());
    Frame { pack, epoch, ordinal, offset, sealed_len, plain_len, identity: cursor.array() }
}

/// The log: every record, checked against its predecessor's hash.
fn log(keys: &keys::Keys) -> Vec<serde_json::Value> {
    let (mut records, mut previous) = (Vec::new(), "0".repeat(64));
    while let Some(sealed) = object(&keys.root, &format!("log/{:012}", records.len())) {
        let plain = keys.open_record(records.len() as u64, &sealed);
        let record: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(
            (record["format"].as_u64(), record["n"].as_u64()),
            (Some(version_of(&record)), Some(records.len() as u64))
        );
        assert_eq!(record["prev"].as_str(), Some(&*previous));
        previous = blake3::hash(&sealed).to_hex().to_string();
        records.push(record);
    }
    records
}

/// The lowest version that knows all that a record says.
fn version_of(record: &serde_json::Value) -> u64 {
    let body = &record["body"];
    if body["kind"] == "wal-expire" || body.get("wal").is_some() { 2 } else { 1 }
}

/// The root's place, from a commit record.
fn root_of(manifest: &serde_json::Value) -> Frame {
    let number = |name: &str| u32::try_from(manifest[name].as_u64().unwrap()).unwrap();
    let hex = |name: &str| data_encoding::HEXLOWER.decode(manifest[name].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(manifest["format"], 1);
    Frame {
        pack: hex("pack").try_into().unwrap(),
        epoch: number("epoch"),
        ordinal: number("ordinal"),
        offset: number("offset"),
        sealed_len: number("sealed_len"),
        plain_len: number("plain_len"),
        identity: hex("identity").try_into().unwrap(),
    }
}

/// Names and contents of a backup.
fn restore(packs: &Packs<'_>, manifest: &serde_json::Value) -> BTreeMap<String, Vec<u8>> {
    let plain = packs.open(&root_of(manifest), 4);
    let mut root = Cursor(&plain);
    assert_eq!((root.take(4), root.u32(), root.u32()), (&b"OXRT"[..], 1, 0));
    let (entries, content_bytes) = (root.u64(), root.u64());

    // By the identity of a frame of tables: the frames of each of its packs.
    let mut tables: BTreeMap<[u8; 32], Vec<Vec<Frame>>> = BTreeMap::new();
    for _ in 0..root.u32() {
        let place = frame(&mut root);
        let packs_in_it = root.u32();
        root.take(packs_in_it.div_ceil(8) as usize);
        let plain = packs.open(&place, 2);
        tables.insert(place.identity, packs::tables(&plain));
        assert_eq!(tables[&place.identity].len(), packs_in_it as usize);
    }

    let mut files = BTreeMap::new();
    for _ in 0..root.u32() {
        let place = frame(&mut root);
        let entries_in_it = root.u32();
        let first_len = root.u16();
        let first = root.take(first_len.into()).to_vec();
        let page = packs.open(&place, 3);
        let before = files.len();
        entries_of(packs, &tables, &page, &mut files);
        assert_eq!(files.len() - before, entries_in_it as usize);
        assert!(files.contains_key(std::str::from_utf8(&first).unwrap()));
    }
    root.end();
    assert_eq!(files.len() as u64, entries);
    assert_eq!(files.values().map(|content| content.len() as u64).sum::<u64>(), content_bytes);
    files
}

fn entries_of(
    packs: &Packs<'_>,
    tables: &BTreeMap<[u8; 32], Vec<Vec<Frame>>>,
    page: &[u8],
    files: &mut BTreeMap<String, Vec<u8>>,
) {
    let mut page = Cursor(page);
    assert_eq!((page.take(4), page.u32()), (&b"OXEP"[..], 1));
    let named: Vec<[u8; 32]> = (0..page.u32()).map(|_| page.array()).collect();
    let used: Vec<(u32, u32)> = (0..page.u32()).map(|_| (page.u32(), page.u32())).collect();
    for _ in 0..page.u32() {
        let name_len = page.u16();
        let name = String::from_utf8(page.take(name_len.into()).to_vec()).unwrap();
        let meta_len = page.u32() as usize;
        assert_eq!(page.take(meta_len), format!("mode of {name}").as_bytes());
        let size = page.u64();
        let mut content = Vec::new();
        for _ in 0..page.u32() {
            match page.u8() {
                0 => {
                    let len = page.u64();
                    content.resize(content.len() + usize::try_from(len).unwrap(), 0);
                }
                1 => {
                    let (table, index) = used[page.u32() as usize];
                    let frames = &tables[&named[table as usize]][index as usize];
                    let (first, count) = (page.u32() as usize, page.u32() as usize);
                    for frame in &frames[first..first + count] {
                        content.extend(packs.open(frame, 1));
                    }
                }
                tag => panic!("unknown content {tag}"),
            }
        }
        assert_eq!(content.len() as u64, size);
        files.insert(name, content);
    }
    page.end();
}

/// What `contents.json` says: for each backup its files, as the hash of their content.
fn expected(golden: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(golden.join("contents.json")).unwrap()).unwrap()
}

#[test]
fn the_first_golden_repository_is_read_by_the_chapter_alone() {
    backups_are_read(&golden("v1"));
}

#[test]
fn the_golden_repository_with_wal_is_read_by_the_chapter_alone() {
    let golden = golden("v2");
    let keys = backups_are_read(&golden);
    wal::is_read(&keys, &log(&keys), &expected(&golden)["wal"]);
}

/// Opens a golden repository with each of its secrets, and reads all its backups.
fn backups_are_read(golden: &Path) -> keys::Keys {
    let secrets = keys::Secrets::read(golden);
    let mut opened: Vec<keys::Keys> = Vec::new();
    for secret in secrets.all() {
        opened.push(keys::open(&golden.join("repository"), &secret));
    }
    assert!(opened.windows(2).all(|pair| pair[0] == pair[1]), "every secret gives the same keys");
    let keys = &opened[0];
    let packs = Packs { keys };
    let commits: Vec<_> = log(keys).into_iter().filter(|record| record["body"]["kind"] == "commit").collect();
    let expected = expected(golden);
    assert_eq!(commits.len(), expected["backups"].as_array().unwrap().len());
    for (commit, expected) in commits.iter().zip(expected["backups"].as_array().unwrap()) {
        let files = restore(&packs, &commit["body"]["manifest"]);
        let hashes: BTreeMap<_, _> =
            files.iter().map(|(name, content)| (name.clone(), blake3::hash(content).to_hex().to_string())).collect();
        assert_eq!(serde_json::to_value(hashes).unwrap(), expected["files"]);
        // And every pack that the commit brought says by itself what it holds.
        for fresh in commit["body"]["fresh"].as_array().unwrap() {
            packs.check_whole(fresh[0].as_str().unwrap(), fresh[1].as_u64().unwrap());
        }
    }
    opened.swap_remove(0)
}
