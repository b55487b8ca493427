//! Who runs a service: the keys of all drivers, and the drivers made from them.
//!
//! The keys stand flat beside a service's own. A further driver needs: a variant of [`DriverKind`], its keys in the list of `with_driver_keys!`, and a file beside
//! this one with `KEYS`, `problems` and `make`, named in the matches below.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::ServiceName;
use serde::{Deserialize, Serialize};
use services::driver::Driver;

use super::{docker, process, systemd};

/// Who runs a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// Somebody else: it is looked at, never acted on.
    #[default]
    External,
    /// oxpecker itself, as a process.
    Process,
    /// A systemd, as a unit.
    Systemd,
    /// A container engine.
    Docker,
}

/// A key of the configuration, and what is wrong with it.
pub type KeyProblem = (&'static str, String);

impl DriverKind {
    /// All that run something.
    const ALL: [Self; 3] = [Self::Process, Self::Systemd, Self::Docker];

    /// What it is called in the configuration.
    fn name(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Process => "process",
            Self::Systemd => "systemd",
            Self::Docker => "docker",
        }
    }

    /// The keys that belong to it.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::External => &[],
            Self::Process => process::KEYS,
            Self::Systemd => systemd::KEYS,
            Self::Docker => docker::KEYS,
        }
    }

    /// What is wrong with its keys.
    fn problems(self, name: &str, driven: &Driven) -> Vec<KeyProblem> {
        match self {
            Self::External => vec![],
            Self::Process => process::problems(name, driven),
            Self::Systemd => systemd::problems(name, driven),
            Self::Docker => docker::problems(name, driven),
        }
    }

    /// Where the log of one of its services is. `dir`: what is remembered of services.
    fn log(self, dir: &Path, name: &str, driven: &Driven) -> LogPlace {
        match self {
            Self::External => LogPlace::Unknown,
            Self::Process => LogPlace::File(process::log(dir, name)),
            Self::Docker => LogPlace::of(docker::log(driven)),
            Self::Systemd => LogPlace::of(driven.unit.as_ref().map(|unit| format!("journalctl --unit={unit}"))),
        }
    }

    /// The driver of these services, or several of its kind. `dir`: what is remembered of services.
    fn make(self, dir: &Path, run: &[(ServiceName, Driven)]) -> Result<Vec<Made>, String> {
        match self {
            Self::External => Ok(vec![]),
            Self::Process => process::make(dir, run),
            Self::Systemd => systemd::make(run),
            Self::Docker => docker::make(dir, run),
        }
    }
}

/// Where a service's log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// In a file that oxpecker writes.
    File(PathBuf),
    /// With its supervisor: what shows it.
    Command(String),
    /// Nobody declared it.
    Unknown,
}

impl LogPlace {
    fn of(command: Option<String>) -> Self {
        command.map_or(Self::Unknown, Self::Command)
    }
}

/// A driver, and what it runs.
pub struct Made {
    /// It.
    pub driver: Arc<dyn Driver>,
    /// Its services, each with what it would be made from again, as approvals bind it.
    pub definitions: Vec<(ServiceName, String)>,
}

