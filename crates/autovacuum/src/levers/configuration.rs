//! What the server's configuration files say, as `pg_file_settings` shows them: pure.

use std::path::Path;

use crate::{
    alter_system::Former,
    include_file::{self, DELAY_NAME, LIMIT_NAME, PROBE_NAME},
};

/// Whether the include file is read, and what else it takes.
pub(super) type Included = Result<(), String>;

/// What a configuration entry says, by `pg_file_settings`.
pub(super) struct FileEntry {
    pub name: String,
    pub value: String,
    pub file: String,
    pub seq: i32,
}

/// What `postgresql.auto.conf` says of our two settings.
pub(super) fn former(entries: &[FileEntry]) -> Former {
    let auto = entries.iter().rev().filter(|entry| entry.file.ends_with("/postgresql.auto.conf"));
    let value = |name: &str| auto.clone().find(|entry| entry.name == name).map(|entry| entry.value.clone());
    Former { limit: value(LIMIT_NAME), delay: value(DELAY_NAME) }
}

/// Whether the include file is read, and last of all that sets our two settings.
pub(super) fn included_by_probe(entries: &[FileEntry], include: &Path) -> Included {
    let own = include.display().to_string();
    let Some(probe) = entries.iter().find(|entry| entry.name == PROBE_NAME && entry.file == own) else {
        return Err(missing_line(include));
    };
    overridden(entries, probe.seq, &own)
}

fn overridden(entries: &[FileEntry], after: i32, own: &str) -> Included {
    let later =
        entries.iter().find(|e| e.seq > after && e.file != own && (e.name == LIMIT_NAME || e.name == DELAY_NAME));
    later.map_or(Ok(()), |entry| {
        let hint =
            if entry.file.ends_with("postgresql.auto.conf") { "ALTER SYSTEM RESET it" } else { "put our line last" };
        Err(format!("{} in {} overrides the include file (hint: {hint})", entry.name, entry.file))
    })
}

/// Without writing anything: does the main configuration file have the line?
pub(super) fn included_by_text(entries: &[FileEntry], text: Option<&str>, include: &Path) -> Included {
    let Some(text) = text else {
        return Err("the server's configuration file can't be read from here".to_owned());
    };
    if !include_file::text_includes(text, include) {
        return Err(missing_line(include));
    }
    let auto = entries
        .iter()
        .find(|e| e.file.ends_with("postgresql.auto.conf") && (e.name == LIMIT_NAME || e.name == DELAY_NAME));
    auto.map_or(Ok(()), |entry| {
        Err(format!("{} in {} overrides the include file (hint: ALTER SYSTEM RESET it)", entry.name, entry.file))
    })
}

fn missing_line(include: &Path) -> String {
    format!(
        "the server does not read {} (hint: add the line \"{}\" to the end of postgresql.conf)",
        include.display(),
        include_file::line(include)
    )
}

pub(super) fn effective(own: Option<f64>, fallback: Option<f64>, none: f64) -> f64 {
    own.filter(|v| *v >= 0.0).or(fallback).unwrap_or(none)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped to the parameter's range.
pub(super) fn effective_limit(own: Option<f64>, fallback: Option<f64>) -> u32 {
    effective(own.filter(|v| *v > 0.0), fallback, 200.0).clamp(1.0, 10_000.0) as u32
}

/// A time or a number as a configuration file has it, in milliseconds where it is a time.
pub(super) fn milliseconds(value: &str) -> Option<f64> {
    let value = value.trim();
    let end = value.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(value.len());
    let number: f64 = value[..end].parse().ok()?;
    let factor = match value[end..].trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1_000.0,
        "min" => 60_000.0,
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_server_reads_them() {
        for (text, ms) in [
            ("20", Some(20.0)),
            ("2ms", Some(2.0)),
            ("500us", Some(0.5)),
            ("0", Some(0.0)),
            ("-1", Some(-1.0)),
            ("1 s", Some(1000.0)),
            ("x", None),
        ] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
    }

    #[test]
    fn a_later_entry_overrides_the_include_file() {
        let include = Path::new("/run/oxpecker/main/throttle.conf");
        let entry =
            |name: &str, file: &str, seq| FileEntry { name: name.into(), value: "1".into(), file: file.into(), seq };
        let own = "/run/oxpecker/main/throttle.conf";
        let table = [
            (vec![], false),
            (vec![entry(PROBE_NAME, own, 1)], true),
            (vec![entry(LIMIT_NAME, "/d/postgresql.conf", 1), entry(PROBE_NAME, own, 2)], true),
            (vec![entry(PROBE_NAME, own, 1), entry(LIMIT_NAME, "/d/postgresql.conf", 2)], false),
            (vec![entry(PROBE_NAME, own, 1), entry(DELAY_NAME, "/d/postgresql.auto.conf", 2)], false),
        ];
        for (entries, ok) in table {
            assert_eq!(included_by_probe(&entries, include).is_ok(), ok);
        }
    }
}
