//! The lever in hand: putting a setting into its home, and telling those who are to read it.

use model::{
    ProcessId,
    event::{CostSetting, Lever},
};
use tokio_postgres::Client;

use crate::{
    alter_system,
    controller::Reach,
    host_process::{self, Role},
    include_file,
    include_writer::IncludeWriter,
    levers::Server,
    undo::{Home, bounded},
};

/// A lever, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    pub lever: Lever,
    pub reach: Reach,
    pub home: Home,
    pub server: Server,
    /// Our resting setting, where one is in place.
    pub resting: Option<CostSetting>,
    /// Who writes the include file.
    pub writer: IncludeWriter,
}

impl Hand {
    /// Writes a setting where the server will find it. Nobody reads it yet.
    pub(super) async fn put(&self, setting: CostSetting, client: Option<&Client>) -> Result<(), String> {
        match &self.home {
            Home::IncludeFile { path } => {
                self.writer.put(path, include_file::content(setting, "a throttle is held"), self.server.owner).await
            }
            Home::AlterSystem { .. } => bounded(alter_system::set(client.ok_or(NO_CONNECTION)?, setting)).await,
        }
    }

    /// Writes what applies while nobody is held.
    pub(super) async fn put_rest(&self, client: Option<&Client>) -> Result<(), String> {
        match &self.home {
            Home::IncludeFile { path } => {
                let text = self.resting.map_or_else(
                    || include_file::NEUTRAL.to_owned(),
                    |rest| include_file::content(rest, "the resting setting, by which running workers can be governed"),
                );
                self.writer.put_harmless(path, text, self.server.owner).await
            }
            Home::AlterSystem { former } => bounded(alter_system::restore(client.ok_or(NO_CONNECTION)?, former)).await,
        }
    }

    /// Tells those who are to read the file. Workers that are gone are fine; returns how many were told.
    pub(super) async fn tell(&self, workers: &[ProcessId], client: Option<&Client>) -> Result<usize, String> {
        match self.reach {
            Reach::Workers => {
                let mut told = 0;
                for worker in workers {
                    match host_process::hang_up(*worker, Role::Worker) {
                        Ok(()) => told += 1,
                        Err(host_process::SignalError::NotIt(_)) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
                Ok(told)
            }
            Reach::Launcher => {
                let launcher = self.server.launcher.ok_or("the autovacuum launcher was not found")?;
                host_process::hang_up(launcher, Role::Launcher).map_err(|error| error.to_string())?;
                Ok(workers.len())
            }
            Reach::Everyone => self.reload(client).await.map(|()| workers.len()),
        }
    }

    /// Has every process of the server read its configuration.
    pub(super) async fn reload(&self, client: Option<&Client>) -> Result<(), String> {
        if let Some(postmaster) = self.server.postmaster.filter(|_| self.server.may_signal) {
            return host_process::hang_up(postmaster, Role::Postmaster).map_err(|error| error.to_string());
        }
        bounded(client.ok_or(NO_CONNECTION)?.simple_query("SELECT pg_reload_conf()")).await.map(|_| ())
    }
}

const NO_CONNECTION: &str = "there is no connection to PostgreSQL";
