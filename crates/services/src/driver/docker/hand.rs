//! Acts: each looks first. The engine does one thing at a time to a container, and what was done already is no error to it: two who act at once do it once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{
    Declared, Definition, Docker, LIST_PATIENCE,
    answer::Inspected,
    definition::container_name,
    error::{EngineError, plain},
    memory::Stop,
    seen,
};
use crate::driver::{Act, ActError, process::STOP_WITHIN_MAX};

/// How long the engine may take to start a container or to end one that was killed: it mounts, and sets up networks.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to make one: some of its storages copy the whole image.
const CREATE_PATIENCE: Duration = Duration::from_secs(180);
/// What the engine gives a container to stop that says nothing of it, in seconds.
const STOP_SECONDS: i64 = 10;

/// One act on one service, for its errors.
struct Doing<'a> {
    act: Act,
    declared: &'a Declared,
}

impl Doing<'_> {
    fn absent(&self, why: impl Into<String>, hint: impl Into<String>) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        ActError::Absent { act, service, why: why.into(), hint: hint.into() }
    }

    fn failed(&self, why: impl Into<String>, hint: impl Into<String>) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        ActError::Failed { act, service, why: why.into(), hint: hint.into() }
    }

    fn no_answer(&self, why: impl Into<String>, hint: impl Into<String>) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        ActError::NoAnswer { act, service, why: why.into(), hint: hint.into() }
    }

    /// What an engine's error is to whoever wanted this.
    fn of(&self, error: &EngineError) -> ActError {
        let (act, service, why, hint) = (self.act, self.declared.name.clone(), error.to_string(), error.hint());
        match error {
            EngineError::Denied { .. } | EngineError::Refused { status: 401 | 403, .. } => {
                ActError::Denied { act, service, why, hint }
            }
            EngineError::Refused { status: 404, .. } => ActError::Absent { act, service, why, hint },
            EngineError::Refused { .. }
            | EngineError::TooOld { .. }
            | EngineError::TooNew { .. }
            | EngineError::NoClient { .. } => ActError::Failed { act, service, why, hint },
            EngineError::NoSocket { .. }
            | EngineError::NotRunning { .. }
            | EngineError::NoAnswer { .. }
            | EngineError::TooLarge { .. }
            | EngineError::Unreadable { .. } => ActError::NoAnswer { act, service, why, hint },
        }
    }
}

impl Docker {
    pub(super) async fn act_on(&self, declared: &Declared, act: Act) -> Result<(), ActError> {
        if act == Act::Restore {
            return Err(ActError::no_backup(&declared.name));
        }
        let doing = Doing { act, declared };
        let looked = timeout(LIST_PATIENCE, self.inspect_all(declared)).await;
        let all = looked
            .unwrap_or_else(|_| Err(EngineError::silent(self.client.socket(), LIST_PATIENCE)))
            .map_err(|error| doing.of(&error))?;
        if act == Act::Provision {
            return self.provision(&doing, all).await;
        }
        if all.is_empty() {
            // Nothing runs: that is what a stop is for.
            return if act == Act::Stop { Ok(()) } else { Err(none(&doing)) };
        }
        let wanted = self.wanted(&doing, all).await?;
        if act != Act::Start {
            self.remember(&doing, &wanted);
        }
        all_of(join_all(wanted.iter().map(|one| self.act_on_one(&doing, one))).await)
    }

    /// Those of a service that are acted on: a person who stopped some of several meant those alone.
    async fn wanted(&self, doing: &Doing<'_>, all: Vec<Inspected>) -> Result<Vec<Inspected>, ActError> {
        let agreed = self.client.agreed().await.map_err(|error| doing.of(&error))?;
        let stops = self.memory.as_ref().map(|memory| memory.stops(&doing.declared.name)).unwrap_or_default();
        let is_stopped = |one: &Inspected| seen::of(one, !agreed.is_podman, &stops).stopped_by.is_some();
        if all.iter().all(is_stopped) {
            return Ok(all);
        }
        Ok(all.into_iter().filter(|one| !is_stopped(one)).collect())
    }

    /// Before a stop, so that it is known whoever is killed in the middle of it.
    fn remember(&self, doing: &Doing<'_>, all: &[Inspected]) {
        let Some(memory) = &self.memory else { return };
        let service = &doing.declared.name;
        let running =
            all.iter().filter(|one| matches!(one.state.status.as_str(), "running" | "restarting" | "stopping"));
        let stops = running.filter_map(|one| Some(Stop { id: one.id.clone(), started: one.started()? }));
        let known = memory.stops(service);
        // Of containers that are there: others are gone for good.
        let known = known
            .into_iter()
            .filter(|stop| all.iter().any(|one| one.id == stop.id && one.started() == Some(stop.started)));
        let mut stops: Vec<Stop> = stops.chain(known).collect();
        stops.dedup();
        if let Err(error) = memory.set(service, &stops) {
            tracing::warn!(%service, %error, "it can't be remembered that we stop it; should this be cut short, it will count as stopped by somebody");
        }
    }

