//! What the tests of all drivers share.

pub mod scenario;
pub mod service;
