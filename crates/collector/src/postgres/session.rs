//! The connection, what it is connected to, and whether we can see the server's processes from here.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use model::{DatabaseName, PgVersion, Pid, ProcessId, event::DownReason, version::Support};
use pg_connect::Sql;
use tokio::sync::oneshot;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::{STATEMENT_TIMEOUT, failure::Failure, row::Columns, sql, state_file::StateFile};
use crate::{clock, host::ProcessTable};

/// Two processes are one when their ages differ by no more: ages are known to 10 ms, but travel over a busy host.
const SAME_AGE: Duration = Duration::from_secs(2);

/// What we are connected to.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerInfo {
    /// Its version.
    pub version: PgVersion,
    /// When it started, by its own clock.
    pub started: Timestamp,
    /// Whether it is a standby or in recovery.
    pub in_recovery: bool,
    /// The database that we are connected to.
    pub database: DatabaseName,
    /// The role that we are connected as.
    pub role: String,
    /// Whether that role is a superuser.
    pub superuser: bool,
    /// Whether it may see other roles' sessions (`pg_read_all_stats`, part of `pg_monitor`).
    pub sees_sessions: bool,
    /// `max_connections`.
    pub max_connections: u32,
    /// `data_directory`; `None` where neither the role (`pg_read_all_settings`) nor `/proc` shows it.
    pub data_directory: Option<PathBuf>,
    /// `config_file`; `None` where the role may not see it.
    pub config_file: Option<PathBuf>,
    /// Our backend, and the postmaster, as this host's `/proc` knows them; `None` where the server runs elsewhere or in another
    /// PID namespace.
    pub backend: Option<ProcessId>,
    /// See `backend`.
    pub postmaster: Option<ProcessId>,
    /// What is missing here and what that costs.
    pub limitations: Vec<String>,
}

/// A live connection and what it is connected to.
#[derive(Debug)]
pub struct Session {
    /// For whoever else needs the server: requests of several tasks are answered in order.
    pub client: Arc<Client>,
    /// As of the connection's start.
    pub info: ServerInfo,
}

/// The observer's own view of a connection: with its prepared statements and the end of its driver.
pub struct Link {
    pub session: Arc<Session>,
    pub backend_pid: Pid,
    pub activity: Statement,
    pub lock_waits: Statement,
    pub head: Statement,
    pub wal: Statement,
    pub worst_tables: Statement,
    pub ages: Statement,
    /// Resolves when the connection is gone, to the reason.
    pub ended: oneshot::Receiver<Failure>,
    /// Statements that opening it took.
    pub statements: u64,
}

impl Link {
    /// Connects, makes the session harmless and finds out where it is. Must run within a tokio runtime; the caller bounds the time.
    pub async fn open(sql: &Sql, table: &mut ProcessTable, state: &mut StateFile) -> Result<Self, Failure> {
        let (client, connection) = sql.connect().await.map_err(|error| Failure::of(&error))?;
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let failure = match connection.await {
                Ok(()) => Failure::new(DownReason::ConnectionLost, "the connection was closed"),
                Err(error) => match Failure::of(&error) {
                    // Refusals belong to connection attempts; a connection that was up is lost.
                    Failure { reason: DownReason::Refused, detail } => Failure::new(DownReason::ConnectionLost, detail),
                    failure => failure,
                },
            };
            let _ = end.send(failure);
        });
        let version = version(&client).await?;
        if version.support() == Support::None {
            let detail =
                format!("PostgreSQL {version} is too old: 10 and later can be observed, 13 and later governed");
            return Err(Failure::new(DownReason::UnsupportedVersion, detail));
        }
        let failed = |error: tokio_postgres::Error| Failure::of(&error);
        client.batch_execute(&sql::session_settings(version, STATEMENT_TIMEOUT)).await.map_err(failed)?;
        let row = client.query_one(sql::SERVER_INFO, &[]).await.map_err(failed)?;
        let (mut info, backend_pid) = server_info(version, Columns(&row), table).map_err(failed)?;
        // Without its processes a path is one of another host.
        let data_directory = info.postmaster.and(info.data_directory.clone());
        info.limitations.extend(state.follow(data_directory).await);
        Ok(Self {
            activity: client.prepare(&sql::activity(version)).await.map_err(failed)?,
            lock_waits: client.prepare(&sql::lock_waits(version)).await.map_err(failed)?,
            head: client.prepare(&sql::session(version)).await.map_err(failed)?,
            wal: client.prepare(&sql::wal(version)).await.map_err(failed)?,
            worst_tables: client.prepare(&sql::worst_tables(version)).await.map_err(failed)?,
            ages: client.prepare(&sql::ages()).await.map_err(failed)?,
            session: Arc::new(Session { client: Arc::new(client), info }),
            backend_pid,
            ended,
            statements: 3,
        })
    }

    pub fn client(&self) -> &Client {
        &self.session.client
    }

    pub fn version(&self) -> PgVersion {
        self.session.info.version
    }
}

