//! Probes against real servers, and against such as nobody would want.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that can't go on fails, and one that is skipped says so"
)]

#[path = "probe/local.rs"]
mod local;
#[path = "probe/postgres.rs"]
mod postgres;
#[path = "probe/redis.rs"]
mod redis;
