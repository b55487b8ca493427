//! What each section says.

use std::collections::BTreeMap;

use model::{EventId, EventKind, alert::rule};

use super::{MAX_STATEMENTS, Part, or_else};
use crate::{
    Cites, Diagnosis, Fact, Incident, Placed, ServiceImpact, Stamp, Statement, Verdict,
    describe::{describe, relation},
    lessons,
    timeline::{ConditionKind, edges},
    words::{self, count, list, quote},
};

/// Steps of the clock, and gaps, that the summary names; the sections after it name the rest.
const MAX_IN_SUMMARY: usize = 3;

pub(super) fn summary(incident: &Incident, diagnosis: &Diagnosis) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    let harm = harm_in_short(incident);
    let told = |s: &Statement| matches!(s, Statement::Fact(fact) if fact.text().starts_with(incident.title.text()));
    if !harm.iter().any(told) {
        out.push(incident.title.clone().into());
    }
    let of = incident.cluster.as_deref().map_or_else(|| "It".to_owned(), |c| format!("On cluster {} it", quote(c)));
    let guard = incident.evidence.iter().find(|p| matches!(p.kind(), EventKind::GuardStarted { .. })).map(Placed::id);
    if let Some(cites) = edges(&incident.conditions) {
        let text = match incident.end {
            Some(end) => format!("{of} began at {} and was over at {end}, after {}", incident.start, incident.lasted),
            None => format!(
                "{of} began at {} and was not over at {}, {} later, when the newest event of it was recorded",
                incident.start, incident.known_until, incident.lasted
            ),
        };
        let newest = incident.evidence.last().filter(|_| incident.is_open()).map(Placed::id);
        let named = guard.filter(|_| incident.cluster.is_some());
        out.push(Fact::new(text, cites.and(newest).and(named)).into());
    }
    out.extend(harm);
    out.extend(response_in_short(incident));
    out.extend(root_cause(diagnosis));
    let steps: Vec<&Placed> = incident
        .evidence
        .iter()
        .filter(|p| p.stamp >= incident.start && matches!(p.kind(), EventKind::ClockStepped { .. }))
        .collect();
    if let Some(cites) = Cites::of(steps.iter().map(|p| p.id())) {
        let because: Vec<EventId> = cites.iter().collect();
        out.extend(steps.iter().take(MAX_IN_SUMMARY).map(|p| Statement::Fact(Fact::of(describe(p.kind()), p.id()))));
        out.push(Statement::note(
            "times of day before and after a step do not compare; durations by the boot clock are not touched by it",
            because,
        ));
    }
    out.extend(incident.gaps.iter().take(MAX_IN_SUMMARY).map(|g| Statement::Fact(g.fact.clone())));
    if !incident.gaps.is_empty() {
        out.push(Statement::note(
            "what happened while the journal has nothing is not known; of a thing that ended meanwhile only the latest possible end is shown",
            [],
        ));
    }
    out
}

fn harm_in_short(incident: &Incident) -> Vec<Statement> {
    let harmed: Vec<&ServiceImpact> = incident.services.iter().filter(|s| s.harmed()).collect();
    let mut out: Vec<Statement> = Vec::new();
    if let Some(cites) = edges(incident.conditions.iter().filter(|c| matches!(c.kind, ConditionKind::ServerDown))) {
        out.push(Fact::new(format!("PostgreSQL did not serve for {}", incident.server.downtime), cites).into());
    }
    let short = harmed.iter().map(|s| s.in_short());
    match Cites::of(harmed.iter().flat_map(|s| s.harm_events())) {
        Some(cites) => out.push(Fact::new(format!("Services failed: {}", list(short)), cites).into()),
        None => out.push(Statement::not_recorded("a service that was unhealthy, or an answer that failed")),
    }
    out
}

fn response_in_short(incident: &Incident) -> Vec<Statement> {
    let engaged = incident.throttles.iter().filter_map(|t| t.engaged.map(|(_, id)| (t, id)));
    let engaged: Vec<_> = engaged.collect();
    if let Some((first, _)) = engaged.first()
        && let Some(cites) = Cites::of(
            engaged
                .iter()
                .map(|(t, id)| [Some(*id), t.released.as_ref().map(|r| r.event)])
                .flat_map(|e| e.into_iter().flatten()),
        )
    {
        let held: std::time::Duration = engaged
            .iter()
            .filter_map(|(t, _)| t.released.as_ref())
            .map(|r| r.held)
            .fold(std::time::Duration::ZERO, std::time::Duration::saturating_add);
        let times = if engaged.len() == 1 {
            String::new()
        } else {
            format!(", {} in all,", count(engaged.len() as u64, "time"))
        };
        let released = engaged.iter().all(|(t, _)| t.released.is_some());
        let until = if released { format!(" for {}", words::duration(held)) } else { String::new() };
        let text = format!("Oxpecker held {}{times}{until}", words::workers(&first.workers, &first.tables));
        return vec![Fact::new(text, cites).into()];
    }
    match Cites::of(lessons::proposals(incident).into_iter().map(|(id, _)| id)) {
        Some(cites) => vec![Fact::new("Oxpecker proposed to hold vacuum; no act of it is recorded", cites).into()],
        None => vec![Statement::not_recorded("an act of oxpecker on PostgreSQL")],
    }
}

