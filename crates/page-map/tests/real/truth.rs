//! Two copies of a cluster, and the map of the WAL between.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

use model::Lsn;
use page_map::{Limits, Mapper, PageMap};
use pg_format::wal::{Decoder, Flow, SegmentName, Stream};
use scratch::ScratchCluster;

use crate::{
    copies::{compare, control, copy},
    dump, load,
};

/// The bytes of WAL from `start`'s segment to the end of the last record.
fn wal(data: &Path, stream: &Stream, start: Lsn) -> (Lsn, Vec<u8>) {
    let size = stream.segment_size;
    let mut name = SegmentName::holding(1, start, size);
    let origin = size.start_of(name.number);
    let mut decoder = Decoder::new(*stream, origin, start).unwrap();
    let mut bytes = Vec::new();
    while let Ok(segment) = fs::read(data.join("pg_wal").join(name.file_name(size))) {
        let ended = decoder.feed(&segment, |_| Flow::Continue).is_err();
        bytes.extend(segment);
        if ended {
            break;
        }
        name = name.next();
    }
    bytes.truncate(usize::try_from(decoder.end().0 - origin.0).unwrap());
    (origin, bytes)
}

/// A whole cluster's map in pieces of random sizes, cut at random places, stored and read again, joined.
fn map_in_pieces(stream: &Stream, start: Lsn, origin: Lsn, bytes: &[u8], seed: u64) -> PageMap {
    let mut random = load::Random(seed);
    let mut mapper = Mapper::new(*stream, start, Limits::DEFAULT).unwrap();
    let mut joined: Option<PageMap> = None;
    let mut at = 0;
    while at < bytes.len() {
        let most = [100, 10_000, 1_000_000][usize::try_from(random.below(3)).unwrap()];
        let end = bytes.len().min(at + 1 + usize::try_from(random.below(most)).unwrap());
        mapper.feed(Lsn(origin.0 + at as u64), &bytes[at..end]);
        at = end;
        if random.below(20) == 0 || at == bytes.len() {
            let cut = PageMap::decode(&mapper.cut().encode()).unwrap();
            match &mut joined {
                Some(joined) => joined.append(&cut, Limits::DEFAULT).unwrap(),
                None => joined = Some(cut),
            }
        }
    }
    joined.unwrap()
}

fn start(major: u32) -> Option<ScratchCluster> {
    // Complete ones know more ways to compress; 13 is there as a server only.
    let installation = scratch::complete_installation(major).or_else(|_| scratch::installation(major));
    let installation = match installation {
        Ok(installation) => installation,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let settings = [
        // Hint bits are in WAL with checksums; without, they are the exception that the crate's documentation names.
        ("wal_log_hints", "on"),
        ("wal_keep_size", "8GB"),
        ("max_wal_size", "32MB"),
        ("shared_buffers", "8MB"),
        ("fsync", "off"),
        ("max_prepared_transactions", "10"),
        ("autovacuum_naptime", "1s"),
        ("autovacuum_vacuum_threshold", "20"),
        ("log_min_messages", "fatal"),
    ];
    let mut builder = ScratchCluster::builder(&installation).initdb_args(["--data-checksums", "--wal-segsize=1"]);
    for (name, value) in settings {
        builder = builder.setting(name, value);
    }
    let cluster = builder.start_within(Duration::from_secs(180)).start().unwrap();
    let space = cluster.directory().join("space");
    fs::create_dir(&space).unwrap();
    cluster.give(&space).unwrap();
    load::Session::open(&cluster.url("postgres"))
        .must(&format!("create tablespace other location '{}'", space.display()));
    Some(cluster)
}

/// `steps`: of each of two sessions, before and after the point of the first copy.
pub(crate) fn agrees(major: u32, crash: bool, steps: u32) {
    let seed =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| u64::from(time.subsec_nanos()));
    println!("PostgreSQL {major}, seed {seed}");
    let Some(mut cluster) = start(major) else { return };
    let data = cluster.data_dir();
    load::prepare(&cluster.url("postgres"));
    load::run(&cluster.url("postgres"), seed, steps, major);
    cluster.stop_fast().unwrap();
    let before = control(&data);
    assert!(before.state.is_clean());
    let (stream, start) = (Stream::of(&before).unwrap(), before.checkpoint.redo);
    let old = copy(&data);

    cluster.start_again().unwrap();
    if crash {
        load::run(&cluster.url("postgres"), seed + 1, steps / 2, major);
        cluster.kill9().unwrap();
        cluster.start_again().unwrap();
        load::run(&cluster.url("postgres"), seed + 2, steps / 2, major);
    } else {
        load::run(&cluster.url("postgres"), seed + 1, steps, major);
    }
    cluster.stop_fast().unwrap();
    let new = copy(&data);

    let (origin, bytes) = wal(&data, &stream, start);
    let time = Instant::now();
    let mut mapper = Mapper::new(stream, start, Limits::DEFAULT).unwrap();
    mapper.feed(origin, &bytes);
    let map = mapper.cut();
    let took = time.elapsed();
    assert!(map.full_read().is_empty(), "{:?}", map.full_read());
    assert!(map.end() > control(&data).checkpoint_lsn, "the closing checkpoint is in it");
    assert_eq!(map_in_pieces(&stream, start, origin, &bytes, seed), map);

    let found = compare(&old, &new, &map);
    let encoded = map.encode().len();
    println!(
        "PostgreSQL {major}: {} records, {} bytes of WAL in {took:?}; {} refused statements; map of {encoded} bytes, {} forks, {} whole \
         databases; of {} pages named one by one {} differ, {} do not; of {} pages of whole files {} do not",
        map.records(),
        bytes.len(),
        load::REFUSED.load(Ordering::Relaxed),
        map.files().count(),
        map.databases().count(),
        found.named,
        found.differing,
        found.same,
        found.whole,
        found.whole_same,
    );
    assert_eq!(found.missed, [], "every differing page is in the map");
    assert!(found.differing > 50, "the load changed something: {found:?}");
    // The comparison can fail: without one page that differs, and without any.
    let named: BTreeSet<_> = map.files().map(|(relation, fork, _)| (relation, fork)).collect();
    let nothing = Mapper::new(stream, start, Limits::DEFAULT).unwrap().cut();
    let missed = compare(&old, &new, &nothing).missed;
    assert!(missed.len() as u64 >= found.differing);
    assert!(missed.iter().any(|(relation, fork, _)| named.contains(&(*relation, *fork))));

    dump::agrees(cluster.installation(), &data, &stream, start, (origin, &bytes));
}
