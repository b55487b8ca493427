//! An ordinary day says nothing: tides of load, vacuums, a backup and a dump at night, an import, cron, a deploy at noon.

use model::{
    Lsn,
    reading::{Archiver, ConnectionGroup, FileSystem, LongTransaction, WalReading},
};

use super::*;

/// A cheap generator, so that a day repeats.
fn noise(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as f64 / f64::from(1_u32 << 31)
}

const HOUR: u64 = 3_600;
/// Compressed to a disk of its own.
const BACKUP: std::ops::Range<u64> = 2 * HOUR..3 * HOUR;
/// `pg_dump` into the data directory's disk: its transaction stays open all the while.
const DUMP: std::ops::Range<u64> = 3 * HOUR..4 * HOUR;
/// A load of data that fills WAL as fast as the disk takes it.
const IMPORT: std::ops::Range<u64> = 6 * HOUR..6 * HOUR + 240;
/// All pools close, then open again, and the new ones are a little larger.
const DEPLOY: std::ops::Range<u64> = 12 * HOUR..12 * HOUR + 20;

struct Day {
    seed: u64,
    lsn: u64,
    timed: u64,
    requested: u64,
    dumped: u64,
}

impl Day {
    fn host(&mut self, second: u64) -> HostReading {
        let mut reading = host(second * 1_000);
        let hour = second as f64 / HOUR as f64;
        let tide = 0.25 + 0.25 * ((hour - 8.0) / 24.0 * std::f64::consts::TAU).sin();
        let mut load = (tide + 0.2 * noise(&mut self.seed)).clamp(0.02, 0.9);
        let mut available = 6.0 + 3.0 * noise(&mut self.seed);
        reading.run_queue = 1 + u32::from(noise(&mut self.seed) < 0.3) + u32::from(noise(&mut self.seed) < 0.1);
        reading.cpu_pressure = some(0.1 * load);
        if BACKUP.contains(&second) {
            // Both CPUs well used for an hour at low priority, the page cache full, and nobody but the backup at work: all that is
            // not idle waits for the disk.
            load = 0.88 + 0.06 * noise(&mut self.seed);
            reading.cpu_pressure = some(0.2);
            reading.io_pressure = Some(Pressure { some: Share(0.9), full: Share(0.8) });
            available = 2.0;
        }
        if second.is_multiple_of(60) {
            // Cron: one window at 100 %.
            load = 1.0;
            reading.run_queue = 12;
            reading.cpu_pressure = some(0.8);
        }
        reading.cpu = busy(load);
        reading.memory.available = ByteSize((available * f64::from(1 << 30)) as u64);
        // 500 GiB, 35 % free; the dump takes 20 MiB/s and is moved away at its end; temporary files come and go; WAL is recycled.
        self.dumped = if DUMP.contains(&second) { (second - DUMP.start) * (20 << 20) } else { 0 };
        let sorted = (second % 90) * (30 << 20);
        let free = (175_u64 << 30) - self.dumped - sorted - (self.lsn % (1 << 30));
        reading.file_systems = [FileSystem {
            path: "/var/lib/postgresql".into(),
            total: gib(500),
            available: ByteSize(free),
            inodes: 32_000_000,
            inodes_free: 30_000_000 - second % 1_000,
        }]
        .into();
        reading
    }

