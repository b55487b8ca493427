//! Tables and indexes, by the extension amcheck: what `pg_amcheck --heapallindexed` does, relation by relation, so that each failure comes with
//! its SQLSTATE and the collations of its index.

use std::collections::VecDeque;

use futures_util::future::join_all;
use tokio_postgres::{Client, error::SqlState};

use crate::proof::{
    error::Halt,
    receipt::{Check, CheckName, Outcome},
    session::{Door, explain, is_hosts_fault, judge},
    settings::Session,
};

/// How many sessions check side by side.
const SESSIONS: usize = 2;
/// Where the extension is put: not among the user's objects.
const INSTALL: &str =
    "CREATE SCHEMA IF NOT EXISTS oxpecker_proof; CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA oxpecker_proof";
const WHERE_INSTALLED: &str = "SELECT pg_catalog.quote_ident(n.nspname), \
      pg_catalog.to_regprocedure(pg_catalog.quote_ident(n.nspname) || '.verify_heapam(regclass,boolean,boolean,text,bigint,bigint)') IS NOT NULL \
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
/// Tables, materialised views and TOAST tables that are heaps with files of their own.
const TABLES: &str = "SELECT c.oid, c.oid::regclass::text, pg_catalog.pg_relation_size(c.oid) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam \
    WHERE c.relkind IN ('r', 'm', 't') AND a.amname = 'heap' AND c.relpersistence <> 't' ORDER BY 3 DESC";
/// Btree indexes that are in use. The last column: whether any of its columns is sorted as the host's libraries say.
const INDEXES: &str = "SELECT c.oid, c.oid::regclass::text, pg_catalog.pg_relation_size(c.oid), EXISTS (SELECT FROM \
      pg_catalog.unnest(i.indcollation) AS u(by) JOIN pg_catalog.pg_collation o ON o.oid = u.by WHERE o.collname NOT IN ('C', 'POSIX', 'ucs_basic')) \
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam \
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid AND i.indislive ORDER BY 3 DESC";

/// The checks of all databases.
#[derive(Debug)]
pub(crate) struct Structure {
    pub(crate) databases: Check,
    pub(crate) tables: Check,
    pub(crate) indexes: Check,
}

/// One thing to check.
#[derive(Clone, Debug)]
struct Task {
    sql: String,
    name: String,
    /// An index, and whether it is sorted as the host's libraries say.
    index: Option<bool>,
}

enum Found {
    Nothing,
    Rows(Vec<String>),
    Error(tokio_postgres::Error),
}

