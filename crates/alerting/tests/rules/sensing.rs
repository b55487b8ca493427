//! Rules that say who is about to hurt whom.

use model::{
    Lsn,
    reading::{Archiver, ConnectionGroup, FileSystem, LargeProcess, LongTransaction, OomKills, OomVictim, WalReading},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

#[test]
fn low_memory_is_told_with_the_name_of_who_holds_most() {
    let low = |s: u64| {
        let memory = Memory { available: ByteSize(300 * MIB), ..host(0).memory };
        let one = |pid, name: &str, rss| LargeProcess { pid: Pid(pid), name: name.into(), rss: ByteSize(rss) };
        let largest = vec![one(4711, "importer", 12 << 30), one(77, "postgres", 2 << 30)].into();
        of_host(HostReading { memory, largest, ..host(s * 1_000) })
    };
    let alerts = observe(&mut rules(), (0..3).map(low));
    assert_eq!(names(&alerts), ["memory-low fires critical"]);
    let alert = &alerts[0];
    assert_eq!(
        alert.summary,
        "Memory of db1 low: 300 MiB of 16 GiB left to the host (2 %); largest: importer (pid 4711) with 12 GiB"
    );
    assert_eq!((alert.labels["process"].as_str(), alert.labels["pid"].as_str()), ("importer", "4711"));
    let named = "largest: importer (pid 4711) with 12 GiB, postgres (pid 77) with 2.0 GiB";
    assert!(alert.details.iter().any(|line| line == named), "{:?}", alert.details);
    check_shape(alert);
}

fn connected(ms: u64, site: u32, bot: u32) -> Observation {
    let group = |role: &str, client: &str, count| ConnectionGroup {
        role: role.into(),
        client: client.into(),
        application: format!("{role}-pool"),
        database: "app".into(),
        count,
        ..ConnectionGroup::default()
    };
    let mut reading = activity(ms);
    reading.connections.used = site + bot;
    reading.connections.groups = vec![group("site", "10.0.0.7", site), group("bot", "10.0.0.9", bot)];
    of_activity(reading)
}

#[test]
fn a_surge_is_seen_in_the_reading_that_shows_it_and_names_who() {
    let mut rules = rules();
    assert!(observe(&mut rules, (0..60).map(|s| connected(s * 1_000, 20, 2))).is_empty());
    let fired = observe(&mut rules, [connected(60_000, 20, 34)]);
    assert_eq!(names(&fired), ["connections-surging fires warning"]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].summary, "main: connections grew by 32 in 1.0 s to 54 of 100: role bot, 10.0.0.9");
    let labels = ["role", "client", "application", "database"].map(|name| fired[0].labels[name].as_str());
    assert_eq!(labels, ["bot", "10.0.0.9", "bot-pool", "app"]);
    assert!(fired[0].details[2].starts_with("32 more, 34 now (0 idle): role bot"), "{:?}", fired[0].details);
    // It goes on: at this rate nothing is left in a second. Then the rule about the limit speaks, too.
    let worse = observe(&mut rules, [connected(61_000, 20, 60)]);
    assert_eq!(names(&worse)[..2], ["connections-surging resolves warning", "connections-surging fires critical"]);
    let level = observe(&mut rules, (62..120).map(|s| connected(s * 1_000, 20, 50)));
    assert_eq!(names(&level), ["connections-surging resolves critical"]);
}

#[test]
fn growth_that_is_no_surge() {
    let quiet = |script: &[(u64, u32)]| {
        let mut rules = rules();
        let mut fired = Vec::new();
        let mut now = 0;
        for (seconds, used) in script {
            fired.extend(observe(&mut rules, (now..now + seconds).map(|s| connected(s * 1_000, *used, 0))));
            now += seconds;
        }
        names(&fired)
    };
    let none: [&str; 0] = [];
    assert_eq!(quiet(&[(60, 50), (20, 4), (60, 52)]), none, "a deploy");
    assert_eq!(quiet(&[(5, 50), (1, 4), (60, 52)]), none, "a quick one, and the guard has only just come");
    assert_eq!(quiet(&[(60, 2), (5, 12), (5, 21)]), none, "few");
    let slow: Vec<(u64, u32)> = (0..30).map(|step| (4, 10 + 2 * step)).collect();
    assert_eq!(quiet(&slow), none, "two more each four seconds");
    assert_eq!(quiet(&[(60, 10), (1, 45)]), ["connections-surging fires warning"]);
}

