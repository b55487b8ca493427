//! What was lost: the server's and the services' outages, answers that failed, and the vacuums that ran meanwhile.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Cores, DatabaseName, EventId, EventKind, ProcessId, ServiceName, TableName,
    event::{DownReason, ServiceWindow},
    reading::VacuumKind,
};
use serde::Serialize;

use crate::{
    Placed, Span, Stamp,
    timeline::{Condition, ConditionKind},
    words::{count, quote},
};

/// A time in which something did not serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// From when it was seen.
    pub from: Stamp,
    /// Until when; none where it has not ended.
    pub until: Option<Stamp>,
    /// How long, up to the last that is known where it has not ended.
    pub lasted: Span,
    /// The event that showed it.
    pub opened_by: EventId,
    /// The event that showed its end.
    pub closed_by: Option<EventId>,
}

impl Outage {
    fn of(condition: &Condition, now: Stamp) -> Self {
        Self {
            from: condition.since,
            until: condition.ended,
            lasted: condition.lasted(now.max(condition.since)),
            opened_by: condition.opened_by,
            closed_by: condition.ended_by,
        }
    }

    /// The events that show it.
    pub fn events(&self) -> impl Iterator<Item = EventId> {
        std::iter::once(self.opened_by).chain(self.closed_by)
    }
}

/// How long PostgreSQL did not serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServerImpact {
    /// Each outage.
    pub outages: Vec<Outage>,
    /// All of them together.
    pub downtime: Span,
    /// Each reason that was seen, in order, with the event that gave it. The same one twice in a row is kept once.
    pub reasons: Vec<(DownReason, EventId)>,
}

/// What one service lost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceImpact {
    /// Which.
    pub service: ServiceName,
    /// Each time in which it was unhealthy.
    pub outages: Vec<Outage>,
    /// All of them together.
    pub downtime: Span,
    /// Answers over all windows that were measured.
    pub answers: ServiceWindow,
    /// The events of `answers`.
    pub measured_by: Vec<EventId>,
    /// What people lose while it is down, as declared.
    pub impact: Vec<String>,
    /// The events that declare `impact`.
    pub impact_by: Vec<EventId>,
}

impl ServiceImpact {
    fn new(service: &ServiceName) -> Self {
        Self {
            service: service.clone(),
            outages: Vec::new(),
            downtime: Span::default(),
            answers: ServiceWindow::default(),
            measured_by: Vec::new(),
            impact: Vec::new(),
            impact_by: Vec::new(),
        }
    }

    /// Whether the events show that it failed anybody.
    pub fn harmed(&self) -> bool {
        !self.outages.is_empty() || self.answers.failed > 0
    }

    /// The events that show that it failed people.
    pub fn harm_events(&self) -> impl Iterator<Item = EventId> {
        let measured = self.measured_by.iter().copied().filter(|_| self.answers.failed > 0);
        self.outages.iter().flat_map(Outage::events).chain(measured)
    }

    /// What it failed people in, in a few words.
    pub(crate) fn in_short(&self) -> String {
        let name = quote(self.name());
        match (self.outages.is_empty(), self.answers.failed) {
            (false, 0) => format!("{name} was unhealthy for {}", self.downtime),
            (false, failed) => {
                format!("{name} was unhealthy for {} and failed {}", self.downtime, count(failed, "answer"))
            }
            (true, failed) => format!("{name} failed {}", count(failed, "answer")),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.service.as_str()
    }
}

/// A vacuum that ran during the incident or shortly before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VacuumFacts {
    /// Its process.
    pub process: ProcessId,
    /// What it did; none where its beginning is not in the journal.
    pub kind: Option<VacuumKind>,
    /// Its database.
    pub database: DatabaseName,
    /// Its table.
    pub table: Option<TableName>,
    /// When it was first seen, and by which event.
    pub seen: Option<(Stamp, EventId)>,
    /// When it was gone, and by which event.
    pub gone: Option<(Stamp, EventId)>,
    /// How long it was seen.
    pub seen_for: Option<Duration>,
    /// The CPU time that it used meanwhile.
    pub cpu_time: Option<Duration>,
}

