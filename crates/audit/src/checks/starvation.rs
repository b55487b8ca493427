//! Can one part take the whole machine?

use super::{
    Check, Family, shows,
    variables::{change, pod},
};
use crate::{
    Severity,
    facts::{Container, Engine, Facts, Origin, Source, Workload, same_namespace},
    finding::{Evidence, Finding, Remedy},
    quantity::human,
};

pub(super) const CHECKS: &[Check] =
    &[DATABASE_UNLIMITED, UNLIMITED, STOCK, MEMORY_OVERCOMMITTED, VACUUM_MEMORY, NO_TIMEOUTS, NO_REQUESTS, NO_PRIORITY];

const DATABASE_UNLIMITED: Check = Check {
    id: "database-unlimited",
    title: "A database may take the whole machine",
    family: Family::Starvation,
    severity: Severity::Critical,
    needs: &[Source::Database],
    reason: "An autovacuum took all cores of the node. Nothing held the database back, so the node starved, became unresponsive and was shut down; with \
             it went the network plugin and the name service that everything else needed.",
    limits: "Limits that a LimitRange gives count. Limits of the host's own making (a slice, a virtual machine of its own) are not seen.",
    run: database_unlimited,
};

fn database_unlimited(facts: &Facts) -> Vec<Finding> {
    unlimited_among(facts, &DATABASE_UNLIMITED, true)
}

const UNLIMITED: Check = Check {
    id: "unlimited-beside-database",
    title: "A workload beside a database may take the whole machine",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Workloads, Source::Database],
    reason: "13 of 13 deployments had no limits. A month later one of them, a synchronisation without batches, took memory until the kernel killed \
             PostgreSQL instead of it.",
    limits: "Asked only where a database is in the set. A container with a limit for memory or for cores alone is told of what is missing.",
    run: unlimited,
};

fn unlimited(facts: &Facts) -> Vec<Finding> {
    unlimited_among(facts, &UNLIMITED, false)
}

fn unlimited_among(facts: &Facts, check: &Check, databases: bool) -> Vec<Finding> {
    let workloads = facts.lasting().filter(|workload| workload.engine().is_some_and(Engine::holds_data) == databases);
    workloads.filter_map(|workload| unlimited_workload(facts, check, workload)).collect()
}

fn unlimited_workload(facts: &Facts, check: &Check, workload: &Workload) -> Option<Finding> {
    let given = |cpu: bool| {
        facts.limit_ranges.iter().any(|range| {
            same_namespace(range.namespace.as_deref(), workload.namespace.as_deref())
                && if cpu { range.cpu } else { range.memory }
        })
    };
    let (cpu, memory) =
        (workload.origin == Origin::Kubernetes && given(true), workload.origin == Origin::Kubernetes && given(false));
    let gaps: Vec<(&Container, Vec<&str>)> = workload
        .main_containers()
        .filter_map(|container| {
            let mut missing = Vec::new();
            missing.extend((container.cpu_limit.is_none() && !cpu).then_some("CPU"));
            missing.extend((container.memory_limit.is_none() && !memory).then_some("memory"));
            (!missing.is_empty()).then_some((container, missing))
        })
        .collect();
    let (first, missing) = gaps.first()?;
    let evidence: Vec<Evidence> = gaps
        .iter()
        .map(|(container, missing)| {
            shows(&container.place, format!("container {}: no {} limit", container.name, missing.join(" and no ")))
        })
        .collect();
    let what = missing.join(" or ");
    let message = format!("{} has no limit for {what}: it can take all that the machine has", workload.object());
    let both = |cpu: &str, memory: &str| {
        let lines = [(missing.contains(&"CPU"), cpu), (missing.contains(&"memory"), memory)];
        lines.iter().filter(|(wanted, _)| *wanted).map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
    };
    let (cores, size) = if workload.engine().is_some() { ("2", "2Gi") } else { ("500m", "256Mi") };
    let kubernetes = both(&format!("    cpu: \"{cores}\""), &format!("    memory: {size}"));
    let kubernetes = format!("resources:  # measure first: these are places to begin\n  limits:\n{kubernetes}");
    let compose = both("cpus: 2", "mem_limit: 2g");
    let systemd = both("CPUQuota=200%", "MemoryMax=2G");
    let finding =
        check.found(workload.object(), message, evidence, change(workload, first, &kubernetes, &compose, &systemd));
    // Half a fence is better than none.
    Some(if missing.len() == 1 && gaps.len() == 1 && !missing.contains(&"CPU") {
        finding.at_most(Severity::Medium)
    } else {
        finding
    })
}

