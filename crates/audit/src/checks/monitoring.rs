//! Who watches, and from where.

use super::{Check, Family, shows};
use crate::{
    Severity,
    facts::{AlertRule, Facts, Origin, Source, Workload, folder},
    finding::{Finding, Remedy},
    words::list,
};

pub(super) const CHECKS: &[Check] = &[SAME_HOST];

/// What to do about it, of files or of a server.
pub(super) const LOOK_FROM_OUTSIDE: &str = "Let something outside notice silence: oxpecker's [alert.heartbeat], or a rule that always fires, sent to a service elsewhere that calls when it \
                                            stops; better still, let the monitoring run on another machine.";

const SAME_HOST: Check = Check {
    id: "monitoring-on-what-it-monitors",
    title: "The monitoring goes down with what it watches",
    family: Family::Detection,
    severity: Severity::Medium,
    needs: &[Source::Workloads, Source::Database],
    reason: "In January the node that was in trouble was the one that the alerts had to leave. Prometheus was there, saw it, and could tell nobody.",
    limits: "In files: one compose file, units of one folder, or one cluster, with a database and its monitoring. An always-firing rule or a heartbeat is enough.",
    run: same_host,
};

const WATCHERS: &[&str] = &[
    "prometheus",
    "alertmanager",
    "victoria-metrics",
    "vmalert",
    "uptime-kuma",
    "grafana",
    "zabbix-server",
    "icinga2",
    "gatus",
];

/// Whether a workload is a monitoring of its own: it decides or sends, other than an exporter.
fn watches(workload: &&Workload) -> bool {
    workload.main_containers().filter_map(|container| container.image.as_ref()).any(|image| {
        let base = image.value.base();
        WATCHERS.iter().any(|name| {
            base == *name
                || base.strip_prefix(name).is_some_and(|rest| {
                    rest.starts_with('-') && !rest.contains("exporter") && !rest.contains("operator")
                })
        })
    }) || (workload.origin == Origin::Systemd && WATCHERS.contains(&workload.name.as_str()))
}

fn same_host(facts: &Facts) -> Vec<Finding> {
    if facts.heartbeat.is_some() || facts.rules.iter().any(AlertRule::is_dead_mans_switch) {
        return vec![];
    }
    let watchers: Vec<&Workload> = facts.lasting().filter(watches).collect();
    let findings = facts.databases().filter_map(|database| {
        let beside = |watcher: &&&Workload| match (watcher.origin, database.origin) {
            (Origin::Compose, Origin::Compose) => watcher.place.file == database.place.file,
            (Origin::Systemd, Origin::Systemd) => folder(&watcher.place.file) == folder(&database.place.file),
            (Origin::Kubernetes, Origin::Kubernetes) => true,
            _ => false,
        };
        let here: Vec<&&Workload> = watchers.iter().filter(beside).collect();
        let names: Vec<String> = here.iter().map(|watcher| watcher.object()).collect();
        if names.is_empty() {
            return None;
        }
        let one = if database.origin == Origin::Kubernetes { "one cluster" } else { "one machine" };
        let message = format!(
            "{} and {} are on {one}, and nobody outside hears when both are gone",
            database.object(),
            list(&names, 4)
        );
        let mut evidence: Vec<_> = here.iter().take(4).map(|watcher| shows(&watcher.place, watcher.object())).collect();
        evidence.push(shows(&database.place, database.object()));
        Some(SAME_HOST.found(database.object(), message, evidence, Remedy::Advice(LOOK_FROM_OUTSIDE.to_owned())))
    });
    findings.collect()
}
