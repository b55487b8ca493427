//! Rule `connections-surging`.
//!
//! *Why*: a client that opens connections without a bound takes the last one in seconds, and then nobody gets in who could stop it.
//! [`super::connections`] speaks when few are left; this one while many still are.
//! *Source*: client backends of `pg_stat_activity`, about once a second, against the fewest of the last seconds *and* the most of
//! the last hour: a deploy that closes and opens its pools ends where it was. Who grows is told by role, client, application and
//! database.
//! *First things to do*: keep a way in; stop or bound the client that is named; end its sessions.

use std::{collections::VecDeque, time::Duration};

use model::{
    Moment, Observation, Reading, Severity,
    alert::{label, rule},
    reading::{ConnectionGroup, Connections},
};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{short, span},
};
use crate::settings::{self, duration};

/// Readings of the window that are kept; they come once a second at the most often.
const MAX_RECENT: usize = 128;
/// For how long the most connections are remembered, and in steps of what.
const REMEMBERED: Duration = Duration::from_secs(3_600);
const STEP: Duration = Duration::from_secs(60);
/// The reading before counts even if it is older than the window: the server that was surged on answered late.
const OLDEST: Duration = Duration::from_secs(60);
const MAX_GAP: Duration = Duration::from_secs(60);
/// Groups that an alert names.
const NAMED: usize = 3;
/// From this part of the limit on the rest may be critical.
const HALF: f64 = 0.5;

struct Seen {
    at: Moment,
    used: u32,
    groups: Vec<ConnectionGroup>,
}

/// Growth, as an alert tells it.
struct Growth {
    by: u32,
    within: Duration,
    connections: Connections,
    /// Who grew, and by how many, most first.
    who: Vec<(ConnectionGroup, u32)>,
    /// When the limit is reached, at this rate.
    left: Option<Duration>,
    /// The most that there were before it began.
    peak: u32,
    /// Whether the reading before had grown, too: one jump has no rate.
    goes_on: bool,
}

/// The rule's state.
pub(super) struct ConnectionsSurging {
    settings: settings::ConnectionsSurging,
    gate: Gate,
    recent: VecDeque<Seen>,
    /// The most connections of each minute that left the window.
    peaks: VecDeque<(Moment, u32)>,
    growth: Option<Growth>,
}

impl ConnectionsSurging {
    pub(super) fn new(settings: settings::ConnectionsSurging) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, recent: VecDeque::new(), peaks: VecDeque::new(), growth: None }
    }

    /// Lets what is older than the window go, and remembers how many there were.
    fn forget(&mut self, now: Moment) {
        let window = duration(self.settings.window_s);
        while let Some(first) = self.recent.front() {
            let limit = if self.recent.len() == 1 { OLDEST.max(window) } else { window };
            if now.since(first.at) <= limit && self.recent.len() < MAX_RECENT {
                break;
            }
            let Some(Seen { at, used, .. }) = self.recent.pop_front() else { break };
            match self.peaks.back_mut() {
                Some((since, most)) if at.since(*since) < STEP => *most = (*most).max(used),
                _ => self.peaks.push_back((at, used)),
            }
        }
        while self.peaks.front().is_some_and(|(at, _)| now.since(*at) > REMEMBERED) {
            self.peaks.pop_front();
        }
    }

    fn grown(&self, at: Moment, connections: &Connections) -> Option<Growth> {
        // The newest of the fewest: since then it grew.
        let base = self.recent.iter().rev().min_by_key(|seen| seen.used)?;
        let by = connections.used.saturating_sub(base.used);
        let within = at.since(base.at);
        let count_before = |group: &ConnectionGroup| {
            let same = |other: &&ConnectionGroup| {
                (&other.role, &other.client, &other.application, &other.database)
                    == (&group.role, &group.client, &group.application, &group.database)
            };
            base.groups.iter().find(same).map_or(0, |before| before.count)
        };
        let grew = |group: &ConnectionGroup| (group.clone(), group.count.saturating_sub(count_before(group)));
        let mut who: Vec<_> = connections.groups.iter().map(grew).filter(|(_, by)| *by > 0).collect();
        who.sort_by_key(|(_, by)| std::cmp::Reverse(*by));
        let rate = f64::from(by) / within.as_secs_f64();
        let free = usable(connections).saturating_sub(connections.used);
        let left = (rate > 0.0 && rate.is_finite()).then(|| duration(f64::from(free) / rate));
        let just_before = self.recent.iter().filter(|seen| seen.at.boot_us < base.at.boot_us).map(|seen| seen.used);
        let peak = self.peaks.iter().map(|(_, most)| *most).chain(just_before).max().unwrap_or(0);
        let previous = self.recent.back().map_or(0, |seen| seen.used);
        let goes_on = previous > base.used && connections.used > previous;
        Some(Growth { by, within, connections: connections.clone(), who, left, peak, goes_on })
    }

    fn verdict(&self, growth: &Growth) -> Verdict {
        let usable = f64::from(usable(&growth.connections));
        let used = f64::from(growth.connections.used);
        let floor = f64::from(self.settings.least).max(usable * self.settings.grow_percent / 100.0);
        let by = f64::from(growth.by);
        if by >= floor && used >= f64::from(growth.peak) + floor / 2.0 {
            let soon = growth.left.is_some_and(|left| left <= duration(self.settings.critical_s));
            Verdict::Bad(if soon && growth.goes_on && used >= usable * HALF {
                Severity::Critical
            } else {
                Severity::Warning
            })
        } else if by < floor / 2.0 {
            Verdict::Good
        } else {
            Verdict::Between
        }
    }
}

