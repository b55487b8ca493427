//! Keys along a line only become newer: who holds only old ones puts nothing at its end, and honest writers are never refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use repository::{
    seal::SealError,
    store::{FaultyStore, Store},
    wal::{Reach, Segment, Stored, Wal, WalError},
};
use support::*;

const SIZE: u64 = 256;
const STREAM: &[u8] = b"7301924918273645021";

fn wal_of(store: &Arc<dyn Store>) -> Wal {
    open(store).wal(STREAM, SIZE).unwrap()
}

fn segment(number: u64) -> Vec<u8> {
    noise(number, 256)
}

fn put(wal: &Wal, segments: impl IntoIterator<Item = u64>) {
    for number in segments {
        wal.put_segment(1, number, &segment(number)).unwrap();
    }
}

fn rotate(store: &Arc<dyn Store>) {
    open(store).keys().rotate(&[secret()]).unwrap();
}

/// The name of a segment of line 1, by the objects that there are.
fn named(objects: &BTreeMap<String, Vec<u8>>, number: u64) -> String {
    let end = format!("/00000001/{:016x}/{number:016x}", number / 64);
    objects.keys().find(|name| name.ends_with(&end)).unwrap().clone()
}

/// What somebody seals who has only the keys of the copy `before`: objects by name.
fn forge(before: &BTreeMap<String, Vec<u8>>, work: impl FnOnce(&Wal)) -> BTreeMap<String, Vec<u8>> {
    let store = store_of(before);
    work(&wal_of(&store));
    let mut all = objects(&store);
    all.retain(|name, _| !before.contains_key(name));
    all
}

fn plant(store: &Arc<dyn Store>, objects: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in objects {
        store.put_if_absent(&name.parse().unwrap(), bytes).unwrap();
    }
}

