//! Why PostgreSQL did not serve, and why connections or memory were short.

use model::{
    EventKind,
    alert::rule,
    event::{Confidence, Died, DownReason},
};

use super::{Case, Link};
use crate::{Cites, Fact, GapKind, describe::describe, words::down_reason};

impl Case<'_> {
    pub(super) fn why_server(&self) -> Vec<Link> {
        let question = "Why did PostgreSQL not serve?";
        let server = &self.incident.server;
        let reasons: Vec<Fact> = server
            .reasons
            .iter()
            .map(|(why, e)| Fact::of(format!("PostgreSQL did not serve: {}", down_reason(*why)), *e))
            .collect();
        let reboot = self.incident.gaps.iter().find(|g| {
            g.kind == GapKind::HostRebooted
                && server.outages.iter().any(|o| o.from <= g.to.max(o.from) && o.until.is_none_or(|end| end >= g.from))
        });
        if let Some(reboot) = reboot {
            let before = server.outages.iter().find(|o| o.from <= reboot.from);
            let first = match before {
                None => Link::established(
                    question,
                    Fact::new(
                        format!("{}; a reboot ends every process", reboot.fact.text()),
                        reboot.fact.cites().clone(),
                    ),
                )
                .seen(reasons),
                Some(outage) => Link::open(
                    question,
                    "it was the host that stopped it",
                    "no event says why it had stopped serving before the host booted anew",
                )
                .seen(
                    Cites::of([outage.opened_by])
                        .map(|c| Fact::new(format!("It stopped serving at {}", outage.from), c)),
                )
                .seen([reboot.fact.clone()])
                .seen(reasons),
            };
            let host = self.why_died(Died::Host, "Why did the host boot anew?").unwrap_or_else(|| Link::open(
                "Why did the host boot anew?",
                "it was starved, crashed or was restarted by someone",
                "no event can say it, for a guard dies with its host: see the kernel's log of the boot before (`journalctl -b -1`) and the provider's watchdog",
            ))
            .seen(self.pressure_alerts().into_iter().chain(self.alert_facts(rule::MEMORY_LOW)));
            return vec![first, host];
        }
        let Some((reason, event)) =
            server.reasons.iter().find(|(r, _)| *r != DownReason::Recovering).or(server.reasons.first())
        else {
            return Vec::new();
        };
        let by_itself = Fact::of(format!("PostgreSQL did not serve: {}", down_reason(*reason)), *event);
        match reason {
            DownReason::OutOfConnections => vec![Link::established(question, by_itself), self.why_connections()],
            DownReason::ShuttingDown => vec![
                Link::established(question, by_itself),
                Link::open(
                    "Why was it shutting down?",
                    "a person, a service manager or a script stopped it",
                    "no event says who asked for it: PostgreSQL's log names the signal, the service manager's log its sender",
                ),
            ],
            DownReason::Refused | DownReason::UnsupportedVersion => vec![Link::established(question, by_itself)],
            _ => vec![self.why_crashed(question, reasons)],
        }
    }

    /// What was found when the death was looked into, after it and within the incident; `None` where nobody did, or nothing was found.
    fn why_died(&self, of: Died, question: &str) -> Option<Link> {
        let found = self.incident.evidence.iter().rev().find_map(|p| match p.kind() {
            EventKind::DeathExplained { death } if death.of == of && p.stamp >= self.incident.start => Some((death, p)),
            _ => None,
        });
        let (death, event) = found?;
        let fact = Fact::of(describe(event.kind()), event.id());
        if death.established.is_some() {
            return Some(Link::established(question, fact));
        }
        let first = death.hypotheses.first()?;
        let open = death.hypotheses.iter().filter(|one| one.confidence > Confidence::Excluded);
        let missing: Vec<&str> = open.flat_map(|one| one.missing.iter().map(String::as_str)).take(3).collect();
        let missing =
            if missing.is_empty() { "proof of it, or of another cause".to_owned() } else { missing.join("; ") };
        Some(Link::open(question, format!("it was {}", first.cause), missing).seen([fact]))
    }

    pub(super) fn why_crashed(&self, question: &str, reasons: Vec<Fact>) -> Link {
        if let Some(found) = self.why_died(Died::Server, question) {
            return found.seen(reasons);
        }
        let restarts = self.incident.evidence.iter().filter_map(|p| match p.kind() {
            EventKind::ServerUp { .. } if p.stamp >= self.incident.start => Some(Fact::of(describe(p.kind()), p.id())),
            _ => None,
        });
        let near = self.pressure_alerts().into_iter().chain(self.alert_facts(rule::MEMORY_LOW));
        Link::open(
            question,
            "it crashed, was killed or was too slow to answer",
            "no event says what happened inside: see the end of PostgreSQL's log before the outage, and the kernel's log for the OOM killer",
        )
        .seen(reasons)
        .seen(restarts)
        .seen(near)
    }

    pub(super) fn why_connections(&self) -> Link {
        Link::open(
            "Why were connections short?",
            "one client took them, or all of them reconnected at once",
            "no event names who held the connections: see pg_stat_activity by role, application and state, and the limits of the pools",
        )
        .seen(self.alert_facts(rule::CONNECTIONS_NEAR_LIMIT))
    }

    pub(super) fn why_memory(&self) -> Link {
        Link::open(
            "Where did the memory go?",
            "one process took it, or all grew together",
            "no event names a process by its memory: see the processes by resident size, and the kernel's log for the OOM killer",
        )
        .seen(self.alert_facts(rule::MEMORY_LOW))
    }
}
