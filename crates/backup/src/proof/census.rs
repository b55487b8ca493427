//! What is in a cluster: databases and how many objects of each kind they have. Taken when a backup is made, and again from its restore.

use std::collections::BTreeMap;

use pg_connect::Sql;
use pg_format::Major;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

/// How many databases are counted; more are named, with nothing counted in them.
pub const DATABASES_MAX: usize = 1000;

/// What is in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// How text was sorted where it was taken.
    #[serde(default)]
    pub sorting: Sorting,
    /// The databases by name, those too that can't be opened.
    pub databases: BTreeMap<String, DatabaseCensus>,
    /// Roles.
    pub roles: u64,
    /// Tablespaces, the two that initdb makes included.
    pub tablespaces: u64,
}

/// What is in a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseCensus {
    /// Its oid.
    pub oid: u32,
    /// Whether it could be opened; else nothing in it is counted.
    pub counted: bool,
    /// A sum over the oids of its relations: the same where the very same relations are there, not just as many.
    #[serde(default)]
    pub identity: String,
    /// Relations of each kind, catalogues included, temporary ones not: the keys are those of `pg_class.relkind`, spelt out.
    pub relations: BTreeMap<String, u64>,
    /// Schemas, functions, types, extensions, constraints, triggers.
    pub objects: BTreeMap<String, u64>,
    /// Rows in all tables as the server's statistics have it: an estimate.
    pub rows_estimate: u64,
    /// Bytes of all its relations.
    pub bytes: u64,
}

/// What decides the order of text, by which btree indexes are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sorting {
    /// The C library's version, as the server knows it.
    #[serde(default)]
    pub libc: Option<String>,
    /// ICU's.
    #[serde(default)]
    pub icu: Option<String>,
    /// The machine, from `version()`: "x86_64-pc-linux-gnu".
    #[serde(default)]
    pub machine: Option<String>,
}

impl Sorting {
    /// The machine, of what `version()` says.
    pub(crate) fn machine_of(version: &str) -> Option<String> {
        version.split_once(" on ").and_then(|(_, rest)| rest.split(',').next()).map(str::to_owned)
    }
}

const SORTING: &str = "SELECT \
    (SELECT max(pg_catalog.pg_collation_actual_version(oid)) FROM pg_catalog.pg_collation \
      WHERE collprovider = 'c' AND collname NOT IN ('C', 'POSIX', 'ucs_basic')), \
    (SELECT max(pg_catalog.pg_collation_actual_version(oid)) FROM pg_catalog.pg_collation WHERE collprovider = 'i' AND oid < 16384), \
    pg_catalog.version()";
/// What the restored catalogues remember of the library that their indexes were made with: from 15 on by database, before that only by
/// collation, as of initdb.
const SORTING_OF_COLLATIONS: &str = "SELECT max(collversion) FILTER (WHERE collprovider = 'c'), \
    max(collversion) FILTER (WHERE collprovider = 'i' AND oid < 16384) FROM pg_catalog.pg_collation";
const SORTING_OF_DATABASES: &str = "SELECT max(datcollversion) FROM pg_catalog.pg_database WHERE datlocprovider = 'c'";
const CLUSTER: &str =
    "SELECT (SELECT count(*) FROM pg_catalog.pg_roles), (SELECT count(*) FROM pg_catalog.pg_tablespace)";
/// datconnlimit -2: a DROP DATABASE that was interrupted; such a one can't be opened.
const DATABASES: &str =
    "SELECT datname::text, oid, datallowconn AND datconnlimit <> -2 FROM pg_catalog.pg_database ORDER BY datname";
const RELATIONS: &str = "SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 't' THEN 'toast' \
      WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialised view' WHEN 'c' THEN 'composite type' WHEN 'f' THEN 'foreign table' \
      WHEN 'p' THEN 'partitioned table' WHEN 'I' THEN 'partitioned index' ELSE relkind::text END, count(*), \
    coalesce(sum(greatest(reltuples, 0)) FILTER (WHERE relkind IN ('r', 'm')), 0)::bigint \
    FROM pg_catalog.pg_class WHERE relpersistence <> 't' GROUP BY 1";
const OBJECTS: &str = "SELECT 'schema', count(*) FROM pg_catalog.pg_namespace \
        WHERE nspname NOT LIKE 'pg\\_temp\\_%' AND nspname NOT LIKE 'pg\\_toast\\_temp\\_%' \
    UNION ALL SELECT 'function', count(*) FROM pg_catalog.pg_proc \
    UNION ALL SELECT 'extension', count(*) FROM pg_catalog.pg_extension \
    UNION ALL SELECT 'trigger', count(*) FROM pg_catalog.pg_trigger WHERE tgrelid NOT IN \
        (SELECT oid FROM pg_catalog.pg_class WHERE relpersistence = 't') \
    UNION ALL SELECT 'constraint', count(*) FROM pg_catalog.pg_constraint WHERE conrelid NOT IN \
        (SELECT oid FROM pg_catalog.pg_class WHERE relpersistence = 't')";
