//! The rules over constructed observations: what each says when, and that an ordinary day stays quiet.

// The helpers of an integration test are not inside a test function, where clippy allows these.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::type_complexity,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod backup;
mod build;
mod own;
mod quiet;
mod sensing;
mod wal;
mod watching;

use std::{collections::BTreeMap, time::Duration};

use alerting::{RuleSettings, Rules, Subject};
use build::*;
use jiff::Timestamp;
use model::{
    Alert, AlertState, ByteSize, Cores, EventKind, Moment, Observation, Oid, PgVersion, Pid, ProcessId, Reading,
    Severity, Share,
    event::DownReason,
    reading::{
        ActivityReading, AgeReading, CgroupLimits, Connections, CpuShares, Health, HostReading, LockWaits, Memory,
        OwnCost, Pressure, ProcessReading, ProcessRole, ServiceReading, TablesReading, VacuumKind, VacuumReading,
    },
};
use proptest::prelude::*;

const START_S: i64 = 1_800_000_000;

#[test]
fn saturation_is_decided_within_two_windows_and_ends_after_ten_quiet_seconds() {
    let mut rules = rules();
    assert!(observe(&mut rules, [of_host(host(0)), of_host(saturated(1_000))]).is_empty());
    let fired = observe(&mut rules, [of_host(saturated(2_000))]);
    assert_eq!(names(&fired), ["cpu-saturated fires warning"]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].since, at(1_000));
    assert_eq!(fired[0].decided, at(2_000));
    assert_eq!(fired[0].summary, "CPU of db1 saturated: 100 % busy, 8 tasks for 2 CPUs");

    let between = |ms| of_host(HostReading { cpu: busy(0.9), ..host(ms) });
    assert!(observe(&mut rules, (3..30).map(|s| between(s * 1_000))).is_empty());
    assert!(observe(&mut rules, (30..40).map(|s| of_host(host(s * 1_000)))).is_empty());
    let resolved = observe(&mut rules, [of_host(host(40_000))]);
    assert_eq!(names(&resolved), ["cpu-saturated resolves warning"]);
    assert_eq!(resolved[0].key, fired[0].key);
    assert_eq!(resolved[0].summary, "CPU of db1 saturated: over after 39 s");
    check_shape(&resolved[0]);
}

#[test]
fn what_counts_as_saturated() {
    let fires = |reading: fn(u64) -> HostReading| {
        !observe(&mut rules(), (0..5).map(|s| of_host(reading(s * 1_000)))).is_empty()
    };
    let cases: [(&str, fn(u64) -> HostReading, bool); 8] = [
        ("all CPUs busy, tasks stall", saturated, true),
        ("without PSI the run queue tells", |ms| HostReading { cpu_pressure: None, ..saturated(ms) }, true),
        ("busy, but nobody waits", |ms| HostReading { run_queue: 3, cpu_pressure: some(0.02), ..saturated(ms) }, false),
        (
            "busy, no PSI, nobody but the sampler waits",
            |ms| HostReading { run_queue: 3, cpu_pressure: None, ..saturated(ms) },
            false,
        ),
        ("tasks stall, but the CPUs have room", |ms| HostReading { cpu: busy(0.9), ..saturated(ms) }, false),
        (
            "waiting for disks is not busy",
            |ms| {
                let cpu = CpuShares { user: 0.2, iowait: 0.8, ..CpuShares::default() };
                HostReading { cpu, ..saturated(ms) }
            },
            false,
        ),
        (
            "stolen time is not to be had",
            |ms| {
                let cpu = CpuShares { user: 0.3, steal: 0.7, ..CpuShares::default() };
                HostReading { cpu, ..saturated(ms) }
            },
            true,
        ),
        (
            "the database's own core is full, the host is not",
            |ms| HostReading { cpu: busy(0.5), database_cpus: Some(1), database_cpu: Some(busy(1.0)), ..saturated(ms) },
            true,
        ),
    ];
    for (what, reading, expected) in cases {
        assert_eq!(fires(reading), expected, "{what}");
    }
}

#[test]
fn a_starved_sampler_decides_at_its_first_long_window() {
    let mut rules = rules();
    let long = HostReading { window: Duration::from_millis(2_600), ..saturated(2_600) };
    assert_eq!(names(&observe(&mut rules, [of_host(host(0)), of_host(long)])), ["cpu-saturated fires warning"]);
}