const STOCK: Check = Check {
    id: "stock-settings",
    title: "PostgreSQL runs with the settings it was born with",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Postgres],
    reason: "The server ran with stock settings: 100 connections whatever the memory, no time-out on statements or idle transactions, no record of slow \
             autovacuums or checkpoints. On the same day all 100 connections were taken and nobody could log in.",
    limits: "ALTER SYSTEM and settings of databases and roles live in the data directory and are not seen in files.",
    run: stock,
};

fn stock(facts: &Facts) -> Vec<Finding> {
    let bare = facts.postgres().filter(|workload| workload.settings.is_empty() && workload.configured.is_none());
    let findings = bare.filter_map(|workload| {
        let container = workload.database_container()?;
        let message = format!("{} has neither a mounted configuration nor options: memory, connections and time-outs are the defaults for a small laptop", workload.object());
        let options = "[postgres, -c, shared_buffers=512MB, -c, max_connections=60, -c, idle_in_transaction_session_timeout=5min, -c, log_autovacuum_min_duration=1s]";
        let remedy = change(
            workload,
            container,
            &format!("args: {options}  # a quarter of the memory limit for shared_buffers"),
            &format!("command: {options}"),
            "# settings belong into conf.d/ of the cluster's configuration",
        );
        // Its start script takes no options: what is given to it instead is never a server.
        let own_script = container.image.as_ref().is_some_and(|image| image.value.name.contains("bitnami"));
        let remedy = match own_script {
            true => Remedy::Advice("Set shared_buffers, max_connections, time-outs and log settings in primary.extendedConfiguration of the chart's values.".to_owned()),
            false => remedy,
        };
        let evidence = vec![shows(&container.place, format!("container {}: no -c option, no postgresql.conf", container.name))];
        Some(STOCK.found(workload.object(), message, evidence, remedy))
    });
    findings.collect()
}

const MEMORY_OVERCOMMITTED: Check = Check {
    id: "connections-exceed-memory",
    title: "All connections together need more memory than there is",
    family: Family::Starvation,
    severity: Severity::High,
    needs: &[Source::Postgres, Source::Settings],
    reason: "Connections surged to the maximum on the day of the outage. Where each of them may sort in memory as well, the kernel ends it by killing \
             PostgreSQL, as it did a month later.",
    limits: "Counts one work_mem for each connection: a query can use several. Asked where the container has a memory limit.",
    run: memory_overcommitted,
};

/// PostgreSQL's defaults (manual, "Resource Consumption" and "Connections and Authentication").
const MAX_CONNECTIONS: u64 = 100;
const WORK_MEM: u64 = 4 << 20;
const SHARED_BUFFERS: u64 = 128 << 20;
const MAINTENANCE_WORK_MEM: u64 = 64 << 20;
const AUTOVACUUM_MAX_WORKERS: u64 = 3;

