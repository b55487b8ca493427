//! What a vacuum may take, and whether there is one; and what pools may open.

use super::{
    Check, Family, shows,
    variables::{change, dependents},
};
use crate::{
    Severity,
    facts::{Container, Facts, Source, VariableSource, Workload},
    finding::{Finding, Remedy},
};

pub(super) const CHECKS: &[Check] = &[OUTRUNS, OFF, POOLS];

const OUTRUNS: Check = Check {
    id: "vacuum-outruns-cores",
    title: "A vacuum may take every core that there is",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Postgres, Source::Settings],
    reason: "The outage began with an autovacuum at 100 % of the CPU. What holds one back is its cost limit, and that counts pages, not cores: stock settings allow a \
             hundred thousand cached pages a second, about what one core can do. On a small machine that is the machine.",
    limits: "An estimate, ten microseconds a cached page: pages that have to be read or written cost more and are fewer. Asked where the cores are known: a CPU limit, or the \
             live server's. Nothing is said where oxpecker's governor acts.",
    run: outruns_in_files,
};

/// Seconds of a core for a page that is in memory, its share of the index passes included.
const CORE_SECONDS_PER_PAGE: f64 = 1e-5;
/// PostgreSQL's defaults since 12 (manual, "Automatic Vacuuming"): milliseconds, cost, workers.
const DELAY: f64 = 2.0;
const LIMIT: f64 = 200.0;
const WORKERS: f64 = 3.0;

/// What autovacuum may take of so many cores, if that is too much: the words, and how bad. `delay` in milliseconds.
pub(super) fn outruns(delay: f64, limit: f64, workers: f64, cores: f64) -> Option<(String, Severity)> {
    let cores = cores.max(0.01);
    if delay <= 0.0 {
        let share = workers.min(cores) / cores;
        let message =
            format!("nothing holds autovacuum back: {workers:.0} workers may take a core each, of {}", amount(cores));
        return (share >= 0.5).then_some((message, Severity::High));
    }
    let pages = limit.max(1.0) * 1_000.0 / delay;
    let share = (pages * CORE_SECONDS_PER_PAGE).min(workers) / cores;
    let severity = match share {
        share if share >= 0.99 => Severity::Medium,
        share if share >= 0.5 => Severity::Low,
        _ => return None,
    };
    let message = format!(
        "autovacuum may go through {pages:.0} cached pages a second, about {:.0} % of {}",
        share.min(1.0) * 100.0,
        amount(cores)
    );
    Some((message, severity))
}

fn amount(cores: f64) -> String {
    if (cores - 1.0).abs() < 0.01 { "one core".to_owned() } else { format!("{} cores", (cores * 10.0).round() / 10.0) }
}

/// What to do about it.
pub(super) fn hold_back(delay: f64) -> Remedy {
    if delay <= 0.0 {
        return Remedy::Command(
            "psql -c \"ALTER SYSTEM SET autovacuum_vacuum_cost_delay = '2ms'\" -c \"SELECT pg_reload_conf()\""
                .to_owned(),
        );
    }
    Remedy::Advice(
        "Don't just lower the limit: a vacuum that is slow for good falls behind, and the next one is longer. Let something hold it back only while others wait for cores: \
         oxpecker run, with [autovacuum] mode = \"act\". Where nothing does, autovacuum_vacuum_cost_delay = '5ms' is a place to begin; watch the dead tuples."
            .to_owned(),
    )
}

/// `2`, `500m`, `1.5`, `200%`.
fn cores(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, factor) = match (text.strip_suffix('m'), text.strip_suffix('%')) {
        (Some(number), _) => (number, 0.001),
        (_, Some(number)) => (number, 0.01),
        _ => (text, 1.0),
    };
    number.parse::<f64>().ok().map(|number| number * factor).filter(|cores| *cores > 0.0 && cores.is_finite())
}

fn outruns_in_files(facts: &Facts) -> Vec<Finding> {
    if facts.governed.is_some() {
        return vec![];
    }
    let findings = facts.postgres().filter(|workload| !workload.settings.is_empty()).filter_map(|workload| {
        let limit = workload.database_container()?.cpu_limit.as_ref()?;
        let settings = &workload.settings;
        let set = |name: &str| {
            settings
                .get(name)
                .and_then(|setting| setting.value.trim().trim_end_matches("ms").trim().parse::<f64>().ok())
                .filter(|value| *value >= 0.0)
        };
        let delay = set("autovacuum_vacuum_cost_delay").unwrap_or(DELAY);
        let cost = set("autovacuum_vacuum_cost_limit").or_else(|| set("vacuum_cost_limit")).unwrap_or(LIMIT);
        let workers = set("autovacuum_max_workers").unwrap_or(WORKERS);
        // A limit keeps the node safe already: only what takes all of it is told.
        let (message, severity) = outruns(delay, cost, workers, cores(&limit.value)?)
            .filter(|(_, severity)| *severity >= Severity::Medium)?;
        let mut evidence = vec![limit.evidence("CPU limit")];
        evidence.extend(
            ["autovacuum_vacuum_cost_delay", "autovacuum_vacuum_cost_limit", "vacuum_cost_limit"]
                .iter()
                .filter_map(|name| Some(settings.get(name)?.evidence(name))),
        );
        Some(
            OUTRUNS
                .found(workload.object(), format!("{}: {message}", workload.object()), evidence, hold_back(delay))
                .at_most(severity),
        )
    });
    findings.collect()
}

const OFF: Check = Check {
    id: "autovacuum-off",
    title: "Nothing is vacuumed",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Postgres, Source::Settings],
    reason: "Switching autovacuum off is what comes to mind after an outage by autovacuum. The dead rows stay, every query gets slower, and one day the server starts the \
             same vacuum by force, over everything at once.",
    limits: "Tables that have it switched off one by one are not seen.",
    run: off,
};

