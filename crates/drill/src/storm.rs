//! The tables, and the storm that waits in them: half of the rows are deleted and autovacuum is held off until it is released.

use std::time::Duration;

use model::PgVersion;
use tokio_postgres::{Client, NoTls};

use crate::{
    DrillError,
    options::ActKind,
    result::{SettingNote, StormTable, TableOutcome},
};

/// The big tables.
pub(crate) const TABLES: [&str; 3] = ["members", "messages", "infractions"];
/// Indexes of each.
const INDEXES: u32 = 5;
/// How long a statement of the drill itself may take while nothing is being loaded.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(20);

/// What one row costs with its indexes, table, copy and WAL, in bytes, from a measured load (175 bytes of data); rounded up.
const ROOM_PER_ROW: u64 = 200;
/// WAL and temporary files of an act.
const ROOM_FOR_WAL: u64 = 3 << 30;

/// Memory or disk that template and one act need together.
///
/// The last act needs the repository and what is restored for the proof besides.
pub(crate) fn room_bytes(rows: u32, rescue: bool) -> u64 {
    let data = u64::from(rows) * TABLES.len() as u64 * ROOM_PER_ROW;
    let copies = if rescue { 4 } else { 2 };
    copies * data + ROOM_FOR_WAL.min(4 * data + (512 << 20))
}

/// Settings of the server while the template is loaded: nobody will miss this server's data after a crash.
pub(crate) const LOADING: [(&str, &str); 10] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "8GB"),
    ("autovacuum", "off"),
    ("maintenance_work_mem", "192MB"),
    ("max_parallel_maintenance_workers", "0"),
    ("max_parallel_workers_per_gather", "0"),
];

/// What differs from stock in an act, and why.
pub(crate) fn settings(major: u32) -> Vec<SettingNote> {
    let note = |name: &str, value: &str, stock: &str, acts: &str, why: &str| SettingNote {
        name: name.into(),
        value: value.into(),
        stock: stock.into(),
        acts: acts.into(),
        why: why.into(),
    };
    let stock_delay = "2ms";
    vec![
        note("autovacuum_naptime", "1s", "1min", "all", "the workers start within seconds of the release"),
        note(
            "autovacuum_work_mem",
            work_mem(major),
            "-1 (64MB)",
            "all",
            "vacuum must read all indexes many times, as it does for tables some 60 times as large under the stock memory",
        ),
        note(
            "autovacuum_vacuum_cost_delay",
            "0",
            stock_delay,
            "1b, 2",
            "throttling off; act 2 starts from the same setting, and what the guard makes of it is the guard's doing",
        ),
    ]
}

/// Enough for 100,000 to 200,000 dead rows at a time: an array of 6 bytes each up to 16 (measured: 174,762), from 17 on a compact
/// tree, for which 1 MB, the minimum until then, holds millions (measured with 256 kB: 120,000; with 192 kB: 6,000).
const fn work_mem(major: u32) -> &'static str {
    if major >= 17 { "256kB" } else { "1MB" }
}

/// The settings of an act's server.
pub(crate) fn act_settings(act: ActKind, major: u32) -> Vec<(String, String)> {
    let off = matches!(act, ActKind::Unthrottled | ActKind::Guarded);
    settings(major).into_iter().filter(|note| note.acts == "all" || off).map(|note| (note.name, note.value)).collect()
}

/// A connection of the drill's own; the task that drives it ends with it.
pub(crate) async fn connect(url: &str) -> Result<Client, DrillError> {
    let mut config: tokio_postgres::Config =
        url.parse().map_err(DrillError::sql("reading its own connection string"))?;
    config.application_name("drill").connect_timeout(STATEMENT_PATIENCE);
    let (client, connection) = config.connect(NoTls).await.map_err(DrillError::sql("connecting"))?;
    tokio::spawn(async move {
        // What breaks the connection breaks the client's next statement as well, which reports it.
        let _ = connection.await;
    });
    Ok(client)
}

/// Fills the tables, two at a time where there are two cores, and leaves half of each dead.
pub(crate) async fn load(url: &str, rows: u32, seed: u64) -> Result<Vec<StormTable>, DrillError> {
    let small = connect(url).await?;
    small.batch_execute(SMALL).await.map_err(DrillError::sql("making the table sessions"))?;
    let mut fills = Vec::new();
    for table in TABLES {
        let client = connect(url).await?;
        fills.push(async move {
            let statement = fill(table, rows, seed);
            client.batch_execute(&statement).await.map_err(DrillError::sql(format!("filling {table}")))
        });
    }
    futures_util::future::try_join_all(fills).await?;
    let mut tables = Vec::new();
    for table in TABLES {
        let row = small
            .query_one(
                "SELECT pg_total_relation_size($1::text::regclass), pg_stat_get_dead_tuples($1::text::regclass)",
                &[&table],
            )
            .await
            .map_err(DrillError::sql(format!("measuring {table}")))?;
        let (bytes, dead): (i64, i64) = (row.get(0), row.get(1));
        let dead_by_count = u64::from(rows / 2);
        // The statistics may lag behind; what was deleted is known.
        let dead = u64::try_from(dead).unwrap_or(0).max(dead_by_count);
        tables.push(StormTable {
            name: table.into(),
            live: u64::from(rows) - dead_by_count,
            dead,
            indexes: INDEXES,
            bytes: u64::try_from(bytes).unwrap_or(0),
        });
    }
    Ok(tables)
}

