//! Our own configuration: what it guards against counts.

use std::sync::Arc;

use super::{
    Located,
    backup::{Backup, BackupTool},
    collect::Collector,
    place,
};

/// Takes an `oxpecker.toml`; what is wrong with it is for `oxpecker config check` to say.
pub(super) fn take(text: &str, file: &Arc<str>, into: &mut Collector) -> Result<(), String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let line_of =
        |words: &str| text.lines().zip(1_u32..).find(|(line, _)| line.contains(words)).map_or(1, |(_, line)| line);
    if table.contains_key("repository") {
        let mut backup =
            Backup::declared("oxpecker".to_owned(), place(file, line_of("[repository]")), BackupTool::Physical);
        let schedule = table.get("backup").and_then(|backup| backup.get("schedule")).and_then(toml::Value::as_str);
        backup.schedule =
            schedule.map(|when| Located { value: when.to_owned(), place: place(file, line_of("schedule")) });
        // Every backup is restored into a scratch directory and checked.
        into.facts.restore_tests.push(backup.place.clone());
        into.facts.backups.push(backup);
    }
    for service in table.get("service").and_then(toml::Value::as_array).into_iter().flatten() {
        let Some(name) = service.get("name").and_then(toml::Value::as_str) else { continue };
        let at = place(file, line_of(&format!("\"{name}\"")));
        into.facts.orders.push(at.clone());
        let needs = service.get("depends_on").and_then(toml::Value::as_array).into_iter().flatten();
        into.facts
            .needs
            .extend(needs.filter_map(|need| Some((name.to_owned(), need.as_str()?.to_owned(), at.clone()))));
    }
    if table.get("alert").and_then(|alert| alert.get("route")).is_some() {
        into.facts.guarded = Some(place(file, line_of("[[alert.route]]")));
    }
    let mode = |table: &toml::Table| table.get("mode").and_then(toml::Value::as_str).map(str::to_owned);
    let own = table.get("autovacuum").and_then(toml::Value::as_table).and_then(mode);
    if own.or_else(|| mode(&table)).as_deref() == Some("act") {
        into.facts.governed = Some(place(file, line_of("mode")));
    }
    if table.get("alert").and_then(|alert| alert.get("heartbeat")).is_some() {
        into.facts.heartbeat = Some(place(file, line_of("[alert.heartbeat]")));
    }
    Ok(())
}
