//! The observer's loop: connect, read at a bounded cost, say when the server stops and starts serving us, connect again.

use std::{collections::BTreeSet, fmt, future::Future, path::PathBuf, sync::Arc, time::Duration};

use model::{
    EventKind, Moment, Observation, PgVersion, Pid, Reading,
    event::DownReason,
    reading::{ActivityReading, LockWaits, LongTransaction},
};
use pg_connect::{Sql, SqlTargetError};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    ANSWER_TIMEOUT, APPLICATION_NAME, CONNECT_TIMEOUT, GIVE_UP, activity,
    cost::OwnCosts,
    failure::{Failure, chain},
    locks::Queue,
    pace::{Backoff, Pace},
    session::{Link, Session},
    state_file::StateFile,
    tables,
    vacuums::Vacuums,
    wal::{self, Position},
};
use crate::{
    clock,
    host::{ProcessTable, Watched},
};

/// How soon after connecting the tables are read for the first time: after the first activity, which matters more.
const FIRST_TABLES: Duration = Duration::from_secs(1);
/// Between the end of a slow reading and the begin of the next there is at least this.
const BREATH: Duration = Duration::from_millis(250);
/// So many errors in a row, on a connection that lives, and we try a new one.
const MAX_ERRORS: u32 = 3;
/// How long a server that is too old is left alone: somebody may upgrade it.
const UNSUPPORTED_WAIT: Duration = Duration::from_secs(60);
/// How long the driver of a broken connection may take to say why it broke.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to observe.
#[derive(Clone)]
pub struct PgOptions {
    /// Where the server is: a URL or `key=value` words, as libpq takes them.
    pub url: String,
    /// The host sampler's list: it is told the postmaster's pid.
    pub watched: Watched,
    /// `/proc`, or what stands for it.
    pub proc_root: PathBuf,
    /// How often sessions and vacuums are read.
    pub activity_interval: Duration,
    /// How often WAL is read.
    pub wal_interval: Duration,
    /// How often ages and dead tuples are read.
    pub tables_interval: Duration,
}

impl fmt::Debug for PgOptions {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgOptions")
            .field("proc_root", &self.proc_root)
            .field("activity_interval", &self.activity_interval)
            .field("wal_interval", &self.wal_interval)
            .field("tables_interval", &self.tables_interval)
            .finish_non_exhaustive()
    }
}

impl PgOptions {
    /// With the ordinary intervals: 1 s, 10 s and 60 s.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            watched: Watched::default(),
            proc_root: PathBuf::from("/proc"),
            activity_interval: Duration::from_secs(1),
            wal_interval: Duration::from_secs(10),
            tables_interval: Duration::from_secs(60),
        }
    }
}

/// A connection string that can't be used, or its password file.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL can't be observed: {0}")]
pub struct ObserverConfigError(#[source] SqlTargetError);

/// Why a connection was left.
enum End {
    /// Nobody wants observations any more.
    ReceiverGone,
    /// The server does not serve us.
    Failed(Failure),
    /// It answers, but with errors: a new connection may be better.
    Renew,
}

type Step<T> = Result<T, End>;

/// What was last said about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Up { version: PgVersion, started: jiff::Timestamp, in_recovery: bool },
    Down(DownReason),
}

/// Observes one PostgreSQL.
#[derive(Debug)]
pub struct PgObserver {
    sql: Sql,
    options: PgOptions,
    table: ProcessTable,
    state: StateFile,
    session: watch::Sender<Option<Arc<Session>>>,
    said: Option<Said>,
    vacuums: Vacuums,
    position: Position,
    costs: OwnCosts,
    /// Errors in a row.
    errors: u32,
    /// Kinds of reading that have failed on this connection and were complained about.
    complained: BTreeSet<&'static str>,
}

