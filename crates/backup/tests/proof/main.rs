//! Proofs of backups of real servers: that what is sound is proven, that what is not is found, and that no scratch server reaches production.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "all of it is tests, also outside of functions marked so"
)]

#[macro_use]
mod source;

mod damage;
mod fence;
mod kill;
mod other_tools;
mod stored;
mod whole;
