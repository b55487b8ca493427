//! What those who only use the services are told: what is down, since when, what works, and when the next word comes. Pure.
//!
//! A word is an alert of the rule [`model::alert::rule::MEMBERS_WORD`] that only routes for members carry. One outage is one episode: all
//! its words have its key, and it is kept beside the outbox, so that the next guard goes on and gives the last word. Members are told
//! in the words of `impact`, never in names of services, hosts or rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::tz::TimeZone;
use model::{
    Alert, AlertKey, AlertState, Moment, Observation, Reading, RuleId, ServiceName, Severity,
    alert::{label, rule},
    reading::Health,
};

use crate::Subject;

/// Between two words at least this, whatever changes: what flaps must not fill a chat.
const APART: Duration = Duration::from_secs(60);

/// What a word names at most.
const NAMED: usize = 12;

/// The label that keeps what was said to be down, a line each, for the next guard.
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

/// Decides what members are told.
pub struct Members {
    settings: MembersSettings,
    subject: Subject,
    /// What people lose with each service; those without are not told of.
    impacts: BTreeMap<ServiceName, Vec<String>>,
    seen: BTreeMap<ServiceName, Seen>,
    /// The last word of the open outage, and what it said to be down.
    open: Option<(Alert, BTreeSet<String>)>,
}

impl Members {
    /// `impacts`: what people lose while a service is down, as declared.
    pub fn new(settings: MembersSettings, subject: Subject, impacts: BTreeMap<ServiceName, Vec<String>>) -> Self {
        Self { settings, subject, impacts, seen: BTreeMap::new(), open: None }
    }

    /// Goes on with an outage that the guard before told of.
    pub fn resume(&mut self, word: Alert) {
        let down = word.labels.get(DOWN_LABEL).map(|lines| lines.lines().map(str::to_owned).collect());
        self.open = Some((word, down.unwrap_or_default()));
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
        let (down, since) = self.down(now);
        match &self.open {
            None if down.is_empty() => None,
            None => {
                let since = since.unwrap_or(now);
                let key = format!(
                    "{}/{}/{}-{:x}",
                    rule::MEMBERS_WORD,
                    self.subject.cluster,
                    since.wall.strftime("%Y%m%dT%H%M%SZ"),
                    since.boot_us
                );
                Some(self.say(AlertKey(key), since, now, down))
            }
            Some((last, _)) if down.is_empty() => {
                let word = self.last_word(last, now);
                self.open = None;
                Some(word)
            }
            Some((last, told)) => {
                // The boot clock begins anew with the host.
                let ago =
                    if now.boot_us >= last.decided.boot_us { now.since(last.decided) } else { self.settings.every };
                let due = ago >= self.settings.every || (*told != down && ago >= APART);
                let (key, since) = (last.key.clone(), last.since);
                due.then(|| self.say(key, since, now, down))
            }
        }
    }

    /// What is down for long enough, or was said to be and is not back for long enough; and since when.
    fn down(&self, now: Moment) -> (BTreeSet<String>, Option<Moment>) {
        let told = self.open.as_ref().map(|(_, down)| down);
        let mut down = BTreeSet::new();
        let mut since: Option<Moment> = None;
        for (service, impacts) in &self.impacts {
            let seen = self.seen.get(service);
            let for_long = seen.is_some_and(|seen| now.since(seen.since) >= self.settings.after);
            for impact in impacts {
                let was_told = told.is_some_and(|told| told.contains(impact));
                let is_down = match seen.map(|seen| seen.health) {
                    Some(Health::Unhealthy) => for_long || was_told,
                    Some(Health::Healthy) => was_told && !for_long && told.is_some(),
                    // Nobody has looked since: what was said holds.
                    None => was_told,
                };
                if is_down {
                    down.insert(impact.clone());
                    let began = seen.filter(|seen| seen.health == Health::Unhealthy).map(|seen| seen.since);
                    since = [since, began].into_iter().flatten().min_by_key(|moment| moment.boot_us);
                }
            }
        }
        (down, since)
    }

    /// What is known to work.
    fn working(&self, down: &BTreeSet<String>) -> BTreeSet<&str> {
        let well = |service: &ServiceName| self.seen.get(service).is_some_and(|seen| seen.health == Health::Healthy);
        let mut unknown = BTreeSet::new();
        let mut working = BTreeSet::new();
        for (service, impacts) in &self.impacts {
            let all = if well(service) { &mut working } else { &mut unknown };
            all.extend(impacts.iter().map(String::as_str));
        }
        working.into_iter().filter(|impact| !unknown.contains(impact) && !down.contains(*impact)).collect()
    }

    fn say(&mut self, key: AlertKey, since: Moment, now: Moment, down: BTreeSet<String>) -> Alert {
        let mut details = vec![format!("Since {}: {}.", self.time(since), listed(down.iter().map(String::as_str)))];
        let working = self.working(&down);
        if !working.is_empty() {
            details.push(format!("Working: {}.", listed(working)));
        }
        if self.settings.team_is_told {
            details.push("Those in charge have been told.".to_owned());
        }
        let next = now.plus(self.settings.every);
        details.push(format!("Next word by {}, or as soon as this changes.", self.time(next)));
        let summary = format!("Not working: {}", listed(down.iter().map(String::as_str)));
        let lines: Vec<&str> = down.iter().map(String::as_str).collect();
        let labels = BTreeMap::from([
            (label::CLUSTER.to_owned(), self.subject.cluster.clone()),
            (DOWN_LABEL.to_owned(), lines.join("\n")),
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

    fn last_word(&self, last: &Alert, now: Moment) -> Alert {
        let minutes = now.wall.duration_since(last.since.wall).as_secs().max(0).div_euclid(60).max(1);
        let minutes = if minutes == 1 { "a minute".to_owned() } else { format!("{minutes} minutes") };
        let down = last.labels.get(DOWN_LABEL).map_or("", String::as_str);
        let times = format!("from {} to {}, {minutes}", self.time(last.since), self.time(now));
        Alert {
            state: AlertState::Resolved,
            decided: now,
            summary: "Everything works again".to_owned(),
            details: vec![format!("Was not working, {times}: {}.", listed(down.lines()))],
            ..last.clone()
        }
    }

    fn time(&self, moment: Moment) -> String {
        moment.wall.to_zoned(self.settings.zone.clone()).strftime("%-d %b %H:%M %Z").to_string()
    }
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
        assert!(third.details[0].starts_with("Since 24 Nov 15:02"), "{:?}", third.details);

        service(&mut members, 2_000, "gate", Health::Healthy);
        service(&mut members, 2_000, "bot", Health::Healthy);
        assert!((2_000..2_060).all(|s| members.word(at(s)).is_none()));
        let last = members.word(at(2_060)).unwrap();
        assert_eq!((last.summary.as_str(), last.state), ("Everything works again", AlertState::Resolved));
        assert_eq!(
            last.details,
            [
                "Was not working, from 24 Nov 15:02 +01 to 24 Nov 15:36 +01, 34 minutes: moderation, the entry gate and welcome messages."
            ]
        );
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
