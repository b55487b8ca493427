use page_map::{Limits, Reason};
use pg_format::wal::TimelineHistory;
use repository::store::{ObjectName, Store as _};

use super::{testing::*, *};

#[test]
fn what_could_be_made() {
    let run = |first, end, tail_bytes| Run { first, end, tail_bytes };
    for (runs, there, floor, expected) in [
        (vec![], vec![], 0, vec![]),
        (vec![run(1, 64, 0)], vec![], 0, vec![]),
        (vec![run(1, 64, 5)], vec![], 0, vec![0]),
        (vec![run(1, 65, 0)], vec![], 0, vec![0]),
        (vec![run(1, 300, 0)], vec![1], 0, vec![0, 2, 3]),
        (vec![run(1, 300, 0)], vec![1], 128, vec![2, 3]),
        (vec![run(1, 300, 0)], vec![1], 191, vec![2, 3]),
        (vec![run(1, 100, 3), run(110, 130, 0)], vec![], 0, vec![0, 1]),
        (vec![run(63, 64, 1), run(64, 65, 0)], vec![], 0, vec![0]),
        (vec![run(64, 127, 7)], vec![], 0, vec![]),
    ] {
        assert_eq!(missing(&runs, &there, floor), expected, "{runs:?} {there:?} {floor}");
    }
}

