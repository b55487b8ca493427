//! Five whys: from what people felt to what started it, each link proved by events or said to be not established.
//!
//! What counts as proof of a cause is an act and what followed: a vacuum was slowed, its workers obeyed, and the pressure fell. That a
//! vacuum used much CPU while the host was saturated is an association and is shown as no more. That two things failed and recovered
//! together is one as well, unless the configuration declares that one needs the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{
    EventId, EventKind, ProcessId, ServiceName,
    alert::{label, rule},
    event::{CostSetting, DownReason},
    reading::VacuumKind,
};
use serde::Serialize;

use crate::{
    Cites, Engagement, Fact, GapKind, Incident, Outage, ServiceImpact, Stamp, Statement, VacuumFacts,
    describe::{describe, relation},
    timeline::edges,
    words::{self, count, down_reason, duration, list, quote},
};

/// How far two observers may disagree about when a thing began or ended: a service's check and the guard's own connection run at
/// different moments.
const EDGE_SLACK: Duration = Duration::from_secs(5);
/// Within which time of a throttle's verified effect a service must be healthy again for the recovery to be put down to it.
const RELIEF_WITHIN: Duration = Duration::from_secs(60);
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
    fn established(question: &str, fact: Fact) -> Self {
        Self { question: question.to_owned(), verdict: Verdict::Established(fact), seen: Vec::new() }
    }

    fn open(question: &str, whether: impl AsRef<str>, missing: impl AsRef<str>) -> Self {
        let verdict = Verdict::NotEstablished {
            whether: words::one_line(whether.as_ref()),
            missing: words::one_line(missing.as_ref()),
        };
        Self { question: question.to_owned(), verdict, seen: Vec::new() }
    }

    fn seen(mut self, seen: impl IntoIterator<Item = impl Into<Statement>>) -> Self {
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
    fn pressed(&self) -> bool {
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

    fn why_services(&self) -> Link {
        let names = services(&self.harmed);
        let question = format!("Why did {names} fail?");
        if !self.incident.server.outages.is_empty() {
            return self.services_by_server(&question, &names);
        }
        if self.pressed() {
            return self.services_by_pressure(&question, &names);
        }
        let whether = format!("the database is why {names} failed");
        let no_event = "no event shows PostgreSQL down or the CPU saturated at that time";
        let others =
            self.alert_facts(rule::MEMORY_LOW).into_iter().chain(self.alert_facts(rule::CONNECTIONS_NEAR_LIMIT));
        Link::open(&question, whether, no_event).seen(others)
    }

    fn services_by_server(&self, question: &str, names: &str) -> Link {
        let whether = format!("{names} failed because PostgreSQL did not serve");
        let mut proof: Vec<EventId> = Vec::new();
        for service in &self.harmed {
            let name = quote(service.name());
            if service.outages.is_empty() {
                let missing = format!("{name} failed answers, and no event says at which moments");
                return Link::open(question, whether, missing);
            }
            let Some(declared) = self.path_to_cluster(&service.service) else {
                let missing = format!(
                    "no event declares that {name} needs this PostgreSQL, directly or through others; that both failed is an association"
                );
                return Link::open(question, whether, missing).seen(self.server_facts());
            };
            for outage in &service.outages {
                let Some(server) = self.incident.server.outages.iter().find(|server| within(outage, server)) else {
                    let missing = format!(
                        "{name} was unhealthy at {} and PostgreSQL's outages do not enclose that time at both ends",
                        outage.from
                    );
                    return Link::open(question, whether, missing).seen(self.server_facts());
                };
                proof.extend(outage.events().chain(server.events()));
            }
            proof.extend(declared);
        }
        let still = self.harmed.iter().any(|s| s.outages.iter().any(|o| o.until.is_none()));
        let text = if still {
            format!("PostgreSQL did not serve; {names}, declared to need it, failed after it had stopped")
        } else {
            format!(
                "PostgreSQL did not serve; {names}, declared to need it, failed after it had stopped and recovered when it served again"
            )
        };
        match Cites::of(proof) {
            Some(cites) => Link::established(question, Fact::new(text, cites)),
            None => Link::open(question, whether, "no event"),
        }
    }

    /// The declarations by which a service needs the cluster.
    fn path_to_cluster(&self, service: &'a ServiceName) -> Option<Vec<EventId>> {
        let cluster = self.incident.cluster.as_deref()?;
        let mut seen = BTreeSet::new();
        let mut paths = vec![(service, Vec::new())];
        while let Some((name, mut path)) = paths.pop() {
            let Some((needs, event)) = self.needs.get(name) else { continue };
            if !seen.insert(name) {
                continue;
            }
            path.push(*event);
            if needs.iter().any(|n| n.as_str() == cluster) {
                return Some(path);
            }
            paths.extend(needs.iter().map(|n| (n, path.clone())));
        }
        None
    }

    fn services_by_pressure(&self, question: &str, names: &str) -> Link {
        let whether = format!("{names} failed because the database's CPUs were saturated");
        let relief = self.incident.throttles.iter().find_map(|t| t.relieved().map(|v| (t, v)));
        let Some((engagement, relief)) = relief else {
            let missing = "nobody took the pressure away and looked whether they recovered: that both happened at once is an association";
            return Link::open(question, whether, missing).seen(self.pressure_alerts());
        };
        let begun = engagement.engaged.map_or(relief.at, |(at, _)| at);
        let let_go = engagement.released.as_ref().map(|r| r.at);
        let mut proof: Vec<EventId> = engagement.engaged.map(|(_, id)| id).into_iter().chain([relief.event]).collect();
        for service in &self.harmed {
            let relieved = |outage: &Outage| {
                outage.from < relief.at
                    && outage.until.is_some_and(|end| {
                        end >= begun
                            && end.since(relief.at).duration <= RELIEF_WITHIN
                            && let_go.is_none_or(|let_go| end <= let_go)
                    })
            };
            if service.outages.is_empty() || !service.outages.iter().all(relieved) {
                let missing = format!(
                    "{} is not seen to have recovered while the vacuum was held: neither before nor later counts",
                    quote(service.name())
                );
                return Link::open(question, whether, missing).seen(self.pressure_alerts());
            }
            proof.extend(service.outages.iter().flat_map(Outage::events));
        }
        let text = format!(
            "For want of CPU: when the vacuum was held, the database's CPUs went from {} to {} busy and {names} became healthy",
            relief.busy_before, relief.busy_after
        );
        match Cites::of(proof) {
            Some(cites) => Link::established(question, Fact::new(text, cites)),
            None => Link::open(question, whether, "no event"),
        }
    }

    fn server_facts(&self) -> Vec<Fact> {
        let outage = |o: &Outage| {
            let text = match o.until {
                Some(until) => format!("PostgreSQL did not serve from {} to {until}, {}", o.from, o.lasted),
                None => format!("PostgreSQL did not serve from {} on", o.from),
            };
            Cites::of(o.events()).map(|cites| Fact::new(text, cites))
        };
        self.incident.server.outages.iter().filter_map(outage).collect()
    }

    fn why_server(&self) -> Vec<Link> {
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
            let host = Link::open(
                "Why did the host boot anew?",
                "it was starved, crashed or was restarted by someone",
                "no event can say it, for a guard dies with its host: see the kernel's log of the boot before (`journalctl -b -1`) and the provider's watchdog",
            )
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

    fn why_crashed(&self, question: &str, reasons: Vec<Fact>) -> Link {
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

    fn why_connections(&self) -> Link {
        Link::open(
            "Why were connections short?",
            "one client took them, or all of them reconnected at once",
            "no event names who held the connections: see pg_stat_activity by role, application and state, and the limits of the pools",
        )
        .seen(self.alert_facts(rule::CONNECTIONS_NEAR_LIMIT))
    }

    fn why_memory(&self) -> Link {
        Link::open(
            "Where did the memory go?",
            "one process took it, or all grew together",
            "no event names a process by its memory: see the processes by resident size, and the kernel's log for the OOM killer",
        )
        .seen(self.alert_facts(rule::MEMORY_LOW))
    }

    /// What the alerts of a rule said, each a quotation.
    fn alert_facts(&self, name: &str) -> Vec<Fact> {
        let fact = |(c, alert): (&crate::Condition, &model::Alert)| {
            let details: Vec<String> = alert.details.iter().take(3).map(|d| quote(d)).collect();
            let more = if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) };
            Fact::of(format!("The alert {} said: {}{more}", quote(&alert.rule.0), quote(&alert.summary)), c.opened_by)
        };
        self.incident.alerts_of(name).map(fact).collect()
    }

    fn pressure_alerts(&self) -> Vec<Fact> {
        let mut facts = self.alert_facts(rule::CPU_SATURATED);
        facts.extend(self.alert_facts(rule::VACUUM_STARVES_HOST));
        facts
    }

    fn why_pressure(&self) -> Link {
        let question = "Where did the CPU go?";
        let what = self.suspects_named();
        let whether = format!("{what} was why the database's CPUs were short");
        let refuted = self.incident.throttles.iter().filter_map(Engagement::refuted);
        let refuted = refuted.map(|c| Fact::new("Vacuum was held and the pressure stayed", c)).next();
        let relieved = self.incident.throttles.iter().find_map(|t| t.relieved().map(|v| (t, v)));
        match (relieved, refuted) {
            (Some((engagement, v)), None) => {
                let held = words::workers(&engagement.workers, &engagement.tables);
                let text = format!(
                    "Vacuum took it: when {held} was slowed from {} to {} of a core, the database's CPUs went from {} to {} busy",
                    v.cpu_before, v.cpu_after, v.busy_before, v.busy_after
                );
                let cites = Cites::one(v.event).and(engagement.engaged.map(|(_, id)| id));
                Link::established(question, Fact::new(text, cites)).seen(self.suspect_facts())
            }
            (Some((_, v)), Some(against)) => {
                let relief = Fact::of(
                    format!("Under one throttle the CPUs went from {} to {} busy", v.busy_before, v.busy_after),
                    v.event,
                );
                Link::open(question, whether, "one throttle was followed by less pressure and another was not")
                    .seen([relief, against])
                    .seen(self.suspect_facts())
            }
            (None, Some(against)) => Link::open(
                question,
                whether,
                "it was held and the pressure stayed: another cause, or one more, is likely",
            )
            .seen([against])
            .seen(self.suspect_facts()),
            (None, None) if self.suspects.is_empty() && self.incident.throttles.is_empty() => {
                Link::open(question, "one process took it", "no event names a process that used the CPU")
                    .seen(self.pressure_alerts())
            }
            (None, None) => Link::open(
                question,
                whether,
                "no throttle was verified: that it used CPU while CPU was short is an association, no proof",
            )
            .seen(self.suspect_facts())
            .seen(self.pressure_alerts()),
        }
    }

    fn suspects_named(&self) -> String {
        let names: Vec<String> = self
            .suspects
            .iter()
            .map(|v| format!("the vacuum of {}", relation(&v.database, v.table.as_ref())))
            .collect();
        if names.is_empty() { "vacuum".into() } else { list(names) }
    }

    fn suspect_facts(&self) -> Vec<Fact> {
        let fact = |v: &&VacuumFacts| {
            let kind = v.kind.map_or("vacuum", words::vacuum_kind);
            let used = match (v.cpu(), v.seen_for) {
                (Some(cpu), Some(seen)) => format!(" used {cpu} of a core on average over {}", duration(seen)),
                _ => " ran".to_owned(),
            };
            let text =
                format!("The {kind} of {} (process {}){used}", relation(&v.database, v.table.as_ref()), v.process.pid);
            Cites::of(v.events()).map(|cites| Fact::new(text, cites))
        };
        self.suspects.iter().filter_map(fact).collect()
    }

    /// The resting setting that the first suspect started with, as far as the journal tells.
    fn resting(&self) -> Option<(CostSetting, EventId)> {
        let started = self.suspects.iter().filter_map(|v| v.seen).map(|(at, _)| at).min();
        let by: Stamp = started.or_else(|| self.incident.throttles.iter().find_map(|t| t.engaged).map(|(at, _)| at))?;
        self.incident.evidence.iter().rev().filter(|p| p.stamp <= by).find_map(|p| match p.kind() {
            EventKind::SettingsSeen { resting, .. } => Some((*resting, p.id())),
            EventKind::RestingSettingChanged { to, .. } => Some((*to, p.id())),
            _ => None,
        })
    }

    fn why_so_fast(&self) -> Link {
        let question = "Why could the vacuum run that fast?";
        let whether = "its cost settings let it";
        let resting = self.resting();
        let rest_fact = resting.map(|(setting, event)| {
            let off = if setting.delay_ms == 0.0 { ": the cost-based delay was off" } else { "" };
            Fact::of(format!("Autovacuum's resting setting was {setting}{off}"), event)
        });
        let slowed =
            self.incident.throttles.iter().find_map(|t| t.verified.iter().find(|v| v.slowed()).map(|v| (t, v)));
        if let Some((engagement, v)) = slowed {
            let held = engagement
                .adjusted
                .iter()
                .take_while(|(id, _)| *id < v.event)
                .last()
                .map(|(_, s)| *s)
                .or(engagement.setting);
            let held = held.map_or_else(|| "the throttle".to_owned(), |s| s.to_string());
            let cites = Cites::one(v.event).and(engagement.engaged.map(|(_, id)| id));
            let text = format!(
                "The cost setting decided how fast the vacuum ran: when {} was held at {held}, it went from {} to {} of a core",
                words::workers(&engagement.workers, &engagement.tables),
                v.cpu_before,
                v.cpu_after
            );
            let link = Link::established(question, Fact::new(text, cites));
            return match rest_fact {
                Some(fact) => link.seen([fact]),
                None => link.seen([Statement::not_recorded("the setting that it ran with before")]),
            };
        }
        let manual = !self.suspects.is_empty() && self.suspects.iter().all(|v| v.kind == Some(VacuumKind::Manual));
        let missing = match (manual, &rest_fact) {
            (true, _) => "a manual VACUUM runs with its session's settings, which no event records",
            (false, Some(_)) => "it was not slowed and measured, and a table may have cost settings of its own",
            (false, None) => "no event records the settings that it ran with, and it was not slowed and measured",
        };
        Link::open(question, whether, missing).seen(rest_fact.filter(|_| !manual))
    }

    fn why_then(&self) -> Link {
        let question = "Why did it run just then?";
        let of_kind = |kind| {
            let of: Vec<_> = self.suspects.iter().filter(|v| v.kind == Some(kind)).collect();
            Cites::of(of.iter().flat_map(|v| v.events())).map(|cites| (of, cites))
        };
        let all = |of: &Vec<&&VacuumFacts>| of.len() == self.suspects.len();
        if let Some((of, cites)) = of_kind(VacuumKind::Manual)
            && all(&of)
        {
            return Link::established(question, Fact::new("A person or a script gave the VACUUM command", cites));
        }
        if let Some((of, cites)) = of_kind(VacuumKind::AntiWraparound)
            && all(&of)
        {
            return Link::established(question, Fact::new("PostgreSQL ran it to prevent wraparound", cites));
        }
        Link::open(
            question,
            format!("{} became due by its thresholds, and why at that time", self.suspects_named()),
            "no event records the dead tuples or the age that made the table due",
        )
    }
}

fn services(harmed: &[&ServiceImpact]) -> String {
    list(harmed.iter().map(|s| quote(s.name())))
}

/// Whether the service's outage lies within what the server's outage explains: it begins during it and, where both have ended, ends
/// after it.
fn within(service: &Outage, server: &Outage) -> bool {
    let begins_after = service.from >= server.from || server.from.since(service.from).duration <= EDGE_SLACK;
    let begins_before = server.until.is_none_or(|end| service.from <= end);
    let ends_after = match (service.until, server.until) {
        (Some(service), Some(server)) => service >= server || server.since(service).duration <= EDGE_SLACK,
        (Some(_), None) => false,
        (None, _) => true,
    };
    begins_after && begins_before && ends_after
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
