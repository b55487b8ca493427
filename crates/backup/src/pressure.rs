//! When the backup worker steps back: observations in, pause and resume out. Pure, and bounded so that a backup always ends.
//!
//! What counts is what *others* feel, for the worker itself makes pressure: it reads as fast as it may, waits for disks, and would
//! answer to its own shadow if it went by the host's figures. So these count:
//!
//! - the canary: how long PostgreSQL took to answer the guard's own small query. Slow disks and slow CPUs both show in it;
//! - the CPU time that is neither idle nor niced: the worker runs at the lowest priority, where the kernel counts its time apart;
//! - little memory, or tasks that stall for it;
//! - a service that fails its health check.
//!
//! One bad reading is none; the easier thresholds end a pause. However bad it is, after [`PAUSE_MAX`] the worker goes on for
//! [`BREATH`], and after a shorter pause for as much of that: it then has at least [`SHARE_MIN`] of the time, and a backup that would take an hour takes five, not for ever. A
//! backup that never ends keeps WAL on the disk, and there is none when the pressure was the beginning of the end.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Moment, Observation, Reading, ServiceName, Share,
    reading::{ActivityReading, Health, HostReading},
};

/// The longest pause in one go.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long the worker then goes on, whatever the pressure.
pub const BREATH: Duration = Duration::from_secs(15);
/// The share of the time that is left to the worker under pressure without end: [`BREATH`] of [`BREATH`] and [`PAUSE_MAX`].
pub const SHARE_MIN: f64 = 0.2;
/// How long there must be calm before a pause ends.
pub const CALM: Duration = Duration::from_secs(5);
/// How long readings must say "pressed" before a pause begins: a single slow answer is none.
pub const PRESSED: Duration = Duration::from_secs(1);
/// A reading counts for so long: what nobody sees any more holds up nothing.
const FRESH: Duration = Duration::from_secs(10);

/// Where pressure begins and where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Threshold {
    pressed: f64,
    calm: f64,
}

/// Answer of the canary, seconds: 2 to 5 ms on an idle host.
const CANARY: Threshold = Threshold { pressed: 0.25, calm: 0.1 };
/// Busy share of the CPUs without idle and niced time.
const CPU: Threshold = Threshold { pressed: 0.85, calm: 0.7 };
/// Memory that is not available, as a share.
const MEMORY: Threshold = Threshold { pressed: 0.92, calm: 0.9 };
/// Share of the time in which all tasks stall for memory.
const MEMORY_STALL: Threshold = Threshold { pressed: 0.1, calm: 0.05 };

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Calm,
    Between,
    Pressed,
}

impl Threshold {
    fn judge(self, value: f64) -> Level {
        match value {
            value if value >= self.pressed => Level::Pressed,
            value if value >= self.calm => Level::Between,
            // Also what is no number: nobody can say that it is much.
            _ => Level::Calm,
        }
    }
}

/// What the worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// To step back, and why.
    Pause {
        /// What is under pressure, with its figure.
        why: String,
    },
    /// To go on.
    Resume,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Working {
        /// Since when it is pressed without a break.
        pressed_since: Option<Moment>,
        /// Not paused again before this.
        until: Option<Moment>,
    },
    Paused {
        since: Moment,
        calm_since: Option<Moment>,
    },
}

/// Decides when the worker steps back.
#[derive(Clone, Debug)]
pub struct Pressure {
    state: State,
    host: Option<HostReading>,
    activity: Option<ActivityReading>,
    services: BTreeMap<ServiceName, (Moment, Health)>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            state: State::Working { pressed_since: None, until: None },
            host: None,
            activity: None,
            services: BTreeMap::new(),
        }
    }
}

impl Pressure {
    /// Forgets pauses: another worker begins. What was seen stays.
    pub fn begin(&mut self) {
        self.state = State::Working { pressed_since: None, until: None };
    }

    /// Whether the worker is told to stand back at present.
    #[must_use]
    pub fn paused(&self) -> bool {
        matches!(self.state, State::Paused { .. })
    }