/// A small table that is updated all the time, with autovacuum as PostgreSQL ships it.
const SMALL: &str = "
    CREATE TABLE sessions (id bigint PRIMARY KEY, joins bigint NOT NULL, seen timestamptz NOT NULL) WITH (fillfactor = 50);
    INSERT INTO sessions SELECT g, 0, now() FROM generate_series(0, 9999) g;
    ANALYZE sessions;";

/// The same rows for the same seed. Multiplying by a prime walks through all accounts in an order that is far from the rows',
/// so that index pages and table pages do not run in step, as in real tables.
fn fill(table: &str, rows: u32, seed: u64) -> String {
    let shift = seed % u64::from(rows);
    format!(
        "BEGIN;
         CREATE TABLE {table} (id bigint, account bigint, channel bigint, created timestamptz, note text)
             WITH (autovacuum_enabled = false);
         INSERT INTO {table}
             SELECT g, (g * 2654435761 + {shift}) % {rows}, (g * 40503 + {shift}) % 65536,
                    timestamptz '2020-12-11' - (g * 7919 % 31536000) * interval '1 second', '{table} ' || g
             FROM generate_series(1::bigint, {rows}) g;
         ALTER TABLE {table} ADD PRIMARY KEY (id);
         CREATE INDEX ON {table} (account);
         CREATE INDEX ON {table} (channel);
         CREATE INDEX ON {table} (created);
         CREATE INDEX ON {table} (account, created);
         COMMIT;
         DELETE FROM {table} WHERE id % 2 = 0;
         ANALYZE {table};"
    )
}

/// Lets autovacuum loose.
pub(crate) async fn release(client: &Client) -> Result<(), DrillError> {
    let statements: String =
        TABLES.iter().map(|table| format!("ALTER TABLE {table} SET (autovacuum_enabled = true);")).collect();
    client.batch_execute(&statements).await.map_err(DrillError::sql("releasing the storm"))
}

/// What each big table's vacuum is at.
pub(crate) async fn outcomes(client: &Client) -> Result<Vec<(TableOutcome, bool)>, DrillError> {
    let rows = client
        .query(
            "SELECT t.relname::text, t.autovacuum_count, p.phase, p.heap_blks_total, p.heap_blks_scanned, p.index_vacuum_count
             FROM pg_stat_user_tables t LEFT JOIN pg_stat_progress_vacuum p ON p.relid = t.relid
             WHERE t.relname = ANY($1::text[]) ORDER BY t.relid",
            &[&TABLES.as_slice()],
        )
        .await
        .map_err(DrillError::sql("asking how far the vacuums are"))?;
    Ok(rows.iter().map(outcome).collect())
}

fn outcome(row: &tokio_postgres::Row) -> (TableOutcome, bool) {
    let done = row.get::<_, i64>(1) > 0;
    let total: Option<i64> = row.get(3);
    let scanned: Option<i64> = row.get(4);
    let scanned = match (scanned, total) {
        #[expect(clippy::cast_precision_loss, reason = "pages of a table of some 100 MB")]
        (Some(scanned), Some(total)) if total > 0 => scanned as f64 / total as f64,
        _ => f64::from(u8::from(done)),
    };
    let outcome = TableOutcome {
        table: row.get(0),
        finished_after_s: None,
        phase: row.get(2),
        scanned,
        index_passes: row.get::<_, Option<i64>>(5).and_then(|passes| u64::try_from(passes).ok()).unwrap_or(0),
    };
    (outcome, done)
}

/// Vacuum's cost settings as the postmaster has them after its last reload: a new session gets them, unlike an old one.
pub(crate) async fn cost_settings(url: &str) -> Result<String, DrillError> {
    let client = connect(url).await?;
    let row = client
        .query_one(
            "SELECT current_setting('autovacuum_vacuum_cost_limit'), current_setting('autovacuum_vacuum_cost_delay'),
                    current_setting('vacuum_cost_limit'), current_setting('vacuum_cost_delay')",
            &[],
        )
        .await
        .map_err(DrillError::sql("reading vacuum's cost settings"))?;
    let (limit, delay): (&str, &str) = (row.get(0), row.get(1));
    let (base_limit, base_delay): (&str, &str) = (row.get(2), row.get(3));
    Ok(format!("cost limit {limit} (base {base_limit}), delay {delay} (base {base_delay})"))
}

/// The server's version.
pub(crate) fn version(installation: &scratch::Installation) -> PgVersion {
    PgVersion(installation.version_num)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_differ_only_in_the_throttle() {
        let names = |act| act_settings(act, 16).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(ActKind::Baseline), names(ActKind::Stock));
        assert_eq!(names(ActKind::Unthrottled), names(ActKind::Guarded));
        assert!(!names(ActKind::Stock).contains(&"autovacuum_vacuum_cost_delay".to_owned()));
        assert_eq!(names(ActKind::Guarded).len(), names(ActKind::Stock).len() + 1);
    }

    #[test]
    fn data_repeats_by_seed() {
        assert_eq!(fill("members", 1_000, 3), fill("members", 1_000, 3));
        assert_ne!(fill("members", 1_000, 3), fill("members", 1_000, 4));
    }
}
