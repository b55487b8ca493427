//! Whatever comes, in whatever order.

use std::{collections::BTreeMap, time::Duration};

use model::{Mode, ServiceName, reading::VacuumKind};
use policy::{Ability, Act, Effect, Rung, Settings, Step};
use proptest::prelude::*;

use crate::world::{Executor, World, all_declared, at};

/// What happens to the host at some second.
#[derive(Clone, Debug)]
enum Change {
    Clients(f64),
    Vacuum(f64),
    OwnWork(f64),
    Other(f64),
    Memory(f64),
    Blind(bool),
    /// A lever: its ability, or what becomes of acts on it.
    Owned(usize, bool),
    Executor(usize, Executor),
    /// A person or another controller ends what is in force there, or does it himself.
    Ended(usize),
    Elsewhere(usize),
    /// The guard is started again, from its state or without.
    Restart(bool),
}

/// Each is up to an hour and a half, second by second.
const CASES: u32 = 8;

/// The levers by number: the four, then the two services.
const LEVERS: usize = 6;

fn any_executor() -> impl Strategy<Value = Executor> {
    prop_oneof![
        4 => (0_u64..20).prop_map(Executor::After),
        1 => (0_u64..20).prop_map(Executor::Fails),
        1 => Just(Executor::Dies),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (0.0..2.0_f64).prop_map(Change::Clients),
        2 => prop_oneof![Just(0.0), 0.5..4.0_f64].prop_map(Change::Vacuum),
        2 => prop_oneof![Just(0.0), 0.5..4.0_f64].prop_map(Change::OwnWork),
        3 => prop_oneof![Just(0.0), 0.5..4.0_f64].prop_map(Change::Other),
        1 => (0.2..0.8_f64).prop_map(Change::Memory),
        1 => any::<bool>().prop_map(Change::Blind),
        1 => (0..LEVERS, any::<bool>()).prop_map(|(lever, owned)| Change::Owned(lever, owned)),
        1 => (0..LEVERS, any_executor()).prop_map(|(lever, executor)| Change::Executor(lever, executor)),
        1 => (0..LEVERS).prop_map(Change::Ended),
        1 => (0..LEVERS).prop_map(Change::Elsewhere),
        1 => any::<bool>().prop_map(Change::Restart),
    ]
}

