//! Where the CPU went, and if vacuum took it, why it ran that fast and just then.

use model::{EventId, EventKind, event::CostSetting, reading::VacuumKind};

use super::{Case, Link};
use crate::{
    Cites, Engagement, Fact, Stamp, Statement, VacuumFacts,
    describe::relation,
    words::{self, duration, list},
};

impl Case<'_> {
    pub(super) fn why_pressure(&self) -> Link {
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

    pub(super) fn suspects_named(&self) -> String {
        let names: Vec<String> = self
            .suspects
            .iter()
            .map(|v| format!("the vacuum of {}", relation(&v.database, v.table.as_ref())))
            .collect();
        if names.is_empty() { "vacuum".into() } else { list(names) }
    }

    pub(super) fn suspect_facts(&self) -> Vec<Fact> {
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

    pub(super) fn why_so_fast(&self) -> Link {
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

    pub(super) fn why_then(&self) -> Link {
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
