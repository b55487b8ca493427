//! Compose files, by the compose specification.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Container, Engine, Image, Located, Mount, Origin, Port, Probe, Settings, StoreKind, Variable, VariableSource,
    Workload, collect::Collector, folder, place,
};
use crate::{
    quantity::{self, Dialect},
    yaml::{Entry, Node},
};

/// Takes a document. `false`: it is no compose file.
pub(super) fn take(root: &Node, file: &Arc<str>, into: &mut Collector) -> bool {
    let services = root.entries_at(&["services"]);
    let looks_like_one =
        |entry: &Entry| ["image", "build", "extends", "deploy"].iter().any(|key| entry.value.get(key).is_some());
    if services.is_empty() || root.get("apiVersion").is_some() || !services.iter().any(looks_like_one) {
        return false;
    }
    for entry in services {
        let workload = service(entry, file);
        for (name, line, healthy) in dependencies(&entry.value) {
            let at = place(file, line);
            into.facts.orders.push(at.clone());
            into.facts.needs.push((workload.name.clone(), name.clone(), at.clone()));
            if !healthy {
                into.facts.started_only.push((workload.object(), name, at));
            }
        }
        into.facts.workloads.push(workload);
    }
    true
}

/// What a service waits for, and whether until it is healthy (or has ended well).
fn dependencies(service: &Node) -> Vec<(String, u32, bool)> {
    let Some(node) = service.get("depends_on") else { return vec![] };
    let listed = node.items().iter().filter_map(|item| Some((item.text()?.to_owned(), item.line, false)));
    let keyed = node.entries().iter().map(|entry| {
        let condition = entry.value.text_at(&["condition"]).unwrap_or("service_started");
        (entry.key.to_string(), entry.line, condition != "service_started")
    });
    listed.chain(keyed).collect()
}

fn service(entry: &Entry, file: &Arc<str>) -> Workload {
    let node = &entry.value;
    let here = |line| place(file, line);
    let container = container(entry, file);
    let mut settings = Settings::default();
    if container.image.as_ref().is_some_and(|image| image.value.engine() == Some(Engine::Postgres)) {
        settings =
            Settings::of_arguments(&container.command, container.command_place.as_ref().unwrap_or(&container.place));
    }
    let replicas = node.at(&["deploy", "replicas"]).or_else(|| node.get("scale"));
    let grace = node.get("stop_grace_period");
    let volumes = container.mounts.iter().filter(|mount| !mount.source.starts_with("file:"));
    Workload {
        origin: Origin::Compose,
        kind: "service".to_owned(),
        name: entry.key.to_string(),
        namespace: None,
        place: here(entry.line),
        // One that never restarts and is kept behind a profile is run by hand or by a timer.
        lasting: node.text_at(&["restart"]).is_some_and(|restart| restart != "no") || node.get("profiles").is_none(),
        replicas: replicas.and_then(|node| Some(Located { value: node.number()?, place: here(node.line) })),
        strategy: None,
        grace: grace.and_then(|node| Some(Located { value: quantity::seconds(node.text()?)?, place: here(node.line) })),
        priority: None,
        labels: BTreeMap::new(),
        claims: volumes.map(|mount| Located { value: mount.source.clone(), place: mount.place.clone() }).collect(),
        owns_claims: false,
        settings,
        configured: container.mounts.iter().find(|mount| mount.path.contains("conf")).map(|mount| mount.place.clone()),
        containers: vec![container],
        schedule: None,
        suspended: None,
        never: None,
        engine: None,
    }
}

