//! What the files say, in one vocabulary for Kubernetes, compose and systemd.
//!
//! A [`Collector`] takes file after file and keeps of each only what checks ask for; [`Facts`] is what checks see.

mod backup;
mod collect;
mod compose;
mod containers;
mod evidence;
mod host;
mod image;
mod kubernetes;
mod live;
mod oxpecker;
mod probe;
mod resources;
mod routes;
mod rules;
mod settings;
mod systemd;
pub mod versions;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::civil::Date;
use serde::Serialize;

pub use self::{
    backup::BackupTool,
    collect::{Collector, Ignore, Problem, ProblemKind},
    evidence::{ExpectedHost, Named},
    host::{Disk, Host, OwnBackups, Postmaster, Stanza},
    image::{Engine, Image},
    live::{
        Age, Archiver, Asked, FileFault, Identity, LiveSetting, LiveSettings, Prepared, RoleSetting, Sender, Server,
        Sessions, Slot,
    },
    probe::{Address, Answer, Certificate, Probed, Question},
    resources::{Claim, KeyStore, LimitRange, Selector, StorageClass, Webhook},
    routes::{Backend, Route, Service},
    rules::{AlertRule, Subject},
    settings::{Setting, Settings},
    workload::{Container, Mount, Origin, Port, Probe, Variable, VariableSource, Workload},
};
use crate::finding::{Evidence, Place};

/// Something with the place where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The thing.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl<T: std::fmt::Display> Located<T> {
    /// `name: value` at its place.
    pub fn evidence(&self, name: &str) -> Evidence {
        let value = crate::words::shown(&format!("{name}: {}", self.value));
        Evidence { place: self.place.clone(), value }
    }
}

/// What a check may need to see before it can say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Something that runs: a Kubernetes workload, a compose service, a systemd service.
    Workloads,
    /// A database among them.
    Database,
    /// A PostgreSQL among them.
    Postgres,
    /// Kubernetes objects.
    Kubernetes,
    /// Settings of a PostgreSQL: a configuration file or `-c` options.
    Settings,
    /// READMEs, `.env` examples or settings files that name variables.
    Evidence,
    /// Secrets, config maps, `.env` files, or what makes them.
    Stores,
    /// Ingresses or other routes.
    Routes,
    /// A list of hosts that must answer: `expected-routes.txt`, or a web server's configuration.
    ExpectedHosts,
    /// Alert rules of Prometheus.
    Rules,
    /// A backup job.
    Backups,
    /// A running PostgreSQL that lets us in.
    Live,
    /// Its settings.
    LiveSettings,
    /// Its sessions.
    LiveSessions,
    /// Its replication slots.
    LiveSlots,
    /// Its archiver.
    LiveArchiver,
    /// How far its transaction ids have gone.
    LiveAges,
    /// What its configuration files would come to.
    LiveFiles,
    /// Its processes on this machine.
    LiveProcess,
    /// The file systems that it lies on.
    LiveDisks,
    /// What lies in our own repository.
    LiveRepository,
    /// Hosts that were asked.
    ProbedPages,
    /// Addresses in variables that were asked.
    ProbedAddresses,
    /// Certificates, asked or in the files.
    Certificates,
}

