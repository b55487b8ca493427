//! Why PostgreSQL does not serve us: what an error means.

use std::{error::Error as _, io, time::Duration};

use model::event::DownReason;
use tokio_postgres::error::SqlState;

/// A reason with the server's or the system's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: DownReason,
    pub detail: String,
}

impl Failure {
    pub fn new(reason: DownReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Nothing came within `patience`.
    pub fn no_answer(what: &str, patience: Duration) -> Self {
        Self::new(DownReason::NoAnswer, format!("no answer to {what} within {:.1} s", patience.as_secs_f64()))
    }

    /// From an error of a connection attempt or of a session.
    pub fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(error) = error.as_db_error() {
            let mut detail = error.message().to_owned();
            if let Some(more) = error.detail() {
                detail = format!("{detail} ({more})");
            }
            return Self::new(reason_of_state(error.code(), error.message()), detail);
        }
        let detail = chain(error);
        if let Some(error) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            return Self::new(reason_of_io(error.kind()), detail);
        }
        // A closed connection is the ordinary case; what is left are protocol, authentication and TLS errors.
        let reason = if error.is_closed() { DownReason::ConnectionLost } else { DownReason::Refused };
        Self::new(reason, detail)
    }
}

/// Codes: the manual's appendix "PostgreSQL Error Codes".
fn reason_of_state(state: &SqlState, message: &str) -> DownReason {
    match state.code() {
        // The message is in the server's language, so only one of the two can be recognised. Recovery is the safe reading: it
        // asks people to wait.
        "57P03" if message.contains("shutting down") => DownReason::ShuttingDown,
        "57P03" => DownReason::Recovering,
        "53300" => DownReason::OutOfConnections,
        "57014" | "55P03" => DownReason::NoAnswer,
        // A limit on the role's or the database's connections also comes as 53300; what follows is about us.
        code if code.starts_with("28") || code.starts_with("3D") || code == "42501" => DownReason::Refused,
        // 57P01 administrator, 57P02 crash of another process, 57P05 idle, 08xxx: the next attempt will tell more.
        _ => DownReason::ConnectionLost,
    }
}

fn reason_of_io(kind: io::ErrorKind) -> DownReason {
    match kind {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::NotFound
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => DownReason::NotListening,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => DownReason::NoAnswer,
        io::ErrorKind::PermissionDenied => DownReason::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => DownReason::ConnectionLost,
        // Mostly a name that does not resolve.
        _ => DownReason::NotListening,
    }
}

/// The error with its causes, which tokio-postgres leaves out of its own text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_reasons() {
        use DownReason::{ConnectionLost, NoAnswer, OutOfConnections, Recovering, Refused, ShuttingDown};
        for (code, message, reason) in [
            ("57P03", "the database system is starting up", Recovering),
            ("57P03", "the database system is in recovery mode", Recovering),
            ("57P03", "the database system is not yet accepting connections", Recovering),
            ("57P03", "the database system is shutting down", ShuttingDown),
            ("57P03", "das Datenbanksystem startet", Recovering),
            ("53300", "sorry, too many clients already", OutOfConnections),
            ("28P01", "password authentication failed for user \"x\"", Refused),
            ("28000", "no pg_hba.conf entry", Refused),
            ("3D000", "database \"x\" does not exist", Refused),
            ("57014", "canceling statement due to statement timeout", NoAnswer),
            ("57P01", "terminating connection due to administrator command", ConnectionLost),
            ("57P02", "terminating connection because of crash of another server process", ConnectionLost),
        ] {
            assert_eq!(reason_of_state(&SqlState::from_code(code), message), reason, "{code} {message}");
        }
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert_eq!(chain(&Outer(io::Error::other("inner"))), "outer: inner");
    }
}
