//! Rule `peer-silent`.
//!
//! *Why*: a host that is gone, or a guard that is blind, alarms nobody; the guard beside it can.
//! *Source*: signed words of the other guard, which it says only while it lives and senses; how long none was heard while we listened.
//! *First things to do*: see whether that host is there; see its guard; see the way between.

use std::{collections::BTreeMap, time::Duration};

use model::{EventKind, Moment, Observation, Severity, alert::rule};

use super::{
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{short, span},
};
use crate::settings::{self, duration};

/// The rule's state.
pub(super) struct PeerSilent {
    settings: settings::PeerSilent,
    gate: Gate,
    /// Who, and for how long nothing was heard of it.
    peer: Option<(String, Duration, Moment)>,
}

impl PeerSilent {
    pub(super) fn new(settings: settings::PeerSilent) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { settings, gate, peer: None }
    }
}

impl Rule for PeerSilent {
    fn id(&self) -> &'static str {
        rule::PEER_SILENT
    }

    fn title(&self, _: &Subject) -> String {
        let name = self.peer.as_ref().map_or("another host", |(name, ..)| name);
        format!("The guard {} silent", short(name))
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Event(at, EventKind::PeerWatched { peer, silence, heard }) = observation else { return None };
        let bound = duration(self.settings.silent_s);
        let verdict = if *silence >= bound {
            Verdict::Bad(Severity::Critical)
        } else if *heard && *silence * 2 < bound {
            Verdict::Good
        } else {
            // That we only just began to listen does not bring it back.
            Verdict::Between
        };
        self.peer = Some((peer.clone(), *silence, *at));
        let silent_us = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX);
        let since = Moment {
            wall: at.wall.saturating_sub(*silence).unwrap_or(at.wall),
            boot_us: at.boot_us.saturating_sub(silent_us),
        };
        Some(Judgement { since: Some(since), ..Judgement::instant(*at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some((name, silence, at)) = &self.peer else { return Facts::default() };
        let since = at.wall.saturating_sub(*silence).unwrap_or(at.wall);
        let first = format!("see whether the host of {name} is there: its console, ping, ssh");
        Facts {
            summary: format!("{} hears nothing of the guard {} since {}", subject.host, short(name), span(*silence)),
            details: vec![
                format!("nothing since {}", since.strftime("%Y-%m-%d %H:%M:%S UTC")),
                "its host is gone or frozen, its guard ended, hangs or is blind, or nothing comes through between the two".to_owned(),
            ],
            labels: BTreeMap::from([("peer".to_owned(), name.clone())]),
            next_steps: steps(&[
                &first,
                "there: `oxpecker status`, `systemctl status oxpecker`; a guard that is blind says so",
                "if both are well: a firewall, the address in send_to, the clocks of both (five minutes apart is too far)",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.peer.iter().map(|(name, ..)| format!("{name} is heard again")).collect()
    }
}