fn holder(state: &str, seconds: u32, blocks: u32) -> LongTransaction {
    LongTransaction {
        pid: Pid(4711),
        age: SECOND * (seconds + 5),
        state_for: SECOND * seconds,
        state: state.into(),
        role: Some("site".into()),
        client: Some("10.0.0.7".into()),
        application: "worker".into(),
        database: Some("app".into()),
        command: Some("UPDATE".into()),
        query_id: Some(-42),
        holds_back: Some(7),
        blocks,
    }
}

#[test]
fn queues_for_locks_are_told_with_their_head() {
    for (what, waiting, seconds, says) in [
        ("few, for a moment", 3, 2, vec![]),
        ("many, for a moment", 12, 4, vec![]),
        ("many, for longer", 12, 6, vec!["lock-queue fires warning"]),
        ("many, for long", 12, 31, vec!["lock-queue fires critical"]),
        ("one, for long", 1, 59, vec![]),
        ("one, for too long", 1, 60, vec!["lock-queue fires warning"]),
        ("none", 0, 90, vec![]),
    ] {
        let reading = |ms| {
            let mut reading = activity(ms);
            let head_session = Some(Box::new(holder("active", 90, waiting)));
            let table = Some("public.users".into());
            let (longest, head) = (SECOND * seconds, Some(Pid(4711)));
            reading.locks = LockWaits { waiting, longest, head, head_session, table };
            of_activity(reading)
        };
        let mut rules = rules();
        let fired = observe(&mut rules, [reading(0), reading(1_000)]);
        assert_eq!(names(&fired), says, "{what}");
        fired.iter().for_each(check_shape);
        if let Some(fired) = fired.first() {
            assert!(
                fired.summary.contains("on public.users behind pid 4711 (role site, 10.0.0.7)"),
                "{}",
                fired.summary
            );
            assert!(fired.details[2].contains("query -42 of pg_stat_statements"), "{:?}", fired.details);
            let ended = observe(&mut rules, (2..=7).map(|s| of_activity(activity(s * 1_000))));
            assert_eq!(ended.len(), 1, "{what}");
        }
    }
    // A prepared transaction has no session.
    let mut reading = activity(0);
    reading.locks = LockWaits { waiting: 1, longest: SECOND * 100, ..LockWaits::default() };
    let fired = observe(
        &mut rules(),
        [of_activity(reading.clone()), of_activity(ActivityReading { at: at(1_000), ..reading })],
    );
    assert!(fired[0].details[1].contains("pg_prepared_xacts"), "{:?}", fired[0].details);
}

#[test]
fn transactions_that_are_left() {
    for (what, session, head, says) in [
        ("for a while", holder("idle in transaction", 599, 0), None, vec![]),
        ("for long", holder("idle in transaction", 600, 0), None, vec!["transaction-idle fires warning"]),
        ("others wait", holder("idle in transaction", 15, 1), None, vec!["transaction-idle fires warning"]),
        ("many wait", holder("idle in transaction", 15, 5), None, vec!["transaction-idle fires critical"]),
        ("for a moment", holder("idle in transaction", 14, 5), None, vec![]),
        (
            "a younger one blocks",
            holder("idle in transaction", 300, 0),
            Some(holder("idle in transaction (aborted)", 20, 2)),
            vec!["transaction-idle fires warning"],
        ),
        ("the head works", holder("idle in transaction", 1, 0), Some(holder("active", 50, 9)), vec![]),
    ] {
        let mut reading = activity(0);
        reading.idle_transaction = Some(Box::new(session));
        reading.locks.head_session = head.map(Box::new);
        let fired = observe(&mut rules(), [of_activity(reading)]);
        assert_eq!(names(&fired), says, "{what}");
        fired.iter().for_each(check_shape);
    }
    for (what, seconds, held, blocks, says) in [
        ("a dump of a quiet database", 7_200, 9_000_000, 0, vec![]),
        ("a report on a busy one", 7_200, 10_000_000, 0, vec!["transaction-long fires warning"]),
        ("somebody waits", 7_200, 0, 1, vec!["transaction-long fires warning"]),
        ("not yet long", 3_000, 90_000_000, 1, vec![]),
    ] {
        let mut reading = activity(0);
        let session = LongTransaction { holds_back: Some(held), ..holder("active", seconds, blocks) };
        reading.longest_transaction = Some(Box::new(session));
        let fired = observe(&mut rules(), [of_activity(reading)]);
        assert_eq!(names(&fired), says, "{what}");
        fired.iter().for_each(check_shape);
    }
}

/// Readings a second apart of a disk of 1,000 GiB, by what is free.
fn disk(seconds: u64, free: impl Fn(u64) -> u64) -> Vec<Alert> {
    let reading = |s: u64| {
        let disk = FileSystem {
            path: "/data".into(),
            total: gib(1_000),
            available: ByteSize(free(s)),
            inodes: 1_000,
            inodes_free: 900,
        };
        of_host(HostReading { file_systems: [disk].into(), ..host(s * 1_000) })
    };
    observe(&mut rules(), (0..seconds).map(reading))
}