impl Source {
    /// What is missing when it is, as it ends the sentence "not assessed: no ...".
    pub fn missing(self) -> &'static str {
        match self {
            Self::Workloads => "workload",
            Self::Database => "database",
            Self::Postgres => "PostgreSQL",
            Self::Kubernetes => "Kubernetes object",
            Self::Settings => "postgresql.conf or -c option of a PostgreSQL",
            Self::Evidence => "README, .env example or settings file that names variables",
            Self::Stores => "secret, config map or .env file",
            Self::Routes => "ingress or other route",
            Self::ExpectedHosts => "list of expected hosts (expected-routes.txt, or a web server's configuration)",
            Self::Rules => "alert rule",
            Self::Backups => "backup job",
            Self::Live => "live server (--live)",
            Self::LiveSettings => "live server's settings (--live)",
            Self::LiveSessions => "live server's sessions (--live)",
            Self::LiveSlots => "live server's slots (--live)",
            Self::LiveArchiver => "live server's archiver (--live)",
            Self::LiveAges => "live server's transaction ids (--live)",
            Self::LiveFiles => "live server's configuration files (--live)",
            Self::LiveProcess => "live server's processes on this machine (--live)",
            Self::LiveRepository => "repository of oxpecker that is configured and opens (--live)",
            Self::ProbedPages => "host that was asked over the network (--probe)",
            Self::ProbedAddresses => "address in a variable that was asked over the network (--probe)",
            Self::Certificates => "certificate, in a TLS secret or shown by a host (--probe)",
            Self::LiveDisks => "live server's disks (--live)",
        }
    }
}

/// Everything that checks may know.
#[derive(Debug)]
pub struct Facts {
    /// Today, for what runs out.
    pub today: Date,
    /// What runs.
    pub workloads: Vec<Workload>,
    /// Services of Kubernetes: names that stand for pods.
    pub services: Vec<Service>,
    /// What is served under which host.
    pub routes: Vec<Route>,
    /// Where values come from: secrets, config maps, `.env` files.
    pub stores: Vec<KeyStore>,
    /// Claims of volumes.
    pub claims: Vec<Claim>,
    /// Classes of volumes.
    pub classes: Vec<StorageClass>,
    /// Volumes with what becomes of them: the claim that each is bound to, and its policy.
    pub volumes: Vec<StorageClass>,
    /// Limits that a namespace gives by default.
    pub limit_ranges: Vec<LimitRange>,
    /// Disruption budgets.
    pub budgets: Vec<Selector>,
    /// Workloads (`kind/name`) that an autoscaler keeps at two or more.
    pub scaled: BTreeSet<String>,
    /// Secrets that a certificate will fill: namespace and name.
    pub certificates: Vec<(Option<String>, String)>,
    /// Alert rules.
    pub rules: Vec<AlertRule>,
    /// Variables that documents name.
    pub named: Vec<Named>,
    /// Hosts that are expected to answer.
    pub expected: Vec<ExpectedHost>,
    /// Where an order of start is written down.
    pub orders: Vec<Place>,
    /// Edges "needs" that were declared: from, to, where.
    pub needs: Vec<(String, String, Place)>,
    /// Backups that are objects of an operator, a tool's own configuration, or a job.
    pub backups: Vec<backup::Backup>,
    /// Where a restore test was seen.
    pub restore_tests: Vec<Place>,
    /// Databases that an operator runs: it brings probes, order and failover of its own.
    pub operated: Vec<Located<String>>,
    /// A service that waits only until another was started: who, for what, where.
    pub started_only: Vec<(String, String, Place)>,
    /// Gates that pods have to pass.
    pub webhooks: Vec<Webhook>,
    /// Objects that deploy from a repository, and its address.
    pub deployers: Vec<(String, Located<String>)>,
    /// Our own guard with a route for its alerts.
    pub guarded: Option<Place>,
    /// Our own guard's heartbeat to the outside.
    pub heartbeat: Option<Place>,
    /// Kinds that are none of Kubernetes' own and that nothing here knows, with how many.
    pub unknown_kinds: BTreeMap<String, usize>,
    /// Files read.
    pub files: usize,
    /// Where our own governor is told to act on autovacuum.
    pub governed: Option<Place>,
    /// The running server; absent where nobody asked for one.
    pub server: Option<Asked<Server>>,
    /// Addresses in stores of variables: what may be asked over the network.
    pub addresses: Vec<Address>,
    /// Certificates in the files.
    pub certificate_files: Vec<Certificate>,
    /// What the network said; absent where nobody asked it.
    pub probes: Option<Vec<Probed>>,
    /// Questions to the network that were left out.
    pub not_probed: usize,
    /// What lies in our own repository; absent where none is configured or nobody asked.
    pub own: Option<Asked<OwnBackups>>,
    /// This machine; absent where nobody asked for it.
    pub host: Option<Host>,
    kubernetes: bool,
    by_name: ByName,
}

