//! A record that was removed from the middle of the log: nobody reads an old state as the newest, and nobody appends in the hole.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

#[path = "log_model/seal.rs"]
mod seal;

use std::sync::Arc;

use jiff::Timestamp;
use repository::{
    RepositoryId, SlotId,
    log::{Clock, LOOK_AHEAD, Log, LogError, TipMemory, record_name},
    store::{FaultyStore, MemoryStore, Store},
};
use serde_json::{Value, json};

use seal::OpenSeal;

fn clock() -> Clock {
    Arc::new(|| Timestamp::from_second(100).unwrap())
}

fn open(store: Arc<dyn Store>, memory: Option<TipMemory>) -> Result<Log, LogError> {
    Log::open(store, Arc::new(OpenSeal), clock(), memory)
}

/// A log of `records` records.
fn log_of(records: u64) -> MemoryStore {
    let store = MemoryStore::new();
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let mut log = Log::create(shared, Arc::new(OpenSeal), clock(), None, RepositoryId([7; 16]), Value::Null).unwrap();
    for n in 1..records {
        log.key_slot(SlotId([1; 16]), Some(&json!(n))).unwrap();
    }
    assert_eq!(log.state().next(), records);
    store
}

fn without(whole: &MemoryStore, missing: std::ops::Range<u64>) -> MemoryStore {
    let store = MemoryStore::new();
    whole.snapshot().iter().for_each(|(name, bytes)| store.tamper(name, bytes));
    missing.for_each(|n| store.delete(&record_name(n)).unwrap());
    store
}

#[test]
fn every_hole_of_one_record_is_seen() {
    for records in [2, 3, 9, 40, 100] {
        let whole = log_of(records);
        for n in 0..records - 1 {
            let store = without(&whole, n..n + 1);
            let error = open(Arc::new(store.clone()), None).unwrap_err();
            assert!(matches!(error, LogError::Hole { n: found } if found == n), "{n} of {records}: {error}");
            assert!(error.to_string().contains(&record_name(n).to_string()), "{error}");
            // Nor does a new log begin where the first record is missing.
            let (id, shared) = (RepositoryId([8; 16]), Arc::new(store));
            let made = Log::create(shared, Arc::new(OpenSeal), clock(), None, id, Value::Null);
            assert!(matches!(made, Err(LogError::Hole { n: 0 } | LogError::Occupied { .. })));
        }
    }
}

#[test]
fn long_holes_are_seen_where_as_much_lies_behind() {
    let whole = log_of(100);
    for len in 1..48 {
        for behind in [1, 2, 3, len, len + 1] {
            let first = 100 - len - behind;
            if len > 4 && behind < len {
                continue;
            }
            let error = open(Arc::new(without(&whole, first..first + len)), None).unwrap_err();
            assert!(matches!(error, LogError::Hole { n } if n == first), "{len} missing, {behind} behind: {error}");
        }
    }
}

#[test]
fn looking_costs_a_fixed_number_of_requests() {
    for records in [1, 2, 30, 120] {
        let store = log_of(records);
        let counting = Arc::new(FaultyStore::new(store, []));
        open(counting.clone(), None).unwrap();
        // To find the newest: doubled steps, then halved ones. To read: all records, and the one that is missing.
        let bits = u64::from(records.ilog2());
        let most = (2 * bits + 3) + (records + 1) + LOOK_AHEAD.len() as u64;
        let least = records + 1 + LOOK_AHEAD.len() as u64;
        assert!((least..=most).contains(&counting.operations()), "{} for {records}", counting.operations());
        // With a memory, the newest is found at once; reading begins at a checkpoint, of which there is none here.
        let directory = tempfile::tempdir().unwrap();
        let memory = || Some(TipMemory::new(directory.path().join("tip")));
        open(counting.clone(), memory()).unwrap();
        let before = counting.operations();
        open(counting.clone(), memory()).unwrap();
        assert_eq!(counting.operations() - before, 3 + (records + 1) + LOOK_AHEAD.len() as u64);
        // Reading on costs what it did: one request where there is nothing new.
        let mut log = open(counting.clone(), None).unwrap();
        let before = counting.operations();
        log.refresh().unwrap();
        assert_eq!(counting.operations() - before, 1);
    }
}

/// Others append while somebody opens: no hole is seen where there is none.
#[test]
fn writers_meanwhile_make_no_hole() {
    let store = log_of(3);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut log = open(Arc::new(store.clone()), None).unwrap();
            for n in 1000..1200 {
                log.key_slot(SlotId([1; 16]), Some(&json!(n))).unwrap();
            }
        });
        let mut opened = 0;
        while !writer.is_finished() || opened < 5 {
            open(Arc::new(store.clone()), None).unwrap();
            opened += 1;
        }
    });
}
