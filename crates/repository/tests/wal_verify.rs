//! Reading all of a stream: what is wrong is found, each where it is, and what can be replayed is said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use repository::{
    Fault, WalExpire,
    store::{FaultyStore, Store},
    wal::{Inspector, Run, Wal, WalReport},
};
use support::*;

const SIZE: u64 = 256;
const STREAM: &str = "7301924918273645021";

fn wal_of(store: &Arc<dyn Store>) -> Wal {
    open(store).find_wal(STREAM).unwrap().expect("segments tell their size")
}

fn segment(line: u32, number: u64) -> Vec<u8> {
    noise(u64::from(line) << 32 | number, 256)
}

fn put(wal: &Wal, line: u32, segments: impl IntoIterator<Item = u64>) {
    for number in segments {
        wal.put_segment(line, number, &segment(line, number)).unwrap();
    }
}

/// Knows what each segment must be.
#[derive(Default)]
struct Knows {
    segments: u64,
    histories: Vec<u32>,
    read: (u64, u64),
}

impl Inspector for Knows {
    fn segment(&mut self, line: u32, number: u64, bytes: &[u8]) -> Result<(), String> {
        self.segments += 1;
        if bytes == &segment(line, number)[..bytes.len()] {
            Ok(())
        } else {
            Err("not what the server wrote".to_owned())
        }
    }

    fn history(&mut self, line: u32, bytes: &[u8]) -> Result<(), String> {
        self.histories.push(line);
        if bytes == line.to_string().as_bytes() { Ok(()) } else { Err("no history".to_owned()) }
    }

    fn progress(&mut self, read: u64, total: u64) {
        self.read = (read, total);
    }
}

fn verify(store: &Arc<dyn Store>) -> WalReport {
    wal_of(store).verify(&mut Knows::default()).unwrap()
}

fn run(first: u64, end: u64, tail_bytes: u64) -> Run {
    Run { first, end, tail_bytes }
}

/// A line of two ranges and more, with a tail; a second line; what goes with them.
fn made() -> Arc<dyn Store> {
    let store = memory();
    let wal = create(&store).wal(STREAM.as_bytes(), SIZE).unwrap();
    put(&wal, 1, 3..140);
    let mut tail = wal.tail(1, 140).unwrap();
    for end in [10, 20, 30, 40, 50, 60, 70, 80, 90, 100] {
        tail.flush(&segment(1, 140)[..end]).unwrap();
    }
    wal.put_history(2, b"2").unwrap();
    wal.put_companion(1, 139, "partial", b"half").unwrap();
    wal.put_map(1, 1, 1, b"map").unwrap();
    put(&wal, 2, 138..150);
    store
}

fn named(objects: &BTreeMap<String, Vec<u8>>, end: &str) -> String {
    let mut found = objects.keys().filter(|name| name.ends_with(end));
    let name = found.next().unwrap_or_else(|| panic!("no {end}")).clone();
    assert_eq!(found.next(), None, "{end}");
    name
}

fn segment_name(line: u32, number: u64) -> String {
    format!("/{line:08x}/{:016x}/{number:016x}", number / 64)
}

#[test]
fn what_is_right_is_said_to_be() {
    let store = made();
    let mut knows = Knows::default();
    let report = wal_of(&store).verify(&mut knows).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let runs: Vec<_> = report.lines.iter().map(|line| (line.seen.line, line.runs.clone())).collect();
    assert_eq!(runs, [(1, vec![run(3, 140, 100)]), (2, vec![run(138, 150, 0)])]);
    assert_eq!((knows.segments, knows.histories), (138 + 12, vec![2]));
    let wal_objects = objects(&store).keys().filter(|name| name.starts_with("wal/")).count() as u64;
    assert_eq!(report.objects, wal_objects, "each once");
    assert!(report.lines[1].seen.history && !report.lines[0].seen.history);
    let told: Vec<_> =
        wal_of(&store).lines().unwrap().iter().flat_map(|line| line.runs().collect::<Vec<_>>()).collect();
    assert_eq!(told, [run(3, 140, 0), run(138, 150, 0)]);
    assert_eq!(open(&store).other_wal(&[STREAM]).unwrap(), (0, 0));
    assert_eq!(open(&store).other_wal(&[]).unwrap().0, 1);
    assert!(open(&store).find_wal("another").unwrap().is_none());
}