fn unproven(diagnosis: &Diagnosis) -> Statement {
    match diagnosis.break_at().map(|link| &link.verdict) {
        Some(verdict @ Verdict::NotEstablished { .. }) => verdict.into(),
        _ => Statement::not_recorded("a cause"),
    }
}

pub(super) fn leadup(incident: &Incident) -> Vec<Statement> {
    let before = incident.evidence.iter().filter(|p| p.stamp < incident.start);
    let telling = before.filter(|p| {
        !matches!(
            p.kind(),
            EventKind::ServiceMeasured { .. }
                | EventKind::AlertDelivered { .. }
                | EventKind::ServiceDeclared { .. }
                | EventKind::BackupProgressed { .. }
        )
    });
    or_else(dated(incident, &telling.collect::<Vec<_>>()), "anything in the minutes before")
}

/// Events with their times, one a sentence; the oldest are counted where there are too many.
fn dated(incident: &Incident, events: &[&Placed]) -> Vec<Statement> {
    // One less than a part may have, for the sentence that counts the older ones.
    let left_out = events.len().saturating_sub(MAX_STATEMENTS - 1);
    let (old, shown) = events.split_at(left_out);
    let mut out: Vec<Statement> = Vec::new();
    if let Some(cites) = Cites::of(old.iter().map(|p| p.id())) {
        out.push(Fact::new(format!("{} came before these", count(old.len() as u64, "event")), cites).into());
    }
    let day = |p: &Placed| p.stamp.at.wall.strftime("%Y-%m-%d").to_string();
    let start_day = incident.start.at.wall.strftime("%Y-%m-%d").to_string();
    out.extend(shown.iter().map(|p| {
        let format = if day(p) == start_day { "%H:%M:%S UTC" } else { "%Y-%m-%d %H:%M:%S UTC" };
        let text = format!("{}: {}", p.stamp.at.wall.strftime(format), describe(p.kind()));
        Statement::Fact(Fact::of(text, p.id()))
    }));
    out
}

pub(super) fn impact(incident: &Incident) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    for outage in &incident.server.outages {
        if let Some(cites) = Cites::of(outage.events()) {
            let text = match outage.until {
                Some(until) => format!("PostgreSQL did not serve from {} to {until}, {}", outage.from, outage.lasted),
                None => {
                    format!("PostgreSQL did not serve from {} on, {} as far as is known", outage.from, outage.lasted)
                }
            };
            out.push(Fact::new(text, cites).into());
        }
    }
    for service in &incident.services {
        out.extend(service_impact(service));
    }
    if !incident.services.iter().any(ServiceImpact::harmed) {
        out.push(Statement::not_recorded("a service that was unhealthy, or an answer that failed"));
    }
    out
}

