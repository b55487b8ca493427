//! Why a proof could not even begin, and why one was broken off.

use std::{io, path::PathBuf};

use super::receipt::Verdict;

/// Why there is no receipt. What goes wrong later is in the receipt.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Something about a file or directory of the proof itself.
    #[error("can't {what} {path}: {source}; hint: is there room, and may this user write there?")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// PostgreSQL refuses root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL does not run as root, and neither user `postgres` nor `nobody` exists; hint: create one, or prove as an ordinary user"
    )]
    NoUser,
    /// A program of util-linux is needed to leave root.
    #[error("`setpriv` is not on the PATH, so that the server can't be run as another user; hint: install util-linux")]
    NoSetpriv,
    /// A unix socket's path is limited to 107 bytes.
    #[error("the scratch directory {path} is too long for a unix socket in it; hint: choose one with a shorter path")]
    PathTooLong {
        /// The scratch directory.
        path: PathBuf,
    },
    /// The command can't be run.
    #[error(
        "the restore command {why}; hint: for example --with 'pgbackrest --stanza=main restore --pg1-path={{pgdata}}'"
    )]
    Command {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The repository could not be read.
    #[error(transparent)]
    Repository(#[from] repository::RepositoryError),
    /// What the backup says of itself can't be used.
    #[error(transparent)]
    Info(#[from] crate::info::InfoError),
    /// The proof was made, and its receipt is not in the repository.
    #[error(
        "the proof ended ({:?}), but its receipt could not be recorded: {source}; hint: once the repository can be written to, prove again",
        receipt.verdict
    )]
    Unrecorded {
        /// What was found out.
        receipt: Box<super::Receipt>,
        /// Why it is not recorded.
        source: repository::RepositoryError,
    },
    /// The runtime for the SQL connections did not start.
    #[error(
        "can't start the runtime for SQL connections: {source}; hint: is the host out of file descriptors or memory?"
    )]
    Runtime {
        /// Why not.
        source: io::Error,
    },
}

/// Shortens `map_err` for file work.
pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ProveError {
    let path = path.into();
    move |source| ProveError::File { what, path, source }
}

/// The proof can't go on. It still ends with a receipt, whose verdict this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Halt {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
}

impl Halt {
    /// The backup is at fault.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, reason: reason.into() }
    }

    /// The place or the means of the proof are at fault; nothing is known about the backup.
    pub(crate) fn not_proven(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotProven, reason: reason.into() }
    }

    /// For the files of the proof's own scratch directory.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::not_proven(ProveError::File { what, path, source }.to_string())
    }
}

impl From<ProveError> for Halt {
    fn from(error: ProveError) -> Self {
        Self::not_proven(error.to_string())
    }
}
