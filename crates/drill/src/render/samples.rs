//! A result for tests of judge and page: shaped like a real run's, with made-up figures.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use model::Moment;

use crate::{
    cold_start::{ColdKind, ColdLane, ColdRun, ColdSide, ColdStart},
    oom::{Oom, OomAlone, OomClients, OomGuarded},
    options::ActKind,
    result::*,
    storm,
    surge::{Surge, SurgeAlone, SurgeGuarded},
    verdict,
};

fn summary(requests: u64, failed: u64, p50_ms: f64, p99_ms: f64) -> Summary {
    let failures = if failed > 0 { BTreeMap::from([(Failure::TimedOut, failed)]) } else { BTreeMap::new() };
    Summary { requests, failed, failures, p50_ms, p95_ms: (p50_ms + p99_ms) / 2.0, p99_ms, max_ms: p99_ms * 1.5 }
}

fn act(act: ActKind, p50_ms: f64, p99_ms: f64, failed: u64) -> ActResult {
    let storm = act.has_storm();
    let (window_from_s, window_s) = if storm { (3, 20) } else { (3, 6) };
    let of = |requests, failed, factor: f64| summary(requests, failed, p50_ms * factor, p99_ms * factor);
    let seconds = (0..window_from_s + window_s)
        .map(|second| {
            let calm = second < window_from_s + 1;
            let (p99_ms, failed) = if calm { (8.0 + second as f64, 0) } else { (p99_ms, failed.min(second % 3)) };
            Second {
                second,
                all: summary(800, failed, p50_ms, p99_ms),
                services: vec![(Target::Site, summary(400, failed, p50_ms, p99_ms))],
                core_busy: if calm { 0.55 } else { 1.0 },
                vacuum_cores: if calm { 0.0 } else { 0.4 },
            }
        })
        .collect();
    let table = |table: &str, finished_after_s, phase: Option<&str>| TableOutcome {
        table: table.into(),
        finished_after_s,
        phase: phase.map(Into::into),
        scanned: 0.62,
        index_passes: 2,
    };
    ActResult {
        act,
        began: Moment { wall: Timestamp::from_second(1_607_688_000).unwrap(), boot_us: 5_000_000 },
        window_from_s,
        window_s,
        all: of(16_000, failed, 1.0),
        services: vec![
            (Target::Site, of(8_000, 0, 0.8)),
            (Target::Bot, of(4_800, failed / 2, 1.0)),
            (Target::Gate, of(3_200, failed - failed / 2, 1.3)),
        ],
        seconds,
        cpu: CpuFacts {
            busy: if storm { 0.99 } else { 0.56 },
            vacuum: if storm { 0.4 } else { 0.0 },
            postgres: 0.22,
            services: 0.33,
            guard: if act == ActKind::Guarded { 0.004 } else { 0.0 },
            saturated: if storm { vec![Saturation { from_s: 1.4, to_s: 9.0 }] } else { Vec::new() },
        },
        vacuum: storm.then(|| VacuumFacts {
            workers: 3,
            cpu_s: 8.1,
            first_seen_s: Some(0.8),
            tables: vec![
                table("members", Some(14.2), None),
                table("messages", Some(23.0), Some("vacuuming indexes")),
                table("infractions", None, Some("scanning heap")),
            ],
        }),
        guard: (act == ActKind::Guarded).then(|| GuardFacts {
            ready_after_s: 0.4,
            resident_max_bytes: 12_400_000,
            alerts: vec![AlertSeen {
                key: "vacuum-starves-host/drill".into(),
                rule: "vacuum-starves-host".into(),
                state: "firing".into(),
                summary: "vacuum of public.members uses 41 % of the core".into(),
                decided_s: 2.6,
                arrived_s: 2.7,
            }],
            alerts_before_storm: 0,
            stopped_cleanly: true,
            settings_before: "cost limit -1 (base 200), delay 0 (base 0)".into(),
            settings_after: "cost limit -1 (base 200), delay 0 (base 0)".into(),
            remains: Remains {
                settings_reloaded: "cost limit -1 (base 200), delay 0 (base 0)".into(),
                ..Remains::default()
            },
        }),
    }
}