fn service_impact(service: &ServiceImpact) -> Vec<Statement> {
    let name = quote(service.name());
    let mut out: Vec<Statement> = Vec::new();
    if let Some(cites) = Cites::of(service.outages.iter().flat_map(|o| o.events())) {
        let times = match service.outages.len() {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let still =
            if service.outages.iter().any(|o| o.until.is_none()) { ", and still is as far as is known" } else { "" };
        out.push(
            Fact::new(format!("{name} was unhealthy {times}, for {} in all{still}", service.downtime), cites).into(),
        );
    }
    if let Some(cites) = Cites::of(service.measured_by.iter().copied()) {
        let text = format!(
            "{} of {} of {name} failed, measured over {}; the slowest took {}",
            service.answers.failed,
            count(service.answers.failed.saturating_add(service.answers.succeeded), "answer"),
            words::duration(service.answers.window),
            words::duration(service.answers.slowest)
        );
        out.push(Fact::new(text, cites).into());
    }
    if service.harmed()
        && let Some(cites) = Cites::of(service.impact_by.iter().copied())
    {
        let lost = list(service.impact.iter().map(|i| quote(i)));
        out.push(Fact::new(format!("While {name} is down people are declared to lose {lost}"), cites).into());
    }
    out
}

pub(super) fn detection(incident: &Incident) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    let found = &incident.detection;
    match &found.first {
        Some(first) => {
            let text = format!(
                "The first alert was decided at {}, {} after its condition began at {}: {}",
                first.decided,
                first.time_to_detect,
                first.since,
                quote(&first.summary)
            );
            out.push(Fact::of(text, first.event).into());
            if first.since > incident.start
                && let Some(earliest) = incident.conditions.iter().min_by_key(|c| c.since)
            {
                let late = first.decided.since(incident.start);
                let cites = Cites::one(earliest.opened_by).and([first.event]);
                out.push(Fact::new(format!("That was {late} after the first sign of the incident"), cites).into());
            }
        }
        None => out.push(Statement::not_recorded("an alert: nobody was told by oxpecker")),
    }
    match &found.delivered {
        Some(delivered) => {
            let text = format!(
                "Route {} took the first delivered alert at {}, at attempt {}, {} after the decision and {} after its condition began",
                quote(&delivered.route),
                delivered.at,
                delivered.attempt,
                words::duration(delivered.latency),
                delivered.time_to_deliver
            );
            out.push(Fact::new(text, Cites::one(delivered.event).and([delivered.alert])).into());
        }
        None if found.first.is_some() => out.push(Statement::not_recorded("a route that took an alert")),
        None => {}
    }
    for alert in &found.undelivered {
        if let Some(event) = alert.gave_up {
            let text = format!(
                "Delivery of {} gave up after {}",
                quote(&alert.key.0),
                count(alert.failures.len() as u64, "failed attempt")
            );
            out.push(Fact::new(text, Cites::one(event).and(alert.failures.iter().copied())).into());
        }
    }
    let others: Vec<&Placed> = incident
        .conditions
        .iter()
        .filter(|c| matches!(c.kind, ConditionKind::Alert { .. }))
        .filter(|c| found.first.as_ref().is_some_and(|f| f.event != c.opened_by))
        // One more than is shown, so that what is left out is said to be.
        .take(MAX_STATEMENTS + 1)
        .filter_map(|c| incident.evidence.iter().find(|p| p.id() == c.opened_by))
        .collect();
    out.extend(dated(incident, &others));
    out
}

/// What a sentence of the response is about; a run of the same is one sentence.
fn response_group(kind: &EventKind) -> Option<&'static str> {
    match kind {
        EventKind::ThrottleProposed { .. } => Some("proposal"),
        EventKind::ThrottleEngaged { .. } => Some("beginning"),
        EventKind::ThrottleAdjusted { .. } => Some("adjustment"),
        EventKind::ThrottleVerified { .. } => Some("measurement"),
        EventKind::ThrottleReleased { .. } => Some("release"),
        EventKind::LeverUnavailable { .. } => Some("missing lever"),
        EventKind::RestingSettingChanged { .. } => Some("change"),
        EventKind::Noted { .. } => Some("note"),
        EventKind::GuardStarted { .. } => Some("start"),
        EventKind::GuardStopped { .. } => Some("stop"),
        _ => None,
    }
}

pub(super) fn response(incident: &Incident) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    let mode = incident.evidence.iter().rev().find_map(|p| match p.kind() {
        EventKind::GuardStarted { mode, .. } if p.stamp <= incident.start => Some((*mode, p.id())),
        _ => None,
    });
    if let Some((mode, id)) = mode {
        out.push(Fact::of(format!("The guard ran in mode {mode} when the incident began"), id).into());
    }
    let acts = incident.evidence.iter().filter(|p| {
        // The leadup shows what changed before; a throttle from before belongs here all the same.
        let standing = matches!(
            p.kind(),
            EventKind::RestingSettingChanged { .. } | EventKind::GuardStarted { .. } | EventKind::Noted { .. }
        );
        p.stamp >= incident.start || !standing
    });
    let acts: Vec<(&Placed, &'static str)> = acts.filter_map(|p| response_group(p.kind()).map(|g| (p, g))).collect();
    if acts.is_empty() {
        out.push(Statement::not_recorded("an act of oxpecker on PostgreSQL, or a note by a person"));
        return out;
    }
    for run in acts.chunk_by(|(_, a), (_, b)| a == b && !["note", "missing lever"].contains(a)) {
        let Some(((first, group), more)) = run.split_first() else { continue };
        out.extend(dated(incident, &[first]));
        if let [(only, _)] = more {
            out.extend(dated(incident, &[only]));
        } else if let (Some((last, _)), Some(cites)) = (more.last(), Cites::of(more.iter().map(|(p, _)| p.id()))) {
            let further = count(more.len() as u64, &format!("further {group}"));
            let text = format!("Then {further} up to {}, the last: {}", last.stamp, describe(last.kind()));
            out.push(Fact::new(text, cites).into());
        }
    }
    out
}

