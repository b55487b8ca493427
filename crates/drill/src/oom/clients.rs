//! Who uses the server: one large query that takes its time, and somebody with small ones.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;

use super::{OomClients, ROWS};
use crate::{DrillError, act::seconds_between, measure::clock, storm};

/// The result is fetched in so many parts, ...
const PARTS: u32 = 40;
/// ... one of them this often: somebody reads it.
const PART_EVERY: Duration = Duration::from_millis(450);
/// How often the other one asks.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A query whose result is built in memory before its first row comes, as reports do that somebody gave a generous work_mem.
pub(super) struct Report {
    client: Client,
}

impl Report {
    /// Begins it. When this returns, all that it needs is in memory.
    pub(super) async fn begin(url: &str) -> Result<Self, DrillError> {
        let client = storm::connect(url).await?;
        let begin = format!(
            "SET work_mem = '2GB'; SET enable_sort = off; BEGIN; DECLARE report NO SCROLL CURSOR FOR \
             SELECT id FROM (SELECT DISTINCT g AS id, repeat('x', 800) || g AS line FROM generate_series(1, {ROWS}) AS g) AS report"
        );
        client.batch_execute(&begin).await.map_err(DrillError::sql("beginning the report"))?;
        client.batch_execute("MOVE 1 IN report").await.map_err(DrillError::sql("filling the report's memory"))?;
        Ok(Self { client })
    }

    /// Reads it to its end.
    pub(super) async fn read(&self, begun_us: u64) -> OomClients {
        let mut seen = OomClients { rows: 1, ..OomClients::default() };
        let mut tick = interval(PART_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let fetch = format!("FETCH {} FROM report", ROWS.div_ceil(PARTS));
        loop {
            tick.tick().await;
            match self.client.query(&fetch, &[]).await {
                Ok(rows) if rows.is_empty() => break,
                Ok(rows) => seen.rows += u32::try_from(rows.len()).unwrap_or(u32::MAX),
                Err(error) => {
                    seen.query_failed = Some(said(&error));
                    return seen;
                }
            }
        }
        match self.client.batch_execute("COMMIT").await {
            Ok(()) => seen.query_done_s = Some(seconds_between(begun_us, clock::boot_us())),
            Err(error) => seen.query_failed = Some(said(&error)),
        }
        seen
    }
}

/// The server's own words, where there are any.
fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// Asks small questions for as long as it is let. A session that is lost is opened anew.
pub(super) struct Other {
    url: String,
    client: Option<Client>,
    pub(super) answered: u32,
    pub(super) failed: u32,
}

impl Other {
    pub(super) async fn arrive(url: &str) -> Result<Self, DrillError> {
        let client = Some(storm::connect(url).await?);
        Ok(Self { url: url.to_owned(), client, answered: 0, failed: 0 })
    }

    pub(super) async fn ask_on(&mut self) -> std::convert::Infallible {
        loop {
            self.ask().await;
            sleep(ASK_EVERY).await;
        }
    }

    async fn ask(&mut self) {
        if self.client.is_none() {
            self.client = storm::connect(&self.url).await.ok();
        }
        let well = match &self.client {
            Some(client) => matches!(timeout(WITHIN, client.simple_query("SELECT 1")).await, Ok(Ok(_))),
            None => false,
        };
        if well {
            self.answered += 1;
        } else {
            self.failed += 1;
            self.client = None;
        }
    }

    /// Waits until the server answers again, at most as long.
    pub(super) async fn answered_within(&mut self, patience: Duration) -> bool {
        let before = self.answered;
        let again = async {
            while self.answered == before {
                self.ask().await;
                sleep(ASK_EVERY).await;
            }
        };
        timeout(patience, again).await.is_ok()
    }
}
