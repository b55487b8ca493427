//! `[[service]]` and `[recovery]`: what depends on the database, who runs it, and how it is brought back.
//!
//! ```text
//! check     what can be wrong
//! driver    who runs a service: the keys of all drivers, and the drivers made from them
//! process   driver = "process"
//! systemd   driver = "systemd"
//! docker    driver = "docker"
//! health    how a service is asked
//! recovery  how much may be done, and how long is waited
//! ```

pub(super) mod check;
mod docker;
pub(super) mod driver;
mod health;
mod process;
mod recovery;
mod systemd;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::ServiceName;
use serde::{Deserialize, Serialize};
use services::{
    driver::process::STOP_WITHIN_MAX,
    execute::Scene,
    graph::{Graph, STABLE_FOR_DEFAULT},
    look::{Asked, Observer},
    plan::{Action, Budgets},
    probe::{self, Probe},
};

pub(super) use self::driver::with_driver_keys;
pub use self::{
    driver::{Driven, DriverKind, KeyProblem, LogPlace},
    health::{Health, Timeout},
    recovery::Recovery,
};
use super::{Config, HumanDuration, Postgres};
use crate::{mend::Mending, offer::Offers};

/// Below the state directory: what the executor and the keepers of processes remember.
pub const DIRECTORY: &str = "services";

with_driver_keys! {
    /// `[[service]]`: something that depends on the database.
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    pub struct Service {
        /// Its name.
        pub name: String = String::new(),
        /// What it needs: services, or the PostgreSQL by its name.
        #[serde(default)]
        pub depends_on: Vec<String> = Vec::new(),
        /// How to see that it is well: one way, or several that all have to be.
        #[serde(default, skip_serializing_if = "Several::is_empty")]
        pub health: Several<Health> = Several::default(),
        /// How to see that it does its work right; asked while it is healthy. Healthy and wrong, it is restarted.
        #[serde(default, skip_serializing_if = "Several::is_empty")]
        pub function: Several<Health> = Several::default(),
        /// What people lose while it is down.
        #[serde(default)]
        pub impact: Vec<String> = Vec::new(),
        /// How long it is expected to take from its start to its first healthy answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub starts_in: Option<HumanDuration> = None,
        /// How long it has to be healthy, without a restart, to count as stable.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stable_for: Option<HumanDuration> = None,
        /// How many services that need it may start at the same time.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub admits: Option<u32> = None,
        /// Whether the shedding ladder may stop it under critical pressure: the lower the number, the sooner.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shed: Option<u32> = None,
        /// What of it a person has to approve; provisioning it again always.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub approve: Vec<Action> = Vec::new(),
    }
}

/// One, or a list.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Several<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> Default for Several<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> Several<T> {
    /// All of them.
    pub fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }
}

impl Service {
    /// What is wrong with it, key by key, in words.
    pub fn problems(&self) -> Vec<KeyProblem> {
        let mut problems = Vec::new();
        for (key, probes) in [("health", &self.health), ("function", &self.function)] {
            for one in probes.all() {
                problems.extend(one.problems().into_iter().map(|why| (key, why)));
            }
        }
        if self.driver == DriverKind::External && self.health.is_empty() {
            problems.push(("health", format!("nobody runs it, so nothing says how it is: it {}", health::ONE_OF)));
        }
        if self.driver == DriverKind::External && self.shed.is_some() {
            problems.push(("shed", "nobody declared who runs it, so it can't be stopped: name a driver".to_owned()));
        }
        if self.admits == Some(0) {
            problems.push(("admits", ADMITS_NONE.to_owned()));
        }
        problems.extend(Driven::from(self).problems(&self.name));
        problems
    }

    fn asked(&self) -> Result<Asked, String> {
        let probes = |several: &Several<Health>| several.all().iter().map(Health::probe).collect::<Result<Vec<_>, _>>();
        let all = self.health.all().iter().chain(self.function.all());
        let within = all.map(|health| health.timeout.0.0).max().unwrap_or(Timeout::default().0.0);
        Ok(Asked { health: probes(&self.health)?, function: probes(&self.function)?, within })
    }

    fn node(&self) -> services::graph::Service {
        services::graph::Service {
            name: self.name.as_str().into(),
            needs: self.depends_on.iter().map(|need| need.as_str().into()).collect(),
            starts_in: self.starts_in.map(|time| time.0),
            stable_for: self.stable_for.map_or(STABLE_FOR_DEFAULT, |time| time.0),
            admits: self.admits,
            impact: self.impact.clone(),
            external: self.driver == DriverKind::External,
        }
    }
}

const ADMITS_NONE: &str = "0: nothing that needs it could ever start; leave it out for no bound of its own";

impl Postgres {
    /// Whether somebody declared who runs it.
    pub fn is_run(&self) -> bool {
        self.driver != DriverKind::External
    }

