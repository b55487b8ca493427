//! Can one part take the whole machine? Asked of a running server.

use super::{ask_the_primary, of, server, set};
use crate::{
    Severity,
    checks::{Check, Family, shows},
    facts::{Facts, Source},
    finding::{Evidence, Finding, Remedy},
    quantity::{human, span},
    words::{list, shown},
};

pub(in crate::checks) const CHECKS: &[Check] = &[WRAPAROUND, NEARLY_TAKEN, NO_WAY_IN, OOM, ABANDONED];

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The memory that the database may use, as a number, with what shows it.
fn memory(facts: &Facts) -> Option<(u64, Evidence)> {
    facts.host.as_ref()?.database_memory().ok()
}

/// Memory from which the settings that a server is born with are too small: below, they are about right.
const STOCK_FITS: u64 = 2 * GIB;

pub(super) fn stock(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let Some((memory, evidence)) = memory(facts) else { return vec![] };
    // initdb writes shared_buffers and max_connections into the file: their source tells nothing, their values do.
    let born = [("shared_buffers", 128 * MIB), ("work_mem", 4 * MIB), ("maintenance_work_mem", 64 * MIB)];
    if memory < STOCK_FITS || born.iter().any(|(name, value)| settings.bytes(name) != Some(*value)) {
        return vec![];
    }
    // Round figures: what is exact about them is only the order of size.
    let size = |bytes: u64| format!("{}MB", bytes / MIB / 64 * 64);
    let values = [
        ("shared_buffers", size((memory / 4).min(16 * GIB))),
        ("effective_cache_size", size(memory / 2)),
        ("maintenance_work_mem", size((memory / 32).clamp(64 * MIB, GIB))),
    ];
    let message = format!(
        "{}: shared_buffers, work_mem and maintenance_work_mem are those of a fresh initdb, on a machine with {}. The remedy takes the machine for the \
         database's alone: beside other programs halve it",
        server.object(),
        human(memory)
    );
    let mut shown = vec![evidence];
    shown.extend(born.iter().map(|(name, _)| settings.evidence(name)));
    vec![
        of("stock-settings")
            .found(server.object(), message, shown, set(server, settings, &values))
            .at_most(Severity::Medium),
    ]
}

pub(super) fn connections_memory(facts: &Facts) -> Vec<Finding> {
    let found = || {
        let (server, settings) = server(facts)?;
        let (memory, evidence) = memory(facts)?;
        let connections = u64::try_from(settings.number("max_connections")?).ok()?;
        let (work, buffers) = (settings.bytes("work_mem")?, settings.bytes("shared_buffers")?);
        let needed = connections.saturating_mul(work).saturating_add(buffers);
        if needed <= memory {
            return None;
        }
        let message = format!(
            "{}: {connections} connections with {} of work_mem each and {} of shared_buffers are {}, and there are {}",
            server.object(),
            human(work),
            human(buffers),
            human(needed),
            human(memory)
        );
        let mut shown = vec![evidence];
        shown.extend(["max_connections", "work_mem", "shared_buffers"].map(|name| settings.evidence(name)));
        let left = memory.saturating_sub(buffers);
        // Fewer connections where the memory for a sort is already small, else less memory for each.
        let remedy = if work <= 8 * MIB {
            set(server, settings, &[("max_connections", (left / work.max(1)).max(20).to_string())])
        } else {
            set(server, settings, &[("work_mem", format!("{}MB", (left / 2 / connections.max(1) / MIB).max(4)))])
        };
        Some(of("connections-exceed-memory").found(server.object(), message, shown, remedy))
    };
    found().into_iter().collect()
}

pub(super) fn vacuum_memory(facts: &Facts) -> Vec<Finding> {
    let found = || {
        let (server, settings) = server(facts)?;
        let (memory, evidence) = memory(facts)?;
        let name = if settings.bytes("autovacuum_work_mem").is_some() {
            "autovacuum_work_mem"
        } else {
            "maintenance_work_mem"
        };
        let each = settings.bytes(name)?;
        let workers = u64::try_from(settings.number("autovacuum_max_workers")?).ok()?;
        let (left, needed) = (memory.saturating_sub(settings.bytes("shared_buffers")?), each.saturating_mul(workers));
        if needed <= left / 2 {
            return None;
        }
        let message = format!(
            "{}: {workers} workers with {} each may take {}; beside shared_buffers there are {}",
            server.object(),
            human(each),
            human(needed),
            human(left)
        );
        let shown = vec![evidence, settings.evidence(name), settings.evidence("autovacuum_max_workers")];
        let fitting = (left / 4 / workers.max(1) / MIB).max(16);
        let remedy = set(server, settings, &[("autovacuum_work_mem", format!("{fitting}MB"))]);
        Some(of("vacuum-memory").found(server.object(), message, shown, remedy))
    };
    found().into_iter().collect()
}

