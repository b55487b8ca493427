//! One writer, one fault at every operation of the store in turn, and the work begun again: it always ends the same.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

#[path = "log_model/seal.rs"]
mod seal;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use jiff::Timestamp;
use repository::{
    BackupId, PackId, RepositoryId, SessionId,
    log::{
        Body, Clock, Commit, Commitment, Digest, Expired, Footprint, FreshPack, Log, LogError, Nonce, Numbers, Opening,
        Purpose, Record, Refusal, TipMemory, WalExpire, WalStart, record_name,
    },
    seal::RecordSeal as _,
    store::{Fault, FaultyStore, MemoryStore, ObjectName, Store, StoreErrorKind},
};
use serde_json::{Value, json};

use seal::OpenSeal;

fn at(seconds: i64) -> Clock {
    Arc::new(move || Timestamp::from_second(seconds).unwrap())
}

fn pack_name(pack: PackId) -> ObjectName {
    ObjectName::new(format!("packs/{pack}")).unwrap()
}

fn open(store: &Arc<dyn Store>) -> Result<Log, LogError> {
    let (id, seal) = (RepositoryId([7; 16]), Arc::new(OpenSeal));
    match Log::create(Arc::clone(store), seal.clone(), at(100), None, id, json!({"made": "here"})) {
        Err(LogError::Occupied { .. }) => Log::open(Arc::clone(store), seal, at(100), None),
        result => result,
    }
}

fn opening(session: u8) -> Opening {
    let purpose = Purpose::Backup;
    Opening {
        session: SessionId([session; 16]),
        purpose,
        cluster: "main".to_owned(),
        bases: Vec::new(),
        info: Value::Null,
    }
}

fn wal(line: u32, segment: u64) -> WalStart {
    WalStart { stream: "system".to_owned(), line, segment, segment_bytes: 256 }
}

fn wal_expire(lines: &[(u32, u64)], cut: &[u8]) -> Body {
    let cut = cut.iter().map(|&k| BackupId([k; 16])).collect();
    Body::WalExpire(WalExpire { stream: "system".to_owned(), lines: lines.to_vec(), cut })
}

fn commitment(k: u8, complete: bool, shared: &[u8], written: &[u8]) -> Commitment {
    let backup = BackupId(if complete { [k; 16] } else { [k + 100; 16] });
    let ids = |all: &[u8]| all.iter().map(|&n| PackId([n; 16])).collect::<Vec<_>>();
    Commitment {
        session: SessionId([k; 16]),
        backup,
        complete,
        manifest: json!(k),
        shared: ids(shared),
        written: ids(written).into_iter().map(|id| FreshPack { id, bytes: 10 }).collect(),
        wal: complete.then(|| wal(1, 10 * u64::from(k))),
        info: json!({ "backup": k }),
    }
}

/// Makes the repository, three backups of which the second shares with the first, proves one, lets the first go, collects. Every
/// step asks what is done already, as a program does that was started again.
fn work(store: &Arc<dyn Store>) -> Result<(), LogError> {
    let mut log = open(store)?;
    for (k, shared, drafted, written) in
        [(1, &[][..], &[1, 2][..], &[1, 2, 3][..]), (2, &[2, 3], &[4], &[4]), (3, &[4], &[], &[5])]
    {
        let session = SessionId([k; 16]);
        if log.state().ended(session).is_some() {
            continue;
        }
        log.begin(&opening(k), None)?;
        for &pack in written {
            store.put_if_absent(&pack_name(PackId([pack; 16])), &[pack; 10])?;
        }
        if !drafted.is_empty() && !log.state().is_expired(BackupId([k + 100; 16])) {
            log.commit(&commitment(k, false, shared, drafted))?;
        }
        log.commit(&commitment(k, true, shared, written))?;
    }
    log.prove(BackupId([2; 16]), true, &json!("good"))?;
    log.pin(BackupId([2; 16]), Some("the audit"))?;
    log.expire(&[Expired { backup: BackupId([1; 16]), reason: "old".to_owned() }])?;
    log.collect(&pack_name)?;
    for (lines, cut) in [([(1, 5)], &[][..]), ([(1, 25)], &[2])] {
        log.expire_wal(|state| {
            let Body::WalExpire(expire) = wal_expire(&lines, cut) else { unreachable!() };
            Ok((state.wal_floor("system", 1) < lines[0].1).then_some(expire))
        })?;
    }
    Ok(())
}

