//! Rule `postgres-down`.
//!
//! *Why*: everything that depends on the database fails with it. A server in recovery is another matter: it makes progress, and
//! restarting it would start the recovery again, so the words and the severity differ.
//! *Source*: the observer's kept connection and its attempts to connect again. A restart of a second pages nobody: the server
//! must be gone for the grace; being back for less than `clear_s` does not begin a new count, so a crash loop is told.
//! *First things to do*: see whether its process lives; read the end of its log; do not restart what is recovering.

use std::time::Duration;

use model::{EventKind, Moment, Observation, Severity, event::DownReason};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::fit,
};
use crate::settings::{self, duration};

/// How much of the server's own words an alert carries, in characters.
const DETAIL_CHARS: usize = 300;

enum Server {
    Unknown,
    Up,
    Down { reason: DownReason, detail: String },
}

/// The rule's state.
pub(super) struct PostgresDown {
    gate: Gate,
    server: Server,
}

impl PostgresDown {
    pub(super) fn new(settings: settings::PostgresDown) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: duration(settings.grace_s),
            clear: duration(settings.clear_s),
            forget: duration(settings.clear_s),
            // Between two changes the server is as it was, however few observations there are.
            max_gap: Duration::MAX,
        });
        Self { gate, server: Server::Unknown }
    }
}

fn severity(reason: DownReason) -> Severity {
    match reason {
        // These say that the guard is blind or must wait, not that the users are hurt.
        DownReason::Recovering | DownReason::Refused | DownReason::UnsupportedVersion => Severity::Warning,
        DownReason::NotListening
        | DownReason::ShuttingDown
        | DownReason::OutOfConnections
        | DownReason::NoAnswer
        | DownReason::ConnectionLost => Severity::Critical,
    }
}

fn words(reason: DownReason) -> (&'static str, &'static str) {
    match reason {
        DownReason::NotListening => ("is down: nobody listens at its address", "not-listening"),
        DownReason::Recovering => {
            ("is recovering and takes no connections yet: progress, do not restart it", "recovering")
        }
        DownReason::ShuttingDown => ("is shutting down and takes no connections", "shutting-down"),
        DownReason::OutOfConnections => ("has no connection left, not even for its guard", "out-of-connections"),
        DownReason::Refused => ("refuses its guard: nothing is watched inside it", "refused"),
        DownReason::NoAnswer => ("does not answer: it takes connections or queries and stays silent", "no-answer"),
        DownReason::ConnectionLost => ("is down: the connection broke and a new one fails", "connection-lost"),
        DownReason::UnsupportedVersion => ("is too old to be watched: only the host is", "unsupported-version"),
    }
}

fn first_steps(reason: DownReason) -> Vec<String> {
    steps(match reason {
        DownReason::Recovering => &[
            "wait: a restart would begin the recovery again",
            "watch its log for `redo` and `consistent recovery state reached`; `ps` shows the WAL segment that is replayed",
            "make sure that nothing restarts it on a time-out: a supervisor, a liveness probe, pg_ctl -t",
        ],
        DownReason::OutOfConnections => &[
            "stop or scale down the service with the most connections",
            "if no superuser gets in either: end idle backends on the host by SIGTERM to their pids, never SIGKILL",
            "put a pooler or a smaller pool before it; raising max_connections needs a restart and memory",
        ],
        DownReason::Refused | DownReason::UnsupportedVersion => &[
            "read its message in the details",
            "check the role, the password and pg_hba.conf: `oxpecker config check` tries them",
            "the users may be served all the same: check the site",
        ],
        DownReason::NoAnswer => &[
            "see what starves it: `oxpecker status`, then `top` and free disk space on the host",
            "on the host, `ps` shows what its backends do; a full disk or a dead storage makes them hang in state D",
            "do not kill its processes by SIGKILL: that makes it a crash recovery",
        ],
        DownReason::NotListening | DownReason::ShuttingDown | DownReason::ConnectionLost => &[
            "see whether it runs: `systemctl status postgresql`, or `ps` for the postmaster",
            "read the end of its log: why it stopped",
            "check free space on the disks of data and WAL before starting it again",
        ],
    })
}

impl Rule for PostgresDown {
    fn id(&self) -> &'static str {
        model::alert::rule::POSTGRES_DOWN
    }

    fn title(&self, subject: &Subject) -> String {
        format!("PostgreSQL {} not serving", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let at: Moment = match observation {
            Observation::Event(at, EventKind::ServerDown { reason, detail }) => {
                self.server = Server::Down { reason: *reason, detail: detail.clone() };
                *at
            }
            Observation::Event(at, EventKind::ServerUp { .. }) => {
                self.server = Server::Up;
                *at
            }
            Observation::Event(at, _) => *at,
            // Any reading moves the time on, so that the grace ends without a second failure.
            Observation::Reading(reading) => reading.at(),
        };
        let verdict = match &self.server {
            Server::Unknown => return None,
            Server::Up => Verdict::Good,
            Server::Down { reason, .. } => Verdict::Bad(severity(*reason)),
        };
        Some(Judgement::instant(at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Server::Down { reason, detail } = &self.server else { return Facts::default() };
        let (what, label) = words(*reason);
        Facts {
            summary: format!("PostgreSQL {} {what}", subject.cluster),
            details: vec![format!("it said: {}", fit(detail, DETAIL_CHARS))],
            labels: [("reason".to_owned(), label.to_owned())].into(),
            next_steps: first_steps(*reason),
        }
    }

    fn present(&self) -> Vec<String> {
        match &self.server {
            Server::Up => vec!["it takes connections and answers".to_owned()],
            Server::Down { reason, .. } => vec![format!("it {}", words(*reason).0)],
            Server::Unknown => Vec::new(),
        }
    }
}
