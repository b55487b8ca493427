//! Rule `target-vanished`.
//!
//! *Why*: what is no longer looked at is quiet, and quiet looks well. A watcher whose check died must say so itself.
//! *Source*: for each thing that was once seen (the server's sessions, each checked service) how long ago its newest reading is, against
//! the longest pause that it had before; counted only while the host's own readings come without holes. A server that is known to be
//! down is not looked at, and rule `postgres-down` says so.
//! *First things to do*: read the guard's log; restart the guard; see whether the service is still declared.

use std::{collections::BTreeMap, time::Duration};

use model::{EventKind, Moment, Observation, Reading, Severity, alert::rule};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject},
    text::{short, span},
};
use crate::settings::{self, duration};

/// Things that are watched over.
const MAX_TARGETS: usize = 512;
/// A hole in the host's own readings: all were silent then.
const HOLE: Duration = Duration::from_secs(10);
/// How many times its longest pause something may be silent, and how long a pause counts at the most.
const PAUSES: u32 = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// What the server's readings are called.
const SERVER: &str = "PostgreSQL's sessions";
/// Targets that an alert names.
const NAMED: usize = 8;

struct Seen {
    at: Moment,
    pause: Duration,
}

/// The rule's state.
pub(super) struct TargetVanished {
    settings: settings::TargetVanished,
    gate: Gate,
    seen: BTreeMap<String, Seen>,
    host: Option<Moment>,
    down: bool,
    gone: Vec<(String, Duration)>,
}

impl TargetVanished {
    pub(super) fn new(settings: settings::TargetVanished) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 2,
            lasting: Duration::ZERO,
            clear: Duration::ZERO,
            forget: Duration::ZERO,
            max_gap: HOLE,
        });
        Self { settings, gate, seen: BTreeMap::new(), host: None, down: false, gone: Vec::new() }
    }

    fn saw(&mut self, what: String, at: Moment) {
        if let Some(seen) = self.seen.get_mut(&what) {
            seen.pause = seen.pause.max(at.since(seen.at)).min(LONGEST_PAUSE);
            seen.at = at;
        } else if self.seen.len() < MAX_TARGETS {
            self.seen.insert(what, Seen { at, pause: Duration::ZERO });
        }
    }

    fn silent(&self, now: Moment) -> Vec<(String, Duration)> {
        let least = duration(self.settings.silent_s);
        let known_down = |what: &str| self.down && what == SERVER;
        let silent = |(what, seen): (&String, &Seen)| {
            let silence = now.since(seen.at);
            (silence > least.max(seen.pause * PAUSES) && !known_down(what)).then(|| (what.clone(), silence))
        };
        self.seen.iter().filter_map(silent).collect()
    }
}

impl Rule for TargetVanished {
    fn id(&self) -> &'static str {
        rule::TARGET_VANISHED
    }

    fn title(&self, subject: &Subject) -> String {
        format!("The guard of {} no longer sees all that it watches", subject.cluster)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let host = match observation {
            Observation::Reading(Reading::Activity(activity)) => {
                self.down = false;
                self.saw(SERVER.to_owned(), activity.at);
                return None;
            }
            Observation::Reading(Reading::Service(service)) => {
                self.saw(format!("service {}", service.service), service.at);
                return None;
            }
            Observation::Event(_, EventKind::ServerDown { .. }) => {
                self.down = true;
                return None;
            }
            Observation::Event(at, EventKind::ServerUp { .. }) => {
                self.down = false;
                self.saw(SERVER.to_owned(), *at);
                return None;
            }
            Observation::Reading(Reading::Host(host)) => host,
            _ => return None,
        };
        if self.host.replace(host.at).is_none_or(|before| host.at.since(before) > HOLE) {
            // We were silent ourselves: suspended, starved, or just begun.
            self.seen.values_mut().for_each(|seen| seen.at = host.at);
        }
        self.gone = self.silent(host.at);
        let verdict = if self.gone.is_empty() { Verdict::Good } else { Verdict::Bad(Severity::Warning) };
        Some(Judgement { window: host.window, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some((first, silence)) = self.gone.first() else { return Facts::default() };
        let more = if self.gone.len() > 1 { format!(" and {} more", self.gone.len() - 1) } else { String::new() };
        Facts {
            summary: format!("{}: nothing heard of {}{more} for {}", subject.cluster, short(first), span(*silence)),
            details: self.present(),
            labels: [("target".to_owned(), first.clone())].into(),
            next_steps: vec![
                "see what the guard says of itself: `oxpecker status`, and its log".to_owned(),
                "look at it by hand: until it is seen again, nobody is told when it fails".to_owned(),
                "restart the guard; what it watches is not touched by that".to_owned(),
            ],
        }
    }

    fn present(&self) -> Vec<String> {
        if self.gone.is_empty() {
            return vec!["all that was seen once is seen".to_owned()];
        }
        let line = |(what, silence): &(String, Duration)| format!("{what}: no reading for {}", span(*silence));
        self.gone.iter().take(NAMED).map(line).collect()
    }
}
