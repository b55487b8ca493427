//! Tables and properties of the controller.

mod membership;
mod properties;

use std::time::Duration;

use jiff::Timestamp;
use model::{
    ByteSize, PgVersion, Pid,
    reading::{
        AgeReading, CgroupLimits, Connections, CpuShares, LockWaits, Memory, OwnCost, Pressure, TableReading,
        VacuumKind,
    },
};

use super::*;

fn at(ms: u64) -> Moment {
    Moment { wall: Timestamp::UNIX_EPOCH, boot_us: 1_000_000_000 + ms * 1_000 }
}

fn host(ms: u64, busy: f64, pressure: Option<f64>) -> HostReading {
    let cpu = CpuShares { user: busy, idle: 1.0 - busy, ..CpuShares::default() };
    HostReading {
        at: at(ms),
        window: Duration::from_secs(1),
        cpus: 1,
        cpu,
        database_cpus: Some(1),
        database_cpu: Some(cpu),
        run_queue: 1,
        load: [0.0; 3],
        cpu_pressure: pressure.map(|some| Pressure { some: Share(some), full: Share(0.0) }),
        memory_pressure: None,
        io_pressure: None,
        memory: Memory::default(),
        file_systems: Box::default(),
        cgroup: CgroupLimits::default(),
        processes: Vec::new(),
        oom: None,
        largest: Box::default(),
    }
}

fn activity(ms: u64, took_ms: u64) -> ActivityReading {
    ActivityReading {
        at: at(ms),
        took: Duration::from_millis(took_ms),
        version: PgVersion(180_004),
        server_started: Timestamp::UNIX_EPOCH,
        in_recovery: false,
        connections: Connections::default(),
        longest_transaction: None,
        locks: LockWaits::default(),
        vacuums: Vec::new(),
        autovacuum_slots: 3,
        own_cost: OwnCost::default(),
        idle_transaction: None,
        clock_ahead_ms: None,
    }
}

fn worker(pid: i32, cpu: f64) -> Worker {
    Worker {
        process: ProcessId { pid: Pid(pid), start_ticks: 7 },
        kind: VacuumKind::Autovacuum,
        database: "app".into(),
        table: Some(format!("public.t{pid}").into()),
        relation: Some(Oid(pid.unsigned_abs())),
        cpu: Cores(cpu),
        unmeasured: false,
        heap_blocks: Some(100_000),
        blocks_left: Some(50_000),
        protection: None,
        balanced: true,
    }
}

fn protected(pid: i32, cpu: f64, protection: Protection) -> Worker {
    Worker { protection: Some(protection), ..worker(pid, cpu) }
}

fn tables(ages: u64, worst: Vec<TableReading>) -> TablesReading {
    TablesReading {
        at: at(0),
        database: "app".into(),
        worst,
        ages: vec![AgeReading { database: "app".into(), xid_age: ages, multixact_age: 0 }],
    }
}

const fn lever(reach: Reach) -> LeverFacts {
    let quiet = if matches!(reach, Reach::Workers) { Duration::ZERO } else { Duration::from_secs(5) };
    LeverFacts { reach, resting: CostSetting { limit: 200, delay_ms: 2.0 }, delay_ms: 10.0, quiet }
}

type Change = fn(&mut World);

/// A world that the controller is stepped through.
struct World {
    ms: u64,
    state: State,
    limits: Limits,
    busy: f64,
    pressure: Option<f64>,
    canary_ms: u64,
    workers: Vec<Worker>,
    lever: LeverFacts,
    may_act: bool,
    tables: Option<TablesReading>,
    /// When the tables were read; now where it is not said.
    tables_at: Option<u64>,
    blind: bool,
    last_host: u64,
    acts: Vec<(u64, Act)>,
    verified: Vec<Verified>,
}

