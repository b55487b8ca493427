//! The pages, each as HTML and as JSON.

use std::{convert::Infallible, sync::Arc, time::Duration};

use askama::Template;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{
        Html, IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use futures_util::stream::{self, Stream};
use incident::{Incident, Statement};
use serde_json::json;

use crate::{
    metrics,
    now::{Now, Unknown},
    server::Shared,
};

/// Incidents on one page, the newest.
const INCIDENTS_MAX: usize = 200;
/// Events of one timeline.
const TIMELINE_MAX: usize = 2_000;
/// How often a live view looks whether something changed.
const LIVE_EVERY: Duration = Duration::from_secs(2);
/// When a live view comes again after its connection ended.
const LIVE_AGAIN: Duration = Duration::from_secs(1);
/// The version of the JSON documents.
const SCHEMA: u32 = 1;

/// Everything that can be asked.
pub fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(now_page))
        .route("/api/now", get(now_json))
        .route("/live", get(live))
        .route("/incidents", get(incidents_page))
        .route("/api/incidents", get(incidents_json))
        .route("/incidents/{id}", get(incident_page))
        .route("/api/incidents/{id}", get(incident_json))
        .route("/metrics", get(figures))
        .route(
            "/console.css",
            get(|| async { asset("text/css; charset=utf-8", include_str!("../assets/console.css")) }),
        )
        .route(
            "/console.js",
            get(|| async { asset("text/javascript; charset=utf-8", include_str!("../assets/console.js")) }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is no such page\n") })
}

mod filters {
    /// What others wrote, for a screen. Escaped as HTML after this, as everything is.
    pub fn shown(text: impl std::fmt::Display, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(crate::plain(&text.to_string()))
    }
}

#[derive(Template)]
#[template(path = "now.html")]
struct NowPage<'a> {
    now: &'a Result<Now, Unknown>,
}

#[derive(Template)]
#[template(path = "incidents.html")]
struct IncidentsPage {
    rows: Vec<Row>,
    left_out: usize,
}

#[derive(Template)]
#[template(path = "incident.html")]
struct IncidentPage {
    row: Row,
    sections: Vec<SectionShown>,
    timeline: Vec<EventShown>,
    left_out: usize,
}

/// An incident in a list.
struct Row {
    id: String,
    title: String,
    severity: String,
    open: bool,
    start: String,
    lasted: String,
}

impl Row {
    fn of(incident: &Incident) -> Self {
        Self {
            id: incident.id.to_string(),
            title: incident.title.text().to_owned(),
            severity: incident.severity.to_string(),
            open: incident.is_open(),
            start: incident.start.to_string(),
            lasted: if incident.is_open() {
                format!("for {} so far", incident.lasted)
            } else {
                format!("lasted {}", incident.lasted)
            },
        }
    }
}

struct SectionShown {
    title: &'static str,
    parts: Vec<PartShown>,
}

struct PartShown {
    label: Option<String>,
    statements: Vec<StatementShown>,
}

struct StatementShown {
    mark: &'static str,
    text: String,
    events: Vec<String>,
}

struct EventShown {
    id: String,
    at: String,
    text: String,
}

fn statement(statement: &Statement) -> StatementShown {
    let (mark, text) = match statement {
        Statement::Fact(fact) => ("", fact.text().to_owned()),
        Statement::NotEstablished { whether, missing } => {
            ("Not established:", format!("whether {whether}; missing: {missing}"))
        }
        Statement::NotRecorded { what } => ("Not recorded:", what.clone()),
        Statement::Advice { text, task: true, .. } => ("To do:", text.clone()),
        Statement::Advice { text, task: false, .. } => ("Note:", text.clone()),
    };
    StatementShown { mark, text, events: statement.shown().iter().map(|id| format!("E{}", id.0)).collect() }
}

fn incident_shown(incident: &Incident) -> IncidentPage {
    let report = incident::report(incident);
    let sections = report.sections.iter().map(|section| SectionShown {
        title: section.heading.title(),
        parts: section
            .parts
            .iter()
            .map(|part| PartShown {
                label: part.label.clone(),
                statements: part.statements.iter().map(statement).collect(),
            })
            .collect(),
    });
    let timeline = incident.evidence.iter().take(TIMELINE_MAX).map(|placed| EventShown {
        id: format!("E{}", placed.id().0),
        at: placed.stamp.to_string(),
        text: incident::describe(placed.kind()),
    });
    IncidentPage {
        row: Row::of(incident),
        sections: sections.collect(),
        timeline: timeline.collect(),
        left_out: incident.evidence.len().saturating_sub(TIMELINE_MAX),
    }
}

async fn now_page(State(shared): State<Arc<Shared>>) -> Response {
    let now = shared.now().await;
    page(status_of(&now), &NowPage { now: &now })
}

async fn now_json(State(shared): State<Arc<Shared>>) -> Response {
    let now = shared.now().await;
    let document = match &*now {
        Ok(now) => json!({ "schema": SCHEMA, "kind": "now", "now": now }),
        Err(unknown) => json!({ "schema": SCHEMA, "kind": "now", "now": null, "error": unknown }),
    };
    (status_of(&now), Json(document)).into_response()
}

