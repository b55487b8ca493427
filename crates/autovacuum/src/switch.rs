//! The dead man's switch inside the server: it lets go of a throttle when the guard *and* its children are gone.
//!
//! The guard's kept session holds an advisory lock. A second session of ours runs a DO block that tries to take that lock twice a
//! second. When the guard dies, however it dies, the kernel closes its sockets, the server ends its session, the lock comes free, and
//! the block empties the include file from within the server (COPY TO) and reloads. A backend does not notice that its own
//! client died while it computes or sleeps, unless `client_connection_check_interval` (14+) says so, which is why this works.
//!
//! The block commits in each round (allowed at top level since 11), so that it holds no snapshot and no xmin for longer than one
//! nap, and vacuum itself is not held up by it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::poll_fn;
use model::{Pid, event::CostSetting};
use pg_connect::Sql;
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Client};

use crate::{
    alter_system::quoted,
    include_file::{self, NEUTRAL},
    undo::bounded,
};

/// What the switch's session calls itself.
pub const APPLICATION_NAME: &str = "oxpecker dead man's switch";
/// The longest wait for a connection or for the block to report that it watches.
const ARM_TIMEOUT: Duration = Duration::from_secs(2);
/// First key of the advisory lock: "oxpk".
const LOCK_CLASS: i32 = 0x6f78_706b;
/// What the block says when it has begun to watch.
const ARMED: &str = "oxpecker: armed";

/// The second key of the advisory lock: all governors use one name, so that two of them never act on one server.
fn lock_key(name: &str) -> i32 {
    // FNV-1a (draft-eastlake-fnv): any stable hash will do.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    i32::from_ne_bytes(hash.to_ne_bytes())
}

/// Whose the guard's lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Ours, in the kept session.
    Ours,
    /// A dead man's switch has it: a guard's session was lost, most likely our own, and the switch is letting go. It takes about
    /// a second.
    Switch,
    /// Another guard's.
    AnotherGuard,
}

/// Takes the guard's lock in its kept session.
///
/// # Errors
/// In words.
pub async fn take_lock(client: &Client, name: &str) -> Result<Lock, String> {
    // A session takes an advisory lock again and again; once is enough for the switch.
    let held = "SELECT 1 FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() \
         AND classid::int8 = $1 AND objid::int8 = $2 AND objsubid = 2 AND granted";
    let (class, object) = (i64::from(LOCK_CLASS), i64::from(u32::from_ne_bytes(lock_key(name).to_ne_bytes())));
    if !bounded(client.query(held, &[&class, &object])).await?.is_empty() {
        return Ok(Lock::Ours);
    }
    let row = bounded(client.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK_CLASS, &lock_key(name)])).await?;
    if row.get(0) {
        return Ok(Lock::Ours);
    }
    // Nobody any more is as good as a switch: it was let go of in between.
    let holders = "SELECT coalesce(bool_and(coalesce(a.application_name = $3, false)), true) \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database \
         LEFT JOIN pg_catalog.pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND d.datname = current_database() \
         AND l.classid::int8 = $1 AND l.objid::int8 = $2 AND l.objsubid = 2 AND l.granted";
    let row = bounded(client.query_one(holders, &[&class, &object, &APPLICATION_NAME])).await?;
    Ok(if row.get(0) { Lock::Switch } else { Lock::AnotherGuard })
}

/// Gives the guard's lock back, for a session that lives on without governing. Where the switch still watches it does its harmless
/// work then.
///
/// # Errors
/// In words.
pub async fn drop_lock(client: &Client, name: &str) -> Result<(), String> {
    bounded(client.query_one("SELECT pg_advisory_unlock($1, $2)", &[&LOCK_CLASS, &lock_key(name)])).await.map(|_| ())
}

/// The block. Everything in it is a constant of ours or quoted.
fn block(name: &str, include: Option<&Path>, open_first: Option<CostSetting>) -> String {
    let key = lock_key(name);
    let copy = |text: &str| {
        include.map_or_else(String::new, |path| {
            // COPY's text format turns line breaks of one value into \n, so each line is a row; no line of ours has a backslash.
            let rows: Vec<String> = text.lines().map(|line| format!("({})", quoted(line))).collect();
            let copy = format!("COPY (VALUES {}) TO {}", rows.join(", "), quoted(&path.display().to_string()));
            format!("EXECUTE {};", quoted(&copy))
        })
    };
    let opening = open_first.map_or_else(String::new, |open| {
        format!(
            "{} PERFORM pg_reload_conf(); COMMIT; PERFORM pg_sleep(0.7); COMMIT;",
            copy(&include_file::content(open, "opening held workers"))
        )
    });
    let neutral = copy(NEUTRAL);
    let body = format!(
        "BEGIN \
           RAISE NOTICE '{ARMED}'; \
           WHILE NOT pg_try_advisory_lock({LOCK_CLASS}, {key}) LOOP \
             COMMIT; PERFORM pg_sleep(0.5); COMMIT; \
           END LOOP; \
           {opening} {neutral} PERFORM pg_reload_conf(); \
         END"
    );
    format!("DO {}", quoted(&body))
}

/// The second session.
pub struct Switch {
    client: Arc<Client>,
    pid: Pid,
    name: String,
    armed: bool,
    notices: watch::Receiver<u64>,
    running: Option<Running>,
}

