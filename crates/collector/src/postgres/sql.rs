//! All statements that the observer sends, and how PostgreSQL's major versions differ in them.
//!
//! | since | what differs |
//! |---|---|
//! | 10 | `backend_type`; below it nothing is observed |
//! | 11 | the setting `jit` |
//! | 12 | `MATERIALIZED` can be said; before, every CTE was materialised |
//! | 13 | `pg_stat_progress_analyze`; `wal_status` of slots; the wait event `VacuumDelay` |
//! | 14 | `waitstart` of locks; `query_id` of sessions; the setting `idle_session_timeout` |
//! | 16 | the setting `reserved_connections` |
//! | 17 | `pg_stat_checkpointer` takes the checkpoints out of `pg_stat_bgwriter`; `pg_stat_progress_vacuum` counts dead tuples in bytes (we read none of the renamed columns) |
//!
//! Of a query only its first word is read, where it is one of letters; the caller keeps it where it is a command of SQL.
//!
//! Rules: one round trip a reading; no row per table or session travels, only sums and bounded lists; no statement waits for a
//! user's lock; names are read as text without quotes, as autovacuum's own lines have them.

use model::PgVersion;

/// Vacuums in a reading.
pub const MAX_VACUUMS: usize = 32;
/// Roles in a reading, the most numerous first.
pub const MAX_ROLES: usize = 16;
/// Groups of connections in a reading, the most numerous first.
pub const MAX_GROUPS: usize = 16;
/// A connection counts as young for so many seconds.
pub const YOUNG_SECONDS: u32 = 10;
/// Lock waiters whose blockers are asked for: each question takes all lock partitions for an instant.
pub const MAX_WAITERS: usize = 32;
/// Replication slots in a reading, those that keep the most WAL first.
pub const MAX_SLOTS: usize = 32;
/// Tables in a reading, those with the most dead tuples first.
pub const MAX_TABLES: usize = 20;
/// Databases in a reading, the oldest first.
pub const MAX_DATABASES: usize = 32;

/// What makes our session harmless: it gives up instead of waiting, and its plans use one process. The governor changes settings
/// through the same session, so it is not read-only.
pub fn session_settings(version: PgVersion, statement_timeout: std::time::Duration) -> String {
    let major = version.major();
    let mut sql = format!(
        "SET statement_timeout = {}; SET lock_timeout = 200; SET idle_in_transaction_session_timeout = 30000; \
         SET max_parallel_workers_per_gather = 0; SET search_path = ''; SET client_min_messages = warning",
        statement_timeout.as_millis()
    );
    if major >= 11 {
        sql.push_str("; SET jit = off");
    }
    if major >= 14 {
        sql.push_str("; SET idle_session_timeout = 0");
    }
    sql
}

