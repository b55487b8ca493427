use jiff::civil::date;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    id::{RepositoryId, SessionId},
    log::{Body, Commit, Digest, Expired, FORMAT, Nonce, Numbers, Opening, Purpose, Record, WalExpire, WalStart},
};

/// A log without a store.
#[derive(Default)]
struct Book {
    state: State,
}

impl Book {
    fn new() -> Self {
        let mut book = Self::default();
        book.write(Timestamp::UNIX_EPOCH, Body::Create { repository: RepositoryId([0; 16]), info: Value::Null });
        book
    }

    fn write(&mut self, time: Timestamp, body: Body) {
        let (n, prev) = (self.state.next(), self.state.digest());
        let record = Record { format: FORMAT, n, prev, nonce: Nonce::from_bytes([0; 16]), time, body };
        self.state.apply(&record, Digest::of(&n.to_le_bytes())).unwrap();
    }

    fn open(&mut self, k: u8, time: Timestamp, purpose: Purpose, bases: &[u8]) {
        let bases = bases.iter().map(|&k| id(k)).collect();
        let (session, cluster) = (SessionId([k; 16]), "main".to_owned());
        self.write(time, Body::Open(Opening { session, purpose, cluster, bases, info: Value::Null }));
    }

    fn backup(&mut self, k: u8, time: Timestamp, complete: bool) {
        self.backup_of("main", k, time, complete, None);
    }

    fn backup_of(&mut self, cluster: &str, k: u8, time: Timestamp, complete: bool, wal: Option<WalStart>) {
        let open = Opening {
            session: SessionId([k; 16]),
            purpose: Purpose::Backup,
            cluster: cluster.to_owned(),
            bases: Vec::new(),
            info: Value::Null,
        };
        self.write(time, Body::Open(open));
        let commit = Commit {
            session: SessionId([k; 16]),
            backup: id(k),
            complete,
            manifest: Value::Null,
            known: Numbers::default(),
            fresh: Vec::new(),
            wal,
            info: Value::Null,
        };
        self.write(time, Body::Commit(commit));
        if !complete {
            self.write(time, Body::Close { session: SessionId([k; 16]), reason: "killed".to_owned() });
        }
    }

    fn prove(&mut self, k: u8, passed: bool) {
        let time = self.state.newest_time().unwrap();
        self.write(time, Body::Prove { backup: id(k), passed, receipt: Value::Null });
    }

    fn plan(&self, keep: &Keep, now: Timestamp) -> Plan {
        plan(&self.state, "main", keep, now, &TimeZone::UTC).unwrap()
    }
}

fn id(k: u8) -> BackupId {
    BackupId([k; 16])
}