    /// Who runs it, with what is right for a database where nobody says otherwise.
    fn driven(&self) -> Driven {
        let mut driven = Driven::from(self);
        if self.driver == DriverKind::Process {
            // "Fast": its sessions end. An image of PostgreSQL says so itself.
            driven.stop_signal.get_or_insert_with(|| "SIGINT".to_owned());
        }
        if matches!(self.driver, DriverKind::Process | DriverKind::Docker) {
            // A checkpoint is written, which may take long. Killed in it, as an engine does after 10 s, it begins with a crash recovery.
            driven.stop_within.get_or_insert(HumanDuration(STOP_WITHIN_MAX));
        }
        driven
    }
}

/// How long the guarded PostgreSQL's answer may take.
const DATABASE_WITHIN: Duration = Duration::from_secs(5);

impl Config {
    /// The services with the guarded PostgreSQL, as a graph. The database is its first node.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn graph(&self) -> Result<Graph, services::graph::Problems> {
        let postgres = &self.postgres;
        let database = services::graph::Service {
            name: postgres.name.as_str().into(),
            needs: postgres.depends_on.iter().map(|need| need.as_str().into()).collect(),
            starts_in: postgres.starts_in.map(|time| time.0),
            stable_for: postgres.stable_for.map_or(STABLE_FOR_DEFAULT, |time| time.0),
            admits: postgres.admits,
            impact: postgres.impact.clone(),
            external: postgres.driver == DriverKind::External,
        };
        Graph::new(std::iter::once(database).chain(self.service.iter().map(Service::node)).collect())
    }

    /// Where the executor and the keepers remember things.
    pub fn services_dir(state_dir: &Path) -> PathBuf {
        state_dir.join(DIRECTORY)
    }

    /// Where the log of a service is, or of the database.
    pub fn log_place(&self, state_dir: &Path, name: &str) -> LogPlace {
        let service = self.service.iter().find(|service| service.name == name);
        let driven = service.map_or_else(|| self.postgres.driven(), Driven::from);
        driven.log(&Self::services_dir(state_dir), name)
    }

    /// How much may be done, and what of it only with a person's word.
    fn budgets(&self) -> Budgets {
        let of_services = self.service.iter().map(|one| (&one.name, &one.approve));
        let all = std::iter::once((&self.postgres.name, &self.postgres.approve)).chain(of_services);
        let approve = all.map(|(name, actions)| (name.as_str().into(), actions.iter().copied().collect())).collect();
        Budgets { approve, ..self.recovery.budgets() }
    }

    /// All that a recovery works with. `database`: how the guarded PostgreSQL is reached, with its password.
    ///
    /// # Errors
    /// In words, where something declared can't be used.
    pub fn scene(&self, state_dir: &Path, database: &str) -> Result<Scene, String> {
        let graph = self.graph().map_err(|problems| problems.to_string())?;
        let run: Vec<(ServiceName, Driven)> =
            std::iter::once((self.postgres.name.as_str().into(), self.postgres.driven()))
                .chain(self.service.iter().map(|one| (one.name.as_str().into(), Driven::from(one))))
                .collect();
        let (mut all, mut drivers, mut definitions) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for made in driver::drivers(&Self::services_dir(state_dir), &run)? {
            for (name, definition) in made.definitions {
                drivers.insert(name.clone(), Arc::clone(&made.driver));
                definitions.insert(name, definition);
            }
            all.push(made.driver);
        }
        let postgres =
            probe::Postgres::new(database, self.postgres.data_dir.as_deref()).map_err(|error| error.to_string())?;
        let mut asked = vec![Asked {
            health: vec![Probe::Postgres(Box::new(postgres))],
            function: vec![],
            within: DATABASE_WITHIN,
        }];
        for one in &self.service {
            asked.push(one.asked()?);
        }
        let mut observer = Observer::new(&graph, all, asked);
        let name = self.postgres.name.as_str().into();
        if let (Some(data_dir), Some(database)) = (&self.postgres.data_dir, graph.id(&name)) {
            let offers = Arc::new(Offers::new(self, state_dir, data_dir.clone()));
            if let Some(driver) = drivers.get_mut(&name) {
                let dir = Self::services_dir(state_dir);
                let mending = Mending::new(Arc::clone(driver), data_dir.clone(), Arc::clone(&offers), self, dir);
                *driver = Arc::new(mending);
            }
            observer = observer.with_directory(database, data_dir.clone(), move || offers.offer());
        }
        Ok(Scene { observer, drivers, definitions, budgets: self.budgets(), patience: self.recovery.patience(), graph })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_gets_the_time_that_its_last_checkpoint_takes() {
        for (driver, signal, within) in [
            ("process", Some("SIGINT"), Some(STOP_WITHIN_MAX)),
            ("docker", None, Some(STOP_WITHIN_MAX)),
            // systemd's own time-out counts.
            ("systemd", None, None),
        ] {
            let postgres: Postgres = toml::from_str(&format!("driver = {driver:?}")).unwrap();
            let driven = postgres.driven();
            assert_eq!(
                (driven.stop_signal.as_deref(), driven.stop_within.map(|one| one.0)),
                (signal, within),
                "{driver}"
            );
        }
        let own: Postgres = toml::from_str("driver = \"docker\"\nstop_within = \"30s\"").unwrap();
        assert_eq!(own.driven().stop_within, Some(HumanDuration(Duration::from_secs(30))));
    }
}
