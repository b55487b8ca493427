//! Many timelines, histories that come late or are lost, and a server that another one takes the place of.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::Lsn;
use pg_format::{Major, wal::TimelineHistory};
use pg_replication::{Host, Target};
use repository::wal::{Segment, Wal};
use scratch::ScratchCluster;
use wal::{
    receive::{self, Event},
    recover::{Action, Base, NoRoad, PlanError, Stock, Target as Moment, TimelineChoice, plan, reachable, road},
};

use crate::{follow::standby_of, support::*};

/// How often a server is promoted.
const PROMOTIONS: u32 = 20;
/// Timelines that are forged.
const HUNDREDS: u32 = 600;
/// How long a look at all of them may take, on a machine that does other things too.
const A_LOOK: Duration = Duration::from_secs(20);

/// The server ends a recovery: it goes on, on the next timeline.
fn promote(cluster: &mut ScratchCluster) {
    cluster.stop_fast().unwrap();
    let signal = cluster.data_dir().join("recovery.signal");
    fs::write(&signal, "").unwrap();
    cluster.give(&signal).unwrap();
    cluster.start_again().unwrap();
    let began = Instant::now();
    while !try_sql(cluster, &["select pg_is_in_recovery()"]).is_ok_and(|said| said == "f") {
        assert!(began.elapsed() < PATIENCE, "{}", cluster.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn base(major: u32, timeline: u32, at: Lsn) -> Base {
    let stop_time = Timestamp::UNIX_EPOCH;
    Base { id: "base".to_owned(), major: Major::from_number(major).unwrap(), timeline, start: at, stop: at, stop_time }
}

fn system_of(cluster: &ScratchCluster) -> u64 {
    wal::Cluster::of_data_dir(&cluster.data_dir()).unwrap().system_identifier
}

/// A server whose timeline changes again and again, each time while it is received.
pub fn promoted_again_and_again(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.setting("restore_command", "false").start().unwrap();
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    // The way as it was: on each timeline the place where something was written last.
    let mut written = Vec::new();
    for timeline in 1..=PROMOTIONS {
        write(&cluster);
        let to = now(&cluster);
        receiver.until_acknowledged(&cluster, to);
        written.push((timeline, to));
        promote(&mut cluster);
    }
    let last = PROMOTIONS + 1;
    write(&cluster);
    let end = now(&cluster);
    receiver.until_acknowledged(&cluster, end);
    let told = receiver.stop();
    let odd = |event: &&Event| {
        matches!(
            event,
            Event::Gap { .. } | Event::BeyondSwitch { .. } | Event::Superseded { .. } | Event::SlotLost { .. }
        )
    };
    assert_eq!(told.iter().find(odd), None, "{told:#?}");

    let stock = Stock::look(&wal, size()).unwrap();
    assert_eq!(stock.histories.len(), PROMOTIONS as usize);
    let bases = [base(major, 1, from)];
    let moment = |target: Moment, choice| {
        plan(&wal, &stock, system_of(&cluster), &bases, &target, choice, true, Action::Pause).unwrap()
    };
    let all = moment(Moment::Latest, TimelineChoice::Latest);
    assert_eq!((all.road.timeline, all.road.end), (last, end), "{:?}", all.road);
    // Every segment of the way is what the server has.
    for name in &all.segments {
        let path = cluster.data_dir().join("pg_wal").join(name.file_name(size()));
        let theirs = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (Segment::Whole(ours) | Segment::Beginning(ours)) = wal.get_segment(name.timeline, name.number).unwrap()
        else {
            panic!("{} is absent", path.display());
        };
        assert!(theirs.starts_with(&ours), "{}", path.display());
    }
    for (timeline, to) in written {
        let there = moment(Moment::Lsn(Lsn(to.0 - 1000)), TimelineChoice::Number(timeline));
        assert_eq!(there.road.timeline, timeline);
        assert!(there.road.end >= to, "{:?} {to}", there.road);
    }
    let reach = reachable(&wal, &stock, system_of(&cluster), &bases).unwrap();
    assert_eq!(reach[0].as_ref().map(|reach| (reach.timeline, reach.to)), Some((last, end)));
}

/// A standby takes the place of its primary, under the same address.
pub fn another_server_under_the_same_address(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut primary = builder.start().unwrap();
    let standby = standby_of(&mut primary);
    let (_, repository) = repository();
    let wal = wal_of(&repository, &primary);
    let from = now(&primary);
    // The address: a socket that leads to whoever is the primary.
    let address = tempfile::tempdir().unwrap();
    let socket = address.path().join(".s.PGSQL.5432");
    let lead_to = |cluster: &ScratchCluster| {
        let _ = fs::remove_file(&socket);
        symlink(cluster.socket_dir().join(format!(".s.PGSQL.{}", cluster.tcp_port())), &socket).unwrap();
    };
    lead_to(&primary);
    let target = Target::new(Host::Unix(address.path().to_owned(), 5432), "postgres");
    let options = receive::Options { target, ..options(&primary) };
    let receiver = Receiver::start(&options, &repository);
    receiver.until_connected(&primary);
    write(&primary);
    let last = switch(&primary);
    receiver.until_acknowledged(&primary, last);
    receiver.until("the standby has it", &standby, || {
        sql(&standby, &[&format!("select coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{last}'")]) == "t"
    });
    primary.kill9().unwrap();
    lead_to(&standby);
    sql(&standby, &["select pg_promote()"]);
    write(&standby);
    let to = now(&standby);
    receiver.until_acknowledged(&standby, to);
    let history = fs::read_to_string(standby.data_dir().join("pg_wal/00000002.history")).unwrap();
    let switch_point = TimelineHistory::parse(&history).unwrap().switch_of(1).unwrap();
    assert_stored(&wal, 1, &standby, from, switch_point);
    assert_stored(&wal, 2, &standby, switch_point, to);
    // The new primary has no slot of ours: slots do not follow. It is made anew, and nothing lacks.
    let told = receiver.stop();
    assert!(told.iter().any(|event| matches!(event, Event::SlotCreated { .. })), "{told:#?}");
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. })), "{told:#?}");
}

