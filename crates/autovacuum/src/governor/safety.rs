//! What lets go when the guard can't: the release worker and the dead man's switch, and when each is armed.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
};
use tokio_postgres::Client;

use crate::{
    release_worker::Orders,
    switch::{Lock, Switch, take_lock},
    undo::{Home, UndoPlan},
};

/// The longest wait for the release worker to take an order.
const ORDER_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest wait for a new switch while something is held.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How the release worker is started: a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseCommand {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Its arguments, such as `worker release`.
    pub arguments: Vec<String>,
}

/// Both means and their state.
#[derive(Debug, Default)]
pub(super) struct Safety {
    command: Option<ReleaseCommand>,
    child: Option<(Child, ChildStdin)>,
    switch: Option<Switch>,
    armed: Option<UndoPlan>,
    /// Why the release worker is not there.
    child_problem: Option<String>,
    /// Why the switch is not there.
    switch_problem: Option<String>,
    /// What the switch can't do though it is there.
    switch_unfit: Option<String>,
}

impl Safety {
    pub(super) fn new(command: Option<ReleaseCommand>) -> Self {
        Self { command, ..Self::default() }
    }

    /// Gets both means ready while the host is well: forking and connecting take long on a starved one. The guard's session holds the
    /// lock by now.
    pub(super) async fn prepare(&mut self, connection: &str, name: &str, home: &Home) {
        self.spawn();
        if self.switch.as_ref().is_none_or(Switch::has_ended) {
            match Switch::connect(connection, name).await {
                Ok(switch) => (self.switch, self.switch_problem) = (Some(switch), None),
                Err(error) => {
                    self.switch = None;
                    self.switch_problem = Some(error);
                    return;
                }
            }
        }
        if self.armed.is_none()
            && let Some(switch) = &self.switch
        {
            self.switch_unfit = match home {
                Home::IncludeFile { path } => switch.rehearse(path).await.err(),
                Home::AlterSystem { .. } => Some(
                    "it can't undo ALTER SYSTEM, which no function may run; it only reloads, which undoes what is not in \
                     postgresql.auto.conf any more (all but two seconds after each change)"
                        .to_owned(),
                ),
            };
        }
    }

    fn spawn(&mut self) {
        if let Some((child, _)) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            return;
        }
        self.child = None;
        let Some(command) = &self.command else {
            self.child_problem = Some("no release worker is configured".to_owned());
            return;
        };
        let spawned = Command::new(&command.program)
            .args(&command.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // It must outlive us: that is what it is for.
            .kill_on_drop(false)
            .spawn();
        match spawned {
            Ok(mut child) => match child.stdin.take() {
                Some(stdin) => (self.child, self.child_problem) = (Some((child, stdin)), None),
                None => self.child_problem = Some("the release worker has no standard input".to_owned()),
            },
            Err(error) => self.child_problem = Some(format!("could not start {}: {error}", command.program.display())),
        }
    }

    /// Arms both means before the first act. One is enough; with none there is no throttle.
    pub(super) async fn arm(&mut self, plan: &UndoPlan, connection: &str) -> Result<(), String> {
        let worker = self.order(Some(plan), connection).await;
        let switch = self.arm_switch(plan).await;
        if let Err(error) = &switch {
            tracing::warn!(%error, "the dead man's switch is not armed");
        }
        if let (Err(worker), Err(switch)) = (&worker, &switch) {
            return Err(format!(
                "nothing would let go if the guard were killed: the release worker: {worker}; the dead man's switch: {switch}"
            ));
        }
        self.armed = Some(plan.clone());
        Ok(())
    }

    async fn arm_switch(&mut self, plan: &UndoPlan) -> Result<(), String> {
        let include = include_of(plan);
        if include.is_some()
            && let Some(unfit) = &self.switch_unfit
        {
            return Err(unfit.clone());
        }
        match &mut self.switch {
            Some(switch) => switch.arm(include, plan.open_first).await,
            None => Err(self.switch_problem.clone().unwrap_or_else(|| "no second session".to_owned())),
        }
    }

    /// Tells the release worker of a change (more workers held).
    pub(super) async fn update(&mut self, plan: &UndoPlan, connection: &str) {
        if let Err(error) = self.order(Some(plan), connection).await {
            tracing::warn!(%error, "the release worker did not take an order");
        }
        self.armed = Some(plan.clone());
    }

    /// A release worker that was killed while armed is started again.
    pub(super) async fn mend_worker(&mut self, connection: &str) {
        let dead = self.child.as_mut().is_some_and(|(child, _)| !matches!(child.try_wait(), Ok(None)));
        if dead && let Some(plan) = self.armed.clone() {
            self.update(&plan, connection).await;
        }
    }

