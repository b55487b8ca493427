//! What is answered when a file can't be had. Pure.
//!
//! PostgreSQL (xlogarchive.c) takes an exit code of 1 to 125 as "there is no such file": without a standby's signal it then ends its recovery and
//! promotes itself. Above 125 it stops with an error, but 143 it takes for its own shutdown.

use std::time::Duration;

/// For how long an error that may pass is tried again, in a recovery.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The same on a standby that asks for WAL: it has other roads, and asks again every few seconds.
pub const PATIENCE_STANDBY: Duration = Duration::from_secs(5);
/// The same on a standby that asks for a history: without it a standby could choose a timeline that is taken, so it is not told that there is none;
/// but an error would end it.
pub const PATIENCE_STANDBY_HISTORY: Duration = Duration::from_secs(600);

/// Who recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// A server that ends its recovery, and promotes itself, when it is told that WAL is not there. Also a standby of which we were not told.
    Ends,
    /// A standby: it waits for more WAL, for ever, and an error would end it.
    Standby,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Wal,
    History,
}

/// What the repository has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(Vec<u8>),
    Absent,
}

/// What PostgreSQL is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The file is there.
    There,
    /// There is no such file: certain, or a standby is to look elsewhere.
    Absent,
}

/// What follows an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    Absent,
    Fail,
}

/// For how long an error that may pass is tried again.
pub(super) const fn patience(recovery: Recovery, asked: Asked) -> Duration {
    match (recovery, asked) {
        (Recovery::Ends, _) => PATIENCE,
        (Recovery::Standby, Asked::Wal) => PATIENCE_STANDBY,
        (Recovery::Standby, Asked::History) => PATIENCE_STANDBY_HISTORY,
    }
}

/// After an error, and whether patience is at its end.
pub(super) const fn after_error(recovery: Recovery, asked: Asked, may_pass: bool, at_end: bool) -> Next {
    match (recovery, asked) {
        // What is damaged or missing stays so: a standby must not pass over it silently either.
        _ if !may_pass => Next::Fail,
        _ if !at_end => Next::Again,
        (Recovery::Standby, Asked::Wal) => Next::Absent,
        _ => Next::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standby_is_ever_told_that_something_is_not_there_which_may_be() {
        use Asked::{History, Wal};
        use Recovery::{Ends, Standby};
        for (recovery, asked, may_pass, at_end, expected) in [
            (Ends, Wal, true, false, Next::Again),
            (Ends, Wal, true, true, Next::Fail),
            (Ends, Wal, false, false, Next::Fail),
            (Ends, History, true, true, Next::Fail),
            (Standby, Wal, true, false, Next::Again),
            (Standby, Wal, true, true, Next::Absent),
            (Standby, Wal, false, true, Next::Fail),
            (Standby, History, true, false, Next::Again),
            (Standby, History, true, true, Next::Fail),
            (Standby, History, false, true, Next::Fail),
        ] {
            assert_eq!(after_error(recovery, asked, may_pass, at_end), expected, "{recovery:?} {asked:?}");
        }
        assert!(patience(Standby, History) > patience(Ends, History));
    }
}