fn container(entry: &Entry, file: &Arc<str>) -> Container {
    let node = &entry.value;
    let here = |line| place(file, line);
    let first = |paths: &[&[&str]]| paths.iter().find_map(|path| node.at(path));
    let cpu = first(&[&["cpus"], &["cpu_quota"], &["deploy", "resources", "limits", "cpus"]]);
    let memory = first(&[&["mem_limit"], &["deploy", "resources", "limits", "memory"]]);
    let mut words = ["entrypoint", "command"].iter().filter_map(|key| node.get(key));
    let ports = node.items_at(&["ports"]).iter().filter_map(published);
    Container {
        name: entry.key.to_string(),
        place: here(entry.line),
        init: false,
        image: node
            .get("image")
            .and_then(|image| Some(Located { value: Image::parse(image.text()?), place: here(image.line) })),
        pull: node
            .get("pull_policy")
            .and_then(|pull| Some(Located { value: pull.text()?.to_owned(), place: here(pull.line) })),
        cpu_limit: cpu.and_then(|cpu| Some(Located { value: cpu.text()?.to_owned(), place: here(cpu.line) })),
        memory_limit: memory.and_then(|memory| {
            let value = quantity::bytes(memory.text()?, Dialect::Binary { unit: 1 })?;
            Some(Located { value, place: here(memory.line) })
        }),
        // Compose reserves nothing: there is no scheduler that would look.
        cpu_request: true,
        memory_request: true,
        startup: None,
        liveness: None,
        readiness: node
            .get("healthcheck")
            .filter(|check| check.get("disable").and_then(Node::truth) != Some(true))
            .map(|check| probe(check, file)),
        env: variables(node, file),
        command: words.clone().flat_map(|words| words.texts().into_iter().map(str::to_owned)).collect(),
        command_place: words.next_back().map(|words| here(words.line)),
        mounts: node.items_at(&["volumes"]).iter().filter_map(|volume| mount(volume, file)).collect(),
        ports: ports.map(|number| Port { number }).collect(),
    }
}

/// The port that others see: `8080:80`, `127.0.0.1:8080:80/tcp`, `80`.
fn published(node: &Node) -> Option<u16> {
    let text = node.text().or_else(|| node.text_at(&["published"]))?;
    let bare = text.split('/').next()?;
    let mut parts = bare.rsplit(':');
    let last = parts.next()?;
    parts.next().unwrap_or(last).parse().ok()
}

/// The specification's defaults: every 30 seconds, three retries.
fn probe(node: &Node, file: &Arc<str>) -> Probe {
    let time = |key: &str, default| node.text_at(&[key]).and_then(quantity::seconds).unwrap_or(default);
    let failures = node.get("retries").and_then(Node::number).and_then(|n| u64::try_from(n).ok()).unwrap_or(3);
    Probe { place: place(file, node.line), delay: time("start_period", 0), period: time("interval", 30), failures }
}

/// `claim:NAME`, `host:/path`, `file:relative`.
fn mount(volume: &Node, file: &Arc<str>) -> Option<Mount> {
    let at = place(file, volume.line);
    let (source, path) = match volume.text() {
        Some(text) => {
            let mut parts = text.split(':');
            (parts.next()?.to_owned(), parts.next().unwrap_or_default().to_owned())
        }
        None => (
            volume.text_at(&["source"]).unwrap_or_default().to_owned(),
            volume.text_at(&["target"]).unwrap_or_default().to_owned(),
        ),
    };
    let source = match source.strip_prefix("./") {
        Some(relative) => format!("file:{}", beside(file, relative)),
        None if source.starts_with(['/', '~', '.']) => format!("host:{source}"),
        None => format!("claim:{source}"),
    };
    Some(Mount { source, path, place: at })
}

/// A file that is named relative to another.
fn beside(file: &str, relative: &str) -> String {
    match folder(file) {
        "" => relative.to_owned(),
        folder => format!("{folder}/{relative}"),
    }
}

fn variables(node: &Node, file: &Arc<str>) -> Vec<Variable> {
    let mut variables = Vec::new();
    let mut add = |name: &str, value: Option<&str>, line| {
        // `NAME` alone, and `${NAME}`, are taken from the shell or the .env file.
        let source = match value {
            Some(value) if !value.contains("${") => VariableSource::Literal(value.to_owned()),
            _ => VariableSource::Outside,
        };
        variables.push(Variable { name: name.to_owned(), source, place: place(file, line) });
    };
    if let Some(environment) = node.get("environment") {
        for item in environment.items() {
            let text = item.text().unwrap_or_default();
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            add(name, value, item.line);
        }
        for entry in environment.entries() {
            add(&entry.key, entry.value.text(), entry.line);
        }
    }
    if let Some(files) = node.get("env_file") {
        let paths = files.items().iter().chain(files.text().map(|_| files));
        for path in paths {
            let Some(name) = path.text().or_else(|| path.text_at(&["path"])) else { continue };
            let store = beside(file, name.trim_start_matches("./"));
            let optional = path.get("required").and_then(Node::truth) == Some(false);
            let source = VariableSource::All { kind: StoreKind::File, store, prefix: String::new(), optional };
            variables.push(Variable { name: String::new(), source, place: place(file, path.line) });
        }
    }
    variables
}
