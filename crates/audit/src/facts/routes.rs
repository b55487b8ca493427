//! Who answers under which name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Located, place};
use crate::{finding::Place, yaml::Node};

/// A name that stands for pods.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which pods; absent for names of things outside.
    pub selector: Option<BTreeMap<String, String>>,
    /// Ports by number or name.
    pub ports: BTreeSet<String>,
    /// Where it begins.
    pub place: Place,
}

/// A host (or all hosts under one) and what answers there.
#[derive(Clone, Debug)]
pub struct Route {
    /// `Ingress/site`.
    pub object: String,
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Where it begins.
    pub place: Place,
    /// Its hosts; `*.example.org` for a wildcard, `*` for any.
    pub hosts: Vec<Located<String>>,
    /// What it hands requests to.
    pub backends: Vec<Backend>,
    /// Secrets with its certificates.
    pub tls: Vec<Located<String>>,
    /// A controller makes the certificates' secrets.
    pub issued: bool,
}

/// A service that a route names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service.
    pub service: String,
    /// Its port, by number or name.
    pub port: Option<String>,
    /// Another namespace than the route's.
    pub namespace: Option<String>,
    /// Where it stands.
    pub place: Place,
}

impl Route {
    /// The host under which a name is served here, wildcards included.
    pub fn serving(&self, name: &str) -> Option<&Located<String>> {
        let exact = self.hosts.iter().find(|host| host.value == name);
        exact.or_else(|| self.hosts.iter().find(|host| is_under(name, &host.value)))
    }
}

fn is_under(name: &str, wildcard: &str) -> bool {
    match wildcard.strip_prefix("*.") {
        Some(parent) => name.strip_suffix(parent).is_some_and(|front| front.ends_with('.')),
        None => wildcard == "*",
    }
}

/// Reads an ingress.
pub(super) fn ingress(object: String, namespace: Option<String>, root: &Node, at: &Place) -> Route {
    let here = |line| place(&at.file, line);
    let mut route =
        Route { object, namespace, place: at.clone(), hosts: vec![], backends: vec![], tls: vec![], issued: false };
    let annotations = root.entries_at(&["metadata", "annotations"]);
    route.issued = annotations
        .iter()
        .any(|entry| entry.key.starts_with("cert-manager.io/") || entry.key.starts_with("kubernetes.io/tls-acme"));
    for entry in annotations.iter().filter(|entry| &*entry.key == "nginx.ingress.kubernetes.io/server-alias") {
        let names = entry.value.text().unwrap_or_default().split([',', ' ']).filter(|name| !name.is_empty());
        route.hosts.extend(names.map(|name| Located { value: name.to_owned(), place: here(entry.line) }));
    }
    // Redirects by annotation need a backend for form's sake; whatever it names never answers.
    let redirects = annotations
        .iter()
        .any(|entry| entry.key.ends_with("/permanent-redirect") || entry.key.ends_with("/temporal-redirect"));
    let mut backends = Vec::new();
    backends.extend(root.at(&["spec", "defaultBackend"]));
    backends.extend(root.at(&["spec", "backend"]));
    for rule in root.items_at(&["spec", "rules"]) {
        let host = rule.get("host");
        route.hosts.push(Located {
            value: host.and_then(Node::text).unwrap_or("*").to_ascii_lowercase(),
            place: here(host.map_or(rule.line, |host| host.line)),
        });
        backends.extend(rule.items_at(&["http", "paths"]).iter().filter_map(|path| path.get("backend")));
    }
    for node in backends.into_iter().filter(|_| !redirects) {
        let (service, port) = match node.get("service") {
            Some(service) => (service.get("name"), service.at(&["port", "number"]).or(service.at(&["port", "name"]))),
            None => (node.get("serviceName"), node.get("servicePort")),
        };
        let Some(service) = service else { continue };
        route.backends.push(Backend {
            service: service.text().unwrap_or_default().to_owned(),
            port: port.and_then(Node::text).map(str::to_owned),
            namespace: None,
            place: here(service.line),
        });
    }
    for secret in root.items_at(&["spec", "tls"]).iter().filter_map(|tls| tls.get("secretName")) {
        route.tls.push(Located { value: secret.text().unwrap_or_default().to_owned(), place: here(secret.line) });
    }
    route
}

/// Reads a route of the gateway API.
pub(super) fn gateway(object: String, namespace: Option<String>, root: &Node, at: &Place) -> Route {
    let here = |line| place(&at.file, line);
    let hosts = root.items_at(&["spec", "hostnames"]).iter();
    let hosts =
        hosts.filter_map(|host| Some(Located { value: host.text()?.to_ascii_lowercase(), place: here(host.line) }));
    let references = root.items_at(&["spec", "rules"]).iter().flat_map(|rule| rule.items_at(&["backendRefs"]));
    let services = references.filter(|node| node.text_at(&["kind"]).is_none_or(|kind| kind == "Service"));
    let backends = services.filter_map(|node| {
        let name = node.get("name")?;
        Some(Backend {
            service: name.text()?.to_owned(),
            port: node.text_at(&["port"]).map(str::to_owned),
            namespace: node.text_at(&["namespace"]).map(str::to_owned),
            place: here(name.line),
        })
    });
    let (hosts, backends) = (hosts.collect(), backends.collect());
    Route { object, namespace, place: at.clone(), hosts, backends, tls: vec![], issued: false }
}

/// Reads a route of Traefik: hosts stand in an expression, as in ``Host(`a`, `b`)``.
pub(super) fn traefik(object: String, namespace: Option<String>, root: &Node, at: &Place) -> Route {
    let here = |line| place(&at.file, line);
    let mut route =
        Route { object, namespace, place: at.clone(), hosts: vec![], backends: vec![], tls: vec![], issued: false };
    route.issued = root.at(&["spec", "tls", "certResolver"]).is_some();
    for rule in root.items_at(&["spec", "routes"]) {
        let Some(matcher) = rule.get("match") else { continue };
        for call in matcher.text().unwrap_or_default().split("Host(").skip(1) {
            let inside = call.split(')').next().unwrap_or_default();
            let names = inside.split(',').map(|name| name.trim_matches([' ', '`', '"', '\'']).to_ascii_lowercase());
            route.hosts.extend(names.map(|value| Located { value, place: here(matcher.line) }));
        }
        for service in rule.items_at(&["services"]) {
            // Traefik's own services end in @internal; other kinds are none of Kubernetes'.
            let Some(name) = service.get("name").filter(|name| !name.text().unwrap_or("@").contains('@')) else {
                continue;
            };
            if service.text_at(&["kind"]).is_some_and(|kind| kind != "Service") {
                continue;
            }
            route.backends.push(Backend {
                service: name.text().unwrap_or_default().to_owned(),
                port: service.text_at(&["port"]).map(str::to_owned),
                namespace: service.text_at(&["namespace"]).map(str::to_owned),
                place: here(name.line),
            });
        }
    }
    if let Some(secret) = root.at(&["spec", "tls", "secretName"]) {
        route.tls.push(Located { value: secret.text().unwrap_or_default().to_owned(), place: here(secret.line) });
    }
    route
}

#[cfg(test)]
mod tests {
    use super::is_under;

    #[test]
    fn wildcards() {
        for (name, wildcard, under) in [
            ("a.example.org", "*.example.org", true),
            ("example.org", "*.example.org", false),
            ("badexample.org", "*.example.org", false),
            ("a.example.org", "*", true),
            ("a.example.org", "b.example.org", false),
        ] {
            assert_eq!(is_under(name, wildcard), under, "{name} {wildcard}");
        }
    }
}
