//! The release worker: a child of the guard whose only task is to outlive it.
//!
//! It reads one JSON object per line from its standard input, each replacing the one before: an armed plan or none. When the input
//! ends, the guard is gone, however it died; if a plan is armed then, it is undone. The connection string comes over the pipe, never in the
//! arguments, for it may hold a password.
//!
//! It ends by the end of its input only: systemd signals a service's whole control group, and whoever stops the guard must not
//! stop what is left to let go after it. After the input's end it is bounded by its tries.
//!
//! It is not the only means: see [`crate::switch`] for the one inside the server, which needs no process of ours.

use std::{io, time::Duration};

use pg_connect::Sql;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_postgres::Client;

use crate::undo::{Home, UndoPlan, Undone, undo};

/// The longest line that is taken, in bytes.
const MAX_LINE: usize = 256 * 1024;
/// The longest wait for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Tries until the throttle counts as not undone; with the pause between them a starved server gets half a minute.
const TRIES: u32 = 30;
/// The pause between tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What the guard tells the release worker.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// The plan to undo when the guard dies; none while nothing is held.
    pub plan: Option<UndoPlan>,
    /// How to reach PostgreSQL.
    pub connection: String,
}

impl std::fmt::Debug for Orders {
    // The connection string may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Takes the signals that end a program and does nothing with them, while the answer is kept. One that can't be taken is as before.
fn deaf() -> Vec<Signal> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect()
}

/// Runs until the input ends; then undoes what is armed. `None` where nothing was.
///
/// # Errors
/// The input could not be read. Even then an armed plan is undone first.
pub async fn run(mut stdin: impl AsyncBufRead + Unpin) -> io::Result<Option<Undone>> {
    // A session of its own: what a terminal sends to the guard's group must not reach us. Fails only for a group's leader, which
    // is as good.
    let _ = rustix::process::setsid();
    let _deaf = deaf();
    let mut orders: Option<Orders> = None;
    let mut line = Vec::new();
    let ended = loop {
        line.clear();
        match read_line(&mut stdin, &mut line).await {
            Ok(false) => break Ok(()),
            Ok(true) => match serde_json::from_slice(&line) {
                Ok(new) => orders = Some(new),
                // A guard killed while it wrote leaves half a line: the order before stands.
                Err(error) => tracing::warn!(%error, "an order of the guard was not understood"),
            },
            Err(error) => break Err(error),
        }
    };
    let Some(Orders { plan: Some(plan), connection }) = orders else { return ended.map(|()| None) };
    let undone = undo_persistently(&plan, &connection).await;
    ended.map(|()| Some(undone))
}

async fn read_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let chunk = input.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(chunk.len(), |end| end + 1);
        line.extend_from_slice(&chunk[..take]);
        input.consume(take);
        if end.is_some() {
            return Ok(true);
        }
        if line.len() > MAX_LINE {
            return Err(io::Error::other("an order of the guard is too long"));
        }
    }
}

/// Undoes the plan, first without a connection where that is enough, then with one, until it is done or the tries are used up.
pub async fn undo_persistently(plan: &UndoPlan, connection: &str) -> Undone {
    let mut done = Undone::default();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        // Signals and files need no server: they go first, for a starved one takes its time to accept a connection.
        let needs_sql = matches!(plan.home, Home::AlterSystem { .. }) || plan.postmaster.is_none() || attempt > 0;
        let client = if needs_sql { connect(connection).await } else { None };
        done = undo(plan, client.as_ref()).await;
        if done.complete() {
            break;
        }
        tracing::warn!(errors = ?done.errors, attempt, "a throttle is not undone yet");
    }
    done
}

async fn connect(connection: &str) -> Option<Client> {
    let mut sql = Sql::parse(connection).ok()?;
    sql.config.application_name("oxpecker release");
    let (client, link) = tokio::time::timeout(CONNECT_TIMEOUT, sql.connect()).await.ok()?.ok()?;
    tokio::spawn(async move {
        // Its end is seen by whoever uses the client.
        let _ = link.await;
    });
    Some(client)
}

/// Undoes what a dead guard left behind, from the record in its state directory. `None` where there was nothing.
///
/// # Errors
/// The record can't be read; nothing was done then.
pub async fn undo_left_behind(
    state_dir: &std::path::Path,
    connection: &str,
) -> Result<Option<Undone>, crate::record::RecordError> {
    let Some(plan) = crate::record::read(state_dir)? else { return Ok(None) };
    let undone = undo_persistently(&plan, connection).await;
    if undone.complete() {
        crate::record::remove(state_dir)?;
    }
    Ok(Some(undone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_do_not_show_the_password() {
        let orders = Orders { plan: None, connection: "host=/run password=hunter2".to_owned() };
        assert!(!format!("{orders:?}").contains("hunter2"));
        assert!(serde_json::to_string(&orders).unwrap().contains("hunter2"));
    }
}
