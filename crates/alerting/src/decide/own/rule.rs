//! What an own rule remembers, and how it judges.
//!
//! Each keeps the figures that it names. One that was not read lately is not known, and of what is not known a rule says nothing: an
//! episode stays open, and none begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Moment, Observation, Reading, ServiceName, Severity, reading::Health};

use super::{
    super::{
        gate::{Confirmation, Gate, Judgement, Verdict},
        rule::{Facts, Rule, Subject},
        text::{SUMMARY_CHARS, fit},
    },
    Compiled, Figure, OwnRule, OwnRuleError,
    figures::Of,
};

/// Services whose health is remembered.
const MAX_SERVICES: usize = 512;

/// The rule's state.
pub(in super::super) struct Own {
    declared: OwnRule,
    compiled: Compiled,
    figures: Vec<&'static Figure>,
    gate: Gate,
    /// The newest value of each figure, and of when it is.
    seen: BTreeMap<&'static str, (f64, Moment)>,
    /// Services whose newest check failed, and that nobody stopped on purpose.
    unhealthy: BTreeSet<ServiceName>,
    subject: Subject,
    now: Option<Moment>,
}

impl Own {
    /// # Errors
    /// Where its texts are not understood.
    pub(in super::super) fn new(declared: OwnRule, subject: Subject) -> Result<Self, OwnRuleError> {
        let compiled = declared.compile()?;
        let mut figures: Vec<&'static Figure> = Vec::new();
        let clear = compiled.clear_when.iter().flat_map(|condition| condition.figures());
        for figure in compiled.when.figures().iter().chain(clear).chain(compiled.summary.figures()) {
            if !figures.iter().any(|known| known.name == figure.name) {
                figures.push(figure);
            }
        }
        let slowest = figures.iter().map(|figure| figure.source.fresh_for()).max().unwrap_or_default();
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: declared.lasting,
            clear: declared.clear,
            forget: Duration::ZERO,
            max_gap: slowest,
        });
        let (seen, unhealthy) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { declared, compiled, figures, gate, seen, unhealthy, subject, now: None })
    }

    /// Takes in what a reading says about our figures; whether it says anything.
    fn take_in(&mut self, reading: &Reading) -> bool {
        if let Reading::Service(one) = reading {
            if one.health == Health::Healthy || one.stopped_by.is_some() {
                self.unhealthy.remove(&one.service);
            } else if self.unhealthy.len() < MAX_SERVICES {
                self.unhealthy.insert(one.service.clone());
            }
        }
        let mut told = false;
        for figure in self.figures.iter().filter(|figure| figure.source.is_of(reading)) {
            told = true;
            let value = match figure.of {
                Of::Reading(of) => of(reading),
                Of::Services => u32::try_from(self.unhealthy.len()).ok().map(f64::from),
            };
            match value {
                Some(value) => self.seen.insert(figure.name, (value, reading.at())),
                None => self.seen.remove(figure.name),
            };
        }
        told
    }

    /// The figures that are known at this moment.
    fn known(&self, now: Moment) -> BTreeMap<&'static str, f64> {
        let fresh = |figure: &&'static Figure| {
            let (value, at) = self.seen.get(figure.name)?;
            (now.since(*at) <= figure.source.fresh_for()).then_some((figure.name, *value))
        };
        self.figures.iter().filter_map(fresh).collect()
    }
}

impl Rule for Own {
    fn id(&self) -> &str {
        &self.declared.name
    }

    fn title(&self, subject: &Subject) -> String {
        format!("{} of {}", self.declared.name, subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(reading) = observation else { return None };
        if !self.take_in(reading) {
            return None;
        }
        let at = reading.at();
        let known = self.known(at);
        let bad = self.compiled.when.holds(&known)?;
        self.now = Some(at);
        let good = match &self.compiled.clear_when {
            Some(clear) => clear.holds(&known).unwrap_or(false),
            None => true,
        };
        let verdict = match (bad, good) {
            (true, _) => Verdict::Bad(self.declared.severity),
            (false, true) => Verdict::Good,
            (false, false) => Verdict::Between,
        };
        Some(Judgement::instant(at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let known = self.now.map(|now| self.known(now)).unwrap_or_default();
        Facts {
            summary: fit(&self.compiled.summary.say(&known, &subject.cluster, &subject.host), SUMMARY_CHARS),
            details: self.present(),
            labels: self.declared.labels.clone(),
            next_steps: self.declared.next_steps.clone(),
        }
    }

    fn present(&self) -> Vec<String> {
        let known = self.now.map(|now| self.known(now)).unwrap_or_default();
        let line = |figure: &&'static Figure| {
            let value = known.get(figure.name).map_or("not known".to_owned(), |value| rounded(*value));
            format!("{} = {value} ({})", figure.name, figure.what)
        };
        let when = self.declared.when.split_whitespace().collect::<Vec<_>>().join(" ");
        std::iter::once(format!("the rule of {}: {when}", self.subject.cluster))
            .chain(self.figures.iter().map(line))
            .collect()
    }
}

/// At most two digits behind the point.
fn rounded(value: f64) -> String {
    ((value * 100.0).round() / 100.0).to_string()
}
