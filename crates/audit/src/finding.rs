//! What a check says.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// How much it hurts when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Makes a bad day a little worse.
    Low,
    /// Makes an outage longer or likelier.
    Medium,
    /// Makes an outage.
    High,
    /// Loses data, or takes everything down at once.
    Critical,
}

impl Severity {
    /// As it is written everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether the gap was seen, or could not be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Seen in the evidence.
    Found,
    /// Something outside of what was audited decides; it says what.
    NotAssessed,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The file as it was named to the audit.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// Counted from one; zero where there are no lines: a live server, an address.
    pub line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// A place and what stands there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Evidence {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What stands there, or what does not; never a secret's value.
    pub value: String,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "text")]
pub enum Remedy {
    /// A part of a file to merge into the object (for Kubernetes also fit for `kubectl patch --patch`).
    Patch(String),
    /// A command.
    Command(String),
    /// What a person has to decide or write.
    Advice(String),
}

impl Remedy {
    /// The words.
    pub fn text(&self) -> &str {
        match self {
            Self::Patch(text) | Self::Command(text) | Self::Advice(text) => text,
        }
    }
}

/// A gap at one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's id.
    pub check: &'static str,
    /// How much it hurts here: the check's own severity, or less.
    pub severity: Severity,
    /// Seen, or not to be known from here.
    pub certainty: Certainty,
    /// What it is about: `Deployment/postgres`, `rules: cpu`. With the check's id it names the finding in a baseline.
    pub object: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What shows it; the first is where an inline ignore counts and where an editor jumps to.
    pub evidence: Vec<Evidence>,
    /// What to do here.
    pub remedy: Remedy,
}
