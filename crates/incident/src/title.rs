//! One line that names an incident: its most telling condition.

use model::{EventId, alert::rule};

use crate::{
    Fact,
    describe::sentence,
    timeline::{Condition, ConditionKind},
    words::quote,
};

/// The title, from the condition that tells most: one that names a culprit, then what is down, then other alerts, by severity.
pub fn title(conditions: &[Condition], fallback: EventId) -> Fact {
    let telling = |c: &Condition| match &c.kind {
        ConditionKind::Alert { alert } if alert.rule.0 == rule::VACUUM_STARVES_HOST => 4,
        ConditionKind::ServerDown => 3,
        ConditionKind::Alert { alert } if alert.rule.0 == rule::CONNECTIONS_NEAR_LIMIT => 2,
        ConditionKind::Alert { .. } => 1,
        ConditionKind::ServiceUnhealthy { .. } => 0,
    };
    // The earliest of equals: max_by_key would take the last.
    let best = conditions.iter().rev().max_by_key(|c| (telling(c), c.severity()));
    match best.map(|c| (c, &c.kind)) {
        Some((c, ConditionKind::Alert { alert })) if quote(&alert.summary).is_empty() => {
            Fact::of(format!("Alert {}", quote(&alert.rule.0)), c.opened_by)
        }
        Some((c, ConditionKind::Alert { alert })) => Fact::of(sentence(&quote(&alert.summary)), c.opened_by),
        Some((c, ConditionKind::ServerDown)) => Fact::of("PostgreSQL did not serve", c.opened_by),
        Some((c, ConditionKind::ServiceUnhealthy { service })) => {
            Fact::of(format!("Service {} was unhealthy", quote(service.as_str())), c.opened_by)
        }
        None => Fact::of("Incident", fallback),
    }
}
