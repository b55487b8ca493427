//! What can go wrong, with what to do about it.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Why a scratch cluster could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The wanted major version is not on this machine.
    #[error(
        "PostgreSQL {major} is not installed here (found: {found}); hint: `cargo xtask testbed --majors {major}` fetches it"
    )]
    NotInstalled {
        /// The wanted major version.
        major: u32,
        /// The versions that are there, for people.
        found: String,
    },
    /// No server at all.
    #[error(
        "no PostgreSQL server is installed here; hint: install the package `postgresql`, or run `cargo xtask testbed`"
    )]
    NoneInstalled,
    /// PostgreSQL refuses root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL does not run as root, and neither user `postgres` nor `nobody` exists; hint: create one, or run as an ordinary user"
    )]
    NoUser,
    /// `setpriv` is needed to leave root.
    #[error("`setpriv` is not on the PATH, so the server can't be run as another user; hint: install util-linux")]
    NoSetpriv,
    /// A node with a systemd of its own can't be had here.
    #[error("no scratch node can be had here: {what}; hint: {remedy}")]
    NoNode {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A container engine of one's own can't be had here.
    #[error("no scratch container engine can be had here: {what}; hint: {remedy}")]
    NoEngine {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The server's user can't get at a path.
    #[error("user {user} can't reach {path}; hint: {remedy}")]
    Unreachable {
        /// What it must reach.
        path: PathBuf,
        /// Who must reach it.
        user: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file or directory of the cluster could not be prepared.
    #[error("can't {what} {path}: {source}; hint: is there room, and may this user write there?")]
    Prepare {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("can't start {program}: {source}; hint: is it installed and executable?")]
    Spawn {
        /// Which.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A program that prepares the cluster failed.
    #[error("{program} failed ({status}): {output}; hint: its own message above says why")]
    Program {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// The server ended instead of becoming ready.
    #[error("the server ended before it was ready ({status}); hint: the end of its log says why:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server did not become ready in time.
    #[error("the server was not ready after {after:?}; hint: raise `start_within`, or see the end of its log:\n{log}")]
    NotReady {
        /// How long was waited.
        after: Duration,
        /// The end of its log.
        log: String,
    },
    /// No port could be found.
    #[error("no free loopback port after {tries} tries; hint: what listens on ports 20000 to 32767 here?")]
    NoFreePort {
        /// How many were tried.
        tries: u32,
    },
    /// A unix socket's path is limited to 107 bytes.
    #[error(
        "the socket path {path} is longer than the 107 bytes that a unix socket may have; hint: set TMPDIR to a shorter path"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The template can't be copied safely.
    #[error("{path} can't serve as a template: {why}; hint: {remedy}")]
    Template {
        /// The data directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The server can't be signalled or did not stop.
    #[error("can't stop the server: {why}; hint: see its log in {log}")]
    Stop {
        /// What happened.
        why: String,
        /// Where its log is.
        log: PathBuf,
    },
    /// An act that needs a stopped server met a running one, or the other way round.
    #[error("the scratch server {state}; hint: {remedy}")]
    State {
        /// What it does.
        state: &'static str,
        /// What to do.
        remedy: &'static str,
    },
}

/// Shortens `map_err` for file work.
pub(crate) fn prepare(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.into();
    move |source| ScratchError::Prepare { what, path, source }
}
