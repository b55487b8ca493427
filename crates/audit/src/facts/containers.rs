//! A pod's specification.

use std::{collections::BTreeMap, sync::Arc};

use super::{Container, Image, Located, Mount, Port, Probe, StoreKind, Variable, VariableSource, place};
use crate::{
    finding::Place,
    quantity::{self, Dialect},
    yaml::Node,
};

/// What stands behind the volumes of a pod, by their names in it.
pub(super) fn volumes(spec: &Node) -> BTreeMap<&str, String> {
    let named = spec.items_at(&["volumes"]).iter().filter_map(|volume| {
        let name = volume.text_at(&["name"])?;
        let source = if let Some(claim) = volume.text_at(&["persistentVolumeClaim", "claimName"]) {
            format!("claim:{claim}")
        } else if let Some(map) = volume.text_at(&["configMap", "name"]) {
            format!("config:{map}")
        } else if let Some(secret) = volume.text_at(&["secret", "secretName"]) {
            format!("secret:{secret}")
        } else if let Some(path) = volume.text_at(&["hostPath", "path"]) {
            format!("host:{path}")
        } else {
            format!("volume:{name}")
        };
        Some((name, source))
    });
    named.collect()
}

/// All containers of a pod.
pub(super) fn containers(spec: &Node, file: &Arc<str>) -> Vec<Container> {
    let volumes = volumes(spec);
    let init = spec.items_at(&["initContainers"]).iter().map(|node| {
        // An init container that always restarts is a sidecar.
        (node, node.text_at(&["restartPolicy"]) != Some("Always"))
    });
    let main = spec.items_at(&["containers"]).iter().map(|node| (node, false));
    init.chain(main).map(|(node, init)| container(node, init, &volumes, file)).collect()
}

fn container(node: &Node, init: bool, volumes: &BTreeMap<&str, String>, file: &Arc<str>) -> Container {
    let here = |line| place(file, line);
    let text = |key: &str| node.get(key).and_then(|found| Some((found.text()?.to_owned(), here(found.line))));
    let limit = |kind: &str, what: &str| node.at(&["resources", kind, what]);
    let cpu = limit("limits", "cpu").and_then(|n| Some(Located { value: n.text()?.to_owned(), place: here(n.line) }));
    let memory = limit("limits", "memory")
        .and_then(|n| Some(Located { value: quantity::bytes(n.text()?, Dialect::Kubernetes)?, place: here(n.line) }));
    let mut command = ["command", "args"].iter().filter_map(|key| node.get(key));
    let mounts = node.items_at(&["volumeMounts"]).iter().filter_map(|mount| {
        let name = mount.text_at(&["name"])?;
        let source = volumes.get(name).cloned().unwrap_or_else(|| format!("volume:{name}"));
        Some(Mount { source, path: mount.text_at(&["mountPath"])?.to_owned(), place: here(mount.line) })
    });
    let ports = node.items_at(&["ports"]).iter().filter_map(|port| port.get("containerPort")?.number());
    Container {
        name: node.text_at(&["name"]).unwrap_or_default().to_owned(),
        place: here(node.line),
        init,
        image: text("image").map(|(image, place)| Located { value: Image::parse(&image), place }),
        pull: text("imagePullPolicy").map(|(value, place)| Located { value, place }),
        // Kubernetes takes a limit for the request where no request is made.
        cpu_request: limit("requests", "cpu").is_some() || cpu.is_some(),
        memory_request: limit("requests", "memory").is_some() || memory.is_some(),
        cpu_limit: cpu,
        memory_limit: memory,
        startup: node.get("startupProbe").map(|node| probe(node, file)),
        liveness: node.get("livenessProbe").map(|node| probe(node, file)),
        readiness: node.get("readinessProbe").map(|node| probe(node, file)),
        env: variables(node, file),
        command: command.clone().flat_map(|words| words.texts().into_iter().map(str::to_owned)).collect(),
        command_place: command.next_back().map(|words| here(words.line)),
        mounts: mounts.collect(),
        ports: ports.filter_map(|number| Some(Port { number: u16::try_from(number).ok()? })).collect(),
    }
}

/// Kubernetes' defaults: no delay, every ten seconds, three failures.
fn probe(node: &Node, file: &Arc<str>) -> Probe {
    let number = |key: &str, default: u64| {
        node.get(key).and_then(Node::number).and_then(|number| u64::try_from(number).ok()).unwrap_or(default)
    };
    Probe {
        place: place(file, node.line),
        delay: number("initialDelaySeconds", 0),
        period: number("periodSeconds", 10),
        failures: number("failureThreshold", 3),
    }
}

fn variables(node: &Node, file: &Arc<str>) -> Vec<Variable> {
    let mut variables = Vec::new();
    for from in node.items_at(&["envFrom"]) {
        for (key, kind) in [("secretRef", StoreKind::Secret), ("configMapRef", StoreKind::ConfigMap)] {
            let Some(reference) = from.get(key) else { continue };
            let Some(store) = reference.text_at(&["name"]) else { continue };
            variables.push(Variable {
                name: String::new(),
                source: VariableSource::All {
                    kind,
                    store: store.to_owned(),
                    prefix: from.text_at(&["prefix"]).unwrap_or_default().to_owned(),
                    optional: reference.get("optional").and_then(Node::truth).unwrap_or(false),
                },
                place: place(file, reference.line),
            });
        }
    }
    for variable in node.items_at(&["env"]) {
        let Some(name) = variable.text_at(&["name"]) else { continue };
        let at = place(file, variable.line);
        variables.push(Variable { name: name.to_owned(), source: variable_source(variable), place: at });
    }
    variables
}

fn variable_source(variable: &Node) -> VariableSource {
    for (key, kind) in [("secretKeyRef", StoreKind::Secret), ("configMapKeyRef", StoreKind::ConfigMap)] {
        let Some(reference) = variable.at(&["valueFrom", key]) else { continue };
        if let (Some(store), Some(key)) = (reference.text_at(&["name"]), reference.text_at(&["key"])) {
            let optional = reference.get("optional").and_then(Node::truth).unwrap_or(false);
            return VariableSource::Key { kind, store: store.to_owned(), key: key.to_owned(), optional };
        }
    }
    if variable.get("valueFrom").is_some() {
        return VariableSource::Outside;
    }
    VariableSource::Literal(variable.text_at(&["value"]).unwrap_or_default().to_owned())
}

/// The claims of a pod with where they are named.
pub(super) fn claims(spec: &Node, file: &Arc<str>) -> Vec<Located<String>> {
    let named =
        spec.items_at(&["volumes"]).iter().filter_map(|volume| volume.at(&["persistentVolumeClaim", "claimName"]));
    named.filter_map(|name| Some(Located { value: name.text()?.to_owned(), place: place(file, name.line) })).collect()
}

/// Whether a volume brings settings, and where it is mounted.
pub(super) fn configuration(containers: &[Container]) -> Option<Place> {
    let mounts = containers.iter().flat_map(|container| &container.mounts);
    let fits = |mount: &&Mount| {
        let path = mount.path.to_ascii_lowercase();
        path.ends_with(".conf")
            || path.contains("conf.d")
            || path.starts_with("/etc/postgresql")
            || mount.source.starts_with("config:")
    };
    mounts.into_iter().find(fits).map(|mount| mount.place.clone())
}
