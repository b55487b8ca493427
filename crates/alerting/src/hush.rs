//! What people said about alerts: silences that end by themselves, and acknowledgements. Who is told of what, and when: pure.

mod book;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use model::{Alert, AlertKey};
use serde::{Deserialize, Serialize};

pub use self::book::{Book, HushError};
use crate::route::{Matches, Route, matches_labels};

/// Silences that are kept.
pub const MAX_SILENCES: usize = 200;
/// Acknowledgements that are kept; the oldest go.
pub const MAX_ACKS: usize = 1_000;
/// The longest silence: what is silent for longer is a rule that should be switched off where all can see it.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(31 * 24 * 3600);

/// Alerts with these labels are told to nobody for a time. They still go to the log and the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its name: short, for people to type.
    pub id: String,
    /// Which alerts: as a route matches; with no label all of them.
    pub matches: Matches,
    /// Since when.
    pub since: Timestamp,
    /// Until when; it ends by itself.
    pub until: Timestamp,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Silence {
    /// Whether it keeps this alert back now.
    pub fn covers(&self, alert: &Alert, now: Timestamp) -> bool {
        now < self.until && matches_labels(&self.matches, alert)
    }
}

/// Somebody has seen an alert and works on it: it is not escalated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which episode.
    pub key: AlertKey,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
}

/// All that was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hush {
    /// Silences, oldest first.
    pub silences: Vec<Silence>,
    /// Acknowledgements, oldest first.
    pub acks: Vec<Ack>,
}

impl Hush {
    /// The silence that keeps this alert back now; of several the one that lasts longest.
    pub fn silence(&self, alert: &Alert, now: Timestamp) -> Option<&Silence> {
        self.silences.iter().filter(|silence| silence.covers(alert, now)).max_by_key(|silence| silence.until)
    }

    /// Who acknowledged this episode.
    pub fn ack(&self, key: &AlertKey) -> Option<&Ack> {
        self.acks.iter().find(|ack| ack.key == *key)
    }

    /// Forgets what is over.
    pub fn prune(&mut self, now: Timestamp) {
        self.silences.retain(|silence| now < silence.until);
        let excess = self.acks.len().saturating_sub(MAX_ACKS);
        self.acks.drain(..excess);
    }
}

/// The routes that are to be told of an open alert now, and were not yet: those that carry it, unless a silence keeps it back; and those that
/// it is escalated to, once nobody acknowledged it for as long as they say. `age`: since the decision.
pub fn due<'a>(
    routes: &'a [Route],
    alert: &'a Alert,
    told: &'a BTreeSet<String>,
    hush: &Hush,
    age: Duration,
    now: Timestamp,
) -> impl Iterator<Item = &'a Route> {
    let silent = hush.silence(alert, now).is_some();
    let acknowledged = hush.ack(&alert.key).is_some();
    routes.iter().filter(move |route| {
        let in_time = route.escalate_after.is_none_or(|after| !acknowledged && age >= after);
        !silent && in_time && !told.contains(&route.name) && route.carries(alert)
    })
}

#[cfg(test)]
mod tests {
    use model::AlertState;

    use super::*;
    use crate::{
        route::{Carrier, Command},
        testing::alert,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn silence(label: &str, value: &str, until: i64) -> Silence {
        let matches = [(label.to_owned(), vec![value.to_owned()])].into();
        Silence {
            id: format!("s{until}"),
            matches,
            since: at(0),
            until: at(until),
            by: "eva".into(),
            why: "deploy".into(),
        }
    }

    fn route(name: &str, escalate_after: Option<u64>) -> Route {
        Route {
            name: name.into(),
            min_severity: model::Severity::Info,
            matches: Matches::new(),
            escalate_after: escalate_after.map(Duration::from_secs),
            members: false,
            carrier: Carrier::Command(Command { argv: vec!["/bin/true".into()] }),
        }
    }

    fn told(routes: &[Route], told: &[&str], hush: &Hush, age: u64) -> Vec<String> {
        let told = told.iter().map(|name| (*name).to_owned()).collect();
        let alert = alert("k", AlertState::Firing);
        due(routes, &alert, &told, hush, Duration::from_secs(age), at(100)).map(|route| route.name.clone()).collect()
    }

    #[test]
    fn who_is_told_and_when() {
        let routes = [route("team", None), route("boss", Some(600))];
        let none = Hush::default();
        let acked =
            Hush { acks: vec![Ack { key: AlertKey("k".into()), at: at(1), by: "eva".into() }], ..Hush::default() };
        let other =
            Hush { acks: vec![Ack { key: AlertKey("x".into()), at: at(1), by: "eva".into() }], ..Hush::default() };
        let silent = |label, value, until| Hush { silences: vec![silence(label, value, until)], ..Hush::default() };
        for (already, hush, age, expected) in [
            (&[][..], &none, 0, &["team"][..]),
            (&["team"], &none, 599, &[]),
            (&["team"], &none, 600, &["boss"]),
            (&[], &none, 600, &["team", "boss"]),
            (&["team", "boss"], &none, 9_000, &[]),
            (&["team"], &acked, 9_000, &[]),
            (&["team"], &other, 9_000, &["boss"]),
            (&[], &silent("cluster", "main", 101), 9_000, &[]),
            (&[], &silent("rule", "cpu-saturated", 101), 0, &[]),
            (&[], &silent("rule", "memory-low", 101), 0, &["team"]),
            // It is over: what still holds is told.
            (&[], &silent("cluster", "main", 100), 0, &["team"]),
        ] {
            assert_eq!(told(&routes, already, hush, age), expected, "{already:?} {age} {hush:?}");
        }
    }

    #[test]
    fn of_several_silences_the_longest_is_named_and_what_is_over_is_forgotten() {
        let mut hush = Hush {
            silences: vec![
                silence("cluster", "main", 50),
                silence("cluster", "main", 300),
                silence("cluster", "main", 200),
            ],
            acks: (0..1_005).map(|n| Ack { key: AlertKey(n.to_string()), at: at(n), by: "eva".into() }).collect(),
        };
        let alert = alert("k", AlertState::Firing);
        assert_eq!(hush.silence(&alert, at(100)).unwrap().id, "s300");
        hush.prune(at(100));
        assert_eq!(hush.silences.len(), 2);
        assert_eq!((hush.acks.len(), hush.acks[0].at), (MAX_ACKS, at(5)));
        assert_eq!(hush.silence(&alert, at(300)), None);
    }
}
