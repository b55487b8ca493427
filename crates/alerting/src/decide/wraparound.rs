//! Rule `vacuum-wraparound-near`.
//!
//! *Why*: when the oldest unfrozen transaction id or multixact is about 2.1 billion old, the server takes no more writes until a
//! vacuum has finished, which may take hours. It is seen days ahead.
//! *Source*: `age(datfrozenxid)` and `mxid_age(datminmxid)` of every database, once a minute, and a line through the last hour of the
//! oldest: a server that uses up ten thousand ids a second has two days where another has years.
//! *First things to do*: find what holds the horizon back; let the anti-wraparound vacuums run, and never throttle or cancel them.

use std::time::Duration;

use model::{Moment, Observation, Reading, Severity, reading::AgeReading};

use super::{
    forecast::{History, Line},
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{short, span},
};
use crate::settings::{self, duration};

/// Where the server stops taking writes: 2^31 less a margin of 3 million (`xidStopLimit` of varsup.c), in millions.
const STOP_MILLIONS: f64 = 2_144.0;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// How well the points must lie along their line.
const FIT: f64 = 0.9;
const DAY_S: f64 = 86_400.0;

/// The rule's state.
pub(super) struct WraparoundNear {
    settings: settings::VacuumWraparoundNear,
    gate: Gate,
    oldest: Option<AgeReading>,
    /// Of the oldest, in millions; begun anew when it is another one, or was frozen.
    ages: History,
    left: Option<Duration>,
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
        Self { settings, gate, oldest: None, ages: History::new(MINUTE / 2, HOUR), left: None }
    }

    /// When writes stop, at the rate of the last hour.
    fn forecast(&mut self, at: Moment, oldest: &AgeReading) -> Option<Duration> {
        let goes_on = |before: &AgeReading| {
            before.database == oldest.database && what(before) == what(oldest) && millions(before) <= millions(oldest)
        };
        if !self.oldest.as_ref().is_some_and(goes_on) {
            self.ages.clear();
        }
        self.ages.push(at, millions(oldest));
        let line = self.ages.line(HOUR).filter(|line: &Line| line.fit >= FIT && line.per_second > 0.0)?;
        line.until(STOP_MILLIONS)
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

fn rate(left: Duration) -> String {
    format!("at the rate of the last hour writes stop in {}", span(left))
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
        self.left = self.forecast(tables.at, oldest);
        let settings = &self.settings;
        let within = |days: f64| {
            age >= settings.forecast_from_millions && self.left.is_some_and(|left| left <= duration(days * DAY_S))
        };
        let verdict = if age >= settings.critical_millions || within(settings.critical_days) {
            Verdict::Bad(Severity::Critical)
        } else if age >= settings.age_millions || within(settings.within_days) {
            Verdict::Bad(Severity::Warning)
        } else if age < settings.clear_millions && !within(settings.within_days * 2.0) {
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
                "{}: {} of database {} near wraparound: {:.0} of {STOP_MILLIONS:.0} million{}",
                subject.cluster,
                what(oldest),
                short(oldest.database.as_str()),
                millions(oldest),
                self.left.map(|left| format!(", writes stop in {}", span(left))).unwrap_or_default()
            ),
            details: std::iter::once(fact(oldest)).chain(self.left.map(rate)).collect(),
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