pub(super) fn outruns(facts: &Facts) -> Vec<Finding> {
    if facts.governed.is_some() {
        return vec![];
    }
    let found = || {
        let (server, settings) = server(facts)?;
        let check = of("vacuum-outruns-cores");
        if server.identity.standby {
            return Some(ask_the_primary(check, server));
        }
        let postmaster = facts.host.as_ref()?.postmaster.as_ref().ok()?;
        // -1 stands for the setting of plain VACUUM.
        let or = |name: &str, plain: &str| {
            settings.fraction(name).filter(|value| *value >= 0.0).or_else(|| settings.fraction(plain))
        };
        let delay = or("autovacuum_vacuum_cost_delay", "vacuum_cost_delay")?;
        let limit = or("autovacuum_vacuum_cost_limit", "vacuum_cost_limit")?;
        let workers = settings.fraction("autovacuum_max_workers")?;
        let (message, severity) = crate::checks::vacuum::outruns(delay, limit, workers, postmaster.cores)?;
        let remedy = crate::checks::vacuum::hold_back(delay);
        let remedy = if delay == 0.0 {
            set(server, settings, &[("autovacuum_vacuum_cost_delay", "2ms".to_owned())])
        } else {
            remedy
        };
        let shown = vec![
            settings.evidence("autovacuum_vacuum_cost_delay"),
            settings.evidence("autovacuum_vacuum_cost_limit"),
            settings.evidence("vacuum_cost_limit"),
            postmaster.cores_from.clone(),
        ];
        Some(vec![
            check.found(server.object(), format!("{}: {message}", server.object()), shown, remedy).at_most(severity),
        ])
    };
    found().unwrap_or_default()
}

pub(super) fn autovacuum_off(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let check = of("autovacuum-off");
    let off: Vec<&str> = ["autovacuum", "track_counts"].into_iter().filter(|name| settings.is_off(name)).collect();
    if off.is_empty() {
        return vec![];
    }
    let message = format!(
        "{}: {} off: nothing is vacuumed until the server must, to save itself",
        server.object(),
        list(&off, 2)
    );
    let values: Vec<(&str, String)> = off.iter().map(|name| (*name, "on".to_owned())).collect();
    vec![check.found(
        server.object(),
        message,
        off.iter().map(|name| settings.evidence(name)).collect(),
        set(server, settings, &values),
    )]
}

pub(super) fn timeouts(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let roles = server.role_settings.as_deref().unwrap_or_default();
    let set_for_some = |name: &str| {
        roles.iter().any(|role| {
            role.setting.split_once('=').is_some_and(|(key, value)| key == name && !value.trim_matches('0').is_empty())
        })
    };
    // What was set for our own role is nobody else's.
    let ours = |name: &str| {
        let source = settings.get(name).map(|setting| setting.source.as_str());
        source.is_some_and(|source| ["user", "database user", "client", "session"].contains(&source))
    };
    let unset = |name: &str| (settings.number(name) == Some(0) || ours(name)) && !set_for_some(name);
    let check = of("no-timeouts");
    let object = server.object();
    if unset("idle_in_transaction_session_timeout") {
        let mut shown = vec![settings.evidence("idle_in_transaction_session_timeout")];
        let mut message = format!("{object}: a session may sit in an open transaction for ever");
        if unset("statement_timeout") {
            shown.push(settings.evidence("statement_timeout"));
            message += ", and no role has a limit for a statement either. Give the applications' roles one (ALTER ROLE ... SET statement_timeout = '30s'); not the \
                        whole server, where it would end dumps and index builds";
        }
        let remedy = set(server, settings, &[("idle_in_transaction_session_timeout", "5min".to_owned())]);
        return vec![check.found(object, message, shown, remedy)];
    }
    if unset("statement_timeout") {
        let message =
            format!("{object}: no role has a limit for a statement: one query may hold its locks and cores for hours");
        let remedy = Remedy::Command(
            "psql -c \"ALTER ROLE app SET statement_timeout = '30s'\"  # for each role of an application; dumps and index builds need more".to_owned(),
        );
        return vec![
            check.found(object, message, vec![settings.evidence("statement_timeout")], remedy).at_most(Severity::Low),
        ];
    }
    vec![]
}

