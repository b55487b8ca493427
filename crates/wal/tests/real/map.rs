//! Page maps that the receiver made and stored, judged by two copies of the cluster.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use model::Lsn;
use page_map::Limits;
use pg_format::wal::{SegmentName, Stream};
use repository::{
    Repository,
    wal::{RANGE, Wal},
};
use scratch::{Builder, ScratchCluster};
use wal::{
    Cluster,
    map::{self, Kept},
    push::{self, push},
    receive::{Event, ReceiveError},
};

use crate::{
    follow::standby_of,
    map_copies::{Copy, compare, control, copy},
    map_load as load,
    support::*,
};

const RANGE_BYTES: u64 = RANGE * SEGMENT;

fn range_of(lsn: Lsn) -> u64 {
    lsn.0 / RANGE_BYTES
}

/// A receiver whose life ends at random, by being asked to or as if it were killed, and is followed by the next.
struct Restarted {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Event>>,
}

impl Restarted {
    fn start(options: &wal::receive::Options, store: &Moody, repository: &Repository, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (options, store, repository, stopped) =
            (options.clone(), store.clone(), repository.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (mut random, mut told, mut lives) = (load::Random(seed), Vec::new(), 0);
            while !stopped.load(Ordering::SeqCst) {
                lives += 1;
                let receiver = Receiver::start(&options, &repository);
                if random.below(2) == 0 {
                    store.dies_at(Some(1 + random.below(60)));
                }
                let life = Duration::from_millis(50 + random.below(800));
                let began = std::time::Instant::now();
                while !receiver.ended() && began.elapsed() < life && !stopped.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10));
                }
                told.extend(receiver.told());
                if let Err(error) = receiver.end() {
                    assert!(
                        matches!(error, ReceiveError::Store(_) | ReceiveError::Unfinished { .. }),
                        "life {lives}: {error}"
                    );
                }
                store.dies_at(None);
            }
            println!("{lives} lives of the receiver");
            told
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Event> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Writes until the range that holds `lsn` is over, and something is behind it.
fn fill_range(cluster: &ScratchCluster, lsn: Lsn) {
    let end = (range_of(lsn) + 1) * RANGE_BYTES;
    while now(cluster).0 < end + SEGMENT {
        sql(cluster, &["select pg_logical_emit_message(true, 'p', 'x')", "select pg_switch_wal()"]);
    }
}

/// Waits until the maps of all ranges that `from..to` touches are stored under one of `lines`.
fn until_mapped(receiver: &Receiver, cluster: &ScratchCluster, wal: &Wal, lines: &[u32], from: Lsn, to: Lsn) {
    for range in range_of(from)..=range_of(to) {
        receiver.until(&format!("the map of range {range} of {}..={}", range_of(from), range_of(to)), cluster, || {
            lines.iter().any(|line| wal.has_map(*line, range, map::VERSION).unwrap())
        });
    }
}

/// The stored maps know of every page that differs.
fn judge(wal: &Wal, cluster: &Cluster, line: u32, (old, new): (&Copy, &Copy), (from, to): (Lsn, Lsn)) {
    let between = map::between(wal, cluster, line, from, to, Limits::DEFAULT).unwrap();
    assert_eq!(between.made, 0, "all of it was stored");
    let map = &between.map;
    assert!(map.start() <= from && map.end() >= to, "{} {} {from} {to}", map.start(), map.end());
    assert_eq!(map.full_read(), []);
    let found = compare(old, new, map);
    let share = |part: u64, of: u64| part * 100 / of.max(1);
    println!(
        "{from} to {to}: {} stored maps with {} records; of {} pages named one by one {} differ, {} ({} %) were named in vain; of {} pages of \
         whole files {} ({} %)",
        between.stored,
        map.records(),
        found.named,
        found.differing,
        found.same,
        share(found.same, found.named),
        found.whole,
        found.whole_same,
        share(found.whole_same, found.whole),
    );
    assert_eq!(found.missed, [], "every page that differs is in the stored maps");
    assert!(found.differing > 20, "something changed: {found:?}");
    // The comparison can fail: the map of the last range alone does not know all of it.
    if range_of(from) < range_of(to) {
        let last = map::between(wal, cluster, line, to, to, Limits::DEFAULT).unwrap();
        assert!(!compare(old, new, &last.map).missed.is_empty());
    }
}

