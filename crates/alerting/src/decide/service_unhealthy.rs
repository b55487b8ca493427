//! Rule `service-unhealthy`.
//!
//! *Why*: a service that does not answer is an outage to whoever uses it, also where its database is well: a site, a mailer, the error
//! tracker without which nobody hears of the next error.
//! *Source*: the health checks that the configuration declares. While PostgreSQL is down they say nothing new: `postgres-down` does.
//! *First things to do*: see the service's log; restart it in order; see what it depends on.

use std::{collections::BTreeMap, time::Duration};

use model::{
    EventKind, Moment, Observation, Reading, ServiceName, Severity,
    alert::rule,
    reading::{Health, ServiceReading},
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{fit, short, span},
};
use crate::settings::{self, duration};

/// Unhealthy services that are remembered.
const MAX_SERVICES: usize = 512;
/// How many an alert names, and how much of each reason, in characters.
const NAMED: usize = 8;
const REASON_CHARS: usize = 300;

struct Unhealthy {
    since: Moment,
    detail: String,
}

/// The rule's state.
pub(super) struct ServiceUnhealthy {
    settings: settings::ServiceUnhealthy,
    gate: Gate,
    unhealthy: BTreeMap<ServiceName, Unhealthy>,
    /// What people lose, as declared.
    impacts: BTreeMap<ServiceName, Vec<String>>,
    /// While PostgreSQL is down, and since when it is back.
    down: bool,
    back: Option<Moment>,
    now: Option<Moment>,
}

impl ServiceUnhealthy {
    pub(super) fn new(settings: settings::ServiceUnhealthy) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        let (unhealthy, impacts) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, gate, unhealthy, impacts, down: false, back: None, now: None }
    }

    fn take_in(&mut self, reading: &ServiceReading) {
        let detail = reading.detail.clone().unwrap_or_default();
        match reading.health {
            // Whoever stopped it on purpose need not be told.
            _ if reading.stopped_by.is_some() => {
                self.unhealthy.remove(&reading.service);
            }
            Health::Healthy => {
                self.unhealthy.remove(&reading.service);
            }
            Health::Unhealthy => {
                if let Some(known) = self.unhealthy.get_mut(&reading.service) {
                    known.detail = detail;
                } else if self.unhealthy.len() < MAX_SERVICES {
                    self.unhealthy.insert(reading.service.clone(), Unhealthy { since: reading.at, detail });
                }
            }
        }
    }

    /// For how long, of what the database's own absence does not explain.
    fn lasting(&self, now: Moment) -> impl Iterator<Item = (&ServiceName, &Unhealthy, Duration)> {
        let least = duration(self.settings.for_s);
        let explained = self.back.map(|back| now.since(back));
        self.unhealthy.iter().filter_map(move |(name, unhealthy)| {
            let lasted = now.since(unhealthy.since);
            let unexplained = explained.map_or(lasted, |since| lasted.min(since));
            (unexplained >= least).then_some((name, unhealthy, lasted))
        })
    }
}

impl Rule for ServiceUnhealthy {
    fn id(&self) -> &'static str {
        rule::SERVICE_UNHEALTHY
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Services around {} unhealthy", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let at = match observation {
            Observation::Event(_, EventKind::ServerDown { .. }) => {
                self.down = true;
                return None;
            }
            Observation::Event(at, EventKind::ServerUp { .. }) => {
                if std::mem::take(&mut self.down) {
                    self.back = Some(*at);
                }
                return None;
            }
            Observation::Event(_, EventKind::ServiceChanged { service, impact, .. }) => {
                if self.impacts.len() < MAX_SERVICES {
                    self.impacts.insert(service.clone(), impact.clone());
                }
                return None;
            }
            Observation::Reading(Reading::Service(service)) => {
                self.take_in(service);
                service.at
            }
            Observation::Reading(Reading::Host(host)) => host.at,
            _ => return None,
        };
        self.now = Some(at);
        let verdict = if !self.down && self.lasting(at).next().is_some() {
            Verdict::Bad(Severity::Warning)
        } else if self.unhealthy.is_empty() {
            Verdict::Good
        } else {
            Verdict::Between
        };
        let since = self.lasting(at).map(|(_, unhealthy, _)| unhealthy.since).min_by_key(|since| since.boot_us);
        Some(Judgement { since, ..Judgement::instant(at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(now) = self.now else { return Facts::default() };
        let mut lasting: Vec<_> = self.lasting(now).collect();
        lasting.sort_by_key(|(_, _, lasted)| std::cmp::Reverse(*lasted));
        let Some((name, worst, lasted)) = lasting.first() else { return Facts::default() };
        let more = if lasting.len() > 1 { format!(" and {} more", lasting.len() - 1) } else { String::new() };
        let mut details = self.present();
        for (name, ..) in lasting.iter().take(NAMED) {
            let impact = self.impacts.get(*name).filter(|impact| !impact.is_empty());
            details.extend(impact.map(|impact| fit(&format!("without {name}: {}", impact.join("; ")), REASON_CHARS)));
        }
        Facts {
            summary: format!(
                "{}: service {}{more} unhealthy for {}: {}",
                subject.cluster,
                short(name.as_str()),
                span(*lasted),
                worst.detail
            ),
            details,
            labels: [("service".to_owned(), name.to_string())].into(),
            next_steps: steps(&[
                "see what it says: `oxpecker service list`, and its own log",
                "see what it depends on, and bring it back in order: `oxpecker service plan`",
                "if the check is wrong and the service is well: mend the check, or nobody believes the next",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        let Some(now) = self.now else { return Vec::new() };
        if self.unhealthy.is_empty() {
            return vec!["all services that are checked answer".to_owned()];
        }
        let line = |(name, unhealthy): (&ServiceName, &Unhealthy)| {
            fit(&format!("{name}: {} (for {})", unhealthy.detail, span(now.since(unhealthy.since))), REASON_CHARS)
        };
        self.unhealthy.iter().take(NAMED).map(line).collect()
    }
}
