//! When a service counts as unhealthy, and when as healthy again. Pure.

use model::{
    Moment,
    reading::{Health, ServiceReading},
};

use super::seconds;

/// So many failed checks in a row make a service unhealthy: one lost packet is no outage.
pub const FAILURES_TO_UNHEALTHY: u32 = 2;
/// So many good checks in a row make it healthy again: a service that restarts answers once before it is killed again.
pub const SUCCESSES_TO_HEALTHY: u32 = 2;

/// What one check's outcome says.
pub fn of(outcome: &Result<(), String>) -> Health {
    if outcome.is_ok() { Health::Healthy } else { Health::Unhealthy }
}

/// A change of a service's health.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// How it is now.
    pub health: Health,
    /// When the first check of the row that decided ended: earlier than the decision.
    pub since: Moment,
    /// What was wrong, or for how long it was.
    pub detail: String,
}

/// The health that was last told, and the checks since that contradict it.
#[derive(Debug, Default)]
pub struct Hysteresis {
    told: Option<(Health, Moment)>,
    contradicting: u32,
    since: Option<Moment>,
}

impl Hysteresis {
    /// Takes a check's reading in. A service that is healthy from the start changes nothing.
    pub fn observe(&mut self, reading: &ServiceReading) -> Option<Change> {
        let told = self.told.map_or(Health::Healthy, |(health, _)| health);
        if reading.health == told {
            self.contradicting = 0;
            self.since = None;
            self.told.get_or_insert((told, reading.at));
            return None;
        }
        let since = *self.since.get_or_insert(reading.at);
        self.contradicting += 1;
        let needed = match reading.health {
            Health::Unhealthy => FAILURES_TO_UNHEALTHY,
            Health::Healthy => SUCCESSES_TO_HEALTHY,
        };
        if self.contradicting < needed {
            return None;
        }
        let detail = match (reading.health, self.told) {
            (Health::Healthy, Some((_, before))) => format!("it was unhealthy for {}", seconds(since.since(before))),
            _ => reading.detail.clone().unwrap_or_default(),
        };
        self.told = Some((reading.health, since));
        self.contradicting = 0;
        self.since = None;
        Some(Change { health: reading.health, since, detail })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One check a second: `+` good, `-` failed. Returns `second of the change, health, detail`.
    fn story(checks: &str) -> Vec<String> {
        let start = crate::clock::now();
        let mut hysteresis = Hysteresis::default();
        (0u64..)
            .zip(checks.chars())
            .filter_map(|(second, check)| {
                let good = check == '+';
                hysteresis.observe(&ServiceReading {
                    at: start.plus(Duration::from_secs(second)),
                    service: "site".into(),
                    health: if good { Health::Healthy } else { Health::Unhealthy },
                    took: Duration::ZERO,
                    detail: (!good).then(|| "status 503".to_owned()),
                    stopped_by: None,
                })
            })
            .map(|change| format!("{} {:?} {}", change.since.since(start).as_secs(), change.health, change.detail))
            .collect()
    }

    #[test]
    fn changes_need_a_row() {
        for (checks, expected) in [
            ("++++", vec![]),
            ("+-+-+-", vec![]),
            ("+--", vec!["1 Unhealthy status 503"]),
            ("--", vec!["0 Unhealthy status 503"]),
            ("+-----++", vec!["1 Unhealthy status 503", "6 Healthy it was unhealthy for 5 s"]),
            ("--+-+-+", vec!["0 Unhealthy status 503"]),
            ("--++--", vec!["0 Unhealthy status 503", "2 Healthy it was unhealthy for 2 s", "4 Unhealthy status 503"]),
        ] {
            assert_eq!(story(checks), expected, "{checks}");
        }
    }
}
