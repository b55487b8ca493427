//! Rule `vacuum-starves-host`.
//!
//! *Why*: the outage that this program exists for: an autovacuum took all of the CPU, the database stopped answering, the host
//! went down. "CPU high" sends people to the wrong place; this names the table, the worker, its share and who waits.
//! *Source*: CPU saturation as in `cpu-saturated`, the CPU time of each vacuum's process, and what is seen to wait: tasks for a
//! CPU, sessions inside PostgreSQL, sessions behind a vacuum's lock, the activity query itself.
//! *First things to do*: let the governor hold the vacuum; else hold it by hand; end it only if that fails, and never one that
//! prevents wraparound.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Cores, Moment, Observation, Pid, ProcessId, Reading, Severity, Share,
    alert::{label, rule},
    reading::{ActivityReading, HostReading, ProcessRole, VacuumKind, VacuumReading},
};

use super::{
    cpu,
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{percent, plural, short, span},
};
use crate::settings::{self, duration};

/// How long the newest activity reading tells what the workers do. While the server starves, its answers come late; the CPU of
/// its processes is read from the host all the same.
const ACTIVITY_VALID: Duration = Duration::from_secs(20);

/// How long the newest host reading tells whether the host is saturated.
const HOST_VALID: Duration = Duration::from_secs(5);

/// Half windows for which the alert waits for the worst worker's table: the host shows a new worker before the activity
/// view does, and an alert that names the table is worth half a second. A server too starved to answer is not waited for longer.
const WAIT_FOR_NAME: u32 = 1;

/// How long a share of the CPUs is blamed after it fell: the governor holds the first worker before the saturation is confirmed, and
/// what it starved still waits. As long as that confirmation takes, so that the share belongs to the saturation that is told.
const BLAMED_FOR: Duration = Duration::from_secs(3);

/// Workers that an alert names. `autovacuum_max_workers` is 3 by default.
const NAMED_WORKERS: usize = 8;

/// One vacuum and the CPU that it takes.
#[derive(Clone, Debug)]
struct Worker {
    process: ProcessId,
    cpu: Cores,
    /// `None` for a worker that the activity view has not shown yet: while the server starves, the host shows it first.
    seen: Option<VacuumReading>,
}

impl Worker {
    fn kind(&self) -> &'static str {
        match self.seen.as_ref().map(|v| v.kind) {
            Some(VacuumKind::Autoanalyze) => "autoanalyze",
            Some(VacuumKind::AntiWraparound) => "autovacuum (to prevent wraparound)",
            Some(VacuumKind::Manual) => "VACUUM run by a person or script",
            Some(VacuumKind::Autovacuum) | None => "autovacuum",
        }
    }

    fn target(&self) -> String {
        match &self.seen {
            None => "a table not known yet".into(),
            Some(v) => match &v.table {
                Some(table) => format!("{}.{table}", v.database),
                None => format!("database {}, table not known yet", v.database),
            },
        }
    }
}

/// The rule's state.
pub(super) struct VacuumStarvesHost {
    settings: settings::VacuumStarvesHost,
    cpu_settings: settings::CpuSaturated,
    gate: Gate,
    host: Option<HostReading>,
    activity: Option<ActivityReading>,
    /// Saturated half windows in a row, and since when.
    saturated: Option<(u32, Moment)>,
    /// The vacuums' last share that was large enough to blame while the CPUs were saturated.
    blamed: Option<(Share, Moment)>,
}

impl VacuumStarvesHost {
    pub(super) fn new(settings: settings::VacuumStarvesHost, cpu_settings: settings::CpuSaturated) -> Self {
        let gate = Gate::new(Confirmation {
            // Saturation is confirmed over several windows below; whose CPU it is needs no second reading.
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: cpu::MAX_GAP,
        });
        Self { settings, cpu_settings, gate, host: None, activity: None, saturated: None, blamed: None }
    }

    fn see_host(&mut self, host: &HostReading) -> Option<()> {
        let weight = cpu::weight(host.window)?;
        let hole = self.host.as_ref().is_some_and(|last| host.at.since(last.at) > host.window + cpu::MAX_GAP);
        let busy = host.cpu_for_database().1.busy().0 * 100.0 >= self.cpu_settings.busy_percent;
        self.saturated = match self.saturated.filter(|_| busy && !hole) {
            Some((windows, since)) => Some((windows.saturating_add(weight), since)),
            None => busy.then_some((weight, host.at)),
        };
        if self.saturated.is_none() {
            self.blamed = None;
        }
        self.host = Some(host.clone());
        Some(())
    }

