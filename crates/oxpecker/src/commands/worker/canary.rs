//! The canary: a row that is written every few seconds, to see how long a commit takes until it is in the repository.
//!
//! It is the only thing that this program ever writes into a database of others, and only where it is asked for. It also sees to it that there
//! is a commit behind every moment that one may want to return to: recovery to a time ends at the first commit after it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use model::Lsn;
use pg_connect::{Sql, explained};
use tokio_postgres::Client;

use super::wal::say;
use crate::{commands::runtime, exit::Failure, guard::wal_protocol::ToGuard, place};

/// How long a statement may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again, at least.
const AGAIN: Duration = Duration::from_secs(10);
/// Rows whose arrival is awaited: with a store that is down for long the oldest are forgotten.
const AWAITED_MAX: usize = 1000;

const PREPARE: &str = "CREATE SCHEMA IF NOT EXISTS oxpecker; \
    CREATE TABLE IF NOT EXISTS oxpecker.canary (id int PRIMARY KEY, at timestamptz NOT NULL)";
const WRITE: &str =
    "INSERT INTO oxpecker.canary VALUES (1, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET at = excluded.at";
/// The commit is before it.
const POSITION: &str = "SELECT pg_current_wal_insert_lsn()::text";

/// Rows on their way: where their commit ends, and when that was.
type Awaited = Arc<Mutex<VecDeque<(Lsn, Instant)>>>;

/// A canary that writes, on a thread of its own, for as long as the process lives.
pub struct Canary {
    awaited: Awaited,
}

impl Canary {
    /// Starts it.
    ///
    /// # Errors
    /// The address can't be used, or the system refuses a thread.
    pub fn start(target: &place::Target, database: &str, every: Duration) -> Result<Self, Failure> {
        let mut sql = Sql::parse(&target.connection).map_err(Failure::usage)?.in_database(database);
        sql.config.application_name("oxpecker canary");
        let awaited = Awaited::default();
        let (runtime, rows) = (runtime()?, Arc::clone(&awaited));
        thread::Builder::new().name("canary".to_owned()).spawn(move || runtime.block_on(sing(&sql, every, &rows)))?;
        Ok(Self { awaited })
    }

    /// What is to be said of the rows that are durable up to here: only of the newest.
    pub fn arrived(&self, durable: Lsn) -> Option<ToGuard> {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest = None;
        while let Some((_, written)) = awaited.front().filter(|(lsn, _)| *lsn <= durable) {
            newest = Some(ToGuard::Canary { took: written.elapsed() });
            awaited.pop_front();
        }
        newest
    }
}

async fn sing(sql: &Sql, every: Duration, rows: &Awaited) {
    let mut told = String::new();
    loop {
        let why = match session(sql, every, rows, &mut told).await {
            Ok(never) => match never {},
            Err(why) => why,
        };
        if why != told {
            say(&ToGuard::CanaryFailing { error: why.clone() });
            told = why;
        }
        tokio::time::sleep(every.max(AGAIN)).await;
    }
}

/// Writes until that fails; why, in words.
async fn session(
    sql: &Sql,
    every: Duration,
    rows: &Awaited,
    told: &mut String,
) -> Result<std::convert::Infallible, String> {
    let (client, connection) = bounded(sql.connect()).await?;
    tokio::spawn(connection);
    bounded(client.batch_execute(PREPARE)).await?;
    loop {
        let row = write(&client).await?;
        told.clear();
        await_row(rows, row);
        tokio::time::sleep(every).await;
    }
}

fn await_row(rows: &Awaited, row: (Lsn, Instant)) {
    let mut awaited = rows.lock().unwrap_or_else(PoisonError::into_inner);
    awaited.push_back(row);
    if awaited.len() > AWAITED_MAX {
        awaited.pop_front();
    }
}

async fn write(client: &Client) -> Result<(Lsn, Instant), String> {
    bounded(client.batch_execute(WRITE)).await?;
    let committed = Instant::now();
    let row = bounded(client.query_one(POSITION, &[])).await?;
    let lsn = row.get::<_, String>(0).parse().map_err(|error| format!("the server's position is none: {error}"))?;
    Ok((lsn, committed))
}

async fn bounded<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| explained(&error)),
        Err(_) => Err(format!("PostgreSQL did not answer within {} s", PATIENCE.as_secs())),
    }
}
