//! Incidents and reports from constructed event sequences.

mod checks;
mod correlation;
mod diagnosis;
mod golden;
mod properties;
mod stories;
mod story;
