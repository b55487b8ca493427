//! How PostgreSQL is reached: connection strings, password files and TLS, as libpq has them, for sessions of SQL and of replication alike.
//!
//! ```text
//! target     connection strings                       (no I/O)
//! passfile   password files
//! tls        what of a certificate each `sslmode` checks; channel binding
//! sql        sessions of SQL: tokio-postgres, with TLS where the target wants it
//! ```
//!
//! ```no_run
//! # async fn session() -> Result<(), Box<dyn std::error::Error>> {
//! let sql = pg_connect::Sql::parse("postgresql://oxpecker@db.example/app?sslmode=verify-full")?;
//! let (client, connection) = sql.connect().await?;
//! tokio::spawn(connection);
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: no error shows a password; with `sslmode=verify-full` nothing but the server that the certificate names gets one; a unix
//! socket never has TLS, and never fails for want of it.

#![forbid(unsafe_code)]

mod passfile;
mod sql;
mod target;
mod tls;

use std::path::{Path, PathBuf};

pub use passfile::password;
pub use sql::{Connection, Sql, SqlTargetError, TlsStream, explained};
pub use target::{ChannelBinding, Host, ParseTargetError, SslMode, Target};
pub use tls::{client_config, end_point_hash, hint_for};

/// A file of ours that can't be used: a certificate, a key, a password file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("can't use {}: {why}; hint: {hint}", .path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub hint: &'static str,
}

impl FileError {
    pub(crate) fn new(path: &Path, why: impl std::fmt::Display, hint: &'static str) -> Self {
        Self { path: path.to_owned(), why: why.to_string(), hint }
    }
}
