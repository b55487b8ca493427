//! Services as containers of a Docker engine, through the HTTP API on its unix socket. Podman's service, which speaks the same API, will do.
//!
//! A service is one container by its name, or all containers of one service of a Compose project by the labels that Compose gives them; of several, all have to
//! be well, and all are acted on.
//!
//! ```text
//! version     which API both sides know        (pure)
//! answer      what the engine answers           (pure)
//! seen        what of it is said of a service   (pure)
//! definition  what one is made of again         (pure)
//! error       why the engine did not do it
//! client      one request
//! memory      whom we stopped ourselves
//! hand        starts, restarts, stops, provisions
//! watch       tells when something changed, by the engine's events
//! ```
//!
//! # What the engine does by itself
//! With the restart policies `always` and `unless-stopped` the engine starts what ends, waiting 100 ms at first and twice as long each time, up to a minute: that
//! wait is [`Process::BackingOff`]. It does not say when the wait ends. A start is nothing to the engine while it waits, so that starting one here ends the wait.
//!
//! # Who stopped it
//! The engine knows whether a person stopped a container and does not say so. It can be told all the same with those two policies: what ended by itself would have been
//! started again, so that one which stays down was stopped with the engine's own means (`docker stop`, `docker kill`, Compose's `stop`) and must stay so. Those that we
//! stopped ourselves are remembered (see [`Docker::remembering`]) and are no person's. With the policies `no` and `on-failure` nothing tells a stop from an end:
//! the service counts as down. Podman starts nothing by itself after a boot, so with it this is not concluded. A paused container is one that somebody stopped.
//!
//! # Limits
//! A container that was removed is made again from its [`Definition`]. Compose files are not read for that: builds, variables, profiles and `extends` are Compose's own,
//! and what we made of them would be another container than the one that was removed. No image is pulled. No volume and no directory is made: a database that begins
//! empty is worse than one that is down.

mod answer;
mod client;
mod definition;
mod error;
mod hand;
mod memory;
mod seen;
mod version;
mod watch;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use model::ServiceName;
use tokio::time::{Instant, timeout_at};

use self::{
    answer::{Container, Inspected, Listed},
    client::Client,
    memory::Memory,
    watch::Watching,
};
pub use self::{
    definition::Definition,
    error::EngineError,
    version::{ApiVersion, VERSION_MAX, VERSION_MIN},
};
use super::{Act, ActError, Doing, Driver, Seen};

#[cfg(doc)]
use crate::health::Process;

/// Where an engine listens, unless somebody says otherwise.
pub const SOCKET: &str = "/var/run/docker.sock";
/// How long one look may take.
const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// Containers that are looked at at the same time.
const INSPECTED_AT_ONCE: usize = 8;

/// Which containers a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this name.
    Container(String),
    /// Those of a service of a Compose project.
    Compose {
        /// The project's name.
        project: String,
        /// The service's name in it.
        service: String,
    },
}

/// A service and its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: ServiceName,
    /// What it is to the engine.
    pub which: Which,
    /// What it is made of again once it was removed.
    pub definition: Option<Definition>,
    /// How long it gets to stop until it is killed, at most [`STOP_WITHIN_MAX`](super::process::STOP_WITHIN_MAX); what the container itself says where it is `None`.
    pub stop_within: Option<Duration>,
}

impl Declared {
    /// A container by its name.
    pub fn container(name: impl Into<ServiceName>, container: impl Into<String>) -> Self {
        Self { name: name.into(), which: Which::Container(container.into()), definition: None, stop_within: None }
    }

    /// A service of a Compose project.
    pub fn compose(name: impl Into<ServiceName>, project: impl Into<String>, service: impl Into<String>) -> Self {
        let which = Which::Compose { project: project.into(), service: service.into() };
        Self { name: name.into(), which, definition: None, stop_within: None }
    }

    /// What it is made of again.
    #[must_use]
    pub fn definition(mut self, definition: Definition) -> Self {
        self.definition = Some(definition);
        self
    }

    /// How long it gets to stop.
    #[must_use]
    pub fn stop_within(mut self, within: Duration) -> Self {
        self.stop_within = Some(within);
        self
    }

