//! Asking a service whether it does its work.
//!
//! A probe has one of four outcomes. It is *healthy*; it is *starting* (or, a database, *recovering*) and says so itself; it is *unhealthy*: it refused, answered
//! wrongly or not in time; or the probe itself failed, which says nothing of the service and is *unknown*: no such command, no permission, no route, a name that
//! nobody resolves.
//!
//! Every probe is bounded in time by who asks and in bytes by constants here, opens a connection of its own, and leaves nothing behind when it is given up. What
//! a service answers is a stranger's word: shortened, and without control characters.

mod command;
mod dns;
mod http;
mod net;
mod postgres;
pub(crate) mod recovery;

pub use recovery::serves_at as serves;
mod redis;
mod tcp;

use std::time::Duration;

use futures_util::future::join_all;

pub(crate) use self::command::progress;
pub use self::{command::Command, dns::Dns, http::Http, postgres::Postgres, redis::Redis, tcp::Tcp};
use crate::health::{Answer, Progress};

/// How much of an answer is shown, in characters.
const SHOWN_MAX: usize = 200;

/// One way to ask.
#[derive(Clone, Debug)]
pub enum Probe {
    /// A request over HTTP: its status, and what its body holds.
    Http(Http),
    /// Whether something listens.
    Tcp(Tcp),
    /// Whether PostgreSQL accepts connections, recovers, or rejects them.
    Postgres(Box<Postgres>),
    /// Redis's PING.
    Redis(Redis),
    /// A command's exit code.
    Command(Command),
    /// Whether a name resolves.
    Dns(Dns),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The answer.
    pub answer: Answer,
    /// How far a start has come, where it can be told.
    pub progress: Option<Progress>,
    /// What tells this run of the service from the one before, where the probe can tell: another run answers just as well, and is none that was stable.
    pub run: Option<u64>,
}

/// A probe that can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no health probe can be made of {what}: {why}; hint: {hint}")]
pub struct ProbeError {
    what: String,
    why: String,
    hint: &'static str,
}

impl ProbeError {
    fn new(what: &str, why: impl Into<String>, hint: &'static str) -> Self {
        Self { what: format!("'{}'", plain(what)), why: why.into(), hint }
    }
}

impl Said {
    fn of(answer: Answer) -> Self {
        Self { answer, progress: None, run: None }
    }

    /// Several probes of one service as one: the gravest answer, and the first progress and run that there are.
    pub fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        let (mut progress, mut run) = (None, None);
        let answers = all.into_iter().map(|said| {
            if progress.is_none() {
                progress = said.progress;
            }
            run = run.or(said.run);
            said.answer
        });
        let answer = Answer::of_all(answers);
        Self { answer, progress, run }
    }
}

impl Probe {
    /// Asks once and answers within that time. No answer in time is an unhealthy one.
    pub async fn ask(&self, within: Duration) -> Said {
        let asked = async {
            match self {
                Self::Http(probe) => probe.ask(within).await.into(),
                Self::Tcp(probe) => probe.ask(within).await.into(),
                Self::Postgres(probe) => probe.ask().await,
                Self::Redis(probe) => probe.ask(within).await,
                Self::Command(probe) => probe.ask().await,
                Self::Dns(probe) => probe.ask(within).await.into(),
            }
        };
        match tokio::time::timeout(within, asked).await {
            Ok(said) => said,
            Err(_) => {
                if let Self::Postgres(probe) = self
                    && let Some(said) = probe.silent()
                {
                    return said;
                }
                let why = format!("no answer within {} s", (within.as_secs_f64() * 1000.0).round() / 1000.0);
                Said::of(Answer::Unhealthy { why })
            }
        }
    }

    /// Asks all at once.
    pub async fn ask_all(probes: &[Self], within: Duration) -> Said {
        Said::of_all(join_all(probes.iter().map(|probe| probe.ask(within))).await)
    }
}

/// Why a probe has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// The service doesn't do its work.
    Service(String),
    /// The probe could not be made.
    Probe(String),
}

type Outcome = Result<(), Trouble>;

impl From<Outcome> for Said {
    fn from(outcome: Outcome) -> Self {
        Self::of(match outcome {
            Ok(()) => Answer::Healthy,
            Err(Trouble::Service(why)) => Answer::Unhealthy { why },
            Err(Trouble::Probe(why)) => Answer::Unknown { why },
        })
    }
}

/// A stranger's words.
fn plain(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = spaced.trim();
    let more = if words.chars().nth(SHOWN_MAX).is_some() { "..." } else { "" };
    words.chars().take(SHOWN_MAX).chain(more.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_strangers_are_short_and_plain() {
        assert_eq!(plain(" \u{1b}[31mred\u{7}\n"), "[31mred");
        assert_eq!(plain(&"x".repeat(1000)).len(), SHOWN_MAX + 3);
    }

    #[test]
    fn several_are_as_grave_as_the_gravest() {
        let progress = Progress { phase: "replaying WAL".into(), done: 3 };
        let recovering = Said { answer: Answer::Recovering, progress: Some(progress.clone()), run: Some(7) };
        let sick = Said::of(Answer::Unhealthy { why: "503".into() });
        let all = Said::of_all([Said::of(Answer::Healthy), recovering, sick]);
        assert_eq!((all.answer, all.progress, all.run), (Answer::Recovering, Some(progress), Some(7)));
        assert!(matches!(Said::of_all([]).answer, Answer::Unknown { .. }));
    }
}