impl World {
    fn stormy() -> Self {
        Self {
            ms: 0,
            state: State::default(),
            limits: Limits::default(),
            busy: 1.0,
            pressure: Some(0.8),
            canary_ms: 300,
            workers: vec![worker(1, 0.4), worker(2, 0.2)],
            lever: lever(Reach::Workers),
            may_act: true,
            tables: Some(tables(1_000, Vec::new())),
            tables_at: None,
            blind: false,
            last_host: 0,
            acts: Vec::new(),
            verified: Vec::new(),
        }
    }

    fn step(&mut self) -> Act {
        self.ms += 250;
        if self.ms.is_multiple_of(1_000) && !self.blind {
            self.last_host = self.ms;
        }
        let (h, a) = (host(self.last_host, self.busy, self.pressure), activity(self.last_host, self.canary_ms));
        let seen = self.last_host > 0;
        let read = self.tables.clone().map(|t| TablesReading { at: at(self.tables_at.unwrap_or(self.ms)), ..t });
        let facts = Facts {
            now: at(self.ms),
            may_act: self.may_act,
            host: seen.then_some(&h),
            activity: seen.then_some(&a),
            tables: read.as_ref(),
            workers: &self.workers,
            lever: self.lever,
        };
        let (state, decision) = decide(&facts, &self.state, &self.limits);
        assert_eq!((state.clone(), decision.clone()), decide(&facts, &self.state, &self.limits), "deterministic");
        self.state = state;
        self.verified.extend(decision.verified);
        if decision.act != Act::Nothing {
            self.acts.push((self.ms, decision.act.clone()));
        }
        decision.act
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.step();
        }
    }

    fn run_until(&mut self, ms: u64, wanted: impl Fn(&Act) -> bool) -> Act {
        for _ in 0..ms / 250 {
            let act = self.step();
            if wanted(&act) {
                return act;
            }
        }
        panic!("not within {ms} ms; acts: {:#?}", self.acts);
    }

    fn engaged(mut self) -> Self {
        self.run_until(5_000, |act| matches!(act, Act::Engage { .. }));
        self
    }

    /// The held workers obey.
    fn obey(&mut self) {
        let held = self.state.hold.as_ref().unwrap().workers.clone();
        for w in &mut self.workers {
            if held.contains(&w.process) {
                w.cpu = Cores(0.02);
            }
        }
    }

    fn released(&mut self, within: u64) -> ReleaseReason {
        match self.run_until(within, |act| matches!(act, Act::Release { .. })) {
            Act::Release { reason, .. } => reason,
            _ => unreachable!(),
        }
    }
}

#[test]
fn a_strong_storm_is_held_after_one_full_window() {
    let mut world = World::stormy();
    let act = world.run_until(3_000, |act| matches!(act, Act::Engage { .. }));
    assert_eq!(world.ms, 1_000);
    let Act::Engage { workers, setting, reason } = act else { unreachable!() };
    assert_eq!(workers.iter().map(|w| w.pid.0).collect::<Vec<_>>(), [1, 2]);
    // 2,000 a second for each of two workers that share the limit.
    assert_eq!(setting, CostSetting { limit: 40, delay_ms: 10.0 });
    assert!(reason.contains("public.t1") && reason.contains("100 % busy"), "{reason}");
}

#[test]
fn a_weak_one_needs_a_second_reading() {
    let mut world = World { pressure: Some(0.3), canary_ms: 60, ..World::stormy() };
    world.run_until(3_500, |act| matches!(act, Act::Engage { .. }));
    assert_eq!(world.ms, 2_000);
}

#[test]
fn no_hold_without_all_three_signs() {
    let quiet = |change: Change| {
        let mut world = World::stormy();
        change(&mut world);
        world.run(20_000);
        world.acts
    };
    let table: [(&str, Change); 12] = [
        ("CPUs have room", |w| w.busy = 0.85),
        ("vacuum is a small part", |w| w.workers = vec![worker(1, 0.1)]),
        ("nobody waits", |w| (w.pressure, w.canary_ms) = (Some(0.05), 3)),
        ("no workers", |w| w.workers.clear()),
        ("wraparound", |w| w.workers = vec![protected(1, 0.9, Protection::AntiWraparound)]),
        ("analyze", |w| w.workers = vec![protected(1, 0.9, Protection::Analyze)]),
        ("small table", |w| w.workers = vec![Worker { heap_blocks: Some(100), ..worker(1, 0.9) }]),
        ("no ages", |w| w.tables = None),
        ("ages of no database", |w| w.tables.as_mut().unwrap().ages.clear()),
        ("ages of long ago", |w| (w.ms, w.tables_at) = (1_200_000, Some(0))),
        ("an old database", |w| w.tables = Some(tables(1_500_000_000, Vec::new()))),
        ("no readings", |w| w.blind = true),
    ];
    for (why, change) in table {
        assert_eq!(quiet(change), Vec::new(), "{why}");
    }
}

