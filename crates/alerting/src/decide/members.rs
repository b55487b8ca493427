//! What those who only use the services are told: what is down, since when, what works, and when the next word comes. Pure.
//!
//! A word is an alert of the rule [`model::alert::rule::MEMBERS_WORD`] that only routes for members carry. One outage is one episode: all
//! its words have its key, and it is kept beside the outbox, so that the next guard goes on and gives the last word. Members are told
//! in the words of `impact`, never in names of services, hosts or rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use model::{
    Alert, AlertKey, AlertState, Moment, Observation, Reading, RuleId, ServiceName, Severity,
    alert::{label, rule},
    reading::Health,
};

use super::Subject;

/// Between two words at least this, whatever changes: what flaps must not fill a chat.
const APART: Duration = Duration::from_secs(60);

/// What a word names at most.
const NAMED: usize = 12;

/// The label that keeps what was said to be down, and since when, as JSON: for the next guard.
const DOWN_LABEL: &str = "down";

/// When members are told.
#[derive(Clone, Debug, PartialEq)]
pub struct MembersSettings {
    /// How long something must be down before it is worth a word, and up before it counts as back.
    pub after: Duration,
    /// From one word to the next, while nothing changes.
    pub every: Duration,
    /// In which zone times are told.
    pub zone: TimeZone,
    /// Whether anybody else is told of alerts: members are told so.
    pub team_is_told: bool,
}

/// How a service is.
#[derive(Clone, Copy)]
struct Seen {
    health: Health,
    since: Moment,
}

/// What is down, each since when.
type Down = BTreeMap<String, Timestamp>;

/// Decides what members are told.
pub struct Members {
    settings: MembersSettings,
    subject: Subject,
    /// What people lose with each service; those without are not told of.
    impacts: BTreeMap<ServiceName, Vec<String>>,
    seen: BTreeMap<ServiceName, Seen>,
    /// The last word of the open outage, and what it said to be down.
    open: Option<(Alert, Down)>,
}

impl Members {
    /// `impacts`: what people lose while a service is down, as declared.
    pub fn new(settings: MembersSettings, subject: Subject, impacts: BTreeMap<ServiceName, Vec<String>>) -> Self {
        Self { settings, subject, impacts, seen: BTreeMap::new(), open: None }
    }

    /// Goes on with an outage that the guard before told of.
    pub fn resume(&mut self, word: Alert) {
        let down = word.labels.get(DOWN_LABEL).and_then(|label| serde_json::from_str::<Down>(label).ok());
        let mut down = down.unwrap_or_default();
        // What no service declares any more, nobody will see come back.
        down.retain(|impact, _| self.impacts.values().flatten().any(|declared| declared == impact));
        self.open = Some((word, down));
    }

    /// The word that is due.
    #[must_use = "it is to be delivered"]
    pub fn observe(&mut self, observation: &Observation) -> Option<Alert> {
        match observation {
            Observation::Reading(Reading::Service(reading)) if self.impacts.contains_key(&reading.service) => {
                let (health, since) = (reading.health, reading.at);
                let changed = self.seen.get(&reading.service).is_none_or(|seen| seen.health != health);
                if changed {
                    self.seen.insert(reading.service.clone(), Seen { health, since });
                }
                None
            }
            Observation::Reading(Reading::Host(host)) => self.word(host.at),
            _ => None,
        }
    }

