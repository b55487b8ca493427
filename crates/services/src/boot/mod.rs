//! When and why a host or a server died: from what is left of it to causes with what speaks for each, against it, and what could not be read.
//!
//! Pure: [`crate::evidence`] reads. A cause is *established* only where it is written down and nothing else is left open. That the power went is never written
//! down by the host that lost it: it can at most be what remains.
//!
//! ```text
//! kernel   lines of the system's log, as signs
//! logins   records of boots, shutdowns and sessions (wtmp)
//! server   lines of PostgreSQL's log, as signs
//! host     why a host died
//! run      why a server died whose host ran on
//! ```

mod host;
pub mod kernel;
pub mod logins;
mod run;
pub mod server;

use jiff::Timestamp;
use model::event::{Confidence, Death, DeathCause, Died, Hypothesis};

pub use self::{
    host::{HostFacts, LogTail, WatchdogSays, host},
    run::{ServerFacts, server as server_death},
};
use crate::state::shown;

/// What was read from one place, or why it could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<T> {
    /// It was there.
    Read(T),
    /// Why not, in words.
    Missing(String),
}

impl<T> Source<T> {
    /// What was read.
    pub fn read(&self) -> Option<&T> {
        match self {
            Self::Read(read) => Some(read),
            Self::Missing(_) => None,
        }
    }

    fn missing(&self) -> Option<String> {
        match self {
            Self::Read(_) => None,
            Self::Missing(why) => Some(shown(why)),
        }
    }
}

/// A line that says something of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark<S> {
    /// When it was written, where that is known.
    pub at: Option<Timestamp>,
    /// What it says.
    pub sign: S,
    /// Where it was read and what it says, for people.
    pub line: String,
}

impl<S> Mark<S> {
    fn told(&self) -> String {
        shown(&self.line)
    }
}

/// Pieces of evidence that are told of one cause, each way; more of the same proves no more.
const TOLD_MAX: usize = 4;

/// A cause while it is weighed.
struct Weigh {
    cause: DeathCause,
    confidence: Confidence,
    speaks_for: Vec<String>,
    speaks_against: Vec<String>,
    missing: Vec<String>,
}

impl Weigh {
    fn new(cause: DeathCause) -> Self {
        Self {
            cause,
            confidence: Confidence::Possible,
            speaks_for: Vec::new(),
            speaks_against: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn supported(&mut self, how: Confidence, by: impl IntoIterator<Item = String>) {
        let before = self.speaks_for.len();
        self.speaks_for.extend(by);
        if self.speaks_for.len() > before {
            self.confidence = self.confidence.max(how);
        }
    }

    fn excluded(&mut self, by: impl Into<String>) {
        self.speaks_against.push(by.into());
        self.confidence = Confidence::Excluded;
    }

    fn against(&mut self, by: impl Into<String>) {
        self.speaks_against.push(by.into());
    }

    fn lacks<T>(&mut self, source: &Source<T>) {
        self.missing.extend(source.missing());
    }
}

/// Puts the causes in order. What is proven leaves no room for what nothing speaks for.
fn verdict(
    of: Died,
    (after, before): (Option<Timestamp>, Option<Timestamp>),
    mut all: Vec<Weigh>,
    mut notes: Vec<String>,
) -> Death {
    let proven: Vec<DeathCause> =
        all.iter().filter(|one| one.confidence == Confidence::Proven).map(|one| one.cause).collect();
    if let [cause] = proven[..] {
        for one in all.iter_mut().filter(|one| one.cause != cause && one.speaks_for.is_empty()) {
            if one.confidence != Confidence::Excluded {
                one.excluded(format!("it is written down that it was another: {cause}"));
            }
        }
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.confidence));
    let next = all.get(1).map_or(Confidence::Excluded, |one| one.confidence);
    let established = match proven[..] {
        [cause] if next < Confidence::Likely => Some(cause),
        _ => None,
    };
    let (after, before) = match (after, before) {
        // A second of both clocks' rounding is no contradiction.
        (Some(after), Some(before)) if after.as_second() > before.as_second() + 1 => {
            notes.push(format!(
                "the clocks contradict each other: the newest record is of {after}, the next start of {before}; the wall clock was set, or the machine's own clock is wrong"
            ));
            (Some(after), None)
        }
        (Some(after), Some(before)) => (Some(after.min(before)), Some(before)),
        other => other,
    };
    let told = |mut all: Vec<String>| {
        all.truncate(TOLD_MAX);
        all
    };
    let hypotheses = all.into_iter().map(|one| Hypothesis {
        cause: one.cause,
        confidence: one.confidence,
        speaks_for: told(one.speaks_for),
        speaks_against: told(one.speaks_against),
        missing: if one.confidence == Confidence::Possible || one.confidence == Confidence::Likely {
            told(one.missing)
        } else {
            Vec::new()
        },
    });
    Death { of, after, before, established, hypotheses: hypotheses.collect(), notes }
}
