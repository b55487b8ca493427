//! Does every part get what it reads, and does anyone hear its errors?

use std::collections::BTreeMap;

use super::{Check, Family, shows, variables::provided};
use crate::{
    Severity,
    facts::{Facts, Named, Origin, Source, StoreKind, VariableSource, Workload, folder, lies_below},
    finding::{Finding, Place, Remedy},
    words::{list, quoted, shown},
};

pub(super) const CHECKS: &[Check] = &[MISSING, NOBODY, PLAIN];

const MISSING: Check = Check {
    id: "secret-missing",
    title: "A value is taken from where there is none",
    family: Family::Secrets,
    severity: Severity::Critical,
    needs: &[Source::Workloads, Source::Stores],
    reason: "A pod whose secret is missing does not start. Nobody notices while the old one runs; after the restart of the node nothing old runs.",
    limits: "A store that is not in the set is not assessed where the set holds no store of its kind: it may be kept elsewhere on purpose.",
    run: missing,
};

fn missing(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for workload in &facts.workloads {
        for variable in workload.containers.iter().flat_map(|container| &container.env) {
            let (kind, store, key, optional) = match &variable.source {
                VariableSource::Key { kind, store, key, optional } => (*kind, store, Some(key), *optional),
                VariableSource::All { kind, store, optional, .. } => (*kind, store, None, *optional),
                _ => continue,
            };
            if optional {
                continue;
            }
            let object = format!(
                "{}: {} {store}{}",
                workload.object(),
                kind.word(),
                key.map(|key| format!(", key {key}")).unwrap_or_default()
            );
            match facts.store(kind, workload.namespace.as_deref(), store) {
                None if facts.stores.iter().any(|other| other.kind == kind) => {
                    let message =
                        format!("{} reads {} {store}, which is not in the set", workload.object(), kind.word());
                    let remedy = create(workload, kind, store, key.map_or("KEY", String::as_str));
                    findings.push(MISSING.found(
                        object,
                        message,
                        vec![shows(&variable.place, format!("{} {store}", kind.word()))],
                        remedy,
                    ));
                }
                None => findings.push(MISSING.open(
                    object,
                    format!("no {} is in the set; whether {store} is there is not known", kind.word()),
                    &variable.place,
                )),
                Some(found) => {
                    let Some(key) = key.filter(|key| !found.open && !found.keys.contains(*key)) else { continue };
                    let message = format!(
                        "{} reads key {key} of {} {store}, which has no such key",
                        workload.object(),
                        kind.word()
                    );
                    let evidence = vec![
                        shows(&variable.place, format!("{}: key {key} of {store}", variable.name)),
                        shows(&found.place, format!("{} {store} has {}", kind.word(), keys(found))),
                    ];
                    findings.push(MISSING.found(object, message, evidence, create(workload, kind, store, key)));
                }
            }
        }
    }
    findings
}

/// Keys that a message shows.
const KEYS_SHOWN: usize = 8;

fn keys(store: &crate::facts::KeyStore) -> String {
    let keys: Vec<&String> = store.keys.iter().collect();
    if keys.is_empty() { "no keys".to_owned() } else { list(&keys, KEYS_SHOWN) }
}

fn create(workload: &Workload, kind: StoreKind, store: &str, key: &str) -> Remedy {
    let namespace =
        workload.namespace.as_ref().map(|namespace| format!(" -n {}", quoted(namespace))).unwrap_or_default();
    match kind {
        StoreKind::Secret => {
            let (secret, key) = (quoted(store), shown(key));
            Remedy::Command(format!(
                "kubectl patch secret {secret}{namespace} -p '{{\"stringData\":{{\"{key}\":\"...\"}}}}'  # or kubectl create secret generic, if there is none"
            ))
        }
        StoreKind::ConfigMap => Remedy::Command(format!(
            "kubectl create configmap {}{namespace} --from-literal={}=...",
            quoted(store),
            quoted(key)
        )),
        StoreKind::File => {
            Remedy::Advice(format!("Write {key}=... into {store}, and keep the file out of the repository."))
        }
    }
}

const NOBODY: Check = Check {
    id: "variable-nobody-provides",
    title: "A variable is documented, and nobody sets it",
    family: Family::Secrets,
    severity: Severity::High,
    needs: &[Source::Workloads, Source::Evidence],
    reason: "The bot's errors had gone nowhere for some time: its SENTRY_DSN was in the README and in no secret. The code reads it with an empty default, so \
             nothing failed; a checker of references sees nothing, because nothing refers to it.",
    limits: "A document speaks for the workloads whose files lie in its folder or below. Names without an underscore are not taken for variables. Where a \
             store lies outside of the set, what it holds is not assessed.",
    run: nobody,
};

fn nobody(facts: &Facts) -> Vec<Finding> {
    // One folder's documents may name a variable many times.
    let mut by_folder: BTreeMap<(&str, &str), Vec<&Named>> = BTreeMap::new();
    for named in &facts.named {
        by_folder.entry((folder(&named.place.file), &named.name)).or_default().push(named);
    }
    let mut about: BTreeMap<&str, About<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for ((folder, name), named) in by_folder {
        let about = about.entry(folder).or_insert_with(|| About::of(facts, folder));
        if about.workloads.is_empty() || about.provided.contains(name) {
            continue;
        }
        let first = named[0];
        let object = format!("{}: {name}", list(&about.workloads, 3));
        if about.open || !about.unseen.is_empty() {
            about.unknown.push((name, &first.place));
            continue;
        }
        let silent = named.iter().any(|named| named.silent);
        let and = if silent { ", and the code goes on silently without it" } else { "" };
        let message = format!("{} expects {name} and nothing gives it a value{and}", list(&about.workloads, 3));
        let evidence = named.iter().map(|named| shows(&named.place, named.said.clone())).collect();
        findings.push(NOBODY.found(object, message, evidence, about.remedy(name)));
    }
    findings.extend(about.values().filter_map(About::unknown));
    findings
}