#[test]
fn a_rotation_in_mid_stream_changes_nothing_for_readers() {
    let calm = memory();
    drop(create(&calm));
    put(&wal_of(&calm), 0..100);
    rotate(&calm);
    let counting = Arc::new(FaultyStore::new(calm.clone(), []));
    let store: Arc<dyn Store> = counting.clone();
    put(&wal_of(&store), 100..140);
    rotate(&store);
    let wal = wal_of(&store);
    put(&wal, 140..150);
    let mut tail = wal.tail(1, 150).unwrap();
    tail.flush(&segment(150)[..40]).unwrap();
    rotate(&store);
    // The receiver began before the rotation, and goes on with its keys until it finds newer ones.
    tail.flush(&segment(150)[..90]).unwrap();
    let reader = wal_of(&store);
    assert_eq!(reader.reach(1, 0).unwrap(), Reach { segment: 150, bytes: 90, beyond: None });
    for number in (0..150).rev() {
        assert_eq!(wal_of(&calm).get_segment(1, number).unwrap(), Segment::Whole(segment(number)));
    }
    let before = counting.operations();
    for number in 0..150 {
        assert_eq!(reader.get_segment(1, number).unwrap(), Segment::Whole(segment(number)));
    }
    let requests = counting.operations() - before;
    assert!(requests < 150 + 10, "{requests}: whoever reads on knows the one before");
    assert_eq!(reader.get_segment(1, 150).unwrap(), Segment::Beginning(segment(150)[..90].to_vec()));
    let mut again = reader.tail(1, 150).unwrap();
    again.flush(&segment(150)[..100]).unwrap();
    // One chunk is of the newest keys now: the old receiver can't go on, and says why.
    let error = tail.flush(&segment(150)[..120]).unwrap_err();
    assert!(matches!(error, WalError::Seal(SealError::NewerEpoch { .. })), "{error}");
    assert_eq!(again.flush(&segment(150)).unwrap(), SIZE);
    assert_eq!(again.finish(&segment(150)).unwrap(), Stored::Now);
    let left: Vec<_> = objects(&store).into_keys().filter(|name| name.contains(".t/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn who_has_only_old_keys_puts_nothing_at_the_end() {
    let store = memory();
    drop(create(&store));
    put(&wal_of(&store), 0..100);
    let old = objects(&store);
    rotate(&store);
    // The first index after the rotation closes what was before.
    put(&wal_of(&store), 100..130);

    let forged = forge(&old, |wal| put(wal, 100..131));
    let planted = store_of(&objects(&store));
    plant(&planted, &forged);
    let reader = wal_of(&planted);
    assert_eq!(reader.get_segment(1, 129).unwrap(), Segment::Whole(segment(129)));
    let error = reader.get_segment(1, 130).unwrap_err();
    assert!(matches!(error, WalError::Epoch { epoch: 0, least: 1, .. }), "{error}");
    assert!(error.to_string().contains("\n  hint: "), "{error}");
    // Also where he leaves one out, or leaves chunks only.
    let planted = store_of(&objects(&store));
    let only = named(&forged, 130).replace("0000000082", "0000000085");
    let forged = forge(&old, |wal| put(wal, [133]));
    assert!(forged.contains_key(&only), "{only} of {:?}", forged.keys());
    plant(&planted, &forged);
    let error = wal_of(&planted).get_segment(1, 133).unwrap_err();
    assert!(matches!(error, WalError::Epoch { epoch: 0, least: 1, .. }), "the index says so: {error}");
    let planted = store_of(&objects(&store));
    let forged = forge(&old, |wal| assert_eq!(wal.tail(1, 130).unwrap().flush(&segment(130)[..9]).unwrap(), 9));
    plant(&planted, &forged);
    let error = wal_of(&planted).get_segment(1, 130).unwrap_err();
    assert!(matches!(error, WalError::Epoch { epoch: 0, least: 1, .. }), "{error}");
    // An index of his is not believed.
    let forged = forge(&old, |wal| put(wal, 100..193));
    let index: BTreeMap<_, _> = forged.into_iter().filter(|(name, _)| name.ends_with("02/index")).collect();
    assert_eq!(index.len(), 1);
    let planted = store_of(&objects(&store));
    plant(&planted, &index);
    assert_eq!(wal_of(&planted).reach(1, 0).unwrap(), Reach { segment: 130, bytes: 0, beyond: None });
}

#[test]
fn honest_writers_are_never_refused() {
    let store = memory();
    drop(create(&store));
    let long_lived = wal_of(&store);
    put(&long_lived, (0..90).filter(|number| ![50, 70, 71].contains(number)));
    rotate(&store);
    let renewed = wal_of(&store);
    // Gaps from before are filled after it, in any order.
    put(&renewed, [70, 50, 71]);
    put(&renewed, 90..95);
    // One whose keys are old finds out by the segment before, and stops with nothing done.
    let error = long_lived.put_segment(1, 95, &segment(95)).unwrap_err();
    assert!(matches!(error, WalError::Seal(SealError::NewerEpoch { .. })), "{error}");
    let error = long_lived.tail(1, 95).unwrap().flush(&segment(95)[..9]).unwrap_err();
    assert!(matches!(error, WalError::Seal(SealError::NewerEpoch { .. })), "{error}");
    put(&renewed, 95..200);
    rotate(&store);
    put(&wal_of(&store), 200..210);
    let reader = wal_of(&store);
    assert_eq!(reader.reach(1, 0).unwrap(), Reach { segment: 210, bytes: 0, beyond: None });
    for number in 0..210 {
        assert_eq!(wal_of(&store).get_segment(1, number).unwrap(), Segment::Whole(segment(number)), "{number}");
    }
    assert!(open(&store).check(true, &|_| {}).unwrap().is_clean());
}

#[test]
fn who_has_only_old_keys_makes_no_page_map_of_what_he_can_not_read() {
    let store = memory();
    drop(create(&store));
    put(&wal_of(&store), 0..100);
    wal_of(&store).put_map(1, 0, 1, b"honest").unwrap();
    let old = objects(&store);
    rotate(&store);
    put(&wal_of(&store), 100..129);
    let forged = forge(&old, |wal| {
        wal.put_map(1, 1, 1, b"nothing changed").unwrap();
        // Where the line begins behind the range.
        wal.put_map(2, 1, 1, b"nothing changed").unwrap();
    });
    assert_eq!(forged.len(), 2);
    plant(&store, &forged);
    wal_of(&store).put_segment(2, 128, &segment(128)).unwrap();
    let reader = wal_of(&store);
    assert_eq!(reader.get_map(1, 0, 1).unwrap().as_deref(), Some(&b"honest"[..]), "from before the rotation");
    assert_eq!(reader.get_map(1, 1, 1).unwrap(), None);
    assert_eq!(reader.get_map(2, 1, 1).unwrap(), None);
    assert!(matches!(reader.put_map(1, 1, 1, b"honest"), Err(WalError::Differs { .. })), "the name is taken");
    reader.put_map(1, 2, 1, b"honest").unwrap();
    assert_eq!(wal_of(&store).get_map(1, 2, 1).unwrap().as_deref(), Some(&b"honest"[..]));
}
