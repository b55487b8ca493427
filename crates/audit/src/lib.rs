//! Would this outage happen to you?
//!
//! What a team has written down (manifests, compose files, units, rules, READMEs), and on demand what a running PostgreSQL, its machine and the network
//! say, against what went wrong in a real outage. Nothing is changed, and nothing is contacted that was not asked for.
//!
//! ```text
//! source (I/O) -> files as text -> facts (pure) -> checks (pure functions of the facts) -> report (sorted, filtered) -> render
//! ```
//!
//! Invariants: only `source` does I/O, and nobody reads a clock: today's date is an argument. A check without what it needs says *not assessed*,
//! never *passed*. What files say is data: it is shown, never run, and values that look like secrets are not shown.

mod certificate;
mod checks;
pub mod facts;
mod finding;
mod quantity;
mod reference;
pub mod render;
mod report;
mod select;
pub mod source;
mod words;
pub mod yaml;

pub use self::{
    checks::{Check, Family, check, checks},
    finding::{Certainty, Evidence, Finding, Place, Remedy, Severity},
    reference::reference,
    report::{NotAssessed, Options, Report, Tally, audit},
    select::{Baseline, BaselineError},
};

/// The version of this crate's JSON. Raised when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;