/// Four services on a clock of 1:10: without an order two of them start in vain.
pub(crate) fn cold_start() -> ColdStart {
    let run = |started_s, ready_s, ended_s, lacked: Option<&str>| ColdRun {
        started_s,
        ready_s,
        ended_s,
        lacked: lacked.map(str::to_owned),
    };
    let lane = |service: &str, runs: Vec<ColdRun>| ColdLane { service: service.into(), runs };
    let well = |service: &str, started_s, ready_s| lane(service, vec![run(started_s, Some(ready_s), None, None)]);
    let vain = |service: &str, lacked, ended_s: f64, started_s: f64, ready_s| {
        let first = run(0.0, None, Some(ended_s), Some(lacked));
        let second = run(ended_s, None, Some(ended_s * 2.0), Some(lacked));
        lane(service, vec![first, second, run(started_s, Some(ready_s), None, None)])
    };
    let unordered = vec![
        well("calico", 0.0, 0.61),
        vain("postgresql", "calico", 0.02, 1.04, 1.8),
        vain("site", "postgresql", 0.4, 1.8, 3.0),
        vain("gate", "site", 0.15, 1.3, 4.5),
    ];
    let ordered = vec![
        well("calico", 0.0, 0.61),
        well("postgresql", 1.12, 1.9),
        well("site", 2.41, 3.61),
        well("gate", 4.15, 4.6),
    ];
    let side = |how, stable_s, wasted, lanes| ColdSide {
        how,
        killed: 12,
        stable_s: Some(stable_s),
        wasted,
        early: 0,
        limit_s: Some(3.5),
        settled_limit_s: Some(4.8),
        lanes,
        gave_up: None,
    };
    let started = |(name, takes): (&str, Option<f64>)| (name.to_owned(), takes);
    ColdStart {
        scale: 10,
        stable_for_s: 0.5,
        sigma: 0.35,
        seed: 20_201_211,
        starts_in_s: [("calico", Some(6.0)), ("postgresql", None), ("site", Some(12.0)), ("gate", Some(4.5))]
            .map(started)
            .into(),
        wal_bytes: Some(87_000_000),
        sides: vec![side(ColdKind::Unordered, 8.1, 6, unordered), side(ColdKind::Ordered, 5.1, 0, ordered)],
    }
}

/// A run in which all is as it should be.
pub(crate) fn result() -> DrillResult {
    let acts = vec![
        act(ActKind::Baseline, 2.1, 14.0, 0),
        act(ActKind::Stock, 3.0, 61.0, 0),
        act(ActKind::Unthrottled, 41.0, 2_310.0, 37),
        act(ActKind::Guarded, 2.6, 96.0, 0),
    ];
    let detection = Some(Detection {
        rule: "vacuum-starves-host".into(),
        summary: "vacuum of public.members uses 41 % of the core".into(),
        saturated_s: 1.4,
        decided_after_s: 1.2,
        delivered_after_s: 1.3,
        told_before: false,
    });
    let verdict = verdict::judge(&verdict::Evidence {
        acts: &acts,
        detection: detection.as_ref(),
        rescue: None,
        cold_start: None,
        left: &[],
        looked_for_left: true,
    });
    let table =
        |name: &str| StormTable { name: name.into(), live: 1_200_000, dead: 1_200_000, indexes: 5, bytes: 450 << 20 };
    DrillResult {
        schema_version: SCHEMA_VERSION,
        drill: "vacuum-storm".into(),
        started: Timestamp::from_second(1_607_688_000).unwrap(),
        took_s: 118.0,
        seed: 20_201_211,
        host: Host {
            cores: 2,
            database_core: 0,
            load_core: 1,
            storage: "tmpfs".into(),
            kernel: "6.18.0".into(),
            autogroup: Some(true),
        },
        server: Server {
            version: "18.1".into(),
            bin_dir: PathBuf::from("/opt/pg18/bin"),
            settings: storm::settings(18),
        },
        tables: storm::TABLES.iter().map(|name| table(name)).collect(),
        load: LoadFacts {
            capacity_per_s: 1_476.0,
            share: 0.55,
            rate_per_s: 812.0,
            mix_percent: crate::load::MIX.to_vec(),
            patience_s: 5.0,
            timeouts: "users and services wait 5 s for an answer".into(),
        },
        acts,
        detection,
        rescue: Some(Rescue {
            data_bytes: 1_400 << 20,
            repository_bytes: 210 << 20,
            vacuums_running: 3,
            backup_s: 9.1,
            dropped: "orders".into(),
            reach_s: 0.9,
            ledger_before: 200,
            ledger_after: 200,
            restore_s: 6.2,
            start_s: 0.8,
            proof_s: 11.4,
            rows_before: 3_600_000,
            rows_after: 3_600_000,
            same: true,
        }),
        cold_start: Some(cold_start()),
        verdict,
        report: Some(PathBuf::from("oxpecker-demo/report.md")),
        kept: None,
    }
}

