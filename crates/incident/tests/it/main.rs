//! Incidents and reports from constructed event sequences.

#![allow(clippy::unwrap_used, reason = "clippy knows #[test] functions as tests, not their helpers")]

mod backups;
mod checks;
mod correlation;
mod diagnosis;
mod golden;
mod properties;
mod stories;
mod story;