    /// What is wrong with it, in words; nothing where an engine can take it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.which {
            Which::Container(name) if !is_name(name) => problems.push(format!(
                "'{}' is no name of a container: letters, digits, '_', '.' and '-', a letter or digit first, two at least",
                error::plain(name)
            )),
            Which::Compose { project, service } if project.is_empty() || service.is_empty() => {
                problems.push("a service of a Compose project needs the names of both".to_owned());
            }
            Which::Compose { project, service } => {
                let strange = [project, service].into_iter().find(|name| !name.bytes().all(is_name_byte));
                problems.extend(strange.map(|name| {
                    format!("'{}' is no name of Compose: letters, digits, '_', '.' and '-'", error::plain(name))
                }));
            }
            Which::Container(_) => {}
        }
        problems.extend(self.definition.iter().flat_map(Definition::problems));
        problems
    }

    /// The container, in words.
    fn shown(&self) -> String {
        match &self.which {
            Which::Container(name) => format!("container {}", error::plain(name)),
            Which::Compose { project, service } => {
                format!(
                    "container of the service {} of the Compose project {}",
                    error::plain(service),
                    error::plain(project)
                )
            }
        }
    }

    fn is(&self, container: &impl Container) -> bool {
        match &self.which {
            Which::Container(name) => container.is_named(name),
            Which::Compose { project, service } => {
                container.label(answer::PROJECT) == Some(project)
                    && container.label(answer::SERVICE) == Some(service)
                    // What `compose run` leaves behind is no part of the service.
                    && !container.label(answer::ONE_OFF).is_some_and(|one_off| one_off.eq_ignore_ascii_case("true"))
            }
        }
    }
}

/// What the engine takes as a name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+` (moby, daemon/names).
fn is_name(name: &str) -> bool {
    name.len() >= 2 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(is_name_byte)
}

/// Of such a name, of a Compose project's (`[a-z0-9][a-z0-9_-]*`) or its services' (`[a-zA-Z0-9._-]+`; compose-spec, schema).
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Services of one engine. Any number of drivers may have the same.
pub struct Docker {
    client: Arc<Client>,
    declared: Arc<[Declared]>,
    memory: Option<Memory>,
    watching: tokio::sync::Mutex<Option<Watching>>,
}

impl Docker {
    /// Asks nobody anything yet.
    pub fn new(socket: &Path, declared: Vec<Declared>) -> Self {
        Self {
            client: Arc::new(Client::new(socket)),
            declared: declared.into(),
            memory: None,
            watching: tokio::sync::Mutex::default(),
        }
    }

    /// Remembers in small files of this directory whom it stopped itself: see *Who stopped it*. It is made when needed.
    #[must_use]
    pub fn remembering(mut self, dir: PathBuf) -> Self {
        self.memory = Some(Memory::new(dir));
        self
    }

    /// The engine's containers that any of these is.
    async fn find(&self, wanted: &[Declared], deadline: Instant) -> Result<Vec<Listed>, EngineError> {
        let by_label = wanted.iter().all(|one| matches!(one.which, Which::Compose { .. }));
        let late = |_| EngineError::silent(self.client.socket(), LIST_PATIENCE);
        let mut all = timeout_at(deadline, self.client.containers(by_label)).await.map_err(late)??;
        all.retain(|listed| wanted.iter().any(|one| one.is(listed)));
        Ok(all)
    }

    async fn look(&self) -> Vec<(ServiceName, Seen)> {
        let deadline = Instant::now() + LIST_PATIENCE;
        let unknown = |error: &EngineError| {
            let seen = Seen::unknown(error.told());
            self.declared.iter().map(|one| (one.name.clone(), seen.clone())).collect()
        };
        let found = match self.find(&self.declared, deadline).await {
            Ok(found) => found,
            Err(error) => return unknown(&error),
        };
        let remembers = match timeout_at(deadline, self.client.agreed()).await {
            Ok(Ok(agreed)) => !agreed.is_podman,
            Ok(Err(error)) => return unknown(&error),
            Err(_) => return unknown(&EngineError::silent(self.client.socket(), LIST_PATIENCE)),
        };
        // Together first: futures made by a closure as they are wanted are nothing that can be boxed.
        let inspected: Vec<_> = found.iter().map(|listed| self.inspect_until(&listed.id, deadline)).collect();
        let inspected: Vec<_> = stream::iter(inspected).buffer_unordered(INSPECTED_AT_ONCE).collect().await;
        let inspected: HashMap<_, _> = inspected.into_iter().collect();
        let of = |one: &Declared| {
            let stops = self.memory.as_ref().map(|memory| memory.stops(&one.name)).unwrap_or_default();
            let of_listed = |listed: &Listed| match inspected.get(listed.id.as_str()) {
                Some(Ok(Some(found))) => Some(seen::of(found, remembers, &stops)),
                // Gone since it was listed.
                Some(Ok(None)) => None,
                Some(Err(error)) => Some(Seen::unknown(error.told())),
                None => None,
            };
            seen::of_all(found.iter().filter(|listed| one.is(*listed)).filter_map(of_listed))
        };
        self.declared.iter().map(|one| (one.name.clone(), of(one))).collect()
    }

