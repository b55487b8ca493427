//! Five whys: from what people felt to what started it, each link proved by events or said to be not established.
//!
//! What counts as proof of a cause is an act and what followed: a vacuum was slowed, its workers obeyed, and the pressure fell. That a
//! vacuum used much CPU while the host was saturated is an association and is shown as no more. That two things failed and recovered
//! together is one as well, unless the configuration declares that one needs the other.

mod server;
mod services;
mod vacuum;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    EventId, EventKind, ProcessId, ServiceName,
    alert::{label, rule},
};
use serde::Serialize;

use crate::{
    Cites, Fact, Incident, ServiceImpact, Statement, VacuumFacts,
    timeline::edges,
    words::{self, count, duration, list, quote},
};

/// Facts that are shown beside one link.
const MAX_SEEN: usize = 6;

/// A chain of whys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// From what was felt to what started it.
    pub links: Vec<Link>,
}

/// One why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// The question.
    pub question: String,
    /// The answer, or that there is none.
    pub verdict: Verdict,
    /// What was seen that bears on it, without proving it.
    pub seen: Vec<Statement>,
}

/// Whether a link holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Verdict {
    /// The cited events prove it.
    Established(Fact),
    /// They do not.
    NotEstablished {
        /// What is supposed, as a clause after "whether".
        whether: String,
        /// What is missing.
        missing: String,
    },
}

impl Diagnosis {
    /// The deepest link that is established without a break before it; the first link only says what was wrong and is no cause.
    pub fn cause(&self) -> Option<&Fact> {
        let unbroken = self.links.iter().map_while(|link| match &link.verdict {
            Verdict::Established(fact) => Some(fact),
            Verdict::NotEstablished { .. } => None,
        });
        unbroken.skip(1).last()
    }

    /// The first link that is not established.
    pub fn break_at(&self) -> Option<&Link> {
        self.links.iter().find(|l| matches!(l.verdict, Verdict::NotEstablished { .. }))
    }
}

impl Link {
    pub(super) fn established(question: &str, fact: Fact) -> Self {
        Self { question: question.to_owned(), verdict: Verdict::Established(fact), seen: Vec::new() }
    }

    pub(super) fn open(question: &str, whether: impl AsRef<str>, missing: impl AsRef<str>) -> Self {
        let verdict = Verdict::NotEstablished {
            whether: words::one_line(whether.as_ref()),
            missing: words::one_line(missing.as_ref()),
        };
        Self { question: question.to_owned(), verdict, seen: Vec::new() }
    }

    pub(super) fn seen(mut self, seen: impl IntoIterator<Item = impl Into<Statement>>) -> Self {
        self.seen.extend(seen.into_iter().map(Into::into));
        self.seen.truncate(MAX_SEEN);
        self
    }
}

/// The whys of an incident.
pub fn diagnose(incident: &Incident) -> Diagnosis {
    let case = Case::of(incident);
    let mut links = vec![case.wrong()];
    if !case.harmed.is_empty() {
        links.push(case.why_services());
    }
    if !incident.server.outages.is_empty() {
        links.extend(case.why_server());
    } else if incident.alerts_of(rule::CONNECTIONS_NEAR_LIMIT).next().is_some() {
        links.push(case.why_connections());
    }
    if case.pressed() {
        links.push(case.why_pressure());
        if !case.suspects.is_empty() || !incident.throttles.is_empty() {
            links.push(case.why_so_fast());
            links.push(case.why_then());
        }
    }
    if incident.alerts_of(rule::MEMORY_LOW).next().is_some() {
        links.push(case.why_memory());
    }
    if links.len() == 1 {
        links.push(Link::open(
            "Why?",
            "the events of this incident have a common cause",
            "no event names a server, a connection limit, a saturated CPU or a vacuum that it could be put down to",
        ));
    }
    Diagnosis { links }
}

/// An incident and what several links ask about it.
struct Case<'a> {
    incident: &'a Incident,
    harmed: Vec<&'a ServiceImpact>,
    /// Vacuums that an alert or the governor named; where none did and the CPU was saturated, all that ran.
    suspects: Vec<&'a VacuumFacts>,
    /// What each service is declared to need, with the event that says so.
    needs: BTreeMap<&'a ServiceName, (&'a [ServiceName], EventId)>,
}

