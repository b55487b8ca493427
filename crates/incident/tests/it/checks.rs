//! What every report must obey, checked on its Markdown as a reader sees it.

use std::collections::BTreeSet;

use incident::{Incident, report};
use model::{Event, EventId};

/// The citations of a line: `[E17]` outside code spans and not escaped.
fn citations(line: &str) -> BTreeSet<EventId> {
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for (at, _) in outside.match_indices("[E") {
        if outside[..at].ends_with('\\') {
            continue;
        }
        let digits = outside[at + 2..].split(']').next().unwrap();
        if let Ok(id) = digits.parse() {
            found.insert(EventId(id));
        }
    }
    found
}

/// Whether a line says of itself that it states no fact.
fn is_marked(line: &str) -> bool {
    ["- *Not established:* ", "- *Not in the journal:* ", "- *Note:* ", "- [ ] ", "*Note:* "]
        .iter()
        .any(|m| line.starts_with(m))
}

/// Checks one report against the events given; returns its Markdown.
pub fn check(incident: &Incident, events: &[Event]) -> Result<String, String> {
    let markdown = report(incident).to_markdown();
    let known: BTreeSet<EventId> = events.iter().map(|e| e.id).collect();
    let (body, appendix) = markdown.split_once("\n## Cited events\n").ok_or("no list of cited events")?;
    let mut cited = BTreeSet::new();
    let mut headings = Vec::new();
    for line in body.lines() {
        let here = citations(line);
        if let Some(unknown) = here.iter().find(|id| !known.contains(id)) {
            return Err(format!("cites {unknown}, which is not in the journal: {line}"));
        }
        let heading = line.starts_with("## ") || line.starts_with("### ");
        let factual = !line.is_empty() && !heading && !is_marked(line);
        if factual && here.is_empty() {
            return Err(format!("states a fact without a citation: {line}"));
        }
        if factual && !line.starts_with("- ") && !line.starts_with("# ") {
            return Err(format!("is no statement of ours: {line}"));
        }
        headings.extend(line.strip_prefix("## ").map(str::to_owned));
        cited.extend(here);
    }
    let expected = [
        "Summary",
        "Leadup",
        "Impact",
        "Detection",
        "Response",
        "Recovery",
        "Five whys",
        "Blameless root cause",
        "Lessons learned",
        "Follow-up tasks",
    ];
    if headings != expected {
        return Err(format!("headings are {headings:?}"));
    }
    let rows = appendix.lines().filter(|l| l.starts_with("| [E"));
    let listed: Vec<EventId> = rows.flat_map(|row| citations(row.split(" | ").next().unwrap_or_default())).collect();
    let set: BTreeSet<EventId> = listed.iter().copied().collect();
    if set != cited || set.len() != listed.len() {
        return Err(format!("cites {cited:?} and lists {listed:?}"));
    }
    Ok(markdown)
}

#[test]
fn the_check_itself_finds_what_it_should() {
    assert_eq!(citations(r"a \[E1\] `[E2]` b [E3] [E44] [Ex]"), [EventId(3), EventId(44)].into());
    assert!(!is_marked("- The core was saturated"));
}
