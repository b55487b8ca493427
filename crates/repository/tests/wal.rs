//! WAL in the repository: both roads at once, tails, gaps, and a fault at every operation of the store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::sync::Arc;

use repository::{
    Repository, WalExpire,
    store::{Fault, FaultyStore, LocalStore, MemoryStore, Store},
    wal::{Reach, Segment, Stored, Wal, WalError, WalPruned},
};
use support::*;

/// Small segments: what counts is how many there are.
const SIZE: u64 = 256;
const STREAM: &[u8] = b"7301924918273645021";

fn wal_of(store: &Arc<dyn Store>) -> Wal {
    open(store).wal(STREAM, SIZE).unwrap()
}

fn new_wal() -> (Arc<dyn Store>, Wal) {
    let store = memory();
    let wal = create(&store).wal(STREAM, SIZE).unwrap();
    (store, wal)
}

/// What a server writes.
fn segment(line: u32, number: u64) -> Vec<u8> {
    noise(u64::from(line) << 32 | number, 256)
}

fn put_all(wal: &Wal, segments: impl IntoIterator<Item = u64>) {
    for number in segments {
        wal.put_segment(1, number, &segment(1, number)).unwrap();
    }
}

/// Lets WAL expire, whatever the retention thinks, and removes it.
fn prune(store: &Arc<dyn Store>, line: u32, first: u64) -> WalPruned {
    let repository = open(store);
    let stream = String::from_utf8(STREAM.to_vec()).unwrap();
    let expire = |state: &repository::log::State| {
        let expire = WalExpire { stream: stream.clone(), lines: vec![(line, first)], cut: Vec::new() };
        Ok((state.wal_floor(&stream, line) < first).then_some(expire))
    };
    repository.with_log(|log| log.expire_wal(expire)).unwrap();
    repository.remove_expired_wal().unwrap()
}

fn whole(number: u64) -> Reach {
    Reach { segment: number, bytes: 0, beyond: None }
}

#[test]
fn what_is_put_comes_back_and_may_be_put_again() {
    let (store, wal) = new_wal();
    assert_eq!(wal.get_segment(1, 5).unwrap(), Segment::Absent);
    assert_eq!(wal.put_segment(1, 5, &segment(1, 5)).unwrap(), Stored::Now);
    // The other road, another process, a push that is repeated.
    for again in [&wal, &wal_of(&store)] {
        assert_eq!(again.put_segment(1, 5, &segment(1, 5)).unwrap(), Stored::Before);
        assert_eq!(again.get_segment(1, 5).unwrap(), Segment::Whole(segment(1, 5)));
    }
    let error = wal.put_segment(1, 5, &segment(2, 5)).unwrap_err();
    assert!(matches!(error, WalError::Differs { .. }) && error.to_string().contains("\n  hint: "), "{error}");
    assert_eq!(wal.get_segment(1, 5).unwrap(), Segment::Whole(segment(1, 5)), "nothing was overwritten");
    // Another line and another stream are others.
    assert_eq!(wal.put_segment(2, 5, &segment(2, 5)).unwrap(), Stored::Now);
    let other = open(&store).wal(b"another cluster", SIZE).unwrap();
    assert_eq!(other.get_segment(1, 5).unwrap(), Segment::Absent);
    for name in objects(&store).keys() {
        assert!(!name.contains("7301924918273645021"), "{name}");
    }
    assert!(matches!(wal.put_segment(1, 6, &[0; 255]), Err(WalError::Size { .. })));
    assert!(matches!(open(&store).wal(STREAM, 1 << 30), Err(WalError::Size { .. })));
}

#[test]
fn large_segments_come_back_from_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(directory.path()).unwrap());
    let wal = create(&store).wal(STREAM, 16 << 20).unwrap();
    let mut bytes = noise(1, 3 << 20);
    bytes.resize(16 << 20, 0);
    let mut tail = wal.tail(1, 0).unwrap();
    assert_eq!(tail.flush(&bytes[..1 << 20]).unwrap(), 1 << 20);
    assert_eq!(tail.flush(&bytes[..3 << 20]).unwrap(), 3 << 20);
    assert_eq!(wal.get_segment(1, 0).unwrap(), Segment::Beginning(bytes[..3 << 20].to_vec()));
    tail.finish(&bytes).unwrap();
    assert_eq!(wal.put_segment(1, 0, &bytes).unwrap(), Stored::Before);
    assert_eq!(wal.get_segment(1, 0).unwrap(), Segment::Whole(bytes));
    let wal_objects = objects(&store).keys().filter(|name| name.starts_with("wal/")).count();
    assert_eq!(wal_objects, 1, "its chunks are gone");
}

