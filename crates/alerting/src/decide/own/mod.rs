//! A team's own rules: a condition over figures, and what to say when it holds. Pure.
//!
//! Conditions are expressions of minijinja (Jinja's: `and`, `or`, `not`, comparisons, arithmetic), and what is said is a template of it.
//! Both are compiled, tried and refused when the configuration is read, not when they are needed at night.

mod expression;
mod figures;
mod rule;

use std::time::Duration;

use model::Severity;
use thiserror::Error;

use self::expression::{Condition, Saying};
pub use self::figures::{FIGURES, Figure, Source};
pub(super) use self::rule::Own;

/// Longest condition or text, in bytes: they are evaluated with each reading.
const MAX_BYTES: usize = 2_000;

/// An own rule as it is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnRule {
    /// Its name: the rule of its alerts, in routes, silences and keys.
    pub name: String,
    /// When it is bad: an expression over [`FIGURES`].
    pub when: String,
    /// When it is good again; without one as soon as `when` no longer holds.
    pub clear_when: Option<String>,
    /// How long it must be bad.
    pub lasting: Duration,
    /// How long it must be good.
    pub clear: Duration,
    /// How bad it is.
    pub severity: Severity,
    /// One line for a lock screen: a template over the same figures, `cluster` and `host`.
    pub summary: String,
    /// The first things to do.
    pub next_steps: Vec<String>,
    /// More labels, for routes.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// An own rule that can't work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}, line {line}, column {column}: {what}. Hint: {hint}")]
pub struct OwnRuleError {
    /// Which of its keys: `when`, `clear_when`, `summary`.
    pub key: &'static str,
    /// The line within that text, from one.
    pub line: usize,
    /// The column in that line, in characters, from one.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// An own rule whose texts are understood.
struct Compiled {
    when: Condition,
    clear_when: Option<Condition>,
    summary: Saying,
}

impl OwnRule {
    /// Whether it can work.
    ///
    /// # Errors
    /// The first thing that can't, with its line and column.
    pub fn check(&self) -> Result<(), OwnRuleError> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Compiled, OwnRuleError> {
        let clear_when = self.clear_when.as_ref().map(|text| Condition::new("clear_when", text)).transpose()?;
        Ok(Compiled {
            when: Condition::new("when", &self.when)?,
            clear_when,
            summary: Saying::new("summary", &self.summary)?,
        })
    }
}