#[test]
fn holes_in_the_readings_neither_begin_nor_end_anything() {
    let mut rules = rules();
    assert!(observe(&mut rules, [of_host(saturated(0)), of_host(saturated(20_000))]).is_empty());
    let fired = observe(&mut rules, [of_host(saturated(21_000))]);
    assert_eq!(names(&fired), ["cpu-saturated fires warning"]);
    assert!(observe(&mut rules, [of_host(host(22_000)), of_host(host(60_000))]).is_empty());
    assert_eq!(
        names(&observe(&mut rules, (61..=70).map(|s| of_host(host(s * 1_000))))),
        ["cpu-saturated resolves warning"]
    );
}

#[test]
fn a_stepped_wall_clock_changes_no_decision() {
    let run = |step: fn(u64) -> i64| {
        let mut rules = rules();
        let readings = (0..60).map(|s| {
            let mut reading = if (10..20).contains(&s) { saturated(s * 1_000) } else { host(s * 1_000) };
            let stepped = reading.at.wall.as_second() + step(s);
            reading.at.wall = Timestamp::from_second(stepped).unwrap();
            of_host(reading)
        });
        names(&observe(&mut rules, readings))
    };
    let expected = run(|_| 0);
    assert_eq!(expected, ["cpu-saturated fires warning", "cpu-saturated resolves warning"]);
    assert_eq!(run(|s| if s > 11 { -86_400 } else { 0 }), expected);
    assert_eq!(run(|s| if s % 2 == 0 { 7_200 } else { 0 }), expected);
}

#[test]
fn memory_is_judged_by_share_and_by_amount_on_host_and_group() {
    let with = |available: ByteSize, total: ByteSize, full: f64| {
        let mut rules = rules();
        let readings = (0..4).map(|s| {
            let memory = Memory { total, available, ..Memory::default() };
            let memory_pressure = Some(Pressure { some: Share(full), full: Share(full) });
            of_host(HostReading { memory, memory_pressure, ..host(s * 1_000) })
        });
        observe(&mut rules, readings)
    };
    let mib = |n: u64| ByteSize(n << 20);
    for (what, available, total, full, expected) in [
        ("plenty", gib(4), gib(16), 0.0, None),
        ("8 % of a large host is plenty", gib(30), gib(512), 0.0, None),
        ("low", mib(1_100), gib(16), 0.0, Some(Severity::Warning)),
        ("very low", mib(300), gib(16), 0.0, Some(Severity::Critical)),
        ("a small host", mib(60), gib(1), 0.0, Some(Severity::Warning)),
        ("thrashing before it is low", gib(2), gib(16), 0.3, Some(Severity::Critical)),
        ("a stall with half of it free is no shortage", gib(8), gib(16), 0.3, None),
    ] {
        let alerts = with(available, total, full);
        assert_eq!(alerts.first().map(|a| a.severity), expected, "{what}");
        alerts.iter().for_each(check_shape);
    }

    let cgroup = CgroupLimits {
        memory: Some(gib(2)),
        memory_used: Some(ByteSize((2 << 30) - (50 << 20))),
        ..CgroupLimits::default()
    };
    let alerts = observe(&mut rules(), (0..3).map(|s| of_host(HostReading { cgroup, ..host(s * 1_000) })));
    assert_eq!(names(&alerts), ["memory-low fires critical"]);
    assert_eq!(alerts[0].summary, "Memory of db1 low: 50 MiB of 2.0 GiB left to the control group (2 %)");
    // cgroup v1 says "no limit" as a number beyond all memory.
    let cgroup = CgroupLimits { memory: Some(ByteSize(i64::MAX as u64)), ..cgroup };
    assert!(observe(&mut rules(), (0..9).map(|s| of_host(HostReading { cgroup, ..host(s * 1_000) }))).is_empty());
}