#[test]
fn a_tail_goes_on_where_a_killed_receiver_left_it() {
    let (store, wal) = new_wal();
    let bytes = segment(1, 3);
    let mut tail = wal.tail(1, 3).unwrap();
    let before = objects(&store).len();
    assert_eq!(tail.flush(&[]).unwrap(), 0);
    for end in [1, 1, 50, 50, 90] {
        assert_eq!(tail.flush(&bytes[..end]).unwrap(), end as u64);
    }
    assert_eq!(objects(&store).len(), before + 3, "nothing new, no chunk");
    drop(tail);
    // It begins at the segment's beginning again, and is behind for a while.
    let again = wal_of(&store);
    let mut tail = again.tail(1, 3).unwrap();
    assert_eq!(tail.flush(&bytes[..20]).unwrap(), 20);
    assert_eq!(tail.flush(&bytes[..120]).unwrap(), 120);
    assert_eq!(wal.get_segment(1, 3).unwrap(), Segment::Beginning(bytes[..120].to_vec()));
    assert_eq!(wal.reach(1, 3).unwrap(), Reach { segment: 3, bytes: 120, beyond: None });
    // What differs from what was acknowledged is no continuation.
    let mut forked = bytes.clone();
    forked[100] ^= 1;
    let mut other = again.tail(1, 3).unwrap();
    assert_eq!(other.flush(&forked[..100]).unwrap(), 100);
    assert!(matches!(other.flush(&forked[..130]), Err(WalError::Diverged { line: 1, segment: 3, before: 120 })));
}

#[test]
fn two_receivers_share_one_row_of_chunks() {
    let (store, one) = new_wal();
    let two = wal_of(&store);
    let bytes = segment(1, 0);
    let (mut first, mut second) = (one.tail(1, 0).unwrap(), two.tail(1, 0).unwrap());
    assert_eq!(first.flush(&bytes[..40]).unwrap(), 40);
    // Behind, level, and in front of what the other stored.
    assert_eq!(second.flush(&bytes[..30]).unwrap(), 30);
    assert_eq!(second.flush(&bytes[..40]).unwrap(), 40);
    assert_eq!(second.flush(&bytes[..60]).unwrap(), 60);
    assert_eq!(first.flush(&bytes[..60]).unwrap(), 60);
    assert_eq!(first.flush(&bytes[..99]).unwrap(), 99);
    assert_eq!(two.get_segment(1, 0).unwrap(), Segment::Beginning(bytes[..99].to_vec()));
    // One that received something else is stopped, by whichever flush.
    let mut forked = bytes.clone();
    forked[98] ^= 1;
    assert!(matches!(second.flush(&forked[..110]), Err(WalError::Diverged { .. })));
    // The archive command completes the segment meanwhile.
    two.put_segment(1, 0, &bytes).unwrap();
    assert_eq!(first.flush(&bytes[..120]).unwrap(), 120);
    assert_eq!(first.finish(&bytes).unwrap(), Stored::Before);
    let mut late = one.tail(1, 0).unwrap();
    assert_eq!(late.flush(&bytes).unwrap(), SIZE);
    assert!(matches!(one.tail(1, 0).unwrap().flush(&forked), Err(WalError::Diverged { .. })));
}

