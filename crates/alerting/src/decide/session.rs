//! A session in words: who it is and what it does, never what it says.

use std::collections::BTreeMap;

use model::{alert::label, reading::LongTransaction};

use super::text::{plural, short, span};

/// `pid 4711 (role site, 10.0.0.7)`: what fits a summary.
pub(super) fn brief(session: &LongTransaction) -> String {
    let role = session.role.as_deref().map_or_else(|| "of no role".to_owned(), |role| format!("role {}", short(role)));
    match session.client.as_deref() {
        Some(client) => format!("pid {} ({role}, {client})", session.pid),
        None => format!("pid {} ({role})", session.pid),
    }
}

/// All that is known of it, in one line.
pub(super) fn line(session: &LongTransaction) -> String {
    let mut parts = vec![format!("pid {}", session.pid)];
    parts.extend(session.role.as_deref().map(|role| format!("role {role}")));
    parts.extend(session.client.as_deref().map(|client| format!("client {client}")));
    if !session.application.is_empty() {
        parts.push(format!("application {}", session.application));
    }
    parts.extend(session.database.as_ref().map(|database| format!("database {database}")));
    if !session.state.is_empty() {
        parts.push(format!("{} for {}", session.state, span(session.state_for)));
    }
    parts.push(format!("its transaction open for {}", span(session.age)));
    parts.extend(session.command.as_deref().map(|command| format!("its newest command {command}")));
    parts.extend(session.query_id.map(|id| format!("query {id} of pg_stat_statements")));
    parts.join(", ")
}

/// What it costs others.
pub(super) fn cost(session: &LongTransaction) -> Vec<String> {
    let mut facts = Vec::new();
    if session.blocks > 0 {
        facts.push(format!("{} for locks that it holds", plural(session.blocks, "session waits", "sessions wait")));
    }
    if let Some(held) = session.holds_back.filter(|held| *held > 0) {
        facts.push(format!(
            "vacuum can clear away nothing of the last {held} transactions, in any table that it could see"
        ));
    }
    facts
}

/// What machines route by.
pub(super) fn labels(session: &LongTransaction) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([(label::PID.to_owned(), session.pid.to_string())]);
    let database = session.database.as_ref().map(ToString::to_string);
    for (name, value) in [
        ("role", session.role.clone()),
        ("client", session.client.clone()),
        ("application", (!session.application.is_empty()).then(|| session.application.clone())),
        (label::DATABASE, database),
        ("query", session.query_id.map(|id| id.to_string())),
    ] {
        labels.extend(value.map(|value| (name.to_owned(), value)));
    }
    labels
}