const WRAPAROUND: Check = Check {
    id: "wraparound-near",
    title: "Transaction ids are running out",
    family: Family::Starvation,
    severity: Severity::Critical,
    needs: &[Source::LiveAges],
    reason: "A vacuum that is put off does not go away. At two thousand million transactions the server takes no more writes until a vacuum has gone through every \
             table that is old: the same vacuum as in the outage, with everybody waiting for its end.",
    limits: "Told from a thousand million on, by database; which table it is has to be asked in that database.",
    run: wraparound,
};

/// Transactions from which autovacuum is clearly losing, and from which hours count. The server stops at some 2,144 million.
const OLD: i64 = 1_000_000_000;
const VERY_OLD: i64 = 1_500_000_000;

fn wraparound(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let Ok(ages) = &server.ages else { return vec![] };
    let old = ages.iter().filter(|age| age.transactions.max(age.multixacts) >= OLD);
    let findings = old.map(|age| {
        let database = shown(&age.database);
        let message = format!("{database}: its oldest table is {} million transactions behind; at 2,144 million all writes stop", age.transactions.max(age.multixacts) / 1_000_000);
        let evidence = shows(&server.here(), format!("age(datfrozenxid) = {}, mxid_age(datminmxid) = {}", age.transactions, age.multixacts));
        let remedy = Remedy::Advice(format!(
            "In database {database}: first end what holds the horizon (prepared transactions, old transactions, dead slots), then VACUUM (FREEZE, VERBOSE) its \
             oldest tables: SELECT oid::regclass, age(relfrozenxid) FROM pg_class WHERE relkind IN ('r', 'm', 't') ORDER BY 2 DESC LIMIT 10."
        ));
        let finding = WRAPAROUND.found(format!("{}/{database}", server.object()), message, vec![evidence], remedy);
        if age.transactions.max(age.multixacts) >= VERY_OLD { finding } else { finding.at_most(Severity::High) }
    });
    findings.collect()
}

const NEARLY_TAKEN: Check = Check {
    id: "connections-nearly-taken",
    title: "Almost all connections are in use",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::LiveSettings, Source::LiveSessions],
    reason: "On the day of the outage 100 clients were reached and the server took nobody any more, the people who wanted to mend it included.",
    limits: "Looks once, now. Four fifths of what ordinary roles may have is almost all.",
    run: nearly_taken,
};

fn nearly_taken(facts: &Facts) -> Vec<Finding> {
    let found = || {
        let (server, settings) = server(facts)?;
        let sessions = server.sessions.as_ref().ok()?;
        let reserved =
            settings.number("superuser_reserved_connections")? + settings.number("reserved_connections").unwrap_or(0);
        let most = u64::try_from(settings.number("max_connections")? - reserved).ok()?;
        let used: u64 = sessions.iter().map(|group| group.count).sum();
        if used * 5 < most * 4 {
            return None;
        }
        let message = format!("{}: {used} of {most} connections are in use now", server.object());
        let mut evidence = vec![settings.evidence("max_connections")];
        evidence.extend(sessions.iter().take(5).map(|group| shows(&server.here(), groups(group))));
        let remedy = Remedy::Advice("Find who opens so many (the list is above), bound its pool, and put a pool (pgbouncer) in front; more connections only move the wall.".to_owned());
        Some(NEARLY_TAKEN.found(server.object(), message, evidence, remedy))
    };
    found().into_iter().collect()
}

fn groups(group: &crate::facts::Sessions) -> String {
    format!("{} of {} in {} as {:?}", group.count, group.role, group.database, group.application)
}

const NO_WAY_IN: Check = Check {
    id: "no-reserved-connections",
    title: "When all connections are taken, nobody gets in",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::LiveSettings],
    reason: "When all connections were taken on the day of the outage, the way in was what the people lacked. The reserved ones are that way.",
    limits: "Whether an application uses them up is the business of `application-is-superuser`.",
    run: no_way_in,
};

fn no_way_in(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    if settings.number("superuser_reserved_connections") != Some(0) {
        return vec![];
    }
    let remedy = set(server, settings, &[("superuser_reserved_connections", "3".to_owned())]);
    let message = format!("{} keeps no connection for a superuser", server.object());
    vec![NO_WAY_IN.found(server.object(), message, vec![settings.evidence("superuser_reserved_connections")], remedy)]
}

const OOM: Check = Check {
    id: "oom-unprotected",
    title: "When memory runs out, the kernel may take the database",
    family: Family::Starvation,
    severity: Severity::Medium,
    needs: &[Source::LiveProcess],
    reason: "A month after the outage a synchronisation without batches took all memory, and what the kernel killed for it was PostgreSQL: all sessions gone, and \
             a recovery for everybody to wait for.",
    limits: "Asked where the server's processes are on this machine. vm.overcommit_memory = 2, or a badness below zero for the main process, is enough.",
    run: oom,
};