#[test]
fn every_flipped_bit_is_found_where_it_is() {
    let made = objects(&made());
    let is_whole = |name: &str| name.rsplit('/').next().is_some_and(|last| last.len() == 16);
    let wal = made.iter().filter(|(name, _)| name.starts_with("wal/")).enumerate();
    // Of whole segments, which are many, some.
    for (_, (name, bytes)) in wal.filter(|(at, (name, _))| at % 8 == 0 || !is_whole(name)) {
        // In the header, in the summary, in the content.
        for at in [13, 60, bytes.len() - 20] {
            let mut damaged = made.clone();
            damaged.get_mut(name).unwrap()[at] ^= 4;
            let wal = open(&store_of(&damaged)).wal(STREAM.as_bytes(), SIZE).unwrap();
            let Ok(report) = wal.verify(&mut Knows::default()) else {
                assert_eq!(at, 13, "{name}: the epoch, of keys that nobody has");
                continue;
            };
            let [finding] = &report.findings[..] else { panic!("{name} at {at}: {:?}", report.findings) };
            assert_eq!((&finding.object, finding.fault), (name, Fault::Damaged), "{name} at {at}");
            let lost: u64 = finding.lost.iter().map(|(from, until)| until - from).sum();
            let replayed: u64 = report.lines.iter().flat_map(|line| &line.runs).map(|run| run.end - run.first).sum();
            assert_eq!((lost, replayed), if is_whole(name) { (1, 137 + 12 - 1) } else { (0, 137 + 12) }, "{name}");
        }
    }
}

