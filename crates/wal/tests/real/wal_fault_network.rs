//! The network between receiver and server is cut, forgets, or is slow: two network namespaces with a cable between them, whose one end is
//! pulled. What is sent then goes nowhere, and nobody is told so.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use pg_replication::{Host, Target};
use repository::Repository;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use scratch::ScratchCluster;
use wal::receive::{self, Event, decide};

use crate::{
    apart::{apart, mounted, ran},
    support::*,
};

/// The server's address, at the near end.
const NEAR: &str = "10.99.0.1";

pub fn is_cut(major: u32) {
    apart("cut", major);
}

pub fn forgets_the_receiver(major: u32) {
    apart("half-open", major);
}

pub fn is_slow(major: u32) {
    apart("slow", major);
}

/// The cable. False where there is none to be had.
fn cable() -> bool {
    let _ = fs::create_dir_all("/run/netns");
    let made = mounted("/run/netns".as_ref(), "size=1m")
        && [
            "link set lo up",
            "link add name near type veth peer name far",
            "netns add far",
            "link set far netns far",
            "addr add 10.99.0.1/24 dev near",
            "link set near up",
            "-n far addr add 10.99.0.2/24 dev far",
            "-n far link set far up",
            "-n far link set lo up",
        ]
        .iter()
        .all(|words| ran("ip", words));
    if !made {
        println!("skipped: no network of one's own is to be had here (package iproute2)");
    }
    made
}

fn pull() {
    assert!(ran("ip", "link set near down"));
}

fn plug_in() {
    assert!(ran("ip", "link set near up"));
}

/// A server at the near end.
fn server(major: u32) -> Option<ScratchCluster> {
    let builder = keeping(major)?.setting("listen_addresses", format!("127.0.0.1,{NEAR}"));
    let cluster = builder.setting("wal_sender_timeout", "5s").start().unwrap();
    let file = cluster.data_dir().join("pg_hba.conf");
    let rules = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{rules}\nhost all,replication all 10.99.0.0/24 trust\n")).unwrap();
    sql(&cluster, &["select pg_reload_conf()"]);
    Some(cluster)
}

/// A receiver at the far end.
fn from_afar(cluster: &ScratchCluster, repository: &Repository) -> Receiver {
    let target = Target::new(Host::Tcp(NEAR.to_owned(), cluster.tcp_port()), "postgres");
    let options = receive::Options { target, ..options(cluster) };
    thread::scope(|scope| {
        let started = scope.spawn(|| {
            let far = File::open("/run/netns/far").unwrap();
            move_into_link_name_space(far.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            // Its threads are where this one is.
            Receiver::start(&options, repository)
        });
        started.join().unwrap()
    })
}

fn disconnections(receiver: &Receiver) -> usize {
    receiver.told().iter().filter(|event| matches!(event, Event::Disconnected { .. })).count()
}

pub fn cut(major: u32) {
    if !cable() {
        return;
    }
    let Some(cluster) = server(major) else { return };
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = from_afar(&cluster, &repository);
    receiver.until_connected(&cluster);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    pull();
    let began = Instant::now();
    for _ in 0..3 {
        switch(&cluster);
    }
    receiver.until("it is noticed", &cluster, || disconnections(&receiver) > 0);
    let noticed = began.elapsed();
    assert!(noticed < decide::SILENT_MAX + Duration::from_secs(15), "{noticed:?}");
    // Attempts in vain, and then one that is not.
    receiver.until("it tries again", &cluster, || disconnections(&receiver) > 1);
    write(&cluster);
    plug_in();
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. } | Event::SlotLost { .. })), "{told:#?}");
}

/// The host of a receiver is gone without a word: the server thinks for a while that it is still there, and the next one waits for the slot.
pub fn half_open(major: u32) {
    if !cable() {
        return;
    }
    let Some(cluster) = server(major) else { return };
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let lost = from_afar(&cluster, &repository);
    lost.until_connected(&cluster);
    write(&cluster);
    lost.until_acknowledged(&cluster, now(&cluster));
    pull();
    drop(lost);
    write(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_told(
        "that the slot is in use",
        &cluster,
        |event| matches!(event, Event::Disconnected { why, .. } if why.contains("active")),
    );
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. } | Event::SlotLost { .. })), "{told:#?}");
}

/// Half a megabyte a second: behind, but alive, and nobody gives up.
pub fn slow(major: u32) {
    if !cable() {
        return;
    }
    let Some(cluster) = server(major) else { return };
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = from_afar(&cluster, &repository);
    receiver.until_connected(&cluster);
    if !ran("tc", "qdisc add dev near root tbf rate 4mbit burst 32kb latency 400ms") {
        return println!("skipped: this kernel can't make a network slow (tbf)");
    }
    for _ in 0..5 {
        write(&cluster);
    }
    let end = switch(&cluster);
    let began = Instant::now();
    receiver.until_acknowledged(&cluster, end);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2), "that was no slow network: {took:?}");
    assert_stored(&wal, 1, &cluster, from, end);
    assert_eq!(disconnections(&receiver), 0, "{:#?}", receiver.told());
    receiver.stop();
}
