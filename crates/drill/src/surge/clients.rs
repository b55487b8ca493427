//! The sessions of a surge: those that leak, those that have nothing to do with it, those that come too late.

use std::time::{Duration, Instant};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{Client, Error, NoTls, error::SqlState};

use super::{BYSTANDER, LEAKING, LEAKY, MAX_CONNECTIONS, NEWCOMER, OPENED_EVERY};
use crate::{DrillError, measure::clock};

/// Sessions that the surge opens at most, should nobody refuse it.
const LEAKED_MAX: usize = 2 * MAX_CONNECTIONS as usize;
/// Every so many of them stays in a transaction.
const IN_TRANSACTION_EACH: usize = 8;
/// Idle sessions of another role.
const IDLE: usize = 4;
/// Sessions of the leaking role that work.
const WORKING: usize = 2;
/// What those ask, over and over: idle for no longer than the time to the next one.
const WORK: &str = "SELECT pg_sleep(0.1)";
/// A newcomer tries this often.
const TRIES_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A session of that role.
async fn session(url: &str, role: &str, application: &str) -> Result<Client, Error> {
    let mut config: tokio_postgres::Config = url.parse()?;
    let (client, connection) = config.user(role).application_name(application).connect(NoTls).await?;
    tokio::spawn(async move {
        // What ends the connection shows on the client: that is what is counted.
        let _ = connection.await;
    });
    Ok(client)
}

/// No connection is left for such a client.
fn is_refused(error: &Error) -> bool {
    error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

/// Who was there before.
pub(super) struct Bystanders {
    idle: Vec<Client>,
    working: JoinSet<()>,
}

impl Bystanders {
    pub(super) async fn arrive(url: &str) -> Result<Self, DrillError> {
        let (mut idle, mut working) = (Vec::new(), JoinSet::new());
        for _ in 0..IDLE {
            idle.push(
                session(url, BYSTANDER, "worker").await.map_err(DrillError::sql("opening a bystander's session"))?,
            );
        }
        for _ in 0..WORKING {
            let client = session(url, LEAKING, "web").await.map_err(DrillError::sql("opening a working session"))?;
            working.spawn(async move { while client.batch_execute(WORK).await.is_ok() {} });
        }
        Ok(Self { idle, working })
    }

    pub(super) const fn count() -> usize {
        IDLE + WORKING
    }

    /// How many still answer.
    pub(super) async fn left(&mut self) -> usize {
        while self.working.try_join_next().is_some() {}
        let mut left = self.working.len();
        for client in &self.idle {
            left += usize::from(matches!(timeout(WITHIN, client.simple_query("SELECT 1")).await, Ok(Ok(_))));
        }
        left
    }
}

/// Sessions that were opened, and never closed.
pub(super) struct Leaked {
    sessions: Vec<Client>,
    pub(super) began_us: u64,
    /// When one was refused.
    pub(super) exhausted_us: Option<u64>,
}

impl Leaked {
    /// Opens one after another until one is refused.
    pub(super) async fn open(url: &str) -> Result<Self, DrillError> {
        let mut leaked = Self { sessions: Vec::new(), began_us: clock::boot_us(), exhausted_us: None };
        let mut tick = interval(OPENED_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while leaked.sessions.len() < LEAKED_MAX && leaked.exhausted_us.is_none() {
            tick.tick().await;
            match session(url, LEAKING, LEAKY).await {
                Ok(client) => {
                    if leaked.sessions.len().is_multiple_of(IN_TRANSACTION_EACH) {
                        let begun = client.batch_execute("BEGIN; SELECT 1").await;
                        begun.map_err(DrillError::sql("beginning a transaction"))?;
                    }
                    leaked.sessions.push(client);
                }
                Err(error) if is_refused(&error) => leaked.exhausted_us = Some(clock::boot_us()),
                Err(error) => return Err(DrillError::sql("opening the surge's sessions")(error)),
            }
        }
        Ok(leaked)
    }

    pub(super) fn opened(&self) -> usize {
        self.sessions.len()
    }

    /// How many the server has ended.
    pub(super) async fn gone(&self) -> usize {
        let mut gone = 0;
        for client in &self.sessions {
            gone += usize::from(!matches!(timeout(WITHIN, client.simple_query("SELECT 1")).await, Ok(Ok(_))));
        }
        gone
    }
}

/// One that wants in when there is no connection left.
pub(super) struct Newcomer {
    pub(super) refused: u32,
    pub(super) let_in_us: Option<u64>,
    pub(super) tried_for: Duration,
}

impl Newcomer {
    /// Tries until it is let in, or for as long.
    pub(super) async fn comes(url: &str, patience: Duration) -> Result<Self, DrillError> {
        let begun = Instant::now();
        let (mut refused, mut let_in_us) = (0, None);
        while let_in_us.is_none() && begun.elapsed() < patience {
            match session(url, NEWCOMER, NEWCOMER).await {
                Ok(client) => {
                    client.batch_execute("SELECT 1").await.map_err(DrillError::sql("asking as a newcomer"))?;
                    let_in_us = Some(clock::boot_us());
                }
                Err(error) if is_refused(&error) => {
                    refused += 1;
                    sleep(TRIES_EVERY).await;
                }
                Err(error) => return Err(DrillError::sql("connecting as a newcomer")(error)),
            }
        }
        Ok(Self { refused, let_in_us, tried_for: begun.elapsed() })
    }
}