/// Where things of a name are: in sets of thousands each is asked for thousands of times.
#[derive(Debug, Default)]
struct ByName {
    stores: HashMap<(StoreKind, String), Vec<usize>>,
    claims: HashMap<String, Vec<usize>>,
}

impl Facts {
    fn new(today: Date) -> Self {
        Self {
            today,
            workloads: vec![],
            services: vec![],
            routes: vec![],
            stores: vec![],
            claims: vec![],
            classes: vec![],
            volumes: vec![],
            limit_ranges: vec![],
            budgets: vec![],
            scaled: BTreeSet::new(),
            certificates: vec![],
            rules: vec![],
            named: vec![],
            expected: vec![],
            orders: vec![],
            needs: vec![],
            backups: vec![],
            restore_tests: vec![],
            operated: vec![],
            started_only: vec![],
            webhooks: vec![],
            deployers: vec![],
            guarded: None,
            heartbeat: None,
            unknown_kinds: BTreeMap::new(),
            files: 0,
            governed: None,
            server: None,
            addresses: vec![],
            certificate_files: vec![],
            probes: None,
            not_probed: 0,
            own: None,
            host: None,
            kubernetes: false,
            by_name: ByName::default(),
        }
    }

    /// To be called when all is collected.
    fn index(&mut self) {
        for (index, store) in self.stores.iter().enumerate() {
            self.by_name.stores.entry((store.kind, store.name.clone())).or_default().push(index);
        }
        for (index, claim) in self.claims.iter().enumerate() {
            self.by_name.claims.entry(claim.name.clone()).or_default().push(index);
        }
    }

    /// Whether a source is there.
    pub fn has(&self, source: Source) -> bool {
        match source {
            Source::Workloads => !self.workloads.is_empty(),
            Source::Database => self.databases().next().is_some() || !self.operated.is_empty(),
            Source::Postgres => self.postgres().next().is_some() || !self.operated.is_empty(),
            Source::Kubernetes => self.kubernetes,
            Source::Settings => self.postgres().any(|workload| !workload.settings.is_empty()),
            Source::Evidence => !self.named.is_empty(),
            Source::Stores => !self.stores.is_empty(),
            Source::Routes => !self.routes.is_empty(),
            Source::ExpectedHosts => !self.expected.is_empty(),
            Source::Rules => !self.rules.is_empty(),
            Source::Backups => !self.backups.is_empty(),
            Source::ProbedPages => self.probed().any(|question| matches!(question, Question::Page { .. })),
            Source::ProbedAddresses => self.probed().any(|question| matches!(question, Question::Address(_))),
            Source::Certificates => {
                let shown = |(_, answer): &Probed| answer.as_ref().is_ok_and(|answer| answer.expires.is_some());
                !self.certificate_files.is_empty() || self.probes.iter().flatten().any(shown)
            }
            _ => self.live(source).is_ok(),
        }
    }

    /// What is missing where a source is: the end of a sentence that begins "not assessed: ".
    pub fn lacks(&self, source: Source) -> Option<String> {
        if self.has(source) {
            return None;
        }
        let asked = self.server.is_some() && (Source::Live..=Source::LiveRepository).contains(&source);
        Some(match self.live(source) {
            Err(why) if asked => why,
            _ if (Source::Live..=Source::LiveDisks).contains(&source) => "not asked for: --live".to_owned(),
            _ if matches!(source, Source::ProbedPages | Source::ProbedAddresses) && self.probes.is_none() => {
                "not asked for: --probe".to_owned()
            }
            _ => format!("no {} was found", source.missing()),
        })
    }

