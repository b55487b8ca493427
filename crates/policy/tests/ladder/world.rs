//! A simulated host: parts of a load, each of which a rung takes away, and an executor that takes its time, fails or dies.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use model::{
    ByteSize, Cores, Mode, Moment, Oid, PgVersion, Pid, ProcessId, ServiceName, Share,
    reading::{
        ActivityReading, AgeReading, CgroupLimits, Connections, CpuShares, HostReading, LockWaits, Memory, OwnCost,
        Pressure, TablesReading, VacuumKind, VacuumReading,
    },
};
use policy::{
    Ability, Act, Decision, Effect, Facts, Hand, Rung, RungView, Server, Settings, Sheddable, State, Step, decide, view,
};

pub(crate) const CPUS: f64 = 2.0;

pub(crate) fn at(ms: u64) -> Moment {
    let start = Moment { wall: Timestamp::from_second(1_800_000_000).unwrap(), boot_us: 100_000_000_000 };
    start.plus(Duration::from_millis(ms))
}

/// What becomes of acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executor {
    /// Done after so many seconds.
    After(u64),
    /// Fails after so many seconds.
    Fails(u64),
    /// Forgets what it was told.
    Dies,
}

/// One lever.
#[derive(Clone, Debug)]
pub(crate) struct Lever {
    pub ability: Ability,
    pub effect: Effect,
    pub executor: Executor,
    /// What it is at, since when in ms and whether it is the way back.
    pending: Option<(u64, bool)>,
}

impl Lever {
    fn new() -> Self {
        Self { ability: Ability::Ready, effect: Effect::Off, executor: Executor::After(1), pending: None }
    }

    fn told(&mut self, ms: u64, back: bool) {
        if self.executor != Executor::Dies {
            self.pending = Some((ms, back));
            self.effect = Effect::Underway;
        }
    }

    fn advance(&mut self, ms: u64) {
        let Some((since, back)) = self.pending else { return };
        let (seconds, fails) = match self.executor {
            Executor::After(seconds) => (seconds, false),
            Executor::Fails(seconds) => (seconds, true),
            Executor::Dies => (0, true),
        };
        if ms >= since + seconds * 1_000 {
            self.pending = None;
            self.effect = match (fails, back) {
                (true, _) => Effect::Failed("the simulation says so".into()),
                (false, true) => Effect::Off,
                (false, false) => Effect::InForce,
            };
        }
    }

    pub(crate) fn in_force(&self) -> bool {
        matches!(self.effect, Effect::InForce | Effect::Elsewhere(_)) || matches!(self.pending, Some((_, true)))
    }