impl VacuumFacts {
    /// The events that show it.
    pub fn events(&self) -> impl Iterator<Item = EventId> {
        self.seen.into_iter().chain(self.gone).map(|(_, id)| id)
    }

    /// Its mean CPU while it was seen.
    pub fn cpu(&self) -> Option<Cores> {
        let (cpu, seen) = (self.cpu_time?, self.seen_for?);
        (!seen.is_zero()).then(|| Cores(cpu.as_secs_f64() / seen.as_secs_f64()))
    }
}

pub(crate) fn server(conditions: &[Condition], evidence: &[Placed], until: Stamp) -> ServerImpact {
    let mut impact = ServerImpact::default();
    for condition in conditions.iter().filter(|c| matches!(c.kind, ConditionKind::ServerDown)) {
        let outage = Outage::of(condition, until);
        impact.downtime = impact.downtime.plus(outage.lasted);
        impact.outages.push(outage);
    }
    for event in evidence {
        if let EventKind::ServerDown { reason, .. } = event.kind()
            && impact.reasons.last().is_none_or(|(last, _)| last != reason)
        {
            impact.reasons.push((*reason, event.id()));
        }
    }
    impact
}

/// Services that were unhealthy or measured, by name.
pub(crate) fn services(conditions: &[Condition], evidence: &[Placed], until: Stamp) -> Vec<ServiceImpact> {
    let mut found: BTreeMap<ServiceName, ServiceImpact> = BTreeMap::new();
    for condition in conditions {
        if let ConditionKind::ServiceUnhealthy { service } = &condition.kind {
            let impact = found.entry(service.clone()).or_insert_with(|| ServiceImpact::new(service));
            let outage = Outage::of(condition, until);
            impact.downtime = impact.downtime.plus(outage.lasted);
            impact.outages.push(outage);
        }
    }
    for event in evidence {
        if let EventKind::ServiceMeasured { service, answers } = event.kind() {
            let impact = found.entry(service.clone()).or_insert_with(|| ServiceImpact::new(service));
            let sum = &mut impact.answers;
            sum.window = sum.window.saturating_add(answers.window);
            sum.succeeded = sum.succeeded.saturating_add(answers.succeeded);
            sum.failed = sum.failed.saturating_add(answers.failed);
            sum.slowest = sum.slowest.max(answers.slowest);
            impact.measured_by.push(event.id());
        }
    }
    for event in evidence {
        let (EventKind::ServiceChanged { service, impact: declared, .. }
        | EventKind::ServiceDeclared { service, impact: declared, .. }) = event.kind()
        else {
            continue;
        };
        let Some(impact) = found.get_mut(service) else { continue };
        for lost in declared {
            if !impact.impact.contains(lost) {
                impact.impact.push(lost.clone());
                impact.impact_by.push(event.id());
            }
        }
    }
    found.into_values().collect()
}

/// Vacuums in the order in which they appeared.
pub(crate) fn vacuums(evidence: &[Placed]) -> Vec<VacuumFacts> {
    let mut found: Vec<VacuumFacts> = Vec::new();
    for event in evidence {
        match event.kind() {
            EventKind::VacuumSeen { process, kind, database, table, .. } => found.push(VacuumFacts {
                process: *process,
                kind: Some(*kind),
                database: database.clone(),
                table: table.clone(),
                seen: Some((event.stamp, event.id())),
                gone: None,
                seen_for: None,
                cpu_time: None,
            }),
            EventKind::VacuumGone { process, database, table, seen_for, cpu_time } => {
                let gone = Some((event.stamp, event.id()));
                // A worker goes from table to table: the newest vacuum of this process on this table that has not ended.
                let open = found.iter_mut().rev().find(|v| {
                    v.process == *process && v.table == *table && v.database == *database && v.gone.is_none()
                });
                match open {
                    Some(vacuum) => {
                        (vacuum.gone, vacuum.seen_for, vacuum.cpu_time) = (gone, Some(*seen_for), Some(*cpu_time));
                    }
                    None => found.push(VacuumFacts {
                        process: *process,
                        kind: None,
                        database: database.clone(),
                        table: table.clone(),
                        seen: None,
                        gone,
                        seen_for: Some(*seen_for),
                        cpu_time: Some(*cpu_time),
                    }),
                }
            }
            _ => {}
        }
    }
    found
}
