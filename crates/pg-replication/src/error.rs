//! What can go wrong with a replication connection.

use std::{fmt, io};

use model::Lsn;

use crate::Refusal;

/// What the server said in an error message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// "ERROR", "FATAL" or "PANIC".
    pub severity: String,
    /// SQLSTATE, five characters.
    pub code: String,
    /// The message.
    pub message: String,
    /// More about it, where the server said more.
    pub detail: Option<String>,
    /// The server's own hint.
    pub hint: Option<String>,
    /// The function of the server's source that said so: unlike the message it is in no language. Empty where it was not told.
    pub routine: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; the server's hint: {hint}")?;
        }
        Ok(())
    }
}

impl ServerError {
    /// What a person can do about it.
    fn hint(&self, doing: &str) -> &'static str {
        if let Some(refusal) = Refusal::of(doing, self) {
            return refusal.hint();
        }
        match self.code.as_str() {
            "28P01" => "the password is wrong, or the role has none: see the password file and ALTER ROLE ... PASSWORD",
            "28000" if self.message.contains("pg_hba.conf") => {
                "pg_hba.conf needs a line for database `replication`, this role and this address (with hostssl for TLS), then a reload"
            }
            "28000" => "see that the role exists and has LOGIN and REPLICATION",
            "53300" => "max_connections is used up: end another session or raise it",
            "57P01" | "57P02" | "57P03" => "the server is starting or stopping: try again when it is up",
            "XX001" => {
                "pages of the source are corrupt: see the server's log, and backup with checksums not verified if it must be"
            }
            _ => "see the server's log",
        }
    }
}

/// Why a replication connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No host could be reached.
    #[error(
        "can't connect to {host}: {source}; hint: see that the server runs, listens there (listen_addresses) and no firewall is between"
    )]
    Connect {
        /// Where.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke, or the server was silent for too long.
    #[error(
        "the connection to {host} broke while {doing}: {source}; hint: see the server's log; the network may have cut an idle connection"
    )]
    Io {
        /// Where.
        host: String,
        /// What was going on.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// TLS did not come about.
    #[error("no TLS with {host}: {why}; hint: {hint}")]
    Tls {
        /// Where.
        host: String,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// The server wants a password or a method that we do not have.
    #[error("can't log in to {host} as {user}: {why}; hint: {hint}")]
    Authentication {
        /// Where.
        host: String,
        /// As whom.
        user: String,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file of ours can't be used: a certificate, a key, a password file.
    #[error(transparent)]
    File(#[from] pg_connect::FileError),
    /// The server refused.
    #[error("{host} refuses {doing}: {error}; hint: {}", .error.hint(.doing))]
    Server {
        /// Where.
        host: String,
        /// What was wanted.
        doing: &'static str,
        /// What it said.
        error: Box<ServerError>,
    },
    /// A server of another version.
    #[error("{host} is PostgreSQL {version}; hint: replication is supported with 13 to 18")]
    Version {
        /// Where.
        host: String,
        /// As the server says.
        version: String,
    },
    /// A server of a version that lacks the command.
    #[error("{host} is PostgreSQL {major}, which has no {doing}; hint: {hint}")]
    TooOld {
        /// Where.
        host: String,
        /// What was wanted.
        doing: &'static str,
        /// Its major version.
        major: u32,
        /// What to do instead.
        hint: &'static str,
    },
    /// An acknowledgement of WAL that never came. Nothing of it reached the server.
    #[error(
        "WAL up to {reported} was to be acknowledged to {host}, which sent it up to {received}; hint: this is a bug of oxpecker"
    )]
    NotReceived {
        /// Where.
        host: String,
        /// How far was to be acknowledged.
        reported: Lsn,
        /// How far was received.
        received: Lsn,
    },
    /// What came is not the protocol.
    #[error(
        "{host} broke the protocol while {doing}: {why}; hint: is that really a PostgreSQL server, and no pooler in between?"
    )]
    Protocol {
        /// Where.
        host: String,
        /// What was going on.
        doing: &'static str,
        /// What came.
        why: String,
    },
}

impl Error {
    /// Whether trying again later may help: the server or the network was not there, which passes.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Io { .. } => true,
            Self::Server { error, .. } => {
                // 55006: the server did not notice yet that our last connection is gone.
                matches!(error.code.as_str(), "53300" | "55006" | "57P01" | "57P02" | "57P03")
                    || error.code.starts_with("08")
            }
            _ => false,
        }
    }

    /// What the server's refusal means to a receiver of WAL, if it means something special.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Server { doing, error, .. } => Refusal::of(doing, error),
            _ => None,
        }
    }
}
