//! Would anyone be told, and soon enough?

use super::{Check, Family, shows};
use crate::{
    Severity,
    facts::{AlertRule, Facts, Source, Subject},
    finding::{Finding, Remedy},
    quantity::span,
    words::list,
};

pub(super) const CHECKS: &[Check] = &[NO_RULES, NOTHING_PAGES, NO_DEAD_MAN, TOO_LATE];

const NO_RULES: Check = Check {
    id: "no-alert-rules",
    title: "Nothing would tell anyone",
    family: Family::Detection,
    severity: Severity::Critical,
    needs: &[Source::Database],
    reason: "Nobody had alerts on CPU or memory. The outage was noticed by luck: the team sat in a call. Alerts were added afterwards.",
    limits: "Looks for Prometheus rules (files, PrometheusRule, config maps) and for oxpecker's own routes. Alerts of a hosted service are not seen: say so with \
             an ignore at the database.",
    run: no_rules,
};

fn no_rules(facts: &Facts) -> Vec<Finding> {
    if !facts.rules.is_empty() || facts.guarded.is_some() {
        return vec![];
    }
    let places =
        facts.databases().map(|workload| &workload.place).chain(facts.operated.iter().map(|located| &located.place));
    let Some(place) = places.into_iter().next() else { return vec![] };
    let message = format!(
        "no alert rule was found in {} files: CPU, memory, connections, disk or the backup's age would wake nobody",
        facts.files
    );
    let remedy = Remedy::Command("oxpecker run  # guards CPU, memory, connections and disk as it stands; [[alert.route]] in oxpecker.toml says who is told".to_owned());
    vec![NO_RULES.found("rules", message, vec![shows(place, "a database, and no rule in the set")], remedy)]
}

const NOTHING_PAGES: Check = Check {
    id: "nothing-would-page",
    title: "No alert is about what went wrong",
    family: Family::Detection,
    severity: Severity::High,
    needs: &[Source::Database, Source::Rules],
    reason: "High CPU was the first sign of the outage and connections that of the one on the same day; nothing watched either. In July the bot was seen \
             offline only six hours later.",
    limits: "A rule is about a subject when its expression names a metric of it; whether its threshold is sensible is not judged. Whether an alert arrives \
             takes a test of its whole way.",
    run: nothing_pages,
};

fn nothing_pages(facts: &Facts) -> Vec<Finding> {
    if facts.guarded.is_some() {
        return vec![];
    }
    let Some(first) = facts.rules.first() else { return vec![] };
    let silent = Subject::ALL.into_iter().filter(|subject| !facts.rules.iter().any(|rule| rule.is_about(*subject)));
    let findings = silent.map(|subject| {
        let names: Vec<&str> = facts.rules.iter().map(|rule| rule.name.value.as_str()).collect();
        let message = format!("none of {} rules is about {}", facts.rules.len(), subject.word());
        let evidence = vec![shows(&first.name.place, format!("rules: {}", list(&names, 8)))];
        let name: String = subject
            .word()
            .split(|c: char| !c.is_ascii_alphabetic())
            .map(|word| word[..1.min(word.len())].to_uppercase() + &word[1.min(word.len())..])
            .collect();
        let patch = format!("- alert: {name}\n  expr: {}\n  for: 2m\n  labels:\n    severity: page", subject.example());
        let finding =
            NOTHING_PAGES.found(format!("rules: {}", subject.word()), message, evidence, Remedy::Patch(patch));
        if subject == Subject::BackupAge && facts.backups.is_empty() {
            finding.at_most(Severity::Medium)
        } else {
            finding
        }
    });
    findings.collect()
}

const NO_DEAD_MAN: Check = Check {
    id: "no-dead-mans-switch",
    title: "When the monitoring dies, nothing is heard",
    family: Family::Detection,
    severity: Severity::High,
    needs: &[Source::Rules],
    reason: "In January alerts could not leave the node that was in trouble: what should have told was part of what had failed. Silence looked like health.",
    limits: "Looks for a rule that always fires (Watchdog, vector(1)) or oxpecker's [alert.heartbeat]. Whether someone outside listens to it is not seen.",
    run: no_dead_man,
};

fn no_dead_man(facts: &Facts) -> Vec<Finding> {
    if facts.heartbeat.is_some() || facts.rules.iter().any(AlertRule::is_dead_mans_switch) {
        return vec![];
    }
    let Some(first) = facts.rules.first() else { return vec![] };
    let remedy = Remedy::Patch("- alert: Watchdog\n  expr: vector(1)\n  labels:\n    severity: none  # routed to a service outside that calls when it stops".to_owned());
    let message = "no rule fires always: when Prometheus or its way out is down, nobody notices";
    vec![NO_DEAD_MAN.found(
        "rules: dead man's switch",
        message,
        vec![shows(&first.name.place, format!("{} rules, none of them always fires", facts.rules.len()))],
        remedy,
    )]
}

/// Seconds after which an alert is too late: the siblings of the outage were over people within five minutes.
const LATE: u64 = 600;

const TOO_LATE: Check = Check {
    id: "alert-too-late",
    title: "The alert comes when all is over",
    family: Family::Detection,
    severity: Severity::Medium,
    needs: &[Source::Rules],
    reason: "From the first sign to the dead node it took minutes. A rule that averages over ten and then waits for ten more fires into the post-mortem.",
    limits: "Half of the longest window plus the rule's `for`; the fastest rule of each subject counts. Disk and backups are slow and are not asked.",
    run: too_late,
};

fn too_late(facts: &Facts) -> Vec<Finding> {
    if facts.guarded.is_some() {
        return vec![];
    }
    let urgent = [Subject::Cpu, Subject::Memory, Subject::Connections, Subject::Down];
    // An average over a window crosses half-way through it at the latest, when the load goes from nothing to all.
    let delay = |rule: &AlertRule| rule.lasting + rule.window / 2;
    let findings = urgent.into_iter().filter_map(|subject| {
        let rule = facts.rules.iter().filter(|rule| rule.is_about(subject)).min_by_key(|rule| delay(rule))?;
        if delay(rule) <= LATE {
            return None;
        }
        let message = format!("the first alert about {} comes after about {}", subject.word(), span(delay(rule)));
        let said = format!("{}: for {}, window {}", rule.name.value, span(rule.lasting), span(rule.window));
        let remedy = Remedy::Patch(format!("- alert: {}\n  expr: {}\n  for: 2m", rule.name.value, subject.example()));
        Some(TOO_LATE.found(format!("rules: {}", subject.word()), message, vec![shows(&rule.name.place, said)], remedy))
    });
    findings.collect()
}