fn memory_overcommitted(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter(|workload| !workload.settings.is_empty()).filter_map(|workload| {
        let limit = workload.database_container()?.memory_limit.as_ref()?;
        let settings = &workload.settings;
        let connections = settings.number("max_connections").unwrap_or(MAX_CONNECTIONS);
        let work = settings.bytes("work_mem", 1024).unwrap_or(WORK_MEM);
        let buffers = settings.bytes("shared_buffers", 8192).unwrap_or(SHARED_BUFFERS);
        let needed = connections.saturating_mul(work).saturating_add(buffers);
        if needed <= limit.value {
            return None;
        }
        let message = format!(
            "{}: {connections} connections with {} of work_mem each and {} of shared_buffers are {}, the limit is {}",
            workload.object(), human(work), human(buffers), human(needed), human(limit.value)
        );
        let mut evidence = vec![shows(&limit.place, format!("memory limit: {}", human(limit.value)))];
        for name in ["max_connections", "work_mem", "shared_buffers"] {
            evidence.extend(settings.get(name).map(|setting| setting.evidence(name)));
        }
        let fitting = (limit.value.saturating_sub(buffers) / work.max(1)).max(10);
        let remedy = Remedy::Command(format!("psql -c 'ALTER SYSTEM SET max_connections = {fitting}'  # and restart; put a pool (pgbouncer) in front for more clients"));
        Some(MEMORY_OVERCOMMITTED.found(workload.object(), message, evidence, remedy))
    });
    findings.collect()
}

const VACUUM_MEMORY: Check = Check {
    id: "vacuum-memory",
    title: "Autovacuum's workers together may use too much of the memory",
    family: Family::Starvation,
    severity: Severity::Medium,
    needs: &[Source::Postgres, Source::Settings],
    reason: "Each worker may take maintenance_work_mem (or autovacuum_work_mem). Where that is generous, the vacuum that should keep the database well \
             is what gets it killed.",
    limits: "Asked where the container has a memory limit. More than half of what shared_buffers leave is too much.",
    run: vacuum_memory,
};

fn vacuum_memory(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter(|workload| !workload.settings.is_empty()).filter_map(|workload| {
        let limit = workload.database_container()?.memory_limit.as_ref()?;
        let settings = &workload.settings;
        let name = if settings.bytes("autovacuum_work_mem", 1024).is_some() {
            "autovacuum_work_mem"
        } else {
            "maintenance_work_mem"
        };
        let each = settings.bytes(name, 1024).unwrap_or(MAINTENANCE_WORK_MEM);
        let workers = settings.number("autovacuum_max_workers").unwrap_or(AUTOVACUUM_MAX_WORKERS);
        let left = limit.value.saturating_sub(settings.bytes("shared_buffers", 8192).unwrap_or(SHARED_BUFFERS));
        let needed = each.saturating_mul(workers);
        if needed <= left / 2 {
            return None;
        }
        let message = format!(
            "{}: {workers} workers with {} each may take {}; beside shared_buffers there are {}",
            workload.object(),
            human(each),
            human(needed),
            human(left)
        );
        let mut evidence = vec![shows(&limit.place, format!("memory limit: {}", human(limit.value)))];
        evidence.extend(settings.get(name).map(|setting| setting.evidence(name)));
        let fitting = left / 4 / workers.max(1) / (1 << 20);
        let remedy = Remedy::Command(format!(
            "psql -c \"ALTER SYSTEM SET autovacuum_work_mem = '{}MB'\" -c 'SELECT pg_reload_conf()'",
            fitting.max(16)
        ));
        Some(VACUUM_MEMORY.found(workload.object(), message, evidence, remedy))
    });
    findings.collect()
}

const NO_TIMEOUTS: Check = Check {
    id: "no-timeouts",
    title: "An abandoned transaction may stay for ever",
    family: Family::Starvation,
    severity: Severity::Medium,
    needs: &[Source::Postgres, Source::Settings],
    reason: "In a later incident of the same team some 70 connections held 61 locks. A transaction that nobody ends holds its locks, and keeps every \
             vacuum from removing what is dead, until the tables are so large that vacuuming them is itself the outage.",
    limits: "In files, time-outs of single roles or databases are not seen; of a live server they count.",
    run: no_timeouts,
};

