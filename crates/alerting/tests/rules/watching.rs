//! Rules about what stalls, what is taken away, and what is no longer seen.

use model::{
    event::SilentBy,
    reading::{Health, ServiceReading},
};

use super::*;

/// So many seconds of a host, with the database asked in each.
fn seconds(
    range: std::ops::Range<u64>,
    took_ms: u64,
    waiting: u32,
    host_at: impl Fn(u64) -> HostReading,
) -> Vec<Observation> {
    let both = |s: u64| {
        let mut sessions = activity(s * 1_000);
        sessions.took = Duration::from_millis(took_ms);
        sessions.connections.active_waiting = waiting;
        [of_activity(sessions), of_host(host_at(s * 1_000 + 1))]
    };
    range.flat_map(both).collect()
}

#[test]
fn stalls_that_nothing_else_explains() {
    let full = |share: f64| Some(Pressure { some: Share(share), full: Share(share) });
    let io = |ms| HostReading { io_pressure: full(0.6), ..host(ms) };
    let memory = |ms| HostReading { memory_pressure: full(0.3), ..host(ms) };
    let quota = |ms| HostReading { cpu_pressure: some(0.9), ..host(ms) };
    let busy_cpu = |ms| HostReading { cpu_pressure: some(0.9), cpu: busy(0.9), ..host(ms) };
    let cases: [(&str, u64, u32, &dyn Fn(u64) -> HostReading, Option<&str>); 7] = [
        ("a backup at night", 3, 0, &io, None),
        ("the disk, and we wait", 400, 0, &io, Some("its disks")),
        ("the disk, and many wait", 3, 10, &io, Some("its disks")),
        ("a control group's memory", 400, 0, &memory, Some("memory")),
        ("a quota", 400, 0, &quota, Some("CPU time that is withheld")),
        ("busy CPUs are another rule's", 400, 0, &busy_cpu, None),
        ("slow for no such reason", 400, 9, &host, None),
    ];
    for (what, took, waiting, reading, says) in cases {
        let mut rules = rules();
        let fired = observe(&mut rules, seconds(0..30, took, waiting, reading));
        assert_eq!(
            names(&fired),
            says.map(|_| "pressure-stalled fires warning".to_owned()).into_iter().collect::<Vec<_>>(),
            "{what}"
        );
        let Some(says) = says else { continue };
        check_shape(&fired[0]);
        assert!(fired[0].summary.starts_with(&format!("db1 stalls for {says}: ")), "{}", fired[0].summary);
        let ended = observe(&mut rules, seconds(30..70, 3, 0, host));
        assert_eq!(names(&ended), ["pressure-stalled resolves warning"], "{what}");
    }
    assert!(observe(&mut rules(), seconds(0..15, 400, 0, io)).is_empty(), "a moment");
}

#[test]
fn cpu_that_others_take() {
    let stolen = |share: f64| {
        let cpu = CpuShares { user: 0.2, steal: share, idle: 0.8 - share, ..CpuShares::default() };
        let reading = move |s: u64| of_host(HostReading { cpu, ..host(s * 1_000) });
        names(&observe(&mut rules(), (0..70).map(reading)))
    };
    assert_eq!(stolen(0.25), ["cpu-stolen fires warning"]);
    assert_eq!(stolen(0.15), Vec::<String>::new());
}

#[test]
fn clocks_that_jump_or_differ() {
    let stepped = |by_ms| Observation::Event(at(0), EventKind::ClockStepped { by_ms });
    let none: [&str; 0] = [];
    assert_eq!(names(&observe(&mut rules(), [stepped(4_999)])), none);
    let mut one = rules();
    let fired = observe(&mut one, [stepped(-3_600_000)]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].summary, "The clock of db1 was set back by 1 h 0 min");
    assert_eq!(names(&observe(&mut one, (0..=61).map(|s| of_host(host(s * 1_000))))), ["clock-off resolves warning"]);

    let ahead = |ms: i64, took_ms: u64| {
        let reading = move |s: u64| {
            let took = Duration::from_millis(took_ms);
            of_activity(ActivityReading { clock_ahead_ms: Some(ms), took, ..activity(s * 1_000) })
        };
        observe(&mut rules(), (0..5).map(reading))
    };
    assert_eq!(names(&ahead(4_000, 3)), none);
    assert_eq!(names(&ahead(6_000, 2_400)), none, "half of the answer's time is not known");
    let fired = ahead(-90_000, 3);
    assert_eq!(names(&fired), ["clock-off fires warning"]);
    assert_eq!(
        (fired[0].decided, fired[0].summary.as_str()),
        (at(2_000), "main: the server's clock is 1 min 30 s behind of ours")
    );
}

