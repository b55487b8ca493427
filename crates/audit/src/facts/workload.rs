//! What runs.

use std::collections::BTreeMap;

use super::{Engine, Image, Located, Settings};
use crate::finding::Place;

/// Who starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A Kubernetes object with a pod template, or a pod.
    Kubernetes,
    /// A service of a compose file.
    Compose,
    /// A unit of systemd.
    Systemd,
}

/// Something that runs.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Who starts it.
    pub origin: Origin,
    /// `Deployment`, `CronJob`, `service`, `unit` ...
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace or compose project, where one is named.
    pub namespace: Option<String>,
    /// Where it begins.
    pub place: Place,
    /// Whether it goes on until it is stopped (no job).
    pub lasting: bool,
    /// How many of it, where that is said.
    pub replicas: Option<Located<i64>>,
    /// `Recreate`, `RollingUpdate` ...; absent where nothing is said.
    pub strategy: Option<Located<String>>,
    /// Seconds between being told to end and being killed; absent where nothing is said.
    pub grace: Option<Located<u64>>,
    /// Its priority class.
    pub priority: Option<String>,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// What runs in it, those that run before it included.
    pub containers: Vec<Container>,
    /// The claims that it mounts: claim and where.
    pub claims: Vec<Located<String>>,
    /// Claim templates of a stateful set.
    pub owns_claims: bool,
    /// Settings of PostgreSQL that its options and configuration files make.
    pub settings: Settings,
    /// A file of settings is mounted, whose content may or may not be in the set.
    pub configured: Option<Place>,
    /// Its schedule, of a job that comes again.
    pub schedule: Option<Located<String>>,
    /// A job that was switched off.
    pub suspended: Option<Place>,
    /// Of a job that comes again: its status says that it has never run, or never well.
    pub never: Option<Located<String>>,
    pub(super) engine: Option<Engine>,
}

impl Workload {
    /// `Deployment/postgres`.
    pub fn object(&self) -> String {
        match &self.namespace {
            Some(namespace) if namespace != "default" => format!("{}/{namespace}/{}", self.kind, self.name),
            _ => format!("{}/{}", self.kind, self.name),
        }
    }

    /// The containers that are there for as long as it runs.
    pub fn main_containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| !container.init)
    }

    /// What database it is, if one.
    pub fn engine(&self) -> Option<Engine> {
        self.engine
    }

    /// Looks at the images once, as every check asks.
    pub(super) fn recognise(&mut self) {
        self.engine = self.main_containers().filter_map(|container| container.image.as_ref()?.value.engine()).min();
    }

    /// The container that is the database, else the first.
    pub fn database_container(&self) -> Option<&Container> {
        let engine =
            |container: &&Container| container.image.as_ref().is_some_and(|image| image.value.engine().is_some());
        self.main_containers().find(engine).or_else(|| self.main_containers().next())
    }
}

/// A process with its image.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// Runs before the others and ends.
    pub init: bool,
    /// Its image.
    pub image: Option<Located<Image>>,
    /// When the image is pulled.
    pub pull: Option<Located<String>>,
    /// Cores that it may use at most.
    pub cpu_limit: Option<Located<String>>,
    /// Bytes that it may use at most.
    pub memory_limit: Option<Located<u64>>,
    /// Cores that are kept for it.
    pub cpu_request: bool,
    /// Memory that is kept for it.
    pub memory_request: bool,
    /// Says when it has started.
    pub startup: Option<Probe>,
    /// Says when it has to be killed.
    pub liveness: Option<Probe>,
    /// Says when it may be used.
    pub readiness: Option<Probe>,
    /// Its variables.
    pub env: Vec<Variable>,
    /// Command and arguments.
    pub command: Vec<String>,
    /// Where its command stands.
    pub command_place: Option<Place>,
    /// What is mounted where: the volume's or host's name and the path inside.
    pub mounts: Vec<Mount>,
    /// What it listens on.
    pub ports: Vec<Port>,
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The claim, volume or host folder behind it.
    pub source: String,
    /// The path inside.
    pub path: String,
    /// Where it stands.
    pub place: Place,
}

/// A port that is open to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
}

/// A probe with the times that decide when it acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where it stands.
    pub place: Place,
    /// Seconds before the first.
    pub delay: u64,
    /// Seconds between two.
    pub period: u64,
    /// Failures in a row that count.
    pub failures: u64,
}

impl Probe {
    /// Seconds from the start until the last failure that counts.
    pub fn patience(&self) -> u64 {
        self.delay.saturating_add(self.period.saturating_mul(self.failures))
    }
}

/// A variable, or a store of variables.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name; empty where the whole store is meant.
    pub name: String,
    /// Where its value comes from.
    pub source: VariableSource,
    /// Where it stands.
    pub place: Place,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableSource {
    /// It stands there.
    Literal(String),
    /// A key of a secret or config map.
    Key {
        /// Which kind.
        kind: super::StoreKind,
        /// Its name.
        store: String,
        /// The key.
        key: String,
        /// May be absent.
        optional: bool,
    },
    /// All keys of a secret, config map or file.
    All {
        /// Which kind.
        kind: super::StoreKind,
        /// Its name.
        store: String,
        /// What every key is prefixed with.
        prefix: String,
        /// May be absent.
        optional: bool,
    },
    /// From outside of the files: the shell that starts it, the pod's own fields.
    Outside,
}
