//! Putting incidents together: one pass over the events in order, one current incident per cluster.

use std::collections::{BTreeMap, HashMap, VecDeque};

use model::{
    Alert, AlertKey, AlertState, Event, EventKind, ProcessId, ServiceName, Severity,
    alert::{label, rule},
    reading::Health,
};

use crate::{
    Condition, ConditionKind, Gap, Incident, IncidentId, IncidentRules, Placed, Stamp, detection, gaps, impact,
    response, sequence, title,
};

/// How many events without a place of their own are remembered as a possible leadup of the next incident.
const MAX_LEADUP_EVENTS: usize = 200;

/// The incidents in `events`, oldest first. Events may come in any order and more than once.
///
/// A condition ends with the event that says so. A guard that begins must therefore record how PostgreSQL, each service and each alert
/// that it took over are, also where that is well: else what ended unseen stays open here.
pub fn incidents(events: &[Event], rules: &IncidentRules) -> Vec<Incident> {
    let placed = sequence::arrange(events);
    let gaps = gaps::gaps(&placed);
    let mut correlator = Correlator::new(*rules);
    for event in &placed {
        correlator.take(event);
    }
    let mut found: Vec<Incident> = correlator.drafts.into_iter().filter_map(|draft| draft.finish(&gaps)).collect();
    found.sort_by_key(|i| (i.start, i.id));
    found
}

/// What makes two conditions the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Alert(AlertKey),
    Server,
    Service(ServiceName),
}

/// An incident that is being put together.
struct Draft {
    cluster: Option<String>,
    conditions: Vec<Condition>,
    /// Open conditions, as indexes.
    open: HashMap<Identity, usize>,
    /// When the last condition ended.
    quiet_since: Stamp,
    throttled: bool,
    evidence: Vec<Placed>,
}

impl Draft {
    fn finish(mut self, gaps: &[Gap]) -> Option<Incident> {
        let first = self.conditions.iter().map(|c| c.opened_by).min()?;
        let start = self.conditions.iter().map(|c| c.since).min()?;
        self.evidence.sort_by_key(|p| (p.stamp, p.id()));
        self.evidence.dedup_by_key(|p| p.id());
        let known_until = self.evidence.last().map_or(start, |p| p.stamp).max(start);
        let ends: Option<Vec<Stamp>> = self.conditions.iter().map(|c| c.ended).collect();
        let end = ends.and_then(|ends| ends.into_iter().max()).map(|end| end.max(start));
        let until = end.unwrap_or(known_until);
        let gaps: Vec<Gap> = gaps.iter().filter(|g| g.from <= until && g.to >= start).cloned().collect();
        let incident = Incident {
            id: IncidentId(first),
            title: title::title(&self.conditions, first),
            cluster: self.cluster,
            severity: self.conditions.iter().map(Condition::severity).max().unwrap_or(Severity::Warning),
            start,
            end,
            known_until,
            lasted: until.since(start),
            detection: detection::detection(&self.conditions, &self.evidence),
            server: impact::server(&self.conditions, &self.evidence, until),
            services: impact::services(&self.conditions, &self.evidence, until),
            vacuums: impact::vacuums(&self.evidence),
            throttles: response::engagements(&self.evidence),
            conditions: self.conditions,
            gaps,
            evidence: self.evidence,
        };
        Some(incident)
    }
}

/// What belongs to one cluster.
#[derive(Default)]
struct Track {
    /// The newest incident.
    current: Option<usize>,
    /// Events without an incident, newest last.
    leadup: VecDeque<Placed>,
    /// What holds until it is said otherwise: the guard's mode, settings, declared services, running vacuums and backups, the newest
    /// backup and the newest proven one, risks that stand.
    standing: BTreeMap<Standing, Placed>,
}

/// A fact that holds until the next of its kind.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Guard,
    Settings,
    Resting,
    Server,
    Service(ServiceName),
    Vacuum(ProcessId),
    /// A run of the backup worker.
    BackupRun,
    Backup,
    ProvenBackup,
    /// An alert that begins no incident: its rule and what it is about.
    Risk(String),
}

impl Standing {
    fn risk(alert: &Alert) -> Self {
        let about: Vec<String> = subject(alert).map(|(name, value)| format!("{name}={value}")).collect();
        Self::Risk(format!("{} {}", alert.rule.0, about.join(" ")))
    }
}

struct Correlator {
    rules: IncidentRules,
    cluster: Option<String>,
    tracks: BTreeMap<Option<String>, Track>,
    drafts: Vec<Draft>,
    /// The incident of each alert and, while it fires, since when.
    by_alert: HashMap<AlertKey, (usize, Option<Stamp>)>,
    by_process: HashMap<ProcessId, usize>,
}

impl Correlator {
    fn new(rules: IncidentRules) -> Self {
        Self {
            rules,
            cluster: None,
            tracks: BTreeMap::new(),
            drafts: Vec::new(),
            by_alert: HashMap::new(),
            by_process: HashMap::new(),
        }
    }

