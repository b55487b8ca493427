//! Sessions, locks and vacuums: from the answer's row to the parts of a reading.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use model::{
    Oid, Pid, TableName,
    reading::{ConnectionGroup, Connections, LongTransaction, VacuumKind},
};
use tokio_postgres::{Error, Row};

use super::{
    locks::Waiter,
    row::{Columns, timestamp, unsigned},
    worker_line,
};

/// What one answer says, before `/proc` and the answer before are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub server_started: Timestamp,
    pub in_recovery: bool,
    pub connections: Connections,
    pub longest_transaction: Option<LongTransaction>,
    pub idle_transaction: Option<LongTransaction>,
    /// The server's clock when it answered.
    pub clock: Option<Timestamp>,
    pub lock_waiting: u32,
    /// By the beginning of the waiting queries; an upper bound.
    pub lock_longest: Duration,
    pub vacuums: Vec<VacuumRow>,
    pub autovacuum_slots: u32,
}

/// A vacuum as the server shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct VacuumRow {
    pub pid: Pid,
    pub kind: VacuumKind,
    pub database: String,
    pub table: Option<TableName>,
    pub relation: Option<Oid>,
    pub started: Option<Timestamp>,
    pub phase: Option<String>,
    pub heap_blocks: Option<u64>,
    pub heap_blocks_scanned: Option<u64>,
    pub heap_blocks_vacuumed: Option<u64>,
    pub index_passes: Option<u64>,
    pub in_delay: bool,
}

/// Decodes the row of [`super::sql::activity`].
pub fn decode(row: &Row) -> Result<Answer, Error> {
    let row = Columns(row);
    Ok(Answer {
        server_started: row.time("started_us")?.unwrap_or(Timestamp::UNIX_EPOCH),
        in_recovery: row.get("in_recovery")?,
        connections: Connections {
            used: row.small_count("used")?,
            max: row.int("max_connections")?,
            reserved: row.int("reserved")?,
            by_state: counts(row, "state_names", "state_counts")?,
            by_role: counts(row, "role_names", "role_counts")?,
            active_waiting: row.small_count("active_waiting")?,
            groups: groups(row)?,
        },
        longest_transaction: long_transaction(row, "oldest")?,
        idle_transaction: long_transaction(row, "idlest")?,
        clock: row.time("clock_us")?,
        lock_waiting: row.small_count("lock_waiting")?,
        lock_longest: Duration::from_micros(row.count("lock_us")?),
        vacuums: vacuums(row)?,
        autovacuum_slots: row.int("autovacuum_slots")?,
    })
}

/// Decodes the rows of [`super::sql::lock_waits`].
pub fn decode_waiters(rows: &[Row]) -> Result<Vec<Waiter>, Error> {
    let decode = |row| {
        let row = Columns(row);
        let waited = row.get::<Option<i64>>("waited_us")?.map(|us| Duration::from_micros(unsigned(Some(us))));
        let blockers = row.array::<i32>("blockers")?.into_iter().flatten().map(Pid).collect();
        // A prepared transaction waits for nobody, and a dead session has no pid.
        let table = row.get::<Option<String>>("table")?.map(TableName::from);
        Ok(row.get::<Option<i32>>("pid")?.map(|pid| Waiter { pid: Pid(pid), waited, blockers, table }))
    };
    rows.iter().filter_map(|row| decode(row).transpose()).collect()
}

fn counts(row: Columns<'_>, names: &str, numbers: &str) -> Result<BTreeMap<String, u32>, Error> {
    let names = row.array::<String>(names)?;
    let numbers = row.array::<i64>(numbers)?;
    let pairs = names.into_iter().zip(numbers);
    Ok(pairs.filter_map(|(name, n)| Some((name?, u32::try_from(unsigned(n)).unwrap_or(u32::MAX)))).collect())
}

fn groups(row: Columns<'_>) -> Result<Vec<ConnectionGroup>, Error> {
    let roles = row.array::<String>("group_roles")?;
    let applications = row.array::<String>("group_applications")?;
    let clients = row.array::<String>("group_clients")?;
    let databases = row.array::<String>("group_databases")?;
    let (counts, young, idle) =
        (row.array::<i64>("group_counts")?, row.array::<i64>("group_young")?, row.array::<i64>("group_idle")?);
    let number = |values: &[Option<i64>], i: usize| u32::try_from(unsigned(at(values, i))).unwrap_or(u32::MAX);
    let decode = |(i, role): (usize, Option<String>)| {
        Some(ConnectionGroup {
            role: role?,
            application: at(&applications, i).unwrap_or_default(),
            client: at(&clients, i).unwrap_or_default(),
            database: at(&databases, i).unwrap_or_default(),
            count: number(&counts, i),
            young: number(&young, i),
            idle: number(&idle, i),
        })
    };
    Ok(roles.into_iter().enumerate().filter_map(decode).collect())
}

/// Decodes the row of [`super::sql::session`]; none where the session has gone.
pub fn decode_head(row: Option<&Row>) -> Result<Option<LongTransaction>, Error> {
    row.map_or(Ok(None), |row| long_transaction(Columns(row), "head"))
}

