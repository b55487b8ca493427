//! WAL expires by the rules of the retention: what leads on from a backup that counts stays, whoever is killed where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use jiff::{Timestamp, tz::TimeZone};
use repository::{
    BackupId, Repository, RepositoryError, SessionInfo, WalStart,
    log::{
        LogError, Refusal,
        policy::{self, Keep},
    },
    store::{Fault, FaultyStore, MemoryStore, Store},
    wal::{Reach, Segment, Wal, WalPruned},
};
use serde_json::{Value, json};
use support::*;

const SIZE: u64 = 256;
const STREAM: &str = "7301924918273645021";
/// Only the newest two, and what is proven.
const KEEP: Keep = Keep { last: 2, daily: 0, weekly: 0, monthly: 0, yearly: 0, point_in_time: None };

fn wal_of(repository: &Repository) -> Wal {
    repository.wal(STREAM.as_bytes(), SIZE).unwrap()
}

fn segment(line: u32, number: u64) -> Vec<u8> {
    noise(u64::from(line) << 32 | number, 256)
}

fn put(wal: &Wal, line: u32, segments: impl IntoIterator<Item = u64>) {
    for number in segments {
        wal.put_segment(line, number, &segment(line, number)).unwrap();
    }
}

fn start(line: u32, segment: u64) -> WalStart {
    WalStart { stream: STREAM.to_owned(), line, segment, segment_bytes: SIZE }
}

fn commit(repository: &Repository, cluster: &str, wal: WalStart) -> Result<BackupId, RepositoryError> {
    let info = SessionInfo { cluster: cluster.to_owned(), take_over: false, info: Value::Null };
    let session = repository.begin(info)?;
    let result = session.commit_with_wal(&json!({}), Some(wal));
    if result.is_err() {
        session.abandon("refused").unwrap();
    }
    result
}

/// What `backup prune` does.
fn prune(repository: &Repository) -> Result<WalPruned, RepositoryError> {
    let (now, zone) = (Timestamp::now(), TimeZone::UTC);
    repository.refresh()?;
    let plan = repository.with_state(|state| policy::plan(state, "main", &KEEP, now, &zone)).unwrap();
    repository.expire_wal("main", &KEEP, now, &zone)?;
    let expired: Vec<_> = plan
        .expired
        .iter()
        .map(|(backup, why)| repository::log::Expired { backup: *backup, reason: why.as_str().to_owned() })
        .collect();
    if !expired.is_empty() {
        repository.expire(&expired)?;
    }
    repository.collect()?;
    repository.remove_expired_wal()
}

/// Three backups, the second proven, the third of a line that came from the first.
fn story(repository: &Repository) -> [BackupId; 3] {
    story_of(repository, 10..91, 70..150)
}

fn story_of(repository: &Repository, first: Range<u64>, second: Range<u64>) -> [BackupId; 3] {
    let wal = wal_of(repository);
    put(&wal, 1, first.clone());
    wal.put_companion(1, first.start + 5, "partial", b"half").unwrap();
    wal.put_history(2, b"1 at 70").unwrap();
    put(&wal, 2, second.clone());
    let all = [(1, first.start), (1, first.start + 10), (2, second.start + 5)]
        .map(|(line, first)| commit(repository, "main", start(line, first)).unwrap());
    repository.add_proof(all[1], true, &json!("good")).unwrap();
    all
}

#[test]
fn what_leads_on_from_a_backup_that_counts_stays() {
    let store = memory();
    let repository = create(&store);
    let [first, second, third] = story(&repository);
    let wal = wal_of(&repository);
    // The last proven one must not be cut off from the present, though the newest one would do.
    assert_eq!(prune(&repository).unwrap().objects, 10 + 1);
    let floors = |repository: &Repository| repository.with_state(|state| state.wal_floors(STREAM));
    assert_eq!(floors(&repository), [(1, 20)].into_iter().collect());
    assert_eq!(wal.reach(1, 20).unwrap(), Reach { segment: 91, bytes: 0, beyond: None });
    assert!(!repository.backups().iter().any(|backup| backup.id == first));
    assert_eq!(prune(&repository).unwrap(), WalPruned::default(), "once");

    // Proven: all before the newest one may go, and with it the way on from the second, which the rules keep.
    repository.add_proof(third, true, &json!("good")).unwrap();
    let hold = repository.hold(second, json!("a restore")).unwrap();
    prune(&repository).unwrap();
    assert_eq!(floors(&repository), [(1, 20)].into_iter().collect(), "it is read");
    drop(hold);
    let will = repository.expirable_wal("main", &KEEP, Timestamp::now(), &TimeZone::UTC).unwrap();
    assert_eq!((&will[0].lines, &will[0].cut), (&vec![(1, 91), (2, 75)], &vec![second]));
    assert!(prune(&repository).unwrap().objects > 70);
    let told = repository.backups();
    assert_eq!(
        told.iter().map(|backup| (backup.id, backup.wal_cut)).collect::<Vec<_>>(),
        [(second, true), (third, false)]
    );
    assert_eq!(told[1].wal, Some(start(2, 75)));
    assert_eq!(wal.reach(2, 75).unwrap(), Reach { segment: 150, bytes: 0, beyond: None });
    assert_eq!(wal.get_segment(1, 90).unwrap(), Segment::Absent);
    assert_eq!(wal.get_history(2).unwrap().unwrap(), b"1 at 70");
    let left: Vec<_> = wal.lines().unwrap().iter().map(|line| (line.line, line.first, line.end)).collect();
    assert_eq!(left, [(2, 75, 150)]);

    // Whoever began before and comes late: refused, and what a zombie pushes is garbage for the next prune.
    let error = commit(&repository, "main", start(2, 74)).unwrap_err();
    assert!(matches!(error, RepositoryError::Log(LogError::Refused(Refusal::WalExpired { floor: 75, .. }))), "{error}");
    put(&wal, 1, 60..63);
    assert_eq!(prune(&repository).unwrap().objects, 3);
    assert!(open(&store).check(true, &|_| {}).unwrap().is_clean());
}

