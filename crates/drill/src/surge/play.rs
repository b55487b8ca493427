//! Plays the surge twice on one scratch cluster, and puts together what was measured.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use journal::{EventQuery, Reader, ReadingQuery};
use model::{AlertState, Event, EventKind, alert::rule, event::ReliefOutcome};
use scratch::ScratchCluster;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::{
    BYSTANDER, LEAKING, MAX_CONNECTIONS, NEWCOMER, RELIEF_FROM_PERCENT, RESERVED, SCHEMA_VERSION, Surge, SurgeAlone,
    SurgeGuarded,
    clients::{Bystanders, Leaked, Newcomer},
    judge::judge,
    relief_from, usable,
};
use crate::{
    DrillError, DrillOptions,
    act::seconds_between,
    guard::{self, quote, write},
    leftovers::Made,
    measure::clock,
    result::Verdict,
    sink::Sink,
    storm,
};

/// What the progress bar expects of it.
pub(crate) const EXPECTED: Duration = Duration::from_secs(25);
/// For how long is watched that nobody gets in by itself: longer than relief takes.
const ALONE: Duration = Duration::from_secs(6);
/// How long relief is waited for.
const RELIEF_PATIENCE: Duration = Duration::from_secs(20);
/// How long the guard may take to have read the server.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How long sessions that are closed may take to be gone.
const GONE_PATIENCE: Duration = Duration::from_secs(20);
/// Readings that the guard has to have before it is surged on: growth is a difference.
const READINGS_BEFORE: usize = 2;
/// How often is looked.
const POLL: Duration = Duration::from_millis(100);
/// Events and readings that are read of the journal at most: some minutes have a few hundred.
const ROWS: usize = 10_000;

/// Plays it on a cluster of its own.
pub(crate) async fn play(options: &DrillOptions, work_dir: &Path, made: &mut Made) -> Result<Surge, DrillError> {
    let builder = ScratchCluster::builder(&options.postgres)
        .setting("max_connections", MAX_CONNECTIONS.to_string())
        .setting("superuser_reserved_connections", RESERVED.to_string());
    let cluster = builder.start().map_err(DrillError::cluster("making it"))?;
    made.directories.extend([work_dir.to_owned(), cluster.directory().to_owned()]);
    let url = cluster.url("postgres");
    let admin = storm::connect(&url).await?;
    let roles = [LEAKING, BYSTANDER, NEWCOMER].map(|role| format!("CREATE ROLE {role} LOGIN")).join("; ");
    admin.batch_execute(&roles).await.map_err(DrillError::sql("making the roles"))?;
    let alone = alone(&url).await?;
    settle(&admin).await?;
    drop(admin);
    let guarded = guarded(options, &url, work_dir, made).await?;
    drop(cluster);
    let mut surge = Surge {
        schema_version: SCHEMA_VERSION,
        server: storm::version(&options.postgres).to_string(),
        usable: usable(),
        relief_from: relief_from(),
        alone,
        guarded,
        left: made.left(),
        verdict: Verdict { passed: false, lines: Vec::new(), notes: Vec::new() },
    };
    surge.verdict = judge(&surge);
    Ok(surge)
}

async fn alone(url: &str) -> Result<SurgeAlone, DrillError> {
    let _bystanders = Bystanders::arrive(url).await?;
    let leaked = Leaked::open(url).await?;
    let newcomer = Newcomer::comes(url, ALONE).await?;
    let since = |at_us| seconds_between(leaked.began_us, at_us);
    Ok(SurgeAlone {
        opened: leaked.opened(),
        exhausted_s: leaked.exhausted_us.map(since),
        refused: newcomer.refused,
        tried_for_s: newcomer.tried_for.as_secs_f64(),
        let_in_s: newcomer.let_in_us.map(since),
    })
}

/// How many sessions clients have.
async fn used(admin: &Client) -> Result<u32, DrillError> {
    let query = "SELECT count(*)::int4 FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let used: i32 = admin.query_one(query, &[]).await.map_err(DrillError::sql("counting sessions"))?.get(0);
    Ok(u32::try_from(used).unwrap_or(0))
}

