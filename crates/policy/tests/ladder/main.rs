//! The ladder on simulated hosts: what it does when, and what it never does.

// The helpers of an integration test are not inside a test function, where clippy allows these.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod properties;
mod tables;
mod world;
