//! Rule `guard-was-silent`.
//!
//! *Why*: what began and ended while nobody watched was told to nobody, and a guard that is killed again and again is none.
//! *Source*: the guard's own word at its start, from the newest thing that the guard before wrote down; and its sampler's, whose clock shows
//! that it did not run. One that was stopped in an orderly way is no news: somebody did that.
//! *First things to do*: see what ended it; see what happened meanwhile; make it hard to end.

use std::{collections::BTreeMap, time::Duration};

use model::{EventKind, Moment, Observation, Severity, alert::rule, event::SilentBy};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::span,
};
use crate::settings::{self, duration};

/// The newest silence that counted.
struct Silence {
    ended: Moment,
    lasted: Duration,
    by: SilentBy,
    cause: String,
}

/// The rule's state.
pub(super) struct GuardWasSilent {
    settings: settings::GuardWasSilent,
    gate: Gate,
    newest: Option<Silence>,
}

impl GuardWasSilent {
    pub(super) fn new(settings: settings::GuardWasSilent) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { settings, gate, newest: None }
    }
}

fn in_short(by: SilentBy) -> &'static str {
    match by {
        SilentBy::Stopped => "the guard had been stopped",
        SilentBy::Killed => "the guard was killed or crashed",
        SilentBy::Rebooted => "the host went down",
        SilentBy::Suspended => "the host was suspended",
        SilentBy::Starved => "the guard got no CPU, or was halted",
        SilentBy::Unknown => "nobody knows why",
    }
}

impl Rule for GuardWasSilent {
    fn id(&self) -> &'static str {
        rule::GUARD_WAS_SILENT
    }

    fn title(&self, subject: &Subject) -> String {
        format!("The guard of {} is back on {}", subject.cluster, subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        match observation {
            Observation::Event(at, EventKind::GuardWasSilent { silence, cause, by }) => {
                if *by == SilentBy::Stopped || *silence < duration(self.settings.longer_than_s) {
                    return None;
                }
                self.newest = Some(Silence { ended: *at, lasted: *silence, by: *by, cause: cause.clone() });
                Some(Judgement::instant(*at, Verdict::Bad(Severity::Warning)))
            }
            Observation::Reading(model::Reading::Host(host)) => {
                Some(Judgement { window: host.window, ..Judgement::instant(host.at, Verdict::Good) })
            }
            _ => None,
        }
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(silence) = &self.newest else { return Facts::default() };
        let first = match silence.by {
            SilentBy::Rebooted => "see why the host went down: `oxpecker status`, `oxpecker incident report`",
            SilentBy::Suspended => "see who suspended or froze the machine: its hypervisor's log; a snapshot, a move",
            SilentBy::Starved => {
                "see what took the CPU, or who halted it: `oxpecker incident report`, the host's graphs"
            }
            SilentBy::Stopped | SilentBy::Killed | SilentBy::Unknown => {
                "see who ended it: `journalctl -u oxpecker`, `dmesg -T | grep -i 'killed process'`"
            }
        };
        Facts {
            summary: format!(
                "Nobody watched {} on {} for {}: {}",
                subject.cluster,
                subject.host,
                span(silence.lasted),
                in_short(silence.by)
            ),
            details: self.present(),
            labels: BTreeMap::from([("silent_by".to_owned(), silence.by.name().to_owned())]),
            next_steps: steps(&[
                first,
                "see what happened meanwhile: PostgreSQL's log, the services' logs; of that time no alarm was sent",
                "make sure that the next silence is missed: [alert.heartbeat]; Restart=always, WatchdogSec=, OOMScoreAdjust=-900",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        let Some(Silence { ended, lasted, cause, .. }) = &self.newest else { return Vec::new() };
        let began = ended.wall.saturating_sub(*lasted).unwrap_or(jiff::Timestamp::MIN);
        let when = |at: jiff::Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        vec![cause.clone(), format!("silent from {} to {}", when(began), when(ended.wall))]
    }
}
