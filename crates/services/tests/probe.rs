//! Probes against real servers, and against such as nobody would want.

#[path = "probe/local.rs"]
mod local;
#[path = "probe/postgres.rs"]
mod postgres;
#[path = "probe/redis.rs"]
mod redis;
