//! Objects that workloads lean on.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::Place;

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKind {
    /// A secret, or an object that makes one.
    Secret,
    /// A config map.
    ConfigMap,
    /// A file of variables.
    File,
}

impl StoreKind {
    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::ConfigMap => "config map",
            Self::File => "file",
        }
    }
}

/// Keys with their places.
#[derive(Clone, Debug)]
pub struct KeyStore {
    /// What it is.
    pub kind: StoreKind,
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Its name, or its path.
    pub name: String,
    /// Its keys; those without a value are not among them.
    pub keys: BTreeSet<String>,
    /// More keys may come from elsewhere (a whole vault path, a generator).
    pub open: bool,
    /// Where it begins.
    pub place: Place,
    /// Keys that look like secrets and stand here for everyone to read.
    pub plain: Vec<(String, Place)>,
}

/// A claim of a volume.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its modes.
    pub modes: Vec<String>,
    /// Its class, if it names one.
    pub class: Option<String>,
    /// Where it begins.
    pub place: Place,
}

/// A class of volumes, or a volume.
#[derive(Clone, Debug)]
pub struct StorageClass {
    /// The class's name, or the claim that the volume is bound to.
    pub name: String,
    /// What becomes of a volume whose claim goes; the API's default where it isn't said.
    pub policy: String,
    /// Where the policy stands, or the object where it doesn't.
    pub place: Place,
    /// Used by claims that name none.
    pub default: bool,
}

/// Limits that a namespace gives to containers that name none.
#[derive(Clone, Debug)]
pub struct LimitRange {
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Gives a CPU limit.
    pub cpu: bool,
    /// Gives a memory limit.
    pub memory: bool,
}

/// Labels that an object looks for.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// All of them must be there.
    pub labels: BTreeMap<String, String>,
}

/// A gate that objects have to pass before they are made.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The object that declares it.
    pub object: String,
    /// Its own name.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// The service that answers.
    pub service: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Nothing passes while it does not answer.
    pub closed: bool,
    /// Pods have to pass.
    pub pods: bool,
    /// Some namespaces or objects need not.
    pub selective: bool,
}
