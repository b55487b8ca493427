//! What observers hand to deciders.

use crate::{EventKind, Moment, Reading};

/// A reading, or a change that an observer saw by itself (the server went down, a vacuum appeared, the clock was stepped).
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// A reading.
    Reading(Reading),
    /// A change, and when it happened.
    Event(Moment, EventKind),
}