/// A server whose history is not there: nothing is stored that nobody could follow; when it comes after all, all of it is.
pub fn a_history_that_comes_late(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.setting("restore_command", "false").start().unwrap();
    let (store, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    receiver.stop();
    promote(&mut cluster);
    let history = cluster.data_dir().join("pg_wal/00000002.history");
    let aside = cluster.data_dir().join("aside");
    fs::rename(&history, &aside).unwrap();
    write(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_told(
        "what is missing",
        &cluster,
        |event| matches!(event, Event::Disconnected { why, .. } if why.contains("00000002.history")),
    );
    assert!(store.names().iter().all(|name| !name.contains("/00000002/")), "{:#?}", store.names());
    fs::rename(&aside, &history).unwrap();
    let end = now(&cluster);
    receiver.until_acknowledged(&cluster, end);
    receiver.stop();
    let stored = TimelineHistory::parse(&fs::read_to_string(&history).unwrap()).unwrap();
    assert_stored(&wal, 2, &cluster, stored.switch_of(1).unwrap(), end);

    // Lost in the repository: a timeline that nobody can follow is not passed over silently.
    let lost = store.names().into_iter().find(|name| name.contains("/history/")).unwrap();
    store.lose(&lost);
    let stock = Stock::look(&wal, size()).unwrap();
    let bases = [base(major, 1, from)];
    let ask = |choice| plan(&wal, &stock, system_of(&cluster), &bases, &Moment::Latest, choice, true, Action::Pause);
    let error = ask(TimelineChoice::Latest).unwrap_err();
    assert!(matches!(error, PlanError::NoRoad(NoRoad::NoHistory { timeline: 2 })), "{error}");
    assert!(error.is_refusal() && error.to_string().contains("hint: "), "{error}");
    assert_eq!(ask(TimelineChoice::Current).unwrap().road.timeline, 1);
    // The next receiver brings it back.
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    receiver.stop();
    let stock = Stock::look(&wal, size()).unwrap();
    let ask = |choice| plan(&wal, &stock, system_of(&cluster), &bases, &Moment::Latest, choice, true, Action::Pause);
    assert_eq!(ask(TimelineChoice::Latest).unwrap().road.timeline, 2);
}

/// A segment that has a header and nothing else.
fn nothing(timeline: u32, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(SEGMENT).unwrap()];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..12].copy_from_slice(&timeline.to_le_bytes());
    bytes
}

fn forge(wal: &Wal) -> Vec<String> {
    let mut text = String::new();
    let mut histories = Vec::new();
    for timeline in 1..HUNDREDS {
        wal.put_segment(timeline, 10 + u64::from(timeline), &nothing(timeline, 10 + u64::from(timeline))).unwrap();
        let switch = Lsn((11 + u64::from(timeline)) * SEGMENT + 0x40);
        text.push_str(&format!("{timeline}\t{switch}\tno recovery target specified\n"));
        wal.put_history(timeline + 1, text.as_bytes()).unwrap();
        histories.push(text.clone());
    }
    wal.put_segment(HUNDREDS, 10 + u64::from(HUNDREDS), &nothing(HUNDREDS, 10)).unwrap();
    histories
}

/// Each timeline has a segment, and led to the next one.
pub fn hundreds() {
    let (store, repository) = repository();
    let wal = repository.wal(b"7000000000000000001", SEGMENT).unwrap();
    let histories = forge(&wal);
    let began = Instant::now();
    let before = store.requests();
    let stock = Stock::look(&wal, size()).unwrap();
    let asked = store.requests() - before;
    assert_eq!(stock.histories.len(), histories.len());
    // One for each history; nothing grows with the square.
    assert!(asked <= u64::from(HUNDREDS) * 3, "{asked}");
    let start = Lsn(11 * SEGMENT + 0x40);
    for (choice, last) in [
        (TimelineChoice::Latest, HUNDREDS),
        (TimelineChoice::Number(HUNDREDS / 2), HUNDREDS / 2),
        (TimelineChoice::Current, 1),
    ] {
        let way = road(&stock, 1, start, start, choice).unwrap();
        assert_eq!(way.timeline, last);
        assert_eq!(way.end, size().start_of(11 + u64::from(last)), "{choice:?}");
        let names = way.segments(size(), way.end);
        assert!(
            names
                .iter()
                .zip(1..)
                .all(|(name, timeline)| name.timeline == timeline && name.number == 10 + u64::from(timeline))
        );
        assert_eq!(names.len(), last as usize);
    }
    // From the middle of it.
    let way = road(&stock, 300, Lsn(310 * SEGMENT + 0x40), Lsn(310 * SEGMENT + 0x80), TimelineChoice::Latest).unwrap();
    assert_eq!((way.timeline, way.legs.len()), (HUNDREDS, (HUNDREDS - 299) as usize));
    assert!(began.elapsed() < A_LOOK, "{:?}", began.elapsed());
}
