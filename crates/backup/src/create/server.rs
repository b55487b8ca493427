//! The one SQL session that a backup holds from its start to its stop: PostgreSQL ends the backup mode when the session ends.
//!
//! What differs between major versions: `pg_start_backup(.., exclusive => false)` and `pg_stop_backup(false, ..)` became
//! `pg_backup_start` and `pg_backup_stop` with 15.

use std::time::Duration;

use model::{Lsn, PgVersion};
use pg_connect::{Sql, explained};
use pg_format::Major;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Row};

use super::CreateError;
use crate::proof::{Census, take_census};

/// How long a statement that should be quick may take. Start and stop have no limit: a checkpoint takes its time.
const QUICK: &str = "60s";
/// How long counting all objects of all databases may take.
const CENSUS_PATIENCE: Duration = Duration::from_secs(120);

/// A session, and the runtime that it lives on.
pub(crate) struct Server {
    client: Client,
    runtime: Runtime,
}

/// What does not change while the session lasts.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) version: PgVersion,
    pub(crate) major: Major,
    pub(crate) standby: bool,
    pub(crate) system_id: u64,
    /// Seconds since 1970.
    pub(crate) started: f64,
    pub(crate) wal_level: String,
    pub(crate) banner: String,
    pub(crate) data_directory: Option<String>,
    pub(crate) config_file: Option<String>,
    pub(crate) hba_file: Option<String>,
    pub(crate) ident_file: Option<String>,
    pub(crate) stats_temp_directory: Option<String>,
    pub(crate) bin_dir: Option<String>,
    pub(crate) libc_collation: Option<String>,
    pub(crate) icu_collation: Option<String>,
}

/// A database as the catalogue has it.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseRow {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) collate: String,
    pub(crate) collation_version: Option<String>,
}

/// Where the server is in WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// No page on disk is newer than this.
    pub(crate) insert: Lsn,
    /// WAL up to here is in files.
    pub(crate) flushed: Lsn,
    pub(crate) standby: bool,
}

/// What the end of a backup says.
#[derive(Clone, Debug)]
pub(crate) struct Stopped {
    pub(crate) lsn: Lsn,
    pub(crate) label: String,
    pub(crate) map: String,
}