#[test]
fn absent_is_what_has_nothing_behind_it() {
    let (_store, wal) = new_wal();
    put_all(&wal, [10, 11, 13, 40]);
    assert_eq!(wal.get_segment(1, 41).unwrap(), Segment::Absent);
    assert_eq!(wal.get_segment(2, 12).unwrap(), Segment::Absent, "of another line");
    for (missing, later) in [(12, 13), (39, 40), (9, 10), (24, 40)] {
        match wal.get_segment(1, missing) {
            Err(WalError::Gap { segment, later: found, .. }) => assert_eq!((segment, found), (missing, later)),
            other => panic!("{other:?}"),
        }
    }
    // Incomplete, and something behind it: the first byte of the next segment is enough.
    wal.tail(1, 41).unwrap().flush(&segment(1, 41)[..100]).unwrap();
    assert!(matches!(wal.get_segment(1, 41).unwrap(), Segment::Beginning(bytes) if bytes.len() == 100));
    wal.tail(1, 42).unwrap().flush(&segment(1, 42)[..1]).unwrap();
    assert!(matches!(wal.get_segment(1, 41), Err(WalError::Gap { later: 42, .. })));
    assert_eq!(wal.reach(1, 10).unwrap(), Reach { segment: 12, bytes: 0, beyond: Some(13) });
    assert_eq!(wal.reach(1, 40).unwrap(), Reach { segment: 41, bytes: 100, beyond: Some(42) });
    // An error of the store is never absence.
    let failing = FaultyStore::new(MemoryStore::new(), []);
    let failing: Arc<FaultyStore<MemoryStore>> = Arc::new(failing);
    let as_store: Arc<dyn Store> = failing.clone();
    let wal = create(&as_store).wal(STREAM, SIZE).unwrap();
    for ahead in 1..8 {
        failing.plan(ahead, Fault::Fail(repository::store::StoreErrorKind::Unavailable));
        assert!(wal.get_segment(1, 1).unwrap_err().is_passing());
    }
}

#[test]
fn histories_are_put_once() {
    let (_store, wal) = new_wal();
    assert_eq!(wal.get_history(2).unwrap(), None);
    assert_eq!(wal.put_history(2, b"1\t0/3000000\tfirst clone\n").unwrap(), Stored::Now);
    assert_eq!(wal.put_history(2, b"1\t0/3000000\tfirst clone\n").unwrap(), Stored::Before);
    assert!(matches!(wal.put_history(2, b"1\t0/4000000\tsecond clone\n"), Err(WalError::Differs { .. })));
    assert_eq!(wal.get_history(2).unwrap().unwrap(), b"1\t0/3000000\tfirst clone\n");
    // A partial segment has a name of its own, and may differ from the whole one.
    wal.put_segment(1, 3, &segment(1, 3)).unwrap();
    assert_eq!(wal.put_companion(1, 3, "partial", &segment(2, 3)).unwrap(), Stored::Now);
    assert_eq!(wal.get_companion(1, 3, "partial").unwrap(), Some(segment(2, 3)));
    assert_eq!(wal.get_companion(1, 3, "00000028.backup").unwrap(), None);
    for bad in ["", "t", ".x", "../x", "A", "a/b"] {
        assert!(matches!(wal.put_companion(1, 3, bad, b"x"), Err(WalError::Companion { .. })), "{bad}");
    }
    assert_eq!(wal.put_map(1, 0, 1, b"map").unwrap(), Stored::Now);
    assert_eq!(wal.get_map(1, 0, 1).unwrap().unwrap(), b"map");
}

#[test]
fn the_end_is_found_without_looking_at_everything() {
    let calm = memory();
    drop(create(&calm));
    let counting = Arc::new(FaultyStore::new(calm, []));
    let store: Arc<dyn Store> = counting.clone();
    let wal = wal_of(&store);
    // A line that begins in the middle of a range, as after the first backup.
    put_all(&wal, 20..64 * 40 + 17);
    for from in [20, 63, 64, 100, 64 * 39, 64 * 40 + 3, 64 * 40 + 17] {
        let before = counting.operations();
        assert_eq!(wal_of(&store).reach(1, from).unwrap(), whole(64 * 40 + 17), "from {from}");
        let requests = counting.operations() - before;
        // Opening the repository, the indexes by doubled steps, up to 63 segments, and a look ahead.
        assert!(requests < 130, "{requests} from {from}");
    }
    assert_eq!(wal.reach(1, 19).unwrap(), Reach { segment: 19, bytes: 0, beyond: Some(20) });
    assert_eq!(wal.reach(1, 5000).unwrap(), whole(5000));
}