    fn hand(&self) -> Hand {
        Hand { ability: self.ability.clone(), effect: self.effect.clone() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub ms: u64,
    /// Cores that each part wants.
    pub clients: f64,
    pub vacuum: f64,
    pub own_work: f64,
    /// A load that nothing takes away.
    pub other: f64,
    /// By name: `shed`, cores, share of the memory.
    pub services: BTreeMap<ServiceName, (u32, f64, f64)>,
    /// Share of the memory that others hold.
    pub memory: f64,
    pub blind: bool,
    pub psi: bool,
    pub group: CgroupLimits,
    pub xid_age: u64,
    pub kind: VacuumKind,
    pub levers: BTreeMap<&'static str, Lever>,
    pub service_levers: BTreeMap<ServiceName, Lever>,
    pub server: Server,
    pub state: State,
    pub settings: Settings,
    pub acts: Vec<(u64, Rung, Act, bool, bool)>,
}

pub(crate) fn all_declared() -> Settings {
    let mut settings = Settings { mode: Mode::Act, ..Settings::default() };
    settings.cancel_vacuum.declared = true;
    settings.stop_postgres.declared = true;
    settings.stop_postgres_approved_by = Some("ann".into());
    settings
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let services = BTreeMap::from([
            (ServiceName::from("metabase"), (1, 0.2, 0.05)),
            (ServiceName::from("site"), (2, 0.3, 0.05)),
        ]);
        Self {
            ms: 0,
            clients: 0.3,
            vacuum: 0.0,
            own_work: 0.0,
            other: 0.0,
            service_levers: services.keys().map(|name| (name.clone(), Lever::new())).collect(),
            services,
            memory: 0.4,
            blind: false,
            psi: true,
            group: CgroupLimits::default(),
            xid_age: 1_000_000,
            kind: VacuumKind::Autovacuum,
            levers: ["vacuum", "own", "cancel", "postgres"].map(|name| (name, Lever::new())).into(),
            server: Server::Serving,
            state: State::default(),
            settings,
            acts: Vec::new(),
        }
    }

    pub(crate) fn lever(&mut self, name: &str) -> &mut Lever {
        self.levers.get_mut(name).unwrap()
    }

    pub(crate) fn of(&self, rung: Rung) -> Vec<&Lever> {
        match rung {
            Rung::ThrottleVacuum => vec![&self.levers["vacuum"]],
            Rung::PauseOwnWork => vec![&self.levers["own"]],
            Rung::CancelVacuum => vec![&self.levers["cancel"]],
            Rung::StopPostgres => vec![&self.levers["postgres"]],
            Rung::StopServices(shed) => {
                self.service_levers.iter().filter(|(name, _)| self.services[*name].0 == shed).map(|(_, l)| l).collect()
            }
        }
    }

    fn throttled(&self) -> bool {
        self.levers["vacuum"].in_force()
    }

    fn vacuum_cores(&self) -> f64 {
        if self.stopped() || self.throttled() { self.vacuum * 0.03 } else { self.vacuum }
    }

    fn stopped(&self) -> bool {
        self.levers["postgres"].in_force()
    }

    /// Cores wanted, of those that there are.
    pub(crate) fn demand(&self) -> f64 {
        let clients = if self.stopped() { 0.0 } else { self.clients };
        let own = if self.levers["own"].in_force() { 0.0 } else { self.own_work };
        let of_services = self.services.iter().filter(|(name, _)| !self.service_levers[*name].in_force());
        let services: f64 = of_services.map(|(_, (_, cores, _))| if self.stopped() { 0.05 } else { *cores }).sum();
        (clients + self.vacuum_cores() + own + self.other + services) / CPUS
    }

    fn memory_left(&self) -> f64 {
        let of_services = self.services.iter().filter(|(name, _)| !self.service_levers[*name].in_force());
        let services: f64 = of_services.map(|(_, (_, _, share))| share).sum();
        let postgres = if self.stopped() { 0.0 } else { 0.2 };
        (1.0 - self.memory - services - postgres).clamp(0.0, 1.0)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn host(&self) -> HostReading {
        let demand = self.demand();
        let busy = demand.min(1.0);
        let waiting = (demand - 1.0).max(0.0) / demand.max(0.01) * 3.0 + busy * 0.1;
        let share = |share: f64| Share(share.clamp(0.0, 1.0));
        let left = self.memory_left();
        let stalled = share((0.06 - left) * 12.0);
        let total = 8_u64 << 30;
        HostReading {
            at: at(self.ms),
            window: Duration::from_secs(1),
            cpus: CPUS as u32,
            cpu: CpuShares { user: busy, idle: 1.0 - busy, ..CpuShares::default() },
            database_cpus: None,
            database_cpu: None,
            run_queue: (demand * CPUS * 4.0) as u32,
            load: [0.0; 3],
            cpu_pressure: self.psi.then_some(Pressure { some: share(waiting), full: Share(0.0) }),
            memory_pressure: self.psi.then_some(Pressure { some: stalled, full: stalled }),
            io_pressure: self.psi.then(Pressure::default),
            memory: Memory {
                total: ByteSize(total),
                available: ByteSize((total as f64 * left) as u64),
                ..Memory::default()
            },
            file_systems: Box::default(),
            cgroup: self.group,
            processes: Vec::new(),
            oom: None,
            largest: Box::default(),
        }
    }

    fn activity(&self) -> ActivityReading {
        let demand = self.demand();
        let took = if demand > 1.1 {
            2_500
        } else if demand > 1.0 {
            700
        } else {
            4
        };
        let vacuum = VacuumReading {
            process: ProcessId { pid: Pid(42), start_ticks: 7 },
            kind: self.kind,
            database: "app".into(),
            table: Some("public.messages".into()),
            relation: Some(Oid(16_400)),
            started: None,
            phase: None,
            heap_blocks: None,
            heap_blocks_scanned: None,
            heap_blocks_vacuumed: None,
            index_passes: None,
            cpu: Some(Cores(self.vacuum_cores())),
            in_delay: self.throttled(),
            blocks: 0,
        };
        ActivityReading {
            at: at(self.ms),
            took: Duration::from_millis(took),
            version: PgVersion(180_000),
            server_started: Timestamp::UNIX_EPOCH,
            in_recovery: false,
            connections: Connections::default(),
            longest_transaction: None,
            locks: LockWaits::default(),
            vacuums: if self.vacuum > 0.0 { vec![vacuum] } else { Vec::new() },
            autovacuum_slots: 3,
            own_cost: OwnCost::default(),
            idle_transaction: None,
            clock_ahead_ms: None,
        }
    }

    fn ability(ability: &Ability, there: bool, nothing: &str) -> Ability {
        if *ability == Ability::Ready && !there { Ability::Nothing(nothing.into()) } else { ability.clone() }
    }

    /// One second: the levers move on, the ladder decides, what it decides is handed out.
    pub(crate) fn second(&mut self) -> Decision {
        self.ms += 1_000;
        for lever in self.levers.values_mut().chain(self.service_levers.values_mut()) {
            lever.advance(self.ms);
        }
        let (host, activity, tables) = (self.host(), self.activity(), self.tables());
        let facts = self.facts(&host, &activity, &tables);
        let (next, decision) = decide(&facts, &self.state, &self.settings);
        let again = decide(&facts, &self.state, &self.settings);
        assert!(again == (next.clone(), decision.clone()), "the same facts, another decision");
        self.state = next;
        let (rung, act, up, carry_out) = match &decision.step {
            Step::Hold { .. } => return decision,
            Step::Climb { rung, act, carry_out } => (*rung, act, true, *carry_out),
            Step::StepDown { rung, act, carry_out } => (*rung, act, false, *carry_out),
        };
        self.acts.push((self.ms, rung, act.clone(), up, carry_out));
        if carry_out {
            self.carry_out(rung, act, !up);
        }
        decision
    }

    /// The facts without readings: who and what there is.
    pub(crate) fn facts_now(&self) -> Facts<'static> {
        let services = self.service_levers.iter().map(|(name, lever)| Sheddable {
            name: name.clone(),
            shed: self.services[name].0,
            hand: lever.hand(),
        });
        Facts {
            now: at(self.ms),
            host: None,
            activity: None,
            tables: None,
            server: self.server,
            vacuum: self.levers["vacuum"].hand(),
            own_work: self.levers["own"].hand(),
            cancel: self.levers["cancel"].hand(),
            services: services.collect(),
            postgres: self.levers["postgres"].hand(),
        }
    }

    /// The ladder as `status` shows it.
    pub(crate) fn view(&self) -> Vec<RungView> {
        let (host, activity, tables) = (self.host(), self.activity(), self.tables());
        view(&self.facts(&host, &activity, &tables), &self.state, &self.settings)
    }

    fn tables(&self) -> TablesReading {
        TablesReading {
            at: at(self.ms),
            database: "app".into(),
            worst: Vec::new(),
            ages: vec![AgeReading { database: "app".into(), xid_age: self.xid_age, multixact_age: 0 }],
        }
    }

    fn facts<'a>(&self, host: &'a HostReading, activity: &'a ActivityReading, tables: &'a TablesReading) -> Facts<'a> {
        let mut facts: Facts<'a> = self.facts_now();
        facts.vacuum.ability = Self::ability(&facts.vacuum.ability, self.vacuum > 0.0, "no vacuum runs");
        facts.own_work.ability = Self::ability(&facts.own_work.ability, self.own_work > 0.0, "nothing of ours runs");
        let stopped = self.stopped();
        facts.host = (!self.blind).then_some(host);
        facts.activity = (!self.blind && !stopped).then_some(activity);
        facts.tables = Some(tables);
        facts.server = if stopped { Server::Stopped } else { self.server };
        facts
    }

    fn carry_out(&mut self, rung: Rung, act: &Act, back: bool) {
        let ms = self.ms;
        match act {
            Act::HoldVacuum | Act::ReleaseVacuum => self.lever("vacuum").told(ms, back),
            Act::PauseOwnWork | Act::ResumeOwnWork => self.lever("own").told(ms, back),
            Act::StopPostgres | Act::StartPostgres => self.lever("postgres").told(ms, back),
            Act::CancelVacuum { .. } => {
                let cancel = self.lever("cancel");
                match cancel.executor {
                    Executor::After(_) => self.vacuum = 0.0,
                    Executor::Fails(_) => cancel.effect = Effect::Failed("not permitted".into()),
                    Executor::Dies => {}
                }
            }
            Act::StopServices { services } | Act::StartServices { services } => {
                for name in services {
                    assert_eq!(Rung::StopServices(self.services[name].0), rung);
                    self.service_levers.get_mut(name).unwrap().told(ms, back);
                }
            }
        }
    }

    /// So many seconds; the steps that were decided, as `second: words`.
    pub(crate) fn run(&mut self, seconds: u64) -> Vec<String> {
        let from = self.ms;
        let mut said = Vec::new();
        for _ in 0..seconds {
            let decision = self.second();
            let second = (self.ms - from) / 1_000;
            match decision.step {
                Step::Hold { .. } => {}
                Step::Climb { act, carry_out, .. } => {
                    said.push(format!("{second}: {}{act}", if carry_out { "" } else { "would " }));
                }
                Step::StepDown { act, carry_out, .. } => {
                    said.push(format!("{second}: {}{act}", if carry_out { "" } else { "would " }));
                }
            }
        }
        said
    }
}
