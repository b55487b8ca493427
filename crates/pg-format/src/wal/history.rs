//! Timeline history files (`00000002.history`; PostgreSQL's timeline.c).

use model::Lsn;

/// One ancestor of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The ancestor's id.
    pub timeline: u32,
    /// Where it was left: its WAL counts up to here.
    pub switch: Lsn,
    /// Why, for people.
    pub reason: String,
}

/// The ancestors of a timeline, oldest first. Timeline 1 has none and no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimelineHistory {
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
}

/// A line that is no line of a history file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timeline history, line {line}: '{text}' {why}; hint: fetch the file again from the server or the archive")]
pub struct HistoryError {
    /// Counted from one.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl TimelineHistory {
    /// Reads a file: a line per ancestor with id, switch point and reason; comments and empty lines are skipped.
    ///
    /// # Errors
    /// When a line is something else, or ids or switch points do not rise.
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fail = |why| HistoryError { line: index + 1, text: line.to_owned(), why };
            let content = line.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (timeline, rest) = split_word(content);
            let (switch, reason) = split_word(rest);
            let timeline = timeline.parse().map_err(|_| fail("does not start with a timeline's id"))?;
            let switch = switch.parse().map_err(|_| fail("has no switch point after the id"))?;
            if entries.last().is_some_and(|last| last.timeline >= timeline || last.switch > switch) {
                return Err(fail("lies before the line above it"));
            }
            entries.push(HistoryEntry { timeline, switch, reason: reason.to_owned() });
        }
        Ok(Self { entries })
    }

    /// Where `ancestor` was left for a later timeline; `None` when it is no ancestor.
    #[must_use]
    pub fn switch_of(&self, ancestor: u32) -> Option<Lsn> {
        self.entries.iter().find(|entry| entry.timeline == ancestor).map(|entry| entry.switch)
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors() {
        let text =
            "1\t0/3000158\tno recovery target specified\n\n# a note\n2\t0/5000000\tbefore 2020-01-01 00:00:00+00\n";
        let history = TimelineHistory::parse(text).unwrap();
        assert_eq!(history.entries.len(), 2);
        assert_eq!(history.entries[1].reason, "before 2020-01-01 00:00:00+00");
        assert_eq!((history.switch_of(1), history.switch_of(3)), (Some(Lsn(0x300_0158)), None));
        for (bad, line) in [("x\t0/1\t", 1), ("1\n", 1), ("1\t0/5\n1\t0/6", 2), ("1\t0/5\n2\t0/4", 2)] {
            assert_eq!(TimelineHistory::parse(bad).unwrap_err().line, line, "{bad}");
        }
    }
}