#[test]
fn postgres_is_down_after_the_grace_and_no_later_than_three_seconds() {
    let ticks = |from: u64, to: u64| (from..to).map(|s| of_host(host(s * 1_000)));
    // A restart of a second pages nobody.
    let mut quiet = rules();
    assert!(observe(&mut quiet, [down(100, DownReason::NotListening), of_host(host(1_000)), up(1_200)]).is_empty());
    assert!(observe(&mut quiet, ticks(2, 30)).is_empty());

    for (reason, severity, words) in [
        (DownReason::NotListening, Severity::Critical, "is down"),
        (DownReason::ConnectionLost, Severity::Critical, "is down"),
        (DownReason::NoAnswer, Severity::Critical, "does not answer"),
        (DownReason::OutOfConnections, Severity::Critical, "no connection left"),
        (DownReason::ShuttingDown, Severity::Critical, "shutting down"),
        (DownReason::Recovering, Severity::Warning, "progress, do not restart it"),
        (DownReason::Refused, Severity::Warning, "refuses its guard"),
        (DownReason::UnsupportedVersion, Severity::Warning, "too old"),
    ] {
        let mut rules = rules();
        let fired = observe(&mut rules, std::iter::once(down(500, reason)).chain(ticks(1, 20)));
        assert_eq!(fired.len(), 1, "{reason:?}");
        assert!(fired[0].decided.since(at(500)) <= Duration::from_secs(3));
        assert_eq!((fired[0].since, fired[0].severity), (at(500), severity));
        assert!(fired[0].summary.contains(words), "{}", fired[0].summary);
        check_shape(&fired[0]);
        let resolved = observe(&mut rules, std::iter::once(up(20_000)).chain(ticks(21, 24)));
        assert_eq!(resolved.len(), 1);
        assert_eq!((resolved[0].state, &resolved[0].key), (AlertState::Resolved, &fired[0].key));
    }
}

#[test]
fn a_crash_loop_is_told_and_recovery_that_fails_turns_worse() {
    let mut crash_loop = rules();
    let fired = observe(
        &mut crash_loop,
        (0..6).flat_map(|n| {
            [down(n * 2_000, DownReason::ConnectionLost), up(n * 2_000 + 900), of_host(host(n * 2_000 + 1_000))]
        }),
    );
    assert_eq!(names(&fired), ["postgres-down fires critical"]);

    let mut worse = rules();
    let recovering = [down(0, DownReason::Recovering), of_host(host(1_000)), of_host(host(2_000))];
    assert_eq!(names(&observe(&mut worse, recovering)), ["postgres-down fires warning"]);
    let gone = [down(3_000, DownReason::NotListening), of_host(host(4_000)), of_host(host(5_000))];
    let alerts = observe(&mut worse, gone);
    assert_eq!(names(&alerts), ["postgres-down resolves warning", "postgres-down fires critical"]);
    assert_ne!(alerts[0].key, alerts[1].key);
}

#[test]
fn connections_near_the_limit_name_the_role() {
    let used = |ms, used| {
        let mut reading = activity(ms);
        reading.connections.used = used;
        of_activity(reading)
    };
    let mut rules = rules();
    assert!(observe(&mut rules, [used(0, 84), used(1_000, 84), used(2_000, 99), used(3_000, 20)]).is_empty());
    let fired = observe(&mut rules, [used(4_000, 85), used(5_000, 90)]);
    assert_eq!(names(&fired), ["connections-near-limit fires warning"]);
    assert_eq!(fired[0].summary, "main: 90 of 100 connections used (90 %), 15 by role site");
    assert_eq!(fired[0].labels["role"], "site");
    assert!(fired[0].details[1].contains("site 15, bot 5"), "{:?}", fired[0].details);
    let worse = observe(&mut rules, [used(6_000, 95), used(7_000, 100)]);
    assert_eq!(names(&worse), ["connections-near-limit resolves warning", "connections-near-limit fires critical"]);
    fired.iter().chain(&worse).for_each(check_shape);
    let resolved = observe(&mut rules, (8..=18).map(|s| used(s * 1_000, 40)));
    assert_eq!(names(&resolved), ["connections-near-limit resolves critical"]);
    assert_eq!(resolved[0].key, worse[1].key);
}

