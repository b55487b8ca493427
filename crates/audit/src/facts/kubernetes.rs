//! Objects of Kubernetes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Address, Certificate, Claim, Facts, KeyStore, LimitRange, Located, Origin, Selector, Service, Settings,
    StorageClass, StoreKind, Webhook, Workload,
    backup::{Backup, BackupTool},
    collect::Collector,
    containers, evidence, place, routes, rules,
};
use crate::{finding::Place, yaml::Node};

/// Kinds of Kubernetes and of common controllers that say nothing about our questions.
const SILENT: &[&str] = &[
    "Namespace",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "NetworkPolicy",
    "PriorityClass",
    "IngressClass",
    "ResourceQuota",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "APIService",
    "PodSecurityPolicy",
    "Endpoints",
    "EndpointSlice",
    "Issuer",
    "ClusterIssuer",
    "ServiceMonitor",
    "Prometheus",
    "Alertmanager",
    "AlertmanagerConfig",
    "ScrapeConfig",
    "ThanosRuler",
    "PodMonitor",
    "Gateway",
    "GatewayClass",
    "Middleware",
    "CSIDriver",
    "ControllerRevision",
    "Event",
    "Lease",
    "Node",
    "VolumeSnapshotClass",
    "Kustomization",
    "Component",
    "Probe",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ReferenceGrant",
];
/// How deep lists may hold lists.
const LISTS_MAX: usize = 4;

/// Takes one document. `false`: it is no object of Kubernetes.
pub(super) fn take(root: &Node, file: &Arc<str>, into: &mut Collector) -> bool {
    take_at(root, file, into, 0)
}

fn take_at(root: &Node, file: &Arc<str>, into: &mut Collector, depth: usize) -> bool {
    let (Some(version), Some(kind)) = (root.text_at(&["apiVersion"]), root.text_at(&["kind"])) else { return false };
    into.facts.kubernetes = true;
    let list = kind.ends_with("List") && root.get("items").is_some();
    if list && depth < LISTS_MAX {
        for item in root.items_at(&["items"]) {
            take_at(item, file, into, depth + 1);
        }
        return true;
    }
    let object = Object {
        kind,
        name: root.text_at(&["metadata", "name"]).or(root.text_at(&["metadata", "generateName"])).unwrap_or("?"),
        namespace: root.text_at(&["metadata", "namespace"]).map(str::to_owned),
        place: place(file, root.line),
        root,
        file,
    };
    if !object.native(into) && !object.foreign(version, into) && !SILENT.contains(&kind) {
        *into.facts.unknown_kinds.entry(crate::words::shown(&format!("{version} {kind}"))).or_default() += 1;
    }
    true
}

struct Object<'a> {
    kind: &'a str,
    name: &'a str,
    namespace: Option<String>,
    place: Place,
    root: &'a Node,
    file: &'a Arc<str>,
}

