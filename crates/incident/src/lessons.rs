//! Lessons and follow-up tasks, each derived from a fact of the incident: none is printed that its events give no reason for.

use std::time::Duration;

use model::{EventId, EventKind, Mode, event::ReleaseReason};

use crate::{
    Cites, Diagnosis, Engagement, Fact, GapKind, Incident, ServiceImpact, Statement, Verdict, diagnose::Link, words,
    words::quote,
};

/// From the first sign to the first alert: longer than this is a lesson. The product's own promise.
const DETECTION_GOAL: Duration = Duration::from_secs(3);
/// From the decision to a route's acknowledgement: longer than this is a lesson.
const DELIVERY_GOAL: Duration = Duration::from_secs(10);
/// Tasks about levers, each with its own reason, that one report lists.
const MAX_LEVER_TASKS: usize = 3;

/// What went well.
pub fn went_well(incident: &Incident) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    if let Some(first) = &incident.detection.first
        && first.time_to_detect.duration <= DETECTION_GOAL
    {
        let text = format!("The first alert was decided {} after its condition began", first.time_to_detect);
        out.push(Fact::of(text, first.event).into());
    }
    let reliefs: Vec<_> = incident.throttles.iter().filter_map(|t| t.relieved()).collect();
    if let (Some(first), Some(cites)) = (reliefs.first(), Cites::of(reliefs.iter().map(|v| v.event))) {
        let more = match reliefs.len() {
            1 => String::new(),
            n => format!(" the first time of {n}"),
        };
        let text =
            format!("Holding the vacuum took the CPUs from {} to {} busy{more}", first.busy_before, first.busy_after);
        out.push(Fact::new(text, cites).into());
    }
    let released = incident.throttles.iter().filter_map(|t| t.released.as_ref());
    let released: Vec<_> = released.filter(|r| r.reason != ReleaseReason::LeftBehind).collect();
    if let (Some(longest), Some(cites)) =
        (released.iter().map(|r| r.held).max(), Cites::of(released.iter().map(|r| r.event)))
    {
        let text = match released.len() {
            1 => format!("The throttle was let go again after {}", words::duration(longest)),
            n => format!("{n} throttles were let go again, the longest after {}", words::duration(longest)),
        };
        out.push(Fact::new(text, cites).into());
    }
    for service in incident.services.iter().filter(|s| !s.harmed()) {
        if let Some(cites) = Cites::of(service.measured_by.iter().copied()) {
            let text = format!(
                "{} answered {} and failed none",
                quote(service.name()),
                words::count(service.answers.succeeded, "request")
            );
            out.push(Fact::new(text, cites).into());
        }
    }
    out
}

/// What went wrong, other than the harm itself.
pub fn went_wrong(incident: &Incident) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    let detection = &incident.detection;
    match &detection.first {
        Some(first) if first.time_to_detect.duration > DETECTION_GOAL => {
            let text = format!(
                "Detection took {}, longer than the goal of {}",
                first.time_to_detect,
                words::duration(DETECTION_GOAL)
            );
            out.push(Fact::of(text, first.event).into());
        }
        Some(_) => {}
        None => out.push(Statement::not_recorded("an alert: nobody was told by oxpecker")),
    }
    if detection.first.is_some() && detection.delivered.is_none() {
        out.push(Statement::not_recorded("a route that took an alert: nobody was reached by oxpecker"));
    }
    if let Some(delivered) = &detection.delivered
        && delivered.latency > DELIVERY_GOAL
    {
        let text = format!(
            "Delivery took {} and {}",
            words::duration(delivered.latency),
            words::count(delivered.attempt.into(), "attempt")
        );
        out.push(Fact::of(text, delivered.event).into());
    }
    for (route, failures) in &detection.failing_routes {
        if let Some(cites) = Cites::of(failures.iter().copied()) {
            let times = words::count(failures.len() as u64, "time");
            out.push(Fact::new(format!("Route {} failed {times}", quote(route)), cites).into());
        }
    }
    if let Some(cites) = Cites::of(levers(incident).into_iter().map(|(_, id)| id)) {
        out.push(Fact::new("The governor wanted to act and had no lever", cites).into());
    }
    let verified = incident.throttles.iter().flat_map(|t| &t.verified);
    if let Some(cites) = Cites::of(verified.filter(|v| !v.obeyed).map(|v| v.event)) {
        out.push(Fact::new("Workers did not obey a throttle", cites).into());
    }
    let in_vain = incident.throttles.iter().filter_map(Engagement::refuted);
    if let Some(cites) = Cites::of(in_vain.flat_map(|c| c.iter().collect::<Vec<_>>())) {
        out.push(Fact::new("Vacuum was held and that did not take the pressure away", cites).into());
    }
    out.extend(incident.gaps.iter().map(|g| Statement::Fact(g.fact.clone())));
    if let Some(cites) = Cites::of(recording_failures(incident)) {
        out.push(Fact::new("The journal could not be written for a time", cites).into());
    }
    out
}