fn blocks(map: &PageMap) -> Vec<u32> {
    match map.change(RELATION, pg_format::wal::Fork::Main) {
        page_map::Change::Pages { blocks, from: None } => {
            blocks.iter().take_while(|block| *block < 1_000_000).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn made_of_what_is_stored() {
    let (store, wal) = wal();
    let mut segments = Segments::new();
    // The WAL begins within a range; then one lacks; and of the last one a part is there.
    for number in 60..130 {
        let bytes = segments.segment(1, number);
        if number == 64 {
            assert!(matches!(make(&wal, &CLUSTER, 1, 0), Err(MapError::Lacks { timeline: 1, range: 0 })));
        }
        if number != 70 {
            wal.put_segment(1, number, &bytes).unwrap();
        }
    }
    let last = segments.segment(1, 130);
    let mut tail = wal.tail(1, 130).unwrap();
    tail.flush(&last[..600]).unwrap();
    let first = make(&wal, &CLUSTER, 1, 0).unwrap();
    assert_eq!((first.start(), first.end(), blocks(&first)), (start(60), start(64), vec![60, 61, 62, 63]));
    let second = make(&wal, &CLUSTER, 1, 1).unwrap();
    assert_eq!((second.start(), second.end()), (start(71), start(128)));
    assert!(blocks(&second).into_iter().eq(71..128));
    assert!(matches!(make(&wal, &CLUSTER, 1, 2), Err(MapError::Lacks { .. })));

    // Stored once, and again; the first stays where another one knows more of the WAL.
    for expected in [Stored::Now, Stored::Before] {
        assert_eq!(keep(&wal, 1, 1, &second).unwrap(), Kept::There(expected));
    }
    let mut whole = Segments::new();
    let all: Vec<_> = (60..130).map(|number| whole.segment(1, number)).collect();
    wal.put_segment(1, 70, &all[10]).unwrap();
    let better = make(&wal, &CLUSTER, 1, 1).unwrap();
    assert_eq!(better.start(), start(64));
    assert_eq!(keep(&wal, 1, 1, &better).unwrap(), Kept::Other { start: start(71) });
    assert_eq!(read(&wal, 1, 1).unwrap(), Some(second));

    // What is asked for is made of both, and never of less.
    let ask = |from: u64, to: Lsn| between(&wal, &CLUSTER, 1, start(from), to, Limits::DEFAULT);
    let told = |from: u64, to: Lsn| {
        ask(from, to).map(|found| (found.stored, found.made, blocks(&found.map)[0])).map_err(|error| error.to_string())
    };
    assert_eq!(told(80, start(100)), Ok((1, 0, 71)));
    assert_eq!(told(65, start(100)), Ok((0, 1, 64)));
    assert_eq!(told(61, start(129)), Ok((0, 3, 60)));
    keep(&wal, 1, 0, &first).unwrap();
    // The stored one of range 1 does not join the one before it.
    assert_eq!(told(61, start(129)), Ok((1, 2, 60)));
    assert!(matches!(ask(50, start(100)), Err(MapError::Short { have, .. }) if have == start(60)));
    let end = Lsn(start(130).0 + 4000);
    assert!(matches!(ask(60, end), Err(MapError::Short { have, .. }) if have < end && have > start(130)));
    assert!(ask(300, start(301)).is_err());

    // A damaged one is found, and is none.
    let mut name = None;
    store
        .list("wal/", &mut |object, _| {
            if object.as_str().ends_with("0/map-1") {
                name = Some(object);
            }
        })
        .unwrap();
    let name: ObjectName = name.unwrap();
    store.delete(&name).unwrap();
    wal.put_map(1, 0, VERSION, b"OXPM").unwrap();
    assert!(matches!(read(&wal, 1, 0), Err(MapError::Bad { .. })));
    assert!(Maps::new(&CLUSTER.stream(), CLUSTER.segment).look(1, 0, VERSION, b"OXPM").is_err());
}

#[test]
fn maps_are_looked_at() {
    let (_, wal) = wal();
    let mut segments = Segments::new();
    for number in 1..129 {
        wal.put_segment(1, number, &segments.segment(1, number)).unwrap();
    }
    let seen = wal.lines().unwrap().swap_remove(0);
    let runs: Vec<_> = seen.runs().collect();
    assert_eq!((listed(&CLUSTER, &seen), lacking(&CLUSTER, &seen, &runs, 0).len()), (vec![], 2));
    assert!(fill(&wal, &CLUSTER, &seen, &runs, |_, _| {}).iter().all(|made| made.result.is_ok()));
    let seen = wal.lines().unwrap().swap_remove(0);
    assert_eq!((listed(&CLUSTER, &seen), lacking(&CLUSTER, &seen, &runs, 0).len()), (vec![(start(1), start(128))], 0));

    let of = |range| wal.get_map(1, range, VERSION).unwrap().unwrap();
    let mut maps = Maps::new(&CLUSTER.stream(), CLUSTER.segment);
    for (range, bytes, sound) in [(0, of(0), true), (1, of(1), true), (2, of(1), false)] {
        assert_eq!(maps.look(1, range, VERSION, &bytes).is_ok(), sound, "{range}");
    }
    assert!(maps.look(1, 3, VERSION + 1, b"of a newer program").is_ok());
    assert_eq!((maps.of(1), maps.of(2)), (vec![(start(1), start(128))], vec![]));
    // Of another system.
    assert!(Maps::new("7301924918273645022", CLUSTER.segment).look(1, 0, VERSION, &of(0)).is_err());
    // One that does not follow from the one before it.
    let mut mapper = None;
    let mut segments = Segments::new();
    segments.with(1, 63, unknown);
    let mut found = Vec::new();
    for number in 64..129 {
        let bytes = segments.segment(1, number);
        let mapper = mapper.get_or_insert_with(|| make::begin(&CLUSTER, 1, 64, &bytes).unwrap());
        found.extend(mapper.feed(start(number), &bytes));
    }
    let mut maps = Maps::new(&CLUSTER.stream(), CLUSTER.segment);
    maps.look(1, 0, VERSION, &of(0)).unwrap();
    let error = maps.look(1, 1, VERSION, &found[0].map.encode()).unwrap_err();
    assert!(error.contains("different histories"), "{error}");
}

#[test]
fn along_the_history() {
    let (_, wal) = wal();
    let mut segments = Segments::new();
    let history = b"1\t0/4600300\tno reason\n";
    assert!(TimelineHistory::parse(std::str::from_utf8(history).unwrap()).is_ok());
    wal.put_history(2, history).unwrap();
    for number in 1..70 {
        wal.put_segment(1, number, &segments.segment(1, number)).unwrap();
    }
    for number in 70..130 {
        wal.put_segment(2, number, &segments.segment(2, number)).unwrap();
    }
    let both = make(&wal, &CLUSTER, 2, 1).unwrap();
    assert!(blocks(&both).into_iter().eq(64..128));
    assert_eq!(both.timelines().iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2]);
    keep(&wal, 2, 1, &both).unwrap();
    keep(&wal, 1, 0, &make(&wal, &CLUSTER, 1, 0).unwrap()).unwrap();
    let found = between(&wal, &CLUSTER, 2, start(3), start(100), Limits::DEFAULT).unwrap();
    assert_eq!((found.stored, found.made), (2, 0));
    assert!(blocks(&found.map).into_iter().eq(1..128));
    // On the old one it ends.
    let old = between(&wal, &CLUSTER, 1, start(3), start(70), Limits::DEFAULT).unwrap();
    assert_eq!((old.stored, old.made, old.map.end()), (1, 1, start(70)));
    assert!(between(&wal, &CLUSTER, 1, start(3), start(71), Limits::DEFAULT).is_err());
}

#[test]
fn what_can_not_say_is_not_stored() {
    let (_, wal) = wal();
    let mut segments = Segments::new();
    for number in 0..65 {
        let more = if number == 7 { unknown } else { |_: &mut _| {} };
        wal.put_segment(1, number, &segments.with(1, number, more)).unwrap();
    }
    let map = make(&wal, &CLUSTER, 1, 0).unwrap();
    assert_eq!(map.full_read()[0].reason, Reason::CustomRmgr(130));
    let error = keep(&wal, 1, 0, &map).unwrap_err();
    assert!(matches!(error, MapError::Unusable { .. }) && error.to_string().contains("hint: "), "{error}");
    assert!(!wal.has_map(1, 0, VERSION).unwrap());
    let found = between(&wal, &CLUSTER, 1, start(1), start(20), Limits::DEFAULT).unwrap();
    assert_eq!(found.map.full_read()[0].reason, Reason::CustomRmgr(130), "whoever asks all the same hears it");
}
