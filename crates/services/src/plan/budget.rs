//! How much may be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use model::ServiceName;

use super::{ACTS_KEPT, Action};
use crate::health::RESTARTS_KEPT;

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
    /// Acts that a person has to approve, besides provisioning and restoring, which always are.
    pub approve: BTreeMap<ServiceName, BTreeSet<Action>>,
}

impl Budgets {
    /// Whether a person has to approve this.
    pub fn needs_approval(&self, service: &ServiceName, action: Action) -> bool {
        matches!(action, Action::Provision | Action::Restore)
            || self.approve.get(service).is_some_and(|actions| actions.contains(&action))
    }

    /// What is wrong with them, each with the key of `[recovery]` that says it: bounds with which nothing would ever be done, or that would bound nothing.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut bound = |key, value: usize, most: usize| {
            if value == 0 {
                problems.push((
                    key,
                    "with 0 nothing would ever be done: say at least 1; `mode = \"advise\"` only plans".to_owned(),
                ));
            } else if value > most {
                problems
                    .push((key, format!("{value} is more than the {most} that are remembered: say {most} at most")));
            }
        };
        bound("at_once", self.at_once, AT_ONCE_MAX);
        bound("attempts", usize::try_from(self.attempts).unwrap_or(usize::MAX), RESTARTS_KEPT);
        bound("restarts", self.per_service.count, RESTARTS_KEPT);
        bound("restarts_in_total", self.in_total.count, ACTS_KEPT);
        bound("worse_after", self.worse_after, WORSE_AFTER_MAX);
        for (key, limit) in [("restarts", self.per_service), ("restarts_in_total", self.in_total)] {
            if limit.within.is_zero() {
                problems.push((key, "a bound within no time bounds nothing".to_owned()));
            }
        }
        problems
    }
}

/// More services than this never start at the same time.
pub const AT_ONCE_MAX: usize = 1024;
/// More losses than this are no bound.
const WORSE_AFTER_MAX: usize = 1024;

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
            approve: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_let_nothing_be_done_or_bound_nothing_are_refused() {
        let fine = Budgets::default;
        let limit = |count| Limit { count, within: Duration::from_secs(1) };
        assert_eq!(fine().problems(), []);
        for (key, budgets) in [
            ("at_once", Budgets { at_once: 0, ..fine() }),
            ("at_once", Budgets { at_once: usize::MAX, ..fine() }),
            ("attempts", Budgets { attempts: 0, ..fine() }),
            ("attempts", Budgets { attempts: u32::MAX, ..fine() }),
            ("restarts", Budgets { per_service: limit(0), ..fine() }),
            ("restarts", Budgets { per_service: limit(RESTARTS_KEPT + 1), ..fine() }),
            ("restarts_in_total", Budgets { in_total: limit(0), ..fine() }),
            ("restarts_in_total", Budgets { in_total: limit(ACTS_KEPT + 1), ..fine() }),
            ("restarts_in_total", Budgets { in_total: Limit { count: 1, within: Duration::ZERO }, ..fine() }),
            ("worse_after", Budgets { worse_after: 0, ..fine() }),
        ] {
            let problems = budgets.problems();
            assert!(matches!(&problems[..], [(found, _)] if *found == key), "{key}: {problems:?}");
        }
    }
}
