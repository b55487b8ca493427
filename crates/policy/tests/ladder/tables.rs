//! One story each.

use std::time::Duration;

use model::{
    ByteSize, Mode, Moment,
    reading::{CgroupLimits, VacuumKind},
};
use policy::{Ability, Effect, HoldKind, Resource, Rung, Server, State, Step};

use crate::world::{Executor, World, all_declared, at};

fn none() -> [&'static str; 0] {
    []
}

/// The outage: a vacuum takes all there is.
fn storm() -> World {
    World { vacuum: 3.0, ..World::new(all_declared()) }
}

/// Something that no rung takes away.
fn nothing_helps() -> World {
    World { other: 4.0, own_work: 0.5, ..World::new(all_declared()) }
}

/// Too much together: without the services there is room.
fn crowded() -> World {
    World { other: 2.0, ..World::new(all_declared()) }
}

#[test]
fn the_lowest_rung_that_helps_is_the_last() {
    for (what, mut world, steps) in [
        ("an ordinary host", World::new(all_declared()), vec![]),
        ("a busy one that hurts nobody", World { other: 1.0, ..World::new(all_declared()) }, vec![]),
        ("a vacuum storm", storm(), vec!["3: hold vacuums"]),
        (
            "a backup on top of the storm",
            World { own_work: 2.0, ..storm() },
            vec!["3: hold vacuums", "14: pause own work"],
        ),
        ("a backup alone", World { own_work: 2.5, ..World::new(all_declared()) }, vec!["5: pause own work"]),
        ("too many services", crowded(), vec!["20: stop metabase", "81: stop site"]),
        ("little memory", World { memory: 0.73, ..World::new(all_declared()) }, vec!["20: stop metabase"]),
        (
            "nothing helps",
            nothing_helps(),
            vec!["5: pause own work", "21: stop metabase", "82: stop site", "143: stop PostgreSQL cleanly"],
        ),
    ] {
        // Before a minute of calm nothing is given back.
        let seconds = if steps.iter().any(|step| step.contains("site")) { 180 } else { 60 };
        assert_eq!(world.run(seconds), steps, "{what}");
    }
}

#[test]
fn what_was_taken_is_given_back_from_the_top() {
    let mut world = nothing_helps();
    assert_eq!(world.run(180).len(), 4);
    (world.other, world.own_work) = (0.0, 0.0);
    let steps = world.run(400);
    assert_eq!(
        steps,
        ["60: start PostgreSQL again", "90: start site again", "120: start metabase again", "150: resume own work"]
    );
    assert!(world.state.held().is_empty());
    let decision = world.second();
    assert_eq!((decision.step, decision.news), (Step::Hold { kind: HoldKind::Calm }, false));
}

/// An act may be done before the next look: its end is told all the same, or an alert for it would never end.
#[test]
fn that_nothing_is_in_force_any_more_is_told_once() {
    let mut world = crowded();
    world.run(30);
    assert!(!world.state.held().is_empty());
    world.other = 0.0;
    assert_eq!(world.run(60), ["60: start metabase again"]);
    let end = world.second();
    assert_eq!((end.step, end.news), (Step::Hold { kind: HoldKind::Calm }, true));
    assert!(world.state.held().is_empty());
    assert!(!world.second().news);
}

#[test]
fn a_rung_has_a_longest_time_whatever_the_pressure() {
    let mut world = nothing_helps();
    let steps = world.run(3 * 3_600);
    let of_postgres: Vec<&String> = steps.iter().filter(|step| step.contains("PostgreSQL")).collect();
    assert_eq!(
        of_postgres,
        ["143: stop PostgreSQL cleanly", "1044: start PostgreSQL again"],
        "once a day, for 15 minutes"
    );
    let site = |step: &&String| step.contains("site");
    assert_eq!(steps.iter().filter(site).count(), 5, "an hour each, with a wait between: {steps:#?}");
}

#[test]
fn a_relapse_makes_the_next_way_down_longer() {
    let mut world = storm();
    // This executor lets go of a vacuum that still runs, as the governor would not.
    let steps = world.run(600);
    assert_eq!(
        steps,
        [
            "3: hold vacuums",
            "63: let vacuums go",
            "74: hold vacuums",
            "194: let vacuums go",
            "205: hold vacuums",
            "445: let vacuums go",
            "456: hold vacuums",
        ]
    );
}