#[test]
fn gaps_are_seen_through_indexes_and_close_when_the_segment_comes() {
    let (store, wal) = new_wal();
    put_all(&wal, (0..300).filter(|n| ![70, 130].contains(n)));
    for reader in [&wal, &wal_of(&store)] {
        assert_eq!(reader.reach(1, 0).unwrap(), Reach { segment: 70, bytes: 0, beyond: Some(71) });
        assert_eq!(reader.reach(1, 71).unwrap(), Reach { segment: 130, bytes: 0, beyond: Some(131) });
        assert_eq!(reader.reach(1, 131).unwrap(), whole(300));
    }
    put_all(&wal, [130]);
    assert_eq!(wal_of(&store).reach(1, 71).unwrap(), whole(300));
    put_all(&wal, [70]);
    assert_eq!(wal_of(&store).reach(1, 0).unwrap(), whole(300));
    // In any order, as a parallel push completes them.
    let (store, wal) = new_wal();
    put_all(&wal, (0..200).map(|n| n * 77 % 200));
    assert_eq!(wal_of(&store).reach(1, 0).unwrap(), whole(200));
}

#[test]
fn what_is_older_goes_and_nothing_else() {
    let (store, wal) = new_wal();
    put_all(&wal, 0..200);
    wal.put_segment(2, 3, &segment(2, 3)).unwrap();
    wal.put_history(2, b"history").unwrap();
    wal.put_companion(1, 5, "partial", b"x").unwrap();
    let mut tail = wal.tail(1, 7).unwrap();
    tail.flush(&segment(1, 7)[..9]).unwrap();
    drop(tail);
    let mut tail = wal.tail(1, 200).unwrap();
    tail.flush(&segment(1, 200)[..9]).unwrap();
    // A chunk that a killed receiver left of a segment that is whole.
    let strange = |n: u64| format!("/{:016x}/{n:016x}.t/00000000", n / 64);
    let name = objects(&store).keys().find(|name| name.ends_with(&strange(200))).unwrap().clone();
    store.put_if_absent(&name.replace(&strange(200), &strange(150)).parse().unwrap(), b"left").unwrap();

    let pruned = prune(&store, 1, 130);
    assert!(pruned.objects > 130 + 2 + 1, "{pruned:?}");
    assert_eq!(prune(&store, 1, 130), WalPruned::default(), "once");
    assert_eq!(prune(&store, 1, 64), WalPruned::default(), "never back");
    let reader = wal_of(&store);
    assert_eq!(reader.get_segment(1, 130).unwrap(), Segment::Whole(segment(1, 130)));
    assert_eq!(reader.reach(1, 130).unwrap(), Reach { segment: 200, bytes: 9, beyond: None });
    assert_eq!(reader.get_segment(2, 3).unwrap(), Segment::Whole(segment(2, 3)));
    assert_eq!(reader.get_history(2).unwrap().unwrap(), b"history");
    assert!(!objects(&store).keys().any(|name| name.contains(&strange(150)) || name.ends_with("partial")));
}

#[test]
fn keys_may_be_rotated_and_a_check_knows_wal() {
    let store = memory();
    let repository = create(&store);
    let id = backup(&repository, &files(1, 10));
    let wal = repository.wal(STREAM, SIZE).unwrap();
    put_all(&wal, 0..3);
    repository.keys().rotate(&[secret()]).unwrap();
    put_all(&wal, 3..6);
    wal.tail(1, 6).unwrap().flush(&segment(1, 6)[..40]).unwrap();
    let reader = open(&store).wal(STREAM, SIZE).unwrap();
    for n in 0..6 {
        assert_eq!(reader.get_segment(1, n).unwrap(), Segment::Whole(segment(1, n)));
    }
    assert_eq!(reader.put_segment(1, 0, &segment(1, 0)).unwrap(), Stored::Before, "identities outlive a rotation");
    let report = open(&store).check(true, &|_| {}).unwrap();
    assert!(report.is_clean() && report.restorable == [id], "{report:?}");
    assert_eq!(report.wal_objects, 7);

    // Flipped, cut, moved to another name.
    let names: Vec<_> = objects(&store).into_keys().filter(|name| name.starts_with("wal/")).collect();
    for (at, name) in names.iter().enumerate() {
        let mut damaged = objects(&store);
        match at % 3 {
            0 => damaged.get_mut(name).unwrap()[120] ^= 1,
            1 => damaged.get_mut(name).unwrap().truncate(110),
            _ => drop(damaged.insert(name.clone(), objects(&store)[&names[0]].clone())),
        }
        let report = Repository::open(store_of(&damaged), &options(), &secret()).unwrap().check(true, &|_| {}).unwrap();
        let [finding] = &report.findings[..] else { panic!("{name}: {report:?}") };
        assert_eq!((&finding.object, finding.fault), (name, repository::Fault::Damaged));
        let wal = open(&store_of(&damaged)).wal(STREAM, SIZE).unwrap();
        let number = u64::try_from(at).unwrap();
        assert!(matches!(wal.get_segment(1, number), Err(WalError::Damaged { .. })), "{name}");
    }
}