/// Variables of one folder that a sentence lists.
const NAMES_SHOWN: usize = 40;

/// The workloads of a folder and all that they are given.
struct About<'a> {
    workloads: Vec<String>,
    provided: std::collections::BTreeSet<String>,
    unseen: Vec<String>,
    open: bool,
    first: Option<&'a Workload>,
    /// What documents name and only something outside of the set could give.
    unknown: Vec<(&'a str, &'a Place)>,
}

impl<'a> About<'a> {
    fn of(facts: &'a Facts, folder: &str) -> Self {
        let mut about = Self {
            workloads: vec![],
            provided: Default::default(),
            unseen: vec![],
            open: false,
            first: None,
            unknown: vec![],
        };
        for workload in facts.workloads.iter().filter(|workload| lies_below(&workload.place.file, folder)) {
            let provided = provided(facts, workload);
            about.provided.extend(provided.names);
            about.unseen.extend(provided.unseen.iter().map(|(kind, name)| format!("{} {name}", kind.word())));
            about.open |= provided.open;
            about.workloads.push(workload.object());
            about.first.get_or_insert(workload);
        }
        // A file of variables beside a compose file fills in what it leaves open.
        for store in facts.stores.iter().filter(|store| lies_below(&store.place.file, folder)) {
            about.provided.extend(store.keys.iter().cloned());
        }
        about.unseen.sort();
        about.unseen.dedup();
        about
    }

    /// One sentence for all of them: whoever has the store looks once.
    fn unknown(&self) -> Option<Finding> {
        let (_, place) = self.unknown.first()?;
        let names: Vec<&str> = self.unknown.iter().map(|(name, _)| *name).collect();
        let why = match &self.unseen[..] {
            [] => "values come from files that were not audited".to_owned(),
            unseen => format!("{} is not in the set", list(unseen, 3)),
        };
        let message = format!("{why}; {} names {}: look whether they are there", place.file, list(&names, NAMES_SHOWN));
        Some(NOBODY.open(list(&self.workloads, 3), message, place))
    }

    fn remedy(&self, name: &str) -> Remedy {
        let store = self.first.and_then(|workload| {
            workload.containers.iter().flat_map(|c| &c.env).find_map(|variable| match &variable.source {
                VariableSource::All { kind: StoreKind::Secret, store, .. }
                | VariableSource::Key { kind: StoreKind::Secret, store, .. } => Some((workload, store)),
                _ => None,
            })
        });
        match (store, self.first) {
            (Some((workload, store)), _) => create(workload, StoreKind::Secret, store, name),
            (None, Some(workload)) if workload.origin == Origin::Compose => {
                Remedy::Patch(format!("services:\n  {}:\n    environment:\n      {name}: ${{{name}:?}}", workload.name))
            }
            _ => Remedy::Advice(format!(
                "Give {name} a value, or take it out of the document; code should refuse to start without it."
            )),
        }
    }
}

const PLAIN: Check = Check {
    id: "plain-secret",
    title: "A secret stands in the open",
    family: Family::Secrets,
    severity: Severity::High,
    needs: &[Source::Workloads],
    reason: "In an outage people paste manifests into chats and tickets. What stands in them is then known to everyone, and to the history of the repository.",
    limits: "Knows secrets by their names and by passwords in addresses. Values are never shown.",
    run: plain,
};

fn plain(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for workload in &facts.workloads {
        for variable in workload.containers.iter().flat_map(|container| &container.env) {
            let VariableSource::Literal(value) = &variable.source else { continue };
            if crate::facts::is_plain_secret(&variable.name, value) {
                let message = format!("{}: the value of {} stands in the file", workload.object(), variable.name);
                let evidence = vec![shows(&variable.place, format!("{}: (not shown)", variable.name))];
                let remedy = match workload.origin {
                    Origin::Kubernetes => {
                        let key = variable.name.to_lowercase().replace('_', "-");
                        Remedy::Patch(format!(
                            "env:\n  - name: {}\n    valueFrom:\n      secretKeyRef:\n        name: {}\n        key: {key}\n# and change the secret: it has been seen",
                            variable.name, workload.name
                        ))
                    }
                    Origin::Compose => Remedy::Patch(format!(
                        "environment:\n  {0}: ${{{0}:?}}  # from a .env file outside of the repository; and change the secret",
                        variable.name
                    )),
                    Origin::Systemd => Remedy::Patch(
                        "[Service]\nEnvironmentFile=/etc/<name>.env  # mode 0600; and change the secret".to_owned(),
                    ),
                };
                findings.push(PLAIN.found(
                    format!("{}: {}", workload.object(), variable.name),
                    message,
                    evidence,
                    remedy,
                ));
            }
        }
    }
    for store in &facts.stores {
        for (key, place) in &store.plain {
            let message = format!(
                "config map {}: {key} looks like a secret, and everyone who may read the namespace reads it",
                store.name
            );
            let remedy = Remedy::Advice(format!("Move {key} into a secret, and change it: it has been seen."));
            findings.push(PLAIN.found(
                format!("ConfigMap/{}: {key}", store.name),
                message,
                vec![shows(place, format!("{key}: (not shown)"))],
                remedy,
            ));
        }
    }
    findings
}