/// Who we are connected to and what we may see. The age of our backend lets us recognise its process in `/proc`.
pub const SERVER_INFO: &str = "\
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS started_us,
       pg_is_in_recovery() AS in_recovery,
       current_database()::text AS database,
       current_user::text AS role,
       pg_backend_pid() AS backend_pid,
       (extract(epoch FROM clock_timestamp() - a.backend_start) * 1000000)::int8 AS backend_age_us,
       r.rolsuper AS superuser,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions,
       current_setting('max_connections')::int4 AS max_connections,
       (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory,
       (SELECT setting FROM pg_settings WHERE name = 'config_file') AS config_file
FROM pg_stat_activity a, pg_roles r
WHERE a.pid = pg_backend_pid() AND r.rolname = current_user";

/// The first word of a query, where it is one of letters.
const COMMAND: &str = "upper(substring(query from '^[[:space:](]*([A-Za-z]{2,12})'))";

/// Where a session's client is; PostgreSQL hides it, and the kind of the backend, from roles without pg_read_all_stats.
const CLIENT: &str = "CASE WHEN client_addr IS NOT NULL THEN host(client_addr) WHEN backend_type IS NULL THEN 'unknown' ELSE 'local' END";

/// A session's columns, under names with a prefix.
fn long_columns(of: &str, prefix: &str) -> String {
    let columns = [
        "pid",
        "age_us",
        "database",
        "role",
        "application",
        "state",
        "state_us",
        "client",
        "command",
        "query_id",
        "holds_back",
    ];
    columns.map(|column| format!("{of}.{column} AS {prefix}_{column}")).join(", ")
}

/// One session: the head of a queue of waiters.
pub fn session(version: PgVersion) -> String {
    let query_id = if version.major() >= 14 { "query_id" } else { "NULL::int8" };
    format!(
        "SELECT pid AS head_pid, (extract(epoch FROM clock_timestamp() - xact_start) * 1000000)::int8 AS head_age_us, \
         datname::text AS head_database, usename::text AS head_role, application_name AS head_application, \
         coalesce(state, backend_type) AS head_state, \
         (extract(epoch FROM clock_timestamp() - state_change) * 1000000)::int8 AS head_state_us, \
         {CLIENT} AS head_client, {COMMAND} AS head_command, {query_id} AS head_query_id, \
         age(backend_xmin)::int8 AS head_holds_back FROM pg_stat_activity WHERE pid = $1"
    )
}

/// Sessions, the longest transaction and vacuums in one row, from one pass over `pg_stat_activity`.
pub fn activity(version: PgVersion) -> String {
    let major = version.major();
    let materialized = if major >= 12 { "MATERIALIZED" } else { "" };
    let query_id = if major >= 14 { "query_id" } else { "NULL::int8" };
    let (oldest, idlest) = (long_columns("o", "oldest"), long_columns("i", "idlest"));
    let reserved = if major >= 16 {
        "current_setting('superuser_reserved_connections')::int4 + current_setting('reserved_connections')::int4"
    } else {
        "current_setting('superuser_reserved_connections')::int4"
    };
    let (analyzing, analyze_join) = if major >= 13 {
        ("an.pid IS NOT NULL", "LEFT JOIN pg_stat_progress_analyze an ON an.pid = a.pid")
    } else {
        ("NULL::boolean", "")
    };
    format!(
        "\
WITH a AS {materialized} (
    SELECT pid, datname::text AS database, usename::text AS role,
           coalesce(application_name, '') AS application, state,
           wait_event_type AS wait_type, wait_event, xact_start, query_start, clock_timestamp() AS now,
           state_change, backend_start, {CLIENT} AS client,
           backend_type = 'client backend' OR (backend_type IS NULL AND usesysid IS NOT NULL AND datid IS NOT NULL) AS is_client,
           backend_type = 'autovacuum worker' OR (backend_type IS NULL AND usesysid IS NULL) AS is_worker,
           CASE WHEN backend_type = 'autovacuum worker' THEN left(query, 256) END AS line,
           CASE WHEN xact_start IS NOT NULL THEN {COMMAND} END AS command, {query_id} AS query_id,
           age(backend_xmin)::int8 AS holds_back
    FROM pg_stat_activity
), states AS (
    SELECT array_agg(state) AS names, array_agg(n) AS counts FROM (
        SELECT coalesce(state, 'unknown') AS state, count(*) AS n FROM a WHERE is_client GROUP BY 1) s
), roles AS (
    SELECT array_agg(role) AS names, array_agg(n) AS counts FROM (
        SELECT coalesce(role, 'unknown') AS role, count(*) AS n FROM a WHERE is_client
        GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MAX_ROLES}) r
), groups AS (
    SELECT array_agg(role) AS roles, array_agg(application) AS applications, array_agg(client) AS clients,
           array_agg(database) AS databases, array_agg(n) AS counts, array_agg(young) AS young, array_agg(idle) AS idle
    FROM (
        SELECT coalesce(role, 'unknown') AS role, application, client, coalesce(database, '') AS database, count(*) AS n,
               count(*) FILTER (WHERE now - backend_start < interval '{YOUNG_SECONDS} seconds') AS young,
               count(*) FILTER (WHERE state = 'idle') AS idle
        FROM a WHERE is_client GROUP BY 1, 2, 3, 4 ORDER BY n DESC, 1, 2, 3, 4 LIMIT {MAX_GROUPS}) g
), long AS (
    SELECT a.*, (extract(epoch FROM now - xact_start) * 1000000)::int8 AS age_us,
           (extract(epoch FROM now - state_change) * 1000000)::int8 AS state_us
    FROM a WHERE is_client AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
), oldest AS (
    SELECT * FROM long ORDER BY xact_start, pid LIMIT 1
), idlest AS (
    SELECT * FROM long WHERE state LIKE 'idle in transaction%' ORDER BY state_change, pid LIMIT 1
), totals AS (
    SELECT count(*) FILTER (WHERE is_client) AS used,
           count(*) FILTER (WHERE is_client AND state = 'active' AND wait_type <> 'Client') AS active_waiting,
           count(*) FILTER (WHERE wait_type = 'Lock') AS lock_waiting,
           (max(extract(epoch FROM now - query_start)) FILTER (WHERE wait_type = 'Lock') * 1000000)::int8 AS lock_us
    FROM a
), vacuums AS (
    SELECT array_agg(pid) AS pids, array_agg(is_worker) AS workers, array_agg(database) AS databases,
           array_agg(line) AS lines, array_agg(name) AS names, array_agg(relid) AS relations,
           array_agg(begun_us) AS begun_us, array_agg(phase) AS phases, array_agg(heap_blks_total) AS total,
           array_agg(heap_blks_scanned) AS scanned, array_agg(heap_blks_vacuumed) AS vacuumed,
           array_agg(index_vacuum_count) AS passes, array_agg(in_delay) AS in_delay, array_agg(analyzing) AS analyzing
    FROM (
        SELECT a.pid, a.is_worker, coalesce(p.datname::text, a.database) AS database, a.line,
               n.nspname || '.' || c.relname AS name, p.relid,
               (extract(epoch FROM a.xact_start) * 1000000)::int8 AS begun_us,
               p.phase, p.heap_blks_total, p.heap_blks_scanned, p.heap_blks_vacuumed, p.index_vacuum_count,
               coalesce(a.wait_event = 'VacuumDelay', false) AS in_delay, {analyzing} AS analyzing
        FROM a
        LEFT JOIN pg_stat_progress_vacuum p ON p.pid = a.pid
        {analyze_join}
        LEFT JOIN pg_class c ON c.oid = p.relid AND p.datname = current_database()
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE (a.is_worker AND a.database IS NOT NULL) OR p.pid IS NOT NULL
        ORDER BY a.xact_start NULLS LAST, a.pid LIMIT {MAX_VACUUMS}) v
)
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS started_us,
       pg_is_in_recovery() AS in_recovery,
       current_setting('max_connections')::int4 AS max_connections,
       {reserved} AS reserved,
       current_setting('autovacuum_max_workers')::int4 AS autovacuum_slots,
       t.used, t.active_waiting, t.lock_waiting, t.lock_us,
       s.names AS state_names, s.counts AS state_counts, r.names AS role_names, r.counts AS role_counts,
       g.roles AS group_roles, g.applications AS group_applications, g.clients AS group_clients,
       g.databases AS group_databases, g.counts AS group_counts, g.young AS group_young, g.idle AS group_idle,
       (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS clock_us,
       {oldest}, {idlest},
       v.*
FROM totals t, states s, roles r, groups g, vacuums v LEFT JOIN oldest o ON true LEFT JOIN idlest i ON true"
    )
}