#[test]
fn the_reason_holds_the_reading_the_rungs_below_and_whose_they_are() {
    let mut world = World { vacuum: 3.0, ..nothing_helps() };
    world.lever("vacuum").ability = Ability::Owned("CloudNativePG".into());
    world.kind = VacuumKind::AntiWraparound;
    let climbs: Vec<_> = (0..60)
        .filter_map(|_| {
            let decision = world.second();
            matches!(decision.step, Step::Climb { .. }).then_some(decision)
        })
        .collect();
    let services = &climbs[1];
    assert!(matches!(services.step, Step::Climb { rung: Rung::StopServices(1), carry_out: true, .. }), "{services:?}");
    assert!(services.news);
    let cause = services.cause.as_ref().unwrap();
    assert_eq!((cause.resource, cause.at), (Resource::Cpu, at(21_000)));
    assert_eq!(
        services.why,
        "critical for 21 s: 100 % of 2 CPUs busy, tasks stall 100 % of the time; PostgreSQL takes 2500 ms for a small query; \
         pause own work did not help enough"
    );
    let passed: Vec<String> = services.passed.iter().map(|(rung, why)| format!("{rung}: {why}")).collect();
    assert_eq!(
        passed,
        [
            "throttle vacuum: owned by CloudNativePG, which decides itself",
            "cancel a vacuum: pid 42 prevents wraparound",
        ]
    );
    let json = serde_json::to_string(services).unwrap();
    assert_eq!(serde_json::from_str::<policy::Decision>(&json).unwrap(), *services);
}

#[test]
fn which_vacuum_is_ended() {
    // A vacuum that can't be throttled: the only lever left is its end.
    let ends = |change: &dyn Fn(&mut World)| {
        let mut world = storm();
        world.lever("vacuum").ability = Ability::Unavailable("PostgreSQL 12 has no lever".into());
        change(&mut world);
        world.run(40).iter().any(|step| step.contains("end the vacuum of app.public.messages (pid 42)"))
    };
    type Case<'a> = (&'a str, bool, &'a dyn Fn(&mut World));
    let cases: [Case<'_>; 7] = [
        ("an ordinary one", true, &|_| {}),
        ("one against wraparound", false, &|w| w.kind = VacuumKind::AntiWraparound),
        ("a person's", false, &|w| w.kind = VacuumKind::Manual),
        ("an analysis", false, &|w| w.kind = VacuumKind::Autoanalyze),
        ("one in an old database", false, &|w| w.xid_age = 900_000_000),
        ("one that is small beside the rest", false, &|w| (w.vacuum, w.other) = (0.2, 3.0)),
        ("one that nobody may end", false, &|w| w.lever("cancel").ability = Ability::Unavailable("no grant".into())),
    ];
    for (what, ended, change) in cases {
        assert_eq!(ends(change), ended, "{what}");
    }
    // It comes again at once, and is not ended twice a day.
    let mut world = storm();
    world.lever("vacuum").ability = Ability::Unavailable("no lever".into());
    let mut ended = 0;
    for _ in 0..7_200 {
        world.second();
        if world.vacuum == 0.0 {
            ended += 1;
            world.vacuum = 3.0;
        }
    }
    assert_eq!(ended, 1);
}

#[test]
fn what_may_not_be_taken_is_not_passed() {
    // Unapproved: the ladder ends below it.
    let mut world = nothing_helps();
    world.settings.stop_postgres_approved_by = None;
    assert_eq!(world.run(600).last().unwrap(), "82: stop site");
    let decision = world.second();
    assert_eq!(decision.step, Step::Hold { kind: HoldKind::Blocked(Rung::StopPostgres) });
    assert!(decision.why.contains("nobody approved it"), "{}", decision.why);
    assert!(decision.cause.is_some() && !decision.news, "it was said before");

    // A daily limit: nothing above it is taken in its stead.
    let mut world = World { own_work: 2.5, ..World::new(all_declared()) };
    world.settings.pause_own_work.per_day = 1;
    assert_eq!(world.run(70), ["5: pause own work", "65: resume own work"]);
    assert_eq!(world.run(600), none());
    let decision = world.second();
    assert_eq!(decision.step, Step::Hold { kind: HoldKind::Blocked(Rung::PauseOwnWork) });
    assert!(decision.why.contains("1 times within a day"), "{}", decision.why);

    // Nothing is left, and that is said.
    let mut world = nothing_helps();
    world.settings.stop_postgres.declared = false;
    world.run(600);
    assert_eq!(world.second().step, Step::Hold { kind: HoldKind::Exhausted });
}

