//! A builder of event sequences: a boot clock, a wall clock and the events of one journal.

use std::time::Duration;

use jiff::Timestamp;
use model::{
    Alert, AlertKey, AlertState, ByteSize, Cores, Event, EventId, EventKind, Lsn, Mode, Moment, Pid, ProcessId,
    ServiceName, Severity, Share, TableName,
    event::{BackupTask, CostSetting, DownReason, Lever, ReleaseReason, ServiceWindow},
    reading::{Health, VacuumKind},
};

/// 2026-03-01 02:00:00 UTC.
const BEGIN: i64 = 1_772_330_400;

pub struct Story {
    pub events: Vec<Event>,
    wall: Timestamp,
    boot_us: u64,
}

pub fn worker(pid: i32) -> ProcessId {
    ProcessId { pid: Pid(pid), start_ticks: 1000 + u64::from(pid.unsigned_abs()) }
}

pub fn cost(limit: u32, delay_ms: f64) -> CostSetting {
    CostSetting { limit, delay_ms }
}

/// A run of the backup worker.
pub fn backup_started(reason: &str) -> EventKind {
    EventKind::BackupStarted { task: BackupTask::Create, reason: reason.into() }
}

pub fn backup_made(backup: &str) -> EventKind {
    EventKind::BackupFinished {
        backup: backup.into(),
        consistent_at: Timestamp::from_second(BEGIN).unwrap(),
        stop_lsn: Lsn(0x2A00_0120),
        took: Duration::from_secs(312),
        size: ByteSize(20 << 30),
        stored: ByteSize(1 << 30),
        corrupt_pages: 0,
    }
}

pub fn backup_proven(backup: &str) -> EventKind {
    EventKind::ProofFinished {
        backup: backup.into(),
        consistent_at: Timestamp::from_second(BEGIN).unwrap(),
        took: Duration::from_secs(640),
        recovery_time: Some(Duration::from_secs(95)),
        found_age: None,
    }
}

pub fn backup_failed(error: &str) -> EventKind {
    EventKind::BackupFailed { error: error.into(), failures: 2, retry_at: None }
}

impl Story {
    pub fn new() -> Self {
        Self { events: Vec::new(), wall: Timestamp::from_second(BEGIN).unwrap(), boot_us: 3_600_000_000 }
    }

    pub fn now(&self) -> Moment {
        Moment { wall: self.wall, boot_us: self.boot_us }
    }

    /// Lets time pass on both clocks.
    pub fn wait_ms(&mut self, ms: u64) -> &mut Self {
        let later = self.now().plus(Duration::from_millis(ms));
        (self.wall, self.boot_us) = (later.wall, later.boot_us);
        self
    }

    /// Steps the wall clock alone.
    pub fn step_ms(&mut self, ms: i64) -> &mut Self {
        self.wall = Timestamp::from_microsecond(self.wall.as_microsecond() + ms * 1000).unwrap();
        self.push(EventKind::ClockStepped { by_ms: ms })
    }

    /// Boots the host: the boot clock begins anew.
    pub fn reboot(&mut self, down_ms: u64) -> &mut Self {
        self.wait_ms(down_ms);
        self.boot_us = 20_000_000;
        self
    }

    pub fn push(&mut self, kind: EventKind) -> &mut Self {
        let id = EventId(i64::try_from(self.events.len()).unwrap() + 1);
        self.events.push(Event { id, at: self.now(), kind });
        self
    }

    pub fn guard(&mut self, mode: Mode, boot_id: &str) -> &mut Self {
        self.push(EventKind::GuardStarted {
            version: "0.1.0".into(),
            pid: Pid(812),
            boot_id: boot_id.into(),
            cluster: "main".into(),
            mode,
            limitations: vec![],
        })
    }

    pub fn declare(&mut self, service: &str, needs: &[&str], impact: &[&str]) -> &mut Self {
        self.push(EventKind::ServiceDeclared {
            service: service.into(),
            depends_on: needs.iter().map(|n| ServiceName::from(*n)).collect(),
            impact: impact.iter().map(|i| (*i).to_owned()).collect(),
        })
    }

    pub fn settings(&mut self, resting: CostSetting) -> &mut Self {
        self.push(EventKind::SettingsSeen { resting, others: [("autovacuum_max_workers".into(), "3".into())].into() })
    }

    pub fn vacuum(&mut self, pid: i32, table: &str, kind: VacuumKind) -> &mut Self {
        self.push(EventKind::VacuumSeen {
            process: worker(pid),
            kind,
            database: "app".into(),
            table: Some(table.into()),
            relation: None,
        })
    }

    pub fn vacuum_gone(&mut self, pid: i32, table: &str, seen_ms: u64, cpu_ms: u64) -> &mut Self {
        self.push(EventKind::VacuumGone {
            process: worker(pid),
            database: "app".into(),
            table: Some(table.into()),
            seen_for: Duration::from_millis(seen_ms),
            cpu_time: Duration::from_millis(cpu_ms),
        })
    }