#[test]
fn without_psi_the_run_queue_stands_in() {
    for (queue, engages) in [(1, false), (4, true)] {
        let mut h = host(1_000, 1.0, None);
        h.run_queue = queue;
        let a = activity(1_000, 1);
        let workers = [worker(1, 0.5)];
        let read = tables(1_000, Vec::new());
        let facts = Facts {
            now: at(2_000),
            may_act: true,
            host: Some(&h),
            activity: Some(&a),
            tables: Some(&read),
            workers: &workers,
            lever: lever(Reach::Workers),
        };
        let (_, decision) = decide(&facts, &State::default(), &Limits::default());
        assert_eq!(matches!(decision.act, Act::Engage { .. }), engages, "{queue}");
    }
}

#[test]
fn only_the_causes_are_held() {
    let mut world = World::stormy();
    world.workers = vec![
        worker(1, 0.5),
        worker(2, 0.3),
        worker(3, 0.02),
        protected(4, 0.1, Protection::AntiWraparound),
        protected(5, 0.1, Protection::Analyze),
    ];
    let act = world.run_until(3_000, |act| matches!(act, Act::Engage { .. }));
    let Act::Engage { workers, .. } = act else { unreachable!() };
    assert_eq!(workers.iter().map(|w| w.pid.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_collective_lever_is_not_used_on_a_worker_against_wraparound() {
    for reach in [Reach::Launcher, Reach::Everyone] {
        let mut world = World { lever: lever(reach), ..World::stormy() };
        world.workers.push(protected(4, 0.1, Protection::AntiWraparound));
        world.run(10_000);
        assert_eq!(world.acts, Vec::new());
        world.workers.pop();
        let mut world = world.engaged();
        world.workers.push(protected(4, 0.1, Protection::AntiWraparound));
        assert_eq!(world.released(1_000), ReleaseReason::WraparoundNear);
    }
}

#[test]
fn a_hold_is_verified_once_and_opens_up_when_there_is_room() {
    let mut world = World::stormy().engaged();
    world.obey();
    (world.busy, world.pressure, world.canary_ms) = (0.5, Some(0.02), 3);
    assert_eq!(world.released(40_000), ReleaseReason::PressureOver);
    assert_eq!(world.verified.len(), 1);
    assert!(world.verified[0].obeyed);
    let paces: Vec<u32> = world
        .acts
        .iter()
        .filter_map(|(_, act)| if let Act::Adjust { setting, .. } = act { Some(setting.limit) } else { None })
        .collect();
    assert!(paces.len() >= 3 && paces.is_sorted(), "{paces:?}");
    // As good as stock: 100,000 a second between them.
    assert_eq!(paces.last(), Some(&1_000));
}

#[test]
fn opening_leaves_the_others_their_cpu() {
    let mut world = World::stormy().engaged();
    world.obey();
    (world.busy, world.pressure) = (0.74, Some(0.1));
    // Others use 0.70; there is room for 0.12 of a core, three times what vacuum uses: a step of two at most.
    let before = world.state.hold.as_ref().unwrap().pace;
    world.run(1_250);
    let after = world.state.hold.as_ref().unwrap().pace;
    assert!(after > before && after <= before * 2.0, "{before} {after}");
    // No room at all: it stays, and stays held.
    for w in &mut world.workers {
        w.cpu = Cores(0.001);
    }
    world.busy = 0.80;
    let before = world.state.hold.clone().unwrap().pace;
    world.run(20_000);
    assert!((world.state.hold.unwrap().pace - before).abs() < f64::EPSILON);
}

#[test]
fn the_floor_yields_only_to_patience() {
    let mut world = World::stormy().engaged();
    world.obey();
    world.canary_ms = 50; // relief, so that it counts as helping
    world.pressure = Some(0.3);
    world.run(3_000);
    assert!(world.state.hold.as_ref().unwrap().pace >= world.limits.floor_pace);
    world.run(10_000);
    assert!(world.state.hold.as_ref().unwrap().pace < world.limits.floor_pace);
    // One unit a nap: vacuum still moves.
    assert!(world.state.hold.unwrap().setting.limit >= 1);
}

#[test]
fn a_hold_that_does_not_help_is_let_go_and_waits_longer_each_time() {
    let mut world = World::stormy();
    let mut gaps = Vec::new();
    for _ in 0..3 {
        for w in &mut world.workers {
            w.cpu = Cores(0.4);
        }
        world.run_until(700_000, |act| matches!(act, Act::Engage { .. }));
        let began = world.ms;
        world.obey();
        assert_eq!(world.released(30_000), ReleaseReason::NotHelping);
        gaps.push((began, world.ms));
    }
    let waits: Vec<u64> = gaps.windows(2).map(|w| w[1].0 - w[0].1).collect();
    assert!(waits[0] >= 60_000 && waits[1] >= 120_000, "{waits:?}");
}

#[test]
fn workers_that_do_not_obey_are_told_again_and_then_given_up() {
    let mut world = World::stormy().engaged();
    assert_eq!(world.released(30_000), ReleaseReason::NotHelping);
    let again =
        world.acts.iter().filter(|(_, act)| matches!(act, Act::Adjust { reason, .. } if reason.contains("told again")));
    assert_eq!(again.count(), 3);
    assert!(!world.verified[0].obeyed);
}

#[test]
fn every_end_has_its_reason() {
    let ends: [(&str, Change, ReleaseReason); 6] = [
        ("readings", |w| w.blind = true, ReleaseReason::ReadingsLost),
        ("workers", |w| w.workers.clear(), ReleaseReason::WorkersGone),
        ("mode", |w| w.may_act = false, ReleaseReason::GuardStopping),
        ("no ages any more", |w| w.tables = None, ReleaseReason::ReadingsLost),
        ("age", |w| w.tables = Some(tables(1_200_000_000, Vec::new())), ReleaseReason::WraparoundNear),
        ("time", |w| w.limits.max_hold = Duration::from_secs(4), ReleaseReason::TimeBound),
    ];
    for (why, change, reason) in ends {
        let mut world = World::stormy().engaged();
        world.obey();
        (world.canary_ms, world.pressure) = (20, Some(0.1));
        change(&mut world);
        assert_eq!(world.released(12_000), reason, "{why}");
    }
}

#[test]
fn below_act_it_proposes_once_for_each_episode() {
    let mut world = World { may_act: false, ..World::stormy() };
    world.run(60_000);
    assert_eq!(world.acts.len(), 1);
    assert_eq!(world.state.hold, None);
    world.busy = 0.2;
    world.run(15_000);
    world.busy = 1.0;
    world.run(10_000);
    assert_eq!(world.acts.len(), 2);
}

#[test]
fn a_lever_that_touches_the_launcher_is_used_rarely() {
    let mut world = World { lever: lever(Reach::Launcher), ..World::stormy() }.engaged();
    world.obey();
    (world.canary_ms, world.pressure) = (20, Some(0.1));
    for round in 0..120 {
        world.busy = if round % 3 == 0 { 0.95 } else { 0.5 };
        world.run(1_000);
    }
    let times: Vec<u64> = world.acts.iter().map(|(ms, _)| *ms).collect();
    assert!(times.len() > 2 && times.windows(2).all(|w| w[1] - w[0] >= 5_000), "{times:?}");
}
