//! What someone has accepted: inline, with a reason and a date, or all at once in a baseline.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{Finding, facts::Ignore};

/// A finding that a comment accepts.
#[derive(Clone, Debug, Serialize)]
pub struct Ignored {
    /// The check.
    pub check: &'static str,
    /// The object.
    pub object: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Date,
}

/// Takes out what comments accept today. A comment counts in the document where it stands.
pub(crate) fn ignore(findings: Vec<Finding>, ignores: &[Ignore], today: Date) -> (Vec<Finding>, Vec<Ignored>) {
    let mut ignored = Vec::new();
    let mut left = Vec::new();
    for mut finding in findings {
        let covers = |ignore: &&Ignore| {
            ignore.check == finding.check
                && finding.evidence.first().is_some_and(|evidence| {
                    evidence.place.file == ignore.place.file
                        && (ignore.lines.0..=ignore.lines.1).contains(&evidence.place.line)
                })
        };
        match ignores.iter().filter(covers).max_by_key(|ignore| ignore.until) {
            Some(ignore) if ignore.until >= today => ignored.push(Ignored {
                check: finding.check,
                object: finding.object,
                reason: ignore.reason.clone(),
                until: ignore.until,
            }),
            Some(ignore) => {
                finding.message += &format!(" (it was accepted until {}: {})", ignore.until, ignore.reason);
                left.push(finding);
            }
            None => left.push(finding),
        }
    }
    (left, ignored)
}

/// Findings that were there before: only new ones are shown.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    schema: u32,
    accepted: BTreeSet<Accepted>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    check: String,
    object: String,
}

/// A baseline that is none.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// Its text is something else.
    #[error("not a baseline: {0}; hint: make one with oxpecker audit --write-baseline FILE")]
    Malformed(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error(
        "a baseline of schema {0}, and this version reads {BASELINE_SCHEMA}; hint: make it anew with --write-baseline FILE"
    )]
    Schema(u32),
}

/// The version of a baseline's shape.
const BASELINE_SCHEMA: u32 = 1;

impl Baseline {
    /// Reads one.
    ///
    /// # Errors
    /// When the text is no baseline of this version.
    pub fn parse(text: &str) -> Result<Self, BaselineError> {
        let baseline: Self = serde_json::from_str(text)?;
        if baseline.schema != BASELINE_SCHEMA {
            return Err(BaselineError::Schema(baseline.schema));
        }
        Ok(baseline)
    }

    /// One that accepts these findings. Neither lines nor files are in it: it outlives edits.
    pub fn of(findings: &[Finding]) -> Self {
        let accepted = findings.iter().map(|f| Accepted { check: f.check.to_owned(), object: f.object.clone() });
        Self { schema: BASELINE_SCHEMA, accepted: accepted.collect() }
    }

    /// As text, one entry a line, sorted: fit for a repository and its diffs.
    ///
    /// # Panics
    /// Never: all of it is text.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("texts and a number are JSON");
        text.push('\n');
        text
    }

    /// What is left, how many it accepts, and its entries that no longer occur.
    pub(crate) fn apply(&self, findings: Vec<Finding>) -> (Vec<Finding>, usize, Vec<String>) {
        let key = |f: &Finding| Accepted { check: f.check.to_owned(), object: f.object.clone() };
        let seen: BTreeSet<Accepted> = findings.iter().map(key).collect();
        let before = findings.len();
        let left: Vec<Finding> = findings.into_iter().filter(|f| !self.accepted.contains(&key(f))).collect();
        let gone = self.accepted.difference(&seen).map(|entry| format!("{} of {}", entry.check, entry.object));
        let accepted = before - left.len();
        (left, accepted, gone.collect())
    }
}