fn checked(ms: u64, name: &str, healthy: bool) -> Observation {
    Observation::Reading(Reading::Service(ServiceReading {
        at: at(ms),
        service: name.into(),
        health: if healthy { Health::Healthy } else { Health::Unhealthy },
        took: Duration::from_millis(3),
        detail: (!healthy).then(|| "status 503".to_owned()),
        stopped_by: None,
    }))
}

#[test]
fn what_is_no_longer_seen() {
    let seen = |range: std::ops::Range<u64>, service: u64, server: u64| {
        range.flat_map(move |s| {
            let mut all = vec![of_host(host(s * 1_000))];
            all.extend((s < server).then(|| of_activity(activity(s * 1_000))));
            all.extend((s < service && s % 30 == 0).then(|| checked(s * 1_000, "site", true)));
            all
        })
    };
    let none: [&str; 0] = [];
    assert_eq!(names(&observe(&mut rules(), seen(0..600, 600, 600))), none);
    let mut rules_of_one = rules();
    let fired = observe(&mut rules_of_one, seen(0..600, 300, 600));
    assert_eq!(names(&fired), ["target-vanished fires warning"]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].summary, "main: nothing heard of service site for 2 min 2 s");
    let again = observe(&mut rules_of_one, seen(600..640, 640, 640));
    assert_eq!(names(&again), ["target-vanished resolves warning"]);
    assert_eq!(
        names(&observe(&mut rules(), seen(0..600, 600, 300))),
        ["target-vanished fires warning"],
        "the server's sessions"
    );
    // A server that is down is not looked at, and a guard that slept saw nothing.
    let mut down_for_long = rules();
    let fired = observe(&mut down_for_long, seen(0..300, 600, 300).chain([down(300_000, DownReason::NotListening)]));
    assert_eq!(names(&fired), none);
    let later = observe(&mut down_for_long, seen(301..600, 600, 300));
    assert_eq!(names(&later), ["postgres-down fires critical"]);
    let slept = seen(0..60, 60, 60).chain(seen(7_000..7_100, 7_100, 7_100));
    assert_eq!(names(&observe(&mut rules(), slept)), none);
}

#[test]
fn services_that_do_not_answer() {
    let mut one = rules();
    let lost = EventKind::ServiceChanged {
        service: "tracker".into(),
        health: Health::Unhealthy,
        detail: "status 503".into(),
        impact: vec!["nobody hears of errors".into()],
    };
    let failing = (0..7).map(|n| checked(n * 10_000, "tracker", false));
    let fired = observe(&mut one, std::iter::once(Observation::Event(at(0), lost)).chain(failing));
    assert_eq!(names(&fired), ["service-unhealthy fires warning"]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].summary, "main: service tracker unhealthy for 1 min 0 s: status 503");
    assert!(fired[0].details.contains(&"without tracker: nobody hears of errors".to_owned()), "{:?}", fired[0].details);
    let healed = observe(&mut one, [checked(70_000, "tracker", true), checked(80_000, "tracker", true)]);
    assert_eq!(names(&healed), ["service-unhealthy resolves warning"]);

    // While the database is down that explains it, and for a minute after.
    let mut outage = rules();
    let mut script = vec![down(0, DownReason::NotListening)];
    script.extend((0..30).map(|n| checked(n * 10_000 + 100, "site", false)));
    script.push(up(300_000));
    script.extend((30..36).map(|n| checked(n * 10_000 + 100, "site", false)));
    assert!(observe(&mut outage, script).iter().all(|alert| alert.rule.0 == "postgres-down"));
    let still = observe(&mut outage, [checked(361_000, "site", false)]);
    assert_eq!(names(&still), ["service-unhealthy fires warning"]);
}

