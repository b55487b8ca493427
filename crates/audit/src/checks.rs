//! The registry. A check is a pure function of the facts; the order is that in which its gap hurt in the outage, or would have.

mod archive;
mod data;
mod detection;
pub(crate) mod live;
mod liveness;
mod monitoring;
mod probed;
mod recovery;
mod routes;
mod secrets;
mod start;
mod starvation;
mod vacuum;
mod variables;
mod versions;

use std::sync::LazyLock;

use serde::Serialize;

use crate::{
    Severity,
    facts::{Facts, Source},
    finding::{Certainty, Evidence, Finding, Place, Remedy},
    words::{lines, shown_path},
};

/// Which question a check belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// One part takes all of the machine.
    Starvation,
    /// Parts that hang, restart, or can't.
    Liveness,
    /// What would be lost.
    Data,
    /// Values that nobody provides.
    Secrets,
    /// Names that lead nowhere.
    Routes,
    /// Nobody is told.
    Detection,
    /// It does not come back by itself.
    Recovery,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Starvation, Self::Liveness, Self::Data, Self::Secrets, Self::Routes, Self::Detection, Self::Recovery];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starvation => "starvation",
            Self::Liveness => "liveness",
            Self::Data => "data",
            Self::Secrets => "secrets",
            Self::Routes => "routes",
            Self::Detection => "detection",
            Self::Recovery => "recovery",
        }
    }
}

/// A check.
#[derive(Debug)]
pub struct Check {
    /// Its name for ever: baselines, ignores and SARIF use it.
    pub id: &'static str,
    /// What it finds, in a few words.
    pub title: &'static str,
    /// Which question it belongs to.
    pub family: Family,
    /// How much it hurts; a single finding may be less.
    pub severity: Severity,
    /// All of them must be there, else it is not assessed.
    pub needs: &'static [Source],
    /// What it did in a real outage, or would have.
    pub reason: &'static str,
    /// When it does not apply, or what it can't see.
    pub limits: &'static str,
    /// The function.
    pub run: fn(&Facts) -> Vec<Finding>,
}

static CHECKS: LazyLock<Vec<&'static Check>> = LazyLock::new(|| {
    let families = [
        starvation::CHECKS,
        vacuum::CHECKS,
        live::STARVATION,
        liveness::CHECKS,
        data::CHECKS,
        archive::CHECKS,
        versions::CHECKS,
        live::REPOSITORY,
        live::DATA,
        secrets::CHECKS,
        probed::SECRETS,
        live::SECRETS,
        routes::CHECKS,
        probed::ROUTES,
        detection::CHECKS,
        monitoring::CHECKS,
        live::DETECTION,
        recovery::CHECKS,
        start::CHECKS,
    ];
    families.into_iter().flatten().collect()
});

/// All checks, in the order in which their gaps hurt.
pub fn checks() -> &'static [&'static Check] {
    &CHECKS
}

/// A check by its id.
pub fn check(id: &str) -> Option<&'static Check> {
    checks().iter().find(|check| check.id == id).copied()
}

impl Check {
    fn found(
        &self,
        object: impl Into<String>,
        message: impl Into<String>,
        evidence: Vec<Evidence>,
        remedy: Remedy,
    ) -> Finding {
        let (check, severity, certainty) = (self.id, self.severity, Certainty::Found);
        // Names come from files: whatever is in them, they must not leave their line.
        let (object, message) = (shown_path(&object.into()), shown_path(&message.into()));
        let remedy = match remedy {
            Remedy::Patch(text) => Remedy::Patch(lines(&text)),
            Remedy::Command(text) => Remedy::Command(shown_path(&text)),
            Remedy::Advice(text) => Remedy::Advice(shown_path(&text)),
        };
        Finding { check, severity, certainty, object, message, evidence, remedy }
    }

    /// A question that only something outside of the set can answer.
    fn open(&self, object: impl Into<String>, message: impl Into<String>, place: &Place) -> Finding {
        let evidence = vec![shows(place, String::new())];
        let (check, severity, certainty) = (self.id, self.severity, Certainty::NotAssessed);
        let remedy = Remedy::Advice(String::new());
        let (object, message) = (shown_path(&object.into()), shown_path(&message.into()));
        Finding { check, severity, certainty, object, message, evidence, remedy }
    }
}

/// Evidence at a place.
fn shows(place: &Place, value: impl Into<String>) -> Evidence {
    Evidence { place: place.clone(), value: crate::words::shown(&value.into()) }
}

impl Finding {
    fn at_most(mut self, severity: Severity) -> Self {
        self.severity = self.severity.min(severity);
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let ids: BTreeSet<_> = checks().iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), checks().len());
        for check in checks() {
            assert!(check.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", check.id);
            for text in [check.reason, check.limits] {
                assert!(text.ends_with('.'), "{}: {text}", check.id);
            }
            assert!(!check.title.ends_with('.'), "{}", check.id);
            assert!(!check.needs.is_empty(), "{}: without a need it would pass on nothing", check.id);
        }
    }
}