/// What the archive command makes of the same WAL, in a repository of its own, is the same to the byte.
fn the_other_road(cluster: &ScratchCluster, ours: &Wal, ranges: std::ops::RangeInclusive<u64>) {
    let (_, repository) = repository();
    let pg_wal = cluster.data_dir().join("pg_wal");
    let path = |number: u64| pg_wal.join(SegmentName { timeline: 1, number }.file_name(size()));
    let numbers = ranges.start() * RANGE..=(ranges.end() + 1) * RANGE;
    // Both, one after the other, and the second time in vain.
    let mut over = Vec::new();
    for number in numbers.clone().chain(numbers).filter(|number| path(*number).exists()) {
        let pushed = push(&path(number), &repository, &push::Options { ahead: 0 }).unwrap();
        over.extend(pushed.over.map(|over| (over.timeline, over.ranges)));
    }
    let theirs = wal_of(&repository, cluster);
    let of = Cluster::of_data_dir(&cluster.data_dir()).unwrap();
    println!("pushed; over were {over:?}");
    for range in ranges {
        assert!(over.iter().any(|(line, over)| *line == 1 && over.contains(&range)), "{range}: {over:?}");
        let made = map::make(&theirs, &of, 1, range).unwrap();
        assert!(matches!(map::keep(&theirs, 1, range, &made).unwrap(), Kept::There(_)));
        // The receiver's slot may be younger than the server.
        let (their, our) =
            (map::read(&theirs, 1, range).unwrap().unwrap(), map::read(ours, 1, range).unwrap().unwrap());
        assert_eq!(their.end(), our.end());
        if their.start() == our.start() {
            assert!(their.encode() == our.encode(), "both roads make the same map");
            assert!(matches!(map::keep(ours, 1, range, &their).unwrap(), Kept::There(_)));
        } else {
            assert!(matches!(map::keep(ours, 1, range, &their).unwrap(), Kept::Other { .. }));
        }
    }
}

fn builder(major: u32) -> Option<Builder> {
    let mut builder = keeping(major)?.initdb_args(["--wal-segsize=1", "--data-checksums"]);
    for (name, value) in [
        // Else hint bits are the exception that `page-map`'s documentation names.
        ("wal_log_hints", "on"),
        ("max_wal_size", "32MB"),
        ("shared_buffers", "8MB"),
        ("fsync", "off"),
        ("autovacuum", "on"),
        ("autovacuum_naptime", "1s"),
        ("autovacuum_vacuum_threshold", "20"),
        ("log_min_messages", "fatal"),
    ] {
        builder = builder.setting(name, value);
    }
    Some(builder.start_within(Duration::from_secs(180)))
}

fn with_a_tablespace(major: u32) -> Option<ScratchCluster> {
    let cluster = builder(major)?.setting("max_prepared_transactions", "10").start().unwrap();
    let space = cluster.directory().join("space");
    fs::create_dir(&space).unwrap();
    cluster.give(&space).unwrap();
    sql(&cluster, &[&format!("create tablespace other location '{}'", space.display())]);
    Some(cluster)
}

/// Stops the server, and copies it: its pages, where replay would begin, and where its WAL ends.
fn copied(cluster: &mut ScratchCluster) -> (Copy, Lsn, Lsn) {
    cluster.stop_fast().unwrap();
    let control = control(&cluster.data_dir());
    assert!(control.state.is_clean());
    (copy(&cluster.data_dir()), control.checkpoint.redo, control.checkpoint_lsn)
}