/// What ordinary clients may use.
fn usable(connections: &Connections) -> u32 {
    connections.max.saturating_sub(connections.reserved)
}

fn group(group: &ConnectionGroup) -> String {
    let application = if group.application.is_empty() { "no application_name" } else { &group.application };
    format!("role {}, client {}, {application}, database {}", group.role, group.client, group.database)
}

impl Rule for ConnectionsSurging {
    fn id(&self) -> &'static str {
        rule::CONNECTIONS_SURGING
    }

    fn title(&self, subject: &Subject) -> String {
        format!("Connections of {} surging", subject.cluster)
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
        self.forget(activity.at);
        self.growth = self.grown(activity.at, connections);
        let verdict = self.growth.as_ref().map_or(Verdict::Good, |growth| self.verdict(growth));
        self.recent.push_back(Seen { at: activity.at, used: connections.used, groups: connections.groups.clone() });
        Some(Judgement::instant(activity.at, verdict))
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(growth) = &self.growth else { return Facts::default() };
        let Growth { by, within, connections, who, left, .. } = growth;
        let top = who.first().map(|(top, _)| top);
        let whose = top.map(|top| format!(": role {}, {}", short(&top.role), top.client)).unwrap_or_default();
        let mut details = vec![format!(
            "{} of {} connections used, {by} more than {} ago",
            connections.used,
            usable(connections),
            span(*within)
        )];
        details.extend(left.map(|left| format!("at this rate none is left in {}", span(left))));
        details.extend(
            who.iter()
                .take(NAMED)
                .map(|(who, by)| format!("{by} more, {} now ({} idle): {}", who.count, who.idle, group(who))),
        );
        let mut labels = std::collections::BTreeMap::new();
        if let Some(top) = top {
            labels.insert("role".to_owned(), top.role.clone());
            labels.insert("client".to_owned(), top.client.clone());
            labels.insert("application".to_owned(), top.application.clone());
            labels.insert(label::DATABASE.to_owned(), top.database.clone());
        }
        Facts {
            summary: format!(
                "{}: connections grew by {by} in {} to {} of {}{whose}",
                subject.cluster,
                span(*within),
                connections.used,
                usable(connections)
            ),
            details,
            labels,
            next_steps: steps(&[
                "keep a way in: open one superuser session now and leave it open",
                "stop the client that is named, or bound it: `ALTER ROLE ... CONNECTION LIMIT n`, or its pool's size",
                "end what it left: `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '...' AND state = 'idle'`",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        let used = |growth: &Growth| {
            format!("{} of {} connections used", growth.connections.used, usable(&growth.connections))
        };
        self.growth.iter().map(used).collect()
    }
}