#[test]
fn a_starving_vacuum_is_named_with_its_share_and_who_waits() {
    let mut rules = rules();
    let mut before = activity(500);
    before.vacuums = vec![vacuum(42, "public.users", 0.3), vacuum(43, "public.messages", 0.9)];
    before.took = Duration::from_millis(1_300);
    before.connections.active_waiting = 3;
    before.vacuums[0].blocks = 2;
    let storm =
        |ms| HostReading { processes: vec![worker(43, 0.8), worker(42, 0.4), worker(44, 0.1)], ..saturated(ms) };
    let fired = observe(&mut rules, [of_activity(before), of_host(storm(1_000)), of_host(storm(2_000))]);
    assert_eq!(names(&fired), ["vacuum-starves-host fires critical", "cpu-saturated fires warning"]);
    let alert = &fired[0];
    check_shape(alert);
    assert_eq!(alert.since, at(1_000));
    assert_eq!(
        alert.summary,
        "Vacuum starves db1: app.public.messages (pid 43, 40 % of the CPU) and 2 more; waiting: 8 tasks for 2 CPUs, stalled in 9…"
    );
    for (label, value) in [("database", "app"), ("table", "public.messages"), ("pid", "43")] {
        assert_eq!(alert.labels[label], value);
    }
    let details = alert.details.join("\n");
    for fact in [
        "vacuums take 65 % of the database's 2 CPUs",
        "autovacuum of app.public.messages by pid 43: 80 % of one core, 40 % of the database's CPUs, vacuuming indexes, 25 % of the table scanned",
        "autovacuum of app.public.users by pid 42: 40 % of one core",
        "autovacuum of a table not known yet by pid 44",
        "waits: 8 tasks for 2 CPUs, stalled in 90 % of the time",
        "waits: 3 of 4 active sessions inside PostgreSQL",
        "waits: 2 sessions for a lock of the vacuum with pid 42",
        "waits: a small query on the activity view took 1.3 s",
    ] {
        assert!(details.contains(fact), "{fact}\nis not in\n{details}");
    }
    // Other workers come and go: still the same episode.
    let others = |ms| HostReading { processes: vec![worker(50, 0.9)], ..saturated(ms) };
    assert!(observe(&mut rules, (3..60).map(|s| of_host(others(s * 1_000)))).is_empty());
    // The governor holds them; the clients still fill the CPUs.
    let held = |ms| HostReading { processes: vec![worker(50, 0.05)], ..saturated(ms) };
    let resolved = observe(&mut rules, (60..=73).map(|s| of_host(held(s * 1_000))));
    assert_eq!(names(&resolved), ["vacuum-starves-host resolves critical"]);
    assert_eq!(resolved[0].key, alert.key);
}

#[test]
fn a_vacuum_that_is_held_already_is_still_told_of() {
    let used = |ms, cpu| of_host(HostReading { processes: vec![worker(43, cpu)], ..saturated(ms) });
    let named = || {
        let mut reading = activity(500);
        reading.vacuums = vec![vacuum(43, "public.messages", 0.9)];
        of_activity(reading)
    };
    // The governor holds it before the saturation is confirmed.
    let fired = observe(&mut rules(), [named(), used(1_000, 0.8), used(2_000, 0.1)]);
    assert_eq!(names(&fired), ["vacuum-starves-host fires critical", "cpu-saturated fires warning"]);
    assert!(fired[0].details.contains(&"vacuums took 40 % of them 1.0 s earlier".to_owned()), "{:?}", fired[0].details);
    // What it used before the saturation, or long ago, is no cause of it.
    let before = HostReading { processes: vec![worker(43, 0.8)], ..host(1_000) };
    for quiet in [
        vec![named(), of_host(before), used(2_000, 0.1), used(3_000, 0.1)],
        vec![named(), used(1_000, 0.8), used(5_000, 0.1), used(6_000, 0.1), used(7_000, 0.1)],
    ] {
        let fired = observe(&mut rules(), quiet);
        assert!(!fired.iter().any(|a| a.rule.0 == "vacuum-starves-host"), "{fired:?}");
    }
}

