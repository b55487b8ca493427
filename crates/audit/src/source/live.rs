//! A running PostgreSQL: one session, read-only transactions, one SELECT in each.
//!
//! Every SELECT has a time-out of the server and one of ours. What a role may not see, or a version does not have, costs that part only. A server that
//! stops answering costs what was not asked yet: the rest is not tried.

use std::{future::Future, sync::Arc, time::Duration};

use pg_connect::{Host, Sql, Target, explained};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::facts::{Asked, Identity, LiveSettings, Server};

/// How long making the session may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long one answer may take. The server itself gives up sooner.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// How long all of it may take.
const ALL_MAX: Duration = Duration::from_secs(40);
/// Begins the question for the settings: the time-outs of the others are settings, and would be taken for the server's.
const BEGIN_BARE: &str = "BEGIN TRANSACTION READ ONLY";
/// Begins each other question. Local to the transaction, so that a pool's next client has none of it.
const BEGIN: &str = "BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '1s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '20s'; SET LOCAL search_path = pg_catalog";

const IDENTITY: &str = "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby, current_user::text AS role, \
                        pg_backend_pid() AS backend";
const SETTINGS: &str =
    "SELECT name, setting, unit, source, sourcefile, sourceline, pending_restart, boot_val, context FROM pg_settings";
const ROLE_SETTINGS: &str = "SELECT coalesce(r.rolname, '') AS role, coalesce(d.datname, '') AS database, unnest(s.setconfig) AS setting \
                             FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase LIMIT 10000";
/// Through JSON, as 12 has no wal_status.
const SLOTS: &str = "SELECT slot_name AS name, active, to_jsonb(s) ->> 'wal_status' AS wal_status, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() \
                     THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_lsn() END, restart_lsn)::float8 AS held \
                     FROM pg_replication_slots s LIMIT 1000";
const MAY_SEE_SESSIONS: &str = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'usage') AS yes";
const SESSIONS: &str = "SELECT coalesce(a.usename, '') AS role, coalesce(a.datname, '') AS database, coalesce(a.application_name, '') AS application, \
                        coalesce(bool_or(r.rolsuper), false) AS superuser, count(*) AS count, max(extract(epoch FROM now() - a.xact_start))::float8 AS transaction, \
                        max(extract(epoch FROM now() - a.xact_start)) FILTER (WHERE a.state LIKE 'idle in transaction%')::float8 AS idle_in_transaction \
                        FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid \
                        WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() GROUP BY 1, 2, 3 ORDER BY 5 DESC LIMIT 1000";
const ARCHIVER: &str = "SELECT archived_count AS archived, extract(epoch FROM now() - last_archived_time)::float8 AS since_archived, failed_count AS failed, \
                        extract(epoch FROM now() - last_failed_time)::float8 AS since_failed FROM pg_stat_archiver";
const SENDERS: &str = "SELECT coalesce(application_name, '') AS application, coalesce(state, '') AS state FROM pg_stat_replication LIMIT 1000";
const AGES: &str = "SELECT datname AS database, age(datfrozenxid)::int8 AS transactions, mxid_age(datminmxid)::int8 AS multixacts FROM pg_database \
                    ORDER BY 2 DESC LIMIT 1000";
const PREPARED: &str = "SELECT gid AS name, extract(epoch FROM now() - prepared)::float8 AS age FROM pg_prepared_xacts ORDER BY 2 DESC LIMIT 1000";
/// A line that only waits for a restart is no fault: `pending_restart` tells of it.
const FAULTS: &str = "SELECT sourcefile AS file, sourceline AS line, name, error FROM pg_file_settings \
                      WHERE error IS NOT NULL AND error <> 'setting could not be applied' UNION ALL \
                      SELECT current_setting('hba_file'), line_number, NULL, error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 100";

/// Asks a server everything that checks want to know. Blocks for 40 seconds at most.
///
/// # Errors
/// When no session can be made, or the server does not even say what it is.
pub fn ask(sql: &Sql, name: &str) -> Asked<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let asked = runtime.block_on(within(sql, name));
    // A name that is being looked up on a thread of its own must not hold the report back.
    runtime.shutdown_background();
    asked
}