fn noon(year: i16, month: i8, day: i8) -> Timestamp {
    date(year, month, day).at(12, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp()
}

const NOTHING: Keep = Keep { last: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, point_in_time: None };

/// The plan as a text: each backup with why, oldest first.
fn told(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<_> = plan
        .kept
        .iter()
        .map(|(id, why)| {
            let why: Vec<_> = why.iter().map(|why| serde_json::to_string(why).unwrap().replace('"', "")).collect();
            (id.0[0], why.join(" "))
        })
        .collect();
    lines.extend(
        plan.expired
            .iter()
            .map(|(id, why)| (id.0[0], format!("- {}", serde_json::to_string(why).unwrap().replace('"', "")))),
    );
    lines.sort();
    lines.into_iter().map(|(k, why)| format!("{k}: {why}")).collect()
}

fn check(keep: &Keep, build: impl FnOnce(&mut Book), expected: &[&str]) {
    let mut book = Book::new();
    build(&mut book);
    assert_eq!(told(&book.plan(keep, noon(2026, 12, 31))), expected);
}

#[test]
fn the_newest_of_each_day_week_and_month() {
    // 2026-11-22 is a Sunday: the last day of week 47.
    let days = [(10, 30), (11, 1), (11, 20), (11, 21), (11, 22), (11, 23)];
    let build = |book: &mut Book| {
        for (k, (month, day)) in (1..).zip(days) {
            book.backup(k, noon(2026, month, day), true);
        }
    };
    check(
        &Keep { daily: 2, ..NOTHING },
        build,
        &[
            "1: - no-rule",
            "2: - no-rule",
            "3: - no-rule",
            "4: - no-rule",
            "5: {day:2026-11-22}",
            "6: last {day:2026-11-23}",
        ],
    );
    check(
        &Keep { weekly: 3, ..NOTHING },
        build,
        &[
            "1: - no-rule",
            "2: {week:2026-W44}",
            "3: - no-rule",
            "4: - no-rule",
            "5: {week:2026-W47}",
            "6: last {week:2026-W48}",
        ],
    );
    check(
        &Keep { monthly: 9, ..NOTHING },
        build,
        &[
            "1: {month:2026-10}",
            "2: - no-rule",
            "3: - no-rule",
            "4: - no-rule",
            "5: - no-rule",
            "6: last {month:2026-11}",
        ],
    );
    check(
        &Keep { last: 2, yearly: 1, ..NOTHING },
        build,
        &["1: - no-rule", "2: - no-rule", "3: - no-rule", "4: - no-rule", "5: last", "6: last {year:2026}"],
    );
}

#[test]
fn counts_are_of_days_that_have_a_backup() {
    // The host was off for a year: nothing expires by that.
    let build = |book: &mut Book| {
        book.backup(1, noon(2025, 1, 1), true);
        book.backup(2, noon(2025, 1, 2), true);
    };
    check(&Keep { daily: 2, ..NOTHING }, build, &["1: {day:2025-01-01}", "2: last {day:2025-01-02}"]);
}

#[test]
fn days_are_those_of_the_zone() {
    let mut book = Book::new();
    for (k, hour) in [(1, 21), (2, 23)] {
        book.backup(k, date(2026, 6, 1).at(hour, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp(), true);
    }
    let keep = Keep { daily: 5, ..NOTHING };
    let kept = |zone: TimeZone| plan(&book.state, "main", &keep, noon(2026, 12, 31), &zone).unwrap().kept.len();
    assert_eq!(kept(TimeZone::UTC), 1);
    assert_eq!(kept(TimeZone::fixed(jiff::tz::offset(2))), 2);
}

#[test]
fn the_window_begins_with_a_backup_before_it() {
    let keep = Keep { point_in_time: Some(SignedDuration::from_hours(14 * 24)), ..NOTHING };
    let build = |days: &'static [i8]| {
        move |book: &mut Book| {
            for (k, &day) in (1..).zip(days) {
                book.backup(k, noon(2026, 12, day), true);
            }
        }
    };
    check(&keep, build(&[10, 16, 20, 30]), &["1: - no-rule", "2: point-in-time", "3: - no-rule", "4: last"]);
    check(&keep, build(&[17, 30]), &["1: point-in-time", "2: last"]);
    // All are younger: the oldest reaches back furthest.
    check(&keep, build(&[20, 25, 30]), &["1: point-in-time", "2: - no-rule", "3: last"]);
    check(&keep, build(&[1]), &["1: last point-in-time"]);
}

#[test]
fn the_last_proven_one_stays() {
    check(
        &NOTHING,
        |book| {
            for k in 1..=4 {
                book.backup(k, noon(2026, 12, 1), true);
            }
            book.prove(1, true);
            book.prove(2, true);
        },
        &["1: - no-rule", "2: last-proven", "3: - no-rule", "4: last"],
    );
}

#[test]
fn what_failed_its_proof_takes_no_place_and_stays_until_a_later_one_passes() {
    check(
        &NOTHING,
        |book| {
            for k in 1..=4 {
                book.backup(k, noon(2026, 12, 1), true);
            }
            book.prove(1, false);
            book.prove(2, true);
            book.prove(3, false);
            book.prove(4, false);
        },
        &["1: - failed", "2: last last-proven", "3: failed", "4: failed"],
    );
    // The newest receipt counts.
    check(
        &NOTHING,
        |book| {
            book.backup(1, noon(2026, 12, 1), true);
            book.backup(2, noon(2026, 12, 2), true);
            book.prove(1, true);
            book.prove(1, false);
            book.prove(2, false);
            book.prove(2, true);
        },
        &["1: - failed", "2: last last-proven"],
    );
}

#[test]
fn pinned_used_and_resumable_ones_stay() {
    check(
        &NOTHING,
        |book| {
            for k in 1..=3 {
                book.backup(k, noon(2026, 12, 1), true);
            }
            let note = "the audit".to_owned();
            book.write(noon(2026, 12, 2), Body::Pin { backup: id(1), pinned: true, note });
            book.open(20, noon(2026, 12, 2), Purpose::Hold, &[2]);
        },
        &["1: {pinned:the audit}", "2: in-use", "3: last"],
    );
    check(
        &NOTHING,
        |book| {
            book.backup(1, noon(2026, 12, 1), false);
            book.backup(2, noon(2026, 12, 2), true);
            book.backup(3, noon(2026, 12, 3), false);
        },
        &["1: - unfinished", "2: last", "3: resumable"],
    );
}

#[test]
fn a_clock_that_is_behind_plans_nothing() {
    let mut book = Book::new();
    book.backup(1, noon(2026, 12, 2), true);
    let plan = plan(&book.state, "main", &NOTHING, noon(2026, 12, 1), &TimeZone::UTC);
    assert!(matches!(plan, Err(Refusal::ClockBehind { .. })));
}

proptest! {
    /// Whatever there is and whatever is asked: each backup has one verdict, the judge agrees with every expiry, the newest and the
    /// last proven stay, and carrying the plan out leaves nothing to do.
    #[test]
    fn plans_are_allowed_and_final(
        backups in proptest::collection::vec((0..90_i64 * 24, any::<bool>(), 0..4_u8), 1..30),
        (last, daily, weekly, monthly) in (0..4_u32, 0..8_u32, 0..5_u32, 0..4_u32),
        window in proptest::option::of(0..60_i64 * 24),
        held in 1..30_u8,
    ) {
        let mut book = Book::new();
        let start = noon(2026, 3, 1);
        for (k, &(hour, complete, proof)) in (1..).zip(&backups) {
            book.backup(k, start + SignedDuration::from_hours(hour), complete || k == 1);
            if (complete || k == 1) && proof < 2 {
                book.prove(k, proof == 0);
            }
        }
        if usize::from(held) <= backups.len() {
            book.open(200, start, Purpose::Hold, &[held]);
        }
        let keep = Keep { last, daily, weekly, monthly, yearly: 0, point_in_time: window.map(SignedDuration::from_hours) };
        let now = noon(2026, 12, 31);
        let plan = book.plan(&keep, now);
        prop_assert_eq!(plan.kept.len() + plan.expired.len(), backups.len());
        prop_assert!(plan.kept.keys().all(|id| !plan.expired.contains_key(id)));
        prop_assert!(plan.kept.contains_key(&book.state.newest_of("main").unwrap().0));
        if let Some((proven, _)) = book.state.newest_proven_of("main") {
            prop_assert!(plan.kept.contains_key(&proven));
        }
        if !plan.expired.is_empty() {
            let backups = plan.expired.iter().map(|(&backup, why)| Expired { backup, reason: why.as_str().to_owned() }).collect();
            let body = Body::Expire { backups };
            prop_assert_eq!(book.state.judge(now, &body), Ok(()));
            book.write(now, body);
        }
        let again = book.plan(&keep, now);
        prop_assert!(again.expired.is_empty(), "{:?}", again);
        prop_assert_eq!(again.kept.len(), plan.kept.len());
    }
}

fn start(line: u32, segment: u64) -> Option<WalStart> {
    Some(WalStart { stream: "s".to_owned(), line, segment, segment_bytes: 1 })
}

/// Lines with their first segment that stays, and backups that are cut.
type LetGo = (Vec<(u32, u64)>, Vec<u8>);

fn let_go(book: &Book, keep: &Keep, now: Timestamp, lines: &[(u32, u64, u64)]) -> Option<LetGo> {
    let lines = lines.iter().map(|&(line, first, end)| (line, LineSpan { first, end })).collect();
    let found = wal_expire(&book.state, ("main", "s"), keep, (now, &TimeZone::UTC), &lines).unwrap()?;
    Some((found.lines, found.cut.iter().map(|id| id.0[0]).collect()))
}

#[test]
fn wal_is_kept_for_the_window_and_for_what_is_proven() {
    let days = |days: i64| Keep { point_in_time: Some(SignedDuration::from_hours(days * 24)), monthly: 9, ..NOTHING };
    let mut book = Book::new();
    // The first of each month is kept by itself; the window begins with the third.
    for (k, (month, day)) in (1..).zip([(10, 1), (11, 1), (12, 1), (12, 10), (12, 20), (12, 30)]) {
        book.backup_of("main", k, noon(2026, month, day), true, start(1, u64::from(k) * 10));
    }
    let there = [(1, 10, 90)];
    let now = noon(2026, 12, 31);
    // Those of October and November stay, for their own moment; the third is the window's, the fourth and fifth go anyway.
    assert_eq!(let_go(&book, &days(25), now, &there), Some((vec![(1, 30)], vec![1, 2])));
    assert_eq!(let_go(&book, &days(15), now, &there), Some((vec![(1, 40)], vec![1, 2, 3])));
    assert_eq!(let_go(&book, &NOTHING, now, &there), Some((vec![(1, 60)], vec![1, 2, 3, 4, 5])), "without a window");
    assert_eq!(let_go(&book, &days(300), now, &there), None, "all are younger");
    assert_eq!(let_go(&book, &days(25), now, &[(1, 30, 90)]), None, "nothing is there of what may go");
    // What is proven is a way to the present.
    book.prove(2, true);
    assert_eq!(let_go(&book, &days(15), now, &there), Some((vec![(1, 20)], vec![1])));
    // What failed its proof is no beginning of a window.
    book.prove(4, false);
    book.prove(5, true);
    assert_eq!(let_go(&book, &days(15), now, &there), Some((vec![(1, 30)], vec![1, 2])));
    // Somebody else's, and somebody who reads.
    let read = |book: &mut Book| {
        let hold = Opening {
            session: SessionId([99; 16]),
            purpose: Purpose::Hold,
            cluster: "main".to_owned(),
            bases: vec![id(2)],
            info: Value::Null,
        };
        book.write(now, Body::Open(hold));
    };
    read(&mut book);
    assert_eq!(let_go(&book, &NOTHING, now, &there), Some((vec![(1, 20)], vec![1])));
    book.backup_of("standby", 50, now, true, start(1, 15));
    assert_eq!(let_go(&book, &NOTHING, now, &there), Some((vec![(1, 15)], vec![1])));
    let behind =
        wal_expire(&book.state, ("main", "s"), &NOTHING, (noon(2026, 12, 30), &TimeZone::UTC), &BTreeMap::new());
    assert!(matches!(behind, Err(Refusal::ClockBehind { .. })));
    // An older program's, which says nothing of its WAL, holds all of it while it counts.
    let mut old = Book::new();
    old.backup_of("main", 1, noon(2026, 12, 1), true, None);
    old.backup_of("main", 2, noon(2026, 12, 20), true, start(1, 20));
    assert_eq!(let_go(&old, &days(15), now, &there), None);
    assert_eq!(let_go(&old, &days(5), now, &there), Some((vec![(1, 20)], vec![])));
    old.prove(1, true);
    assert_eq!(let_go(&old, &days(5), now, &there), None);
    // Nobody's.
    assert_eq!(let_go(&Book::new(), &NOTHING, now, &there), None);
}

proptest! {
    /// Whatever the backups and the lines: the judge allows what the policy lets go, and what the newest backup leads on by stays.
    #[test]
    fn what_the_policy_lets_go_the_judge_allows(
        backups in proptest::collection::vec((0_usize..3, 1_u32..5, 0_u64..40, any::<bool>(), 0_u8..4), 1..12),
        spans in proptest::collection::btree_map(1_u32..6, (0_u64..30, 1_u64..30), 1..5),
        window in proptest::option::of(0_i64..20),
        last in 0_u32..4,
    ) {
        let mut book = Book::new();
        let mut newest = None;
        for (k, &(cluster, line, segment, complete, proof)) in (1..).zip(&backups) {
            let at = noon(2026, 12, i8::try_from(k).unwrap());
            let wal = start(line, segment).filter(|_| complete && segment % 7 != 0);
            let cluster = ["main", "main", "other"][cluster];
            book.backup_of(cluster, k, at, complete, wal.clone());
            if cluster == "main" && complete {
                newest = wal;
            }
            if complete && proof < 2 {
                book.prove(k, proof == 0);
            }
        }
        let keep = Keep { point_in_time: window.map(|days| SignedDuration::from_hours(24 * days)), last, ..NOTHING };
        let lines: BTreeMap<_, _> =
            spans.into_iter().map(|(line, (first, len))| (line, LineSpan { first, end: first + len })).collect();
        let now = noon(2026, 12, 31);
        for _ in 0..3 {
            let found = wal_expire(&book.state, ("main", "s"), &keep, (now, &TimeZone::UTC), &lines).unwrap();
            let Some(expire) = found else { break };
            let failed = newest_failed(&book);
            if let Some(newest) = newest.as_ref().filter(|_| !failed) {
                for &(line, first) in &expire.lines {
                    prop_assert!(!newest.needs_before(line, first), "{expire:?}");
                }
            }
            let body = Body::WalExpire(expire);
            prop_assert_eq!(book.state.judge(now, &body), Ok(()), "{:?}", body);
            book.write(now, body);
        }
        let again = wal_expire(&book.state, ("main", "s"), &keep, (now, &TimeZone::UTC), &lines).unwrap();
        prop_assert_eq!(again, None::<WalExpire>, "once says all");
    }
}

/// Whether the newest backup failed its proof: then the one before it counts.
fn newest_failed(book: &Book) -> bool {
    book.state.newest_of("main").is_some_and(|(_, backup)| backup.proven() == Some(false))
}
