//! What is known of the end of a host's boot, or of a server's run.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Died {
    /// The host: it booted anew.
    Host,
    /// PostgreSQL, while its host ran on.
    Server,
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host",
            Self::Server => "PostgreSQL",
        })
    }
}

/// Why something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeathCause {
    /// It was stopped in order: by a person, or by a program that somebody set up.
    Stopped,
    /// A host's kernel crashed.
    KernelCrash,
    /// Memory ran out.
    OutOfMemory,
    /// A watchdog reset a host that no longer moved.
    Watchdog,
    /// A host lost its power or was reset from outside (its hypervisor, its button): nothing of it is written down by the host.
    PowerOrReset,
    /// A server crashed by itself: a signal such as SIGSEGV, or a PANIC.
    Crash,
    /// A server was killed by somebody's SIGKILL.
    Killed,
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped by a person or a program",
            Self::KernelCrash => "a crash of the kernel",
            Self::OutOfMemory => "out of memory",
            Self::Watchdog => "reset by a watchdog",
            Self::PowerOrReset => "loss of power, or a reset from outside",
            Self::Crash => "a crash of the server",
            Self::Killed => "killed with SIGKILL",
        })
    }
}

/// How far a cause may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// What was read speaks against it.
    Excluded,
    /// Nothing speaks for it, and what would show it was not all readable.
    Possible,
    /// Something speaks for it, nothing proves it.
    Likely,
    /// It is written down.
    Proven,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "excluded",
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Proven => "proven",
        })
    }
}

/// One cause with what speaks for and against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hypothesis {
    /// Which.
    pub cause: DeathCause,
    /// How far it may be believed.
    pub confidence: Confidence,
    /// What speaks for it: a line, a record, with where it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speaks_for: Vec<String>,
    /// What speaks against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speaks_against: Vec<String>,
    /// What would have told and could not be read, with why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// When and why something ended, as far as that can be told afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// What.
    pub of: Died,
    /// It lived then: the newest record of it. `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
    /// It had ended by then: when its successor began. `None` where the clocks contradict each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// The cause, where one is proven and all others are excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established: Option<DeathCause>,
    /// All causes, the most likely first.
    pub hypotheses: Vec<Hypothesis>,
    /// What else is to be known of it, such as clocks that contradict each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Death {
    /// The cause that most speaks for; `None` where nothing speaks for any.
    pub fn likeliest(&self) -> Option<&Hypothesis> {
        self.hypotheses.first().filter(|first| first.confidence >= Confidence::Likely)
    }

    /// In one line: when, and why as far as it is known.
    pub fn in_words(&self) -> String {
        let seconds = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC");
        let when = match (self.after, self.before) {
            (Some(after), Some(before)) => format!("between {} and {}", seconds(after), seconds(before)),
            (Some(after), None) => format!("after {}", seconds(after)),
            (None, Some(before)) => format!("before {}", seconds(before)),
            (None, None) => "at an unknown time".to_owned(),
        };
        let why = match (self.established, self.likeliest()) {
            (Some(cause), likeliest) => {
                let proof = likeliest.and_then(|one| one.speaks_for.first());
                format!("{cause}{}", proof.map_or(String::new(), |proof| format!(" ({proof})")))
            }
            (None, Some(likeliest)) => {
                let open = self.hypotheses.iter().skip(1).filter(|one| one.confidence > Confidence::Excluded);
                let open: Vec<String> = open.map(|one| one.cause.to_string()).collect();
                let open = if open.is_empty() { String::new() } else { format!("; not excluded: {}", open.join(", ")) };
                let sign = likeliest.speaks_for.first().map_or(String::new(), |sign| format!(" ({sign})"));
                format!("not established, {} is {}{sign}{open}", likeliest.cause, likeliest.confidence)
            }
            (None, None) => {
                let open = self.hypotheses.iter().filter(|one| one.confidence > Confidence::Excluded);
                let open: Vec<String> = open.map(|one| one.cause.to_string()).collect();
                match open.as_slice() {
                    [] => "not established".to_owned(),
                    open => format!("not established; it may have been {}", open.join(", ")),
                }
            }
        };
        format!("{} died {when}; cause: {why}", self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_as_far_as_it_is_known() {
        let hypothesis = |cause, confidence, sign: Option<&str>| Hypothesis {
            cause,
            confidence,
            speaks_for: sign.map(str::to_owned).into_iter().collect(),
            speaks_against: vec![],
            missing: vec![],
        };
        let at = |text: &str| Some(text.parse().unwrap());
        let mut death = Death {
            of: Died::Host,
            after: at("2026-03-01T02:05:23Z"),
            before: at("2026-03-01T02:08:00Z"),
            established: None,
            hypotheses: vec![
                hypothesis(DeathCause::KernelCrash, Confidence::Likely, Some("kernel: Oops")),
                hypothesis(DeathCause::PowerOrReset, Confidence::Possible, None),
                hypothesis(DeathCause::Stopped, Confidence::Excluded, None),
            ],
            notes: vec![],
        };
        let when = "the host died between 2026-03-01 02:05:23 UTC and 2026-03-01 02:08:00 UTC; cause: ";
        let likely = "not established, a crash of the kernel is likely (kernel: Oops); not excluded: loss of power, or a reset from outside";
        assert_eq!(death.in_words(), format!("{when}{likely}"));
        death.established = Some(DeathCause::KernelCrash);
        assert_eq!(death.in_words(), format!("{when}a crash of the kernel (kernel: Oops)"));
        death.established = None;
        death.hypotheses.remove(0);
        let open = "not established; it may have been loss of power, or a reset from outside";
        assert_eq!(death.in_words(), format!("{when}{open}"));
        let json = serde_json::to_value(&death).unwrap();
        assert_eq!(serde_json::from_value::<Death>(json).unwrap(), death);
    }
}
