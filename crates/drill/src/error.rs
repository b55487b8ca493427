//! What can keep a drill from giving a result. A result that is bad news is not an error: see [`crate::Verdict`].

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a drill gave no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DrillError {
    /// An option contradicts itself or the host.
    #[error("{what}\n  hint: {hint}")]
    Options {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The scratch cluster could not be had.
    #[error("the scratch PostgreSQL ({doing}): {source}")]
    Cluster {
        /// What was being done.
        doing: &'static str,
        /// Why not, with a hint.
        source: scratch::ScratchError,
    },
    /// A statement on the scratch cluster failed.
    #[error(
        "the scratch PostgreSQL refused a statement ({doing}): {}\n  hint: run with --keep and look at its log",
        words(.source)
    )]
    Sql {
        /// What was being done.
        doing: String,
        /// The server's words.
        source: tokio_postgres::Error,
    },
    /// One of the drill's own processes did not start or died.
    #[error("the drill's process {name} {what}{}\n  hint: {hint}", tail(.log))]
    Child {
        /// Which.
        name: String,
        /// What it did.
        what: String,
        /// The end of what it wrote to standard error.
        log: String,
        /// What to do.
        hint: String,
    },
    /// A file or directory of the drill.
    #[error("{doing} {}: {source}\n  hint: the drill needs room and rights there; TMPDIR chooses another place", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading the host's counters failed.
    #[error("reading {what}: {why}\n  hint: the drill measures through /proc; is it mounted?")]
    Host {
        /// Which counter.
        what: String,
        /// Why not.
        why: String,
    },
    /// A helper process was called in a way that only a mistake of ours explains.
    #[error(
        "drill-service {kind}: {why}\n  hint: this command is the drill's own and is not meant to be called by people"
    )]
    Helper {
        /// Which helper.
        kind: String,
        /// What is wrong.
        why: String,
    },
    /// The cold restart of act 3 could not be played.
    #[error("act 3 ({doing}): {why}\n  hint: end what else keeps this host busy, and run the drill again")]
    ColdStart {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        why: String,
    },
    /// A replay could not be played.
    #[error("the replay ({doing}): {why}\n  hint: end what else keeps this host busy, and run the drill again")]
    Replay {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        why: String,
    },
    /// Somebody asked the drill to stop; everything that it had started is gone.
    #[error("stopped on request; the scratch cluster, its services and its files are gone")]
    Cancelled,
}

impl DrillError {
    /// For `map_err` on file work.
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// For `map_err` on statements.
    pub(crate) fn sql(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Sql { doing, source }
    }

    /// For `map_err` on the scratch cluster.
    pub(crate) fn cluster(doing: &'static str) -> impl FnOnce(scratch::ScratchError) -> Self {
        move |source| Self::Cluster { doing, source }
    }

    pub(crate) fn cold(doing: &'static str, why: impl Into<String>) -> Self {
        Self::ColdStart { doing, why: why.into() }
    }

    pub(crate) fn replay(doing: &'static str, why: impl Into<String>) -> Self {
        Self::Replay { doing, why: why.into() }
    }

    pub(crate) fn helper(kind: &str, why: impl Into<String>) -> Self {
        Self::Helper { kind: kind.to_owned(), why: why.into() }
    }
}

/// tokio-postgres says only "db error"; the server's own words are one level down.
fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

fn tail(log: &str) -> String {
    if log.trim().is_empty() {
        String::new()
    } else {
        format!("; its last words:\n    {}", log.trim().replace('\n', "\n    "))
    }
}
