//! Does it come back in the right order?

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Family, shows, variables::dependents};
use crate::{
    Severity,
    facts::{Facts, Source},
    finding::{Finding, Place, Remedy},
    words::{list, shown},
};

pub(super) const CHECKS: &[Check] = &[CYCLE, VAULT, NO_ORDER, STARTED_ONLY];

const CYCLE: Check = Check {
    id: "dependency-cycle",
    title: "Services wait for one another",
    family: Family::Recovery,
    severity: Severity::Critical,
    needs: &[Source::Workloads],
    reason: "A cycle is invisible while everything runs, and can't be started from nothing. After the restart everything had to be.",
    limits: "Follows what is declared: depends_on, After=, oxpecker's services.",
    run: cycle,
};

fn cycle(facts: &Facts) -> Vec<Finding> {
    let mut graph: BTreeMap<&str, BTreeMap<&str, &Place>> = BTreeMap::new();
    for (from, to, place) in &facts.needs {
        graph.entry(from).or_default().insert(to, place);
    }
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut findings = Vec::new();
    for start in graph.keys() {
        if let Some(path) = walk(&graph, start, &mut done) {
            let evidence = path
                .windows(2)
                .filter_map(|pair| {
                    Some(shows(graph.get(pair[0])?.get(pair[1])?, format!("{} needs {}", pair[0], pair[1])))
                })
                .collect();
            let message = format!("none of {} can start first: {}", list(&path[1..], 6), shown(&path.join(" -> ")));
            let mut names: Vec<&str> = path[1..].to_vec();
            names.sort_unstable();
            let remedy = Remedy::Advice("Let one of them start without the other: retry the connection instead of refusing to run, and take that edge out.".to_owned());
            findings.push(CYCLE.found(format!("cycle: {}", names.join(", ")), message, evidence, remedy));
        }
    }
    findings
}

/// A cycle that can be reached and was not told before. Without recursion: the depth is the files' to choose.
fn walk<'a>(
    graph: &BTreeMap<&'a str, BTreeMap<&'a str, &'a Place>>,
    start: &'a str,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    let mut path: Vec<&str> = Vec::new();
    let mut on_path: BTreeSet<&str> = BTreeSet::new();
    let mut next: Vec<(&str, bool)> = vec![(start, true)];
    let mut found = None;
    while let Some((node, enter)) = next.pop() {
        if !enter {
            path.pop();
            on_path.remove(node);
            done.insert(node);
            continue;
        }
        if on_path.contains(node) {
            if found.is_none() {
                let begin = path.iter().position(|other| *other == node).unwrap_or(0);
                found = Some(path[begin..].iter().copied().chain([node]).collect());
            }
            continue;
        }
        if done.contains(node) {
            continue;
        }
        path.push(node);
        on_path.insert(node);
        next.push((node, false));
        next.extend(graph.get(node).into_iter().flatten().map(|(to, _)| (*to, true)));
    }
    found
}

const VAULT: Check = Check {
    id: "vault-needs-what-it-unlocks",
    title: "The passwords are in the database that is down",
    family: Family::Recovery,
    severity: Severity::High,
    needs: &[Source::Database],
    reason: "The team's password vault stood on the same PostgreSQL. When it took no more connections, the passwords to mend it were behind it.",
    limits: "Knows vaults by their image: vaultwarden, bitwarden, passbolt, psono, infisical, vault and the like.",
    run: vault,
};

const VAULTS: &[&str] =
    &["vaultwarden", "bitwarden", "passbolt", "psono", "infisical", "vault", "openbao", "teampass", "keycloak"];

fn vault(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for database in facts.databases() {
        for workload in dependents(facts, database) {
            let image = workload.main_containers().find_map(|container| {
                let image = container.image.as_ref()?;
                VAULTS.iter().any(|vault| image.value.name.contains(vault)).then_some(image)
            });
            let Some(image) = image else { continue };
            let message = format!(
                "{} keeps its secrets in {}: while that is down, so is the way in",
                workload.object(),
                database.object()
            );
            let evidence = vec![image.evidence("image"), shows(&database.place, database.object())];
            let remedy = Remedy::Advice("Give the vault a store of its own (SQLite on its own volume will do), or keep the credentials for this database outside of it, and try that.".to_owned());
            findings.push(VAULT.found(workload.object(), message, evidence, remedy));
        }
    }
    findings
}

const NO_ORDER: Check = Check {
    id: "no-start-order",
    title: "Nobody knows what has to be started first",
    family: Family::Recovery,
    severity: Severity::High,
    needs: &[Source::Database],
    reason: "The start order had been deleted from the documentation three weeks before. People restarted the core services one by one, by hand, until they \
             stabilised; then the database; then whatever behaved oddly.",
    limits: "Any of these is enough: depends_on, After=, oxpecker's [[service]], a chapter of a README about the order of start. Asked where two or more \
             workloads use a database.",
    run: no_order,
};

fn no_order(facts: &Facts) -> Vec<Finding> {
    if !facts.orders.is_empty() {
        return vec![];
    }
    let findings = facts.databases().filter_map(|database| {
        let users = dependents(facts, database);
        if users.len() < 2 {
            return None;
        }
        let names: Vec<String> = users.iter().map(|workload| workload.object()).collect();
        let message =
            format!("{} need {}, and nothing says in which order they start", list(&names, 4), database.object());
        let mut evidence = vec![shows(&database.place, database.object())];
        evidence.extend(
            users.iter().take(4).map(|workload| shows(&workload.place, format!("{} uses it", workload.object()))),
        );
        let services: String = users
            .iter()
            .take(4)
            .map(|w| format!("[[service]]\nname = \"{}\"\ndepends_on = [\"main\"]\n", w.name))
            .collect();
        Some(NO_ORDER.found(
            database.object(),
            message,
            evidence,
            Remedy::Patch(format!("# oxpecker.toml\n{}", services.trim_end())),
        ))
    });
    findings.collect()
}

const STARTED_ONLY: Check = Check {
    id: "waits-for-start-only",
    title: "It waits until its database was started, not until it answers",
    family: Family::Recovery,
    severity: Severity::Medium,
    needs: &[Source::Workloads, Source::Database],
    reason: "A database that recovers has been started and answers nobody. What goes on then fails at its first query and stays broken, as the site and the bot \
             did.",
    limits: "Asked of compose files, and of databases.",
    run: started_only,
};

fn started_only(facts: &Facts) -> Vec<Finding> {
    let databases: BTreeSet<&str> = facts.databases().map(|workload| workload.name.as_str()).collect();
    let findings =
        facts.started_only.iter().filter(|(_, to, _)| databases.contains(to.as_str())).map(|(from, to, place)| {
            let name = from.rsplit('/').next().unwrap_or(from);
            let patch =
                format!("services:\n  {name}:\n    depends_on:\n      {to}:\n        condition: service_healthy");
            STARTED_ONLY.found(
                format!("{from}: {to}"),
                format!("{from} does not wait until {to} answers"),
                vec![shows(place, format!("depends_on: {to}"))],
                Remedy::Patch(patch),
            )
        });
    findings.collect()
}