#[test]
fn a_guard_that_comes_back_says_how_long_it_was_gone() {
    let silent = |s: u64, by| {
        Observation::Event(
            at(0),
            EventKind::GuardWasSilent { silence: Duration::from_secs(s), cause: "in so many words".into(), by },
        )
    };
    let none: [&str; 0] = [];
    assert_eq!(names(&observe(&mut rules(), [silent(59, SilentBy::Killed)])), none, "too short");
    assert_eq!(names(&observe(&mut rules(), [silent(90_000, SilentBy::Stopped)])), none, "somebody wanted that");
    for (by, says) in [
        (SilentBy::Killed, "was killed or crashed"),
        (SilentBy::Rebooted, "the host went down"),
        (SilentBy::Suspended, "the host was suspended"),
        (SilentBy::Starved, "got no CPU"),
        (SilentBy::Unknown, "nobody knows why"),
    ] {
        let mut rules = rules();
        let fired = observe(&mut rules, [silent(754, by)]);
        assert_eq!(names(&fired), ["guard-was-silent fires warning"], "{by:?}");
        check_shape(&fired[0]);
        assert!(fired[0].summary.starts_with("Nobody watched main on db1 for 12 min 34 s: "), "{}", fired[0].summary);
        assert!(fired[0].summary.contains(says), "{}", fired[0].summary);
        assert_eq!(fired[0].labels["silent_by"], by.name());
        assert_eq!(
            fired[0].details,
            ["in so many words", "silent from 2027-01-15 07:47:26 UTC to 2027-01-15 08:00:00 UTC"]
        );
        // Killed again at once: the same episode.
        let again = Observation::Event(
            at(10_000),
            EventKind::GuardWasSilent { silence: Duration::from_secs(61), cause: String::new(), by },
        );
        let quiet = |range: std::ops::Range<u64>| range.map(|s| of_host(host(s * 1_000)));
        assert_eq!(names(&observe(&mut rules, quiet(1..10))), none);
        assert_eq!(names(&observe(&mut rules, [again])), none);
        assert_eq!(names(&observe(&mut rules, quiet(11..70))), none);
        let ended = observe(&mut rules, quiet(70..73));
        assert_eq!(names(&ended), ["guard-was-silent resolves warning"]);
        assert!(ended[0].summary.starts_with("The guard of main is back on db1: "), "{}", ended[0].summary);
    }
}

#[test]
fn another_guard_that_is_not_heard() {
    let watched = |s: u64, silence: u64, heard| {
        let silence = Duration::from_secs(silence);
        Observation::Event(at(s * 1_000), EventKind::PeerWatched { peer: "db2".into(), silence, heard })
    };
    let none: [&str; 0] = [];
    let mut one = rules();
    assert_eq!(names(&observe(&mut one, (0..100).map(|s| watched(s, s % 10, true)))), none);
    assert_eq!(names(&observe(&mut one, (100..159).map(|s| watched(s, s - 100, true)))), none);
    let fired = observe(&mut one, [watched(160, 60, true)]);
    assert_eq!(names(&fired), ["peer-silent fires critical"]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].since, at(100_000));
    assert_eq!(fired[0].summary, "db1 hears nothing of the guard db2 since 1 min 0 s");
    assert_eq!(fired[0].labels["peer"], "db2");
    // A new ear has heard nothing yet: that is no news of the other.
    assert_eq!(names(&observe(&mut one, (161..200).map(|s| watched(s, s - 161, false)))), none);
    assert_eq!(names(&observe(&mut one, (200..205).map(|s| watched(s, 1, true)))), none);
    let ended = observe(&mut one, (205..212).map(|s| watched(s, 1, true)));
    assert_eq!(names(&ended), ["peer-silent resolves critical"]);
    // One that was never there is missed as well.
    let fired = observe(&mut rules(), (0..61).map(|s| watched(s, s, false)));
    assert_eq!(names(&fired), ["peer-silent fires critical"]);
}