#[test]
fn whoever_owns_a_thing_keeps_it() {
    let mut world = nothing_helps();
    world.lever("postgres").ability = Ability::Owned("Patroni".into());
    world.service_levers.get_mut(&"site".into()).unwrap().ability = Ability::Owned("the kubelet".into());
    assert_eq!(world.run(600), ["5: pause own work", "21: stop metabase"]);
    let decision = world.second();
    assert_eq!(decision.step, Step::Hold { kind: HoldKind::Exhausted });
    let passed: Vec<String> = decision.passed.iter().map(|(_, why)| why.clone()).collect();
    assert!(passed.contains(&"owned by Patroni, which decides itself".to_owned()), "{passed:?}");
    assert!(passed.contains(&"site: owned by the kubelet, which decides itself".to_owned()), "{passed:?}");

    for (server, why) in
        [(Server::Recovering, "recovers"), (Server::Unknown, "nobody knows"), (Server::Stopped, "does not run")]
    {
        let mut world = World { server, memory: 0.9, ..nothing_helps() };
        let steps = world.run(600);
        assert!(!steps.iter().any(|step| step.contains("PostgreSQL")), "{server:?}: {steps:?}");
        let decision = world.second();
        assert!(
            decision.passed.iter().any(|(rung, no)| *rung == Rung::StopPostgres && no.contains(why)),
            "{decision:?}"
        );
    }
}

#[test]
fn what_another_does_is_as_good_and_left_to_him() {
    let mut world = nothing_helps();
    world.vacuum = 3.0;
    world.lever("vacuum").effect = Effect::Elsewhere("the governor holds pid 42".into());
    let steps = world.run(40);
    assert_eq!(steps, ["11: pause own work", "27: stop metabase"], "it has its time to help too");

    // A person starts what the ladder stopped: it is not stopped again before its cooldown is over.
    world.service_levers.get_mut(&"metabase".into()).unwrap().effect = Effect::Off;
    let decision = world.second();
    assert_eq!(decision.notes, ["stop services (shed = 1) is over: somebody else ended it"]);
    world.run(60);
    assert_eq!(world.second().step, Step::Hold { kind: HoldKind::Blocked(Rung::StopServices(1)) });
    (world.other, world.own_work, world.vacuum) = (0.0, 0.0, 0.0);
    assert_eq!(world.run(300), ["60: resume own work"], "neither the governor's hold nor the person's service");
}

#[test]
fn without_readings_everything_stays() {
    let mut world = crowded();
    world.run(30);
    assert_eq!(world.state.held().len(), 1);
    world.blind = true;
    assert_eq!(world.run(600), none());
    let decision = world.second();
    assert_eq!(decision.step, Step::Hold { kind: HoldKind::Blind });
    assert_eq!(decision.why, "no reading of the host yet: everything stays as it is");
    world.blind = false;
    assert_eq!(world.run(19), none(), "what was not seen was neither critical nor calm");
    assert_eq!(world.run(2), ["1: stop site"]);
}

#[test]
fn a_dry_run_goes_the_whole_way_and_does_nothing() {
    let mut world = nothing_helps();
    world.settings.mode = Mode::Observe;
    let steps = world.run(180);
    assert_eq!(
        steps,
        [
            "5: would pause own work",
            "20: would stop metabase",
            "80: would stop site",
            "140: would stop PostgreSQL cleanly"
        ]
    );
    assert_eq!(world.state.spent(Rung::PauseOwnWork, at(world.ms)), 0);
    // Switched to act in the middle: what was only proposed was not done.
    world.settings.mode = Mode::Act;
    world.settings.stop_services.cooldown = Duration::from_secs(1);
    assert_eq!(world.run(30)[..1], ["1: pause own work"]);
    // And back: what was done is given back all the same.
    world.settings.mode = Mode::Observe;
    (world.other, world.own_work) = (0.0, 0.0);
    let back = world.run(300);
    assert!(
        back.contains(&"60: resume own work".to_owned()) || back.iter().any(|s| s.ends_with(": resume own work")),
        "{back:?}"
    );
    assert!(world.levers["own"].effect == Effect::Off);
}

#[test]
fn a_rung_goes_no_further_than_those_below_it() {
    let mut world = nothing_helps();
    world.settings.pause_own_work.mode = Mode::Advise;
    let steps = world.run(180);
    assert_eq!(steps[..2], ["5: would pause own work", "20: would stop metabase"], "its help was never seen");
}

#[test]
fn acts_that_fail_or_are_lost() {
    // Failed: told, and the next rung is taken.
    let mut world = nothing_helps();
    world.lever("own").executor = Executor::Fails(2);
    let steps = world.run(60);
    assert_eq!(steps, ["5: pause own work", "22: stop metabase"]);
    assert_eq!(world.state.held().len(), 1);
    let decision = world.run(60);
    assert_eq!(decision, ["23: stop site"]);

    // Lost: the same, after a wait.
    let mut world = nothing_helps();
    world.lever("own").executor = Executor::Dies;
    assert_eq!(world.run(60), ["5: pause own work", "35: stop metabase"]);

    // What can't be given back is tried for ever, and given back once it can.
    let mut world = crowded();
    world.run(30);
    world.other = 0.0;
    world.service_levers.get_mut(&"metabase".into()).unwrap().executor = Executor::Fails(5);
    let tries = world.run(3_600);
    assert_eq!(tries.len(), 119, "every 30 s: {:?}", &tries[..3]);
    assert!(tries.iter().all(|step| step.ends_with("start metabase again")));
    assert_eq!(world.state.held().len(), 1);
    world.service_levers.get_mut(&"metabase".into()).unwrap().executor = Executor::After(1);
    world.run(60);
    assert!(world.state.held().is_empty());
}