fn no_timeouts(facts: &Facts) -> Vec<Finding> {
    let unset = |workload: &Workload, name: &str| {
        workload.settings.get(name).is_none_or(|setting| setting.value.trim_matches('0').is_empty())
    };
    let findings = facts.postgres().filter(|workload| !workload.settings.is_empty()).filter_map(|workload| {
        let (name, setting) = workload.settings.any()?;
        let statements = unset(workload, "statement_timeout");
        if !unset(workload, "idle_in_transaction_session_timeout") {
            let why = "statement_timeout is not in the files; it is best set for the applications' roles, which only the live server knows";
            return statements.then(|| NO_TIMEOUTS.open(workload.object(), why, &setting.place));
        }
        let more = if statements { "; statements have no limit either: give the applications' roles one" } else { "" };
        let message = format!(
            "{}: idle_in_transaction_session_timeout is not set, so a session may sit in a transaction for ever{more}",
            workload.object()
        );
        let evidence =
            vec![shows(&setting.place, format!("{name} is set here, idle_in_transaction_session_timeout is not"))];
        let remedy = Remedy::Command(
            "psql -c \"ALTER SYSTEM SET idle_in_transaction_session_timeout = '5min'\" -c 'SELECT pg_reload_conf()'"
                .to_owned(),
        );
        Some(NO_TIMEOUTS.found(workload.object(), message, evidence, remedy))
    });
    findings.collect()
}

const NO_REQUESTS: Check = Check {
    id: "no-requests",
    title: "Nothing is kept free for a workload",
    family: Family::Starvation,
    severity: Severity::Medium,
    needs: &[Source::Kubernetes, Source::Workloads],
    reason: "When a node was drained in January the others had no room: the scheduler had not known what anything needs. Pods without requests are also \
             the first to be evicted.",
    limits: "A limit counts as a request, as it does for Kubernetes. Not told of workloads that have no limit either: `unlimited-beside-database` is.",
    run: no_requests,
};

fn no_requests(facts: &Facts) -> Vec<Finding> {
    let kubernetes = facts.lasting().filter(|workload| workload.origin == Origin::Kubernetes);
    let findings = kubernetes.filter_map(|workload| {
        let lacking = |container: &&Container| {
            (!container.cpu_request || !container.memory_request)
                && (container.cpu_limit.is_some()
                    || container.memory_limit.is_some()
                    || container.cpu_request
                    || container.memory_request)
        };
        let container = workload.main_containers().find(lacking)?;
        let what = match (container.cpu_request, container.memory_request) {
            (false, false) => "neither CPU nor memory",
            (false, true) => "no CPU",
            _ => "no memory",
        };
        let message = format!("{} asks for {what}: the scheduler puts it where there may be none", workload.object());
        let remedy = change(workload, container, "resources:\n  requests:\n    cpu: 100m\n    memory: 128Mi", "", "");
        Some(NO_REQUESTS.found(
            workload.object(),
            message,
            vec![shows(&container.place, format!("container {}: no request", container.name))],
            remedy,
        ))
    });
    findings.collect()
}

const NO_PRIORITY: Check = Check {
    id: "no-priority",
    title: "A database is as dispensable as anything else",
    family: Family::Starvation,
    severity: Severity::Low,
    needs: &[Source::Kubernetes, Source::Database],
    reason: "After the restart everything fought for the same cores, and the database came up when chance let it. A priority class puts it first, and \
             last in the line of those that are evicted.",
    limits: "Databases of an operator are not looked into.",
    run: no_priority,
};

fn no_priority(facts: &Facts) -> Vec<Finding> {
    let databases =
        facts.databases().filter(|workload| workload.origin == Origin::Kubernetes && workload.priority.is_none());
    let findings = databases.map(|workload| {
        let message = format!("{} has no priority class", workload.object());
        let remedy = Remedy::Patch(pod(workload, "priorityClassName: database  # a PriorityClass with value 1000000"));
        NO_PRIORITY.found(workload.object(), message, vec![shows(&workload.place, "no priorityClassName")], remedy)
    });
    findings.collect()
}