impl<'a> Case<'a> {
    fn of(incident: &'a Incident) -> Self {
        let harmed = incident.services.iter().filter(|s| s.harmed()).collect();
        let needs = incident.evidence.iter().filter_map(|p| match p.kind() {
            EventKind::ServiceDeclared { service, depends_on, .. } => Some((service, (depends_on.as_slice(), p.id()))),
            _ => None,
        });
        let mut case = Self { incident, harmed, suspects: Vec::new(), needs: needs.collect() };
        case.suspects = case.suspects();
        case
    }

    fn suspects(&self) -> Vec<&'a VacuumFacts> {
        let mut held: BTreeSet<ProcessId> =
            self.incident.throttles.iter().flat_map(|t| t.workers.iter().copied()).collect();
        for p in &self.incident.evidence {
            if let EventKind::ThrottleProposed { workers, .. } = p.kind() {
                held.extend(workers.iter().copied());
            }
        }
        let alerted = |v: &VacuumFacts| {
            self.incident.alerts_of(rule::VACUUM_STARVES_HOST).any(|(_, alert)| {
                let pid = alert.labels.get(label::PID).is_some_and(|pid| *pid == v.process.pid.to_string());
                let table =
                    v.table.as_ref().is_some_and(|t| alert.labels.get(label::TABLE).is_some_and(|l| l == t.as_str()));
                pid || table
            })
        };
        let ran = |v: &&VacuumFacts| v.gone.is_none_or(|(gone, _)| gone >= self.incident.start);
        let vacuums = self.incident.vacuums.iter().filter(ran);
        let named: Vec<_> = vacuums.clone().filter(|v| held.contains(&v.process) || alerted(v)).collect();
        if named.is_empty() && self.pressed() { vacuums.collect() } else { named }
    }

    /// Whether anything says that CPU was short.
    pub(super) fn pressed(&self) -> bool {
        let alert = |name| self.incident.alerts_of(name).next().is_some();
        alert(rule::CPU_SATURATED)
            || alert(rule::VACUUM_STARVES_HOST)
            || !self.incident.throttles.is_empty()
            || self.incident.evidence.iter().any(|p| matches!(p.kind(), EventKind::ThrottleProposed { .. }))
    }

    fn wrong(&self) -> Link {
        if let Some(cites) = Cites::of(self.harmed.iter().flat_map(|s| s.harm_events())) {
            let text = format!("Services failed: {}", list(self.harmed.iter().map(|s| s.in_short())));
            return Link::established("What failed?", Fact::new(text, cites));
        }
        let fact =
            match edges(self.incident.conditions.iter().filter(|c| matches!(c.kind, crate::ConditionKind::ServerDown)))
            {
                Some(cites) => {
                    Fact::new(format!("PostgreSQL did not serve for {}", self.incident.server.downtime), cites)
                }
                None => self.incident.title.clone(),
            };
        let answered = self.incident.services.iter().filter_map(|s| {
            let text = format!(
                "{} answered {} and failed none meanwhile; the slowest took {}",
                quote(s.name()),
                count(s.answers.succeeded, "request"),
                duration(s.answers.slowest)
            );
            Cites::of(s.measured_by.iter().copied()).map(|cites| Statement::Fact(Fact::new(text, cites)))
        });
        let unharmed = Statement::not_recorded("a service that was unhealthy, or an answer that failed");
        Link::established("What was wrong?", fact).seen(std::iter::once(unharmed).chain(answered))
    }

    /// What the alerts of a rule said, each a quotation.
    pub(super) fn alert_facts(&self, name: &str) -> Vec<Fact> {
        let fact = |(c, alert): (&crate::Condition, &model::Alert)| {
            let details: Vec<String> = alert.details.iter().take(3).map(|d| quote(d)).collect();
            let more = if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) };
            Fact::of(format!("The alert {} said: {}{more}", quote(&alert.rule.0), quote(&alert.summary)), c.opened_by)
        };
        self.incident.alerts_of(name).map(fact).collect()
    }

    pub(super) fn pressure_alerts(&self) -> Vec<Fact> {
        let mut facts = self.alert_facts(rule::CPU_SATURATED);
        facts.extend(self.alert_facts(rule::VACUUM_STARVES_HOST));
        facts
    }
}

/// A link's answer as a statement.
impl From<&Verdict> for Statement {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Established(fact) => Self::Fact(fact.clone()),
            Verdict::NotEstablished { whether, missing } => {
                Self::NotEstablished { whether: whether.clone(), missing: missing.clone() }
            }
        }
    }
}
