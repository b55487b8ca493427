//! Backups in post-mortems: none that belongs to an incident is dropped, and each is in its place.

use std::collections::BTreeSet;

use incident::{Heading, Incident, IncidentRules, Report, describe, incidents, report};
use model::{
    Event, EventId, EventKind, Mode, Severity,
    alert::{label, rule},
    reading::Health,
};
use proptest::prelude::*;

use crate::{
    checks,
    properties::of_backups,
    stories,
    story::{Story, backup_failed, backup_made, backup_proven, backup_started},
};

const PART: &str = "Backups and WAL meanwhile";

/// The events that the statements of a section's parts of this label show.
fn shown(report: &Report, heading: Heading, label: Option<&str>) -> Vec<EventId> {
    let sections = report.sections.iter().filter(|section| section.heading == heading);
    let parts = sections.flat_map(|section| &section.parts).filter(|part| part.label.as_deref() == label);
    parts.flat_map(|part| &part.statements).flat_map(|statement| statement.shown()).collect()
}

fn is_progress(kind: &EventKind) -> bool {
    matches!(kind, EventKind::BackupProgressed { .. })
}

/// A story with events of backups strewn in, and their numbers.
fn strewn(story: &Story, more: Vec<(usize, EventKind)>) -> (Vec<Event>, BTreeSet<EventId>) {
    let mut events: Vec<(Event, bool)> = story.events.iter().map(|event| (event.clone(), false)).collect();
    for (at, mut kind) in more {
        if let EventKind::Alerted { alert } = &mut kind {
            // Another cluster's belongs elsewhere.
            alert.labels.insert(label::CLUSTER.to_owned(), "main".to_owned());
        }
        let at = at % events.len();
        let place = events[at].0.at;
        events.insert(at + 1, (Event { id: EventId(0), at: place, kind }, true));
    }
    let mut added = BTreeSet::new();
    let numbered = events.into_iter().zip(1..).map(|((event, is_new), n)| {
        let id = EventId(n);
        if is_new {
            added.insert(id);
        }
        Event { id, ..event }
    });
    (numbered.collect(), added)
}

/// When an incident began and ended, and of what.
fn outline(incident: &Incident) -> impl PartialEq + std::fmt::Debug + use<> {
    let kinds: Vec<_> = incident.conditions.iter().map(|c| (c.kind.clone(), c.since, c.ended)).collect();
    (incident.start, incident.end, incident.severity, kinds)
}

/// Between the event that opened it and the last that belongs to its end.
fn spans(incident: &Incident, id: EventId) -> bool {
    let first = incident.conditions.iter().map(|c| c.opened_by).min();
    let ended: Option<Vec<EventId>> = incident.conditions.iter().map(|c| c.ended_by).collect();
    let last = ended.and_then(|ended| ended.into_iter().max());
    first.is_some_and(|first| first < id) && last.is_none_or(|last| id < last)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn none_is_dropped_or_misplaced(
        which in 0..stories::all().len(),
        more in proptest::collection::vec((0_usize..100, of_backups()), 0..12),
    ) {
        let (_, story) = stories::all().swap_remove(which);
        let rules = IncidentRules::default();
        let (events, added) = strewn(&story, more);
        let found = incidents(&events, &rules);
        // They begin no incident, end none and lengthen none.
        let outlines = |incidents: &[Incident]| incidents.iter().map(outline).collect::<Vec<_>>();
        prop_assert_eq!(outlines(&found), outlines(&incidents(&story.events, &rules)));
        for incident in &found {
            let report = report(incident);
            checks::check(incident, &events).map_err(TestCaseError::fail)?;
            let evidence: BTreeSet<EventId> = incident.evidence.iter().map(|p| p.id()).collect();
            for event in events.iter().filter(|event| added.contains(&event.id)) {
                prop_assert!(!spans(incident, event.id) || evidence.contains(&event.id), "{event:?} is dropped");
            }
            let meanwhile = shown(&report, Heading::Response, Some(PART));
            prop_assert!(meanwhile.is_sorted() && meanwhile.iter().collect::<BTreeSet<_>>().len() == meanwhile.len());
            let before = shown(&report, Heading::Leadup, None);
            for placed in incident.evidence.iter().filter(|p| added.contains(&p.id())) {
                let (in_time, told) = (placed.stamp >= incident.start, !is_progress(placed.kind()));
                let (id, text) = (placed.id(), describe(placed.kind()));
                prop_assert_eq!(meanwhile.contains(&id), in_time && told, "{}", text);
                prop_assert_eq!(before.contains(&id), !in_time && told, "{}", text);
                let cited: Vec<_> = report.cited.iter().filter(|cited| cited.event.id == id).map(|c| &c.text).collect();
                // How far a run had come may be the last that is known of an open incident.
                prop_assert!(cited == [&text] || (!told && cited.is_empty()), "{:?} for {}", cited, text);
            }
        }
    }
}

/// A service that fails for a minute, an hour after all that was before.
fn incident_after(story: &mut Story) -> Incident {
    story.wait_ms(3_600_000).service("site", Health::Unhealthy, "status 503");
    story.wait_ms(60_000).service("site", Health::Healthy, "");
    incidents(&story.events, &IncidentRules::default()).pop().unwrap()
}

#[test]
fn what_stood_when_it_began_is_in_the_leadup_however_old() {
    let told = |events: Vec<EventKind>| {
        let mut story = Story::new();
        story.guard(Mode::Act, "x");
        for kind in events {
            story.wait_ms(60_000).push(kind);
        }
        let incident = incident_after(&mut story);
        let before = shown(&report(&incident), Heading::Leadup, None);
        let names = before.iter().map(|id| story.events.iter().find(|e| e.id == *id).unwrap().kind.name());
        names.filter(|name| name.contains("backup") || name.contains("proof")).collect::<Vec<_>>()
    };
    let started = || backup_started("due");
    // The newest proven one, not those before it; the newest that was made, whether proven or not.
    assert_eq!(
        told(vec![backup_made("aa"), backup_proven("aa"), backup_made("bb"), backup_proven("bb"), backup_made("cc")]),
        ["proof_finished", "backup_finished"]
    );
    // A run goes on until it is told to have ended.
    assert_eq!(told(vec![started()]), ["backup_started"]);
    assert_eq!(told(vec![started(), backup_made("aa")]), ["backup_started", "backup_finished"]);
    assert_eq!(told(vec![started(), backup_made("aa"), backup_proven("aa")]), ["backup_finished", "proof_finished"]);
    assert!(told(vec![started(), backup_failed("no space")]).is_empty());
}

#[test]
fn a_risk_that_stands_is_in_the_leadup_until_it_is_over() {
    let mut story = Story::new();
    story.guard(Mode::Act, "x").alert(rule::BACKUP_UNPROVEN, Severity::Warning, 0, "no proven backup for 3 d", &[]);
    let markdown = report(&incident_after(&mut story)).to_markdown();
    let (leadup, _) = markdown.split_once("## Impact").unwrap();
    assert!(leadup.contains("no proven backup for 3 d"), "{markdown}");
    story.wait_ms(3_600_000).resolve(rule::BACKUP_UNPROVEN);
    let incident = incident_after(&mut story);
    assert!(!report(&incident).to_markdown().contains("no proven backup for 3 d"));
}
