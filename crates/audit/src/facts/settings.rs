//! Settings of a PostgreSQL, from its command line and from postgresql.conf.

use std::{collections::BTreeMap, sync::Arc};

use super::{Located, place};
use crate::{
    finding::Place,
    quantity::{self, Dialect},
};

/// A setting's value with its place.
pub type Setting = Located<String>;

/// The settings that were seen, by their names in lower case. What isn't here has PostgreSQL's default, or comes from where the audit can't look.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
}

impl Settings {
    /// Whether none was seen.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// A setting as it was written.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.values.get(name)
    }

    /// Any setting, to show where they stand.
    pub fn any(&self) -> Option<(&str, &Setting)> {
        self.values.iter().next().map(|(name, setting)| (name.as_str(), setting))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.value.trim().parse().ok()
    }

    /// A size in bytes; `unit` is what a bare number counts in, by the manual.
    pub fn bytes(&self, name: &str, unit: u32) -> Option<u64> {
        quantity::bytes(&self.get(name)?.value, Dialect::Binary { unit })
    }

    /// Whether a boolean setting is off, in any of PostgreSQL's spellings.
    pub fn is_off(&self, name: &str) -> Option<&Setting> {
        let off = |value: &str| matches!(value.to_ascii_lowercase().as_str(), "off" | "false" | "no" | "0" | "f" | "n");
        self.get(name).filter(|setting| off(&setting.value))
    }

    /// Adds settings; those that are there win, as the command line wins over the file.
    pub fn fill(&mut self, other: &Self) {
        for (name, setting) in &other.values {
            self.values.entry(name.clone()).or_insert_with(|| setting.clone());
        }
    }

    fn set(&mut self, name: &str, value: &str, at: Place) {
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
            self.values.insert(name, Located { value: value.trim().to_owned(), place: at });
        }
    }

    /// `-c name=value`, `-cname=value` and `--name=value` of a command line.
    pub fn of_arguments(arguments: &[String], at: &Place) -> Self {
        let mut settings = Self::default();
        let words: Vec<&str> = arguments.iter().flat_map(|argument| argument.split_whitespace()).collect();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let pair = match word {
                "-c" => words.next(),
                _ => word.strip_prefix("-c").or_else(|| word.strip_prefix("--")),
            };
            if let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) {
                settings.set(name, value.trim_matches(['\'', '"']), at.clone());
            }
        }
        settings
    }

    /// A postgresql.conf, whose first line is the given one.
    pub fn of_file(text: &str, file: &Arc<str>, first_line: u32) -> Self {
        let mut settings = Self::default();
        for (index, line) in text.lines().enumerate() {
            let Some((name, value)) = assignment(line) else { continue };
            let line = first_line.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            settings.set(name, &value, place(file, line));
        }
        settings
    }
}

/// `name = value  # comment`; the sign may be missing, values may be quoted.
fn assignment(line: &str) -> Option<(&str, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=')?;
    let rest = line[end..].trim_start().trim_start_matches('=').trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next()?,
        None => rest.split('#').next()?.trim(),
    };
    Some((&line[..end], value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_saying_it() {
        let file: Arc<str> = "f".into();
        let words = ["postgres", "-c", "max_connections=50", "-cfsync=off", "--work-mem=8MB"].map(str::to_owned);
        let settings = Settings::of_arguments(&words, &place(&file, 3));
        assert_eq!(settings.number("max_connections"), Some(50));
        assert!(settings.is_off("fsync").is_some());
        assert_eq!(settings.bytes("work_mem", 1024), Some(8 << 20));

        let text = "# x\nshared_buffers = 1GB # comment\narchive_command 'cp %p /x/%f'\n\nfull_page_writes=off\n";
        let settings = Settings::of_file(text, &file, 10);
        assert_eq!(settings.bytes("shared_buffers", 8192), Some(1 << 30));
        assert_eq!(settings.get("archive_command").unwrap().value, "cp %p /x/%f");
        assert_eq!(settings.is_off("full_page_writes").unwrap().place.line, 14);
    }
}
