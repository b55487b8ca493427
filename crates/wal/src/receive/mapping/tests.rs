use std::sync::mpsc;

use model::Lsn;

use super::*;
use crate::map::testing::*;

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    wal: Arc<Wal>,
    segments: Segments,
    told: mpsc::Receiver<Event>,
    listener: Listener,
}

impl World {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        let listener: Listener = Arc::new(move |event: &Event| tell.send(event.clone()).unwrap());
        Self { wal: Arc::new(wal().1), segments: Segments::new(), told, listener }
    }

    fn mapping(&self) -> Mapping {
        Mapping::start_within(&self.wal, CLUSTER, &self.listener, Duration::ZERO).unwrap()
    }

    fn stored(&mut self, mapping: &Mapping, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let bytes =
                if number == 70 { self.segments.with(1, number, unknown) } else { self.segments.segment(1, number) };
            self.wal.put_segment(1, number, &bytes).unwrap();
            mapping.segment(1, number, Arc::new(bytes));
        }
    }

    /// The next event: from where to where there is a map, or why there is none.
    fn told(&self) -> (Lsn, Lsn, Option<String>) {
        match self.told.recv_timeout(PATIENCE).unwrap() {
            Event::Mapped { timeline: 1, from, to, .. } => (from, to, None),
            Event::NotMapped { timeline: 1, from, to, why } => (from, to, Some(why)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn maps_of_what_is_stored() {
    let mut world = World::new();
    let mapping = world.mapping();
    world.stored(&mapping, 1..129);
    // It began within the range, which is read again.
    let mut told = [world.told(), world.told()];
    told.sort_unstable();
    assert_eq!(told[0], (start(1), start(64), None));
    // What can't be made is said, and is no reason not to go on.
    assert_eq!((told[1].0, told[1].1), (start(64), start(128)));
    assert!(told[1].2.as_ref().unwrap().contains("resource manager 130"), "{told:?}");
    world.stored(&mapping, 129..193);
    assert_eq!(world.told(), (start(128), start(192), None));
    assert!(!world.wal.has_map(1, 1, map::VERSION).unwrap());

    // The next life begins within a range, and sees its end.
    world.stored(&mapping, 193..200);
    drop(mapping);
    let mapping = world.mapping();
    world.stored(&mapping, 200..257);
    assert_eq!(world.told(), (start(192), start(256), None));
    drop(mapping);
    // One that ended with the last segment leaves a map to the next.
    let mapping = world.mapping();
    world.stored(&mapping, 257..320);
    drop(mapping);
    let mapping = world.mapping();
    world.stored(&mapping, 320..321);
    assert_eq!(world.told(), (start(256), start(320), None));
    drop(mapping);
    assert!(world.told.try_recv().is_err());
}

#[test]
fn what_is_too_much_at_once_is_read_again() {
    let mut world = World::new();
    // Nobody takes anything yet.
    let mapping = Mapping(Arc::new(Shared::default()));
    world.stored(&mapping, 0..65);
    let queued = mapping.0.state().queue.len();
    assert_eq!(queued, QUEUE_BYTES_MAX >> 20);
    mapping.0.state().ended = true;
    drop(mapping);
    let mapping = world.mapping();
    for number in (0..30).chain(40..64) {
        let bytes = Segments::new().segment(1, number);
        mapping.segment(1, number, Arc::new(bytes));
    }
    world.stored(&mapping, 65..66);
    assert_eq!(world.told(), (start(0), start(64), None));
}
