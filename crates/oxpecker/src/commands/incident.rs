//! `oxpecker incident list` and `incident report`.

use journal::{EventQuery, Reader};
use model::Event;

/// Events that are read at once.
const PAGE: usize = 10_000;
/// Events that are read at all: far more than 400 days of a bad host.
const MOST_EVENTS: usize = 1_000_000;

use crate::{
    cli::{Format, Global},
    config::{self, Overrides},
    exit::{FINE, Failure, Outcome},
    output, place,
};

/// All incidents, newest first.
pub fn list(global: &Global) -> Outcome {
    let events = events(global)?;
    let incidents = incident::incidents(&events, &incident::IncidentRules::default());
    output::result(global.output, "incidents", &serde_json::json!({ "incidents": incidents }), || {
        if incidents.is_empty() {
            return "no incident in the journal".to_owned();
        }
        let rows: Vec<String> = incidents.iter().rev().map(|i| format!("{}  {}", i.id, i.title.text())).collect();
        rows.join("\n")
    })?;
    Ok(FINE)
}

/// One incident's report.
pub fn report(global: &Global, id: Option<&str>) -> Outcome {
    let events = events(global)?;
    let incidents = incident::incidents(&events, &incident::IncidentRules::default());
    let chosen = match id {
        None => incidents.last(),
        Some(id) => incidents.iter().find(|i| i.id.to_string().eq_ignore_ascii_case(id)),
    };
    let Some(chosen) = chosen else {
        let what =
            id.map_or_else(|| "the journal holds no incident".to_owned(), |id| format!("there is no incident {id}"));
        return Err(Failure::usage(anyhow::anyhow!(what)).hint("`oxpecker incident list` shows what there is"));
    };
    let report = incident::report(chosen);
    match global.output {
        Format::Text => output::text(&report.to_markdown())?,
        Format::Json => {
            let document =
                serde_json::json!({ "incident": chosen, "report": report, "markdown": report.to_markdown() });
            output::result(global.output, "incident_report", &document, String::new)?;
        }
    }
    Ok(FINE)
}

fn events(global: &Global) -> Result<Vec<Event>, Failure> {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let mut reader = Reader::open(&place::state_dir(&loaded.config)).map_err(Failure::usage)?;
    let mut all: Vec<Event> = Vec::new();
    let mut unreadable = 0;
    let mut after = None;
    loop {
        let page = reader.events(&EventQuery { after, limit: PAGE, ..EventQuery::default() })?;
        after = page.last;
        unreadable += page.skipped;
        all.extend(page.events);
        if after.is_none() || all.len() >= MOST_EVENTS {
            break;
        }
    }
    if unreadable > 0 {
        output::note(&format!(
            "{unreadable} events were written by a newer version and are left out; upgrade to see them"
        ));
    }
    Ok(all)
}