/// What became of backups and of WAL from the incident's start on, each by itself: they took their share of the host, and whoever has to
/// restore needs the last that was proven.
pub(super) fn backups(incident: &Incident) -> Vec<Statement> {
    let meanwhile = incident.evidence.iter().filter(|p| p.stamp >= incident.start && tells_of_backups(p.kind()));
    dated(incident, &meanwhile.collect::<Vec<_>>())
}

/// How far a run has come is in the journal only: its beginning and its end say enough.
fn tells_of_backups(kind: &EventKind) -> bool {
    match kind {
        EventKind::Alerted { alert } => rule::is_risk(&alert.rule.0),
        EventKind::RepositoryDeclared { .. }
        | EventKind::BackupStarted { .. }
        | EventKind::BackupFinished { .. }
        | EventKind::BackupFailed { .. }
        | EventKind::ProofFinished { .. }
        | EventKind::ProofFailed { .. }
        | EventKind::RetentionApplied { .. }
        | EventKind::RepositoryProblem { .. }
        | EventKind::WalReceiving { .. }
        | EventKind::WalInterrupted { .. }
        | EventKind::WalTimelineChanged { .. }
        | EventKind::WalMissing { .. }
        | EventKind::WalSlotLost { .. }
        | EventKind::WalStoreFailing { .. }
        | EventKind::WalStoreBack { .. } => true,
        _ => false,
    }
}

pub(super) fn recovery(incident: &Incident) -> Vec<Statement> {
    let mut ends: Vec<(Stamp, EventId, String)> = Vec::new();
    for condition in &incident.conditions {
        let (Some(at), Some(event)) = (condition.ended, condition.ended_by) else { continue };
        let what = match &condition.kind {
            ConditionKind::Alert { alert } if condition.end_unseen => {
                format!("the alert {} had ended unseen before its next episode", quote(&alert.rule.0))
            }
            ConditionKind::Alert { alert } => format!("the alert {} was resolved", quote(&alert.rule.0)),
            ConditionKind::ServerDown => "PostgreSQL served again".to_owned(),
            ConditionKind::ServiceUnhealthy { service } => format!("{} was healthy again", quote(service.as_str())),
        };
        ends.push((at, event, what));
    }
    for event in incident.evidence.iter().filter(|p| p.stamp >= incident.start) {
        if let EventKind::VacuumGone { database, table, cpu_time, .. } = event.kind() {
            let cpu = words::duration(*cpu_time);
            let what =
                format!("the vacuum of {} was gone, having used {cpu} of CPU time", relation(database, table.as_ref()));
            ends.push((event.stamp, event.id(), what));
        }
    }
    ends.sort();
    let told = ends.into_iter().map(|(at, event, what)| {
        Fact::of(format!("{at}, {} after the start: {what}", at.since(incident.start)), event).into()
    });
    let mut out: Vec<Statement> = told.collect();
    let mut still: BTreeMap<String, EventId> = BTreeMap::new();
    for condition in incident.conditions.iter().filter(|c| c.ended.is_none()) {
        let what = match &condition.kind {
            ConditionKind::Alert { alert } => {
                format!("the end of the alert {} ({})", quote(&alert.rule.0), quote(&alert.summary))
            }
            ConditionKind::ServerDown => "PostgreSQL serving again".to_owned(),
            ConditionKind::ServiceUnhealthy { service } => format!("{} being healthy again", quote(service.as_str())),
        };
        still.entry(what).or_insert(condition.opened_by);
    }
    out.extend(still.into_keys().map(Statement::not_recorded));
    out
}

pub(super) fn whys(diagnosis: &Diagnosis) -> Vec<Part> {
    let part = |(n, link): (usize, &crate::Link)| {
        let mut statements: Vec<Statement> = vec![labelled("Established", (&link.verdict).into())];
        statements.extend(link.seen.iter().cloned().map(|seen| labelled("Seen", seen)));
        Part { label: Some(format!("{}. {}", n + 1, link.question)), statements }
    };
    diagnosis.links.iter().enumerate().map(part).collect()
}

/// A fact with a word before it that says what it is to its question; other statements say so themselves.
fn labelled(label: &str, statement: Statement) -> Statement {
    match statement {
        Statement::Fact(fact) => Fact::new(format!("{label}: {}", fact.text()), fact.cites().clone()).into(),
        other => other,
    }
}

pub(super) fn root_cause(diagnosis: &Diagnosis) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    if let Some(cause) = diagnosis.cause() {
        out.push(labelled("As far as the events prove a cause", cause.clone().into()));
    }
    if diagnosis.break_at().is_some() {
        out.push(unproven(diagnosis));
    }
    or_else(out, "a cause")
}
