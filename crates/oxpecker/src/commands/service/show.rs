//! `oxpecker service plan`: for a tired person, and for programs.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use model::ServiceName;
use services::{
    execute::{self, Approval, Executor, Round},
    plan::{Action, Escalation, Outcome as Stand, Precondition, Step},
    state::State,
};

use super::{Place, block_on, failure, look, looked_for, words};
use crate::{
    cli::{Global, LookArgs},
    config::Driven,
    exit::{FINDING, FINE, Failure, Outcome},
    output,
};

/// What would be done.
pub fn plan(global: &Global, args: &LookArgs) -> Outcome {
    let place = Place::load(global)?;
    let mut executor = place.watch()?;
    let round = block_on(look(&mut executor, args))??;
    let shown = Shown::new(&place, &executor, &round, looked_for(args))?;
    output::result(global.output, "service_plan", &shown.document(), || output::prose(&shown.text()))?;
    Ok(if shown.is_well() { FINE } else { FINDING })
}

/// A plan with all that is told of it.
pub struct Shown<'a> {
    executor: &'a Executor,
    round: &'a Round,
    /// For how long was looked.
    looked: Duration,
    /// What each of its services would be made from again.
    definitions: BTreeMap<ServiceName, String>,
    approvals: Vec<Approval>,
    now: Timestamp,
}

impl<'a> Shown<'a> {
    pub fn new(place: &Place, executor: &'a Executor, round: &'a Round, looked: Duration) -> Result<Self, Failure> {
        let services = place.config.service.iter();
        let mut definitions: BTreeMap<ServiceName, String> =
            services.map(|one| (ServiceName::from(one.name.as_str()), Driven::from(one).in_words())).collect();
        let postgres = &place.config.postgres;
        definitions.insert(postgres.name.as_str().into(), Driven::from(postgres).in_words());
        for (id, status) in executor.graph().ids().zip(&round.statuses) {
            if let State::Damaged { offer, .. } = &status.state {
                definitions.insert(executor.graph().name(id).clone(), offer.words.clone());
            }
        }
        let approvals = execute::approvals(&place.dir).map_err(failure)?;
        Ok(Self { executor, round, looked, definitions, approvals, now: Timestamp::now() })
    }

    /// Nothing is to be done, and nobody is to be called.
    pub fn is_well(&self) -> bool {
        let plan = &self.round.plan;
        plan.steps.is_empty() && plan.escalations.is_empty() && self.round.statuses.iter().all(words::is_well)
    }

    /// For programs.
    pub fn document(&self) -> serde_json::Value {
        let plan = &self.round.plan;
        let from_now = |at: Duration| at.saturating_sub(plan.made_at).as_secs_f64();
        let steps = plan.steps.iter().map(|step| {
            serde_json::json!({
                "service": step.service,
                "action": step.action,
                "reason": step.reason,
                "attempt": step.attempt,
                "now": step.due,
                "in_s": from_now(step.at),
                "stable_in_s": from_now(step.at.saturating_add(step.takes)),
                "takes_s": step.takes.as_secs_f64(),
                "once_stable": waits_for(step).collect::<Vec<_>>(),
                "needs_approval": step.needs_approval,
            })
        });
        let unwell =
            self.unwell().map(|(name, state, is)| serde_json::json!({ "service": name, "state": state, "is": is }));
        let in_flight = plan
            .in_flight
            .iter()
            .map(|(service, until)| serde_json::json!({ "service": service, "stable_in_s": from_now(*until) }));
        let blocked = plan.blocked.iter().map(|one| serde_json::json!({ "service": one.service, "why": one.why }));
        let approve = self.round.wanted.as_ref().map(|wanted| {
            let steps = wanted.steps.iter().map(|(service, _, what)| {
                let definition = self.definitions.get(service).map(String::as_str).unwrap_or_default();
                serde_json::json!({ "service": service, "what": what, "definition": definition })
            });
            serde_json::json!({ "plan": wanted.plan, "steps": steps.collect::<Vec<_>>() })
        });
        serde_json::json!({
            "outcome": match plan.outcome {
                Stand::Done => "done",
                Stand::Working => "working",
                Stand::NeedsApproval => "needs_approval",
                Stand::Escalated => "escalated",
            },
            "looked_s": self.looked.as_secs_f64(),
            "stable_in_s": plan.expected_end.map(from_now),
            "steps": steps.collect::<Vec<_>>(),
            "in_flight": in_flight.collect::<Vec<_>>(),
            "not_well": unwell.collect::<Vec<_>>(),
            "blocked": blocked.collect::<Vec<_>>(),
            "escalations": plan.escalations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "approve": approve,
        })
    }