/// A surge in which all is as it should be.
pub(crate) fn surge() -> Surge {
    let alone = SurgeAlone { opened: 51, exhausted_s: Some(1.0), refused: 57, tried_for_s: 6.0, let_in_s: None };
    let guarded = SurgeGuarded {
        opened: 50,
        exhausted_s: Some(1.01),
        decided_s: Some(0.84),
        delivered_s: Some(0.89),
        said: Some("drill: connections grew by 41 in 1 s to 48 of 57: role site, local".into()),
        named_role: Some("site".into()),
        named_application: Some("leaky-pool".into()),
        refused: 18,
        let_in_s: Some(2.9),
        ended: 12,
        ended_in_transaction: 7,
        ended_of_others: 0,
        ended_from_to_s: Some((1.9, 2.87)),
        ended_because: Some("57 of 57 connections in use".into()),
        gone: 12,
        bystanders: 6,
        bystanders_left: 6,
        used_after: Some(45),
        readings: 3,
        longest_gap_s: 1.1,
        superuser_in: true,
        stopped_cleanly: true,
    };
    let lines = vec![
        VerdictLine { claim: "the surge came".into(), passed: true, because: "after 1.0 s".into() },
        VerdictLine { claim: "growth seen".into(), passed: true, because: "after 0.8 s".into() },
    ];
    Surge {
        schema_version: 1,
        server: "17.5".into(),
        usable: 57,
        relief_from: 46,
        alone,
        guarded,
        left: Vec::new(),
        verdict: Verdict { passed: true, lines, notes: Vec::new() },
    }
}

/// An exhaustion in which all is as it should be.
pub(crate) fn oom() -> Oom {
    let rows = crate::oom::ROWS;
    let alone = OomAlone {
        killed_s: Some(10.9),
        kills: 1,
        hog_survived: true,
        clients: OomClients {
            rows: 336_001,
            query_done_s: None,
            query_failed: Some("terminating connection because of crash of another server process".into()),
            answered: 104,
            failed: 3,
        },
        server_said: Some("server process (PID 4711) was terminated by signal 9: Killed".into()),
    };
    let guarded = OomGuarded {
        low_s: Some(3.2),
        decided_s: Some(4.6),
        delivered_s: Some(4.65),
        said: Some("Memory of db1 low: 220 MiB of 1.0 GiB left to PostgreSQL's control group (21 %)".into()),
        named: Some("postgres (pid 4711) with 580 MiB, thumbnails (pid 4712) with 152 MiB".into()),
        stopped_s: Some(7.4),
        act: Some("stop thumbnails".into()),
        because: Some("121 MiB of 1.0 GiB memory available to PostgreSQL's control group".into()),
        passed: vec!["throttle vacuum: no vacuum runs that may be slowed".into()],
        least_left_bytes: 110 << 20,
        kills: 0,
        server_said: None,
        clients: OomClients { rows, query_done_s: Some(18.2), query_failed: None, answered: 171, failed: 0 },
        given_back_s: Some(12.1),
        stopped_cleanly: true,
    };
    let lines = vec![
        VerdictLine { claim: "the kernel killed".into(), passed: true, because: "after 10.9 s".into() },
        VerdictLine { claim: "told".into(), passed: true, because: "after 4.7 s".into() },
    ];
    Oom {
        schema_version: 1,
        server: "17.5".into(),
        limit_bytes: crate::oom::LIMIT_BYTES,
        rows,
        alone,
        guarded,
        left: Vec::new(),
        verdict: Verdict { passed: true, lines, notes: Vec::new() },
    }
}
