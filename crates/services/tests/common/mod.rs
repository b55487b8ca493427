//! What the tests of all drivers share.

pub mod recovery;
pub mod scenario;
pub mod service;
pub mod suite;