/// A receiver: chunks, whole segments, and again from the beginning of the last segment after a kill. `heard` is what it acknowledged.
fn receive(store: &Arc<dyn Store>, heard: &mut (u64, u64)) -> Result<(), WalError> {
    let Ok(repository) = Repository::open(store.clone(), &options(), &secret()) else { return Ok(()) };
    let wal = repository.wal(STREAM, SIZE)?;
    for number in heard.0.max(61)..67 {
        let bytes = segment(1, number);
        let mut tail = wal.tail(1, number)?;
        for end in [10, 64, 100, 101, 102, 103, 104, 105, 200, 256] {
            let durable = tail.flush(&bytes[..end])?;
            assert!(durable >= end as u64);
            *heard = (*heard).max((number, end as u64));
        }
        tail.finish(&bytes)?;
        *heard = (number + 1, 0);
    }
    wal.put_history(2, b"history")?;
    Ok(())
}

/// All that was acknowledged is there, and is what the server wrote.
fn has(store: &Arc<dyn Store>, (segments, bytes): (u64, u64), what: &str) {
    let wal = wal_of(store);
    let reach = wal.reach(1, 61).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!((reach.segment, reach.bytes) >= (segments.max(61), bytes), "{what}: {reach:?} of {segments}, {bytes}");
    for number in 61..=reach.segment {
        let expected = segment(1, number);
        match wal.get_segment(1, number).unwrap_or_else(|error| panic!("{what}: {error}")) {
            Segment::Whole(found) => assert_eq!(found, expected, "{what}"),
            Segment::Beginning(found) => assert_eq!(found, expected[..found.len()], "{what}"),
            Segment::Absent => assert_eq!((number, reach.bytes), (reach.segment, 0), "{what}"),
        }
    }
}