#[test]
fn other_clusters_sessions_and_lines_keep_theirs() {
    let store = memory();
    let repository = create(&store);
    // A standby of the same system, under another name, is nobody's to cut.
    let standby = commit(&repository, "standby", start(1, 15)).unwrap();
    let [_, _, third] = story(&repository);
    repository.add_proof(third, true, &json!("good")).unwrap();
    prune(&repository).unwrap();
    let wal = wal_of(&repository);
    let spans = || wal.lines().unwrap().iter().map(|line| (line.line, line.first)).collect::<Vec<_>>();
    assert_eq!(spans(), [(1, 15), (2, 70)]);
    assert!(repository.backups().iter().any(|backup| backup.id == standby && !backup.wal_cut));
    // The newest line stays although no backup is of it or of one before it: a server writes it, and its first backup is being made.
    let store = memory();
    let repository = create(&store);
    let wal = wal_of(&repository);
    put(&wal, 1, 10..20);
    put(&wal, 2, 5..9);
    put(&wal, 4, 0..5);
    let newest = commit(&repository, "main", start(3, 18)).unwrap();
    repository.add_proof(newest, true, &json!("good")).unwrap();
    let session = repository.begin(SessionInfo { cluster: "other".to_owned(), take_over: false, info: Value::Null });
    assert_eq!(prune(&repository).unwrap().objects, 5, "of the fourth line, which may come from the third");
    session.unwrap().abandon("done").unwrap();
    put(&wal, 4, 18..20);
    assert_eq!(prune(&repository).unwrap().objects, 14, "of lines below the third");
    let left: Vec<_> = wal.lines().unwrap().iter().map(|line| (line.line, line.first, line.end)).collect();
    assert_eq!(left, [(4, 18, 20)]);
    // Nobody knows of another stream: it stays.
    let strange = repository.wal(b"another", SIZE).unwrap();
    put(&strange, 1, 0..3);
    prune(&repository).unwrap();
    assert_eq!(strange.lines().unwrap()[0].segments, 3);
}

#[test]
fn a_stream_that_was_left_goes_with_its_last_backup() {
    let store = memory();
    let repository = create(&store);
    story(&repository);
    // The cluster was made anew, and adopted.
    for segment in [3, 9] {
        let new = WalStart { stream: "2".to_owned(), line: 1, segment, segment_bytes: SIZE };
        let id = commit(&repository, "main", new).unwrap();
        repository.add_proof(id, true, &json!("good")).unwrap();
    }
    prune(&repository).unwrap();
    assert_eq!(repository.backups().len(), 2);
    assert!(wal_of(&repository).lines().unwrap().iter().all(|line| line.segments == 0));
}

/// What there is in the end.
fn outcome(store: &Arc<dyn Store>) -> impl PartialEq + std::fmt::Debug + use<> {
    let repository = open(store);
    let wal: Vec<_> = objects(store).into_keys().filter(|name| name.starts_with("wal/")).collect();
    let cut: Vec<_> = repository.backups().iter().map(|backup| (backup.wal.clone(), backup.wal_cut)).collect();
    (wal.len(), cut, repository.with_state(|state| state.wal_floors(STREAM)))
}

#[test]
fn killed_between_any_two_writes_the_next_run_completes() {
    let made = memory();
    let repository = create(&made);
    let [_, _, third] = story_of(&repository, 10..30, 25..35);
    repository.add_proof(third, true, &json!("good")).unwrap();
    drop(repository);
    let made = objects(&made);
    let calm = store_of(&made);
    let counting = Arc::new(FaultyStore::new(calm.clone(), []));
    prune(&open(&(counting.clone() as Arc<dyn Store>))).unwrap();
    let (operations, expected) = (counting.operations(), outcome(&calm));
    assert!(operations > 50, "{operations}");
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::LoseReply, Fault::Limbo] {
        for k in 1..=operations {
            let what = format!("{fault:?} at operation {k}");
            let inner = store_of(&made);
            let faulty = Arc::new(FaultyStore::new(inner.clone(), [(k, fault)]));
            if let Ok(repository) = Repository::open(faulty.clone(), &options(), &secret()) {
                let _killed = prune(&repository);
            }
            // At every moment: what leads on from a live backup that was not cut is there.
            let repository = open(&inner);
            let wal = wal_of(&repository);
            for backup in repository.backups().iter().filter(|backup| !backup.wal_cut) {
                let WalStart { line, segment, .. } = backup.wal.clone().unwrap();
                let end = if line == 1 { 30 } else { 35 };
                assert_eq!(wal.reach(line, segment).unwrap().segment, end, "{what}");
            }
            faulty.deliver().unwrap();
            prune(&repository).unwrap_or_else(|error| panic!("{what}: {error}"));
            prune(&repository).unwrap();
            assert_eq!(outcome(&inner), expected, "{what}");
        }
    }
}