#[test]
fn a_vacuum_is_not_blamed_without_cause() {
    let fires = |host_of: &dyn Fn(u64) -> HostReading, cpu: f64| {
        let mut rules = rules();
        let observations = (1..20).flat_map(|s| {
            let mut reading = activity(s * 1_000 + 100);
            reading.vacuums = vec![vacuum(42, "public.users", cpu)];
            [of_host(host_of(s * 1_000)), of_activity(reading)]
        });
        observe(&mut rules, observations).iter().any(|a| a.rule.0 == "vacuum-starves-host")
    };
    assert!(fires(&saturated, 0.5), "a quarter of two CPUs");
    assert!(!fires(&saturated, 0.28), "14 % of two CPUs: something else saturates them");
    assert!(!fires(&host, 1.0), "a vacuum at work on a host with room");
    let unwatched = |ms| HostReading { run_queue: 3, cpu_pressure: some(0.0), ..saturated(ms) };
    assert!(!fires(&unwatched, 2.0), "it fills the CPUs at night and nobody waits");
}

#[test]
fn wraparound_and_failing_recording() {
    let age = |ms, xid_age, multixact_age| {
        let ages = vec![
            AgeReading { database: "postgres".into(), xid_age: 10, multixact_age: 0 },
            AgeReading { database: "app".into(), xid_age, multixact_age },
        ];
        Observation::Reading(Reading::Tables(TablesReading {
            at: at(ms),
            database: "app".into(),
            worst: Vec::new(),
            ages,
        }))
    };
    let mut wraparound = rules();
    let alerts = observe(
        &mut wraparound,
        [
            age(0, 900_000_000, 0),
            age(60_000, 5, 1_300_000_000),
            age(120_000, 1_900_000_000, 0),
            age(180_000, 100_000_000, 0),
        ],
    );
    assert_eq!(
        names(&alerts),
        [
            "vacuum-wraparound-near fires warning",
            "vacuum-wraparound-near resolves warning",
            "vacuum-wraparound-near fires critical",
            "vacuum-wraparound-near resolves critical"
        ]
    );
    assert!(alerts[0].summary.contains("multixacts of database app"), "{}", alerts[0].summary);

    let mut recording = rules();
    let failed = |ms| Observation::Event(at(ms), EventKind::RecordingFailed { error: "disk full".into(), lost: 3 });
    let fired = observe(&mut recording, (0..30).flat_map(|s| [failed(s * 1_000), of_host(host(s * 1_000 + 500))]));
    assert_eq!(names(&fired), ["recording-failing fires warning"]);
    check_shape(&fired[0]);
    let resolved = observe(&mut recording, (30..120).map(|s| of_host(host(s * 1_000))));
    assert_eq!(names(&resolved), ["recording-failing resolves warning"]);
}

#[test]
fn the_next_guard_goes_on_with_the_same_keys() {
    let mut first = rules();
    let fired = observe(&mut first, (0..3).map(|s| of_host(saturated(s * 1_000))));
    let mut open: Vec<Alert> = first.open().cloned().collect();
    assert_eq!(open, fired);
    let mut renamed = open[0].clone();
    renamed.labels.insert("cluster".into(), "old-name".into());
    open.push(renamed);

    let mut second = rules();
    let orphans = second.resume(open, at(5_000));
    assert_eq!(names(&orphans), ["cpu-saturated resolves warning"]);
    assert!(observe(&mut second, (5..9).map(|s| of_host(saturated(s * 1_000)))).is_empty(), "it fired before");
    let resolved = observe(&mut second, (9..=19).map(|s| of_host(host(s * 1_000))));
    assert_eq!(names(&resolved), ["cpu-saturated resolves warning"]);
    assert_eq!(resolved[0].key, fired[0].key);
    let again = observe(&mut second, (20..22).map(|s| of_host(saturated(s * 1_000))));
    assert_ne!(again[0].key, fired[0].key);
}

#[test]
fn a_rule_that_is_switched_off_says_nothing() {
    let mut settings = RuleSettings::default();
    settings.cpu_saturated.enabled = false;
    let mut rules = Rules::new(&settings, subject());
    assert!(observe(&mut rules, (0..9).map(|s| of_host(saturated(s * 1_000)))).is_empty());
}

#[test]
fn a_load_that_flaps_is_one_episode() {
    let mut rules = rules();
    let readings = (0..600).map(|s| of_host(if s % 8 < 4 { saturated(s * 1_000) } else { host(s * 1_000) }));
    assert_eq!(names(&observe(&mut rules, readings)), ["cpu-saturated fires warning"]);
}

