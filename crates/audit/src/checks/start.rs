//! Does it know when it is ready, and can it start at all without itself?

use std::collections::BTreeSet;

use super::{Check, Family, liveness::routed, shows, variables::change};
use crate::{
    Severity,
    facts::{Facts, Origin, Source, Workload, same_namespace},
    finding::{Finding, Remedy},
};

pub(super) const CHECKS: &[Check] = &[CONTROLLER, READINESS];

const CONTROLLER: Check = Check {
    id: "controller-needs-what-it-starts",
    title: "What starts things has to be started by itself",
    family: Family::Recovery,
    severity: Severity::High,
    needs: &[Source::Kubernetes, Source::Workloads],
    reason: "After the restart network, name service and storage driver stayed down, and people started them by hand, one by one. A gate that every pod has to pass, and that is \
             itself a pod behind that gate, can't be opened from within.",
    limits: "Knows admission webhooks that fail closed and select everything, images from a registry that the set itself serves, and deployers (Argo CD, Flux) whose repository \
             it serves. Controllers with a way in of their own are not known.",
    run: controller,
};

fn controller(facts: &Facts) -> Vec<Finding> {
    let mut findings = webhooks(facts);
    findings.extend(registries(facts));
    findings.extend(repositories(facts));
    findings
}

fn webhooks(facts: &Facts) -> Vec<Finding> {
    let findings = facts.webhooks.iter().filter(|hook| hook.closed && hook.pods && !hook.selective).filter_map(|hook| {
        let service = facts.services.iter().find(|service| service.name == hook.service && same_namespace(service.namespace.as_deref(), hook.namespace.as_deref()))?;
        let behind = facts.behind(service).next()?;
        let message = format!("{} must answer before any pod is made, and {} answers for it: once that is down it can't come back", hook.object, behind.object());
        let patch = format!(
            "webhooks:\n  - name: {}\n    # its own namespace and the cluster's have to start without it\n    namespaceSelector:\n      matchExpressions:\n        - key: kubernetes.io/metadata.name\n          \
             operator: NotIn\n          values: [kube-system, {}]",
            hook.name,
            behind.namespace.as_deref().unwrap_or("its-own")
        );
        let evidence = vec![shows(&hook.place, "failurePolicy: Fail, for pods of all namespaces"), shows(&behind.place, behind.object())];
        Some(CONTROLLER.found(format!("{}: {}", hook.object, hook.name), message, evidence, Remedy::Patch(patch)))
    });
    findings.collect()
}

/// The workload that a public name leads to.
fn serving<'a>(facts: &'a Facts, host: &str) -> Option<&'a Workload> {
    let route = facts.routes.iter().find(|route| route.hosts.iter().any(|served| served.value == host))?;
    route.backends.iter().find_map(|backend| {
        let namespace = backend.namespace.as_deref().or(route.namespace.as_deref());
        let service = facts.services.iter().find(|service| {
            service.name == backend.service && same_namespace(service.namespace.as_deref(), namespace)
        })?;
        facts.behind(service).next()
    })
}

/// A registry whose own image is in it, or whose database's is.
fn registries(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for workload in facts.lasting() {
        let image = workload
            .containers
            .iter()
            .find_map(|container| container.image.as_ref().filter(|image| image.value.registry().is_some()));
        let Some(image) = image else { continue };
        let Some(registry) = image.value.registry().and_then(|host| serving(facts, host)) else { continue };
        let own = std::ptr::eq(registry, workload);
        let needed = own || needs(facts, registry).contains(workload.name.as_str());
        if !needed {
            continue;
        }
        let what = if own { "itself".to_owned() } else { format!("{}, which it needs", workload.object()) };
        let message = format!("{} hands out the image of {what}: on an empty node neither starts", registry.object());
        let evidence = vec![image.evidence("image"), shows(&registry.place, registry.object())];
        let remedy = Remedy::Advice(
            "Take the images of the registry, and of what it needs, from another registry, or keep them on every node."
                .to_owned(),
        );
        findings.push(CONTROLLER.found(format!("{}: image", workload.object()), message, evidence, remedy));
    }
    findings
}

/// What a workload needs, as far as it is declared, at any distance.
fn needs<'a>(facts: &'a Facts, workload: &'a Workload) -> BTreeSet<&'a str> {
    let mut all: BTreeSet<&str> = BTreeSet::new();
    let mut next = vec![workload.name.as_str()];
    while let Some(name) = next.pop() {
        let found = facts.needs.iter().filter(|(from, ..)| from == name).map(|(_, to, _)| to.as_str());
        next.extend(found.filter(|to| all.insert(to)));
    }
    for database in facts.databases() {
        if super::variables::dependents(facts, database).iter().any(|user| std::ptr::eq(*user, workload)) {
            all.insert(&database.name);
        }
    }
    all
}

fn repositories(facts: &Facts) -> Vec<Finding> {
    let findings = facts.deployers.iter().filter_map(|(object, url)| {
        let host = url.value.split_once("://").map_or(url.value.as_str(), |(_, rest)| rest);
        let host = host.rsplit('@').next()?.split(['/', ':']).next()?;
        let forge = serving(facts, host)?;
        let message = format!("{object} deploys from {host}, which is {}, a part of what it deploys", forge.object());
        let evidence = vec![url.evidence("repository"), shows(&forge.place, forge.object())];
        let remedy = Remedy::Advice("Mirror the repository outside of the cluster and deploy from there, or write down and try how the forge is started by hand.".to_owned());
        Some(CONTROLLER.found(object.clone(), message, evidence, remedy))
    });
    findings.collect()
}

const READINESS: Check = Check {
    id: "no-readiness",
    title: "Nobody can tell when it is ready",
    family: Family::Recovery,
    severity: Severity::Medium,
    needs: &[Source::Workloads],
    reason: "After the restart services got requests before they could answer, and what waited for them took started for ready. Site and bot stayed broken until people \
             restarted them.",
    limits: "Asked of what a route leads to or another part waits for, and that has some other probe: `no-probes` tells of those without any. Not asked of units of systemd.",
    run: readiness,
};

fn readiness(facts: &Facts) -> Vec<Finding> {
    let routed = routed(facts);
    let waited: BTreeSet<&str> = facts.needs.iter().map(|(_, to, _)| to.as_str()).collect();
    let findings = facts.lasting().filter(|workload| workload.origin == Origin::Kubernetes).filter_map(|workload| {
        let asked = routed.contains(&std::ptr::from_ref(workload)) || waited.contains(workload.name.as_str());
        let other =
            workload.main_containers().any(|container| container.liveness.is_some() || container.startup.is_some());
        let ready = workload.main_containers().any(|container| container.readiness.is_some());
        if !asked || !other || ready {
            return None;
        }
        let container = workload.database_container()?;
        let port = container.ports.first().map_or(8080, |port| port.number);
        let fix = format!(
            "readinessProbe:\n  httpGet:  # or what else proves that it can serve\n    path: /healthz\n    port: {port}"
        );
        let message = format!("{} counts as ready from the moment it runs", workload.object());
        Some(READINESS.found(
            workload.object(),
            message,
            vec![shows(&container.place, format!("container {}: no readiness probe", container.name))],
            change(workload, container, &fix, "", ""),
        ))
    });
    findings.collect()
}
