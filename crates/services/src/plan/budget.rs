//! How much may be done.

use std::{fmt, time::Duration};

/// So many within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub count: usize,
    /// Within which time.
    pub within: Duration,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times within {} s", self.count, self.within.as_secs())
    }
}

/// The bounds of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Services that may start at the same time; at least one.
    pub at_once: usize,
    /// Failed attempts after which a service is given up.
    pub attempts: u32,
    /// Acts on one service.
    pub per_service: Limit,
    /// Restarts and further attempts of all services together. The first start of one that is down is what a cold start is made of and doesn't count.
    pub in_total: Limit,
    /// The wait after a failed attempt; doubled by each further one.
    pub retry_after: Duration,
    /// Services that become ready together start within this time of one another, but within at most [`JITTER_SHARE`] of what each takes.
    pub jitter: Duration,
    /// Services that were stable and broke by themselves, after which nothing more is done.
    pub worse_after: usize,
}

/// A service's jitter is at most this part of the time that it takes: a stampede is avoided, the critical path hardly longer.
pub const JITTER_SHARE: u32 = 20;

impl Default for Budgets {
    fn default() -> Self {
        Self {
            at_once: 8,
            attempts: 2,
            per_service: Limit { count: 4, within: Duration::from_secs(1800) },
            in_total: Limit { count: 30, within: Duration::from_secs(1800) },
            retry_after: Duration::from_secs(5),
            jitter: Duration::from_secs(2),
            worse_after: 3,
        }
    }
}