#[test]
fn a_restart_forgets_nothing_that_bounds_it() {
    let mut world = nothing_helps();
    world.run(180);
    let saved = serde_json::to_string(&world.state).unwrap();
    let before = world.state.clone();
    world.state = serde_json::from_str::<State>(&saved).unwrap();
    assert_eq!(world.state, before);
    world.state = world.state.clone().restarted(at(world.ms), true);
    assert_eq!(world.state.held().len(), 4);
    assert_eq!(world.state.spent(Rung::StopPostgres, at(world.ms)), 1);
    assert_eq!(world.run(600), none(), "PostgreSQL was stopped {} s ago", (world.ms - 143_000) / 1_000);

    // Another boot, two hours later by the wall clock: the boot clock began anew.
    let now = Moment { boot_us: 60_000_000, wall: at(world.ms + 7_200_000).wall };
    let after = world.state.clone().restarted(now, false);
    assert_eq!(after.spent(Rung::StopPostgres, now), 1);
    let tomorrow = now.plus(Duration::from_secs(86_400));
    assert_eq!(after.spent(Rung::StopPostgres, tomorrow), 0, "what is older than the boot counts from the boot");
    // A wall clock that was set back makes acts younger, never older.
    let back = Moment { boot_us: 60_000_000, wall: at(0).wall };
    assert_eq!(world.state.clone().restarted(back, false).spent(Rung::StopPostgres, back), 1);
}

#[test]
fn a_lost_state_is_made_good() {
    let mut world = crowded();
    world.run(30);
    world.state = State::default();
    let decision = world.second();
    assert_eq!(decision.notes, ["stop services (shed = 1) is in force by us, though nothing was written of it"]);
    world.other = 0.0;
    assert_eq!(world.run(120), ["60: start metabase again"]);
}

#[test]
fn a_host_without_psi_and_one_that_starves_the_sampler() {
    let mut world = World { psi: false, ..storm() };
    assert_eq!(world.run(30), ["3: hold vacuums"]);
    let mut world = World { psi: false, memory: 0.79, ..World::new(all_declared()) };
    assert_eq!(world.run(30), ["20: stop metabase"], "by what is available alone");
}

#[test]
fn a_full_group_counts_where_postgresql_is_in_it() {
    let group = |used_mib: u64, binds_database| CgroupLimits {
        memory: Some(ByteSize(1 << 30)),
        memory_used: Some(ByteSize(used_mib << 20)),
        binds_database,
        ..CgroupLimits::default()
    };
    let calm = || World { memory: 0.2, ..World::new(all_declared()) };
    let mut full = World { group: group(1_000, true), ..calm() };
    assert_eq!(full.run(19), none());
    let climb = full.second();
    assert!(matches!(climb.step, Step::Climb { rung: Rung::StopServices(1), .. }), "{climb:?}");
    let words = "24 MiB of 1.0 GiB memory available to PostgreSQL's control group";
    assert!(climb.why.contains(words), "{climb:?}");
    assert!(climb.cause.is_some_and(|cause| cause.words.contains(words)));
    for group in [group(1_000, false), group(700, true), CgroupLimits { memory_used: None, ..group(1_000, true) }] {
        assert_eq!(World { group, ..calm() }.run(120), none(), "{group:?}");
    }
    // A limit beyond all memory is none.
    let beyond =
        CgroupLimits { memory: Some(ByteSize(1 << 62)), memory_used: Some(ByteSize(1 << 62)), ..group(0, true) };
    assert_eq!(World { group: beyond, ..calm() }.run(120), none());
}

#[test]
fn status_shows_every_rung_that_is_declared() {
    let mut world = nothing_helps();
    world.run(30);
    let shown: Vec<String> = world
        .view()
        .iter()
        .map(|rung| format!("{} [{}] {}/{}: {}", rung.rung, rung.mode, rung.spent, rung.per_day, rung.words))
        .collect();
    assert_eq!(
        shown,
        [
            "throttle vacuum [act] 0/200: no vacuum runs",
            "pause own work [act] 1/48: in force",
            "cancel a vacuum [act] 0/3: no vacuum runs",
            "stop services (shed = 1) [act] 1/4: in force",
            "stop services (shed = 2) [act] 0/4: stop site",
            "stop PostgreSQL [act] 0/1: stop PostgreSQL cleanly",
        ]
    );
}