pub fn of_a_load(major: u32) {
    let steps = if major == 18 { 60 } else { 200 };
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into();
    println!("PostgreSQL {major}, seed {seed}");
    let Some(mut cluster) = with_a_tablespace(major) else { return };
    let url = cluster.url("postgres");
    let (store, repository) = repository();
    let options = options(&cluster);
    let restarted = Restarted::start(&options, &store, &repository, seed);
    load::prepare(&url);
    load::run(&url, seed, steps, major);
    // What was made within the range is whole in its map: little of that is wanted.
    fill_range(&cluster, now(&cluster));
    let (old, from, _) = copied(&mut cluster);
    cluster.start_again().unwrap();
    load::run(&url, seed + 1, steps, major);
    fill_range(&cluster, now(&cluster));
    load::run(&url, seed + 3, steps, major);
    if major % 2 == 1 {
        cluster.kill9().unwrap();
        cluster.start_again().unwrap();
        load::run(&url, seed + 2, steps / 2, major);
    }
    let (new, _, to) = copied(&mut cluster);
    cluster.start_again().unwrap();
    let told = restarted.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. })), "{told:#?}");

    let receiver = Receiver::start(&options, &repository);
    receiver.until_connected(&cluster);
    fill_range(&cluster, to);
    let wal = wal_of(&repository, &cluster);
    until_mapped(&receiver, &cluster, &wal, &[1], from, to);
    receiver.stop();
    let of = Cluster::of_data_dir(&cluster.data_dir()).unwrap();
    judge(&wal, &of, 1, (&old, &new), (from, to));
    // A map that is made afterwards is the same.
    for range in range_of(from)..=range_of(to) {
        let made = map::make(&wal, &of, 1, range).unwrap();
        assert!(map::read(&wal, 1, range).unwrap() == Some(made), "range {range}");
    }
    assert_begins(&cluster.data_dir(), &wal, from);
    the_other_road(&cluster, &wal, range_of(from)..=range_of(to));
}

/// What is asked for from before the WAL is refused; to the end of WAL, the rest is made of it.
fn assert_begins(data: &Path, wal: &Wal, from: Lsn) {
    let of = Cluster::of_data_dir(data).unwrap();
    assert!(Stream::of(&control(data)).is_ok());
    let end = wal.reach(1, from.0 / SEGMENT).unwrap();
    let to = Lsn(end.segment * SEGMENT);
    let between = map::between(wal, &of, 1, from, to, Limits::DEFAULT).unwrap();
    assert_eq!((between.made, between.map.end() >= to), (1, true));
    let beyond = Lsn((end.segment + 1) * SEGMENT);
    assert!(map::between(wal, &of, 1, from, beyond, Limits::DEFAULT).is_err());
    assert!(map::between(wal, &of, 1, Lsn(8), to, Limits::DEFAULT).is_err());
}

/// The range in which the timeline changed has a map on the new one, which knows what the old one changed.
pub fn over_a_promotion(major: u32) {
    let Some(builder) = builder(major) else { return };
    let mut primary = builder.start().unwrap();
    let (_, repository) = repository();
    sql(&primary, &["create table promoted as select i, repeat('x', 100) x from generate_series(1, 20000) i"]);
    // A standby's slot begins where it pleases; what was stored before leads there.
    let receiver = Receiver::start(&options(&primary), &repository);
    receiver.until_connected(&primary);
    fill_range(&primary, now(&primary));
    receiver.until_acknowledged(&primary, now(&primary));
    receiver.stop();
    let (old, from, _) = copied(&mut primary);
    primary.start_again().unwrap();
    let mut standby = standby_of(&mut primary);
    let receiver = Receiver::start(&options(&standby), &repository);
    receiver.until_connected(&standby);
    write(&primary);
    sql(&primary, &["update promoted set x = x || 'y' where i % 300 = 0", "checkpoint"]);
    write(&primary);
    let before = now(&primary);
    receiver.until("the standby has it", &standby, || {
        sql(&standby, &[&format!("select coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{before}'")]) == "t"
    });
    sql(&standby, &["select pg_promote()"]);
    write(&standby);
    sql(&standby, &["update promoted set i = i + 1 where i between 5000 and 6000"]);
    let (new, _, to) = copied(&mut standby);
    standby.start_again().unwrap();
    receiver.until_told("the switch", &standby, |event| matches!(event, Event::Timeline { from: 1, to: 2, .. }));
    fill_range(&standby, to);
    let wal = wal_of(&repository, &standby);
    until_mapped(&receiver, &standby, &wal, &[1, 2], from, to);
    receiver.stop();
    let of = Cluster::of_data_dir(&standby.data_dir()).unwrap();
    let last = map::read(&wal, 2, range_of(to)).unwrap().unwrap();
    assert_eq!(last.timelines().iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2]);
    judge(&wal, &of, 2, (&old, &new), (from, to));
    assert!(map::make(&wal, &of, 2, range_of(to)).unwrap() == last);
}