    async fn inspect_until<'a>(
        &self,
        id: &'a str,
        deadline: Instant,
    ) -> (&'a str, Result<Option<Inspected>, EngineError>) {
        let looked = timeout_at(deadline, self.client.inspect(id)).await;
        (id, looked.unwrap_or_else(|_| Err(EngineError::silent(self.client.socket(), LIST_PATIENCE))))
    }

    /// All that is known of one service's containers.
    async fn inspect_all(&self, declared: &Declared) -> Result<Vec<Inspected>, EngineError> {
        let deadline = Instant::now() + LIST_PATIENCE;
        let mut all = Vec::new();
        for listed in self.find(std::slice::from_ref(declared), deadline).await? {
            all.extend(self.client.inspect(&listed.id).await?);
        }
        Ok(all)
    }
}

impl Driver for Docker {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>> {
        Box::pin(self.look())
    }

    fn act<'a>(&'a self, service: &'a ServiceName, act: Act) -> Doing<'a, Result<(), ActError>> {
        Box::pin(async move {
            let declared = self.declared.iter().find(|one| one.name == *service).ok_or_else(|| ActError::Absent {
                act,
                service: service.as_str().escape_default().to_string().into(),
                why: "no service of that name is declared with the driver `docker`".into(),
                hint: "look at the services of the configuration".into(),
            })?;
            self.act_on(declared, act).await
        })
    }

    fn changed(&self) -> Doing<'_, ()> {
        Box::pin(async {
            let mut watching = self.watching.lock().await;
            // It ends with the runtime that it was started in.
            let watching = match watching.take().filter(Watching::goes_on) {
                Some(same) => watching.insert(same),
                None => watching.insert(Watching::start(Arc::clone(&self.client), Arc::clone(&self.declared))),
            };
            watching.next().await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_engine_takes() {
        for name in ["site", "a1", "p-site-1", "9_.-x"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a", "-site", "..", "../x", "a/b", "a b", "a\u{1b}[31m", "caf\u{e9}", "%2e%2e"] {
            assert!(!is_name(name), "{name}");
            let problems = Declared::container("site", name).problems();
            assert!(problems.len() == 1 && !problems[0].contains('\u{1b}'), "{problems:?}");
        }
        assert_eq!(Declared::compose("site", "p", "").problems().len(), 1);
    }

    #[test]
    fn containers_of_a_service() {
        let listed = |json: serde_json::Value| -> Listed { serde_json::from_value(json).unwrap() };
        let of_compose = |one_off: &str| {
            listed(serde_json::json!({
                "Id": "aa", "Names": ["/p-site-1"],
                "Labels": {
                    "com.docker.compose.project": "p", "com.docker.compose.service": "site",
                    "com.docker.compose.oneoff": one_off
                }
            }))
        };
        assert!(Declared::compose("s", "p", "site").is(&of_compose("False")));
        assert!(!Declared::compose("s", "p", "site").is(&of_compose("True")));
        assert!(!Declared::compose("s", "q", "site").is(&of_compose("False")));
        assert!(Declared::container("s", "p-site-1").is(&of_compose("False")));
        assert!(!Declared::container("s", "p-site").is(&of_compose("False")), "the whole name");
        let linked = listed(serde_json::json!({"Id": "aa", "Names": ["/web/db", "/db"], "Labels": null}));
        assert!(Declared::container("s", "db").is(&linked));
        assert!(!Declared::container("s", "web/db").is(&linked), "a link's name is no container's");
    }
}