    /// Services that are not well: name, state, words.
    fn unwell(&self) -> impl Iterator<Item = (&ServiceName, &'static str, String)> {
        let graph = self.executor.graph();
        graph.ids().filter_map(move |id| {
            let status = &self.round.statuses[id.index()];
            let told = || (graph.name(id), words::slug(&status.state), words::is(status, self.executor, id));
            (!words::is_well(status)).then(told)
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.headline();
        text.push('\n');
        // Writing into a String can't fail.
        self.steps(&mut text);
        self.on_their_way(&mut text);
        self.blocked(&mut text);
        self.calls(&mut text);
        self.approvals(&mut text);
        let open = self.round.statuses.iter().any(words::is_open);
        if open && self.looked.is_zero() {
            text.push_str(
                "\nLooked once. Whether what is healthy stays so, and what is not gets there: `--for 10s`.\n",
            );
        }
        let due = self.round.plan.steps.iter().any(|step| !step.needs_approval);
        if due {
            text.push_str("\n`oxpecker service apply` does this; it looks again before each step.\n");
        }
        text
    }

    /// The whole of it in one sentence.
    pub fn headline(&self) -> String {
        let plan = &self.round.plan;
        let all = words::services(self.round.statuses.len());
        let steps = match plan.steps.len() {
            1 => "1 step".to_owned(),
            number => format!("{number} steps"),
        };
        let unwell = self.unwell().count();
        let end = plan.expected_end.map(|end| end.saturating_sub(plan.made_at));
        match (plan.outcome, end) {
            _ if self.is_well() && !self.round.statuses.iter().any(words::is_open) => {
                format!("Nothing to do: all {all} are stable.")
            }
            _ if self.is_well() => format!("Nothing to do: all {all} are healthy."),
            (Stand::Escalated, _) => format!("A person is needed: {unwell} of {all} not well."),
            (Stand::NeedsApproval, _) => format!("An approval is needed: {unwell} of {all} not well."),
            (_, Some(end)) if !plan.steps.is_empty() => {
                let at = self.now.checked_add(end).unwrap_or(self.now).to_zoned(TimeZone::system());
                format!("{steps}; all stable in about {}, at {}.", words::span(end), at.strftime("%H:%M:%S %Z"))
            }
            _ if plan.steps.is_empty() && !plan.escalations.is_empty() => {
                format!("A person is needed: {unwell} of {all} not well.")
            }
            _ if plan.steps.is_empty() => format!("Nothing to do yet: {unwell} of {all} not well."),
            _ => format!("{steps}."),
        }
    }

    fn steps(&self, text: &mut String) {
        let plan = &self.round.plan;
        if plan.steps.is_empty() {
            return;
        }
        let from_now = |at: Duration| format!("+{}", words::span(at.saturating_sub(plan.made_at)));
        let rows = plan.steps.iter().map(|step| {
            let when = match (step.due, step.needs_approval) {
                (true, _) => "now".to_owned(),
                (false, true) => "approved".to_owned(),
                (false, false) => from_now(step.at),
            };
            let mut why = step.reason.clone();
            let needs: Vec<&str> =
                waits_for(step).map(ServiceName::as_str).filter(|need| !self.is_stable(need)).collect();
            if !needs.is_empty() {
                let _ = write!(why, "; once {} stable", is_or_are(&needs));
            }
            if step.attempt > 1 {
                let _ = write!(why, "; attempt {}", step.attempt);
            }
            let stable = from_now(step.at.saturating_add(step.takes));
            [when, format!("{} {}", step.action, step.service), stable, why]
        });
        let _ = write!(text, "\n{}", output::table(["when", "what", "stable", "why"], &[0, 2], rows));
    }

    fn is_stable(&self, name: &str) -> bool {
        let graph = self.executor.graph();
        graph.id(&name.into()).is_some_and(|id| self.round.statuses[id.index()].state == State::Stable)
    }

    fn on_their_way(&self, text: &mut String) {
        let graph = self.executor.graph();
        let (mut ours, mut others) = (String::new(), String::new());
        for (name, until) in &self.round.plan.in_flight {
            let Some(id) = graph.id(name) else { continue };
            let status = &self.round.statuses[id.index()];
            if words::is_well(status) {
                continue;
            }
            let left = until.saturating_sub(self.round.plan.made_at);
            let is = words::is(status, self.executor, id);
            let lines = if graph.service(id).external { &mut others } else { &mut ours };
            let _ = writeln!(lines, "  {name}: {is}; could be stable in {}", words::span(left));
        }
        if !ours.is_empty() {
            let _ = write!(text, "\nWaited for, because they run; restarted once they get nowhere\n{ours}");
        }
        if !others.is_empty() {
            let _ = write!(text, "\nWaited for; somebody else starts and restarts them\n{others}");
        }
    }

    fn blocked(&self, text: &mut String) {
        let blocked = self.round.plan.blocked_by_reason();
        if !blocked.is_empty() {
            text.push_str("\nNothing is done about\n");
        }
        for (why, services) in blocked {
            let _ =
                writeln!(text, "  {}: {}", words::names(services.iter().map(|name| name.as_str())), words::plain(why));
        }
    }

    fn calls(&self, text: &mut String) {
        if !self.round.plan.escalations.is_empty() {
            text.push_str("\nA person is needed\n");
        }
        for escalation in &self.round.plan.escalations {
            let _ = writeln!(text, "  {escalation}");
        }
        let given_up = self.round.plan.escalations.iter().find_map(|one| match one {
            Escalation::GivenUp { service, .. } => Some(service),
            _ => None,
        });
        if let Some(service) = given_up {
            let _ = writeln!(text, "  what it said: `oxpecker service logs {service}`");
            text.push_str("  once that is mended: `oxpecker service apply --again`\n");
        }
    }

    fn approvals(&self, text: &mut String) {
        let Some(wanted) = &self.round.wanted else { return };
        let waits =
            |name: &ServiceName| self.round.plan.steps.iter().any(|step| step.service == *name && step.needs_approval);
        let mut asked = false;
        for (service, hash, what) in &wanted.steps {
            if !waits(service) {
                let holds = |one: &&Approval| one.steps.contains(hash) && one.at <= self.now && self.now < one.until;
                if let Some(approval) = self.approvals.iter().rev().find(holds) {
                    let _ = writeln!(
                        text,
                        "\n{what} is approved by {} until {}",
                        words::plain(&approval.by),
                        approval.until
                    );
                }
                continue;
            }
            if !asked {
                text.push_str("\nWaits for a person's approval\n");
            }
            asked = true;
            let _ = writeln!(text, "  {what}");
            let action = self.round.plan.steps.iter().find(|step| step.service == *service).map(|step| step.action);
            let definition = self.definitions.get(service).map(String::as_str).unwrap_or_default();
            let _ = match action {
                Some(Action::Provision) => writeln!(text, "    from {}", words::plain(definition)),
                // Our own words; what it costs is the whole point of the question.
                Some(Action::Restore) => writeln!(text, "    {}", definition.replace(char::is_control, " ")),
                _ => Ok(()),
            };
        }
        if asked {
            let _ = writeln!(text, "  to say yes, for an hour: oxpecker approve {}", wanted.plan);
        }
    }
}

/// What has to be stable before.
fn waits_for(step: &Step) -> impl Iterator<Item = &ServiceName> {
    step.preconditions.iter().filter_map(|one| match one {
        Precondition::Stable(name) => Some(name),
        _ => None,
    })
}

fn is_or_are(needs: &[&str]) -> String {
    let be = if needs.len() == 1 { "is" } else { "are" };
    format!("{} {be}", words::names(needs))
}