    fn take(&mut self, event: &Placed) {
        if let EventKind::GuardStarted { cluster, .. } = event.kind() {
            self.cluster = Some(cluster.clone());
        }
        let cluster = match event.kind() {
            EventKind::Alerted { alert } => alert.labels.get(label::CLUSTER).cloned().or_else(|| self.cluster.clone()),
            _ => self.cluster.clone(),
        };
        match event.kind() {
            // A risk that stands for days would be one incident that swallows all others.
            EventKind::Alerted { alert } if rule::is_risk(&alert.rule.0) => self.attach(event, &cluster),
            EventKind::Alerted { alert }
                if alert.state == AlertState::Firing && alert.severity >= Severity::Warning =>
            {
                let known = self.by_alert.get(&alert.key).and_then(|(_, since)| *since);
                let since = known.unwrap_or_else(|| event.past(alert.since));
                let kind = ConditionKind::Alert { alert: Box::new(alert.clone()) };
                self.open(event, &cluster, Identity::Alert(alert.key.clone()), kind, since.min(event.stamp));
            }
            EventKind::ServerDown { .. } => {
                self.open(event, &cluster, Identity::Server, ConditionKind::ServerDown, event.stamp);
            }
            EventKind::ServiceChanged { service, health: Health::Unhealthy, .. } => {
                let kind = ConditionKind::ServiceUnhealthy { service: service.clone() };
                self.open(event, &cluster, Identity::Service(service.clone()), kind, event.stamp);
            }
            EventKind::Alerted { alert } if alert.state == AlertState::Resolved => {
                self.close(event, &cluster, &Identity::Alert(alert.key.clone()));
            }
            EventKind::ServerUp { .. } => self.close(event, &cluster, &Identity::Server),
            EventKind::ServiceChanged { service, health: Health::Healthy, .. } => {
                self.close(event, &cluster, &Identity::Service(service.clone()));
            }
            _ => self.attach(event, &cluster),
        }
        self.remember(event, cluster);
    }

    fn open(
        &mut self,
        event: &Placed,
        cluster: &Option<String>,
        identity: Identity,
        kind: ConditionKind,
        since: Stamp,
    ) {
        let index = self.incident_for(event, cluster, since);
        let draft = &mut self.drafts[index];
        draft.evidence.push(event.clone());
        if draft.open.contains_key(&identity) {
            return;
        }
        // A new key with the rule and subject of an open episode means that the old one ended while nobody looked.
        if let ConditionKind::Alert { alert: new } = &kind {
            let superseded = draft.open.iter().find_map(|(id, n)| match &draft.conditions[*n].kind {
                ConditionKind::Alert { alert: old } if old.rule == new.rule && subject(old).eq(subject(new)) => {
                    Some((id.clone(), *n))
                }
                _ => None,
            });
            if let Some((old, n)) = superseded {
                draft.open.remove(&old);
                let condition = &mut draft.conditions[n];
                (condition.ended, condition.ended_by) = (Some(event.stamp), Some(event.id()));
                condition.end_unseen = true;
            }
            self.by_alert.insert(new.key.clone(), (index, Some(since)));
        }
        draft.open.insert(identity, draft.conditions.len());
        draft.conditions.push(Condition {
            kind,
            opened_by: event.id(),
            since,
            ended: None,
            ended_by: None,
            end_unseen: false,
        });
    }

    /// The cluster's incident that a condition since then belongs to, else a new one with its leadup.
    fn incident_for(&mut self, event: &Placed, cluster: &Option<String>, since: Stamp) -> usize {
        let track = self.tracks.entry(cluster.clone()).or_default();
        if let Some(index) = track.current {
            let draft = &self.drafts[index];
            if !draft.open.is_empty()
                || since <= draft.quiet_since
                || since.since(draft.quiet_since).duration <= self.rules.quiet_gap
            {
                return index;
            }
        }
        let leadup = self.rules.leadup;
        let near = |p: &Placed| p.stamp >= since || since.since(p.stamp).duration <= leadup;
        let mut evidence: Vec<Placed> = track.standing.values().cloned().collect();
        evidence.extend(track.leadup.drain(..).filter(near));
        let index = self.drafts.len();
        for p in &evidence {
            note_processes(p, index, &mut self.by_process);
        }
        let throttled = evidence.iter().fold(false, |held, p| still_throttled(p.kind()).unwrap_or(held));
        self.drafts.push(Draft {
            cluster: cluster.clone(),
            conditions: Vec::new(),
            open: HashMap::new(),
            quiet_since: event.stamp,
            throttled,
            evidence,
        });
        track.current = Some(index);
        index
    }