impl World {
    fn numbered(&mut self, lever: usize) -> &mut crate::world::Lever {
        let names = ["vacuum", "own", "cancel", "postgres"];
        match names.get(lever) {
            Some(name) => self.lever(name),
            None => {
                let name: ServiceName = ["metabase", "site"][lever - names.len()].into();
                self.service_levers.get_mut(&name).unwrap()
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change.clone() {
            Change::Clients(cores) => self.clients = cores,
            Change::Vacuum(cores) => {
                self.vacuum = cores;
                self.kind = if cores > 3.0 { VacuumKind::AntiWraparound } else { VacuumKind::Autovacuum };
            }
            Change::OwnWork(cores) => self.own_work = cores,
            Change::Other(cores) => self.other = cores,
            Change::Memory(share) => self.memory = share,
            Change::Blind(blind) => self.blind = blind,
            Change::Owned(lever, owned) => {
                let owner = Ability::Owned("somebody".into());
                self.numbered(lever).ability = if owned { owner } else { Ability::Ready };
            }
            Change::Executor(lever, executor) => self.numbered(lever).executor = executor,
            Change::Ended(lever) => self.numbered(lever).effect = Effect::Off,
            // Ending a vacuum is done once: nothing of it stays in force.
            Change::Elsewhere(2) => {}
            Change::Elsewhere(lever) => {
                let lever = self.numbered(lever);
                if lever.effect == Effect::Off {
                    lever.effect = Effect::Elsewhere("somebody else does it".into());
                }
            }
            Change::Restart(saved) => {
                let json = serde_json::to_string(&self.state).unwrap();
                let read = serde_json::from_str::<policy::State>(&json).unwrap();
                self.state = if saved { read.restarted(at(self.ms), true) } else { read };
            }
        }
    }
}

fn any_settings() -> impl Strategy<Value = Settings> {
    (1_u32..5, 1_u64..30, 1_u64..60, 5_u64..120, any::<[bool; 4]>()).prop_map(
        |(per_day, patience, cooldown, calm, declared)| {
            let mut settings = all_declared();
            settings.pause_own_work.declared = declared[0];
            settings.cancel_vacuum.declared = declared[1];
            settings.stop_services.declared = declared[2];
            settings.stop_postgres.declared = declared[3];
            for rung in [
                &mut settings.throttle_vacuum,
                &mut settings.pause_own_work,
                &mut settings.cancel_vacuum,
                &mut settings.stop_services,
                &mut settings.stop_postgres,
            ] {
                rung.per_day = per_day;
                rung.patience = Duration::from_secs(patience);
                rung.cooldown = Duration::from_secs(cooldown);
                rung.longest = Duration::from_secs(600);
            }
            settings.calm_for = Duration::from_secs(calm);
            assert_eq!(settings.check(), Ok(()));
            settings
        },
    )
}

/// A script: seconds to wait, then a change.
fn any_script() -> impl Strategy<Value = Vec<(u64, Change)>> {
    proptest::collection::vec((1_u64..180, any_change()), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rungs in order, bounds kept, owners respected, blindness idle, one act at a time.
    #[test]
    fn nothing_makes_it_unsafe(settings in any_settings(), script in any_script()) {
        let mut world = World::new(settings);
        let mut taken: BTreeMap<Rung, Vec<u64>> = BTreeMap::new();
        let mut given_back: BTreeMap<Rung, u64> = BTreeMap::new();
        for (seconds, change) in &script {
            world.change(change);
            for _ in 0..*seconds {
                let before = world.clone();
                let decision = world.second();
                let (rung, up) = match &decision.step {
                    Step::Hold { .. } => continue,
                    Step::Climb { rung, carry_out, .. } => { prop_assert!(*carry_out); (*rung, true) }
                    Step::StepDown { rung, .. } => (*rung, false),
                };
                prop_assert!(decision.news && !decision.why.is_empty());
                let busy = before.state.held().iter().any(|held| held.in_force.is_none() || held.returning.is_some());
                if !up {
                    // From the top, but for a rung whose way back is being tried again.
                    let top = before.state.held().last().map(|held| held.rung);
                    prop_assert!(top == Some(rung) || busy, "{rung} is not the top");
                    given_back.insert(rung, world.ms);
                    continue;
                }
                prop_assert!(!before.blind, "blind");
                prop_assert!(!before.state.held().iter().any(|held| held.rung == rung), "{rung} is held already");
                prop_assert!(decision.cause.is_some());
                // No rung below was skipped.
                let ladder = policy::rungs(&before.facts_now(), &before.settings);
                for below in ladder.iter().filter(|below| **below < rung) {
                    let held = world.state.held().iter().any(|held| held.rung == *below && held.in_force.is_some());
                    let passed = decision.passed.iter().any(|(passed, why)| passed == below && !why.is_empty());
                    prop_assert!(held || passed, "{below} was skipped for {rung}: {decision:?}");
                }
                for held in before.state.held() {
                    let patience = world.settings.of(held.rung).patience;
                    let had = held.in_force.map(|since| at(world.ms).since(since));
                    prop_assert!(had.is_some_and(|had| had >= patience), "{} had no time to help", held.rung);
                }
                // Whoever owns it keeps it.
                if let Step::Climb { act: Act::StopServices { services }, .. } = &decision.step {
                    prop_assert!(services.iter().all(|name| before.service_levers[name].ability == Ability::Ready));
                } else {
                    prop_assert!(before.of(rung).iter().all(|lever| lever.ability == Ability::Ready));
                }
                if rung == Rung::CancelVacuum {
                    prop_assert!(before.kind == VacuumKind::Autovacuum);
                }
                // Bounds.
                let settings = *world.settings.of(rung);
                let times = taken.entry(rung).or_default();
                times.push(world.ms);
                let within_a_day = times.iter().filter(|ms| world.ms - **ms < 86_400_000).count();
                prop_assert!(within_a_day <= settings.per_day as usize, "{rung} {within_a_day} times");
                let last = if rung.stays() { given_back.get(&rung) } else { times.iter().rev().nth(1) };
                if let Some(last) = last {
                    prop_assert!(u128::from(world.ms - last) >= settings.cooldown.as_millis(), "flapping");
                }
            }
        }
    }

    /// When the trouble is over and the levers work, everything is given back, within a time that can be told.
    #[test]
    fn it_always_steps_down(settings in any_settings(), script in any_script()) {
        let mut world = World::new(settings);
        for (seconds, change) in &script {
            world.change(change);
            for _ in 0..*seconds {
                world.second();
            }
        }
        (world.vacuum, world.own_work, world.other, world.memory, world.blind) = (0.0, 0.0, 0.0, 0.4, false);
        world.clients = 0.3;
        for lever in 0..LEVERS {
            let lever = world.numbered(lever);
            lever.executor = Executor::After(1);
            if matches!(lever.effect, Effect::Elsewhere(_)) {
                lever.effect = Effect::Off;
            }
        }
        let rungs = u64::try_from(policy::rungs(&world.facts_now(), &world.settings).len()).unwrap();
        let wait = world.settings.calm_max + world.settings.retry_after + 2 * world.settings.shows_within;
        let bound = wait.as_secs() + (rungs + 1) * (world.settings.step_down_every.as_secs() + 20);
        for _ in 0..bound {
            world.second();
        }
        prop_assert!(world.state.held().is_empty(), "still held after {bound} s: {:?}", world.state.held());
        for lever in world.levers.values().chain(world.service_levers.values()) {
            prop_assert!(!lever.in_force(), "{lever:?}");
        }
    }

    /// A rung that takes the pressure away is the last: nothing above it is taken, however long it goes on.
    #[test]
    fn nothing_above_what_helps(cores in 2.2..4.0_f64, part in 0_usize..3, hours in 1_u64..3) {
        let mut world = World::new(all_declared());
        let helps = match part {
            0 => { world.vacuum = cores; Rung::ThrottleVacuum }
            1 => { world.own_work = cores; Rung::PauseOwnWork }
            _ => {
                world.services.insert("metabase".into(), (1, cores, 0.05));
                Rung::StopServices(1)
            }
        };
        for _ in 0..hours * 3_600 {
            world.second();
        }
        prop_assert!(world.acts.iter().any(|(_, rung, ..)| *rung == helps));
        prop_assert!(world.acts.iter().all(|(_, rung, ..)| *rung <= helps), "{:?}", world.acts);
    }

    /// A load that swings, at whatever rhythm, moves each rung no more often than its limit says, and less the longer it goes on.
    #[test]
    fn a_swinging_load_is_not_followed(period in 4_u64..900, on in 0.1..0.9_f64) {
        let mut world = World::new(all_declared());
        let hours = 4;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let on = ((period as f64) * on) as u64;
        for second in 0..hours * 3_600 {
            world.own_work = if second % period < on { 3.0 } else { 0.0 };
            world.second();
        }
        let moves = world.acts.iter().filter(|(_, rung, ..)| *rung == Rung::PauseOwnWork).count();
        // Taken and given back once in the time that makes it no relapse; each relapse doubles the calm that it takes, up to half an hour.
        let settings = &world.settings;
        let round = settings.relapse_within + settings.calm_for;
        let bound = 2 * (u128::from(hours) * 3_600 / u128::from(round.as_secs()) + 7);
        prop_assert!(moves as u128 <= bound, "{moves} moves in {hours} h, of {bound}");
    }

    /// On an ordinary day nothing happens at all: a tide of load, a backup, vacuums, reports, spikes of a second or two.
    #[test]
    fn an_ordinary_day(seed in any::<u64>(), peak in 0.3..0.8_f64) {
        let mut world = World::new(all_declared());
        let mut noise = seed | 1;
        let mut spike = 0;
        let mut next = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            (noise >> 11) as f64 / (1_u64 << 53) as f64
        };
        for second in 0..4_320_u64 {
            // Twenty seconds of the day in one, so that the tide is all there.
            let hour = second as f64 / 180.0;
            world.clients = (peak * (1.0 + ((hour - 8.0) / 24.0 * std::f64::consts::TAU).sin()) + 0.3 * next()) / 2.0;
            world.own_work = if (2.0..3.0).contains(&hour) { 0.7 } else { 0.0 };
            world.vacuum = if second % 600 < 40 { 0.5 } else { 0.0 };
            // A report that fills the CPUs for a while and hurts nobody; now and then one second too much for all.
            world.other = if (13.0..13.2).contains(&hour) { (2.0 - world.clients - 0.5).max(0.0) } else { 0.0 };
            if second > spike + 10 && next() < 0.01 {
                world.other = 4.0;
                spike = second;
            }
            world.memory = 0.35 + 0.2 * next();
            let decision = world.second();
            prop_assert!(matches!(decision.step, Step::Hold { .. }), "at {hour:.2} h: {decision:?}");
        }
    }

    /// Below `act` nothing is ever carried out, and what was done before is still given back.
    #[test]
    fn a_dry_run_carries_nothing_out(settings in any_settings(), script in any_script(), advise in any::<bool>()) {
        let mode = if advise { Mode::Advise } else { Mode::Observe };
        let mut world = World::new(Settings { mode, ..settings });
        for (seconds, change) in &script {
            world.change(change);
            for _ in 0..*seconds {
                world.second();
            }
        }
        prop_assert!(world.acts.iter().all(|(.., carried_out)| !carried_out));
        prop_assert!(world.levers.values().all(|lever| lever.effect != Effect::InForce));
    }
}