impl Object<'_> {
    fn id(&self) -> String {
        crate::words::shown(&format!("{}/{}", self.kind, self.name))
    }

    fn line(&self, node: &Node) -> Place {
        place(self.file, node.line)
    }

    /// What belongs to Kubernetes itself.
    fn native(&self, into: &mut Collector) -> bool {
        let facts = &mut into.facts;
        let root = self.root;
        match self.kind {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" => {
                let workload = self.workload(root.at(&["spec", "template"]), true);
                facts.workloads.push(workload);
            }
            // A pod that something else made is seen there.
            "Pod" if root.items_at(&["metadata", "ownerReferences"]).is_empty() => {
                facts.workloads.push(self.workload(Some(root), true));
            }
            "Pod" => {}
            "Job" => facts.workloads.push(self.workload(root.at(&["spec", "template"]), false)),
            "CronJob" => {
                let mut workload = self.workload(root.at(&["spec", "jobTemplate", "spec", "template"]), false);
                workload.schedule = self.located(&["spec", "schedule"]);
                let suspend = root.at(&["spec", "suspend"]);
                workload.suspended = suspend.filter(|node| node.truth() == Some(true)).map(|node| self.line(node));
                workload.never = self.never(facts.today);
                facts.workloads.push(workload);
            }
            "Service" => facts.services.push(self.service()),
            "Secret" => {
                self.values(facts);
                facts.stores.push(self.store(StoreKind::Secret, &["data", "stringData"]));
            }
            "ConfigMap" => self.config_map(into),
            "PersistentVolumeClaim" => facts.claims.push(self.claim(root, self.name)),
            "PersistentVolume" => {
                let bound = root.text_at(&["spec", "claimRef", "name"]);
                // Of volumes made by hand the API keeps the data unless told otherwise.
                facts.volumes.push(self.policy(
                    bound.unwrap_or_default(),
                    &["spec", "persistentVolumeReclaimPolicy"],
                    "Retain",
                ));
            }
            "StorageClass" => facts.classes.push(self.policy(self.name, &["reclaimPolicy"], "Delete")),
            "LimitRange" => {
                let limits = root.items_at(&["spec", "limits"]);
                let gives = |what: &str| {
                    limits.iter().any(|limit| {
                        limit.text_at(&["type"]) == Some("Container") && limit.at(&["default", what]).is_some()
                    })
                };
                let (cpu, memory) = (gives("cpu"), gives("memory"));
                facts.limit_ranges.push(LimitRange { namespace: self.namespace.clone(), cpu, memory });
            }
            "PodDisruptionBudget" => {
                let labels = pairs(root.at(&["spec", "selector", "matchLabels"]));
                facts.budgets.push(Selector { namespace: self.namespace.clone(), labels });
            }
            "HorizontalPodAutoscaler" => {
                let target = root.at(&["spec", "scaleTargetRef"]);
                let named = target.and_then(|t| Some(format!("{}/{}", t.text_at(&["kind"])?, t.text_at(&["name"])?)));
                if root.at(&["spec", "minReplicas"]).and_then(Node::number).is_some_and(|least| least > 1) {
                    facts.scaled.extend(named);
                }
            }
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => facts.webhooks.extend(self.webhooks()),
            "Ingress" => facts.routes.push(routes::ingress(self.id(), self.namespace.clone(), root, &self.place)),
            _ => return false,
        }
        true
    }

    /// What belongs to controllers that are often there.
    fn foreign(&self, version: &str, into: &mut Collector) -> bool {
        let facts = &mut into.facts;
        let root = self.root;
        let group = version.split('/').next().unwrap_or_default();
        match (group, self.kind) {
            (_, "HTTPRoute" | "TLSRoute" | "GRPCRoute") => {
                facts.routes.push(routes::gateway(self.id(), self.namespace.clone(), root, &self.place));
            }
            ("traefik.io" | "traefik.containo.us", "IngressRoute") => {
                facts.routes.push(routes::traefik(self.id(), self.namespace.clone(), root, &self.place));
            }
            ("monitoring.coreos.com", "PrometheusRule") => {
                facts.rules.extend(root.get("spec").into_iter().flat_map(|spec| rules::read(spec, &self.place)));
            }
            ("argoproj.io", "Application") => {
                facts.deployers.extend(self.located(&["spec", "source", "repoURL"]).map(|url| (self.id(), url)));
            }
            ("source.toolkit.fluxcd.io", "GitRepository") => {
                facts.deployers.extend(self.located(&["spec", "url"]).map(|url| (self.id(), url)));
            }
            ("bitnami.com", "SealedSecret") => {
                facts.stores.push(self.store(StoreKind::Secret, &["spec.encryptedData"]));
            }
            (_, "ExternalSecret") => {
                let name = root.text_at(&["spec", "target", "name"]).unwrap_or(self.name).to_owned();
                let keys = root.items_at(&["spec", "data"]).iter().filter_map(|item| item.text_at(&["secretKey"]));
                let open = root
                    .get("spec")
                    .is_some_and(|spec| spec.get("dataFrom").is_some() || spec.at(&["target", "template"]).is_some());
                let (keys, place) = (keys.map(str::to_owned).collect(), self.place.clone());
                let namespace = self.namespace.clone();
                facts.stores.push(KeyStore {
                    kind: StoreKind::Secret,
                    namespace,
                    name,
                    keys,
                    open,
                    place,
                    plain: vec![],
                });
            }
            ("cert-manager.io", "Certificate") => {
                let secret = root.text_at(&["spec", "secretName"]).map(str::to_owned);
                facts.certificates.extend(secret.map(|name| (self.namespace.clone(), name)));
            }
            ("postgresql.cnpg.io", "Cluster")
            | ("acid.zalan.do", "postgresql")
            | (_, "PostgresCluster" | "SGCluster") => {
                facts.operated.push(Located { value: self.id(), place: self.place.clone() });
                let backup = ["backup", "backups", "enableLogicalBackup", "configurations"]
                    .iter()
                    .find_map(|key| root.at(&["spec", key]));
                facts
                    .backups
                    .extend(backup.map(|node| Backup::declared(self.id(), self.line(node), BackupTool::Physical)));
            }
            ("postgresql.cnpg.io", "ScheduledBackup") | ("k8up.io" | "velero.io", "Schedule") | (_, "SGBackup") => {
                let mut backup = Backup::declared(
                    self.id(),
                    self.place.clone(),
                    if group == "postgresql.cnpg.io" { BackupTool::Physical } else { BackupTool::Volume },
                );
                backup.schedule = self.located(&["spec", "schedule"]);
                let suspend = root.at(&["spec", "suspend"]).filter(|node| node.truth() == Some(true));
                backup.suspended = suspend.map(|node| self.line(node));
                backup.never = self.never(facts.today);
                facts.backups.push(backup);
            }
            _ => return false,
        }
        true
    }

    /// What the status of a job that comes again says, if it has never run or never well. One made within the last two days may still have to.
    fn never(&self, today: jiff::civil::Date) -> Option<Located<String>> {
        let status = self.root.get("status")?;
        let made = self
            .root
            .text_at(&["metadata", "creationTimestamp"])
            .and_then(|text| text.get(..10)?.parse::<jiff::civil::Date>().ok());
        if made.is_some_and(|made| made.saturating_add(jiff::Span::new().days(2)) >= today) {
            return None;
        }
        let has = |key: &str| status.get(key).is_some();
        let value = match (has("lastScheduleTime"), has("lastSuccessfulTime")) {
            (_, true) => return None,
            (false, false) => "it has never run",
            // Clusters before 1.21 don't say when a run went well.
            (true, false) if self.kind == "CronJob" && self.root.text_at(&["apiVersion"]) == Some("batch/v1") => {
                "it runs, and no run has ever gone well"
            }
            (true, false) => return None,
        };
        Some(Located { value: value.to_owned(), place: self.line(status) })
    }

    /// Addresses and certificates in a secret.
    fn values(&self, facts: &mut Facts) {
        for entry in self.root.entries_at(&["stringData"]) {
            facts.addresses.extend(Address::of(
                &entry.key,
                entry.value.text().unwrap_or_default(),
                &place(self.file, entry.line),
            ));
        }
        for entry in self.root.entries_at(&["data"]) {
            let Some(bytes) =
                entry.value.text().and_then(|text| data_encoding::BASE64.decode(text.trim().as_bytes()).ok())
            else {
                continue;
            };
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let at = place(self.file, entry.line);
            facts.addresses.extend(Address::of(&entry.key, &text, &at));
            if &*entry.key == "tls.crt" {
                facts.certificate_files.extend(last_day(&text).map(|expires| Certificate {
                    object: self.id(),
                    place: at,
                    expires,
                }));
            }
        }
    }

    fn webhooks(&self) -> Vec<Webhook> {
        let hooks = self.root.items_at(&["webhooks"]).iter().filter_map(|hook| {
            let service = hook.at(&["clientConfig", "service"])?;
            let any = |rule: &Node, key: &str, words: &[&str]| {
                rule.items_at(&[key]).iter().filter_map(Node::text).any(|text| words.contains(&text))
            };
            let pods = hook.items_at(&["rules"]).iter().any(|rule| {
                any(rule, "resources", &["pods", "*", "*/*"])
                    && any(rule, "operations", &["CREATE", "*"])
                    && any(rule, "apiGroups", &["", "*"])
            });
            let selects = |key: &str| hook.get(key).is_some_and(|selector| !selector.entries().is_empty());
            Some(Webhook {
                object: self.id(),
                name: crate::words::shown(hook.text_at(&["name"]).unwrap_or("?")),
                place: self.line(hook),
                service: service.text_at(&["name"])?.to_owned(),
                namespace: service.text_at(&["namespace"]).map(str::to_owned),
                // The API's default.
                closed: hook.text_at(&["failurePolicy"]).is_none_or(|policy| policy == "Fail"),
                pods,
                selective: selects("namespaceSelector")
                    || selects("objectSelector")
                    || !hook.items_at(&["matchConditions"]).is_empty(),
            })
        });
        hooks.collect()
    }

    fn located(&self, path: &[&str]) -> Option<Located<String>> {
        let node = self.root.at(path)?;
        Some(Located { value: node.text()?.to_owned(), place: self.line(node) })
    }

    fn workload(&self, template: Option<&Node>, lasting: bool) -> Workload {
        let empty = Node { line: self.place.line, value: crate::yaml::Value::Null };
        let spec = template.and_then(|template| template.get("spec")).unwrap_or(&empty);
        let containers = containers::containers(spec, self.file);
        let mut settings = Settings::default();
        for container in containers
            .iter()
            .filter(|c| c.image.as_ref().is_some_and(|i| i.value.engine() == Some(super::Engine::Postgres)))
        {
            settings.fill(&Settings::of_arguments(
                &container.command,
                container.command_place.as_ref().unwrap_or(&container.place),
            ));
        }
        let replicas = self.root.at(&["spec", "replicas"]);
        let strategy =
            self.located(&["spec", "strategy", "type"]).or_else(|| self.located(&["spec", "updateStrategy", "type"]));
        let grace = spec.get("terminationGracePeriodSeconds");
        Workload {
            origin: Origin::Kubernetes,
            kind: self.kind.to_owned(),
            name: self.name.to_owned(),
            namespace: self.namespace.clone(),
            place: self.place.clone(),
            lasting,
            replicas: replicas.and_then(|node| Some(Located { value: node.number()?, place: self.line(node) })),
            strategy,
            grace: grace
                .and_then(|node| Some(Located { value: u64::try_from(node.number()?).ok()?, place: self.line(node) })),
            priority: spec.text_at(&["priorityClassName"]).map(str::to_owned),
            labels: pairs(template.and_then(|template| template.at(&["metadata", "labels"]))),
            claims: containers::claims(spec, self.file),
            owns_claims: !self.root.items_at(&["spec", "volumeClaimTemplates"]).is_empty(),
            settings,
            configured: containers::configuration(&containers),
            containers,
            schedule: None,
            suspended: None,
            never: None,
            engine: None,
        }
    }

    fn service(&self) -> Service {
        let ports = self.root.items_at(&["spec", "ports"]).iter();
        let ports = ports.flat_map(|port| [port.text_at(&["port"]), port.text_at(&["name"])]).flatten();
        let selector = self.root.at(&["spec", "selector"]);
        Service {
            namespace: self.namespace.clone(),
            name: self.name.to_owned(),
            selector: selector.map(|selector| pairs(Some(selector))),
            ports: ports.map(str::to_owned).collect::<BTreeSet<_>>(),
            place: self.place.clone(),
        }
    }

    fn store(&self, kind: StoreKind, under: &[&str]) -> KeyStore {
        let entries = under.iter().flat_map(|path| self.root.entries_at(&path.split('.').collect::<Vec<_>>()));
        let filled = entries.clone().filter(|entry| entry.value.text().is_some_and(|text| !text.trim().is_empty()));
        // In a config map everybody reads it; a secret is at least kept apart by the API.
        let plain = entries.filter(|entry| {
            kind == StoreKind::ConfigMap
                && evidence::is_plain_secret(&entry.key, entry.value.text().unwrap_or_default())
        });
        KeyStore {
            kind,
            namespace: self.namespace.clone(),
            name: self.name.to_owned(),
            keys: filled.map(|entry| entry.key.to_string()).collect(),
            open: false,
            place: self.place.clone(),
            plain: plain.map(|entry| (entry.key.to_string(), place(self.file, entry.line))).collect(),
        }
    }

    fn config_map(&self, into: &mut Collector) {
        for entry in self.root.entries_at(&["data"]) {
            into.facts.addresses.extend(Address::of(
                &entry.key,
                entry.value.text().unwrap_or_default(),
                &place(self.file, entry.line),
            ));
        }
        let store = self.store(StoreKind::ConfigMap, &["data"]);
        for entry in self.root.entries_at(&["data"]) {
            let Some(text) = entry.value.text() else { continue };
            // A block scalar begins on the line after its key.
            let first = entry.line + u32::from(text.contains('\n'));
            if entry.key.ends_with(".conf") || entry.key.ends_with(".auto.conf") {
                into.configuration(format!("config:{}", self.name), Settings::of_file(text, self.file, first));
                let at = place(self.file, first);
                into.facts.expected.extend(evidence::server_names(text, &at));
            } else if text.contains("groups:") && text.contains("alert:") {
                let parsed = crate::yaml::parse(text);
                let mut rules: Vec<_> =
                    parsed.documents.iter().flat_map(|d| rules::read(&d.root, &self.place)).collect();
                rules.iter_mut().for_each(|rule| rule.name.place.line += first - 1);
                into.facts.rules.extend(rules);
            }
        }
        into.facts.stores.push(store);
    }

    fn claim(&self, root: &Node, name: &str) -> Claim {
        Claim {
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            modes: root.items_at(&["spec", "accessModes"]).iter().filter_map(Node::text).map(str::to_owned).collect(),
            class: root.text_at(&["spec", "storageClassName"]).map(str::to_owned),
            place: self.place.clone(),
        }
    }

    fn policy(&self, name: &str, path: &[&str], default: &str) -> StorageClass {
        let node = self.root.at(path);
        let marks = self.root.entries_at(&["metadata", "annotations"]);
        StorageClass {
            name: name.to_owned(),
            policy: node.and_then(Node::text).unwrap_or(default).to_owned(),
            place: node.map_or_else(|| self.place.clone(), |node| self.line(node)),
            default: marks
                .iter()
                .any(|entry| entry.key.ends_with("/is-default-class") && entry.value.truth() == Some(true)),
        }
    }
}

fn pairs(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.map_or(&[][..], Node::entries);
    entries.iter().filter_map(|entry| Some((entry.key.to_string(), entry.value.text()?.to_owned()))).collect()
}

/// The last day of the first certificate in a text of PEM (RFC 7468).
fn last_day(text: &str) -> Option<jiff::civil::Date> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let body: String = rest.split("-----END").next()?.split_whitespace().collect();
    crate::certificate::last_day(&data_encoding::BASE64.decode(body.as_bytes()).ok()?)
}