/// A block that was sent.
struct Running {
    statement: String,
    /// The notices that were heard before it was sent.
    before: u64,
    task: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("pid", &self.pid).field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Switch {
    /// Opens the second session, early: when the host starves or connections run out it is too late.
    ///
    /// # Errors
    /// In words.
    pub async fn connect(connection: &str, name: &str) -> Result<Self, String> {
        let mut sql = Sql::parse(connection).map_err(|error| error.to_string())?;
        sql.config.application_name(APPLICATION_NAME);
        let (client, mut link) = tokio::time::timeout(ARM_TIMEOUT, sql.connect())
            .await
            .map_err(|_| "PostgreSQL took no second connection in time".to_owned())?
            .map_err(|error| pg_connect::explained(&error))?;
        let (count, notices) = watch::channel(0_u64);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| link.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.message() == ARMED
                {
                    count.send_modify(|n| *n += 1);
                }
            }
        });
        // Nothing may end the wait: no time-out of any kind, and no look at whether the client lives.
        let settings = "SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN \
            ('client_connection_check_interval', 'statement_timeout', 'lock_timeout', 'transaction_timeout', \
             'idle_in_transaction_session_timeout', 'idle_session_timeout')";
        bounded(client.simple_query(settings)).await?;
        bounded(client.simple_query("SET client_min_messages = notice")).await?;
        let pid = bounded(client.query_one("SELECT pg_backend_pid()", &[])).await?.get::<_, i32>(0);
        Ok(Self {
            client: Arc::new(client),
            pid: Pid(pid),
            name: name.to_owned(),
            armed: false,
            notices,
            running: None,
        })
    }

    /// Whether the session is still there.
    pub fn is_alive(&self) -> bool {
        !self.client.is_closed()
    }

    /// The session's backend.
    pub fn backend(&self) -> Pid {
        self.pid
    }

    /// Whether the block can do its work: the role may write server files and reload, and the file can be written by the server.
    /// Rewrites the file with its neutral content to see, so it must not be called while something is held.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn rehearse(&self, include: &Path) -> Result<(), String> {
        let may = bounded(
            self.client
                .query_one("SELECT pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'execute')", &[]),
        )
        .await?;
        if !may.get::<_, bool>(0) {
            return Err(
                "the role may not execute pg_reload_conf() (hint: GRANT EXECUTE ON FUNCTION pg_reload_conf() TO it)"
                    .to_owned(),
            );
        }
        let rows: Vec<String> = NEUTRAL.lines().map(|line| format!("({})", quoted(line))).collect();
        let copy = format!("COPY (VALUES {}) TO {}", rows.join(", "), quoted(&include.display().to_string()));
        bounded(self.client.simple_query(&copy)).await.map(|_| ())
    }

    /// Starts the block and waits until it says that it watches.
    ///
    /// # Errors
    /// In words.
    pub async fn arm(&mut self, include: Option<PathBuf>, open_first: Option<CostSetting>) -> Result<(), String> {
        if self.is_armed() {
            return Ok(());
        }
        if self.has_ended() {
            return Err("the dead man's switch ended while it watched; a new one takes its place".to_owned());
        }
        let statement = block(&self.name, include.as_deref(), open_first);
        self.running.take_if(|running| running.task.is_finished());
        // One that was too slow to say so in time may still do: a second one would wait behind it for ever.
        let running = match &mut self.running {
            Some(running) if running.statement == statement => running,
            Some(_) => return Err("the dead man's switch in the server is still busy with an earlier order".to_owned()),
            None => {
                let (before, client, text) = (*self.notices.borrow(), Arc::clone(&self.client), statement.clone());
                let task = tokio::spawn(async move {
                    match client.simple_query(&text).await {
                        Ok(_) => tracing::warn!("the dead man's switch let go: the guard's session lost its lock"),
                        // Disarming cancels the block; anything else matters only to the next arming.
                        Err(error) => {
                            tracing::debug!(error = %crate::undo::in_words(&error), "the dead man's switch ended");
                        }
                    }
                });
                self.running.insert(Running { statement, before, task })
            }
        };
        let (mut notices, before) = (self.notices.clone(), running.before);
        let heard = tokio::time::timeout(ARM_TIMEOUT, notices.wait_for(|n| *n > before)).await;
        if matches!(heard, Ok(Ok(_))) {
            self.armed = true;
            return Ok(());
        }
        Err("the dead man's switch in the server did not report that it watches".to_owned())
    }

    /// Whether the block watches.
    pub fn is_armed(&self) -> bool {
        self.armed && self.running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// Whether it watched and does no more, or its session is gone: it must be replaced, for its session may hold the lock.
    pub fn has_ended(&self) -> bool {
        !self.is_alive() || (self.armed && !self.is_armed())
    }

    /// Ends the block. Closing the connection would not: the backend would not notice.
    ///
    /// # Errors
    /// In words; the block watches on then, and does its harmless work when the guard ends.
    pub async fn disarm(&mut self, guard: &Client) -> Result<(), String> {
        if self.running.as_ref().is_some_and(|running| !running.task.is_finished()) {
            bounded(guard.query("SELECT pg_cancel_backend($1)", &[&self.pid.0])).await?;
        }
        if let Some(mut running) = self.running.take()
            && tokio::time::timeout(ARM_TIMEOUT, &mut running.task).await.is_err()
        {
            self.running = Some(running);
            return Err("the dead man's switch did not end in time".to_owned());
        }
        self.armed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_name_and_are_stable() {
        assert_eq!(lock_key("main"), lock_key("main"));
        assert_ne!(lock_key("main"), lock_key("other"));
    }

    #[test]
    fn the_block_quotes_what_it_is_given() {
        let text = block("main", Some(Path::new("/run/o'x/throttle.conf")), None);
        assert!(text.contains("COMMIT; PERFORM pg_sleep(0.5); COMMIT;"));
        assert!(text.contains("/run/o''''''''x/throttle.conf"), "{text}");
        assert!(!block("main", None, None).contains("COPY"));
    }
}