fn long_transaction(row: Columns<'_>, prefix: &str) -> Result<Option<LongTransaction>, Error> {
    let of = |column: &str| format!("{prefix}_{column}");
    let Some(pid) = row.get::<Option<i32>>(&of("pid"))? else { return Ok(None) };
    let text = |column: &str| row.get::<Option<String>>(&of(column));
    Ok(Some(LongTransaction {
        pid: Pid(pid),
        age: Duration::from_micros(row.count(&of("age_us"))?),
        database: text("database")?.map(Into::into),
        role: text("role")?,
        application: text("application")?.unwrap_or_default(),
        state: text("state")?.unwrap_or_default(),
        state_for: Duration::from_micros(row.count(&of("state_us"))?),
        client: text("client")?,
        command: text("command")?.filter(|word| COMMANDS.contains(&word.as_str())),
        query_id: row.get::<Option<i64>>(&of("query_id"))?.filter(|id| *id != 0),
        holds_back: row.get::<Option<i64>>(&of("holds_back"))?.map(|age| unsigned(Some(age))),
        // Known when the queue of waiters is.
        blocks: 0,
    }))
}

/// The first words that are told. Any other may be no command but something that was pasted into a terminal.
const COMMANDS: [&str; 39] = [
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DECLARE",
    "DELETE",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "PREPARE",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TRUNCATE",
    "UPDATE",
    "VACUUM",
    "WITH",
];

fn vacuums(row: Columns<'_>) -> Result<Vec<VacuumRow>, Error> {
    let pids = row.array::<i32>("pids")?;
    let workers = row.array::<bool>("workers")?;
    let databases = row.array::<String>("databases")?;
    let lines = row.array::<String>("lines")?;
    let names = row.array::<String>("names")?;
    let relations = row.array::<u32>("relations")?;
    let started = row.array::<i64>("begun_us")?;
    let phases = row.array::<String>("phases")?;
    let total = row.array::<i64>("total")?;
    let scanned = row.array::<i64>("scanned")?;
    let vacuumed = row.array::<i64>("vacuumed")?;
    let passes = row.array::<i64>("passes")?;
    let in_delay = row.array::<bool>("in_delay")?;
    let analyzing = row.array::<bool>("analyzing")?;

    let number = |values: &[Option<i64>], i: usize| at(values, i).map(|n| unsigned(Some(n)));
    let decode = |(i, pid): (usize, Option<i32>)| {
        let vacuuming = at(&phases, i).is_some();
        let (kind, table) = what(
            at(&workers, i).unwrap_or(false),
            at(&lines, i).as_deref(),
            at(&names, i),
            vacuuming,
            at(&analyzing, i),
        );
        Some(VacuumRow {
            pid: Pid(pid?),
            kind,
            database: at(&databases, i).unwrap_or_default(),
            table,
            relation: at(&relations, i).map(Oid),
            started: at(&started, i).and_then(timestamp),
            phase: at(&phases, i),
            heap_blocks: number(&total, i),
            heap_blocks_scanned: number(&scanned, i),
            heap_blocks_vacuumed: number(&vacuumed, i),
            index_passes: number(&passes, i),
            in_delay: at(&in_delay, i).unwrap_or(false),
        })
    };
    Ok(pids.into_iter().enumerate().filter_map(decode).collect())
}

fn at<T: Clone>(values: &[Option<T>], i: usize) -> Option<T> {
    values.get(i).cloned().flatten()
}

/// What a process does, and to which table. A worker's line names the table in every database; the progress view only tells us
/// names in ours.
fn what(
    worker: bool,
    line: Option<&str>,
    name: Option<String>,
    vacuuming: bool,
    analyzing: Option<bool>,
) -> (VacuumKind, Option<TableName>) {
    let named = name.map(TableName::from);
    if !worker {
        return (VacuumKind::Manual, named);
    }
    let line = worker_line::parse(line.unwrap_or_default());
    let kind = match line.kind {
        VacuumKind::Autovacuum if line.analyzes && !vacuuming && analyzing == Some(true) => VacuumKind::Autoanalyze,
        kind => kind,
    };
    (kind, line.table.or(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does() {
        use VacuumKind::{AntiWraparound, Autoanalyze, Autovacuum, Manual};
        let both = "autovacuum: VACUUM ANALYZE s.t";
        for (worker, line, name, vacuuming, analyzing, kind, table) in [
            (true, Some(both), Some("s.t"), true, Some(false), Autovacuum, Some("s.t")),
            (true, Some(both), None, false, Some(true), Autoanalyze, Some("s.t")),
            // Between two steps, or on a version that does not show ANALYZE's progress.
            (true, Some(both), None, false, Some(false), Autovacuum, Some("s.t")),
            (true, Some(both), None, false, None, Autovacuum, Some("s.t")),
            (
                true,
                Some("autovacuum: VACUUM s.t (to prevent wraparound)"),
                None,
                true,
                None,
                AntiWraparound,
                Some("s.t"),
            ),
            (true, Some(""), None, false, Some(false), Autovacuum, None),
            (true, None, Some("s.t"), true, None, Autovacuum, Some("s.t")),
            (false, None, Some("s.t"), true, Some(false), Manual, Some("s.t")),
            (false, None, None, true, Some(false), Manual, None),
        ] {
            let found = what(worker, line, name.map(str::to_owned), vacuuming, analyzing);
            assert_eq!(found, (kind, table.map(TableName::from)), "{line:?} {vacuuming}");
        }
    }
}
