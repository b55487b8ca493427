//! Readings as a host in trouble gives them.

use std::{collections::BTreeMap, time::Duration};

use model::{
    ByteSize, Cores, Moment, Oid, PgVersion, Pid, ProcessId, Reading, Share,
    reading::{
        ActivityReading, CgroupLimits, ConnectionGroup, Connections, CpuShares, FileSystem, HostReading, LargeProcess,
        LockWaits, LongTransaction, Memory, OomKills, OomVictim, OwnCost, Pressure, ProcessReading, ProcessRole,
        VacuumKind, VacuumReading,
    },
};

/// Figures with all their digits, as divisions give them.
fn share(seed: f64) -> f64 {
    (seed * 0.618_033_988_749_894_9).fract()
}

/// The host, with so many watched processes.
pub fn host(at: Moment, processes: u32) -> Reading {
    let cpu = CpuShares {
        user: share(1.0),
        nice: 0.0,
        system: share(2.0),
        idle: share(3.0),
        iowait: share(4.0),
        irq: share(5.0),
        steal: 0.0,
    };
    let pressure = Some(Pressure { some: Share(share(6.0)), full: Share(share(7.0)) });
    let process = |n: u32| ProcessReading {
        id: ProcessId { pid: Pid(1_234_500 + n.cast_signed()), start_ticks: 18_446_744 + u64::from(n) },
        role: ProcessRole::Postgres("client backend".into()),
        cpu: Cores(share(f64::from(n))),
        rss: ByteSize(123_456_789),
    };
    let file_system = |path: &str| FileSystem {
        path: path.into(),
        total: ByteSize(270_000_000_000),
        available: ByteSize(85_000_000_000),
        inodes: 16_777_216,
        inodes_free: 16_000_000,
    };
    Reading::Host(HostReading {
        at,
        window: Duration::from_micros(1_000_137),
        cpus: 8,
        cpu,
        database_cpus: Some(1),
        database_cpu: Some(cpu),
        run_queue: 17,
        load: [1.25, 0.5, 0.33],
        cpu_pressure: pressure,
        memory_pressure: pressure,
        io_pressure: pressure,
        memory: Memory {
            total: ByteSize(25_000_000_000),
            available: ByteSize(20_000_000_000),
            swap_total: ByteSize(0),
            swap_free: ByteSize(0),
        },
        file_systems: [file_system("/var/lib/postgresql/15/main"), file_system("/var/lib/oxpecker")].into(),
        cgroup: CgroupLimits {
            cpu: Some(Cores(2.0)),
            memory: Some(ByteSize(1 << 30)),
            memory_used: Some(ByteSize(1 << 29)),
            binds_database: true,
        },
        processes: (0..processes).map(process).collect(),
        oom: Some(Box::new(OomKills {
            count: 1,
            victims: vec![OomVictim { pid: Pid(1_234_568), name: "postgres".into(), in_cgroup: true }],
        })),
        largest: vec![LargeProcess { pid: Pid(4_711), name: "importer".into(), rss: ByteSize(12_345_678_912) }].into(),
    })
}

/// A session that forgot its transaction.
fn idle() -> LongTransaction {
    LongTransaction {
        pid: Pid(1_234_567),
        state: "idle in transaction".into(),
        state_for: Duration::from_millis(61_230),
        client: Some("192.0.2.7".into()),
        command: Some("UPDATE".into()),
        query_id: Some(-7_123_456_789_012_345_678),
        holds_back: Some(12_345),
        blocks: 3,
        ..LongTransaction::default()
    }
}

/// Sessions, with so many running vacuums.
pub fn activity(at: Moment, vacuums: u32) -> Reading {
    let vacuum = |n: u32| VacuumReading {
        process: ProcessId { pid: Pid(1_234_500 + n.cast_signed()), start_ticks: 18_446_744 },
        kind: VacuumKind::Autovacuum,
        database: "app".into(),
        table: Some("public.user_sessions".into()),
        relation: Some(Oid(16_400 + n)),
        started: Some(at.wall),
        phase: Some("vacuuming indexes".into()),
        heap_blocks: Some(123_456),
        heap_blocks_scanned: Some(65_432),
        heap_blocks_vacuumed: Some(0),
        index_passes: Some(1),
        cpu: Some(Cores(share(f64::from(n)))),
        in_delay: true,
        blocks: 0,
    };
    let counts = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 7)).collect::<BTreeMap<_, _>>();
    Reading::Activity(ActivityReading {
        at,
        took: Duration::from_micros(1_834),
        version: PgVersion(150_018),
        server_started: at.wall,
        in_recovery: false,
        connections: Connections {
            used: 42,
            max: 100,
            reserved: 3,
            by_state: counts(&["active", "idle", "idle in transaction"]),
            by_role: counts(&["site", "bot", "gate", "oxpecker"]),
            groups: vec![ConnectionGroup {
                role: "site".into(),
                application: "site".into(),
                client: "192.0.2.7".into(),
                database: "app".into(),
                count: 42,
                young: 3,
                idle: 30,
            }],
            ..Connections::default()
        },
        longest_transaction: Some(Box::new(LongTransaction {
            pid: Pid(1_234_567),
            age: Duration::from_millis(61_234),
            database: Some("app".into()),
            role: Some("site".into()),
            application: "site".into(),
            ..idle()
        })),
        locks: LockWaits {
            waiting: 3,
            longest: Duration::from_millis(2_345),
            head: Some(Pid(1_234_567)),
            head_session: Some(Box::new(idle())),
            table: Some("public.users".into()),
        },
        vacuums: (0..vacuums).map(vacuum).collect(),
        autovacuum_slots: 3,
        own_cost: OwnCost {
            statements: 123_456,
            elapsed: Duration::from_micros(987_654_321),
            backend_cpu: Some(Duration::from_millis(98_760)),
        },
        idle_transaction: Some(Box::new(idle())),
        clock_ahead_ms: Some(-3),
    })
}