    fn live(&self, source: Source) -> Asked<()> {
        if source == Source::LiveRepository {
            let own = self.own.as_ref().ok_or("no repository of oxpecker is configured")?;
            return own.as_ref().map(drop).map_err(|why| format!("oxpecker's repository: {why}"));
        }
        let server = match &self.server {
            None => return Err(String::new()),
            Some(server) => server.as_ref().map_err(|why| format!("the live server: {why}"))?,
        };
        fn part<T>(what: &str, part: &Asked<T>) -> Asked<()> {
            part.as_ref().map(drop).map_err(|why| format!("the live server's {what}: {why}"))
        }
        let host = || self.host.as_ref().ok_or_else(|| "this machine was not looked at".to_owned());
        match source {
            Source::LiveSettings => part("settings", &server.settings),
            Source::LiveSessions => part("sessions", &server.sessions),
            Source::LiveSlots => part("slots", &server.slots),
            Source::LiveArchiver => part("archiver", &server.archiver),
            Source::LiveAges => part("transaction ids", &server.ages),
            Source::LiveFiles => part("configuration files", &server.faults),
            Source::LiveProcess => part("processes", &host()?.postmaster),
            Source::LiveDisks => part("disks", &host()?.disks),
            _ => Ok(()),
        }
    }

    fn probed(&self) -> impl Iterator<Item = &Question> {
        self.probes.iter().flatten().map(|(question, _)| question)
    }

    /// The running server, where it let us in.
    pub fn live_server(&self) -> Option<&Server> {
        self.server.as_ref()?.as_ref().ok()
    }

    /// Workloads that go on until they are stopped.
    pub fn lasting(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(|workload| workload.lasting)
    }

    /// Workloads that hold data.
    pub fn databases(&self) -> impl Iterator<Item = &Workload> {
        self.lasting().filter(|workload| workload.engine().is_some_and(Engine::holds_data))
    }

    /// Workloads that are a PostgreSQL.
    pub fn postgres(&self) -> impl Iterator<Item = &Workload> {
        self.lasting().filter(|workload| workload.engine() == Some(Engine::Postgres))
    }

    /// The workloads that a service's selector finds.
    pub fn behind<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Workload> {
        self.workloads.iter().filter(|workload| {
            same_namespace(workload.namespace.as_deref(), service.namespace.as_deref())
                && service.selector.as_ref().is_some_and(|selector| selected(selector, &workload.labels))
        })
    }

    /// The store of a name, if it is in the set.
    pub fn store(&self, kind: resources::StoreKind, namespace: Option<&str>, name: &str) -> Option<&KeyStore> {
        let found = self.by_name.stores.get(&(kind, name.to_owned()))?.iter().map(|index| &self.stores[*index]);
        found.into_iter().find(|store| same_namespace(store.namespace.as_deref(), namespace))
    }

    /// The claim of a name, if it is in the set.
    pub fn claim(&self, namespace: Option<&str>, name: &str) -> Option<&Claim> {
        let found = self.by_name.claims.get(name)?.iter().map(|index| &self.claims[*index]);
        found.into_iter().find(|claim| same_namespace(claim.namespace.as_deref(), namespace))
    }
}

pub(crate) use evidence::is_plain_secret;
pub use resources::StoreKind;

/// Whether two objects may share a namespace; one that names none may be applied to any.
pub fn same_namespace(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// Whether labels carry all that a selector asks for; an empty one finds nothing here.
pub fn selected(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The folder of a file; empty for one that stands alone.
pub fn folder(file: &str) -> &str {
    file.rfind('/').map_or("", |at| &file[..at])
}

/// Whether a file lies in a folder or below it.
pub fn lies_below(file: &str, folder: &str) -> bool {
    folder.is_empty() || file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn place(file: &Arc<str>, line: u32) -> Place {
    Place { file: Arc::clone(file), line }
}
