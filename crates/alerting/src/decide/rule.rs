//! What each rule brings; the rest (gates, keys, resolves) is the same for all.

use std::collections::BTreeMap;

use model::{Observation, Severity};

use super::gate::{Gate, Judgement};

/// Whom the alerts are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The host's name.
    pub host: String,
}

/// What a rule says when its condition begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// Without the cluster's name where it is about the host.
    pub(crate) summary: String,
    pub(crate) details: Vec<String>,
    /// Beside `cluster`, `host` and `rule`.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) next_steps: Vec<String>,
}

/// One rule: judges observations, remembers what it needs to tell about them.
pub(crate) trait Rule: Send {
    /// Its stable name.
    fn id(&self) -> &str;
    /// What the condition is called in a resolve: `CPU of db1 saturated`.
    fn title(&self, subject: &Subject) -> String;
    fn gate(&mut self) -> &mut Gate;
    /// A verdict, where the observation says something about the condition.
    fn judge(&mut self, observation: &Observation) -> Option<Judgement>;
    /// What to tell when the condition begins; called right after the verdict that began it.
    fn facts(&self, subject: &Subject, severity: Severity) -> Facts;
    /// How things are, for the resolve.
    fn present(&self) -> Vec<String>;
}

/// Steps in the order in which they should be done.
pub(crate) fn steps(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|&step| step.to_owned()).collect()
}
