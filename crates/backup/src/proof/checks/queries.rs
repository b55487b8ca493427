//! The user's own queries: what a restored database must be able to say.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::proof::{
    ProofQuery,
    receipt::{Outcome, QueryRecord, TEXT_MAX_BYTES, clip, millis},
    session::{Door, explain, is_hosts_fault},
    settings::Session,
};

/// Runs them one after the other, each in a session of its own.
pub(crate) async fn run(door: &Door, queries: &[ProofQuery], patience: Duration) -> Vec<QueryRecord> {
    let mut records = Vec::with_capacity(queries.len());
    for query in queries {
        let began = Instant::now();
        let result = match door.open(&query.database, Session::Users).await {
            Ok(client) => match tokio::time::timeout(patience, ask(&client, &query.sql)).await {
                Ok(result) => result,
                Err(_) => {
                    let late = format!("no answer after {} s", patience.as_secs());
                    records.push(record(query, began, &late, Outcome::Broken));
                    continue;
                }
            },
            Err(error) => Err(error),
        };
        let (got, outcome) = match result {
            Ok(got) => {
                let fits = query.expect.as_ref().is_none_or(|expected| got.trim() == expected.trim());
                (got, if fits { Outcome::Passed } else { Outcome::Failed })
            }
            Err(error) => {
                let outcome = if is_hosts_fault(&error) { Outcome::Broken } else { Outcome::Failed };
                (explain(&error), outcome)
            }
        };
        records.push(record(query, began, &got, outcome));
    }
    records
}

fn record(query: &ProofQuery, began: Instant, got: &str, outcome: Outcome) -> QueryRecord {
    QueryRecord {
        database: query.database.clone(),
        sql: clip(&query.sql),
        expected: query.expect.clone(),
        got: clip(got),
        outcome,
        ms: millis(began.elapsed()),
    }
}

/// The result as `psql -At` prints it: columns parted by `|`, rows by line ends, NULL as nothing. More than a receipt keeps is cut off.
async fn ask(client: &Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let mut text = String::new();
    for message in &messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if text.len() > TEXT_MAX_BYTES {
            break;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let columns: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or("")).collect();
        text.push_str(&columns.join("|"));
    }
    Ok(text)
}
