//! `[[alert.own_rule]]`: a team's own rules.

use std::{collections::BTreeMap, time::Duration};

use alerting::OwnRuleError;
use model::Severity;
use serde::{Deserialize, Serialize};

use super::HumanDuration;

/// Own rules that a configuration may have: each is evaluated with every reading that it names.
pub const MAX_OWN_RULES: usize = 100;

/// Labels that an alert has anyway.
const TAKEN_LABELS: [&str; 3] = ["cluster", "host", "rule"];

/// `[[alert.own_rule]]`: a condition over figures that `oxpecker alert figures` lists.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRule {
    /// Its name, for routes, silences and keys.
    pub name: String,
    /// When it is bad: an expression such as `sessions_active > 50 and cpu_busy_percent > 80`.
    pub when: String,
    /// When it is good again. Default: when `when` does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear_when: Option<String>,
    /// How long it must be bad.
    #[serde(default = "half_a_minute", rename = "for")]
    pub lasting: HumanDuration,
    /// How long it must be good.
    #[serde(default = "a_minute")]
    pub clear_for: HumanDuration,
    /// How bad it is.
    #[serde(default = "warning")]
    pub severity: Severity,
    /// One line for a lock screen; figures in double braces: `{{ sessions_active }} sessions on {{ cluster }}`.
    pub summary: String,
    /// The first things to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_steps: Vec<String>,
    /// More labels, for routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn half_a_minute() -> HumanDuration {
    HumanDuration(Duration::from_secs(30))
}

fn a_minute() -> HumanDuration {
    HumanDuration(Duration::from_secs(60))
}

fn warning() -> Severity {
    Severity::Warning
}

impl OwnRule {
    /// As the rules take it.
    pub fn declared(&self) -> alerting::OwnRule {
        alerting::OwnRule {
            name: self.name.clone(),
            when: self.when.clone(),
            clear_when: self.clear_when.clone(),
            lasting: self.lasting.0,
            clear: self.clear_for.0,
            severity: self.severity,
            summary: self.summary.clone(),
            next_steps: self.next_steps.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// What is wrong with them: the place, what, and what to do.
pub(super) fn problems(rules: &[OwnRule]) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let ours = alerting::RuleSettings::names();
    for (at, rule) in rules.iter().enumerate() {
        let place = format!("alert.own_rule {:?}", rule.name);
        if !model::is_configured_name(&rule.name) || rules.iter().take(at).any(|other| other.name == rule.name) {
            let hint = "each rule needs its own name, of letters, digits, '-', '_' and '.'".to_owned();
            found.push((place.clone(), "no name, or one that is taken".to_owned(), hint));
        } else if ours.contains(&rule.name) {
            let hint = format!("take another name; thresholds of ours stand under [alert.rules.{}]", rule.name);
            found.push((place.clone(), "is the name of a rule of ours".to_owned(), hint));
        }
        if let Err(error) = rule.declared().check() {
            let OwnRuleError { key, line, column, what, hint } = error;
            found.push((format!("{place}.{key}"), format!("line {line}, column {column}: {what}"), hint));
        }
        if let Some(label) = rule.labels.keys().find(|label| TAKEN_LABELS.contains(&label.as_str())) {
            let hint = "an alert has that anyway: take another name".to_owned();
            found.push((format!("{place}.labels"), format!("{label} is taken"), hint));
        }
    }
    if rules.len() > MAX_OWN_RULES {
        let what = format!("{} rules, the most is {MAX_OWN_RULES}", rules.len());
        found.push((
            "alert.own_rule".to_owned(),
            what,
            "each is evaluated with every reading: leave some out".to_owned(),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, String, String)> {
        let rule: OwnRule = toml::from_str(text).unwrap();
        problems(&[rule])
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        let good = "summary = \"{{ connections }} of them\"";
        assert_eq!(found(&format!("name = \"many\"\nwhen = \"connections > 5\"\n{good}")), []);
        for (text, place, says) in [
            ("name = \"a b\"\nwhen = \"connections > 5\"", "alert.own_rule \"a b\"", "no name"),
            ("name = \"cpu-saturated\"\nwhen = \"connections > 5\"", "alert.own_rule \"cpu-saturated\"", "of ours"),
            ("name = \"a\"\nwhen = \"connections >\"", "alert.own_rule \"a\".when", "line 1, column 13"),
            (
                "name = \"a\"\nwhen = \"\"\"connections > 5\n and nosuch\"\"\"",
                "alert.own_rule \"a\".when",
                "line 2, column 6: nosuch",
            ),
            (
                "name = \"a\"\nwhen = \"connections > 5\"\nlabels = { rule = \"x\" }",
                "alert.own_rule \"a\".labels",
                "taken",
            ),
        ] {
            let found = found(&format!("{text}\n{good}"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].0 == place && found[0].1.contains(says) && !found[0].2.is_empty(), "{found:?}");
        }
        let rule: OwnRule = toml::from_str(&format!("name = \"a\"\nwhen = \"connections > 5\"\n{good}")).unwrap();
        assert!(problems(&[rule.clone(), rule.clone()])[0].1.contains("taken"));
        assert!(problems(&vec![rule; 101]).last().unwrap().1.contains("the most is 100"));
    }
}