/// What the end is, without what tells when and in how many records it came about.
fn outcome(inner: &MemoryStore) -> impl PartialEq + std::fmt::Debug + use<> {
    let store: Arc<dyn Store> = Arc::new(inner.clone());
    let log = Log::open(store, Arc::new(OpenSeal), at(100), None).unwrap();
    assert_eq!(log.audit(&mut |_, _| {}).unwrap(), *log.state());
    let state = log.state();
    let backups: Vec<_> = state
        .backups()
        .iter()
        .map(|(&id, b)| {
            let packs: BTreeSet<_> = b.packs.iter().map(|n| state.pack(n).unwrap().id).collect();
            (id, b.info.clone(), b.pinned.clone(), b.proven(), packs)
        })
        .collect();
    let packs: BTreeSet<_> = inner.snapshot().into_keys().filter(|name| name.as_str().starts_with("packs/")).collect();
    let known: BTreeSet<_> =
        state.packs().values().map(|pack| (pack.id, pack.status == repository::log::PackStatus::Live)).collect();
    let wal: Vec<_> = state.backups().values().map(|b| (b.wal.clone(), b.wal_cut)).collect();
    (backups, packs, known, state.sessions().len(), state.wal_floors("system"), wal)
}

/// A pack that arrived after it was removed is an orphan.
fn clean_orphans(store: &Arc<dyn Store>) {
    let mut found = Vec::new();
    store.list("packs/", &mut |name, _| found.push(name)).unwrap();
    let log = open(store).unwrap();
    for name in found {
        let pack = name.split().1.parse().unwrap();
        if log.state().footprint(SessionId([1; 16]), pack) == Footprint::Orphan {
            store.delete(&name).unwrap();
        }
    }
}

#[test]
fn a_fault_at_every_operation_and_begun_again_ends_the_same() {
    let calm = MemoryStore::new();
    let counting = Arc::new(FaultyStore::new(calm.clone(), []));
    work(&(counting.clone() as Arc<dyn Store>)).unwrap();
    let expected = outcome(&calm);
    let operations = counting.operations();
    assert!(operations > 30, "{operations}");

    let faults =
        [Fault::CrashBefore, Fault::CrashAfter, Fault::LoseReply, Fault::Limbo, Fault::Fail(StoreErrorKind::NoSpace)];
    for (fault, late) in faults.into_iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        for k in 1..=operations {
            let inner = MemoryStore::new();
            let faulty = Arc::new(FaultyStore::new(inner.clone(), [(k, fault)]));
            let _seen = work(&(faulty.clone() as Arc<dyn Store>));
            // A request in limbo arrives before or after the second attempt.
            if !late {
                faulty.deliver().unwrap();
            }
            let again: Arc<dyn Store> = Arc::new(inner.clone());
            if let Err(error) = work(&again) {
                panic!("{fault:?} at operation {k}, late {late}: {error}");
            }
            faulty.deliver().unwrap();
            clean_orphans(&again);
            work(&again).unwrap();
            assert_eq!(outcome(&inner), expected, "{fault:?} at operation {k}, late {late}");
        }
    }
}

#[test]
fn a_zombie_that_was_taken_over_never_commits() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut zombie = open(&store).unwrap();
    zombie.begin(&opening(1), None).unwrap();
    let mut other = open(&store).unwrap();
    let error = other.begin(&opening(2), None).unwrap_err();
    assert!(
        matches!(error, LogError::Refused(Refusal::InUse { session, .. }) if session == SessionId([1; 16])),
        "{error}"
    );
    other.begin(&opening(2), Some(SessionId([1; 16]))).unwrap();
    let error = zombie.commit(&commitment(1, true, &[], &[1])).unwrap_err();
    assert!(matches!(error, LogError::Refused(Refusal::SessionEnded { .. })), "{error}");
    assert!(error.to_string().contains("taken over by session 0202"), "{error}");
    other.commit(&commitment(2, true, &[], &[2])).unwrap();
    zombie.close(SessionId([1; 16]), "late").unwrap();
    assert_eq!(other.refresh().unwrap().backups().len(), 1);
}

#[test]
fn a_damaged_pack_is_not_shared_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    work(&store).unwrap();
    let mut log = open(&store).unwrap();
    assert!(log.state().is_shareable(PackId([4; 16])));
    log.damaged(&[PackId([4; 16])], "flipped").unwrap();
    assert!(!log.state().is_shareable(PackId([4; 16])));
    log.begin(&opening(9), None).unwrap();
    let error = log.commit(&commitment(9, true, &[4], &[9])).unwrap_err();
    assert!(matches!(error, LogError::Refused(Refusal::PackDamaged { .. })), "{error}");
}

