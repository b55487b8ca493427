//! On which line of the file something stands.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Where each key stands, by its place as problems name it: `postgres.url`, `service "site".health`, `backup.proof, number 2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Those of a file; none where it is no TOML.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        // Where each line begins, to be searched: a file may have many keys.
        let starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1))).collect();
        if let Ok(table) = DeTable::parse(text) {
            lines.table("", table.get_ref(), &starts);
        }
        lines
    }

    /// The line of a place, from one; of the nearest thing around it where it does not stand there itself.
    pub fn line(&self, place: &str) -> Option<usize> {
        let around = std::iter::successors(Some(place), |place| Some(place.rsplit_once('.')?.0));
        around.into_iter().find_map(|place| self.0.get(place)).copied()
    }

    fn table(&mut self, place: &str, table: &DeTable<'_>, starts: &[usize]) {
        for (key, value) in table.iter() {
            let place = if place.is_empty() { key.get_ref().to_string() } else { format!("{place}.{}", key.get_ref()) };
            self.value(&place, key.span().start, value, starts);
        }
    }

    fn value(&mut self, place: &str, at: usize, value: &Spanned<DeValue<'_>>, starts: &[usize]) {
        let line = |at: usize| starts.partition_point(|start| *start <= at);
        self.0.entry(place.to_owned()).or_insert(line(at));
        match value.get_ref() {
            DeValue::Table(table) => self.table(place, table, starts),
            DeValue::Array(all) => {
                for (index, one) in all.iter().enumerate().filter(|(_, one)| one.get_ref().is_table()) {
                    let at = one.span().start;
                    self.value(&format!("{place}, number {}", index.saturating_add(1)), at, one, starts);
                    let name = one.get_ref().get("name").and_then(|name| name.get_ref().as_str());
                    if let Some(named) =
                        name.map(|name| format!("{place} {name:?}")).filter(|one| !self.0.contains_key(one))
                    {
                        self.value(&named, at, one, starts);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn places_have_their_lines() {
        let text = "mode = \"act\"\n[postgres]\nurl = \"x\"\n\n[[service]]\nname = \"a.b\"\nhealth = [\n  {}]\n\
                    [[service]]\nname = \"a.b\"\n[service.environment]\nX = \"1\"\n[recovery]\nat_once = 0";
        let lines = Lines::of(text);
        for (place, line) in [
            ("mode", Some(1)),
            ("postgres", Some(2)),
            ("postgres.url", Some(3)),
            ("postgres.data_dir", Some(2)),
            ("service \"a.b\"", Some(5)),
            ("service \"a.b\".health", Some(7)),
            ("service \"a.b\".command", Some(5)),
            ("service, number 2", Some(9)),
            ("service, number 2.environment.X", Some(12)),
            ("recovery.at_once", Some(14)),
            ("recovery.attempts", Some(13)),
            ("journal.max_size", None),
        ] {
            assert_eq!(lines.line(place), line, "{place}");
        }
        assert_eq!(Lines::of("no toml"), Lines::default());
    }
}