    fn word(&mut self, now: Moment) -> Option<Alert> {
        let down = self.down(now);
        match &self.open {
            None if down.is_empty() => None,
            None => {
                let first = down.values().min().copied().unwrap_or(now.wall);
                let stamp = first.strftime("%Y%m%dT%H%M%SZ");
                let key = format!("{}/{}/{stamp}-{:x}", rule::MEMBERS_WORD, self.subject.cluster, now.boot_us);
                let ago = Duration::try_from(now.wall.duration_since(first)).unwrap_or_default();
                let boot_us = now.boot_us.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX));
                Some(self.say(AlertKey(key), Moment { wall: first, boot_us }, now, down))
            }
            Some((last, told)) if down.is_empty() => {
                let word = self.last_word(last, told, now);
                self.open = None;
                Some(word)
            }
            Some((last, told)) => {
                // The boot clock begins anew with the host.
                let ago =
                    if now.boot_us >= last.decided.boot_us { now.since(last.decided) } else { self.settings.every };
                let changed = !told.keys().eq(down.keys());
                let due = ago >= self.settings.every || (changed && ago >= APART);
                let (key, since) = (last.key.clone(), last.since);
                due.then(|| self.say(key, since, now, down))
            }
        }
    }

    /// What is down for long enough, or was said to be and is not back for long enough; each since when.
    fn down(&self, now: Moment) -> Down {
        let mut down = Down::new();
        for (service, impacts) in &self.impacts {
            let seen = self.seen.get(service);
            let for_long = seen.is_some_and(|seen| now.since(seen.since) >= self.settings.after);
            for impact in impacts {
                let told = self.open.as_ref().and_then(|(_, down)| down.get(impact).copied());
                let since = match seen.map(|seen| (seen.health, seen.since.wall)) {
                    // What was said to be down since then is down since then, whatever flapped meanwhile.
                    Some((Health::Unhealthy, since)) if for_long || told.is_some() => Some(told.unwrap_or(since)),
                    Some((Health::Healthy, _)) if for_long => None,
                    Some((Health::Unhealthy, _)) => None,
                    // Not back for long enough, or nobody has looked since: what was said holds.
                    Some((Health::Healthy, _)) | None => told,
                };
                if let Some(since) = since {
                    let first = down.entry(impact.clone()).or_insert(since);
                    *first = since.min(*first);
                }
            }
        }
        down
    }

    /// When the last of the services that bring it was back.
    fn back(&self, impact: &str, now: Moment) -> Timestamp {
        let bring = self.impacts.iter().filter(|(_, impacts)| impacts.iter().any(|one| one == impact));
        bring.filter_map(|(service, _)| Some(self.seen.get(service)?.since.wall)).max().unwrap_or(now.wall)
    }

    /// What is known to work.
    fn working(&self, down: &Down) -> BTreeSet<&str> {
        let well = |service: &ServiceName| self.seen.get(service).is_some_and(|seen| seen.health == Health::Healthy);
        let mut unknown = BTreeSet::new();
        let mut working = BTreeSet::new();
        for (service, impacts) in &self.impacts {
            let all = if well(service) { &mut working } else { &mut unknown };
            all.extend(impacts.iter().map(String::as_str));
        }
        working.into_iter().filter(|impact| !unknown.contains(impact) && !down.contains_key(*impact)).collect()
    }

    fn say(&mut self, key: AlertKey, since: Moment, now: Moment, down: Down) -> Alert {
        let mut details = grouped(down.iter().map(|(impact, since)| (format!("Since {}", self.time(*since)), impact)));
        let working = self.working(&down);
        if !working.is_empty() {
            details.push(format!("Working: {}.", listed(working)));
        }
        if self.settings.team_is_told {
            details.push("Those in charge have been told.".to_owned());
        }
        let next = now.plus(self.settings.every);
        details.push(format!("Next word by {}, or as soon as this changes.", self.time(next.wall)));
        let summary = format!("Not working: {}", listed(down.keys().map(String::as_str)));
        let labels = BTreeMap::from([
            (label::CLUSTER.to_owned(), self.subject.cluster.clone()),
            (DOWN_LABEL.to_owned(), serde_json::json!(down).to_string()),
        ]);
        let word = Alert {
            key,
            rule: RuleId::from(rule::MEMBERS_WORD),
            severity: Severity::Info,
            state: AlertState::Firing,
            since,
            decided: now,
            summary,
            details,
            next_steps: Vec::new(),
            labels,
        };
        self.open = Some((word.clone(), down));
        word
    }

    fn last_word(&self, last: &Alert, told: &Down, now: Moment) -> Alert {
        let (summary, details) = if told.is_empty() {
            ("No longer watched".to_owned(), vec!["What was told before is no longer watched.".to_owned()])
        } else {
            let lasted = told.iter().map(|(impact, since)| {
                let back = self.back(impact, now);
                let minutes = back.duration_since(*since).as_secs().max(0).div_euclid(60);
                let minutes = match minutes {
                    0 => "less than a minute".to_owned(),
                    1 => "a minute".to_owned(),
                    minutes => format!("{minutes} minutes"),
                };
                (format!("From {} to {}, {minutes}", self.time(*since), self.time(back)), impact)
            });
            (format!("Working again: {}", listed(told.keys().map(String::as_str))), grouped(lasted))
        };
        Alert { state: AlertState::Resolved, decided: now, summary, details, ..last.clone() }
    }

    fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.settings.zone.clone()).strftime("%-d %b %H:%M %Z").to_string()
    }
}

/// A line for each time, with all that it is true of.
fn grouped<'a>(each: impl Iterator<Item = (String, &'a String)>) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (time, impact) in each {
        match groups.iter_mut().find(|(known, _)| *known == time) {
            Some((_, impacts)) => impacts.push(impact),
            None => groups.push((time, vec![impact])),
        }
    }
    groups.into_iter().map(|(time, impacts)| format!("{time}: {}.", listed(impacts))).collect()
}