/// Checks all databases. `sorting` says why text may be sorted otherwise here than on the original's host, if it may.
pub(crate) async fn check(
    door: &Door,
    databases: &[String],
    sorting: Option<&str>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Structure, Halt> {
    let mut all = Structure {
        databases: Check::new(CheckName::Databases, "each was opened"),
        tables: Check::new(CheckName::Tables, "amcheck: verify_heapam"),
        indexes: Check::new(CheckName::Indexes, "amcheck: bt_index_check with heapallindexed"),
    };
    for database in databases {
        if cancelled() {
            return Err(Halt::not_proven("the proof was cancelled"));
        }
        all.databases.examined += 1;
        let client = match door.open(database, Session::Ours).await {
            Ok(client) => client,
            Err(error) => {
                let outcome = if is_hosts_fault(&error) { Outcome::Broken } else { Outcome::Failed };
                all.databases.find(outcome, &format!("{database} can't be opened: {}", explain(&error)));
                continue;
            }
        };
        check_database(door, database, &client, sorting, &mut all, cancelled).await?;
    }
    // Nothing to look at is no success.
    for check in [&mut all.tables, &mut all.indexes] {
        if check.examined == 0 && check.outcome == Outcome::Passed {
            check.outcome = Outcome::NotChecked;
        }
    }
    Ok(all)
}

async fn check_database(
    door: &Door,
    database: &str,
    client: &Client,
    sorting: Option<&str>,
    all: &mut Structure,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), Halt> {
    // Whether or not it was there before: this is a copy that nobody keeps.
    if let Err(error) = client.batch_execute(INSTALL).await {
        let why = format!("amcheck can't be installed: {}", explain(&error));
        for check in [&mut all.tables, &mut all.indexes] {
            check.find(Outcome::NotChecked, &format!("{database}: {why}"));
        }
        return Ok(());
    }
    let tasks =
        tasks(client).await.map_err(|error| judge(&error, &format!("the catalogues of {database} can't be read")));
    let (tasks, heaps) = match tasks {
        Ok(tasks) => tasks,
        Err(halt) => {
            all.databases.find(Outcome::Failed, &halt.reason);
            return Ok(());
        }
    };
    if !heaps {
        all.tables.find(Outcome::NotChecked, &format!("{database}: this version's amcheck does not check tables"));
    }
    let queue = std::cell::RefCell::new(VecDeque::from(tasks));
    let results = std::cell::RefCell::new(Vec::new());
    let worker = async |client: &Client| {
        loop {
            let task = queue.borrow_mut().pop_front();
            let Some(task) = task.filter(|_| !cancelled()) else { return };
            let found = run(client, &task).await;
            let broken = client.is_closed();
            results.borrow_mut().push((task, found));
            if broken {
                return;
            }
        }
    };
    // As many more as can be had; the first is there.
    let mut others = Vec::new();
    for _ in 1..SESSIONS {
        others.extend(door.open(database, Session::Ours).await.ok());
    }
    join_all(std::iter::once(client).chain(&others).map(worker)).await;
    if cancelled() {
        return Err(Halt::not_proven("the proof was cancelled"));
    }
    let gone = client.is_closed();
    for (task, found) in results.into_inner() {
        let check = if task.index.is_some() { &mut all.indexes } else { &mut all.tables };
        check.examined += 1;
        for (outcome, text) in judge_found(&task, found, sorting) {
            check.find(outcome, &format!("{database}: {}: {text}", task.name));
        }
    }
    if gone {
        return Err(Halt::failed(format!("the server ended while {database} was checked")));
    }
    Ok(())
}

/// What there is to check, largest first, and whether tables can be.
async fn tasks(client: &Client) -> Result<(Vec<Task>, bool), tokio_postgres::Error> {
    let place = client.query_one(WHERE_INSTALLED, &[]).await?;
    let (schema, heaps): (String, bool) = (place.get(0), place.get(1));
    let mut tasks = Vec::new();
    if heaps {
        for row in client.query(TABLES, &[]).await? {
            let oid: u32 = row.get(0);
            let sql = format!(
                "SELECT 'block ' || coalesce(blkno::text, '?') || coalesce(', item ' || offnum, '') || ': ' || msg \
                 FROM {schema}.verify_heapam({oid}::regclass, check_toast => true) LIMIT {}",
                crate::proof::receipt::FINDINGS_MAX
            );
            tasks.push((row.get::<_, i64>(2), Task { sql, name: row.get(1), index: None }));
        }
    }
    for row in client.query(INDEXES, &[]).await? {
        let oid: u32 = row.get(0);
        let sql = format!("SELECT {schema}.bt_index_check({oid}::regclass, true)::text");
        tasks.push((row.get::<_, i64>(2), Task { sql, name: row.get(1), index: Some(row.get(3)) }));
    }
    tasks.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    Ok((tasks.into_iter().map(|(_, task)| task).collect(), heaps))
}

async fn run(client: &Client, task: &Task) -> Found {
    match client.query(&task.sql, &[]).await {
        Ok(_) if task.index.is_some() => Found::Nothing,
        Ok(rows) if rows.is_empty() => Found::Nothing,
        Ok(rows) => Found::Rows(rows.iter().map(|row| row.get(0)).collect()),
        Err(error) => Found::Error(error),
    }
}

fn judge_found(task: &Task, found: Found, sorting: Option<&str>) -> Vec<(Outcome, String)> {
    match found {
        Found::Nothing => Vec::new(),
        Found::Rows(rows) => rows.into_iter().map(|row| (Outcome::Failed, row)).collect(),
        Found::Error(error) => {
            let corrupt = [SqlState::INDEX_CORRUPTED, SqlState::DATA_CORRUPTED];
            let is_corrupt = error.code().is_some_and(|code| corrupt.contains(code));
            let text = explain(&error);
            match (sorting, task.index) {
                (Some(why), Some(true)) if is_corrupt => {
                    vec![(Outcome::NotComparable, format!("{text}; but its text may be sorted otherwise here: {why}"))]
                }
                _ if is_hosts_fault(&error) => vec![(Outcome::Broken, text)],
                _ => vec![(Outcome::Failed, text)],
            }
        }
    }
}