fn at_every_operation(faults: &[Fault]) {
    let made = memory();
    drop(create(&made));
    let made = objects(&made);
    let counting = Arc::new(FaultyStore::new(store_of(&made), []));
    receive(&(counting.clone() as Arc<dyn Store>), &mut (0, 0)).unwrap();
    let operations = counting.operations();
    assert!(operations > 100, "{operations}");
    for fault in faults {
        for k in 1..=operations {
            let what = format!("{fault:?} at operation {k}");
            let inner = store_of(&made);
            let faulty = Arc::new(FaultyStore::new(inner.clone(), [(k, *fault)]));
            let mut heard = (0, 0);
            let _seen = receive(&(faulty.clone() as Arc<dyn Store>), &mut heard);
            has(&inner, heard, &what);
            // The next life, and beside it what hung in the network, and the archive command.
            faulty.deliver().unwrap();
            let pushed = wal_of(&inner);
            pushed.put_segment(1, 61, &segment(1, 61)).unwrap_or_else(|error| panic!("{what}: {error}"));
            receive(&inner, &mut heard).unwrap_or_else(|error| panic!("{what}: {error}"));
            has(&inner, (67, 0), &what);
            let wal = wal_of(&inner);
            assert_eq!(wal.reach(1, 61).unwrap(), whole(67), "{what}");
            assert_eq!(wal.get_history(2).unwrap().unwrap(), b"history", "{what}");
            let left: Vec<_> = objects(&inner).into_keys().filter(|name| name.contains(".t/")).collect();
            prune(&inner, 1, 61);
            let stays: Vec<_> = objects(&inner).into_keys().filter(|name| name.contains(".t/")).collect();
            assert!(stays.is_empty(), "{what}: {left:?}");
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    at_every_operation(&[Fault::CrashBefore, Fault::CrashAfter]);
}

#[test]
fn a_lost_or_late_reply_loses_nothing_that_was_acknowledged() {
    at_every_operation(&[Fault::LoseReply, Fault::Limbo]);
}

/// Two receivers and two archive commands at once, in threads.
#[test]
fn all_roads_at_once_end_the_same() {
    let (store, _) = new_wal();
    std::thread::scope(|scope| {
        for receiver in 0..2_usize {
            let wal = wal_of(&store);
            scope.spawn(move || {
                for number in 0..140 {
                    let bytes = segment(1, number);
                    let mut tail = wal.tail(1, number).unwrap();
                    for end in (10 + receiver * 7..256).step_by(31 + receiver) {
                        assert!(tail.flush(&bytes[..end]).unwrap() >= end as u64);
                    }
                    tail.finish(&bytes).unwrap();
                }
            });
        }
        for pusher in 0..2_u64 {
            let wal = wal_of(&store);
            scope.spawn(move || {
                for number in (pusher..140).step_by(2) {
                    wal.put_segment(1, number, &segment(1, number)).unwrap();
                }
            });
        }
    });
    let wal = wal_of(&store);
    assert_eq!(wal.reach(1, 0).unwrap(), whole(140));
    prune(&store, 1, 1);
    assert!(!objects(&store).keys().any(|name| name.contains(".t/")));
    assert!(open(&store).check(true, &|_| {}).unwrap().is_clean());
}

/// Readers beside a receiver: what was acknowledged before they asked is in what they get, also while chunks give way to the segment.
#[test]
fn readers_never_see_less_than_was_acknowledged() {
    use std::sync::atomic::{AtomicU64, Ordering};

    let (store, _) = new_wal();
    let acknowledged = AtomicU64::new(0);
    const SEGMENTS: u64 = 150;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let wal = wal_of(&store);
            for number in 0..SEGMENTS {
                let bytes = segment(1, number);
                let mut tail = wal.tail(1, number).unwrap();
                for end in (1..=SIZE).step_by(17) {
                    tail.flush(&bytes[..usize::try_from(end).unwrap()]).unwrap();
                    acknowledged.store(number * SIZE + end, Ordering::SeqCst);
                }
                tail.finish(&bytes).unwrap();
                acknowledged.store((number + 1) * SIZE, Ordering::SeqCst);
            }
        });
        for _ in 0..2 {
            let wal = wal_of(&store);
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                loop {
                    let before = acknowledged.load(Ordering::SeqCst);
                    if before == SEGMENTS * SIZE {
                        break;
                    }
                    let (number, least) = (before / SIZE, before % SIZE);
                    match wal.get_segment(1, number) {
                        Ok(Segment::Whole(bytes)) => assert_eq!(bytes, segment(1, number)),
                        Ok(Segment::Beginning(bytes)) => {
                            assert!(bytes.len() as u64 >= least, "{} of {least} in {number}", bytes.len());
                            assert_eq!(bytes, segment(1, number)[..bytes.len()]);
                        }
                        Ok(Segment::Absent) => assert_eq!(least, 0, "in {number}"),
                        Err(error) => panic!("segment {number}: {error}"),
                    }
                }
            });
        }
    });
}

#[test]
fn chunks_go_also_when_their_remover_was_killed() {
    let made = memory();
    drop(create(&made));
    let made = objects(&made);
    let bytes = segment(1, 0);
    for k in 1..90 {
        let inner = store_of(&made);
        let wal = wal_of(&inner);
        let mut tail = wal.tail(1, 0).unwrap();
        for end in [10, 20, 30, 40, 50, 60, 70, 80, 90] {
            tail.flush(&bytes[..end]).unwrap();
        }
        drop(tail);
        let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(inner.clone(), [(k, Fault::CrashAfter)]));
        if let Ok(repository) = Repository::open(faulty, &options(), &secret()) {
            let wal = repository.wal(STREAM, SIZE).unwrap();
            let _killed = wal.tail(1, 0).and_then(|tail| tail.finish(&bytes));
        }
        // Whoever finishes it again finds what is left by probing: what is there begins at the first.
        wal.tail(1, 0).unwrap().finish(&bytes).unwrap();
        let left: Vec<_> = objects(&inner).into_keys().filter(|name| name.contains(".t/")).collect();
        assert!(left.is_empty(), "killed at {k}: {left:?}");
    }
}

