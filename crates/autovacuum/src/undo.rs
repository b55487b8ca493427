//! How a throttle is undone: one description, one routine, used by the governor when it lets go, by the release worker when the guard
//! was killed, by the next start and by `oxpecker release`. It may run twice, or twice at once: every step is idempotent.

use std::{path::PathBuf, time::Duration};

use model::{ProcessId, event::CostSetting};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{
    alter_system::{self, Former},
    host_process::{self, Role},
    include_file,
    include_writer::IncludeWriter,
};

/// How long the launcher gets to rebalance the workers upwards before the opening setting goes (13 to 15, resting delay 0).
const OPENING: Duration = Duration::from_millis(700);

/// The longest wait for one statement.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a temporary setting lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "home", rename_all = "snake_case")]
pub enum Home {
    /// The file that postgresql.conf includes.
    IncludeFile {
        /// Where it is.
        path: PathBuf,
    },
    /// postgresql.auto.conf.
    AlterSystem {
        /// What stood there before.
        former: Former,
    },
}

/// All that is needed to undo a throttle without the guard that made it. No secret is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoPlan {
    /// The format of this record.
    pub format: u32,
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The boot of the host that the processes belong to.
    pub boot_id: String,
    /// Where the setting lives.
    pub home: Home,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Uid and gid of the server, which own the include file.
    pub owner: Option<(u32, u32)>,
    /// The postmaster, where it may be signalled.
    pub postmaster: Option<ProcessId>,
    /// The data directory, where it is known: by it the postmaster is found after a restart.
    #[serde(default)]
    pub data_directory: Option<PathBuf>,
    /// The launcher, where it may be signalled.
    pub launcher: Option<ProcessId>,
    /// The held workers.
    pub workers: Vec<ProcessId>,
    /// Set where the resting delay is 0 on 13 to 15: workers must be opened by this setting first, for with a delay of 0 the
    /// launcher's rebalancing returns at once and leaves them stuck at their last limit.
    pub open_first: Option<CostSetting>,
}

/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// What undoing did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Undone {
    /// The setting is gone from its home.
    pub setting_removed: bool,
    /// Every process of the server was told to read its configuration.
    pub reloaded: bool,
    /// What went wrong, each with its reason.
    pub errors: Vec<String>,
}

impl Undone {
    /// Whether nothing is left to do.
    pub fn complete(&self) -> bool {
        self.setting_removed && self.reloaded
    }
}

/// Undoes the throttle. `sql` is used where a step needs the server. For a process that writes no throttles itself.
pub async fn undo(plan: &UndoPlan, sql: Option<&Client>) -> Undone {
    undo_by(plan, sql, &IncludeWriter::default()).await
}

/// As [`undo`], by the hand that may still be at work on the throttle itself.
pub(crate) async fn undo_by(plan: &UndoPlan, sql: Option<&Client>, writer: &IncludeWriter) -> Undone {
    let mut done = Undone::default();
    let same_boot = plan.boot_id == host_process::boot_id();
    if let Some(open) = plan.open_first {
        open_workers(plan, open, same_boot, sql, writer, &mut done).await;
    }
    match &plan.home {
        Home::IncludeFile { path } => match writer.remove(path).await {
            Ok(()) => done.setting_removed = true,
            Err(error) => done.errors.push(error),
        },
        Home::AlterSystem { former } => match sql {
            Some(client) => match bounded(alter_system::restore(client, former)).await {
                Ok(()) => done.setting_removed = true,
                Err(error) => done.errors.push(error),
            },
            None => done.errors.push("ALTER SYSTEM can only be undone through a connection".to_owned()),
        },
    }
    if same_boot {
        // The workers first: the reload below reaches them too, but only once the postmaster is scheduled.
        if plan.major >= 16 {
            for worker in &plan.workers {
                // One that is gone needs nothing.
                let _ = host_process::hang_up(*worker, Role::Worker);
            }
        } else if let Some(launcher) = plan.launcher {
            let _ = host_process::hang_up(launcher, Role::Launcher);
        }
    }
    reload(plan, same_boot, sql, &mut done).await;
    done
}

async fn open_workers(
    plan: &UndoPlan,
    open: CostSetting,
    same_boot: bool,
    sql: Option<&Client>,
    writer: &IncludeWriter,
    done: &mut Undone,
) {
    let written = match (&plan.home, sql) {
        (Home::IncludeFile { path }, _) => {
            writer.put(path, include_file::content(open, "opening held workers"), plan.owner).await
        }
        (Home::AlterSystem { .. }, Some(client)) => bounded(alter_system::set(client, open)).await,
        (Home::AlterSystem { .. }, None) => Err("no connection for ALTER SYSTEM".to_owned()),
    };
    if let Err(error) = written {
        done.errors.push(error);
        return;
    }
    let told = same_boot && plan.launcher.is_some_and(|id| host_process::hang_up(id, Role::Launcher).is_ok());
    if !told {
        reload(plan, same_boot, sql, &mut Undone::default()).await;
    }
    tokio::time::sleep(OPENING).await;
}

async fn reload(plan: &UndoPlan, same_boot: bool, sql: Option<&Client>, done: &mut Undone) {
    if same_boot && let Some(postmaster) = plan.postmaster {
        match host_process::hang_up(postmaster, Role::Postmaster) {
            Ok(()) => {
                done.reloaded = true;
                return;
            }
            // Gone; but its successor may have read the setting before it was removed.
            Err(host_process::SignalError::NotIt(_)) if sql.is_none() => match reload_successor(plan).await {
                Ok(()) => {
                    done.reloaded = true;
                    return;
                }
                Err(error) => done.errors.push(error),
            },
            Err(error) => done.errors.push(error.to_string()),
        }
    }
    match sql {
        Some(client) => match bounded(client.simple_query("SELECT pg_reload_conf()")).await {
            Ok(_) => done.reloaded = true,
            Err(error) => done.errors.push(error),
        },
        None if !same_boot => done.reloaded = true,
        None => done.errors.push("PostgreSQL could not be told to reload: no signal and no connection".to_owned()),
    }
}

/// Has the postmaster that runs on the data directory now read its configuration. That none does is as good: the next one reads it
/// without the setting.
async fn reload_successor(plan: &UndoPlan) -> Result<(), String> {
    let directory = plan
        .data_directory
        .clone()
        .ok_or("the postmaster is another one by now, and its data directory is not known")?;
    let find = move || {
        host_process::postmaster_of(&directory)
            .map_err(|error| format!("could not find the postmaster of {}: {error}", directory.display()))
    };
    off_thread(find).await?.map_or(Ok(()), |postmaster| {
        host_process::hang_up(postmaster, Role::Postmaster).map_err(|error| error.to_string())
    })
}

/// File work off the runtime's thread, and no longer than [`STATEMENT_TIMEOUT`]: a disk may be as starved as the rest.
pub(crate) async fn off_thread<T: Send + 'static, E: ToString + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the file system did not answer within {} s", STATEMENT_TIMEOUT.as_secs())),
    }
}

/// A statement's answer within [`STATEMENT_TIMEOUT`], its error in words.
pub(crate) async fn bounded<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("PostgreSQL did not answer within {} s", STATEMENT_TIMEOUT.as_secs())),
    }
}

/// The server's own words, which tokio-postgres keeps below "db error".
pub(crate) fn in_words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}