/// Waits until only this session is left.
async fn settle(admin: &Client) -> Result<(), DrillError> {
    let deadline = Instant::now() + GONE_PATIENCE;
    loop {
        match used(admin).await? {
            0 | 1 => return Ok(()),
            left if Instant::now() >= deadline => {
                return Err(DrillError::replay("ending the first act", format!("{left} sessions are still there")));
            }
            _ => sleep(POLL).await,
        }
    }
}

async fn guarded(
    options: &DrillOptions,
    url: &str,
    work_dir: &Path,
    made: &mut Made,
) -> Result<SurgeGuarded, DrillError> {
    let sink = Sink::open().await?;
    made.ports.push(sink.port);
    let mut bystanders = Bystanders::arrive(url).await?;
    let (config, state_dir) = configure(url, sink.port, work_dir)?;
    let (guard, _) = guard::ride(options, &config, work_dir, None, None).await?;
    await_readings(&state_dir).await?;

    let leaked = Leaked::open(url).await?;
    // By the way that PostgreSQL reserves, while it is needed.
    let superuser = storm::connect(url).await.ok();
    let newcomer = Newcomer::comes(url, RELIEF_PATIENCE).await?;
    let until_us = newcomer.let_in_us.unwrap_or_else(clock::boot_us);
    let used_after = match &superuser {
        Some(admin) => Some(relieved(admin).await?),
        None => None,
    };
    let stopped_cleanly = guard.stop().await;
    // Only now, so that nothing is ended that is not counted.
    let (gone, bystanders_left) = (leaked.gone().await, bystanders.left().await);

    let since = |at_us| seconds_between(leaked.began_us, at_us);
    let (events, reads_us) = recorded(&state_dir, leaked.began_us, until_us)?;
    let alert = events.iter().find_map(|event| match &event.kind {
        EventKind::Alerted { alert }
            if alert.rule.0 == rule::CONNECTIONS_SURGING
                && alert.state == AlertState::Firing
                && alert.decided.boot_us >= leaked.began_us =>
        {
            Some(alert)
        }
        _ => None,
    });
    let arrivals = sink.arrivals();
    sink.close().await;
    let arrival = arrivals
        .into_iter()
        .find(|arrival| arrival.rule == rule::CONNECTIONS_SURGING && arrival.state == AlertState::Firing);
    let ended: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::SessionRelieved { session } if session.outcome == ReliefOutcome::Ended => {
                Some((since(event.at.boot_us), session))
            }
            _ => None,
        })
        .collect();
    let ours = ended.iter().filter(|(_, session)| session.role == LEAKING);
    let label = |name: &str| alert.and_then(|alert| alert.labels.get(name).cloned());
    Ok(SurgeGuarded {
        opened: leaked.opened(),
        exhausted_s: leaked.exhausted_us.map(since),
        decided_s: alert.map(|alert| since(alert.decided.boot_us)),
        delivered_s: arrival.as_ref().map(|arrival| since(arrival.arrived_us)),
        said: arrival.map(|arrival| arrival.summary),
        named_role: label("role"),
        named_application: label("application"),
        refused: newcomer.refused,
        let_in_s: newcomer.let_in_us.map(since),
        ended: ours.clone().count(),
        ended_in_transaction: ours.filter(|(_, session)| session.in_transaction).count(),
        ended_of_others: ended.iter().filter(|(_, session)| session.role != LEAKING).count(),
        ended_from_to_s: ended.first().zip(ended.last()).map(|((first, _), (last, _))| (*first, *last)),
        ended_because: ended.first().map(|(_, session)| session.cause.clone()),
        gone,
        bystanders: Bystanders::count(),
        bystanders_left,
        used_after,
        readings: reads_us.len(),
        longest_gap_s: longest_gap_s(leaked.began_us, until_us, &reads_us),
        superuser_in: superuser.is_some(),
        stopped_cleanly,
    })
}