/// Who waits for which lock's holders. Asked only while somebody waits.
pub fn lock_waits(version: PgVersion) -> String {
    let (waited, order) = if version.major() >= 14 {
        ("(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000000)::int8", "l.waitstart NULLS LAST")
    } else {
        ("NULL::int8", "l.pid")
    };
    let materialized = if version.major() >= 12 { "MATERIALIZED" } else { "" };
    // Who waits for a row waits for the transaction that changed it; the first in that queue holds the row's own lock, which names the table.
    format!(
        "\
WITH locks AS {materialized} (SELECT * FROM pg_locks), waiting AS {materialized} (
    SELECT l.*, {waited} AS waited_us FROM locks l WHERE NOT l.granted ORDER BY {order} LIMIT {MAX_WAITERS}
)
SELECT l.pid, l.waited_us, pg_blocking_pids(l.pid) AS blockers, n.nspname || '.' || c.relname AS table
FROM waiting l
LEFT JOIN pg_database d ON d.datname = current_database()
LEFT JOIN LATERAL (
    SELECT coalesce(l.relation, (SELECT t.relation FROM locks t
        WHERE t.pid = l.pid AND t.locktype = 'tuple' AND t.database = d.oid LIMIT 1)) AS relation
) r ON l.database IS NULL OR l.database = d.oid
LEFT JOIN pg_class c ON c.oid = r.relation
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace"
    )
}

