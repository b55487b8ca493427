//! Sentences that carry their evidence. The report is made of [`Statement`]s only, so a fact without a citation can't be written.

use std::fmt;

use model::EventId;
use serde::Serialize;

use crate::words::one_line;

/// How many citations one sentence shows; the rest are counted. JSON has all of them.
pub const MAX_SHOWN_CITES: usize = 6;

/// The events that prove a sentence: at least one, ascending, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Cites(Vec<EventId>);

impl Cites {
    /// One event.
    pub fn one(event: EventId) -> Self {
        Self(vec![event])
    }

    /// Several events; `None` where there are none, for then there is nothing to state.
    pub fn of(events: impl IntoIterator<Item = EventId>) -> Option<Self> {
        let mut all: Vec<_> = events.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        (!all.is_empty()).then_some(Self(all))
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: impl IntoIterator<Item = EventId>) -> Self {
        self.0.extend(others);
        self.0.sort_unstable();
        self.0.dedup();
        self
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = EventId> + '_ {
        self.0.iter().copied()
    }

    /// Those that a sentence shows.
    pub fn shown(&self) -> impl Iterator<Item = EventId> + '_ {
        self.iter().take(MAX_SHOWN_CITES)
    }
}

impl fmt::Display for Cites {
    /// `[E3] [E7]`, and how many more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, event) in self.shown().enumerate() {
            write!(f, "{}[{event}]", if n == 0 { "" } else { " " })?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN_CITES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A sentence that the cited events prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    text: String,
    cites: Cites,
}

impl Fact {
    /// A sentence and its proof. Line breaks and control characters in `text` become blanks: parts of it come from elsewhere.
    pub fn new(text: impl AsRef<str>, cites: Cites) -> Self {
        Self { text: one_line(text.as_ref()), cites }
    }

    /// A sentence that one event proves.
    pub fn of(text: impl AsRef<str>, event: EventId) -> Self {
        Self::new(text, Cites::one(event))
    }

    /// The sentence, plain, without citations and full stop.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its proof.
    pub fn cites(&self) -> &Cites {
        &self.cites
    }
}

/// What a report may say. Everything that is not a [`Fact`] is marked as such where it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "statement", rename_all = "snake_case")]
pub enum Statement {
    /// Proved by events.
    Fact(Fact),
    /// Supposed, and not proved.
    NotEstablished {
        /// What is supposed, as a clause after "whether".
        whether: String,
        /// What is missing to prove it.
        missing: String,
    },
    /// What one would look for and the events do not have. Says nothing about the world, only about the journal.
    NotRecorded {
        /// What was looked for.
        what: String,
    },
    /// What people should do, or should know when they read on.
    Advice {
        /// In the imperative.
        text: String,
        /// The events that give reason for it, perhaps none.
        because: Vec<EventId>,
        /// Whether it is a task to tick off.
        task: bool,
    },
}

impl From<Fact> for Statement {
    fn from(fact: Fact) -> Self {
        Self::Fact(fact)
    }
}

impl Statement {
    /// Something that the events do not have.
    pub fn not_recorded(what: impl AsRef<str>) -> Self {
        Self::NotRecorded { what: one_line(what.as_ref()) }
    }

    /// A task, and why.
    pub fn task(text: impl AsRef<str>, because: impl IntoIterator<Item = EventId>) -> Self {
        Self::advice(text, because, true)
    }

    /// How to read on.
    pub fn note(text: impl AsRef<str>, because: impl IntoIterator<Item = EventId>) -> Self {
        Self::advice(text, because, false)
    }

    fn advice(text: impl AsRef<str>, because: impl IntoIterator<Item = EventId>, task: bool) -> Self {
        let because = Cites::of(because).map(|c| c.shown().collect()).unwrap_or_default();
        Self::Advice { text: one_line(text.as_ref()), because, task }
    }

    /// The events that it shows as citations.
    pub fn shown(&self) -> Vec<EventId> {
        match self {
            Self::Fact(fact) => fact.cites.shown().collect(),
            Self::Advice { because, .. } => because.clone(),
            Self::NotEstablished { .. } | Self::NotRecorded { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_proves_nothing() {
        assert_eq!(Cites::of([]), None);
    }

    #[test]
    fn citations_are_sorted_bounded_and_counted() {
        let cites = Cites::of((1..=9).rev().chain(3..5).map(EventId)).unwrap();
        assert_eq!(cites.to_string(), "[E1] [E2] [E3] [E4] [E5] [E6] and 3 more");
        assert_eq!(cites.iter().count(), 9);
    }

    #[test]
    fn a_fact_stays_on_its_line() {
        assert_eq!(Fact::of("a\n## b\u{202e}\u{7}", EventId(1)).text(), "a ## b");
    }
}
