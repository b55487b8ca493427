//! Observations as the collector makes them.

use super::*;

pub(crate) fn at(ms: u64) -> Moment {
    Moment { wall: Timestamp::from_second(START_S).unwrap(), boot_us: 3_600_000_000 }.plus(Duration::from_millis(ms))
}

pub(crate) fn subject() -> Subject {
    Subject { cluster: "main".into(), host: "db1".into() }
}

pub(crate) fn rules() -> Rules {
    Rules::new(&RuleSettings::default(), subject())
}

/// A host with two CPUs, the database on all of them, everything ordinary.
pub(crate) fn host(ms: u64) -> HostReading {
    HostReading {
        at: at(ms),
        window: Duration::from_secs(1),
        cpus: 2,
        cpu: busy(0.3),
        database_cpus: None,
        database_cpu: None,
        run_queue: 2,
        load: [0.5; 3],
        cpu_pressure: Some(Pressure::default()),
        memory_pressure: Some(Pressure::default()),
        io_pressure: Some(Pressure::default()),
        memory: Memory { total: gib(16), available: gib(10), swap_total: ByteSize(0), swap_free: ByteSize(0) },
        file_systems: Box::default(),
        cgroup: CgroupLimits::default(),
        processes: Vec::new(),
        oom: None,
        largest: Box::default(),
    }
}

pub(crate) fn busy(share: f64) -> CpuShares {
    CpuShares { user: share, idle: 1.0 - share, ..CpuShares::default() }
}

pub(crate) fn gib(n: u64) -> ByteSize {
    ByteSize(n << 30)
}

pub(crate) fn some(share: f64) -> Option<Pressure> {
    Some(Pressure { some: Share(share), full: Share(0.0) })
}

pub(crate) fn saturated(ms: u64) -> HostReading {
    HostReading { cpu: busy(1.0), run_queue: 9, cpu_pressure: some(0.9), ..host(ms) }
}

pub(crate) fn activity(ms: u64) -> ActivityReading {
    ActivityReading {
        at: at(ms),
        took: Duration::from_millis(3),
        version: PgVersion(180_004),
        server_started: Timestamp::from_second(START_S - 9_000).unwrap(),
        in_recovery: false,
        connections: Connections {
            used: 20,
            max: 103,
            reserved: 3,
            by_state: BTreeMap::from([("active".into(), 4), ("idle".into(), 16)]),
            by_role: BTreeMap::from([("site".into(), 15), ("bot".into(), 5)]),
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
    }
}

pub(crate) fn vacuum(pid: i32, table: &str, cpu: f64) -> VacuumReading {
    VacuumReading {
        process: ProcessId { pid: Pid(pid), start_ticks: 77 },
        kind: VacuumKind::Autovacuum,
        database: "app".into(),
        table: Some(table.into()),
        relation: Some(Oid(4711)),
        started: None,
        phase: Some("vacuuming indexes".into()),
        heap_blocks: Some(1000),
        heap_blocks_scanned: Some(250),
        heap_blocks_vacuumed: None,
        index_passes: Some(0),
        cpu: Some(Cores(cpu)),
        in_delay: false,
        blocks: 0,
    }
}

pub(crate) fn worker(pid: i32, cpu: f64) -> ProcessReading {
    ProcessReading {
        id: ProcessId { pid: Pid(pid), start_ticks: 77 },
        role: ProcessRole::Postgres("autovacuum worker".into()),
        cpu: Cores(cpu),
        rss: ByteSize(64 << 20),
    }
}

pub(crate) fn of_host(reading: HostReading) -> Observation {
    Observation::Reading(Reading::Host(reading))
}

pub(crate) fn of_activity(reading: ActivityReading) -> Observation {
    Observation::Reading(Reading::Activity(reading))
}

pub(crate) fn down(ms: u64, reason: DownReason) -> Observation {
    Observation::Event(at(ms), EventKind::ServerDown { reason, detail: "its own words".into() })
}

pub(crate) fn up(ms: u64) -> Observation {
    let (version, started) = (PgVersion(180_004), Timestamp::UNIX_EPOCH);
    Observation::Event(at(ms), EventKind::ServerUp { version, started, in_recovery: false })
}

pub(crate) fn observe(rules: &mut Rules, observations: impl IntoIterator<Item = Observation>) -> Vec<Alert> {
    observations.into_iter().flat_map(|observation| rules.observe(&observation)).collect()
}

pub(crate) fn names(alerts: &[Alert]) -> Vec<String> {
    alerts
        .iter()
        .map(|a| {
            format!("{} {} {}", a.rule, if a.state == AlertState::Firing { "fires" } else { "resolves" }, a.severity)
        })
        .collect()
}

pub(crate) fn check_shape(alert: &Alert) {
    assert!(alert.summary.chars().count() <= 120 && !alert.summary.is_empty(), "{}", alert.summary);
    assert!(alert.key.0.chars().all(|c| c.is_ascii_graphic()), "{}", alert.key);
    assert_eq!(alert.labels["cluster"], "main");
    assert_eq!(alert.labels["host"], "db1");
    assert!(alert.since.boot_us <= alert.decided.boot_us);
    if alert.state == AlertState::Firing {
        assert_eq!(alert.next_steps.len(), 3, "{}", alert.rule);
        assert!(!alert.details.is_empty(), "{}", alert.rule);
    }
}