    async fn act_on_one(&self, doing: &Doing<'_>, one: &Inspected) -> Result<(), ActError> {
        let (verb, is_stop) = match (doing.act, one.state.status.as_str()) {
            (_, "removing") => return Err(doing.no_answer("the engine is removing it", "look again in some seconds")),
            (Act::Stop, "dead" | "created" | "exited" | "configured" | "initialized" | "stopped") => return Ok(()),
            (_, "dead") => {
                let why = format!("the removal of this {} failed half-way", doing.declared.shown());
                return Err(doing.absent(why, "remove it (docker rm -f), then provision it again"));
            }
            (Act::Stop, _) => ("stop", true),
            (Act::Restart, _) => ("restart", true),
            (Act::Start | Act::Provision, "running" | "stopping") => return Ok(()),
            (Act::Start | Act::Provision, "paused") => ("unpause", false),
            // To the engine it runs while it waits, so that a start is nothing.
            (Act::Start | Act::Provision, "restarting") => ("restart", true),
            (Act::Start | Act::Provision | Act::Restore, _) => ("start", false),
        };
        let (query, within) = if is_stop { self.stop_time(doing.declared, one) } else { (None, Duration::ZERO) };
        let query: Vec<(&str, String)> = query.into_iter().collect();
        let told = self.client.tell(&one.id, verb, &query, within.saturating_add(ENGINE_PATIENCE)).await;
        told.map_err(|error| doing.of(&error))
    }

    /// How long it gets, as the engine is told, and how long we wait for that.
    fn stop_time(&self, declared: &Declared, one: &Inspected) -> (Option<(&'static str, String)>, Duration) {
        if let Some(within) = declared.stop_within {
            let within = within.min(STOP_WITHIN_MAX);
            return (Some(("t", within.as_millis().div_ceil(1000).to_string())), within);
        }
        match u64::try_from(one.stop_timeout().unwrap_or(STOP_SECONDS)).map(Duration::from_secs) {
            Ok(own) if own <= STOP_WITHIN_MAX => (None, own),
            // For ever, or nearly.
            _ => (Some(("t", STOP_WITHIN_MAX.as_secs().to_string())), STOP_WITHIN_MAX),
        }
    }

    /// Makes it from its definition where there is none, and starts it. Killed between the two, it is started by the next act.
    async fn provision(&self, doing: &Doing<'_>, all: Vec<Inspected>) -> Result<(), ActError> {
        let (dead, there): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.state.status == "dead");
        if !there.is_empty() {
            return all_of(join_all(there.iter().map(|one| self.act_on_one(doing, one))).await);
        }
        let Some(definition) = &doing.declared.definition else { return Err(undefined(doing)) };
        let body = definition
            .body(doing.declared)
            .map_err(|why| doing.failed(why, "correct the `definition` of the service"))?;
        self.has_volumes(doing, definition).await?;
        for one in &dead {
            // What is left of it still has its name.
            self.client.remove(&one.id, ENGINE_PATIENCE).await.map_err(|error| doing.of(&error))?;
        }
        let name = container_name(&doing.declared.which);
        match self.client.create(&name, &body, CREATE_PATIENCE).await {
            Ok(id) => self.started(doing, &id).await,
            // Another agent made it meanwhile, or there is one of this name that isn't this service's.
            Err(error @ EngineError::Refused { status: 409, .. }) => {
                let meanwhile = self.inspect_all(doing.declared).await.map_err(|error| doing.of(&error))?;
                if meanwhile.is_empty() {
                    let hint = format!("another container is called {}: rename or remove it", plain(&name));
                    return Err(doing.failed(error.to_string(), hint));
                }
                all_of(join_all(meanwhile.iter().map(|one| self.act_on_one(doing, one))).await)
            }
            Err(EngineError::Refused { status: 404, message }) => {
                let image = plain(&definition.image);
                Err(doing.absent(
                    format!("its image {image} is not there ({message})"),
                    format!("fetch or load it: docker pull {image}; oxpecker fetches none"),
                ))
            }
            Err(error @ EngineError::Refused { status: 400, .. }) => {
                Err(doing.failed(error.to_string(), "correct the `definition` of the service, or make what it names"))
            }
            Err(error) => Err(doing.of(&error)),
        }
    }

    async fn started(&self, doing: &Doing<'_>, id: &str) -> Result<(), ActError> {
        self.client.tell(id, "start", &[], ENGINE_PATIENCE).await.map_err(|error| doing.of(&error))
    }

    /// A volume that is not there would be made, and be empty.
    async fn has_volumes(&self, doing: &Doing<'_>, definition: &Definition) -> Result<(), ActError> {
        let mut wanted = definition.volumes().peekable();
        if wanted.peek().is_none() {
            return Ok(());
        }
        let there = self.client.volumes().await.map_err(|error| doing.of(&error))?;
        match wanted.find(|name| !there.iter().any(|one| one == name)) {
            None => Ok(()),
            Some(missing) => Err(doing.absent(
                format!("its volume {missing} is not there"),
                format!(
                    "bring back what it held; where it may begin empty: docker volume create {missing}. oxpecker makes no volumes"
                ),
            )),
        }
    }
}

/// The first that failed, or all were done.
fn all_of(done: Vec<Result<(), ActError>>) -> Result<(), ActError> {
    done.into_iter().collect()
}

fn none(doing: &Doing<'_>) -> ActError {
    let hint = match &doing.declared.definition {
        Some(_) => "it can be provisioned again from its definition",
        None => "correct its name, or give the service a `definition` from which it can be made again",
    };
    doing.absent(format!("there is no {}", doing.declared.shown()), hint)
}

fn undefined(doing: &Doing<'_>) -> ActError {
    let hint = match &doing.declared.which {
        super::Which::Container(_) => "give the service a `definition`, or make the container by hand".to_owned(),
        super::Which::Compose { project, service } => format!(
            "give the service a `definition`, or let Compose make it: docker compose -p {} up -d --no-deps {}",
            plain(project),
            plain(service)
        ),
    };
    doing.absent(format!("there is no {}, and no definition to make one from", doing.declared.shown()), hint)
}