impl Server {
    pub(crate) fn connect(url: &str) -> Result<Self, CreateError> {
        let failed = |error: &dyn std::fmt::Display| CreateError::Connect(error.to_string());
        let mut sql = Sql::parse(url).map_err(|error| failed(&error))?;
        sql.config.application_name("oxpecker backup");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
        let client = runtime.block_on(async {
            let (client, connection) = sql.connect().await.map_err(|error| CreateError::Connect(explained(&error)))?;
            // Ends when the client is dropped, or the server goes: then every statement fails.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("the backup's session ended: {error}");
                }
            });
            Ok::<_, CreateError>(client)
        })?;
        let server = Self { client, runtime };
        // The session idles while files are copied: nothing may end it for that. The setting for idle sessions came with 14.
        server.run(
            "prepare the session",
            &format!("SET statement_timeout = '{QUICK}'; SET lock_timeout = '{QUICK}'; SET search_path = pg_catalog"),
        )?;
        server.run(
            "prepare the session",
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')",
        )?;
        Ok(server)
    }

    pub(crate) fn facts(&self) -> Result<Facts, CreateError> {
        let row = self.one(
            "ask the server what it is",
            "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), \
             (SELECT system_identifier FROM pg_control_system()), extract(epoch FROM pg_postmaster_start_time())::float8, \
             current_setting('wal_level'), version()",
        )?;
        let version = PgVersion(u32::try_from(row.get::<_, i32>(0)).unwrap_or(0));
        // What follows may be forbidden to the role, or not be there: a backup can be made without.
        let setting = |name: &str| self.optional(&format!("SELECT current_setting('{name}', true)"));
        let bin_dir = self.optional("SELECT setting FROM pg_config WHERE name = 'BINDIR'");
        let collation = |provider: char| {
            self.optional(&format!(
                "SELECT pg_collation_actual_version(oid) FROM pg_collation WHERE collprovider = '{provider}' \
                 AND pg_collation_actual_version(oid) IS NOT NULL ORDER BY oid LIMIT 1"
            ))
        };
        Ok(Facts {
            version,
            major: Major::from_number(version.major())?,
            standby: row.get(1),
            // The catalogue shows it as a signed number.
            system_id: row.get::<_, i64>(2).cast_unsigned(),
            started: row.get(3),
            wal_level: row.get(4),
            banner: row.get(5),
            data_directory: setting("data_directory"),
            config_file: setting("config_file"),
            hba_file: setting("hba_file"),
            ident_file: setting("ident_file"),
            stats_temp_directory: setting("stats_temp_directory"),
            bin_dir,
            libc_collation: collation('c'),
            icu_collation: collation('i'),
        })
    }

    /// What is in the cluster that `url` leads to; `None` where this role may not count it. A backup is made without as well.
    ///
    /// It has a runtime of its own, which is gone when this returns, and with it the last of its sessions. On the backup's they would stay
    /// until that does something again, which may be hours later: so long no CREATE DATABASE finds its template unused.
    pub(crate) fn census(url: &str) -> Option<Census> {
        let mut sql = Sql::parse(url).ok()?;
        sql.config
            .application_name("oxpecker backup")
            .options(format!("-c statement_timeout={QUICK} -c lock_timeout={QUICK}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let counted = async { tokio::time::timeout(CENSUS_PATIENCE, take_census(&sql)).await };
        match runtime.block_on(counted) {
            Ok(Ok(census)) => Some(census),
            Ok(Err(error)) => {
                tracing::warn!("the cluster's objects could not be counted: {}", explained(&error));
                None
            }
            Err(_) => {
                tracing::warn!("the cluster's objects were not counted within {} s", CENSUS_PATIENCE.as_secs());
                None
            }
        }
    }

    pub(crate) fn databases(&self, version: PgVersion) -> Result<Vec<DatabaseRow>, CreateError> {
        let collation_version = if version.major() >= 15 { "datcollversion" } else { "NULL::text" };
        let text =
            format!("SELECT oid, datname::text, datcollate::text, {collation_version} FROM pg_database ORDER BY oid");
        let rows = self.rows("list the databases", &text)?;
        let database = |row: &Row| DatabaseRow {
            oid: row.get(0),
            name: row.get(1),
            collate: row.get(2),
            collation_version: row.get(3),
        };
        Ok(rows.iter().map(database).collect())
    }

    /// Keeps WAL in `pg_wal` from now on, as long as the session lasts.
    ///
    /// Returns why not, where the role may not or no slot is free.
    pub(crate) fn hold_wal(&self) -> Result<(), String> {
        // In a container every process may be number 1.
        let moment = jiff::Timestamp::now().subsec_nanosecond();
        let name = format!("oxpecker_backup_{}_{moment}", std::process::id());
        let text = format!("SELECT slot_name::text FROM pg_create_physical_replication_slot('{name}', true, true)");
        self.runtime.block_on(self.client.simple_query(&text)).map(drop).map_err(|error| explained(&error))
    }

    pub(crate) fn start(&self, major: Major, label: &str, fast: bool) -> Result<Lsn, CreateError> {
        let text = if major >= Major::V15 {
            "SELECT pg_backup_start($1, $2)::text"
        } else {
            "SELECT pg_start_backup($1, $2, false)::text"
        };
        self.patient(|| {
            let row = self.runtime.block_on(self.client.query_one(text, &[&label, &fast]));
            let hint = "the role needs EXECUTE on pg_backup_start and pg_backup_stop (before 15: pg_start_backup, pg_stop_backup), wal_level must be replica or higher; on a standby full_page_writes must be on at its primary";
            lsn(row.map_err(|error| sql("start the backup", &error, hint))?.get(0))
        })
    }

    pub(crate) fn stop(&self, major: Major) -> Result<Stopped, CreateError> {
        let text = if major >= Major::V15 {
            "SELECT lsn::text, labelfile, coalesce(spcmapfile, '') FROM pg_backup_stop(wait_for_archive => false)"
        } else {
            "SELECT lsn::text, labelfile, coalesce(spcmapfile, '') FROM pg_stop_backup(exclusive => false, wait_for_archive => false)"
        };
        self.patient(|| {
            let row = self.runtime.block_on(self.client.query_one(text, &[])).map_err(|error| {
                let lost = error.is_closed() || error.code().is_none();
                match error.as_db_error() {
                    // "the standby was promoted during online backup", in whatever language.
                    Some(db) if db.code().code() == "55000" && self.is_promoted() => CreateError::Promoted,
                    _ if lost => CreateError::SessionLost(explained(&error)),
                    _ => sql(
                        "stop the backup",
                        &error,
                        "take the backup again; on a standby, full_page_writes must be on at its primary",
                    ),
                }
            })?;
            Ok(Stopped { lsn: lsn(row.get(0))?, label: row.get(1), map: row.get(2) })
        })
    }

    /// Where WAL is now. Fails when the session, and so the backup mode, is gone.
    pub(crate) fn position(&self) -> Result<Position, CreateError> {
        let text = "SELECT in_recovery, \
             (CASE WHEN in_recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END)::text, \
             (CASE WHEN in_recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END)::text \
             FROM (SELECT pg_is_in_recovery() AS in_recovery) AS state";
        let row = self.runtime.block_on(self.client.query_one(text, &[]));
        let row = row.map_err(|error| CreateError::SessionLost(explained(&error)))?;
        Ok(Position { standby: row.get(0), insert: lsn(row.get(1))?, flushed: lsn(row.get(2))? })
    }

    fn is_promoted(&self) -> bool {
        self.position().is_ok_and(|position| !position.standby)
    }

    /// Runs something without a limit of time.
    fn patient<T>(&self, work: impl FnOnce() -> Result<T, CreateError>) -> Result<T, CreateError> {
        self.run("lift the time limit", "SET statement_timeout = 0")?;
        let result = work();
        // After a failure the session is of no more use, or still has its limit lifted: nobody waits for it then.
        if result.is_ok() {
            self.run("set the time limit", &format!("SET statement_timeout = '{QUICK}'"))?;
        }
        result
    }

    fn run(&self, what: &'static str, text: &str) -> Result<(), CreateError> {
        let done = self.runtime.block_on(self.client.batch_execute(text));
        done.map_err(|error| sql(what, &error, "see the server's log"))
    }

    fn one(&self, what: &'static str, text: &str) -> Result<Row, CreateError> {
        let row = self.runtime.block_on(self.client.query_one(text, &[]));
        row.map_err(|error| sql(what, &error, "the role may be missing the right to read this"))
    }

    fn rows(&self, what: &'static str, text: &str) -> Result<Vec<Row>, CreateError> {
        let rows = self.runtime.block_on(self.client.query(text, &[]));
        rows.map_err(|error| sql(what, &error, "the role may be missing the right to read this"))
    }

    /// A text, where the server gives it.
    fn optional(&self, text: &str) -> Option<String> {
        let row = self.runtime.block_on(self.client.query_opt(text, &[])).ok()??;
        row.try_get::<_, Option<String>>(0).ok()?.filter(|text| !text.is_empty())
    }
}

fn lsn(text: &str) -> Result<Lsn, CreateError> {
    let bad = |error: model::lsn::ParseLsnError| CreateError::Sql {
        what: "read an LSN",
        why: error.to_string(),
        hint: "this is not PostgreSQL",
    };
    text.parse().map_err(bad)
}

fn sql(what: &'static str, error: &tokio_postgres::Error, hint: &'static str) -> CreateError {
    // No answer, or "terminating connection due to ..." (class 57): whatever was asked for, the session is what is missing.
    if error.code().is_none_or(|code| code.code().starts_with("57P")) {
        return CreateError::SessionLost(explained(error));
    }
    CreateError::Sql { what, why: explained(error), hint }
}
