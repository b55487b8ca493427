//! From journal events to incidents and their post-mortems.
//!
//! Invariant: everything here is a pure function of the events given: no I/O, no clock, no language model. The same events give
//! the same report, to the byte. A sentence that states a fact is a [`Fact`] and carries the events that it comes from; what the
//! events do not prove is said to be not established, with the evidence that is missing.
//!
//! ```text
//! events -> sequence (order, boots) -> correlate (which belong together) -> Incident
//! Incident -> diagnose (five whys) -> report (sections, lessons, cited events) -> Markdown, JSON
//! ```

mod correlate;
mod describe;
mod detection;
pub mod diagnose;
mod fact;
mod gaps;
mod impact;
mod lessons;
mod markdown;
pub mod report;
mod response;
mod sequence;
pub mod timeline;
mod title;
mod words;

pub use correlate::incidents;
pub use describe::describe;
pub use detection::{Detection, FirstAlert, FirstDelivery, Undelivered};
pub use diagnose::{Diagnosis, Link, Verdict, diagnose};
pub use fact::{Cites, Fact, Statement};
pub use gaps::{Gap, GapKind};
pub use impact::{Outage, ServerImpact, ServiceImpact, VacuumFacts};
pub use report::{Heading, Part, Report, Section, report};
pub use response::{Engagement, Verification};
pub use sequence::{Clock, Placed, Span, Stamp};
pub use timeline::{Condition, ConditionKind, Incident, IncidentId, IncidentList, IncidentRules};

/// The version of this crate's JSON: [`IncidentList`] and [`Report`]. Raised when a field is removed or changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;