/// What to do.
pub fn tasks(incident: &Incident, diagnosis: &Diagnosis) -> Vec<Statement> {
    let mut out: Vec<Statement> = Vec::new();
    if incident.is_open() {
        let open = incident.conditions.iter().filter(|c| c.ended.is_none()).map(|c| c.opened_by);
        out.push(Statement::task("End the incident first: `oxpecker status` shows what is still wrong", open));
    }
    vacuum_tasks(incident, &mut out);
    alert_tasks(incident, &mut out);
    for kind in
        [GapKind::GuardDied, GapKind::GuardSilent, GapKind::GuardStopped, GapKind::HostRebooted, GapKind::HistoryCut]
    {
        let gaps = incident.gaps.iter().filter(|g| g.kind == kind);
        if let Some(cites) = Cites::of(gaps.flat_map(|g| g.fact.cites().iter())) {
            out.push(Statement::task(gap_task(kind), cites.iter()));
        }
    }
    let lost = recording_failures(incident);
    if !lost.is_empty() {
        out.push(Statement::task("Give the journal's file system room, or move state_dir", lost));
    }
    service_tasks(incident, &mut out);
    if let Some(Link { question, verdict: Verdict::NotEstablished { missing, .. }, .. }) = diagnosis.break_at() {
        out.push(Statement::task(format!("Answer \"{question}\", which the events leave open: {missing}"), []));
    }
    out
}

fn gap_task(kind: GapKind) -> &'static str {
    match kind {
        GapKind::GuardDied => {
            "Find out why the guard died: `journalctl -u oxpecker`, and the kernel's log for the OOM killer"
        }
        GapKind::GuardSilent => {
            "Find out what kept the guard from running: the host's CPU, memory and suspends at that time"
        }
        GapKind::GuardStopped => "Check why the guard was stopped at that time and that it starts with the host",
        GapKind::HostRebooted => {
            "Find out why the host booted anew: `journalctl -b -1 -e`, the provider's console and watchdog"
        }
        GapKind::HistoryCut => "Give the journal more room: what was deleted can't be told any more",
    }
}

fn service_tasks(incident: &Incident, out: &mut Vec<Statement>) {
    let declared = |s: &ServiceImpact| {
        incident.evidence.iter().any(|p| {
            matches!(p.kind(), EventKind::ServiceDeclared { service, depends_on, .. }
                if *service == s.service && !depends_on.is_empty())
        })
    };
    let harmed = || incident.services.iter().filter(|s| s.harmed());
    let mut ask = |of: Vec<&ServiceImpact>, text: &dyn Fn(String) -> String| {
        if !of.is_empty() {
            let names = words::list(of.iter().map(|s| quote(s.name())));
            out.push(Statement::task(text(names), of.iter().flat_map(|s| s.harm_events())));
        }
    };
    ask(harmed().filter(|s| !declared(s)).collect(), &|names| {
        format!(
            "Declare what {names} need (`depends_on` in [[service]]), so that the next report can tell cause from company"
        )
    });
    ask(harmed().filter(|s| s.impact.is_empty()).collect(), &|names| {
        format!("Say what people lose while {names} are down (`impact` in [[service]])")
    });
}