async fn within(sql: &Sql, name: &str) -> Asked<Server> {
    let mut sql = sql.clone();
    let is_local = is_local(sql.target());
    sql.config.application_name("oxpecker audit");
    let (client, connection) = match timeout(CONNECT_MAX, sql.connect()).await {
        Err(_) => return Err(format!("it did not let us in within {} s", CONNECT_MAX.as_secs())),
        Ok(Err(error)) => return Err(explained(&error)),
        Ok(Ok(session)) => session,
    };
    let driver = tokio::spawn(connection);
    let mut session = Session { client, until: Instant::now() + ALL_MAX, silent: None, is_local };
    let server = session.server(name).await;
    drop(session);
    driver.abort();
    server
}

struct Session {
    client: Client,
    until: Instant,
    /// Why nothing more is asked.
    silent: Option<String>,
    is_local: bool,
}

/// Whether the server is on this machine: by its address only, a forwarded port looks like one.
pub fn is_local(target: &Target) -> bool {
    let local = |host: &Host| match host {
        Host::Unix(..) => true,
        Host::Tcp(name, _) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    !target.hosts.is_empty() && target.hosts.iter().all(local)
}

/// The parent of our backend, if a process of this machine with the backend's number is a PostgreSQL.
fn parent(backend: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{backend}/stat")).ok()?;
    let (name, rest) = stat.rsplit_once(')')?;
    name.ends_with("(postgres").then(|| rest.split_whitespace().nth(1)?.parse().ok()).flatten()
}

impl Session {
    async fn server(&mut self, name: &str) -> Asked<Server> {
        let name: Arc<str> = crate::words::shown_path(name).into();
        let identity: Identity = self.one(IDENTITY).await?;
        let postmaster = self.is_local.then(|| parent(identity.backend)).flatten();
        let settings = self.rows(SETTINGS).await;
        Ok(Server {
            identity,
            postmaster,
            settings: settings.map(|rows| LiveSettings::new(Arc::clone(&name), rows)),
            role_settings: self.rows(ROLE_SETTINGS).await,
            slots: self.rows(SLOTS).await,
            sessions: self.seeing(SESSIONS).await,
            archiver: self.one(ARCHIVER).await,
            senders: self.seeing(SENDERS).await,
            ages: self.rows(AGES).await,
            prepared: self.rows(PREPARED).await,
            faults: self.rows(FAULTS).await,
            name,
        })
    }

    /// What shows nothing, and says nothing of it, to those who may not see it.
    async fn seeing<T: DeserializeOwned>(&mut self, select: &str) -> Asked<Vec<T>> {
        #[derive(serde::Deserialize)]
        struct May {
            yes: bool,
        }
        if self.one::<May>(MAY_SEE_SESSIONS).await?.yes {
            self.rows(select).await
        } else {
            Err("the role may not see other sessions; hint: GRANT pg_monitor (or pg_read_all_stats) to it".to_owned())
        }
    }

    async fn one<T: DeserializeOwned>(&mut self, select: &str) -> Asked<T> {
        self.rows(select).await?.pop().ok_or_else(|| "it answered with no row".to_owned())
    }

    async fn rows<T: DeserializeOwned>(&mut self, select: &str) -> Asked<Vec<T>> {
        if let Some(why) = &self.silent {
            return Err(why.clone());
        }
        let text = self.text(select).await?;
        serde_json::from_str(&text).map_err(|error| format!("it answered otherwise than a PostgreSQL: {error}"))
    }

    async fn text(&mut self, select: &str) -> Asked<String> {
        let (client, until) = (&self.client, self.until);
        let asked = async {
            client.batch_execute(if select == SETTINGS { BEGIN_BARE } else { BEGIN }).await?;
            let query = format!("SELECT coalesce(jsonb_agg(to_jsonb(answer)), '[]')::text FROM ({select}) AS answer");
            let rows = client.simple_query(&query).await;
            client.batch_execute("ROLLBACK").await?;
            rows
        };
        let answer = bounded(until, asked).await;
        let Some(answer) = answer else {
            let why = "it stopped answering, and was not asked any further".to_owned();
            self.silent = Some(why.clone());
            return Err(why);
        };
        let rows = answer.map_err(|error| {
            let why = explained(&error);
            if self.client.is_closed() {
                self.silent = Some(format!("it ended the session: {why}"));
            }
            why
        })?;
        let text = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        text.map(str::to_owned).ok_or_else(|| "it answered with no row".to_owned())
    }
}

/// An answer, unless it takes longer than one answer or all of them may.
async fn bounded<T>(until: Instant, answer: impl Future<Output = T>) -> Option<T> {
    timeout_at(until.min(Instant::now() + ANSWER_MAX), answer).await.ok()
}