#[test]
fn disks_by_what_is_left_and_by_when_it_is_gone() {
    let none: [&str; 0] = [];
    assert_eq!(names(&disk(5, |_| 60 << 30)), none, "6 %, but ample");
    assert_eq!(names(&disk(5, |_| 49 << 30)), ["disk-filling fires warning"]);
    assert_eq!(names(&disk(5, |_| 29 << 30)), ["disk-filling fires critical"]);
    // 350 GiB free, 100 MiB a second: gone in an hour, and told after a quarter of one.
    let slow = disk(1_000, |s| (350 << 30) - s * 100 * MIB);
    assert_eq!(names(&slow), ["disk-filling fires warning"]);
    check_shape(&slow[0]);
    assert!(slow[0].summary.ends_with("left (27 %), full in 46 min 14 s at 100 MiB/s"), "{}", slow[0].summary);
    // 350 GiB free, 500 MiB a second: gone in twelve minutes, and told after five.
    let fast = disk(400, |s| (350 << 30) - s * 500 * MIB);
    assert_eq!(names(&fast), ["disk-filling fires critical"]);
    assert!(fast[0].decided.boot_us <= at(302_000).boot_us, "{:?}", fast[0].decided);
    assert_eq!(names(&disk(1_000, |s| (350 << 30) - s % 90 * 500 * MIB)), none, "files that come and go");
    assert_eq!(names(&disk(1_000, |s| (800 << 30) - s * 60 * MIB)), none, "an import into a disk with much room");
    assert_eq!(names(&disk(1_000, |s| (100 << 30) + s * 60 * MIB)), none, "it empties");

    let inodes = |free| {
        let disk =
            FileSystem { path: "/data".into(), total: gib(9), available: gib(8), inodes: 1_000, inodes_free: free };
        let reading = |ms| of_host(HostReading { file_systems: [disk.clone()].into(), ..host(ms) });
        observe(&mut rules(), [reading(0), reading(1_000)])
    };
    assert_eq!(names(&inodes(101)), none);
    assert_eq!(names(&inodes(99)), ["disk-filling fires warning"]);
    assert_eq!(inodes(20)[0].summary, "Disk /data of db1: 20 of 1000 inodes left (2 %)");
}

#[test]
fn memory_by_when_it_is_gone() {
    let filling = |seconds: u64, per_second: u64| {
        let reading = |s: u64| {
            let mut reading = host(s * 1_000);
            reading.memory.available = ByteSize((7 << 30) - s * per_second);
            reading.processes = vec![ProcessReading { rss: ByteSize((1 << 30) + s * per_second), ..worker(42, 0.5) }];
            of_host(reading)
        };
        observe(&mut rules(), (0..seconds).map(reading))
    };
    let none: [&str; 0] = [];
    assert_eq!(names(&filling(200, 5 * MIB)), none, "in twenty minutes");
    let fired = filling(200, 20 * MIB);
    assert_eq!(names(&fired), ["memory-filling fires warning"]);
    check_shape(&fired[0]);
    assert!(fired[0].summary.contains("PostgreSQL's autovacuum worker (pid 42) grows"), "{}", fired[0].summary);
    assert_eq!(fired[0].labels["pid"], "42");
}

#[test]
fn who_was_killed() {
    let killed = |ms, count, names: &[&str]| {
        let victim = |name: &&str| OomVictim { pid: Pid(42), name: (*name).into(), in_cgroup: false };
        let oom = Some(Box::new(OomKills { count, victims: names.iter().map(victim).collect() }));
        of_host(HostReading { oom, processes: vec![], ..host(ms) })
    };
    let known = || of_host(HostReading { processes: vec![worker(42, 0.5)], ..host(0) });
    let fired = observe(&mut rules(), [killed(1_000, 1, &["python3"])]);
    assert_eq!(names(&fired), ["oom-killed fires warning"]);
    assert_eq!(fired[0].summary, "The kernel of db1 killed python3 (pid 42) for want of memory");
    // The name comes with the next reading, or never.
    for (next, says) in [
        (killed(2_000, 0, &["postgres"]), "oom-killed fires critical"),
        (of_host(host(2_000)), "oom-killed fires warning"),
    ] {
        let mut rules = rules();
        assert!(observe(&mut rules, [known(), killed(1_000, 1, &[])]).is_empty());
        let fired = observe(&mut rules, [next]);
        assert_eq!(names(&fired), [says]);
        check_shape(&fired[0]);
    }
    let mut rules = rules();
    let fired = observe(&mut rules, [known(), killed(1_000, 2, &["a", "b"])]);
    assert!(
        fired[0].details[0].contains("PostgreSQL's autovacuum worker with 64 MiB resident"),
        "{:?}",
        fired[0].details
    );
    let ended = observe(&mut rules, (2..=302).map(|s| of_host(host(s * 1_000))));
    assert_eq!(names(&ended), ["oom-killed resolves critical"]);
}