const IDENTITY: &str = "SELECT coalesce(sum(pg_catalog.hashoid(oid)::bigint), 0)::text FROM pg_catalog.pg_class WHERE relpersistence <> 't'";
const BYTES: &str =
    "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

/// Counts what the cluster has and names its databases, with nothing counted in them yet. Any database will do to ask in.
///
/// # Errors
/// As the server says.
pub async fn census(client: &Client) -> Result<Census, tokio_postgres::Error> {
    let sorting = client.query_one(SORTING, &[]).await?;
    let counts = client.query_one(CLUSTER, &[]).await?;
    let rows = client.query(DATABASES, &[]).await?;
    let databases = rows.iter().map(|row| {
        let database = DatabaseCensus { oid: row.get(1), counted: row.get(2), ..DatabaseCensus::default() };
        (row.get::<_, String>(0), database)
    });
    Ok(Census {
        sorting: Sorting { libc: sorting.get(0), icu: sorting.get(1), machine: Sorting::machine_of(sorting.get(2)) },
        databases: databases.collect(),
        roles: count(counts.get(0)),
        tablespaces: count(counts.get(1)),
    })
}

/// How text was sorted when the cluster's catalogues were last told. For backups of which nothing else is known.
///
/// # Errors
/// As the server says.
pub(crate) async fn remembered_sorting(client: &Client, major: Major) -> Result<Sorting, tokio_postgres::Error> {
    let row = client.query_one(SORTING_OF_COLLATIONS, &[]).await?;
    let mut sorting = Sorting { libc: row.get(0), icu: row.get(1), machine: None };
    if major >= Major::V15 {
        let database: Option<String> = client.query_one(SORTING_OF_DATABASES, &[]).await?.get(0);
        sorting.libc = database.or(sorting.libc);
    }
    Ok(sorting)
}

/// Lets every database be opened, those too that production keeps closed (`template0`), and names them. Only for a cluster that nobody keeps.
///
/// # Errors
/// As the server says.
pub(crate) async fn open_all(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    client.execute("UPDATE pg_catalog.pg_database SET datallowconn = true WHERE NOT datallowconn", &[]).await?;
    let rows = client
        .query("SELECT datname::text FROM pg_catalog.pg_database WHERE datconnlimit <> -2 ORDER BY 1", &[])
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Counts what the database of this session has.
///
/// # Errors
/// As the server says.
pub async fn database_census(client: &Client, oid: u32) -> Result<DatabaseCensus, tokio_postgres::Error> {
    let mut database = DatabaseCensus { oid, counted: true, ..DatabaseCensus::default() };
    for row in client.query(RELATIONS, &[]).await? {
        database.relations.insert(row.get(0), count(row.get(1)));
        database.rows_estimate += count(row.get(2));
    }
    for row in client.query(OBJECTS, &[]).await? {
        database.objects.insert(row.get(0), count(row.get(1)));
    }
    database.identity = client.query_one(IDENTITY, &[]).await?.get(0);
    database.bytes = count(client.query_one(BYTES, &[]).await?.get(0));
    Ok(database)
}

/// Counts everything: [`census`], then [`database_census`] in each database that can be opened. `open` makes a session in a database. One that
/// can't be opened, against expectation, counts as such.
///
/// # Errors
/// As the server says.
pub async fn full_census<F, Fut>(client: &Client, mut open: F) -> Result<Census, tokio_postgres::Error>
where
    F: FnMut(String) -> Fut,
    Fut: Future<Output = Result<Client, tokio_postgres::Error>>,
{
    let mut all = census(client).await?;
    for (index, (name, database)) in all.databases.iter_mut().enumerate() {
        if !database.counted {
            continue;
        }
        database.counted = false;
        if index < DATABASES_MAX
            && let Ok(session) = open(name.clone()).await
        {
            *database = database_census(&session, database.oid).await?;
        }
    }
    Ok(all)
}

/// [`full_census`] of the cluster that `sql` leads to, in its other databases by the same user.
///
/// # Errors
/// As the server says.
pub async fn take_census(sql: &Sql) -> Result<Census, tokio_postgres::Error> {
    async fn open(sql: Sql) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = sql.connect().await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session of the census ended");
            }
        });
        Ok(client)
    }
    let client = open(sql.clone()).await?;
    full_census(&client, |name| open(sql.in_database(&name))).await
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