#[test]
fn an_index_waits_for_what_is_under_way() {
    let (store, wal) = new_wal();
    let indexes = || objects(&store).keys().filter(|name| name.ends_with("/index")).count();
    put_all(&wal, (0..128).filter(|n| ![70, 100].contains(n)));
    assert_eq!(indexes(), 1);
    put_all(&wal_of(&store), [100]);
    assert_eq!(indexes(), 1, "70 is under way");
    put_all(&wal, [70]);
    put_all(&wal, [128]);
    assert_eq!(indexes(), 2);
    assert_eq!(wal_of(&store).reach(1, 0).unwrap(), whole(129));
}

#[test]
fn segments_are_sealed_ahead_and_put_in_their_turn() {
    let (store, wal) = new_wal();
    let sealed: Vec<_> = (0..3).map(|number| wal.seal_segment(1, number, &segment(1, number)).unwrap()).collect();
    assert_eq!(wal.get_segment(1, 0).unwrap(), Segment::Absent, "nothing is stored before its turn");
    for (number, sealed) in sealed.iter().enumerate() {
        assert_eq!(wal.put_sealed(sealed).unwrap(), Stored::Now);
        assert_eq!(wal_of(&store).get_segment(1, number as u64).unwrap(), Segment::Whole(segment(1, number as u64)));
        assert_eq!(wal.put_sealed(sealed).unwrap(), Stored::Before, "the reply was lost");
    }
    // The other road was quicker, before it was sealed and after.
    let late = wal.seal_segment(1, 3, &segment(1, 3)).unwrap();
    wal_of(&store).put_segment(1, 3, &segment(1, 3)).unwrap();
    assert_eq!(wal.put_sealed(&late).unwrap(), Stored::Before);
    assert_eq!(wal.put_sealed(&wal.seal_segment(1, 3, &segment(1, 3)).unwrap()).unwrap(), Stored::Before);
    // Another one is there.
    assert!(matches!(wal.seal_segment(1, 3, &segment(2, 3)), Err(WalError::Differs { .. })));
    let forked = wal.seal_segment(1, 4, &segment(2, 4)).unwrap();
    wal_of(&store).put_segment(1, 4, &segment(1, 4)).unwrap();
    assert!(matches!(wal.put_sealed(&forked), Err(WalError::Differs { .. })));
    // Indexes are made as with the other way.
    for number in 5..64 {
        wal.put_sealed(&wal.seal_segment(1, number, &segment(1, number)).unwrap()).unwrap();
    }
    assert!(objects(&store).keys().any(|name| name.ends_with("/index")));
    assert_eq!(wal.reach(1, 0).unwrap(), whole(64));
}

#[test]
fn a_segment_that_is_all_in_chunks_is_whole() {
    let (store, wal) = new_wal();
    let bytes = segment(1, 0);
    let mut tail = wal.tail(1, 0).unwrap();
    assert_eq!(tail.flush(&bytes[..100]).unwrap(), 100);
    assert_eq!(tail.flush(&bytes).unwrap(), SIZE);
    // Killed before the whole took their place, and the next one stored what follows.
    for later in [false, true] {
        if later {
            put_all(&wal, [1, 2]);
        }
        assert_eq!(wal_of(&store).get_segment(1, 0).unwrap(), Segment::Whole(bytes.clone()));
        assert_eq!(wal_of(&store).reach(1, 0).unwrap(), whole(if later { 3 } else { 1 }));
    }
    wal.tail(1, 0).unwrap().finish(&bytes).unwrap();
    assert!(!objects(&store).keys().any(|name| name.contains(".t/")));
}
