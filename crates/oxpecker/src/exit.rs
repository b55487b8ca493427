//! How the program ends: one meaning per exit code, the same for every command.

use std::process::ExitCode;

/// Everything was fine.
pub const FINE: u8 = 0;
/// The command did its work and found something, or something is unhealthy.
pub const FINDING: u8 = 1;
/// Wrong usage or configuration.
pub const USAGE: u8 = 2;
/// Refused, because going on would not be safe.
pub const REFUSED: u8 = 3;
/// Failed while acting.
pub const FAILED: u8 = 4;

/// `wal get` only: it is certain that there is no such file. PostgreSQL takes 1 to 125 for that, and a recovery then ends in a promotion.
pub const WAL_ABSENT: u8 = 1;
/// `wal get` only: everything else that is not the file. PostgreSQL stops at codes above 125, but for 143, which it takes for its shutdown.
pub const WAL_UNKNOWN: u8 = 126;

/// An error of a command with the exit code that it means.
#[derive(Debug)]
pub struct Failure {
    /// One of the codes of this module.
    pub code: u8,
    /// What happened, in a chain from the outside to the cause.
    pub error: anyhow::Error,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// Wrong usage or configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: USAGE, error: error.into(), hint: None }
    }

    /// Refused for safety.
    pub fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self { code: REFUSED, error: error.into(), hint: None }
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: FAILED, error: error.into(), hint: None }
    }
}

/// What a command returns: its exit code.
pub type Outcome = Result<u8, Failure>;

/// Ends the program: prints the error, if there is one, and gives its code.
pub fn report(outcome: Outcome) -> ExitCode {
    let failure = match outcome {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure,
    };
    crate::output::error(&failure.error, failure.hint.as_deref());
    ExitCode::from(failure.code)
}