/// Checkpoints, WAL, archiver and slots in one row.
pub fn wal(version: PgVersion) -> String {
    let major = version.major();
    let checkpoints = if major >= 17 {
        "SELECT num_timed AS timed, num_requested AS requested FROM pg_stat_checkpointer"
    } else {
        "SELECT checkpoints_timed AS timed, checkpoints_req AS requested FROM pg_stat_bgwriter"
    };
    let (wal_status, safe) = if major >= 13 { ("wal_status", "safe_wal_size") } else { ("NULL::text", "NULL::int8") };
    // The subquery's OFFSET keeps it apart: the position is read once, and only by the function that works in this state.
    format!(
        "\
WITH c AS ({checkpoints}), p AS (
    SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0'::pg_lsn)
                ELSE pg_current_wal_insert_lsn() END AS lsn OFFSET 0
), slots AS (
    SELECT array_agg(slot_name::text) AS names, array_agg(active) AS active, array_agg(retained) AS retained,
           array_agg(status) AS status, array_agg(safe) AS safe
    FROM (SELECT slot_name, active, {wal_status} AS status, {safe} AS safe,
                 greatest(0, coalesce(pg_wal_lsn_diff(p.lsn, restart_lsn), 0))::int8 AS retained
          FROM pg_replication_slots, p ORDER BY retained DESC LIMIT {MAX_SLOTS}) s
)
SELECT c.timed, c.requested, p.lsn::text AS lsn, pg_is_in_recovery() AS in_recovery,
       current_setting('archive_mode') <> 'off' AS archiving, a.archived_count, a.failed_count,
       a.last_failed_time IS NOT NULL
           AND (a.last_archived_time IS NULL OR a.last_failed_time > a.last_archived_time) AS failing,
       (extract(epoch FROM a.last_archived_time) * 1000000)::int8 AS last_archived_us, a.last_archived_wal,
       pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes,
       pg_size_bytes(current_setting('max_wal_size')) AS max_wal_bytes,
       extract(epoch FROM current_setting('checkpoint_timeout')::interval)::int8 AS checkpoint_timeout_s, s.*
FROM c, p, pg_stat_archiver a, slots s"
    )
}

/// The tables of our database to which vacuum owes the most.
///
/// pg_table_size would wait behind an ACCESS EXCLUSIVE lock, and waiting there can end a vacuum's truncation: a table that is so
/// locked, or is about to be, gets the size of its last analysis.
pub fn worst_tables(version: PgVersion) -> String {
    let materialized = if version.major() >= 12 { "MATERIALIZED" } else { "" };
    format!(
        "\
WITH worst AS {materialized} (
    SELECT c.oid, c.relnamespace, c.relname, c.relpages, pg_stat_get_dead_tuples(c.oid) AS dead
    FROM pg_class c WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
    ORDER BY dead DESC LIMIT {MAX_TABLES}
), locked AS {materialized} (
    SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
)
SELECT w.oid AS relation, n.nspname || '.' || w.relname AS name, w.dead, pg_stat_get_live_tuples(w.oid) AS live,
       CASE WHEN w.oid IN (SELECT relation FROM locked)
            THEN w.relpages::int8 * current_setting('block_size')::int8
            ELSE coalesce(pg_table_size(w.oid), 0) END AS size,
       (extract(epoch FROM pg_stat_get_last_autovacuum_time(w.oid)) * 1000000)::int8 AS last_autovacuum_us
FROM worst w JOIN pg_namespace n ON n.oid = w.relnamespace
WHERE w.dead > 0 ORDER BY w.dead DESC"
    )
}

/// The databases that are nearest to a wraparound, of transaction ids or of multixacts: both end at the same age.
pub fn ages() -> String {
    format!(
        "SELECT datname::text AS database, age(datfrozenxid)::int8 AS xid_age, mxid_age(datminmxid)::int8 AS multixact_age \
         FROM pg_database ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC LIMIT {MAX_DATABASES}"
    )
}