    /// The vacuums, worst first.
    fn workers(&self, host: &HostReading) -> Vec<Worker> {
        let mut workers: BTreeMap<Pid, Worker> = BTreeMap::new();
        for process in &host.processes {
            if matches!(&process.role, ProcessRole::Postgres(kind) if kind == "autovacuum worker") {
                workers.insert(process.id.pid, Worker { process: process.id, cpu: process.cpu, seen: None });
            }
        }
        let activity = self.activity.as_ref().filter(|a| {
            // The activity reading may be the newer one of the two.
            host.at.since(a.at) <= ACTIVITY_VALID
        });
        for vacuum in activity.into_iter().flat_map(|a| &a.vacuums) {
            let on_host = host.processes.iter().find(|p| {
                p.id.pid == vacuum.process.pid
                    && (vacuum.process.start_ticks == 0 || p.id.start_ticks == vacuum.process.start_ticks)
            });
            let cpu = on_host.map(|p| p.cpu).or(vacuum.cpu).unwrap_or_default();
            workers.insert(vacuum.process.pid, Worker { process: vacuum.process, cpu, seen: Some(vacuum.clone()) });
        }
        let mut workers: Vec<_> = workers.into_values().collect();
        workers.sort_by(|a, b| b.cpu.0.total_cmp(&a.cpu.0));
        workers
    }

    fn share(&self, host: &HostReading, workers: &[Worker]) -> Share {
        let used: Cores = workers.iter().map(|w| w.cpu).sum();
        Share::of(used.0, f64::from(host.cpu_for_database().0))
    }

    /// Who or what waits, in words; empty where nothing does.
    fn waits(&self, host: &HostReading) -> Vec<String> {
        let mut waits = Vec::new();
        if cpu::waits_for_cpu(host, &self.cpu_settings) {
            let cpus = plural(host.cpu_for_database().0, "CPU", "CPUs");
            let pressure = host.cpu_pressure.map(|p| format!(", stalled in {} of the time", percent(p.some)));
            waits.push(format!(
                "{} for {cpus}{}",
                plural(cpu::runnable(host), "task", "tasks"),
                pressure.unwrap_or_default()
            ));
        }
        let Some(activity) = self.activity.as_ref().filter(|a| host.at.since(a.at) <= ACTIVITY_VALID) else {
            return waits;
        };
        let active_waiting = activity.connections.active_waiting;
        if active_waiting > 0 {
            let active = activity.connections.by_state.get("active").copied().unwrap_or(active_waiting);
            waits.push(format!(
                "{active_waiting} of {} inside PostgreSQL",
                plural(active, "active session", "active sessions")
            ));
        }
        for vacuum in activity.vacuums.iter().filter(|v| v.blocks > 0) {
            let sessions = plural(vacuum.blocks, "session", "sessions");
            waits.push(format!("{sessions} for a lock of the vacuum with pid {}", vacuum.process.pid));
        }
        if activity.took.as_secs_f64() * 1e3 >= self.settings.canary_ms {
            waits.push(format!("a small query on the activity view took {}", span(activity.took)));
        }
        waits
    }

    fn facts_of(&self, host: &HostReading, workers: &[Worker]) -> Vec<String> {
        let cpus = f64::from(host.cpu_for_database().0);
        let mut facts = vec![format!(
            "vacuums take {} of the database's {}",
            percent(self.share(host, workers)),
            plural(host.cpu_for_database().0, "CPU", "CPUs")
        )];
        let before = self.blamed.filter(|(share, _)| share.0 > self.share(host, workers).0);
        facts.extend(before.map(|(share, when)| {
            format!("vacuums took {} of them {} earlier", percent(share), span(host.at.since(when)))
        }));
        facts.extend(workers.iter().take(NAMED_WORKERS).map(|worker| {
            let mut fact = format!(
                "{} of {} by pid {}: {} of one core, {} of the database's CPUs",
                worker.kind(),
                worker.target(),
                worker.process.pid,
                worker.cpu,
                percent(Share::of(worker.cpu.0, cpus))
            );
            if let Some(phase) = worker.seen.as_ref().and_then(|v| v.phase.as_ref()) {
                fact.push_str(&format!(", {phase}"));
            }
            if let Some((done, all)) = worker.seen.as_ref().and_then(|v| v.heap_blocks_scanned.zip(v.heap_blocks))
                && all > 0
            {
                fact.push_str(&format!(", {} of the table scanned", percent(Share::of(done as f64, all as f64))));
            }
            fact
        }));
        if workers.len() > NAMED_WORKERS {
            facts.push(format!("and {} more", workers.len() - NAMED_WORKERS));
        }
        facts.extend(self.waits(host).into_iter().map(|wait| format!("waits: {wait}")));
        facts.extend(cpu::cpu_facts(host));
        facts
    }
}