    /// An alert whose condition began `ago_ms` before now.
    pub fn alert(
        &mut self,
        rule: &str,
        severity: Severity,
        ago_ms: u64,
        summary: &str,
        labels: &[(&str, &str)],
    ) -> &mut Self {
        let boot_us = self.boot_us.saturating_sub(ago_ms * 1000);
        let wall =
            Timestamp::from_microsecond(self.wall.as_microsecond() - i64::try_from(ago_ms * 1000).unwrap()).unwrap();
        let mut labels: std::collections::BTreeMap<String, String> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        labels.insert("cluster".into(), "main".into());
        let alert = Alert {
            key: AlertKey(format!("main/{rule}/1")),
            rule: rule.into(),
            severity,
            state: AlertState::Firing,
            since: Moment { wall, boot_us },
            decided: self.now(),
            summary: summary.into(),
            details: vec![],
            next_steps: vec![],
            labels,
        };
        self.push(EventKind::Alerted { alert })
    }

    pub fn resolve(&mut self, rule: &str) -> &mut Self {
        let key = AlertKey(format!("main/{rule}/1"));
        let fired = self.events.iter().rev().find_map(|e| match &e.kind {
            EventKind::Alerted { alert } if alert.key == key => Some(alert.clone()),
            _ => None,
        });
        let alert = Alert { state: AlertState::Resolved, decided: self.now(), ..fired.unwrap() };
        self.push(EventKind::Alerted { alert })
    }

    pub fn delivered(&mut self, rule: &str, latency_ms: u64) -> &mut Self {
        self.push(EventKind::AlertDelivered {
            key: AlertKey(format!("main/{rule}/1")),
            state: AlertState::Firing,
            route: "ops-webhook".into(),
            attempt: 1,
            latency: Duration::from_millis(latency_ms),
        })
    }

    pub fn failed(&mut self, rule: &str, attempt: u32, gave_up: bool) -> &mut Self {
        self.push(EventKind::AlertFailed {
            key: AlertKey(format!("main/{rule}/1")),
            route: "ops-webhook".into(),
            attempt,
            error: "status 500".into(),
            gave_up,
        })
    }

    pub fn engage(&mut self, pid: i32, table: &str) -> &mut Self {
        self.push(EventKind::ThrottleEngaged {
            workers: vec![worker(pid)],
            tables: vec![Some(TableName::from(table))],
            lever: Lever::WorkerSignal,
            setting: cost(200, 10.0),
            reason: "runnable tasks waited while it used 91 % of the core".into(),
        })
    }

    pub fn adjust(&mut self, pid: i32, limit: u32) -> &mut Self {
        self.push(EventKind::ThrottleAdjusted {
            workers: vec![worker(pid)],
            setting: cost(limit, 10.0),
            reason: "the pressure stayed above its target".into(),
        })
    }

    pub fn verify(&mut self, cpu: (f64, f64), busy: (f64, f64), obeyed: bool) -> &mut Self {
        self.push(EventKind::ThrottleVerified {
            cpu_before: Cores(cpu.0),
            cpu_after: Cores(cpu.1),
            busy_before: Share(busy.0),
            busy_after: Share(busy.1),
            obeyed,
        })
    }

    pub fn release(&mut self, reason: ReleaseReason, held_ms: u64) -> &mut Self {
        self.push(EventKind::ThrottleReleased {
            reason,
            held: Duration::from_millis(held_ms),
            detail: "stall share 3 %".into(),
        })
    }

    pub fn propose(&mut self, pid: i32, table: &str) -> &mut Self {
        self.push(EventKind::ThrottleProposed {
            workers: vec![worker(pid)],
            tables: vec![Some(TableName::from(table))],
            setting: cost(200, 10.0),
            reason: "it used 91 % of the core while others waited".into(),
            command: "ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 200".into(),
        })
    }

    pub fn service(&mut self, service: &str, health: Health, detail: &str) -> &mut Self {
        self.push(EventKind::ServiceChanged { service: service.into(), health, detail: detail.into(), impact: vec![] })
    }

    pub fn measured(&mut self, service: &str, succeeded: u64, failed: u64, slowest_ms: u64) -> &mut Self {
        self.push(EventKind::ServiceMeasured {
            service: service.into(),
            answers: ServiceWindow {
                window: Duration::from_secs(10),
                succeeded,
                failed,
                slowest: Duration::from_millis(slowest_ms),
            },
        })
    }

    pub fn down(&mut self, reason: DownReason, detail: &str) -> &mut Self {
        self.push(EventKind::ServerDown { reason, detail: detail.into() })
    }

    pub fn up(&mut self) -> &mut Self {
        let started = self.wall;
        self.push(EventKind::ServerUp { version: model::PgVersion(170_002), started, in_recovery: false })
    }
}