    fn close(&mut self, event: &Placed, cluster: &Option<String>, identity: &Identity) {
        let track = self.tracks.entry(cluster.clone()).or_default();
        let open = track.current.filter(|index| self.drafts[*index].open.contains_key(identity));
        let Some(index) = open else {
            self.attach(event, cluster);
            return;
        };
        let draft = &mut self.drafts[index];
        draft.evidence.push(event.clone());
        if let Identity::Alert(key) = identity {
            self.by_alert.insert(key.clone(), (index, None));
        }
        if let Some(n) = draft.open.remove(identity) {
            let condition = &mut draft.conditions[n];
            (condition.ended, condition.ended_by) = (Some(event.stamp.max(condition.since)), Some(event.id()));
            draft.quiet_since = draft.quiet_since.max(event.stamp);
        }
    }

    fn attach(&mut self, event: &Placed, cluster: &Option<String>) {
        let track = self.tracks.entry(cluster.clone()).or_default();
        let current = track.current.filter(|index| {
            let draft = &self.drafts[*index];
            !draft.open.is_empty()
                || event.stamp.since(draft.quiet_since).duration <= self.rules.quiet_gap
                || (draft.throttled && still_throttled(event.kind()).is_some())
        });
        let linked = match event.kind() {
            EventKind::AlertDelivered { key, .. }
            | EventKind::AlertFailed { key, .. }
            | EventKind::AlertSilenced { key, .. }
            | EventKind::AlertAcknowledged { key, .. } => self.by_alert.get(key).map(|(i, _)| *i),
            EventKind::Alerted { alert } => self.by_alert.get(&alert.key).map(|(i, _)| *i),
            EventKind::VacuumGone { process, .. } => {
                self.by_process.get(process).copied().filter(|_| current.is_none())
            }
            _ => None,
        };
        let Some(index) = linked.or(current) else {
            if track.leadup.len() == MAX_LEADUP_EVENTS {
                track.leadup.pop_front();
            }
            track.leadup.push_back(event.clone());
            return;
        };
        let draft = &mut self.drafts[index];
        draft.throttled = still_throttled(event.kind()).unwrap_or(draft.throttled);
        draft.evidence.push(event.clone());
        note_processes(event, index, &mut self.by_process);
    }

    fn remember(&mut self, event: &Placed, cluster: Option<String>) {
        let standing = &mut self.tracks.entry(cluster).or_default().standing;
        let key = match event.kind() {
            EventKind::GuardStarted { .. } => {
                // Which vacuums still run it sees for itself; a worker ends with its guard.
                standing.retain(|key, _| !matches!(key, Standing::Vacuum(_) | Standing::BackupRun));
                Standing::Guard
            }
            EventKind::BackupStarted { .. } => Standing::BackupRun,
            // The same run goes on to its proof.
            EventKind::BackupFinished { .. } => Standing::Backup,
            EventKind::ProofFinished { .. } => {
                standing.remove(&Standing::BackupRun);
                Standing::ProvenBackup
            }
            EventKind::BackupFailed { .. } | EventKind::ProofFailed { .. } => {
                standing.remove(&Standing::BackupRun);
                return;
            }
            EventKind::Alerted { alert } if rule::is_risk(&alert.rule.0) => {
                let risk = Standing::risk(alert);
                if alert.state == AlertState::Resolved {
                    standing.remove(&risk);
                    return;
                }
                risk
            }
            EventKind::SettingsSeen { .. } => Standing::Settings,
            EventKind::RestingSettingChanged { .. } => Standing::Resting,
            EventKind::ServerUp { .. } => Standing::Server,
            EventKind::ServiceDeclared { service, .. } => Standing::Service(service.clone()),
            EventKind::VacuumSeen { process, .. } => Standing::Vacuum(*process),
            EventKind::VacuumGone { process, .. } => {
                standing.remove(&Standing::Vacuum(*process));
                return;
            }
            _ => return,
        };
        standing.insert(key, event.clone());
    }
}

/// The labels that say what an alert is about. A process is none of them: the next episode has another.
fn subject(alert: &Alert) -> impl Iterator<Item = (&String, &String)> {
    alert.labels.iter().filter(|(name, _)| *name != label::PID)
}

/// Whether a throttle is held after this event; `None` for an event that says nothing of it.
fn still_throttled(kind: &EventKind) -> Option<bool> {
    match kind {
        EventKind::ThrottleEngaged { .. } | EventKind::ThrottleAdjusted { .. } | EventKind::ThrottleVerified { .. } => {
            Some(true)
        }
        EventKind::ThrottleReleased { .. } => Some(false),
        _ => None,
    }
}

fn note_processes(event: &Placed, index: usize, by_process: &mut HashMap<ProcessId, usize>) {
    match event.kind() {
        EventKind::VacuumSeen { process, .. } => {
            by_process.insert(*process, index);
        }
        EventKind::ThrottleEngaged { workers, .. } | EventKind::ThrottleProposed { workers, .. } => {
            by_process.extend(workers.iter().map(|w| (*w, index)));
        }
        _ => {}
    }
}
