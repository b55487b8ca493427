//! Rule `connections-near-limit`.
//!
//! *Why*: at the limit PostgreSQL refuses everybody, also the one who would mend it; a pool that grows without a bound gets there
//! in seconds.
//! *Source*: client backends of `pg_stat_activity` against `max_connections` less the reserved ones.
//! *First things to do*: see whose connections they are; stop the one that leaks; keep a way in.

use std::time::Duration;

use model::{Observation, Reading, Severity, Share, reading::Connections};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{percent, short},
};
use crate::settings::{self, duration};

/// The activity view is read about once a second, later while the server starves.
const MAX_GAP: Duration = Duration::from_secs(10);

/// Roles that an alert names.
const NAMED_ROLES: usize = 3;

/// The rule's state.
pub(super) struct ConnectionsNearLimit {
    settings: settings::ConnectionsNearLimit,
    gate: Gate,
    connections: Option<Connections>,
}

impl ConnectionsNearLimit {
    pub(super) fn new(settings: settings::ConnectionsNearLimit) -> Self {
        let gate = Gate::new(Confirmation {
            readings: settings.readings,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, connections: None }
    }
}

/// What ordinary clients may use.
fn usable(connections: &Connections) -> u32 {
    connections.max.saturating_sub(connections.reserved)
}

fn used(connections: &Connections) -> Share {
    Share::of(f64::from(connections.used), f64::from(usable(connections)))
}

/// The most numerous first; by name where equal, so that two alerts can be compared.
fn most(counts: &std::collections::BTreeMap<String, u32>) -> Vec<(&str, u32)> {
    let mut sorted: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted
}

fn list(counts: &[(&str, u32)]) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn facts_of(connections: &Connections) -> Vec<String> {
    let mut facts = vec![format!(
        "{} of {} connections used ({}); max_connections {}, {} reserved",
        connections.used,
        usable(connections),
        percent(used(connections)),
        connections.max,
        connections.reserved
    )];
    let roles = most(&connections.by_role);
    if !roles.is_empty() {
        facts.push(format!("by role: {}", list(&roles[..roles.len().min(NAMED_ROLES)])));
    }
    if !connections.by_state.is_empty() {
        facts.push(format!("by state: {}", list(&most(&connections.by_state))));
    }
    facts
}

impl Rule for ConnectionsNearLimit {
    fn id(&self) -> &'static str {
        model::alert::rule::CONNECTIONS_NEAR_LIMIT
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Connections of {} near the limit", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Activity(activity)) = observation else { return None };
        let connections = &activity.connections;
        if usable(connections) == 0 {
            return None;
        }
        let percent = used(connections).0 * 100.0;
        let verdict = if percent >= self.settings.critical_percent {
            Verdict::Bad(Severity::Critical)
        } else if percent >= self.settings.used_percent {
            Verdict::Bad(Severity::Warning)
        } else if percent < self.settings.clear_percent {
            Verdict::Good
        } else {
            Verdict::Between
        };
        self.connections = Some(connections.clone());
        Some(Judgement::instant(activity.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(connections) = &self.connections else { return Facts::default() };
        let top = most(&connections.by_role).first().map(|(role, count)| (short(role), *count));
        let whose = top.as_ref().map(|(role, count)| format!(", {count} by role {role}")).unwrap_or_default();
        Facts {
            summary: format!(
                "{}: {} of {} connections used ({}){whose}",
                subject.cluster,
                connections.used,
                usable(connections),
                percent(used(connections))
            ),
            details: facts_of(connections),
            labels: top.map(|(role, _)| ("role".to_owned(), role)).into_iter().collect(),
            next_steps: steps(&[
                "keep a way in: open one superuser session now and leave it open",
                "see whose they are: `SELECT usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC`",
                "restart or scale down the service that grew; end its idle sessions with pg_terminate_backend(pid)",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.connections.as_ref().map(facts_of).unwrap_or_default()
    }
}