fn any_observation() -> impl Strategy<Value = (u64, Observation)> {
    let step = prop_oneof![8 => 200_u64..1_500, 1 => 0_u64..5, 1 => 5_000_u64..60_000];
    let reasons = prop_oneof![
        Just(DownReason::NotListening),
        Just(DownReason::Recovering),
        Just(DownReason::OutOfConnections),
        Just(DownReason::Refused),
    ];
    let observation = prop_oneof![
        6 => (0.0..=1.0_f64, 0_u32..12, 0.0..=1.0_f64, 0_u64..16_384, 0.0..=2.0_f64, 0_u64..4_000).prop_map(
            |(load, run_queue, stalled, available_mib, cpu, window_ms)| {
                // Mostly at the extremes: that is where transitions are.
                let load = if load > 0.4 { 1.0 } else { load };
                let mut reading = HostReading { cpu: busy(load), run_queue, cpu_pressure: some(stalled), ..host(0) };
                reading.window = Duration::from_millis(window_ms);
                reading.memory.available = ByteSize(available_mib << 20);
                reading.processes = vec![worker(42, cpu)];
                of_host(reading)
            }
        ),
        4 => (0_u32..110, 0.0..=2.0_f64, 0_u64..3_000).prop_map(|(used, cpu, took_ms)| {
            let mut reading = activity(0);
            reading.connections.used = used;
            reading.took = Duration::from_millis(took_ms);
            reading.vacuums = vec![vacuum(42, "public.users", cpu)];
            of_activity(reading)
        }),
        1 => reasons.prop_map(|reason| down(0, reason)),
        2 => Just(up(0)),
        1 => Just(Observation::Event(at(0), EventKind::RecordingFailed { error: "full".into(), lost: 1 })),
    ];
    (step, observation)
}

fn moved(observation: Observation, to: Moment) -> Observation {
    match observation {
        Observation::Reading(Reading::Host(r)) => of_host(HostReading { at: to, ..r }),
        Observation::Reading(Reading::Activity(r)) => of_activity(ActivityReading { at: to, ..r }),
        Observation::Reading(other) => Observation::Reading(other),
        Observation::Event(_, kind) => Observation::Event(to, kind),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn firings_and_resolves_alternate_under_one_key(
        script in proptest::collection::vec(any_observation(), 1..400),
        steps in proptest::collection::vec((0_usize..400, -100_000_i64..100_000), 0..3),
        restart in 0_usize..400,
    ) {
        let mut rules = rules();
        let mut open: BTreeMap<String, Alert> = BTreeMap::new();
        let mut keys = std::collections::BTreeSet::new();
        let (mut ms, mut stepped) = (0, 0);
        for (index, (step, observation)) in script.into_iter().enumerate() {
            ms += step;
            stepped += steps.iter().filter(|(when, _)| *when == index).map(|(_, by)| by).sum::<i64>();
            let mut now = at(ms);
            now.wall = Timestamp::from_second(now.wall.as_second() + stepped).unwrap();
            if index == restart {
                let left = rules.open().cloned().collect();
                rules = Rules::new(&RuleSettings::default(), subject());
                prop_assert!(rules.resume(left, now).is_empty());
            }
            for alert in rules.observe(&moved(observation, now)) {
                check_shape(&alert);
                let rule = alert.rule.0.clone();
                match alert.state {
                    AlertState::Firing => {
                        prop_assert!(keys.insert(alert.key.0.clone()), "key {} twice", alert.key);
                        prop_assert!(open.insert(rule, alert).is_none(), "fired twice");
                    }
                    AlertState::Resolved => {
                        let firing = open.remove(&rule);
                        prop_assert_eq!(firing.as_ref().map(|f| (&f.key, f.since)), Some((&alert.key, alert.since)));
                    }
                }
            }
            let said: Vec<&Alert> = rules.open().collect();
            prop_assert_eq!(said.len(), open.len());
        }
    }
}

#[test]
fn sampled_twice_a_second_saturation_is_decided_within_two_seconds() {
    let mut rules = rules();
    let half = |ms: u64| of_host(HostReading { window: Duration::from_millis(500), ..saturated(ms) });
    // It began somewhere within the window before the first one that shows it.
    assert!(observe(&mut rules, [of_host(host(0)), half(500), half(1_000)]).is_empty());
    assert_eq!(names(&observe(&mut rules, [half(1_500)])), ["cpu-saturated fires warning"]);
}