#[test]
fn nothing_expires_by_a_clock_that_is_behind() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let time = Arc::new(AtomicI64::new(1000));
    let kept = Arc::clone(&time);
    let clock: Clock = Arc::new(move || Timestamp::from_second(kept.load(Ordering::SeqCst)).unwrap());
    let mut log = Log::create(store, Arc::new(OpenSeal), clock, None, RepositoryId([7; 16]), Value::Null).unwrap();
    for k in [1, 2] {
        log.begin(&opening(k), None).unwrap();
        log.commit(&commitment(k, true, &[], &[k])).unwrap();
    }
    let old = [Expired { backup: BackupId([1; 16]), reason: "old".to_owned() }];
    time.store(999, Ordering::SeqCst);
    let error = log.expire(&old).unwrap_err();
    assert!(matches!(error, LogError::Refused(Refusal::ClockBehind { .. })), "{error}");
    // A backup goes well, also now.
    log.begin(&opening(3), None).unwrap();
    log.commit(&commitment(3, true, &[], &[3])).unwrap();
    log.accept_clock("somebody's clock was ahead").unwrap();
    assert_eq!(log.expire(&old).unwrap(), 1);
    assert_eq!(log.expire(&old).unwrap(), 0);
}

#[test]
fn a_rollback_is_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let memory = || Some(TipMemory::new(dir.path().join("tip")));
    let inner = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(inner.clone());
    let mut log = open(&store).unwrap();
    log.begin(&opening(1), None).unwrap();
    let early = inner.snapshot();
    log.commit(&commitment(1, true, &[], &[1])).unwrap();
    Log::open(Arc::clone(&store), Arc::new(OpenSeal), at(100), memory()).unwrap();
    let open = |objects: MemoryStore| Log::open(Arc::new(objects), Arc::new(OpenSeal), at(100), memory());
    open(inner).unwrap();

    let rolled_back = MemoryStore::new();
    early.iter().for_each(|(name, bytes)| rolled_back.tamper(name, bytes));
    let error = open(rolled_back.clone()).unwrap_err();
    assert!(matches!(&error, LogError::Rollback(alarm) if alarm.found == "has no record 2"), "{error}");
    // Somebody goes on with the old copy: as long as before, but another.
    let mut other = Log::open(Arc::new(rolled_back.clone()), Arc::new(OpenSeal), at(100), None).unwrap();
    other.close(SessionId([1; 16]), "other").unwrap();
    assert!(matches!(open(rolled_back).unwrap_err(), LogError::Rollback(_)));
    assert!(matches!(open(MemoryStore::new()).unwrap_err(), LogError::Rollback(_)));
}

#[test]
fn a_log_that_was_meddled_with_is_refused() {
    let inner = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(inner.clone());
    work(&store).unwrap();
    let records = Log::open(Arc::clone(&store), Arc::new(OpenSeal), at(100), None).unwrap().state().next();
    let meddled = |meddle: &dyn Fn(&MemoryStore)| {
        let copy = MemoryStore::new();
        inner.snapshot().iter().for_each(|(name, bytes)| copy.tamper(name, bytes));
        meddle(&copy);
        Log::open(Arc::new(copy), Arc::new(OpenSeal), at(100), None)
    };
    for n in 0..records {
        let error = meddled(&|copy| {
            let mut bytes = copy.get(&record_name(n)).unwrap();
            bytes[3] ^= 1;
            copy.tamper(&record_name(n), &bytes);
        });
        assert!(matches!(error, Err(LogError::Seal { n: found, .. }) if found == n));
        if n > 0 {
            let error = meddled(&|copy| copy.tamper(&record_name(n), &copy.get(&record_name(n - 1)).unwrap()));
            assert!(matches!(error, Err(LogError::Seal { .. })));
        }
    }
    let error = meddled(&|copy| copy.delete(&record_name(0)).unwrap());
    assert!(matches!(error, Err(LogError::Hole { n: 0 })));
}

