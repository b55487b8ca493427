//! Two guards that watch each other.

use std::net::{SocketAddr, UdpSocket};

use model::{AlertState, EventKind};
use rustix::process::Signal;

use crate::harness::{Guard, Place};

/// Nothing listens there; the guard guards all the same.
const NOWHERE: &str = "postgresql:///postgres?host=/nonexistent&user=nobody";

/// An address of loopback where nobody listens at the moment.
fn free() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn place(own: &str, other: &str, listen: SocketAddr, send_to: SocketAddr, key: &str) -> Place {
    let place = Place::new();
    configure(&place, own, other, listen, send_to, key);
    place
}

fn configure(place: &Place, own: &str, other: &str, listen: SocketAddr, send_to: SocketAddr, key: &str) {
    let file = place.secret("key", key);
    let peer = format!(
        "[alert.peer]\nname = \"{other}\"\nown_name = \"{own}\"\nkey_file = \"{}\"\nlisten = \"{listen}\"\nsend_to = \"{send_to}\"\nevery = \"1s\"",
        file.display()
    );
    let rules = "[alert.rules.postgres-down]\nenabled = false\n[alert.rules.peer-silent]\nsilent_s = 4\nclear_s = 1";
    place.configure(NOWHERE, &format!("\n{peer}\n{rules}\n"));
}

fn await_alert(place: &Place, after: i64, state: AlertState) -> model::Event {
    place.await_event(
        "the alert",
        after,
        |kind| matches!(kind, EventKind::Alerted { alert } if alert.rule.0 == "peer-silent" && alert.state == state),
    )
}

fn newest(place: &Place) -> i64 {
    place.events().last().unwrap().id.0
}

fn says(place: &Place, part: &str) -> bool {
    place.json(&["status"])["limitations"].to_string().contains(part)
}

#[test]
fn each_misses_the_other_when_it_is_gone_or_hangs_and_hears_it_again() {
    const KEY: &str = "s3cr3t-that-both-of-them-have";
    let (one, two) = (free(), free());
    let (a, b) = (place("a", "b", one, two, KEY), place("b", "a", two, one, KEY));
    let (guard_a, guard_b) = (Guard::start(&a), Guard::start(&b));
    // Longer than a silence that counts: they hear each other.
    std::thread::sleep(std::time::Duration::from_secs(8));
    for place in [&a, &b] {
        place.await_status("a reading", |s| !s["host"].is_null());
        assert!(!place.event_names().contains(&"alerted"), "{}", place.log());
    }

    let last = newest(&a);
    guard_b.kill9();
    let fired = await_alert(&a, last, AlertState::Firing);
    let EventKind::Alerted { alert } = fired.kind else { unreachable!() };
    assert!(alert.summary.contains("hears nothing of the guard b since "), "{}", alert.summary);
    assert_eq!(alert.severity, model::Severity::Critical);
    // Its host says that nobody listens there.
    a.await_status("the limitation", |s| s["limitations"].to_string().contains("the other guard is not told"));
    let guard_b = Guard::start(&b);
    await_alert(&a, fired.id.0, AlertState::Resolved);

    // It hangs: its worker does not speak for it.
    let last = newest(&a);
    guard_b.signal(Signal::STOP);
    let fired = await_alert(&a, last, AlertState::Firing);
    guard_b.signal(Signal::CONT);
    await_alert(&a, fired.id.0, AlertState::Resolved);

    // Another key is nobody's word, and a reload takes it over.
    let last = newest(&a);
    configure(&b, "b", "a", two, one, "another key, which the other has not");
    guard_b.signal(Signal::HUP);
    let fired = await_alert(&a, last, AlertState::Firing);
    assert!(a.log().contains("it is not signed with our key"), "{}", a.log());
    configure(&b, "b", "a", two, one, KEY);
    guard_b.signal(Signal::HUP);
    await_alert(&a, fired.id.0, AlertState::Resolved);
    assert!(!says(&a, "the other guard is not"), "{}", a.json(&["status"]));

    // Where somebody else sits on the address, that is said, and nobody is called silent.
    assert!(guard_a.stop().success());
    let taken = UdpSocket::bind(one).unwrap();
    let guard_a = Guard::start(&a);
    a.await_status("what is in its way", |s| {
        s["limitations"].to_string().contains("the other guard is not listened for")
    });
    drop(taken);
    a.await_status("no limitation", |s| !s["limitations"].to_string().contains("the other guard is not listened for"));

    let shown = [&a, &b].map(|place| place.log() + &serde_json::to_string(&place.events()).unwrap()).concat();
    assert!(!shown.contains("s3cr3t") && !shown.contains("another key, which"), "the key is a secret");
    assert!(guard_a.stop().success() && guard_b.stop().success());
}