impl PgObserver {
    /// Checks the options; connects to nothing yet.
    ///
    /// # Errors
    /// Where the connection string can't be used.
    pub fn new(options: PgOptions) -> Result<Self, ObserverConfigError> {
        let mut sql = Sql::parse(&options.url).map_err(ObserverConfigError)?;
        sql.config
            .application_name(APPLICATION_NAME)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(GIVE_UP)
            .keepalives_idle(GIVE_UP);
        Ok(Self {
            sql,
            table: ProcessTable::new(&options.proc_root),
            state: StateFile::default(),
            options,
            session: watch::Sender::new(None),
            said: None,
            vacuums: Vacuums::default(),
            position: Position::default(),
            costs: OwnCosts::default(),
            errors: 0,
            complained: BTreeSet::new(),
        })
    }

    /// The live connection and what it is connected to, for whoever else needs the server; `None` while there is none.
    pub fn session(&self) -> watch::Receiver<Option<Arc<Session>>> {
        self.session.subscribe()
    }

    /// Observes until nobody receives any more. Never gives up on the server.
    pub async fn run(mut self, observations: mpsc::Sender<Observation>) {
        let mut backoff = Backoff::new();
        loop {
            let wait = match self.serve(&observations, &mut backoff).await {
                End::ReceiverGone => return,
                End::Renew => backoff.wait(),
                End::Failed(failure) => {
                    let unsupported = failure.reason == DownReason::UnsupportedVersion;
                    if self.say_down(&observations, failure).await.is_err() {
                        return;
                    }
                    if unsupported { UNSUPPORTED_WAIT } else { backoff.wait() }
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = observations.closed() => return,
            }
        }
    }

    /// One connection, from its attempt to its end.
    async fn serve(&mut self, observations: &mpsc::Sender<Observation>, backoff: &mut Backoff) -> End {
        let begin = Instant::now();
        let attempt = tokio::select! {
            attempt = timeout(CONNECT_TIMEOUT, Link::open(&self.sql, &mut self.table, &mut self.state)) => attempt,
            () = observations.closed() => return End::ReceiverGone,
        };
        let mut link = match attempt {
            Ok(Ok(link)) => link,
            Ok(Err(failure)) => return End::Failed(failure),
            Err(_) => return End::Failed(Failure::no_answer("a connection attempt", CONNECT_TIMEOUT)),
        };
        let server = &link.session.info;
        info!(version = %server.version, role = server.role, database = %server.database, "connected to PostgreSQL");
        self.options.watched.set_postmaster(server.postmaster.map(|postmaster| postmaster.pid));
        if let Some(directory) = server.data_directory.clone().filter(|_| server.postmaster.is_some()) {
            self.options.watched.set_data_directory(directory);
        }
        let visible = server.backend.map(|_| link.backend_pid);
        self.costs.connected(&mut self.table, visible, link.statements, begin.elapsed());
        self.errors = 0;
        self.complained.clear();
        self.session.send_replace(Some(Arc::clone(&link.session)));
        let end = match self.observe(&mut link, observations, backoff).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.session.send_replace(None);
        end
    }

    async fn observe(
        &mut self,
        link: &mut Link,
        observations: &mpsc::Sender<Observation>,
        backoff: &mut Backoff,
    ) -> Step<std::convert::Infallible> {
        let server = &link.session.info;
        let up = Said::Up { version: server.version, started: server.started, in_recovery: server.in_recovery };
        self.say_up(observations, up).await?;

        let options = &self.options;
        let pace =
            |interval: Duration, part, at_most: u64| Pace { interval, part, at_most: Duration::from_secs(at_most) };
        let activity_pace = pace(options.activity_interval, 0.6, 10);
        let wal_pace = pace(options.wal_interval, 0.2, 120);
        let tables_pace = pace(options.tables_interval, 0.2, 600);
        let start = Instant::now();
        let (mut activity_due, mut wal_due, mut tables_due) = (start, start, start + FIRST_TABLES);
        loop {
            let next = activity_due.min(wal_due).min(tables_due);
            tokio::select! {
                biased;
                failure = &mut link.ended => return Err(End::Failed(failure.unwrap_or_else(|_| lost()))),
                () = observations.closed() => return Err(End::ReceiverGone),
                () = sleep_until(next) => {}
            }
            let now = Instant::now();
            if now >= activity_due {
                if self.state.is_stopping().await {
                    let detail = "the server is stopping; a smart shutdown waits for its clients, so we leave";
                    return Err(End::Failed(Failure::new(DownReason::ShuttingDown, detail)));
                }
                let cost = self.read_activity(link, observations).await?;
                activity_due = following(activity_due, activity_pace.after(cost));
                if self.errors == 0 {
                    *backoff = Backoff::new();
                }
            }
            if now >= wal_due {
                let cost = self.read_wal(link, observations).await?;
                wal_due = following(wal_due, wal_pace.after(cost));
            }
            if now >= tables_due {
                let cost = self.read_tables(link, observations).await?;
                tables_due = following(tables_due, tables_pace.after(cost));
            }
        }
    }

    async fn read_activity(&mut self, link: &mut Link, observations: &mpsc::Sender<Observation>) -> Step<Duration> {
        let session = Arc::clone(&link.session);
        let request = session.client.query_one(&link.activity, &[]);
        let (row, took) = self.answered(observations, "the activity query", request).await?;
        let at = clock::now();
        let mut cost = self.costs.answered(&mut self.table, 1, took);
        let Some(row) = self.accept("activity", link, row).await? else { return Ok(cost) };
        let answer = match activity::decode(&row) {
            Ok(answer) => answer,
            Err(error) => {
                self.complain("activity", &error);
                return Ok(cost);
            }
        };
        let up = Said::Up { version: link.version(), started: answer.server_started, in_recovery: answer.in_recovery };
        self.say_up(observations, up).await?;

        let (queue, head) = if answer.lock_waiting > 0 {
            let (queue, head, more) = self.read_locks(link, observations).await?;
            cost += more;
            (queue, head)
        } else {
            (Queue::default(), None)
        };
        let with_waiters = |session: LongTransaction| LongTransaction { blocks: queue.behind(session.pid), ..session };
        // The answer was made somewhere between the question and its arrival.
        let late = took / 2;
        let table = session.info.postmaster.is_some().then_some(&mut self.table);
        let (vacuums, events) = self.vacuums.observe(answer.vacuums, &queue, at, table);
        let reading = ActivityReading {
            at,
            took,
            version: link.version(),
            server_started: answer.server_started,
            in_recovery: answer.in_recovery,
            connections: answer.connections,
            longest_transaction: answer.longest_transaction.map(with_waiters).map(Box::new),
            locks: LockWaits {
                waiting: answer.lock_waiting,
                longest: queue.longest().unwrap_or(answer.lock_longest),
                head: queue.head(),
                head_session: head.map(|head| Box::new(with_waiters(head))),
                table: queue.table().cloned(),
            },
            vacuums,
            autovacuum_slots: answer.autovacuum_slots,
            own_cost: self.costs.total(),
            idle_transaction: answer.idle_transaction.map(with_waiters).map(Box::new),
            clock_ahead_ms: answer.clock.map(|clock| ahead(clock, at, late)),
        };
        for (at, event) in events {
            send(observations, Observation::Event(at, event)).await?;
        }
        send(observations, Observation::Reading(Reading::Activity(reading))).await?;
        Ok(cost)
    }

    async fn read_locks(
        &mut self,
        link: &mut Link,
        observations: &mpsc::Sender<Observation>,
    ) -> Step<(Queue, Option<LongTransaction>, Duration)> {
        let session = Arc::clone(&link.session);
        let request = session.client.query(&link.lock_waits, &[]);
        let (rows, took) = self.answered(observations, "the lock query", request).await?;
        let cost = self.costs.answered(&mut self.table, 1, took);
        let Some(rows) = self.accept("locks", link, rows).await? else { return Ok((Queue::default(), None, cost)) };
        let queue = match activity::decode_waiters(&rows) {
            Ok(waiters) => Queue::new(&waiters),
            Err(error) => {
                self.complain("locks", &error);
                return Ok((Queue::default(), None, cost));
            }
        };
        let Some(Pid(head)) = queue.head() else { return Ok((queue, None, cost)) };
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&head];
        let request = session.client.query_opt(&link.head, &parameters);
        let (row, took) = self.answered(observations, "the query of the queue's head", request).await?;
        let cost = cost + self.costs.answered(&mut self.table, 1, took);
        let Some(row) = self.accept("locks", link, row).await? else { return Ok((queue, None, cost)) };
        let head = activity::decode_head(row.as_ref()).unwrap_or_else(|error| {
            self.complain("locks", &error);
            None
        });
        Ok((queue, head, cost))
    }