impl Rule for VacuumStarvesHost {
    fn id(&self) -> &'static str {
        rule::VACUUM_STARVES_HOST
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Vacuum starving {}", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let at = match observation {
            Observation::Reading(Reading::Host(host)) => {
                self.see_host(host)?;
                host.at
            }
            Observation::Reading(Reading::Activity(activity)) => {
                self.activity = Some(activity.clone());
                activity.at
            }
            _ => return None,
        };
        let host = self.host.as_ref().filter(|host| at.since(host.at) <= HOST_VALID)?;
        let workers = self.workers(host);
        let share = self.share(host, &workers);
        let busy = host.cpu_for_database().1.busy().0 * 100.0;
        let named = workers.first().is_some_and(|worst| worst.seen.as_ref().is_some_and(|v| v.table.is_some()));
        let needed = cpu::half_windows(self.cpu_settings.windows) + if named { 0 } else { WAIT_FOR_NAME };
        let confirmed = self.saturated.filter(|(windows, _)| *windows >= needed);
        let blamed = match self.blamed {
            _ if self.saturated.is_some() && share.0 * 100.0 >= self.settings.vacuum_percent => Some((share, at)),
            kept => kept.filter(|(_, when)| at.since(*when) <= BLAMED_FOR && !workers.is_empty()),
        };
        let verdict = if confirmed.is_some() && blamed.is_some() && !self.waits(host).is_empty() {
            Verdict::Bad(Severity::Critical)
        } else if share.0 * 100.0 < self.settings.clear_percent || busy < self.cpu_settings.clear_percent {
            Verdict::Good
        } else {
            Verdict::Between
        };
        let window = host.window;
        self.blamed = blamed;
        let since = confirmed.map(|(_, since)| since);
        Some(Judgement { at, since, window, weight: 1, verdict })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(host) = &self.host else { return Facts::default() };
        let workers = self.workers(host);
        let Some(worst) = workers.first() else { return Facts::default() };
        let cpus = f64::from(host.cpu_for_database().0);
        let mut labels: BTreeMap<String, String> = [(label::PID.to_owned(), worst.process.pid.to_string())].into();
        if let Some(seen) = &worst.seen {
            labels.insert(label::DATABASE.into(), seen.database.to_string());
            labels.extend(seen.table.as_ref().map(|table| (label::TABLE.to_owned(), table.to_string())));
        }
        let others = match workers.iter().skip(1).filter(|w| w.cpu.0 > 0.0).count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first_wait = self.waits(host).into_iter().next().unwrap_or_default();
        let prevents_wraparound = worst.seen.as_ref().is_some_and(|v| v.kind == VacuumKind::AntiWraparound);
        Facts {
            summary: format!(
                "Vacuum starves {}: {} (pid {}, {} of the CPU){others}; waiting: {first_wait}",
                short(&subject.host),
                short(&worst.target()),
                worst.process.pid,
                percent(Share::of(worst.cpu.0, cpus)),
            ),
            details: self.facts_of(host, &workers),
            labels,
            next_steps: steps(&[
                "see whether the governor holds it: `oxpecker vacuum status`",
                "if it does not: `[autovacuum] mode = \"act\"` lets it; status also prints the command for doing it by hand",
                if prevents_wraparound {
                    "do not cancel or end it: it prevents wraparound; rather shed load"
                } else {
                    "only if people are hurt and holding fails: `SELECT pg_terminate_backend(pid)`; it comes back and begins anew"
                },
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        let Some(host) = &self.host else { return Vec::new() };
        self.facts_of(host, &self.workers(host))
    }
}
