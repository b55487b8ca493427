//! Rule `vacuum-wraparound-near`.
//!
//! *Why*: when the oldest unfrozen transaction id or multixact is about 2.1 billion old, the server takes no more writes until a
//! vacuum has finished, which may take hours. It is seen days ahead.
//! *Source*: `age(datfrozenxid)` and `mxid_age(datminmxid)` of every database, once a minute.
//! *First things to do*: find what holds the horizon back; let the anti-wraparound vacuums run, and never throttle or cancel them.

use std::time::Duration;

use model::{Observation, Reading, Severity, reading::AgeReading};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::short,
};
use crate::settings;

/// Where the server stops taking writes: 2^31 less a margin of 3 million (`xidStopLimit` of varsup.c), in millions.
const STOP_MILLIONS: f64 = 2_144.0;

/// The rule's state.
pub(super) struct WraparoundNear {
    settings: settings::VacuumWraparoundNear,
    gate: Gate,
    oldest: Option<AgeReading>,
}

impl WraparoundNear {
    pub(super) fn new(settings: settings::VacuumWraparoundNear) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: Duration::ZERO,
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { settings, gate, oldest: None }
    }
}

fn millions(age: &AgeReading) -> f64 {
    age.xid_age.max(age.multixact_age) as f64 / 1e6
}

fn what(age: &AgeReading) -> &'static str {
    if age.multixact_age > age.xid_age { "multixacts" } else { "transaction ids" }
}

fn fact(age: &AgeReading) -> String {
    format!(
        "database {}: oldest transaction id {:.0} million old, oldest multixact {:.0} million; writes stop at about {STOP_MILLIONS:.0} million",
        age.database,
        age.xid_age as f64 / 1e6,
        age.multixact_age as f64 / 1e6
    )
}

impl Rule for WraparoundNear {
    fn id(&self) -> &'static str {
        "vacuum-wraparound-near"
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Wraparound of {} near", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Tables(tables)) = observation else { return None };
        let oldest = tables.ages.iter().max_by(|a, b| millions(a).total_cmp(&millions(b)))?;
        let age = millions(oldest);
        let verdict = if age >= self.settings.critical_millions {
            Verdict::Bad(Severity::Critical)
        } else if age >= self.settings.age_millions {
            Verdict::Bad(Severity::Warning)
        } else if age < self.settings.clear_millions {
            Verdict::Good
        } else {
            Verdict::Between
        };
        self.oldest = Some(oldest.clone());
        Some(Judgement::instant(tables.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(oldest) = &self.oldest else { return Facts::default() };
        Facts {
            summary: format!(
                "{}: {} of database {} near wraparound: {:.0} of {STOP_MILLIONS:.0} million",
                subject.cluster,
                what(oldest),
                short(oldest.database.as_str()),
                millions(oldest)
            ),
            details: vec![fact(oldest)],
            labels: [(model::alert::label::DATABASE.to_owned(), oldest.database.to_string())].into(),
            next_steps: steps(&[
                "find what holds the horizon back: old transactions, prepared transactions, replication slots",
                "see whether its anti-wraparound vacuums run and advance: `oxpecker vacuum status`; never cancel them",
                "if none runs: `VACUUM (FREEZE, INDEX_CLEANUP OFF)` of the tables with the greatest age(relfrozenxid)",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.oldest.iter().map(fact).collect()
    }
}