/// Waits until connections are short no more, and the guard has nothing left to do. Returns how many are in use.
async fn relieved(admin: &Client) -> Result<u32, DrillError> {
    let deadline = Instant::now() + RELIEF_PATIENCE;
    loop {
        let used = used(admin).await?;
        if used < relief_from() || Instant::now() >= deadline {
            return Ok(used);
        }
        sleep(POLL).await;
    }
}

/// The guard's configuration, and its state directory.
fn configure(url: &str, webhook_port: u16, dir: &Path) -> Result<(PathBuf, PathBuf), DrillError> {
    let (config, url_file, state_dir) = (dir.join("oxpecker.toml"), dir.join("webhook.url"), dir.join("state"));
    write(&url_file, &format!("http://127.0.0.1:{webhook_port}/alerts\n"))?;
    write(&config, &config_text(url, &url_file, &state_dir))?;
    Ok((config, state_dir))
}

fn config_text(url: &str, url_file: &Path, state_dir: &Path) -> String {
    let path = |path: &Path| quote(&path.to_string_lossy());
    format!(
        "state_dir = {}

[postgres]
name = \"drill\"
url = {}

[[alert.route]]
name = \"drill\"
webhook = {{ url_file = {} }}

[relief]
mode = \"act\"
from_percent = {RELIEF_FROM_PERCENT}
per_minute = 60

[[relief.role]]
name = {}
idle = \"2s\"
idle_in_transaction = \"1s\"
",
        path(state_dir),
        quote(url),
        path(url_file),
        quote(LEAKING)
    )
}

fn unreadable(error: &journal::JournalError) -> DrillError {
    DrillError::replay("reading the guard's journal", error.to_string())
}

/// When the guard read the server, on the boot clock, in order.
fn reads_us(state_dir: &Path) -> Result<Vec<u64>, DrillError> {
    let mut reader = Reader::open(state_dir).map_err(|error| unreadable(&error))?;
    let readings = reader.readings(&ReadingQuery::newest("activity", ROWS)).map_err(|error| unreadable(&error))?;
    Ok(readings.readings.iter().map(|reading| reading.at().boot_us).collect())
}

async fn await_readings(state_dir: &Path) -> Result<(), DrillError> {
    let deadline = Instant::now() + READ_PATIENCE;
    loop {
        let read = reads_us(state_dir)?.len();
        if read >= READINGS_BEFORE {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = format!("it has read the server {read} times in {READ_PATIENCE:?}");
            return Err(DrillError::replay("waiting for the guard", why));
        }
        sleep(POLL).await;
    }
}

/// All events, and when the server was read from the one moment to the other.
fn recorded(state_dir: &Path, from_us: u64, to_us: u64) -> Result<(Vec<Event>, Vec<u64>), DrillError> {
    let mut reader = Reader::open(state_dir).map_err(|error| unreadable(&error))?;
    let events =
        reader.events(&EventQuery { limit: ROWS, ..EventQuery::default() }).map_err(|error| unreadable(&error))?;
    let reads = reads_us(state_dir)?.into_iter().filter(|at| (from_us..=to_us).contains(at));
    Ok((events.events, reads.collect()))
}

/// The longest time without a reading.
fn longest_gap_s(from_us: u64, to_us: u64, reads_us: &[u64]) -> f64 {
    let ends = reads_us.iter().copied().chain([to_us]);
    let starts = std::iter::once(from_us).chain(reads_us.iter().copied());
    starts.zip(ends).map(|(start, end)| seconds_between(start, end)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_without_a_reading_has_both_ends_in_it() {
        for (reads, longest) in [
            (&[][..], 9.0),
            (&[2_000_000, 3_000_000][..], 7.0),
            (&[6_000_000][..], 5.0),
            (&[1_000_000, 7_000_000, 8_000_000][..], 6.0),
        ] {
            let gap = longest_gap_s(1_000_000, 10_000_000, reads);
            assert!((gap - longest).abs() < 1e-9, "{reads:?}: {gap}");
        }
    }

    #[test]
    fn the_configuration_reads_as_a_user_would_write_it() {
        let text = config_text("postgresql:///postgres?port=5", Path::new("/d/webhook.url"), Path::new("/d/state"));
        insta::assert_snapshot!(text);
    }
}
