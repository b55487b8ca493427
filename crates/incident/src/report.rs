//! The post-mortem, under the headings of the outage's published one.

mod sections;

use std::collections::BTreeSet;

use model::{Event, EventId};
use serde::Serialize;

use crate::{
    Diagnosis, Fact, Incident, IncidentId, Placed, SCHEMA_VERSION, Statement,
    describe::describe,
    diagnose, lessons, markdown,
    words::{self},
};

/// Statements of one part of a section; the rest are counted in one sentence.
const MAX_STATEMENTS: usize = 30;

/// A section's heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Heading {
    /// What happened, in a few sentences.
    Summary,
    /// What came before.
    Leadup,
    /// What people lost.
    Impact,
    /// How people came to know.
    Detection,
    /// What was done.
    Response,
    /// How things came back.
    Recovery,
    /// From what was felt to what started it.
    FiveWhys,
    /// What the events prove to be the cause: a condition, never a person.
    RootCause,
    /// What went well and what did not.
    Lessons,
    /// What to do now.
    Tasks,
}

impl Heading {
    /// As printed.
    pub fn title(self) -> &'static str {
        match self {
            Self::Summary => "Summary",
            Self::Leadup => "Leadup",
            Self::Impact => "Impact",
            Self::Detection => "Detection",
            Self::Response => "Response",
            Self::Recovery => "Recovery",
            Self::FiveWhys => "Five whys",
            Self::RootCause => "Blameless root cause",
            Self::Lessons => "Lessons learned",
            Self::Tasks => "Follow-up tasks",
        }
    }
}

/// Statements that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// A heading of its own.
    pub label: Option<String>,
    /// What it says.
    pub statements: Vec<Statement>,
}

/// One section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// Its heading.
    pub heading: Heading,
    /// What it says.
    pub parts: Vec<Part>,
}

/// An event that the report cites.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CitedEvent {
    /// The event.
    pub event: Event,
    /// The time since the incident's start, as people say it, with its sign.
    pub offset: String,
    /// What it says, in one line.
    pub text: String,
}

/// A post-mortem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The incident.
    pub incident: IncidentId,
    /// Its title.
    pub title: Fact,
    /// The whys as data.
    pub diagnosis: Diagnosis,
    /// The text.
    pub sections: Vec<Section>,
    /// Every event that the text cites, in order of time.
    pub cited: Vec<CitedEvent>,
}

impl Report {
    /// As Markdown: one statement a line, facts with their citations, everything else marked.
    pub fn to_markdown(&self) -> String {
        markdown::render(self)
    }
}

/// The post-mortem of an incident.
pub fn report(incident: &Incident) -> Report {
    let diagnosis = diagnose::diagnose(incident);
    let mut sections = vec![
        section(Heading::Summary, sections::summary(incident, &diagnosis)),
        section(Heading::Leadup, sections::leadup(incident)),
        section(Heading::Impact, sections::impact(incident)),
        section(Heading::Detection, sections::detection(incident)),
        Section { heading: Heading::Response, parts: response(incident) },
        section(Heading::Recovery, sections::recovery(incident)),
        Section { heading: Heading::FiveWhys, parts: sections::whys(&diagnosis) },
        section(Heading::RootCause, sections::root_cause(&diagnosis)),
        Section {
            heading: Heading::Lessons,
            parts: vec![
                part("What went well", lessons::went_well(incident), "anything that went well"),
                part("What went wrong", lessons::went_wrong(incident), "a fault of detection, delivery or response"),
            ],
        },
        section(Heading::Tasks, or_else(lessons::tasks(incident, &diagnosis), "a reason for a task")),
    ];
    for part in sections.iter_mut().flat_map(|s| &mut s.parts) {
        bound(&mut part.statements);
    }
    let title = incident.title.clone();
    let cited = cited(incident, &title, &sections);
    Report { schema_version: SCHEMA_VERSION, incident: incident.id, title, diagnosis, sections, cited }
}

fn response(incident: &Incident) -> Vec<Part> {
    let mut parts = vec![Part { label: None, statements: sections::response(incident) }];
    let backups = sections::backups(incident);
    if !backups.is_empty() {
        parts.push(Part { label: Some("Backups and WAL meanwhile".to_owned()), statements: backups });
    }
    parts
}

/// Cuts to [`MAX_STATEMENTS`] and says so.
fn bound(statements: &mut Vec<Statement>) {
    if statements.len() > MAX_STATEMENTS {
        let rest = statements.split_off(MAX_STATEMENTS);
        let text = format!("{} more are left out here", rest.len());
        statements.push(Statement::note(text, rest.iter().flat_map(Statement::shown)));
    }
}

fn section(heading: Heading, statements: Vec<Statement>) -> Section {
    Section { heading, parts: vec![Part { label: None, statements }] }
}

fn part(label: &str, statements: Vec<Statement>, else_what: &str) -> Part {
    Part { label: Some(label.to_owned()), statements: or_else(statements, else_what) }
}

fn or_else(statements: Vec<Statement>, what: &str) -> Vec<Statement> {
    if statements.is_empty() { vec![Statement::not_recorded(what)] } else { statements }
}

fn cited(incident: &Incident, title: &Fact, sections: &[Section]) -> Vec<CitedEvent> {
    let statements = sections.iter().flat_map(|s| &s.parts).flat_map(|p| &p.statements);
    let mut ids: BTreeSet<EventId> = statements.flat_map(Statement::shown).collect();
    ids.extend(title.cites().shown());
    let of = |p: &Placed| {
        let offset = if p.stamp < incident.start {
            format!("-{}", words::duration(incident.start.since(p.stamp).duration))
        } else {
            format!("+{}", words::duration(p.stamp.since(incident.start).duration))
        };
        CitedEvent { event: p.event.clone(), offset, text: describe(p.kind()) }
    };
    let mut events: Vec<&Placed> =
        incident.evidence.iter().chain(incident.gaps.iter().flat_map(|g| &g.events)).collect();
    events.sort_by_key(|p| (p.stamp, p.id()));
    events.dedup_by_key(|p| p.id());
    events.into_iter().filter(|p| ids.contains(&p.id())).map(of).collect()
}