fn vacuum_tasks(incident: &Incident, out: &mut Vec<Statement>) {
    let proposals = proposals(incident);
    let mode = incident.evidence.iter().rev().find_map(|p| match p.kind() {
        EventKind::GuardStarted { mode, .. } => Some((*mode, p.id())),
        _ => None,
    });
    if let Some(first) = proposals.first() {
        let because = proposals.iter().map(|(id, _)| *id).chain(mode.map(|(_, id)| id));
        let text = match mode {
            Some((mode @ (Mode::Observe | Mode::Advise), _)) => format!(
                "Decide whether oxpecker may hold vacuums here (mode = \"act\" under [autovacuum]; the guard ran in mode {mode}); by hand it was: `{}`",
                quote(first.1)
            ),
            _ => format!("Decide whether the proposed act is wanted; by hand it was: `{}`", quote(first.1)),
        };
        out.push(Statement::task(text, because));
    }
    let levers = levers(incident);
    let mut told: Vec<&str> = Vec::new();
    for (reason, id) in &levers {
        if told.len() < MAX_LEVER_TASKS && !told.contains(reason) {
            told.push(reason);
            let text = format!(
                "Give the governor a lever (`oxpecker vacuum status` says what each one lacks); it said: {}",
                quote(reason)
            );
            out.push(Statement::task(text, [*id]));
        }
    }
    let off = incident.evidence.iter().rev().find_map(|p| match p.kind() {
        EventKind::SettingsSeen { resting, .. } | EventKind::RestingSettingChanged { to: resting, .. } => {
            Some((*resting, p.id()))
        }
        _ => None,
    });
    if let Some((setting, id)) = off
        && setting.delay_ms == 0.0
    {
        out.push(Statement::task(
            "Set autovacuum_vacuum_cost_delay above 0: a vacuum that starts with 0 runs unbraked and, before PostgreSQL 16, can't be slowed later",
            [id],
        ));
    }
}

fn alert_tasks(incident: &Incident, out: &mut Vec<Statement>) {
    let detection = &incident.detection;
    for (route, failures) in &detection.failing_routes {
        let text = format!("Mend the alert route {} and watch the next alert arrive", quote(route));
        out.push(Statement::task(text, failures.iter().copied()));
    }
    let silent = detection.undelivered.iter().filter(|a| a.failures.is_empty()).map(|a| a.event);
    let silent: Vec<_> = silent.collect();
    if !silent.is_empty() {
        out.push(Statement::task(
            "Check that an alert route is configured for these alerts: no delivery is recorded",
            silent,
        ));
    }
    if detection.first.is_none() {
        let opened = incident.conditions.iter().map(|c| c.opened_by);
        out.push(Statement::task("Add or enable a rule that alerts on this: no alert was raised", opened));
    }
    if let Some(first) = &detection.first
        && first.time_to_detect.duration > DETECTION_GOAL
    {
        out.push(Statement::task("Look at why detection took longer than its goal", [first.event]));
    }
}

/// Proposals with their commands.
pub(crate) fn proposals(incident: &Incident) -> Vec<(EventId, &str)> {
    let mut found = Vec::new();
    for p in &incident.evidence {
        if let EventKind::ThrottleProposed { command, .. } = p.kind() {
            found.push((p.id(), command.as_str()));
        }
    }
    found
}

fn levers(incident: &Incident) -> Vec<(&str, EventId)> {
    let mut found = Vec::new();
    for p in &incident.evidence {
        if let EventKind::LeverUnavailable { reason, .. } = p.kind() {
            found.push((reason.as_str(), p.id()));
        }
    }
    found
}

fn recording_failures(incident: &Incident) -> Vec<EventId> {
    let failed = incident.evidence.iter().filter(|p| matches!(p.kind(), EventKind::RecordingFailed { .. }));
    failed.map(|p| p.id()).collect()
}
