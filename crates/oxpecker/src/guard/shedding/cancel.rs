//! The end of one autovacuum worker: what was chosen is looked up again in the statement that ends it.

use std::time::Duration;

use autovacuum::host_process::{self, Role};
use model::{DatabaseName, ProcessId, TableName};
use tokio::time::timeout;
use tokio_postgres::Client;

/// How long the server may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// Ends the worker where it still is at that table, in that database, not against wraparound and no mere ANALYZE. The worker's activity line is
/// `autovacuum: VACUUM [ANALYZE ]SCHEMA.TABLE[ (to prevent wraparound)]`. It is ended, not cancelled: one that is cancelled goes on with its next table.
const END: &str = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
    WHERE a.pid = $1 AND a.backend_type = 'autovacuum worker' AND a.datname = $2 \
    AND a.query IN ('autovacuum: VACUUM ' || $3, 'autovacuum: VACUUM ANALYZE ' || $3)";

/// Ends it.
///
/// # Errors
/// In words: it is another process now, does something else, or the server refuses.
pub async fn cancel(
    client: &Client,
    process: ProcessId,
    database: &DatabaseName,
    table: &TableName,
) -> Result<(), String> {
    if !host_process::is_still(process, Role::Worker) {
        return Err(format!("process {} is no longer the worker that was chosen", process.pid));
    }
    let (name, table) = (database.to_string(), table.to_string());
    let answer = timeout(WITHIN, client.query_opt(END, &[&process.pid.0, &name, &table])).await;
    match answer {
        Err(_) => Err(format!("PostgreSQL did not answer within {} s", WITHIN.as_secs())),
        Ok(Err(error)) => {
            let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            Err(format!("PostgreSQL refused: {said}"))
        }
        Ok(Ok(None)) => Err(format!("worker {} does not vacuum {database}.{table} any more", process.pid)),
        Ok(Ok(Some(row))) if row.try_get::<_, bool>(0).unwrap_or(false) => Ok(()),
        Ok(Ok(Some(_))) => Err(format!("worker {} was gone", process.pid)),
    }
}
