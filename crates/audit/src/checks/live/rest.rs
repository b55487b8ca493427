//! Who comes in as what, and would anyone be told? Asked of a running server.

use super::{of, server, set};
use crate::{
    Severity,
    checks::{Check, Family, shows},
    facts::{Facts, Source},
    finding::{Evidence, Finding, Place, Remedy},
    words::{list, shown},
};

pub(in crate::checks) const SECRETS: &[Check] = &[SUPERUSER];
pub(in crate::checks) const DETECTION: &[Check] = &[QUIET];

const SUPERUSER: Check = Check {
    id: "application-is-superuser",
    title: "An application comes in as a superuser",
    family: Family::Secrets,
    severity: Severity::Medium,
    needs: &[Source::LiveSessions],
    reason: "The connections that are kept for superusers were the only way in when all others were taken. An application that is one takes these too; and whoever gets \
             hold of it may read any file and run any program of the server's.",
    limits: "Looks at the sessions of this moment. psql, pg_dump, pgAdmin and the like are people and jobs, not applications.",
    run: superuser,
};

/// What people and jobs call themselves.
const PEOPLE: &[&str] = &[
    "psql",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "pg_basebackup",
    "pgadmin",
    "dbeaver",
    "oxpecker",
    "pgbackrest",
    "barman",
    "vacuumdb",
    "reindexdb",
    "postgres_exporter",
];

fn superuser(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let Ok(sessions) = &server.sessions else { return vec![] };
    let application = |name: &str| {
        let name = name.to_lowercase();
        !PEOPLE.iter().any(|person| name.starts_with(person))
    };
    let findings = sessions.iter().filter(|group| group.superuser && application(&group.application)).map(|group| {
        let role = shown(&group.role);
        let name = if group.application.is_empty() { "a client without a name".to_owned() } else { shown(&group.application) };
        let message = format!("{}: {name} works in {} as superuser {role}", server.object(), shown(&group.database));
        let remedy = Remedy::Advice(format!(
            "Make a role of its own for it (CREATE ROLE app LOGIN), give that role its tables (GRANT, or REASSIGN OWNED in its database), and change its connection string; \
             then nobody but people is {role}."
        ));
        let evidence = shows(&server.here(), format!("{} sessions of {role} in {} as {:?}", group.count, group.database, group.application));
        SUPERUSER.found(format!("{}: {role} as {name}", server.object()), message, vec![evidence], remedy)
    });
    findings.collect()
}

const QUIET: Check = Check {
    id: "log-too-quiet",
    title: "The server's log would not say what happened",
    family: Family::Detection,
    severity: Severity::Low,
    needs: &[Source::LiveSettings],
    reason: "Of the site's exhaustion little was logged, and of the outage it had to be guessed which vacuum it was. What the log does not say while it happens nobody can \
             find out afterwards.",
    limits: "Asks for slow statements (or pg_stat_statements), lock waits, vacuums, checkpoints and spilled sorts; not for every statement.",
    run: quiet,
};

fn quiet(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let number = |name: &str| settings.number(name);
    let mut values: Vec<(&str, String)> = Vec::new();
    let mut gaps = Vec::new();
    if settings.is_off("log_lock_waits") {
        values.push(("log_lock_waits", "on".to_owned()));
        gaps.push("who waits for whose lock");
    }
    if settings.is_off("log_checkpoints") {
        values.push(("log_checkpoints", "on".to_owned()));
        gaps.push("checkpoints");
    }
    // -1 is never; the default since 15 is ten minutes, which a storm of small tables stays below.
    if number("log_autovacuum_min_duration") == Some(-1) {
        values.push(("log_autovacuum_min_duration", "10s".to_owned()));
        gaps.push("vacuums");
    }
    if number("log_temp_files") == Some(-1) {
        values.push(("log_temp_files", "10MB".to_owned()));
        gaps.push("sorts that spill to the disk");
    }
    // Whoever may not see the libraries is not told that one is missing.
    let statements =
        settings.text("shared_preload_libraries").is_none_or(|libraries| libraries.contains("pg_stat_statements"));
    if number("log_min_duration_statement") == Some(-1)
        && number("log_min_duration_sample").is_none_or(|least| least == -1)
        && !statements
    {
        values.push(("log_min_duration_statement", "1s".to_owned()));
        gaps.push("slow statements (pg_stat_statements is not loaded either)");
    }
    // One of them alone is a choice.
    if gaps.len() < 2 {
        return vec![];
    }
    let evidence: Vec<Evidence> = values.iter().map(|(name, _)| settings.evidence(name)).collect();
    let message = format!("{}: the log has nothing about {}", server.object(), list(&gaps, 9));
    vec![QUIET.found(server.object(), message, evidence, set(server, settings, &values))]
}

/// Programs that watch, on the machine that they watch.
pub(super) fn monitors(facts: &Facts) -> Vec<Finding> {
    if facts.heartbeat.is_some() {
        return vec![];
    }
    let Some((server, host)) = facts.live_server().zip(facts.host.as_ref()) else { return vec![] };
    if host.monitors.is_empty() || host.postmaster.is_err() {
        return vec![];
    }
    let mut names: Vec<&str> = host.monitors.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    let evidence = host
        .monitors
        .iter()
        .take(4)
        .map(|(name, pid)| shows(&Place { file: format!("/proc/{pid}/comm").into(), line: 1 }, name.clone()));
    let message = format!(
        "{} and {} are on one machine: what takes it down takes both, and silence looks like health",
        server.object(),
        list(&names, 4)
    );
    vec![of("monitoring-on-what-it-monitors").found(
        server.object(),
        message,
        evidence.collect(),
        Remedy::Advice(crate::checks::monitoring::LOOK_FROM_OUTSIDE.to_owned()),
    )]
}