    /// Whether something is held or resting while the switch, which could let go of it, does not watch.
    pub(super) fn switch_is_missing(&self) -> bool {
        let fit = self.armed.as_ref().is_some_and(|plan| include_of(plan).is_none() || self.switch_unfit.is_none());
        fit && !self.switch.as_ref().is_some_and(Switch::is_armed)
    }

    /// Replaces a switch that ended while armed: an administrator ended its session, or it let go. The lock is made sure of first, or
    /// the new one would let go at once.
    pub(super) async fn mend_switch(&mut self, client: &Client, connection: &str, name: &str) {
        let Some(plan) = self.armed.clone() else { return };
        let mended = async {
            if self.switch.as_ref().is_none_or(Switch::has_ended) {
                // Closed before the lock is asked for: it may hold it.
                self.switch = None;
                match take_lock(client, name).await? {
                    Lock::Ours => {}
                    Lock::Switch => return Err("an earlier one is still letting go".to_owned()),
                    Lock::AnotherGuard => return Err("another guard holds the advisory lock".to_owned()),
                }
                let switch = tokio::time::timeout(CONNECT_TIMEOUT, Switch::connect(connection, name)).await;
                self.switch = Some(switch.map_err(|_| "PostgreSQL took no second session in time".to_owned())??);
            }
            self.arm_switch(&plan).await
        };
        self.switch_problem = mended.await.err().map(|why| format!("it ended and is not replaced yet: {why}"));
        match &self.switch_problem {
            Some(problem) => tracing::warn!(%problem, "the dead man's switch is missing"),
            None => tracing::info!("the dead man's switch is armed again"),
        }
    }

    async fn order(&mut self, plan: Option<&UndoPlan>, connection: &str) -> Result<(), String> {
        self.spawn();
        let Some((_, stdin)) = &mut self.child else {
            return Err(self.child_problem.clone().unwrap_or_else(|| "not running".to_owned()));
        };
        let orders = Orders { plan: plan.cloned(), connection: connection.to_owned() };
        let mut line = serde_json::to_vec(&orders).map_err(|error| error.to_string())?;
        line.push(b'\n');
        match tokio::time::timeout(ORDER_TIMEOUT, async { stdin.write_all(&line).await }).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.child = None;
                Err(format!("it takes no orders: {error}"))
            }
            Err(_) => Err("it takes no orders in time".to_owned()),
        }
    }

    /// Everything is undone: nothing must happen when the guard ends.
    pub(super) async fn disarm(&mut self, client: Option<&Arc<Client>>, connection: &str) {
        self.armed = None;
        if self.child.is_some()
            && let Err(error) = self.order(None, connection).await
        {
            tracing::debug!(%error, "the release worker was not disarmed; what it would undo is undone");
        }
        if self.switch.as_ref().is_some_and(Switch::has_ended) {
            // Its session may hold the lock; the next look at the levers opens another.
            self.switch = None;
            self.switch_problem = Some("its session ended".to_owned());
        }
        if let Some(switch) = &mut self.switch
            && let Some(client) = client
            && let Err(error) = switch.disarm(client).await
        {
            tracing::debug!(%error, "the dead man's switch was not disarmed; what it would undo is undone");
            self.switch = None;
        }
    }

    /// The guard's session is gone: its lock is, too, and the switch has let go or will.
    pub(super) fn session_lost(&mut self) {
        self.switch = None;
    }

    /// Ends the release worker. Where an undo is owed its orders still say so: it carries it out and outlives us if it must.
    pub(super) async fn close(&mut self) {
        self.switch = None;
        if let Some((mut child, stdin)) = self.child.take() {
            drop(stdin);
            if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
                tracing::warn!(
                    armed = self.armed.is_some(),
                    "the release worker did not end in time; it is left running"
                );
            }
        }
    }

    /// What is missing, for people.
    pub(super) fn limitations(&self) -> Vec<String> {
        let mut list = Vec::new();
        if let Some(problem) = &self.child_problem {
            list.push(format!("release worker: {problem}"));
        }
        let missing = self.switch_is_missing().then(|| "it does not watch at present".to_owned());
        if let Some(problem) = self.switch_problem.clone().or_else(|| self.switch_unfit.clone()).or(missing) {
            list.push(format!("dead man's switch in the server: {problem}"));
        }
        list
    }
}

fn include_of(plan: &UndoPlan) -> Option<PathBuf> {
    match &plan.home {
        Home::IncludeFile { path } => Some(path.clone()),
        Home::AlterSystem { .. } => None,
    }
}