#[test]
fn what_lacks_or_does_not_fit_is_found() {
    type Meddle = Box<dyn Fn(&mut BTreeMap<String, Vec<u8>>)>;
    /// What is done to the objects, and what is found of it: the fault, the object, what is lost, what can be replayed.
    type Case = (&'static str, Meddle, Fault, String, Option<(u64, u64)>, Vec<Run>);
    let made = objects(&made());
    let other = {
        // What somebody with the keys put in a place of its own: authentic, and another.
        let without = |end: &str| {
            let mut all = made.clone();
            all.remove(&named(&made, end));
            store_of(&all)
        };
        move |line: u32, number: u64| {
            let store = without(&segment_name(line, number));
            open(&store).wal(STREAM.as_bytes(), SIZE).unwrap().put_segment(line, number, &noise(9, 256)).unwrap();
            objects(&store)[&named(&objects(&store), &segment_name(line, number))].clone()
        }
    };
    let remove = |end: String| -> Meddle { Box::new(move |all| drop(all.remove(&named(all, &end)))) };
    let whole_tail = vec![run(3, 140, 100)];
    let cases: Vec<Case> = vec![
        (
            "a segment that the index names",
            remove(segment_name(1, 70)),
            Fault::Missing,
            segment_name(1, 70),
            Some((70, 71)),
            vec![run(3, 70, 0), run(71, 140, 100)],
        ),
        (
            "one that no index names yet",
            remove(segment_name(1, 135)),
            Fault::Missing,
            segment_name(1, 135),
            Some((135, 136)),
            vec![run(3, 135, 0), run(136, 140, 100)],
        ),
        (
            "a chunk of the tail",
            remove(format!("{}.t/00000003", segment_name(1, 140))),
            Fault::Missing,
            format!("{}.t/00000003", segment_name(1, 140)),
            None,
            vec![run(3, 140, 30)],
        ),
        (
            "another segment than the index names",
            {
                let bytes = other(1, 70);
                Box::new(move |all| drop(all.insert(named(all, &segment_name(1, 70)), bytes.clone())))
            },
            Fault::Contradicts,
            segment_name(1, 70),
            Some((70, 71)),
            vec![run(3, 70, 0), run(71, 140, 100)],
        ),
        (
            "another than the server wrote",
            {
                let bytes = other(1, 135);
                Box::new(move |all| drop(all.insert(named(all, &segment_name(1, 135)), bytes.clone())))
            },
            Fault::Contradicts,
            segment_name(1, 135),
            Some((135, 136)),
            vec![run(3, 135, 0), run(136, 140, 100)],
        ),
        (
            "what is none of ours",
            Box::new(|all| {
                let stream = named(all, &segment_name(1, 70)).split('/').nth(1).unwrap().to_owned();
                all.insert(format!("wal/{stream}/00000001/notes"), b"x".to_vec());
            }),
            Fault::Foreign,
            "/00000001/notes".to_owned(),
            None,
            whole_tail,
        ),
    ];
    for (what, meddle, fault, object, lost, runs) in cases {
        let mut all = made.clone();
        meddle(&mut all);
        let report = verify(&store_of(&all));
        let first = report.findings.first().unwrap_or_else(|| panic!("{what}: nothing found"));
        assert_eq!(first.fault, fault, "{what}: {report:?}");
        assert!(first.object.ends_with(&object), "{what}: {first:?}");
        assert_eq!(first.lost, lost, "{what}: {report:?}");
        assert!(report.findings.iter().all(|finding| finding.lost == lost), "{what}: {report:?}");
        assert_eq!(report.lines[0].runs, runs, "{what}");
    }
    // A gap without any index, and a half segment before a whole one.
    let store = memory();
    let wal = create(&store).wal(STREAM.as_bytes(), SIZE).unwrap();
    put(&wal, 1, [1, 2, 6]);
    wal.tail(1, 3).unwrap().flush(&segment(1, 3)[..99]).unwrap();
    let report = verify(&store);
    assert_eq!(report.lines[0].runs, [run(1, 3, 99), run(6, 7, 0)]);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!((finding.fault, finding.lost), (Fault::Missing, Some((3, 6))));
}

#[test]
fn chunks_beside_their_segment_are_compared_with_it() {
    let store = memory();
    let wal = create(&store).wal(STREAM.as_bytes(), SIZE).unwrap();
    // A receiver whose server was another: its tail, then what the archive command brought.
    wal.tail(1, 1).unwrap().flush(&segment(7, 1)[..50]).unwrap();
    wal.tail(1, 0).unwrap().flush(&segment(1, 0)[..50]).unwrap();
    put(&wal, 1, [0, 1]);
    let report = verify(&store);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.fault, Fault::Contradicts);
    assert!(finding.object.ends_with("1.t/00000000"), "{finding:?}");
    assert_eq!(report.lines[0].runs, [run(0, 2, 0)], "the segment counts");
    assert_eq!(report.leftovers, 2);
    // The next prune takes them.
    let expire = |_: &_| Ok(Some(WalExpire { stream: STREAM.to_owned(), lines: vec![(1, 1)], cut: Vec::new() }));
    open(&store).with_log(|log| log.expire_wal(expire)).unwrap();
    let report = verify(&store);
    assert_eq!((report.lines[0].floor, &report.lines[0].runs[..]), (1, &[run(1, 2, 0)][..]));
    assert_eq!(open(&store).remove_expired_wal().unwrap().objects, 3);
    let report = verify(&store);
    assert!(report.is_clean() && report.leftovers == 0, "{report:?}");
}

#[test]
fn hundreds_of_lines_are_read_with_few_requests_beside_their_objects() {
    const LINES: u32 = 300;
    let calm = memory();
    let wal = create(&calm).wal(STREAM.as_bytes(), SIZE).unwrap();
    for line in 1..=LINES {
        let first = u64::from(line) * 2;
        put(&wal, line, first..first + 3);
        if line % 3 == 0 {
            wal.put_history(line, line.to_string().as_bytes()).unwrap();
        }
    }
    let counting = Arc::new(FaultyStore::new(calm.clone(), []));
    let store: Arc<dyn Store> = counting.clone();
    let wal = wal_of(&store);
    let before = counting.operations();
    let mut knows = Knows::default();
    let report = wal.verify(&mut knows).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.lines.len(), knows.histories.len()), (300, 100));
    assert!(report.lines.iter().all(|line| line.runs.len() == 1));
    let requests = counting.operations() - before;
    assert!(requests <= report.objects + u64::from(LINES) + 40, "{requests} for {}", report.objects);
}