fn off(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter_map(|workload| {
        let (name, setting) = ["autovacuum", "track_counts"]
            .into_iter()
            .find_map(|name| Some((name, workload.settings.is_off(name)?)))?;
        let message =
            format!("{}: {name} is off: nothing is vacuumed until the server must, to save itself", workload.object());
        let remedy = Remedy::Command(format!(
            "psql -c 'ALTER SYSTEM RESET {name}' -c 'SELECT pg_reload_conf()'  # and take it out of {}",
            setting.place.file
        ));
        Some(OFF.found(workload.object(), message, vec![setting.evidence(name)], remedy))
    });
    findings.collect()
}

const POOLS: Check = Check {
    id: "pools-exceed-connections",
    title: "The pools may open more connections than there are",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Postgres, Source::Workloads],
    reason: "On the day of the outage 100 clients were reached and the server took nobody any more. Each service was within its own pool; their sum was nobody's.",
    limits: "Adds the sizes that variables state (DB_POOL_SIZE, POOL_MAX and the like), times replicas, of workloads that use the only PostgreSQL of the set. A pool in code, \
             and one for each process of a server, is not seen.",
    run: pools,
};

/// Names of variables that state how many connections a process may hold.
const POOL_NAMES: &[&str] = &[
    "POOL_SIZE",
    "POOL_MAX",
    "MAX_POOL",
    "POOL_MAX_SIZE",
    "POOL_LIMIT",
    "MAX_CONNECTIONS",
    "MAX_CONNS",
    "CONNECTION_LIMIT",
    "CONN_MAX",
];
/// Connections that PostgreSQL keeps for superusers, and its default for all.
const RESERVED: u64 = 3;
const MAX_CONNECTIONS: u64 = 100;

fn pool(container: &Container) -> Option<(&crate::facts::Variable, u64)> {
    container.env.iter().find_map(|variable| {
        let VariableSource::Literal(value) = &variable.source else { return None };
        let named = POOL_NAMES.iter().any(|name| variable.name.ends_with(name));
        // HTTP and Redis have pools of their own.
        let other =
            ["HTTP", "REDIS", "CLIENT", "WEB", "MONGO", "MYSQL"].iter().any(|name| variable.name.contains(name));
        (named && !other).then(|| Some((variable, value.trim().parse().ok()?))).flatten()
    })
}

fn pools(facts: &Facts) -> Vec<Finding> {
    let mut databases = facts.postgres();
    let (Some(database), None) = (databases.next(), databases.next()) else { return vec![] };
    let stated = |workload: &&Workload| {
        let replicas = workload.replicas.as_ref().map_or(1, |replicas| u64::try_from(replicas.value).unwrap_or(0));
        workload
            .main_containers()
            .find_map(pool)
            .map(|(variable, size)| (variable.place.clone(), variable.name.clone(), size, replicas))
    };
    let users = dependents(facts, database);
    let pools: Vec<_> = users.iter().filter_map(|workload| Some((workload.object(), stated(workload)?))).collect();
    let sum: u64 =
        pools.iter().map(|(_, (_, _, size, replicas))| size.saturating_mul(*replicas)).fold(0, u64::saturating_add);
    let most = database.settings.number("max_connections").unwrap_or(MAX_CONNECTIONS);
    if sum <= most.saturating_sub(RESERVED) {
        return vec![];
    }
    let message = format!(
        "the pools of {} workloads may hold {sum} connections; {} takes {most}, {RESERVED} of them for superusers",
        pools.len(),
        database.object()
    );
    let mut evidence: Vec<_> = pools
        .iter()
        .take(6)
        .map(|(object, (place, name, size, replicas))| {
            shows(place, format!("{object}: {name}={size}, {replicas} of it"))
        })
        .collect();
    evidence.extend(database.settings.get("max_connections").map(|setting| setting.evidence("max_connections")));
    let fitting = most.saturating_sub(RESERVED)
        / sum.div_ceil(most.max(1)).max(1)
        / u64::try_from(pools.len()).unwrap_or(1).max(1);
    let remedy = match database.database_container() {
        Some(container) if pools.is_empty() => change(database, container, "", "", ""),
        _ => Remedy::Advice(format!(
            "Bound each pool (about {} here), or put one pool (pgbouncer) in front of all. More max_connections costs memory and only moves the wall.",
            fitting.max(1)
        )),
    };
    vec![POOLS.found(database.object(), message, evidence, remedy)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vacuum_may_take() {
        for (delay, limit, workers, cores, expected) in [
            (2.0, 200.0, 3.0, 1.0, Some(Severity::Medium)),
            (2.0, 200.0, 3.0, 2.0, Some(Severity::Low)),
            (2.0, 200.0, 3.0, 8.0, None),
            (0.0, 200.0, 3.0, 4.0, Some(Severity::High)),
            (0.0, 200.0, 3.0, 16.0, None),
            (20.0, 10_000.0, 3.0, 4.0, Some(Severity::Low)),
            (20.0, 200.0, 3.0, 1.0, None),
        ] {
            assert_eq!(
                outruns(delay, limit, workers, cores).map(|(_, severity)| severity),
                expected,
                "{delay} {limit} {cores}"
            );
        }
    }

    #[test]
    fn cores_of_all_dialects() {
        assert_eq!(
            [cores("2"), cores("500m"), cores("200%"), cores("0"), cores("many")],
            [Some(2.0), Some(0.5), Some(2.0), None, None]
        );
    }
}
