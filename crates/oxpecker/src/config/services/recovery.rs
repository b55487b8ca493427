//! `[recovery]`: how much may be done, and how long is waited.

use model::Mode;
use serde::{Deserialize, Serialize};
use services::{
    plan::{Budgets, Limit},
    state::Patience,
};

use crate::config::HumanDuration;

/// `[recovery]`: how services are brought back.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recovery {
    /// How far to go; default: the general mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Services that may start at the same time.
    pub at_once: usize,
    /// Failed attempts after which a service is given up.
    pub attempts: u32,
    /// Starts and restarts of one service within half an hour.
    pub restarts: usize,
    /// Restarts and further attempts of all services within half an hour.
    pub restarts_in_total: usize,
    /// How long a start may go without advancing.
    pub without_progress: HumanDuration,
    /// How long a running service gets to find its way back by itself once what it needs is stable again.
    pub self_heal: HumanDuration,
}

impl Default for Recovery {
    fn default() -> Self {
        let (budgets, patience) = (Budgets::default(), Patience::default());
        Self {
            mode: None,
            at_once: budgets.at_once,
            attempts: budgets.attempts,
            restarts: budgets.per_service.count,
            restarts_in_total: budgets.in_total.count,
            without_progress: HumanDuration(patience.without_progress),
            self_heal: HumanDuration(patience.self_heal),
        }
    }
}

impl crate::config::Config {
    /// How far the recovery of services may go.
    pub fn recovery_mode(&self) -> Mode {
        self.recovery.mode.unwrap_or(self.mode)
    }
}

impl Recovery {
    /// What is wrong with it: key, what, and what to do.
    pub fn problems(&self) -> Vec<(&'static str, String, &'static str)> {
        let budgets = self.budgets().problems().into_iter();
        let mut problems: Vec<_> = budgets.map(|(key, why)| (key, why, "the default is a good start")).collect();
        for (key, value) in [("without_progress", self.without_progress), ("self_heal", self.self_heal)] {
            if value.0.is_zero() {
                let what = "zero: a service would be restarted while it finds its way back by itself";
                problems.push((key, what.to_owned(), "some seconds; the default is a good start"));
            }
        }
        problems
    }

    pub(super) fn budgets(&self) -> Budgets {
        let budgets = Budgets::default();
        Budgets {
            at_once: self.at_once,
            attempts: self.attempts,
            per_service: Limit { count: self.restarts, ..budgets.per_service },
            in_total: Limit { count: self.restarts_in_total, ..budgets.in_total },
            ..budgets
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience { without_progress: self.without_progress.0, self_heal: self.self_heal.0, ..Patience::default() }
    }
}
