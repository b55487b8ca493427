//! Does every name lead somewhere?

use std::collections::BTreeMap;

use super::{Check, Family, shows};
use crate::{
    Severity,
    facts::{ExpectedHost, Facts, Source, StoreKind, same_namespace},
    finding::{Finding, Remedy},
};

pub(super) const CHECKS: &[Check] = &[UNSERVED, BACKEND, SELECTS_NOTHING, TLS];

const UNSERVED: Check = Check {
    id: "host-not-served",
    title: "A name that should answer is served by nothing",
    family: Family::Routes,
    severity: Severity::High,
    needs: &[Source::ExpectedHosts, Source::Routes],
    reason: "A redirect (of the error reporting's host name) was never taken along to the cluster. A wildcard in the name service answered for it, so the name \
             resolved and nobody missed it, until they looked for errors.",
    limits: "What is expected has to be written down: expected-routes.txt (`host`, or `host -> target`, one a line), or the old web server's configuration. \
             Whether it answers as it should takes a request, which this version does not send.",
    run: unserved,
};

fn unserved(facts: &Facts) -> Vec<Finding> {
    let mut by_host: BTreeMap<&str, Vec<&ExpectedHost>> = BTreeMap::new();
    for expected in &facts.expected {
        by_host.entry(&expected.host).or_default().push(expected);
    }
    let findings = by_host.into_iter().filter_map(|(host, expected)| {
        let serving = facts.routes.iter().find_map(|route| Some((route, route.serving(host)?)));
        let exact = facts.routes.iter().any(|route| route.hosts.iter().any(|served| served.value == host));
        if exact {
            return None;
        }
        let redirect = expected.iter().find_map(|expected| expected.redirect.as_deref());
        let mut evidence: Vec<_> = expected
            .iter()
            .map(|expected| {
                let to = expected.redirect.as_ref().map(|to| format!(" -> {to}")).unwrap_or_default();
                shows(&expected.place, format!("expected: {host}{to}"))
            })
            .collect();
        let message = match serving {
            Some((route, served)) => {
                evidence.push(served.evidence("host"));
                format!(
                    "{host} has no route of its own: the wildcard {} of {} answers for it",
                    served.value, route.object
                )
            }
            None => format!("{host} is expected and no route serves it"),
        };
        let remedy = match redirect {
            Some(to) => Remedy::Patch(redirecting(host, to)),
            None => Remedy::Advice(format!("Add {host} to a route, or take it out of {}.", expected[0].place.file)),
        };
        let finding = UNSERVED.found(host, message, evidence, remedy);
        // A wildcard may be meant to answer; for a redirect it can't be.
        Some(if serving.is_some() && redirect.is_none() { finding.at_most(Severity::Low) } else { finding })
    });
    findings.collect()
}

fn redirecting(host: &str, to: &str) -> String {
    let name = host.replace('.', "-");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: redirect-{name}\n  annotations:\n    nginx.ingress.kubernetes.io/permanent-redirect: {to}\nspec:\n  \
         rules:\n    - host: {host}\n      http:\n        paths:\n          - path: /\n            pathType: Prefix\n            backend:\n              service:\n                \
         name: unused  # never asked\n                port:\n                  number: 80"
    )
}

const BACKEND: Check = Check {
    id: "backend-missing",
    title: "A route leads to a service that is not there",
    family: Family::Routes,
    severity: Severity::High,
    needs: &[Source::Kubernetes, Source::Routes, Source::Workloads],
    reason: "A name that resolves and a certificate that is valid look well from outside until someone opens the page.",
    limits: "Asked where services are in the set; one in another namespace that was not audited is reported as well: audit them together.",
    run: backend,
};