fn wal(seconds: u64, archiver: Archiver, requested: u64, written: u64) -> Observation {
    Observation::Reading(Reading::Wal(WalReading {
        at: at(seconds * 1_000),
        checkpoints_timed: seconds / 300,
        checkpoints_requested: requested,
        lsn: Lsn(written),
        wal_per_second: Some(ByteSize(50 * MIB)),
        max_wal: Some(gib(1)),
        checkpoint_timeout: Some(SECOND * 300),
        archiver,
        slots: Vec::new(),
    }))
}

#[test]
fn archives_that_fail_or_do_not_keep_up() {
    let archiver = |failing, behind_mib: u64| Archiver {
        enabled: true,
        failing,
        behind: Some(ByteSize(behind_mib * MIB)),
        last_archived: Some(Timestamp::from_second(START_S).unwrap()),
        ..Archiver::default()
    };
    let over = |seconds: u64, of: &dyn Fn(u64) -> Archiver| {
        let fired = observe(&mut rules(), (0..seconds / 10).map(|n| wal(n * 10, of(n * 10), 0, 0)));
        fired.iter().for_each(check_shape);
        names(&fired)
    };
    let none: [&str; 0] = [];
    assert_eq!(over(600, &|s| archiver(s < 60, 40)), none, "an attempt that the next made good");
    assert_eq!(over(120, &|_| archiver(true, 40)), ["archive-failing fires warning"]);
    assert_eq!(over(60, &|_| archiver(false, 5_000)), ["archive-failing fires warning"]);
    assert_eq!(over(60, &|_| archiver(false, 40_000)), ["archive-failing fires critical"]);
    assert_eq!(over(600, &|_| Archiver { enabled: false, ..archiver(true, 40_000) }), none, "it is off");
    assert_eq!(
        over(300, &|s| archiver(s < 200, 40)),
        ["archive-failing fires warning", "archive-failing resolves warning"]
    );
}

#[test]
fn checkpoints_that_follow_one_another() {
    let over = |seconds: u64, requested: &dyn Fn(u64) -> u64, per_second: u64| {
        let reading = |n: u64| wal(n * 10, Archiver::default(), requested(n * 10), n * 10 * per_second);
        let fired = observe(&mut rules(), (0..seconds / 10).map(reading));
        fired.iter().for_each(check_shape);
        fired
    };
    let frequent = over(700, &|s| s / 20, 25 * MIB);
    assert_eq!(names(&frequent), ["checkpoints-frequent fires warning"]);
    assert_eq!(frequent[0].summary, "main: a checkpoint every 20 s, since WAL fills max_wal_size");
    assert!(frequent[0].details[2].starts_with("with 22 GiB they would come by time"), "{:?}", frequent[0].details);
    let none: [&str; 0] = [];
    assert_eq!(names(&over(2_000, &|s| s / 20, MIB)), none, "somebody asks for them");
    assert_eq!(names(&over(2_000, &|s| s.min(200) / 10, 50 * MIB)), none, "a load of some minutes");
    assert_eq!(names(&over(2_000, &|s| s / 100, 25 * MIB)), none, "not often");
}

#[test]
fn wraparound_by_the_rate_of_an_hour() {
    let over = |from: u64, per_second: u64| {
        let reading = |minute: u64| {
            let xid_age = from + minute * 60 * per_second;
            let ages = vec![AgeReading { database: "app".into(), xid_age, multixact_age: 0 }];
            let tables = TablesReading { at: at(minute * 60_000), database: "app".into(), worst: Vec::new(), ages };
            Observation::Reading(Reading::Tables(tables))
        };
        observe(&mut rules(), (0..70).map(reading))
    };
    let none: [&str; 0] = [];
    assert_eq!(names(&over(410_000_000, 1_000)), none, "twenty days");
    assert_eq!(names(&over(210_000_000, 10_000)), none, "autovacuum will freeze");
    let fired = over(410_000_000, 10_000);
    assert_eq!(names(&fired), ["vacuum-wraparound-near fires warning"]);
    assert!(fired[0].summary.contains("million, writes stop in 47 h "), "{}", fired[0].summary);
    assert_eq!(names(&over(600_000_000, 50_000)), ["vacuum-wraparound-near fires critical"]);
}