/// A faulty or hostile writer with the key appends what no judge would allow: every reader refuses it.
#[test]
fn a_record_that_could_lose_data_is_refused_by_every_reader() {
    let inner = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(inner.clone());
    work(&store).unwrap();
    let mut log = open(&store).unwrap();
    let state = log.refresh().unwrap();
    let (n, prev) = (state.next(), state.digest());
    let live: Numbers = state.packs().keys().copied().collect();
    let commit = |session: u8, known: &[u32]| {
        Body::Commit(Commit {
            session: SessionId([session; 16]),
            backup: BackupId([77; 16]),
            complete: true,
            manifest: Value::Null,
            known: known.iter().copied().collect(),
            fresh: Vec::new(),
            wal: None,
            info: Value::Null,
        })
    };
    let bodies = [
        Body::Condemn { packs: live.clone() },
        Body::Delete { packs: live.clone() },
        Body::Deleted { packs: live },
        Body::Condemn { packs: Numbers::default() },
        Body::Condemn { packs: [4_000_000_000].into_iter().collect() },
        Body::Create { repository: RepositoryId([7; 16]), info: Value::Null },
        Body::Close { session: SessionId([1; 16]), reason: "again".to_owned() },
        // The session has ended; there never was one; pack 0 is deleted.
        commit(2, &[1]),
        commit(66, &[1]),
        commit(8, &[0]),
        Body::Expire { backups: vec![Expired { backup: BackupId([1; 16]), reason: "twice".to_owned() }] },
        Body::Prove { backup: BackupId([102; 16]), passed: true, receipt: Value::Null },
        // The third backup leads on from segment 30 of line 1; all before segment 25 of it has expired.
        wal_expire(&[(1, 31)], &[]),
        wal_expire(&[(2, 31)], &[]),
        wal_expire(&[(1, 25)], &[]),
        wal_expire(&[(1, 5)], &[]),
        wal_expire(&[(1, 27), (1, 28)], &[]),
        wal_expire(&[(2, 27), (1, 28)], &[]),
        wal_expire(&[], &[]),
        wal_expire(&[(1, 27)], &[3]),
        wal_expire(&[(1, 31)], &[3, 3]),
        wal_expire(&[(1, 31)], &[3, 1]),
    ];
    for body in bodies {
        let copy = MemoryStore::new();
        inner.snapshot().iter().for_each(|(name, bytes)| copy.tamper(name, bytes));
        let mut reader = Log::open(Arc::new(copy.clone()), Arc::new(OpenSeal), at(100), None).unwrap();
        let (nonce, time) = (Nonce::from_bytes([1; 16]), Timestamp::from_second(100).unwrap());
        let record = Record { format: body.format(), n, prev, nonce, time, body };
        copy.tamper(&record_name(n), &OpenSeal.seal_record(n, &record.encode().unwrap()).unwrap());
        let before = reader.state().clone();
        let error = reader.refresh().unwrap_err();
        assert!(matches!(error, LogError::Contradiction { n: found, .. } if found == n), "{record:?}: {error}");
        assert_eq!(*reader.state(), before);
        assert!(matches!(reader.close(SessionId([1; 16]), "x"), Err(LogError::Contradiction { .. })));
        let mut unchained = record;
        unchained.prev = Digest::NONE;
        copy.tamper(&record_name(n), &OpenSeal.seal_record(n, &unchained.encode().unwrap()).unwrap());
        assert!(matches!(reader.refresh(), Err(LogError::Chain { n: found }) if found == n));
    }
}

#[test]
fn a_long_log_is_opened_from_a_checkpoint() {
    let inner = MemoryStore::new();
    let store: Arc<dyn Store> = Arc::new(inner.clone());
    let mut log = open(&store).unwrap();
    for k in 0..400_u32 {
        let mut open = opening(1);
        open.session = SessionId([k.to_le_bytes(), [1; 4], [2; 4], [3; 4]].concat().try_into().unwrap());
        log.begin(&open, None).unwrap();
        let mut commit = commitment(1, true, &[], &[]);
        let id = |kind: u8| [k.to_le_bytes(), [kind; 4], [2; 4], [3; 4]].concat().try_into().unwrap();
        (commit.session, commit.backup) = (open.session, BackupId(id(1)));
        commit.written = vec![FreshPack { id: PackId(id(2)), bytes: 1 }];
        log.commit(&commit).unwrap();
        if k > 5 {
            let old = BackupId([(k - 5).to_le_bytes(), [1; 4], [2; 4], [3; 4]].concat().try_into().unwrap());
            log.expire(&[Expired { backup: old, reason: "old".to_owned() }]).unwrap();
            log.collect(&pack_name).unwrap();
        }
    }
    let records = log.state().next();
    assert!(records > 2000, "{records}");
    let counting = Arc::new(FaultyStore::new(inner.clone(), []));
    let opened = Log::open(counting.clone(), Arc::new(OpenSeal), at(100), None).unwrap();
    assert_eq!(opened.state(), log.state());
    assert!(counting.operations() < 200, "{} operations", counting.operations());
    assert_eq!(opened.audit(&mut |_, _| {}).unwrap(), *log.state());
    let checkpoints: Vec<_> =
        inner.snapshot().into_keys().filter(|name| name.as_str().starts_with("checkpoint/")).collect();
    assert_eq!(checkpoints.len(), 4, "{checkpoints:?}");
    // Damaged ones only cost time.
    for name in &checkpoints {
        inner.tamper(name, b"no checkpoint");
    }
    let opened = Log::open(store, Arc::new(OpenSeal), at(100), None).unwrap();
    assert_eq!(opened.state(), log.state());
}