fn backend(facts: &Facts) -> Vec<Finding> {
    if facts.services.is_empty() {
        return vec![];
    }
    let mut findings = Vec::new();
    for route in &facts.routes {
        for backend in &route.backends {
            let namespace = backend.namespace.as_deref().or(route.namespace.as_deref());
            let service = facts
                .services
                .iter()
                .find(|s| s.name == backend.service && same_namespace(s.namespace.as_deref(), namespace));
            let object = format!("{}: service {}", route.object, backend.service);
            match (service, &backend.port) {
                (None, _) => {
                    let message = format!(
                        "{} hands requests to service {}, which is not in the set",
                        route.object, backend.service
                    );
                    let remedy = Remedy::Advice(format!("Add service {}, or correct the name.", backend.service));
                    findings.push(BACKEND.found(
                        object,
                        message,
                        vec![shows(&backend.place, format!("service {}", backend.service))],
                        remedy,
                    ));
                }
                (Some(service), Some(port)) if !service.ports.contains(port) && service.selector.is_some() => {
                    let message = format!(
                        "{} asks port {port} of service {}, which has no such port",
                        route.object, service.name
                    );
                    let evidence =
                        vec![shows(&backend.place, format!("port {port}")), shows(&service.place, "the service")];
                    findings.push(BACKEND.found(
                        object,
                        message,
                        evidence,
                        Remedy::Advice(format!("Add port {port} to service {}, or correct the route.", service.name)),
                    ));
                }
                _ => {}
            }
        }
    }
    findings
}

const SELECTS_NOTHING: Check = Check {
    id: "service-selects-nothing",
    title: "A service finds no pod",
    family: Family::Routes,
    severity: Severity::High,
    needs: &[Source::Kubernetes, Source::Workloads],
    reason: "A label that was changed on one side only looks well in every list, and refuses every connection.",
    limits: "Asked where the set holds workloads of the service's folder, so that a folder of services alone is not all findings.",
    run: selects_nothing,
};

fn selects_nothing(facts: &Facts) -> Vec<Finding> {
    let findings = facts.services.iter().filter_map(|service| {
        let selector = service.selector.as_ref().filter(|selector| !selector.is_empty())?;
        let beside = crate::facts::folder(&service.place.file);
        let known = facts.workloads.iter().any(|workload| crate::facts::folder(&workload.place.file) == beside);
        if !known || facts.behind(service).next().is_some() {
            return None;
        }
        let wanted: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let message = format!(
            "Service/{} looks for pods with {}, and no workload in the set has them",
            service.name,
            crate::words::shown(&wanted.join(","))
        );
        let remedy = Remedy::Advice("Make the selector and the labels of the pod template agree.".to_owned());
        Some(SELECTS_NOTHING.found(
            format!("Service/{}", service.name),
            message,
            vec![shows(&service.place, format!("selector: {}", wanted.join(",")))],
            remedy,
        ))
    });
    findings.collect()
}

const TLS: Check = Check {
    id: "tls-secret-missing",
    title: "A route's certificate is nowhere",
    family: Family::Routes,
    severity: Severity::Medium,
    needs: &[Source::Routes],
    reason: "Without its secret the controller shows a certificate of its own making, and every browser warns.",
    limits: "A cert-manager annotation or a Certificate counts. Where the set holds no secret at all, it is not assessed.",
    run: tls,
};

fn tls(facts: &Facts) -> Vec<Finding> {
    let known = facts.stores.iter().any(|store| store.kind == StoreKind::Secret);
    let mut findings = Vec::new();
    for route in facts.routes.iter().filter(|route| !route.issued) {
        for secret in &route.tls {
            let namespace = route.namespace.as_deref();
            let issued = facts
                .certificates
                .iter()
                .any(|(other, name)| *name == secret.value && same_namespace(other.as_deref(), namespace));
            if issued || facts.store(StoreKind::Secret, namespace, &secret.value).is_some() {
                continue;
            }
            let object = format!("{}: secret {}", route.object, secret.value);
            if !known {
                findings.push(TLS.open(
                    object,
                    format!("no secret is in the set; whether {} is there is not known", secret.value),
                    &secret.place,
                ));
                continue;
            }
            let message = format!(
                "{} names TLS secret {}, which is not in the set and which no certificate makes",
                route.object, secret.value
            );
            let remedy = Remedy::Command(format!(
                "kubectl create secret tls {} --cert=FILE --key=FILE  # or a Certificate of cert-manager",
                crate::words::quoted(&secret.value)
            ));
            findings.push(TLS.found(object, message, vec![secret.evidence("secretName")], remedy));
        }
    }
    findings
}