/// `a, b and c`; what does not fit is counted.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] if names.len() <= NAMED => format!("{} and {last}", first.join(", ")),
        all => format!("{} and {} more", all[..NAMED].join(", "), all.len() - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use model::reading::ServiceReading;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { wall: "2026-11-24T14:02:00Z".parse().unwrap(), boot_us: 1 }.plus(Duration::from_secs(seconds))
    }

    fn members() -> Members {
        let impacts = [
            ("gate", vec!["the entry gate"]),
            ("bot", vec!["moderation", "welcome messages"]),
            ("mail", vec!["e-mail"]),
            ("cache", vec![]),
        ];
        let impacts = impacts.into_iter().map(|(name, of)| (name.into(), of.into_iter().map(str::to_owned).collect()));
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let settings = MembersSettings {
            after: Duration::from_secs(60),
            every: Duration::from_secs(1800),
            zone,
            team_is_told: true,
        };
        Members::new(settings, Subject { cluster: "main".into(), host: "db1".into() }, impacts.collect())
    }

    fn service(members: &mut Members, seconds: u64, name: &str, health: Health) {
        let (took, detail) = (Duration::ZERO, None);
        let reading = ServiceReading { at: at(seconds), service: name.into(), health, took, detail, stopped_by: None };
        assert_eq!(members.observe(&Observation::Reading(Reading::Service(reading))), None);
    }

    #[test]
    fn an_outage_is_told_from_its_begin_to_its_end() {
        let mut members = members();
        for name in ["gate", "bot", "mail", "cache"] {
            service(&mut members, 0, name, Health::Healthy);
        }
        service(&mut members, 10, "gate", Health::Unhealthy);
        // What nobody loses anything by is nobody's business.
        service(&mut members, 10, "cache", Health::Unhealthy);
        assert_eq!(members.word(at(69)), None);
        let first = members.word(at(70)).unwrap();
        assert_eq!(first.summary, "Not working: the entry gate");
        assert_eq!(
            first.details,
            [
                "Since 24 Nov 15:02 +01: the entry gate.",
                "Working: e-mail, moderation and welcome messages.",
                "Those in charge have been told.",
                "Next word by 24 Nov 15:33 +01, or as soon as this changes.",
            ]
        );
        assert_eq!((first.state, first.since), (AlertState::Firing, at(10)));
        assert!((71..130).all(|s| members.word(at(s)).is_none()));

        // What changes is told, though not within a minute of the last word.
        service(&mut members, 75, "bot", Health::Unhealthy);
        let second = members.word(at(136)).unwrap();
        assert_eq!(second.summary, "Not working: moderation, the entry gate and welcome messages");
        assert_eq!((&second.key, second.since), (&first.key, first.since));
        assert_eq!(members.word(at(1_935)), None);
        let third = members.word(at(1_936)).unwrap();
        // Each since when it was down, not all since the first.
        let since =
            ["Since 24 Nov 15:03 +01: moderation and welcome messages.", "Since 24 Nov 15:02 +01: the entry gate."];
        assert_eq!(third.details[..2], since);

        service(&mut members, 2_000, "gate", Health::Healthy);
        service(&mut members, 2_000, "bot", Health::Healthy);
        assert!((2_000..2_060).all(|s| members.word(at(s)).is_none()));
        let last = members.word(at(2_060)).unwrap();
        let again = "Working again: moderation, the entry gate and welcome messages";
        assert_eq!((last.summary.as_str(), last.state), (again, AlertState::Resolved));
        // Until it was back, not until that was certain.
        let lasted = [
            "From 24 Nov 15:03 +01 to 24 Nov 15:35 +01, 32 minutes: moderation and welcome messages.",
            "From 24 Nov 15:02 +01 to 24 Nov 15:35 +01, 33 minutes: the entry gate.",
        ];
        assert_eq!(last.details, lasted);
        assert_eq!(last.key, first.key);
        assert!((2_061..9_000).all(|s| members.word(at(s)).is_none()));
    }

    #[test]
    fn the_next_guard_goes_on_and_gives_the_last_word() {
        let mut first = members();
        service(&mut first, 0, "gate", Health::Unhealthy);
        let word = first.word(at(60)).unwrap();
        let mut second = members();
        second.resume(word.clone());
        // It does not know yet: what was said holds, and nothing is said twice.
        assert!((61..600).all(|s| second.word(at(s)).is_none()));
        service(&mut second, 600, "gate", Health::Healthy);
        assert_eq!(second.word(at(659)), None);
        let last = second.word(at(660)).unwrap();
        assert_eq!((&last.key, last.state), (&word.key, AlertState::Resolved));
    }

    #[test]
    fn what_is_no_longer_declared_is_not_said_to_work() {
        let mut first = members();
        service(&mut first, 0, "gate", Health::Unhealthy);
        let word = first.word(at(60)).unwrap();
        let mut second = members();
        second.impacts.remove(&ServiceName::from("gate"));
        second.resume(word);
        assert_eq!(second.word(at(61)).unwrap().summary, "No longer watched");
    }

    #[test]
    fn what_flaps_is_one_outage() {
        let mut members = members();
        let mut words = 0;
        for second in 0..3_600 {
            let health = if second % 40 < 20 { Health::Unhealthy } else { Health::Healthy };
            service(&mut members, second, "gate", health);
            words += usize::from(members.word(at(second)).is_some());
        }
        assert_eq!(words, 0, "never down for a minute");
        assert_eq!(listed((0..20).map(|_| "x")).matches('x').count(), NAMED);
    }
}