    async fn read_wal(&mut self, link: &mut Link, observations: &mpsc::Sender<Observation>) -> Step<Duration> {
        let session = Arc::clone(&link.session);
        let request = session.client.query_one(&link.wal, &[]);
        let (row, took) = self.answered(observations, "the WAL query", request).await?;
        let at = clock::now();
        let cost = self.costs.answered(&mut self.table, 1, took);
        let Some(row) = self.accept("wal", link, row).await? else { return Ok(cost) };
        match wal::decode(&row, at, &mut self.position) {
            Ok(reading) => send(observations, Observation::Reading(Reading::Wal(reading))).await?,
            Err(error) => self.complain("wal", &error),
        }
        Ok(cost)
    }

    async fn read_tables(&mut self, link: &mut Link, observations: &mpsc::Sender<Observation>) -> Step<Duration> {
        let session = Arc::clone(&link.session);
        // Both at once: one round trip.
        let request = async {
            let tables = session.client.query(&link.worst_tables, &[]);
            let ages = session.client.query(&link.ages, &[]);
            futures_util::future::try_join(tables, ages).await
        };
        let (rows, took) = self.answered(observations, "the tables query", request).await?;
        let at = clock::now();
        let cost = self.costs.answered(&mut self.table, 2, took);
        let Some((tables, ages)) = self.accept("tables", link, rows).await? else { return Ok(cost) };
        match tables::decode(&tables, &ages, at, session.info.database.clone()) {
            Ok(reading) => send(observations, Observation::Reading(Reading::Tables(reading))).await?,
            Err(error) => self.complain("tables", &error),
        }
        Ok(cost)
    }