fn oom(facts: &Facts) -> Vec<Finding> {
    let found = || {
        let server = facts.live_server()?;
        let host = facts.host.as_ref()?;
        let postmaster = host.postmaster.as_ref().ok()?;
        if postmaster.oom_score_adj < 0 || host.overcommit == Ok(2) {
            return None;
        }
        let place = crate::finding::Place { file: format!("/proc/{}/oom_score_adj", postmaster.pid).into(), line: 1 };
        let mut evidence = vec![shows(&place, format!("oom_score_adj: {}", postmaster.oom_score_adj))];
        if let Ok(overcommit) = host.overcommit {
            let place = crate::finding::Place { file: "/proc/sys/vm/overcommit_memory".into(), line: 1 };
            evidence.push(shows(&place, format!("vm.overcommit_memory: {overcommit}")));
        }
        let message = format!("{}: its main process is as likely to be killed as any other", server.object());
        let remedy = Remedy::Patch(
            "# systemctl edit the unit that starts the server; its children go back to 0, so that a greedy query dies and not the server\n[Service]\nOOMScoreAdjust=-900\n\
             Environment=PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj\nEnvironment=PG_OOM_ADJUST_VALUE=0"
                .to_owned(),
        );
        Some(OOM.found(server.object(), message, evidence, remedy))
    };
    found().into_iter().collect()
}

const ABANDONED: Check = Check {
    id: "abandoned-transaction",
    title: "A transaction has been left open",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Live],
    reason: "As long as it is open no vacuum removes what died since, and its locks stay. In July some 70 connections stood behind 61 locks; a prepared one survives \
             even a restart.",
    limits: "Looks once, now: a transaction idle for a quarter of an hour, a prepared one older than an hour, any older than half a day. A logical dump may take that \
             long.",
    run: abandoned,
};

const IDLE_TOO_LONG: f64 = 900.0;
const PREPARED_TOO_LONG: f64 = 3_600.0;
const OPEN_TOO_LONG: f64 = 43_200.0;

fn abandoned(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let mut findings = Vec::new();
    match &server.prepared {
        Ok(prepared) => findings.extend(prepared.iter().filter(|one| one.age > PREPARED_TOO_LONG).map(|one| {
            let name = shown(&one.name);
            let message = format!("the prepared transaction {name} has been waiting for {}", age(one.age));
            let remedy = Remedy::Advice(format!(
                "Ask its transaction manager; then COMMIT PREPARED or ROLLBACK PREPARED '{}' in its database.",
                name.replace('\'', "''")
            ));
            ABANDONED.found(
                format!("{}: {name}", server.object()),
                message,
                vec![shows(&server.here(), "pg_prepared_xacts")],
                remedy,
            )
        })),
        Err(why) => findings.push(ABANDONED.open(
            format!("{}: prepared transactions", server.object()),
            why.clone(),
            &server.here(),
        )),
    }
    let sessions = match &server.sessions {
        Ok(sessions) => sessions,
        Err(why) => {
            findings.push(ABANDONED.open(format!("{}: sessions", server.object()), why.clone(), &server.here()));
            return findings;
        }
    };
    for group in sessions {
        let (what, seconds) = match (group.idle_in_transaction, group.transaction) {
            (Some(idle), _) if idle > IDLE_TOO_LONG => ("sits idle in a transaction that began", idle),
            (_, Some(open)) if open > OPEN_TOO_LONG => ("is in a transaction that began", open),
            _ => continue,
        };
        let who = format!(
            "{} of {}",
            if group.application.is_empty() { "a session" } else { &group.application },
            group.role
        );
        let message = format!("{} {what} {} ago", shown(&who), age(seconds));
        let remedy = Remedy::Command(format!(
            "psql -c \"SELECT pid, state, xact_start, left(query, 60) FROM pg_stat_activity WHERE usename = {} ORDER BY xact_start LIMIT 5\"  # then \
             pg_terminate_backend(pid), once it is clear whose it is",
            literal(&group.role)
        ));
        let finding = ABANDONED.found(
            format!("{}: {}", server.object(), shown(&who)),
            message,
            vec![shows(&server.here(), groups(group))],
            remedy,
        );
        findings.push(finding.at_most(Severity::Medium));
    }
    findings
}

/// A name as SQL's text within a shell's double quotes.
fn literal(name: &str) -> String {
    let name: String = name.chars().filter(|c| c.is_alphanumeric() || "_-. ".contains(*c)).collect();
    format!("'{name}'")
}

fn age(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; a span for people")]
    span(seconds.clamp(0.0, 1e12) as u64)
}