    /// Takes note of what was seen. What follows from it, [`Pressure::step`] says.
    pub fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Reading(Reading::Host(reading)) => self.host = Some(reading.clone()),
            Observation::Reading(Reading::Activity(reading)) => self.activity = Some(reading.clone()),
            Observation::Reading(Reading::Service(reading)) => {
                if reading.stopped_by.is_some() {
                    // It is not this work that hurts it.
                    self.services.remove(&reading.service);
                } else {
                    self.services.insert(reading.service.clone(), (reading.at, reading.health));
                }
            }
            _ => {}
        }
    }

    /// What the worker is to be told at `now`, if anything. To be asked at least once a second while a worker runs.
    pub fn step(&mut self, now: Moment) -> Option<Order> {
        let (level, why) = self.level(now);
        match &mut self.state {
            State::Working { pressed_since, until } => {
                if level < Level::Pressed {
                    *pressed_since = None;
                    return None;
                }
                let since = *pressed_since.get_or_insert(now);
                if now.since(since) < PRESSED || until.is_some_and(|until| now.boot_us < until.boot_us) {
                    return None;
                }
                self.state = State::Paused { since: now, calm_since: None };
                Some(Order::Pause { why })
            }
            State::Paused { since, calm_since } => {
                let calm = if level == Level::Calm {
                    now.since(*calm_since.get_or_insert(now)) >= CALM
                } else {
                    *calm_since = None;
                    false
                };
                let enough = now.since(*since) >= PAUSE_MAX;
                if !calm && !enough {
                    return None;
                }
                // Also after a shorter one: many short pauses must not leave less than one long one.
                let breath = now.since(*since).mul_f64(BREATH.as_secs_f64() / PAUSE_MAX.as_secs_f64()).min(BREATH);
                self.state = State::Working { pressed_since: None, until: Some(now.plus(breath)) };
                Some(Order::Resume)
            }
        }
    }

    /// The worst of all that is fresh, with its figure.
    fn level(&self, now: Moment) -> (Level, String) {
        let fresh = |at: Moment| now.since(at) <= FRESH;
        let mut all: Vec<(Level, String)> = Vec::new();
        if let Some(activity) = self.activity.as_ref().filter(|a| fresh(a.at)) {
            let took = activity.took.as_secs_f64();
            all.push((CANARY.judge(took), format!("PostgreSQL answers in {:.0} ms", took * 1e3)));
        }
        if let Some(host) = self.host.as_ref().filter(|h| fresh(h.at)) {
            let (_, cpu) = host.cpu_for_database();
            let others = Share((cpu.busy().0 - cpu.nice).max(0.0));
            all.push((CPU.judge(others.0), format!("others take {others} of the CPUs")));
            let available = Share::of(host.memory.available.0 as f64, host.memory.total.0 as f64);
            if host.memory.total.0 > 0 {
                all.push((MEMORY.judge(1.0 - available.0), format!("{available} of the memory is available")));
            }
            if let Some(stall) = host.memory_pressure {
                let text = format!("all tasks stall for memory {} of the time", stall.full);
                all.push((MEMORY_STALL.judge(stall.full.0), text));
            }
        }
        let ill = self.services.iter().find(|(_, (at, health))| fresh(*at) && *health == Health::Unhealthy);
        all.extend(ill.map(|(service, _)| (Level::Pressed, format!("{service} is unhealthy"))));
        all.into_iter().max_by_key(|(level, _)| *level).unwrap_or((Level::Calm, String::new()))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::reading::{
        CgroupLimits, Connections, CpuShares, LockWaits, Memory, OwnCost, Pressure as Stall, ServiceReading,
    };
    use model::{ByteSize, PgVersion};
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment { wall: Timestamp::UNIX_EPOCH, boot_us: 1_000_000 + ms * 1000 }
    }

    fn host(ms: u64, cpu: CpuShares, available: f64, stall: f64) -> Observation {
        let total = 16_u64 << 30;
        Observation::Reading(Reading::Host(HostReading {
            at: at(ms),
            window: Duration::from_secs(1),
            cpus: 2,
            cpu,
            database_cpus: None,
            database_cpu: None,
            run_queue: 1,
            load: [0.0; 3],
            cpu_pressure: None,
            memory_pressure: Some(Stall { some: Share(stall), full: Share(stall) }),
            io_pressure: Some(Stall { some: Share(1.0), full: Share(1.0) }),
            memory: Memory {
                total: ByteSize(total),
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the total")]
                available: ByteSize((total as f64 * available) as u64),
                ..Memory::default()
            },
            file_systems: Box::default(),
            cgroup: CgroupLimits::default(),
            processes: Vec::new(),
            oom: None,
            largest: Box::default(),
        }))
    }

    fn cpu(user: f64, nice: f64) -> CpuShares {
        CpuShares { user, nice, idle: 1.0 - user - nice, ..CpuShares::default() }
    }

    fn canary(ms: u64, took_ms: u64) -> Observation {
        Observation::Reading(Reading::Activity(ActivityReading {
            at: at(ms),
            took: Duration::from_millis(took_ms),
            version: PgVersion(180_000),
            server_started: Timestamp::UNIX_EPOCH,
            in_recovery: false,
            connections: Connections {
                used: 1,
                max: 100,
                reserved: 3,
                by_state: BTreeMap::new(),
                by_role: BTreeMap::new(),
                active_waiting: 0,
                groups: Vec::new(),
            },
            longest_transaction: None,
            locks: LockWaits::default(),
            vacuums: Vec::new(),
            autovacuum_slots: 3,
            own_cost: OwnCost::default(),
            idle_transaction: None,
            clock_ahead_ms: None,
        }))
    }

    fn service(ms: u64, health: Health) -> Observation {
        let (took, detail) = (Duration::ZERO, None);
        Observation::Reading(Reading::Service(ServiceReading {
            at: at(ms),
            service: "site".into(),
            health,
            took,
            detail,
            stopped_by: None,
        }))
    }

    #[test]
    fn what_counts_as_pressure() {
        let quiet = |ms| host(ms, cpu(0.3, 0.0), 0.5, 0.0);
        type Case = (&'static str, fn(u64) -> Observation, bool);
        let cases: [Case; 8] = [
            ("an ordinary host", |ms| host(ms, cpu(0.3, 0.0), 0.5, 0.0), false),
            (
                "the worker alone takes everything, and waits for the disk",
                |ms| host(ms, cpu(0.1, 0.9), 0.5, 0.0),
                false,
            ),
            ("others take everything", |ms| host(ms, cpu(0.9, 0.1), 0.5, 0.0), true),
            ("no memory", |ms| host(ms, cpu(0.1, 0.0), 0.05, 0.0), true),
            ("tasks stall for memory", |ms| host(ms, cpu(0.1, 0.0), 0.5, 0.3), true),
            ("PostgreSQL is slow", |ms| canary(ms, 400), true),
            ("PostgreSQL is a little slow", |ms| canary(ms, 150), false),
            ("a service is ill", |ms| service(ms, Health::Unhealthy), true),
        ];
        for (what, reading, pauses) in cases {
            let mut pressure = Pressure::default();
            let mut paused = false;
            for second in 0..4 {
                pressure.observe(&quiet(second * 1000));
                pressure.observe(&reading(second * 1000));
                paused |= matches!(pressure.step(at(second * 1000)), Some(Order::Pause { .. }));
            }
            assert_eq!(paused, pauses, "{what}");
        }
    }

    #[test]
    fn one_slow_answer_is_none_and_calm_must_last() {
        let mut pressure = Pressure::default();
        let mut told = Vec::new();
        // Answers in ms, one a second.
        let answers = [5, 400, 5, 400, 400, 400, 150, 150, 5, 5, 5, 150, 5, 5, 5, 5, 5, 5, 5];
        for (second, took) in (0_u64..).zip(answers) {
            pressure.observe(&canary(second * 1000, took));
            told.extend(pressure.step(at(second * 1000)).map(|order| (second, order)));
        }
        let why = "PostgreSQL answers in 400 ms".to_owned();
        assert_eq!(told, [(4, Order::Pause { why }), (17, Order::Resume)]);
    }

    #[test]
    fn readings_that_stop_coming_hold_up_nothing() {
        let mut pressure = Pressure::default();
        for second in 0..3 {
            pressure.observe(&canary(second * 1000, 900));
            pressure.step(at(second * 1000));
        }
        assert!(pressure.paused());
        let resumed = (3..60).find(|second| pressure.step(at(second * 1000)) == Some(Order::Resume)).unwrap();
        assert!(resumed <= 2 + 10 + 1 + 5, "{resumed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is seen: orders alternate, no pause is longer than its bound, and the worker has its share of the time.
        #[test]
        fn a_backup_always_ends(answers in proptest::collection::vec(prop_oneof![Just(5_u64), Just(150), Just(900)], 300..1500)) {
            let mut pressure = Pressure::default();
            let mut paused_at: Option<u64> = None;
            let mut worked = 0_u64;
            for (second, took) in (0_u64..).zip(&answers) {
                pressure.observe(&canary(second * 1000, *took));
                match pressure.step(at(second * 1000)) {
                    Some(Order::Pause { .. }) => {
                        prop_assert!(paused_at.is_none());
                        paused_at = Some(second);
                    }
                    Some(Order::Resume) => {
                        let since = paused_at.take();
                        prop_assert!(since.is_some_and(|since| second - since <= PAUSE_MAX.as_secs()));
                    }
                    None => {}
                }
                prop_assert_eq!(pressure.paused(), paused_at.is_some());
                worked += u64::from(paused_at.is_none());
            }
            // The last pause may have only begun.
            let share = worked as f64 / (answers.len() as f64 - PAUSE_MAX.as_secs_f64());
            prop_assert!(share >= SHARE_MIN, "{worked} of {}", answers.len());
        }
    }
}
