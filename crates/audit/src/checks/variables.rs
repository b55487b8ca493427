//! Which variables a workload gets, who may use a database, and how a change of a workload is written.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    facts::{
        Container, Engine, Facts, Origin, Service, StoreKind, VariableSource, Workload, folder, same_namespace,
        selected,
    },
    finding::Remedy,
};

/// What a workload's variables come to.
pub(super) struct Provided<'a> {
    /// Names that have a value.
    pub names: BTreeSet<String>,
    /// Stores outside of the set, by kind and name: what they hold is not known.
    pub unseen: Vec<(StoreKind, &'a str)>,
    /// A value comes from where no file tells.
    pub open: bool,
}

/// Follows all variables of a workload.
pub(super) fn provided<'a>(facts: &Facts, workload: &'a Workload) -> Provided<'a> {
    let mut provided = Provided { names: BTreeSet::new(), unseen: vec![], open: false };
    for variable in workload.containers.iter().flat_map(|container| &container.env) {
        match &variable.source {
            VariableSource::Literal(value) if value.is_empty() => {}
            VariableSource::Literal(_) => {
                provided.names.insert(variable.name.clone());
            }
            // Its key is the business of `secret-missing`.
            VariableSource::Key { .. } => {
                provided.names.insert(variable.name.clone());
            }
            VariableSource::Outside if variable.name.is_empty() => provided.open = true,
            VariableSource::Outside => {
                provided.names.insert(variable.name.clone());
            }
            VariableSource::All { kind, store, prefix, .. } => {
                match facts.store(*kind, workload.namespace.as_deref(), store) {
                    Some(store) => {
                        provided.names.extend(store.keys.iter().map(|key| format!("{prefix}{key}")));
                        provided.open |= store.open;
                    }
                    None => provided.unseen.push((*kind, store)),
                }
            }
        }
    }
    // A secret that is mounted as files may hold anything.
    for mount in workload.containers.iter().flat_map(|container| &container.mounts) {
        let Some((kind, name)) = mount.source.split_once(':') else { continue };
        let kind = match kind {
            "secret" => StoreKind::Secret,
            "config" => StoreKind::ConfigMap,
            _ => continue,
        };
        match facts.store(kind, workload.namespace.as_deref(), name) {
            Some(store) => provided.names.extend(store.keys.iter().cloned()),
            None => provided.unseen.push((kind, name)),
        }
    }
    provided
}

/// Names under which a database may be reached: its services of Kubernetes, its own name elsewhere.
fn addresses<'a>(facts: &'a Facts, database: &'a Workload) -> BTreeSet<&'a str> {
    let leads_here = |service: &&Service| {
        same_namespace(service.namespace.as_deref(), database.namespace.as_deref())
            && service.selector.as_ref().is_some_and(|selector| selected(selector, &database.labels))
    };
    let mut names: BTreeSet<&str> =
        facts.services.iter().filter(leads_here).map(|service| service.name.as_str()).collect();
    if database.origin != Origin::Kubernetes {
        names.insert(&database.name);
    }
    names
}

/// The workloads that use a database: a value names its address, or a variable says so by its name.
pub(super) fn dependents<'a>(facts: &'a Facts, database: &Workload) -> Vec<&'a Workload> {
    let addresses = addresses(facts, database);
    // With one PostgreSQL only, a variable that is about one is about this one.
    let only = database.engine() == Some(Engine::Postgres) && facts.postgres().count() == 1;
    let documented = if only { documented(facts) } else { BTreeSet::new() };
    let uses = |workload: &&Workload| {
        if workload.engine().is_some() {
            return false;
        }
        let mut env = workload.containers.iter().flat_map(|container| &container.env);
        let named = env.any(|variable| match &variable.source {
            VariableSource::Literal(value) => value
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .any(|word| !word.is_empty() && addresses.contains(word)),
            _ => false,
        });
        named
            || (only && provided(facts, workload).names.iter().any(|name| is_about_postgres(name)))
            || documented.contains(folder(&workload.place.file))
            || facts.needs.iter().any(|(from, to, _)| *from == workload.name && *to == database.name)
    };
    facts.lasting().filter(uses).collect()
}

/// Folders of one workload whose documents name a variable about PostgreSQL: of a shared folder nobody can tell who is meant.
fn documented(facts: &Facts) -> BTreeSet<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for workload in facts.lasting() {
        *counts.entry(folder(&workload.place.file)).or_default() += 1;
    }
    let about = facts.named.iter().filter(|named| is_about_postgres(&named.name));
    about.map(|named| folder(&named.place.file)).filter(|folder| counts.get(folder) == Some(&1)).collect()
}

fn is_about_postgres(name: &str) -> bool {
    [
        "POSTGRES",
        "DATABASE_URL",
        "DATABASE_URI",
        "DATABASE_DSN",
        "PGHOST",
        "DB_HOST",
        "DB_URL",
        "DATABASE_HOST",
        "SQLALCHEMY",
    ]
    .iter()
    .any(|mark| name.contains(mark))
}

/// A change of one container (of the workload itself where there is none), in the language of whoever starts it. `kubernetes` is YAML below the
/// container, `compose` YAML below the service, `systemd` lines of a section [Service].
pub(super) fn change(
    workload: &Workload,
    container: &Container,
    kubernetes: &str,
    compose: &str,
    systemd: &str,
) -> Remedy {
    match workload.origin {
        Origin::Kubernetes => {
            let list = if container.init { "initContainers" } else { "containers" };
            let body = format!("{list}:\n  - name: {}\n{}", container.name, indent(kubernetes, 4));
            Remedy::Patch(pod(workload, &body))
        }
        Origin::Compose => Remedy::Patch(format!("services:\n  {}:\n{}", workload.name, indent(compose, 4))),
        Origin::Systemd => Remedy::Patch(format!("# systemctl edit {}.service\n[Service]\n{systemd}", workload.name)),
    }
}

/// A change of the pod.
pub(super) fn pod(workload: &Workload, body: &str) -> String {
    match workload.kind.as_str() {
        "Pod" => format!("spec:\n{}", indent(body, 2)),
        "CronJob" => format!("spec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n{}", indent(body, 10)),
        _ => format!("spec:\n  template:\n    spec:\n{}", indent(body, 6)),
    }
}

fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect::<String>().trim_end().to_owned()
}
