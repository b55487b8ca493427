//! The mistake: while vacuum storms and a ledger is written, somebody drops a table. The WAL receiver has what is needed to go back to the moment
//! before.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    DrillError, children::Process, leash::Leash, options::DrillOptions, rescue::Oxpecker, result::StormTable, storm,
};

/// Transactions that are committed before the mistake: a row each.
const COMMITS: i64 = 200;
/// How long the mistake may take to come into reach: until the WAL behind it is durable in the repository.
const REACH_PATIENCE: Duration = Duration::from_secs(30);
/// How often is asked. Each question is a process that opens the repository.
const REACH_POLL: Duration = Duration::from_millis(100);
/// How often a paused server is asked whether it takes writes.
const RESUME_POLL: Duration = Duration::from_millis(20);

/// What happened, and the moment before it.
pub(crate) struct Mistake {
    /// Between the ledger's last row and the drop, by the server's clock.
    pub(crate) moment: Timestamp,
    /// Rows that were committed by then.
    pub(crate) rows: i64,
    /// The table that was dropped.
    pub(crate) table: String,
}

/// Starts the receiver, which streams WAL into the repository from now on.
pub(crate) fn receive(options: &DrillOptions, oxpecker: &Oxpecker, dir: &Path) -> Result<Process, DrillError> {
    // It lives for a minute, and nothing of this server is worth a bound.
    let args = oxpecker.arguments(&["wal", "receive", "--allow-unlimited-slot"]);
    let command = Leash::of(&oxpecker.program, args, None).command(&options.helper)?;
    Process::start("receiver", command, dir)
}

/// Writes the ledger, drops the biggest table, and goes on writing.
pub(crate) async fn happen(url: &str, tables: &[StormTable]) -> Result<Mistake, DrillError> {
    let client = storm::connect(url).await?;
    let sql = async |text: &str| client.batch_execute(text).await.map_err(DrillError::sql("writing the ledger"));
    let biggest = tables.iter().max_by_key(|table| table.bytes);
    let table = biggest.map(|table| table.name.clone()).unwrap_or_default();
    sql("CREATE TABLE ledger (id bigint PRIMARY KEY)").await?;
    for id in 1..=COMMITS {
        sql(&format!("INSERT INTO ledger VALUES ({id})")).await?;
    }
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let moment: String = client.query_one(now, &[]).await.map_err(DrillError::sql("asking for the time"))?.get(0);
    let moment = moment.parse().map_err(|error: jiff::Error| DrillError::helper("mistake", error.to_string()))?;
    // The name is our own. A vacuum of the table is in the way, and gives way.
    sql(&format!("DROP TABLE {table}")).await?;
    sql(&format!("INSERT INTO ledger VALUES ({})", COMMITS + 1)).await?;
    Ok(Mistake { moment, rows: COMMITS, table })
}

/// Waits until the repository has what is needed to return to the moment; returns the seconds that it took.
pub(crate) async fn in_reach(oxpecker: &Oxpecker, pgdata: &str, moment: Timestamp) -> Result<f64, DrillError> {
    let began = Instant::now();
    let moment = moment.to_string();
    loop {
        // "Not yet" is a refusal like any other: the last one is told.
        match oxpecker.run(&["restore", "--pgdata", pgdata, "--to-time", &moment, "--dry-run"]).await {
            Ok(_) => return Ok(began.elapsed().as_secs_f64()),
            Err(error) if began.elapsed() > REACH_PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(REACH_POLL).await,
        }
    }
}

/// Looks at the ledger of a server that waits at the moment, read only; rows that are there.
pub(crate) async fn look(url: &str) -> Result<i64, DrillError> {
    let client = storm::connect(url).await?;
    let query = "SELECT count(*) FROM ledger";
    Ok(client.query_one(query, &[]).await.map_err(DrillError::sql("reading the restored ledger"))?.get(0))
}

/// Lets the server that waits at the moment take writes, as a person does who has looked.
pub(crate) async fn accept(url: &str, patience: Duration) -> Result<(), DrillError> {
    let client = storm::connect(url).await?;
    let resumed = client.batch_execute("SELECT pg_wal_replay_resume()").await;
    resumed.map_err(DrillError::sql("letting the restored server take writes"))?;
    let began = Instant::now();
    loop {
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
        if !row.map_err(DrillError::sql("asking whether recovery is over"))?.get::<_, bool>(0) {
            return Ok(());
        }
        if began.elapsed() > patience {
            return Err(DrillError::helper(
                "mistake",
                format!("the restored server takes no writes after {patience:?}"),
            ));
        }
        tokio::time::sleep(RESUME_POLL).await;
    }
}