    fn sessions(&mut self, second: u64) -> ActivityReading {
        let mut sessions = activity(second * 1_000 + 300);
        let hour = second as f64 / HOUR as f64;
        let tide = 30.0 + 15.0 * ((hour - 8.0) / 24.0 * std::f64::consts::TAU).sin() + 6.0 * noise(&mut self.seed);
        let used = match second {
            _ if DEPLOY.contains(&second) => 4,
            DEPLOY_END.. => tide as u32 + 8,
            _ => tide as u32,
        };
        sessions.connections.used = used;
        sessions.connections.groups = vec![ConnectionGroup {
            role: "site".into(),
            client: "10.0.0.7".into(),
            count: used,
            ..ConnectionGroup::default()
        }];
        if second % 600 < 40 {
            sessions.vacuums = vec![vacuum(42, "public.users", 0.3)];
        }
        if DUMP.contains(&second) {
            let age = Duration::from_secs(second - DUMP.start);
            // 500 transactions a second begin meanwhile.
            let held = age.as_secs() * 500;
            sessions.longest_transaction = Some(Box::new(LongTransaction {
                pid: Pid(99),
                age,
                application: "pg_dump".into(),
                state: "active".into(),
                holds_back: Some(held),
                ..LongTransaction::default()
            }));
        }
        // Rows that are fought for, an instant each; a change of schema waits its two seconds twice a day.
        let schema = second % (12 * HOUR);
        if second.is_multiple_of(7) {
            sessions.locks = LockWaits { waiting: 3, longest: Duration::from_millis(120), ..LockWaits::default() };
        } else if (100..102).contains(&schema) {
            let longest = Duration::from_secs(schema - 99);
            sessions.locks = LockWaits { waiting: 12, longest, ..LockWaits::default() };
        }
        let forgotten = Duration::from_secs(second % 400);
        sessions.idle_transaction = Some(Box::new(LongTransaction {
            pid: Pid(98),
            state: "idle in transaction".into(),
            state_for: forgotten,
            ..LongTransaction::default()
        }));
        sessions
    }

    fn wal(&mut self, second: u64) -> WalReading {
        self.timed += u64::from(second.is_multiple_of(300));
        let mut rate = 2 << 20;
        if IMPORT.contains(&second) {
            rate = 150 << 20;
            self.requested += u64::from(second.is_multiple_of(20));
        }
        self.lsn += 10 * rate;
        // The archive is some segments behind, during an import some more, and an attempt fails now and then.
        let behind = if IMPORT.contains(&second) { 2 << 30 } else { 48 << 20 };
        WalReading {
            at: at(second * 1_000 + 500),
            checkpoints_timed: self.timed,
            checkpoints_requested: self.requested,
            lsn: Lsn(self.lsn),
            wal_per_second: Some(ByteSize(rate)),
            max_wal: Some(gib(4)),
            checkpoint_timeout: Some(Duration::from_secs(300)),
            archiver: Archiver {
                enabled: true,
                failing: second % HOUR < 60,
                behind: Some(ByteSize(behind)),
                ..Archiver::default()
            },
            slots: Vec::new(),
        }
    }
}

const DEPLOY_END: u64 = DEPLOY.end;

#[test]
fn an_ordinary_day_stays_quiet() {
    let mut rules = rules();
    let mut day = Day { seed: 7, lsn: 1 << 40, timed: 0, requested: 0, dumped: 0 };
    for second in 0..86_400_u64 {
        let (host, sessions) = (day.host(second), day.sessions(second));
        let mut observations = vec![of_activity(sessions)];
        // The sampler misses a reading now and then.
        if noise(&mut day.seed) > 0.01 {
            observations.insert(0, of_host(host));
        }
        if second.is_multiple_of(10) {
            observations.push(Observation::Reading(Reading::Wal(day.wal(second))));
        }
        if second.is_multiple_of(60) {
            // Ids are used up at 500 a second from 150 million on, until autovacuum freezes at 200 million.
            let age = |least: u64| least + second * 500 % 50_000_000;
            let ages =
                vec![AgeReading { database: "app".into(), xid_age: age(150_000_000), multixact_age: age(1_000) }];
            observations.push(Observation::Reading(Reading::Tables(TablesReading {
                at: at(second * 1_000 + 700),
                database: "app".into(),
                worst: Vec::new(),
                ages,
            })));
        }
        let alerts = observe(&mut rules, observations);
        assert!(alerts.is_empty(), "at {second} s: {:?} {}", names(&alerts), alerts[0].summary);
    }
}
