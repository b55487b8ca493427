//! Readings of the host, of PostgreSQL and of declared services, as [`model::Observation`]s.
//!
//! Invariant: this crate looks and never decides. It changes nothing on the host but the priority of its own sampling thread, and
//! nothing in PostgreSQL but its own session's settings; it takes no lock on a user's table and never stores a query's text. It
//! goes on working while the host is starved: the host is sampled by a thread of its own, every wait ends, and what could not be
//! read is `None`.

pub mod clock;
pub mod host;
pub mod postgres;
pub mod services;