/// Declares a section that may say who runs something: its own keys with their defaults, followed by those of all drivers.
macro_rules! with_driver_keys {
    ($(#[$of:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $crate::config::services::driver::with_driver_keys! {
            @ [$(#[$of])* pub struct $name { $($own)* }]
            /// Who runs it.
            driver: $crate::config::services::driver::DriverKind,
            /// `process`: program and arguments.
            command: Vec<String>,
            /// `process`: where it runs.
            directory: Option<std::path::PathBuf>,
            /// `process`: as whom it runs.
            user: Option<String>,
            /// `process`: its variables.
            environment: std::collections::BTreeMap<String, String>,
            /// `process`: files of variables; a leading `-` lets one be missing.
            environment_files: Vec<String>,
            /// `process`: the signal that asks it to stop.
            stop_signal: Option<String>,
            /// `process`, `docker`: how long it gets to stop until it is killed.
            stop_within: Option<$crate::config::HumanDuration>,
            /// `systemd`: the unit, such as `site.service`.
            unit: Option<String>,
            /// `systemd`: the file that a unit that is gone is provisioned from; it stays where it is.
            unit_file: Option<std::path::PathBuf>,
            /// `systemd`: the address of the bus; the system's, unless somebody says otherwise.
            bus: Option<String>,
            /// `docker`: the container's name.
            container: Option<String>,
            /// `docker`: the name of a Compose project, with `service`.
            project: Option<String>,
            /// `docker`: the name of a service of that project: all its containers.
            service: Option<String>,
            /// `docker`: where the engine listens; by default `/var/run/docker.sock`.
            socket: Option<std::path::PathBuf>,
            /// `docker`: what the container is made of again once it was removed.
            definition: Option<::services::driver::docker::Definition>,
        }
    };
    (@ [$(#[$of:meta])* pub struct $name:ident { $($(#[$on:meta])* pub $own:ident: $type:ty = $default:expr,)* }]
        $($(#[$about:meta])* $key:ident: $kind:ty,)*
    ) => {
        $(#[$of])*
        pub struct $name {
            $($(#[$on])* pub $own: $type,)*
            $($(#[$about])* #[serde(default, skip_serializing_if = "crate::config::services::driver::is_default")] pub $key: $kind,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($own: $default,)* $($key: Default::default(),)* }
            }
        }

        impl From<&$name> for $crate::config::services::driver::Driven {
            fn from(section: &$name) -> Self {
                Self { $($key: section.$key.clone(),)* }
            }
        }
    };
}
pub(in crate::config) use with_driver_keys;

with_driver_keys! {
    /// The keys of all drivers.
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    pub struct Driven {}
}

/// Whether nobody declared it.
pub(in crate::config) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Driven {
    /// Where its log is. `dir`: what is remembered of services.
    pub fn log(&self, dir: &Path, name: &str) -> LogPlace {
        self.driver.log(dir, name, self)
    }

    /// What it would be made from again, as its keys say, for whoever has to approve that. Of variables only the names: their values may be secrets.
    pub fn in_words(&self) -> String {
        let mut words = Vec::new();
        let mut tell = |what: &str, value: Option<String>| words.extend(value.map(|value| format!("{what} {value}")));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let list = |what: &[String]| (!what.is_empty()).then(|| what.join(", "));
        let names = |variables: &BTreeMap<String, String>| list(&variables.keys().cloned().collect::<Vec<_>>());
        tell("command", (!self.command.is_empty()).then(|| format!("{:?}", self.command)));
        tell("in", path(&self.directory));
        tell("as", self.user.clone());
        tell("with the variables", names(&self.environment));
        tell("with those of", list(&self.environment_files));
        tell("unit", self.unit.clone());
        tell("from", path(&self.unit_file));
        tell("container", self.container.clone());
        tell("Compose project", self.project.clone());
        tell("service", self.service.clone());
        if let Some(made) = &self.definition {
            tell("of the image", Some(made.image.clone()));
            tell("with the command", (!made.command.is_empty()).then(|| format!("{:?}", made.command)));
            tell("with the variables", names(&made.environment));
            tell("with", list(&made.binds));
            tell("ports", list(&made.ports));
            tell("network", made.network.clone());
        }
        words.join(", ")
    }

    /// Keys of other drivers than the declared one, and what is wrong with its own.
    pub fn problems(&self, name: &str) -> Vec<KeyProblem> {
        // What is declared is what is shown.
        let given = toml::Table::try_from(self).unwrap_or_default();
        let mut problems = Vec::new();
        for kind in DriverKind::ALL {
            for key in kind.keys().iter().filter(|key| given.contains_key(**key) && !self.driver.keys().contains(key)) {
                let why =
                    format!("a key of the driver {}, but declared is driver = {:?}", kind.name(), self.driver.name());
                if !problems.contains(&(*key, why.clone())) {
                    problems.push((*key, why));
                }
            }
        }
        problems.extend(self.driver.problems(name, self));
        problems
    }
}

/// All drivers that are declared.
///
/// # Errors
/// In words, where something declared can't be used.
pub fn drivers(dir: &Path, run: &[(ServiceName, Driven)]) -> Result<Vec<Made>, String> {
    let mut made = Vec::new();
    for kind in DriverKind::ALL {
        let of_kind: Vec<_> = run.iter().filter(|(_, driven)| driven.driver == kind).cloned().collect();
        if !of_kind.is_empty() {
            made.extend(kind.make(dir, &of_kind)?);
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_approved_is_told_without_a_variables_value() {
        for (keys, words) in [
            (
                "driver = \"process\"\ncommand = [\"/srv/site\", \"--port\"]\ndirectory = \"/srv\"\nuser = \"site\"\nenvironment = { TOKEN = \"hunter2\", A = \"1\" }",
                "command [\"/srv/site\", \"--port\"], in /srv, as site, with the variables A, TOKEN",
            ),
            (
                "driver = \"systemd\"\nunit = \"site.service\"\nunit_file = \"/etc/oxpecker/site.service\"",
                "unit site.service, from /etc/oxpecker/site.service",
            ),
            (
                "driver = \"docker\"\ncontainer = \"site\"\ndefinition = { image = \"site:1\", environment = { TOKEN = \"hunter2\" }, ports = [\"80:80\"] }",
                "container site, of the image site:1, with the variables TOKEN, ports 80:80",
            ),
        ] {
            let driven: Driven = toml::from_str(keys).unwrap();
            assert_eq!(driven.in_words(), words);
        }
    }
}