    /// Waits for an answer. One that is late makes the server down, but is still waited for: see [`GIVE_UP`].
    async fn answered<T>(
        &mut self,
        observations: &mpsc::Sender<Observation>,
        what: &str,
        request: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Step<(Result<T, tokio_postgres::Error>, Duration)> {
        let begin = Instant::now();
        let mut request = std::pin::pin!(request);
        let said = self.said;
        let answer = match timeout(ANSWER_TIMEOUT, &mut request).await {
            Ok(answer) => answer,
            Err(_) => {
                self.say_down(observations, Failure::no_answer(what, ANSWER_TIMEOUT)).await?;
                match timeout(GIVE_UP.saturating_sub(ANSWER_TIMEOUT), request).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(End::Failed(Failure::no_answer(what, GIVE_UP))),
                }
            }
        };
        if let (Ok(_), Some(up @ Said::Up { .. })) = (&answer, said) {
            self.say_up(observations, up).await?;
        }
        Ok((answer, begin.elapsed()))
    }

    /// The answer, or nothing where the server answered with an error that leaves the connection in order.
    async fn accept<T>(
        &mut self,
        kind: &'static str,
        link: &mut Link,
        answer: Result<T, tokio_postgres::Error>,
    ) -> Step<Option<T>> {
        let error = match answer {
            Ok(answer) => {
                self.errors = 0;
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        if error.is_closed() || link.client().is_closed() {
            // The driver knows more than the request that it could not carry.
            let failure = match timeout(LAST_WORDS, &mut link.ended).await {
                Ok(Ok(failure)) => failure,
                _ => lost(),
            };
            return Err(End::Failed(failure));
        }
        if error.as_db_error().is_some_and(|error| error.code().code().starts_with("57P")) {
            // The server's last words to us (57P01, 57P02) can come as the answer to a request.
            return Err(End::Failed(Failure::of(&error)));
        }
        self.complain(kind, &error);
        self.errors += 1;
        if self.errors >= MAX_ERRORS { Err(End::Renew) } else { Ok(None) }
    }

    /// Says once a connection what can't be read, and why.
    fn complain(&mut self, kind: &'static str, error: &tokio_postgres::Error) {
        let error = chain(error);
        if self.complained.insert(kind) {
            warn!(kind, error, "PostgreSQL could not be read; the other readings go on");
        } else {
            debug!(kind, error, "PostgreSQL could not be read");
        }
    }

    async fn say_up(&mut self, observations: &mpsc::Sender<Observation>, up: Said) -> Step<()> {
        if self.said == Some(up) {
            return Ok(());
        }
        self.said = Some(up);
        let Said::Up { version, started, in_recovery } = up else { return Ok(()) };
        self.tell(observations, EventKind::ServerUp { version, started, in_recovery }).await
    }

    /// Says it when the reason is another than before.
    async fn say_down(&mut self, observations: &mpsc::Sender<Observation>, failure: Failure) -> Step<()> {
        let Failure { reason, detail } = failure;
        if self.said == Some(Said::Down(reason)) {
            debug!(?reason, detail, "PostgreSQL still does not serve us");
            return Ok(());
        }
        self.said = Some(Said::Down(reason));
        self.tell(observations, EventKind::ServerDown { reason, detail }).await
    }

    async fn tell(&self, observations: &mpsc::Sender<Observation>, event: EventKind) -> Step<()> {
        let at: Moment = clock::now();
        send(observations, Observation::Event(at, event)).await
    }
}

async fn send(observations: &mpsc::Sender<Observation>, observation: Observation) -> Step<()> {
    observations.send(observation).await.map_err(|_| End::ReceiverGone)
}

/// How far the server's clock is ahead of ours, in milliseconds, by an answer that was given so long before it came.
fn ahead(server: jiff::Timestamp, came: Moment, late: Duration) -> i64 {
    let late = i64::try_from(late.as_micros()).unwrap_or(i64::MAX);
    (server.as_microsecond() - came.wall.as_microsecond()).saturating_add(late) / 1_000
}

fn lost() -> Failure {
    Failure::new(DownReason::ConnectionLost, "the connection was closed")
}

/// The next reading's time: at the rhythm, but never at once after a slow one.
fn following(due: Instant, wait: Duration) -> Instant {
    (due + wait).max(Instant::now() + BREATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for url in ["postgresql://app:s3cr3t@127.0.0.1:1/x", "host=/run/postgresql user=app password=s3cr3t"] {
            let options = PgOptions::new(url);
            let shown = format!("{options:?} {:#?}", PgObserver::new(options.clone()).unwrap());
            assert!(shown.contains("activity_interval") && !shown.contains("s3cr3t"), "{shown}");
        }
    }

    #[test]
    fn connection_strings_are_checked_before_anything_is_tried() {
        for (url, word) in [
            ("postgresql://app@127.0.0.1:1/x?sslmode=maybe", "sslmode is none of"),
            ("postgresql://app@127.0.0.1:port/x", "a port is no port"),
            ("host", "a name has no value"),
        ] {
            let error = PgObserver::new(PgOptions::new(url)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(PgObserver::new(PgOptions::new("host=/run/postgresql user=oxpecker dbname=postgres")).is_ok());
    }
}