#[test]
fn wal_expires_before_what_backups_and_sessions_need() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut log = open(&store).unwrap();
    let commit = |log: &mut Log, k: u8, wal: WalStart| {
        log.begin(&opening(k), None)?;
        let result = log.commit(&Commitment { wal: Some(wal), ..commitment(k, true, &[], &[k]) });
        if result.is_err() {
            log.close(SessionId([k; 16]), "refused").unwrap();
        }
        result
    };
    let expire = |log: &mut Log, lines: &[(u32, u64)], cut: &[u8]| {
        let Body::WalExpire(expire) = wal_expire(lines, cut) else { unreachable!() };
        log.expire_wal(|_| Ok(Some(expire.clone())))
    };
    for (k, line, segment) in [(1, 1, 10), (2, 1, 20), (3, 2, 30)] {
        commit(&mut log, k, wal(line, segment)).unwrap();
    }
    // Of a line that no backup's line can have come from, all may go; of later ones nothing that a backup may lead on by.
    for (lines, needed) in [(&[(1, 11)][..], 1), (&[(2, 11)], 1), (&[(1, 10), (7, 12)], 1)] {
        let error = expire(&mut log, lines, &[]).unwrap_err();
        assert!(
            matches!(error, LogError::Refused(Refusal::WalNeeded { backup, .. }) if backup == BackupId([needed; 16])),
            "{error}"
        );
    }
    assert!(expire(&mut log, &[(1, 10), (2, 10)], &[]).unwrap());
    // A reader of the first backup: it is not cut while it is read.
    let hold = Opening { purpose: Purpose::Hold, bases: vec![BackupId([1; 16])], ..opening(9) };
    log.begin(&hold, None).unwrap();
    let error = expire(&mut log, &[(1, 20)], &[1]).unwrap_err();
    assert!(matches!(error, LogError::Refused(Refusal::WalHeld { line: 1, segment: 20, .. })), "{error}");
    log.close(hold.session, "read").unwrap();
    assert!(expire(&mut log, &[(1, 20), (2, 20)], &[1]).unwrap());
    // What was seen before a commit that needs more does not count any more.
    let error = commit(&mut log, 4, wal(1, 19)).unwrap_err();
    assert!(matches!(error, LogError::Refused(Refusal::WalExpired { line: 1, segment: 19, floor: 20 })), "{error}");
    commit(&mut log, 5, wal(3, 4)).unwrap();
    let error = expire(&mut log, &[(3, 5)], &[]).unwrap_err();
    assert!(matches!(error, LogError::Refused(Refusal::WalNeeded { line: 3, segment: 5, .. })), "{error}");
    assert!(expire(&mut log, &[(1, 500), (2, 30)], &[2]).unwrap(), "no line before the second is needed");
    // Another stream is another matter.
    let other = WalExpire { stream: "other".to_owned(), lines: vec![(1, 1000)], cut: Vec::new() };
    assert!(log.expire_wal(|_| Ok(Some(other.clone()))).unwrap());
    let state = log.state().clone();
    assert_eq!(state.wal_floors("system"), [(1, 500), (2, 30)].into_iter().collect());
    assert_eq!(state.wal_streams().into_iter().collect::<Vec<_>>(), ["other", "system"]);
    let cut: Vec<_> = state.backups().iter().filter(|(_, b)| b.wal_cut).map(|(id, _)| id.0[0]).collect();
    assert_eq!(cut, [1, 2]);
    assert_eq!(Log::open(store, Arc::new(OpenSeal), at(100), None).unwrap().state(), &state);
}