/// By the simple protocol, which every version speaks in the same way.
async fn version(client: &Client) -> Result<PgVersion, Failure> {
    let messages = client.simple_query("SHOW server_version_num").await.map_err(|error| Failure::of(&error))?;
    messages
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok().map(PgVersion),
            _ => None,
        })
        .ok_or_else(|| Failure::new(DownReason::UnsupportedVersion, "the server does not tell its version"))
}

fn server_info(
    version: PgVersion,
    row: Columns<'_>,
    table: &mut ProcessTable,
) -> Result<(ServerInfo, Pid), tokio_postgres::Error> {
    let backend_pid = Pid(row.get("backend_pid")?);
    let backend_age = Duration::from_micros(row.count("backend_age_us")?);
    let located = locate(table, backend_pid, backend_age);
    let path = |name: &str| row.get::<Option<String>>(name).map(|path| path.map(PathBuf::from));
    let data_directory =
        path("data_directory")?.or_else(|| located.and_then(|(_, postmaster)| table.working_directory(postmaster.pid)));
    let mut info = ServerInfo {
        version,
        started: row.time("started_us")?.unwrap_or(Timestamp::UNIX_EPOCH),
        in_recovery: row.get("in_recovery")?,
        database: row.get::<String>("database")?.into(),
        role: row.get("role")?,
        superuser: row.get("superuser")?,
        sees_sessions: row.get("sees_sessions")?,
        max_connections: row.int("max_connections")?,
        data_directory,
        config_file: path("config_file")?,
        backend: located.map(|(backend, _)| backend),
        postmaster: located.map(|(_, postmaster)| postmaster),
        limitations: Vec::new(),
    };
    info.limitations = limitations(&info);
    Ok((info, backend_pid))
}

fn limitations(info: &ServerInfo) -> Vec<String> {
    let mut limitations = Vec::new();
    match info.version.support() {
        Support::ObserveOnly => limitations.push(format!(
            "PostgreSQL {} is observed only: the governor's levers are there from 13 on; alerts and incidents work",
            info.version
        )),
        Support::Untested => limitations.push(format!(
            "PostgreSQL {} is newer than what this program was tested with ({}): treated as that",
            info.version,
            PgVersion::NEWEST_TESTED
        )),
        Support::Full | Support::None => {}
    }
    if !info.sees_sessions {
        limitations.push(format!(
            "role {} does not see other roles' sessions: no transactions, lock waits or vacuums of others; GRANT pg_monitor TO {0}",
            info.role
        ));
    }
    if info.postmaster.is_none() {
        limitations.push(
            "the server's processes can't be seen from here (another host or PID namespace): no CPU per vacuum"
                .to_owned(),
        );
    }
    limitations
}

/// Our backend and its parent, the postmaster. A pid alone proves nothing, for the server may run on another host or in a
/// container: the process must be as old as the server says that our backend is. Ages, not times: the clocks may differ.
fn locate(table: &mut ProcessTable, backend: Pid, age: Duration) -> Option<(ProcessId, ProcessId)> {
    let snapshot = table.snapshot(backend)?;
    let age_here = clock::since_boot().saturating_sub(snapshot.started_after_boot());
    if age_here.abs_diff(age) > SAME_AGE {
        return None;
    }
    let postmaster = table.snapshot(snapshot.parent)?;
    (postmaster.id.start_ticks <= snapshot.id.start_ticks).then_some((snapshot.id, postmaster.id))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_pid_of_another_host_is_not_taken_for_ours() {
        let mut table = ProcessTable::new(Path::new("/proc"));
        let me = Pid(i32::try_from(std::process::id()).unwrap());
        let age = clock::since_boot().saturating_sub(table.snapshot(me).unwrap().started_after_boot());
        let (backend, parent) = locate(&mut table, me, age).unwrap();
        assert_eq!(backend.pid, me);
        assert!(parent.start_ticks <= backend.start_ticks);
        assert_eq!(locate(&mut table, me, age + Duration::from_secs(3)), None);
        assert_eq!(locate(&mut table, Pid(i32::MAX), age), None);
    }
}
