//! How far the program may go, and how bad a thing is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a capability may go. Each step includes the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Look, record and alert; change nothing. What would have been done is recorded as such.
    #[default]
    Observe,
    /// Also propose each act to people, with the command that does it.
    Advise,
    /// Also act, within the declared bounds.
    Act,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Observe => "observe",
            Self::Advise => "advise",
            Self::Act => "act",
        })
    }
}

/// How bad a condition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nobody needs to get up.
    Info,
    /// Will hurt if nobody looks today.
    Warning,
    /// Hurts now.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}