/// Where nobody guards, whoever only looks at the status code shall know.
fn status_of(now: &Result<Now, Unknown>) -> StatusCode {
    if now.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Says `changed` whenever the now page is another than before, the first time at once.
async fn live(State(shared): State<Arc<Shared>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold((shared, None), |(shared, before)| async move {
        let mut wait = before.is_some();
        loop {
            if wait {
                tokio::time::sleep(LIVE_EVERY).await;
            }
            let now = shared.now().await;
            let seen = blake3::hash(format!("{now:?}").as_bytes());
            if before != Some(seen) {
                let event = Event::default().event("changed").retry(LIVE_AGAIN).data(seen.to_hex().as_str());
                return Some((Ok(event), (shared, Some(seen))));
            }
            wait = true;
        }
    }))
}

async fn incidents_page(State(shared): State<Arc<Shared>>) -> Response {
    match shared.incidents().await {
        Ok(incidents) => {
            let rows = incidents.iter().rev().take(INCIDENTS_MAX).map(Row::of).collect();
            page(StatusCode::OK, &IncidentsPage { rows, left_out: incidents.len().saturating_sub(INCIDENTS_MAX) })
        }
        Err(error) => unreadable(&error),
    }
}

async fn incidents_json(State(shared): State<Arc<Shared>>) -> Response {
    match shared.incidents().await {
        Ok(incidents) => {
            let newest: Vec<_> = incidents.iter().rev().take(INCIDENTS_MAX).collect();
            Json(json!({ "schema": SCHEMA, "kind": "incidents", "count": incidents.len(), "incidents": newest }))
                .into_response()
        }
        Err(error) => unreadable(&error),
    }
}

async fn incident_page(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let (id, markdown) = id.strip_suffix(".md").map_or((id.as_str(), false), |id| (id, true));
    match find(&shared, id).await {
        Ok(incident) if markdown => {
            let mut response = incident::report(&incident).to_markdown().into_response();
            // Plain text: no browser shall make more of it.
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
        Ok(incident) => page(StatusCode::OK, &incident_shown(&incident)),
        Err(response) => *response,
    }
}

async fn incident_json(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match find(&shared, &id).await {
        Ok(incident) => {
            let report = incident::report(&incident);
            Json(json!({ "schema": SCHEMA, "kind": "incident_report", "incident": incident, "report": report }))
                .into_response()
        }
        Err(response) => *response,
    }
}

async fn find(shared: &Arc<Shared>, id: &str) -> Result<Incident, Box<Response>> {
    let incidents = shared.incidents().await.map_err(|error| Box::new(unreadable(&error)))?;
    let found = incidents.iter().find(|i| i.id.to_string().eq_ignore_ascii_case(id));
    // What was asked for is not said again: it is the asker's own text.
    found.cloned().ok_or_else(|| Box::new((StatusCode::NOT_FOUND, "there is no such incident\n").into_response()))
}

async fn figures(State(shared): State<Arc<Shared>>) -> Response {
    match metrics::render(&*shared.now().await) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn unreadable(error: &str) -> Response {
    let text = format!("the journal can't be read: {}\n", crate::plain(error));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::warn!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::now::{Figures, Line, State as How};

    /// A now page in which everything that somebody else names is `name`.
    pub(crate) fn hostile(name: &str) -> Now {
        let line = |how| Line { name: name.to_owned(), state: how, text: name.to_owned() };
        Now {
            head: name.to_owned(),
            at: "2026-11-24 02:00:00 UTC".to_owned(),
            well: false,
            lines: vec![line(How::Well)],
            alerts: vec![line(How::NotWell)],
            services: vec![line(How::NotWell)],
            vacuums: vec![line(How::Unknown)],
            limitations: vec![name.to_owned()],
            figures: Figures { connections_used: Some(7.0), ..Figures::default() },
        }
    }

    #[test]
    fn hostile_names_are_only_text() {
        for (name, never) in [
            ("<script>alert(1)</script>", "<script>alert"),
            ("\"><img src=x onerror=alert(1)>", "<img"),
            ("' onmouseover='x", "' onmouseover='"),
            ("\u{1b}[31mred", "\u{1b}"),
            ("a\u{202e}b", "\u{202e}"),
            ("</main></body>x", "</body>x"),
        ] {
            let html = NowPage { now: &Ok(hostile(name)) }.render().unwrap();
            assert!(!html.contains(never), "{name}: {html}");
            let html = NowPage { now: &Err(Unknown(name.to_owned())) }.render().unwrap();
            assert!(!html.contains(never), "{name}: {html}");
        }
        let html = NowPage { now: &Ok(hostile("[x](javascript:alert(1)) **b**")) }.render().unwrap();
        assert!(html.contains("[x](javascript:alert(1)) **b**") && !html.contains("href=\"javascript"), "{html}");
    }

    #[test]
    fn nothing_stands_in_a_page_that_the_policy_forbids() {
        let html = NowPage { now: &Ok(hostile("x")) }.render().unwrap();
        assert!(!html.contains("style=") && !html.contains("<style") && !html.contains(" on"), "{html}");
        assert_eq!(html.matches("<script").count(), 1, "{html}");
        assert!(html.contains("NOT WELL") && html.contains("href=\"/console.css\""), "{html}");
        assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    }
}