#[test]
fn hundreds_of_lines_cost_a_listing_not_a_request_each() {
    const LINES: u32 = 300;
    let calm: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let counting = Arc::new(FaultyStore::new(calm.clone(), []));
    let store: Arc<dyn Store> = counting.clone();
    let repository = create(&store);
    let wal = wal_of(&repository);
    // Promoted again and again; each third history never came.
    for line in 1..=LINES {
        let first = u64::from(line) * 2;
        put(&wal, line, first..first + 3);
        if line % 3 != 0 {
            wal.put_history(line + 1, format!("{line}").as_bytes()).unwrap();
        }
    }
    let newest = commit(&repository, "main", start(LINES - 10, u64::from(LINES - 10) * 2 + 1)).unwrap();
    repository.add_proof(newest, true, &json!("good")).unwrap();
    let asked = |work: &dyn Fn()| {
        let before = counting.operations();
        work();
        counting.operations() - before
    };
    let lines = asked(&|| assert_eq!(wal.lines().unwrap().len(), LINES as usize));
    assert_eq!(lines, 1, "one listing");
    let mut removed = 3 * u64::from(LINES);
    let requests = asked(&|| prune(&repository).map(drop).unwrap());
    for line in wal.lines().unwrap() {
        removed -= line.segments;
        if line.line < LINES - 10 {
            assert_eq!(line.segments, 0);
        }
    }
    // Besides each removal: a listing of each line of which something goes, and some of all.
    assert!(requests <= removed + u64::from(LINES) + 40, "{requests} for {removed}");
    let again = asked(&|| assert_eq!(prune(&repository).unwrap(), WalPruned::default()));
    assert!(again < 40, "{again} where nothing goes");
    // Whatever is there of histories: each line is followed by its number alone.
    assert_eq!(wal.reach(LINES, u64::from(LINES) * 2).unwrap().segment, u64::from(LINES) * 2 + 3);
    assert_eq!(wal.get_history(LINES - 2).unwrap(), None, "late");
    wal.put_history(LINES - 2, b"late").unwrap();
    assert_eq!(wal.get_history(LINES - 2).unwrap().unwrap(), b"late");
}

#[test]
fn a_check_says_how_far_backups_can_be_replayed_and_what_damage_costs() {
    let store = memory();
    let repository = create(&store);
    let [first, second, third] = story_of(&repository, 10..40, 35..50);
    wal_of(&repository).tail(2, 50).unwrap().flush(&segment(2, 50)[..77]).unwrap();
    // Nobody receives the WAL of this one: that is no finding.
    let lonely = commit(&repository, "other", WalStart { stream: "2".to_owned(), ..start(1, 7) }).unwrap();
    let report = open(&store).check(true, &|_| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let told: BTreeMap<_, _> = report
        .wal_windows
        .iter()
        .map(|window| (window.backup, (window.segment, window.bytes, window.beyond)))
        .collect();
    let expected = [(first, (40, 0, None)), (second, (40, 0, None)), (third, (50, 77, None)), (lonely, (7, 0, None))];
    assert_eq!(told, expected.into());
    assert!(report.wal_windows.iter().all(|window| window.is_empty() == (window.backup == lonely)));

    let named = |number: u64| {
        let end = format!("/00000001/{:016x}/{number:016x}", number / 64);
        objects(&store).into_keys().find(|name| name.ends_with(&end)).unwrap()
    };
    // A gap before the second backup's WAL, and damage behind it.
    let mut damaged = objects(&store);
    damaged.remove(&named(15));
    damaged.get_mut(&named(25)).unwrap()[110] ^= 1;
    let report = open(&store_of(&damaged)).check(true, &|_| {}).unwrap();
    let findings: Vec<_> = report.findings.iter().map(|f| (f.fault, f.object.clone(), f.backups.clone())).collect();
    let mut both = vec![first, second];
    both.sort_unstable();
    assert_eq!(
        findings,
        [(repository::Fault::Damaged, named(25), both), (repository::Fault::Missing, named(15), vec![first])]
    );
    assert_eq!(report.restorable.len(), 4, "each to its own moment");
    let shallow = open(&store_of(&damaged)).check(false, &|_| {}).unwrap();
    assert_eq!(shallow.findings.len(), 1, "names alone show the gap: {shallow:?}");
}
