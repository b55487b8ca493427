//! Readings of a real PostgreSQL are true, on every major version that is installed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic, and say why they skip")]

mod common;

use std::time::Duration;

use common::{Watch, backend, client, quick, url_as};
use model::{
    EventKind, Observation, PgVersion, Pid, Reading,
    reading::{ActivityReading, VacuumKind, VacuumReading},
};
use scratch::{Installation, ScratchCluster};

on_each_major!(
    sessions_locks_and_tables_are_read_by_a_monitor,
    a_vacuum_is_seen_with_table_phase_and_cpu,
    a_role_without_rights_sees_less_and_says_so,
    slots_archiver_and_wal_are_read,
    rows_that_are_waited_for_name_their_table,
);

async fn sessions_locks_and_tables_are_read_by_a_monitor(installation: Installation) {
    let cluster = ScratchCluster::builder(&installation)
        .setting("max_connections", "23")
        .setting("superuser_reserved_connections", "2")
        .setting("autovacuum", "off")
        .start()
        .unwrap();
    common::execute(
        &cluster,
        "postgres",
        "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE TABLE public.\"Odd name\" (i int);
             CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 1000); DELETE FROM t WHERE i <= 300",
    )
    .await;
    let _idle = client(&cluster, "postgres").await;
    let mut watch = Watch::start(quick(url_as(&cluster, "postgres", "watcher")));
    let (version, in_recovery) = watch
        .event("ServerUp", |event| match event {
            EventKind::ServerUp { version, in_recovery, .. } => Some((*version, *in_recovery)),
            _ => None,
        })
        .await;
    assert_eq!((version, in_recovery), (PgVersion(installation.version_num), false));

    // At rest: the set-up connection and our own.
    let rest = watch.activity("a first reading", |_| true).await;
    assert_eq!((rest.connections.used, rest.connections.max, rest.connections.reserved), (2, 23, 2));
    assert_eq!(rest.longest_transaction, None);
    assert_eq!((rest.locks.waiting, rest.locks.head), (0, None));
    assert_eq!(rest.autovacuum_slots, 3);
    assert!(rest.own_cost.statements >= 4 && rest.own_cost.backend_cpu.is_some(), "{:?}", rest.own_cost);

    // A queue: one holds, one waits for it, one waits behind that one.
    let holder = client(&cluster, "postgres").await;
    holder.batch_execute("SET application_name = 'holder'; BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    let holder_pid = backend(&holder).await;
    let mut waiters = Vec::new();
    for statement in ["LOCK TABLE t IN ACCESS EXCLUSIVE MODE", "SELECT count(*) FROM t"] {
        let waiter = client(&cluster, "postgres").await;
        waiters.push(tokio::spawn(async move {
            let _ = waiter.batch_execute(&format!("BEGIN; {statement}; COMMIT")).await;
        }));
        let wanted = u32::try_from(waiters.len()).unwrap();
        watch.activity("one more waiter", |reading| reading.locks.waiting == wanted).await;
    }
    let queue = watch.activity("the head of the queue", |reading| reading.locks.head.is_some()).await;
    assert_eq!((queue.locks.waiting, queue.locks.head), (2, Some(holder_pid)));
    assert!(queue.locks.longest > Duration::ZERO && queue.locks.longest < common::PATIENCE);
    assert_eq!(queue.connections.used, 5);
    assert_eq!(queue.connections.by_state.get("idle in transaction"), Some(&1));
    assert_eq!(queue.connections.by_role.get("postgres"), Some(&4));
    assert_eq!(queue.connections.active_waiting, 2);
    let longest = queue.longest_transaction.as_deref().unwrap();
    assert_eq!((longest.pid, longest.application.as_str()), (holder_pid, "holder"));
    assert_eq!(longest.role.as_deref(), Some("postgres"));
    who_holds_and_who_is_there(&installation, &queue, holder_pid);

    // Statistics of ended transactions arrive within a second or so, and the locked table is read without waiting for it.
    let tables = watch
        .tables("dead tuples of t", |reading| reading.worst.iter().any(|table| table.table.as_str() == "public.t"))
        .await;
    let t = tables.worst.iter().find(|table| table.table.as_str() == "public.t").unwrap();
    assert_eq!((t.dead, t.live), (300, 700));
    assert_eq!(tables.database.as_str(), "postgres");
    let ages: Vec<&str> = tables.ages.iter().map(|age| age.database.as_str()).collect();
    assert!(["postgres", "template0", "template1"].iter().all(|name| ages.contains(name)), "{ages:?}");
    assert!(tables.ages.iter().all(|age| age.xid_age < 2_000_000));

    holder.batch_execute("COMMIT").await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    watch.activity("the queue's end", |reading| reading.locks.waiting == 0 && reading.connections.used == 3).await;
    let info = watch.session.borrow().as_ref().unwrap().info.clone();
    assert_eq!(info.postmaster.unwrap().pid, Pid(i32::try_from(cluster.postmaster_pid().unwrap()).unwrap()));
    assert_eq!(info.data_directory.unwrap(), cluster.data_dir());
    assert_eq!((info.superuser, info.sees_sessions, info.max_connections), (false, true, 23));
    let observe_only = installation.major() < PgVersion::OLDEST_FULL;
    assert_eq!(info.limitations.len(), usize::from(observe_only), "{:?}", info.limitations);
    watch.stop().await;
}

/// The queue above, as people are told of it: nothing of a query but its first word and its fingerprint.
fn who_holds_and_who_is_there(installation: &Installation, queue: &ActivityReading, holder: Pid) {
    let locks = &queue.locks;
    assert_eq!(locks.table.as_ref().map(model::TableName::as_str), Some("public.t"));
    let head = locks.head_session.as_deref().unwrap();
    for session in [head, queue.longest_transaction.as_deref().unwrap(), queue.idle_transaction.as_deref().unwrap()] {
        assert_eq!((session.pid, session.blocks, session.state.as_str()), (holder, 2, "idle in transaction"));
        assert_eq!(session.database.as_ref().map(model::DatabaseName::as_str), Some("postgres"));
        assert_eq!((session.client.as_deref(), session.application.as_str()), (Some("local"), "holder"));
        assert_eq!(session.command.as_deref(), Some("SELECT"), "its newest query");
        assert!(session.state_for > Duration::ZERO && session.state_for <= session.age, "{session:?}");
        // The fingerprint is there where something computes it, which nothing does by default.
        assert!(installation.major() >= 14 || session.query_id.is_none());
    }
    let groups = &queue.connections.groups;
    assert_eq!(groups.iter().map(|group| group.count).sum::<u32>(), queue.connections.used);
    let of = |application: &str| groups.iter().filter(|group| group.application == application).collect::<Vec<_>>();
    assert_eq!((of("holder")[0].count, of("holder")[0].idle, of("holder")[0].role.as_str()), (1, 0, "postgres"));
    assert_eq!((of("oxpecker")[0].role.as_str(), of("oxpecker")[0].database.as_str()), ("watcher", "postgres"));
    assert!(groups.iter().all(|group| group.client == "local" && group.young <= group.count));
    let ahead = queue.clock_ahead_ms.unwrap();
    assert!(ahead.abs() <= i64::try_from(queue.took.as_millis()).unwrap() + 1, "one host, one clock: {ahead} ms");
}

async fn rows_that_are_waited_for_name_their_table(installation: Installation) {
    let mut builder = ScratchCluster::builder(&installation);
    if installation.major() >= 14 {
        builder = builder.setting("compute_query_id", "on");
    }
    let cluster = builder.start().unwrap();
    common::execute(&cluster, "postgres", "CREATE TABLE accounts (i int PRIMARY KEY); INSERT INTO accounts VALUES (1)")
        .await;
    let holder = client(&cluster, "postgres").await;
    holder.batch_execute("BEGIN").await.unwrap();
    let holder_pid = backend(&holder).await;
    holder.batch_execute("/* a comment */ UPDATE accounts SET i = i").await.unwrap();
    let mut watch = Watch::start(quick(cluster.url("postgres")));
    let mut waiters = Vec::new();
    for wanted in 1..=2 {
        let waiter = client(&cluster, "postgres").await;
        waiters.push(tokio::spawn(async move {
            let _ = waiter.batch_execute("UPDATE accounts SET i = i").await;
        }));
        watch.activity("one more waiter", |reading| reading.locks.waiting == wanted).await;
    }
    let queue = watch.activity("the head of the queue", |reading| reading.locks.head_session.is_some()).await;
    assert_eq!(queue.locks.table.as_ref().map(model::TableName::as_str), Some("public.accounts"));
    let head = queue.locks.head_session.unwrap();
    assert_eq!((head.pid, head.blocks), (holder_pid, 2));
    // What begins otherwise than with a command is not told, were it a password.
    assert_eq!(head.command, None);
    assert_eq!(head.query_id.is_some(), installation.major() >= 14);
    holder.batch_execute("COMMIT").await.unwrap();
    for waiter in waiters {
        waiter.await.unwrap();
    }
    watch.stop().await;
}

fn vacuum_of<'r>(reading: &'r ActivityReading, table: &str) -> Option<&'r VacuumReading> {
    reading.vacuums.iter().find(|vacuum| vacuum.table.as_ref().is_some_and(|name| name.as_str() == table))
}

async fn a_vacuum_is_seen_with_table_phase_and_cpu(installation: Installation) {
    let cluster = ScratchCluster::builder(&installation)
        .setting("autovacuum_naptime", "1s")
        .setting("autovacuum_vacuum_cost_limit", "10")
        .setting("autovacuum_vacuum_cost_delay", "20ms")
        .setting("fsync", "off")
        .start()
        .unwrap();
    let setup = client(&cluster, "postgres").await;
    setup.batch_execute("CREATE DATABASE app").await.unwrap();
    common::execute(
        &cluster,
        "app",
        "CREATE TABLE big (i int, filler text) WITH (autovacuum_enabled = off);
         INSERT INTO big SELECT i, repeat('x', 500) FROM generate_series(1, 60000) i;
         DELETE FROM big WHERE i % 2 = 0; ALTER TABLE big SET (autovacuum_enabled = on)",
    )
    .await;

    // We are connected to another database: the table's name must come from the worker's own line.
    let mut watch = Watch::start(quick(cluster.url("postgres")));
    let reading = watch
        .activity("a vacuum of big that used CPU", |reading| {
            vacuum_of(reading, "public.big").is_some_and(|vacuum| {
                vacuum.phase.as_deref() == Some("scanning heap")
                    && vacuum.heap_blocks_scanned > Some(0)
                    && vacuum.cpu.is_some_and(|cpu| cpu.0 > 0.0)
            })
        })
        .await;
    let vacuum = vacuum_of(&reading, "public.big").unwrap();
    assert_eq!((vacuum.kind, vacuum.database.as_str()), (VacuumKind::Autovacuum, "app"));
    let row = setup
        .query_one(
            "SELECT relid, heap_blks_total FROM pg_stat_progress_vacuum WHERE pid = $1",
            &[&vacuum.process.pid.0],
        )
        .await
        .unwrap();
    assert_eq!(vacuum.relation.unwrap().0, row.get::<_, u32>(0));
    assert_eq!(vacuum.heap_blocks.unwrap(), u64::try_from(row.get::<_, i64>(1)).unwrap());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", vacuum.process.pid)).unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse::<u64>().unwrap();
    assert_eq!(vacuum.process.start_ticks, start);
    assert!(vacuum.cpu.unwrap().0 < 1.1, "{vacuum:?}");
    if installation.major() >= 13 {
        watch
            .activity("the vacuum asleep", |reading| {
                vacuum_of(reading, "public.big").is_some_and(|vacuum| vacuum.in_delay)
            })
            .await;
    }

    // Whoever waits for its table is counted; with a long deadlock_timeout such a waiter does not cancel the worker.
    let process = vacuum.process;
    let app = client(&cluster, "app").await;
    let waiter = tokio::spawn(async move {
        let _ = app.batch_execute("SET deadlock_timeout = '1min'").await;
        let _ = app.batch_execute("BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE; COMMIT").await;
    });
    watch
        .activity("a session behind the vacuum", |reading| {
            vacuum_of(reading, "public.big").is_some_and(|vacuum| vacuum.blocks == 1)
        })
        .await;
    setup.execute("SELECT pg_terminate_backend($1)", &[&process.pid.0]).await.unwrap();
    let (seen_for, cpu_time) = watch
        .event("VacuumGone", |event| match event {
            EventKind::VacuumGone { process: gone, seen_for, cpu_time, .. } if *gone == process => {
                Some((*seen_for, *cpu_time))
            }
            _ => None,
        })
        .await;
    assert!(seen_for > Duration::ZERO && cpu_time > Duration::ZERO && cpu_time < seen_for * 2);
    waiter.await.unwrap();
    watch.stop().await;
}

async fn a_role_without_rights_sees_less_and_says_so(installation: Installation) {
    let cluster = ScratchCluster::builder(&installation).start().unwrap();
    let setup = client(&cluster, "postgres").await;
    setup.batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
    setup.batch_execute("BEGIN").await.unwrap();
    let mut watch = Watch::start(quick(url_as(&cluster, "postgres", "plain")));
    let reading = watch.activity("a reading", |_| true).await;
    assert_eq!(reading.connections.used, 2);
    assert_eq!(reading.connections.by_state.get("unknown"), Some(&1), "{:?}", reading.connections);
    assert_eq!(reading.longest_transaction, None, "others' transactions are hidden");
    assert_eq!(reading.idle_transaction, None);
    let clients: Vec<&str> = reading.connections.groups.iter().map(|group| group.client.as_str()).collect();
    assert!(clients.contains(&"unknown") && clients.contains(&"local"), "{:?}", reading.connections.groups);
    watch.wal("a WAL reading", |_| true).await;
    watch.tables("a tables reading", |reading| !reading.ages.is_empty()).await;
    let info = watch.session.borrow().as_ref().unwrap().info.clone();
    assert!(!info.sees_sessions);
    assert!(info.limitations.iter().any(|text| text.contains("GRANT pg_monitor TO plain")), "{:?}", info.limitations);
    assert_eq!(info.config_file, None);
    watch.stop().await;
}

async fn slots_archiver_and_wal_are_read(installation: Installation) {
    let cluster = ScratchCluster::builder(&installation)
        .setting("wal_level", "replica")
        .setting("archive_mode", "on")
        .setting("archive_command", "false")
        .start()
        .unwrap();
    let setup = client(&cluster, "postgres").await;
    setup.batch_execute("SELECT pg_create_physical_replication_slot('kept', true)").await.unwrap();
    let mut watch = Watch::start(quick(cluster.url("postgres")));
    let first = watch.wal("a first WAL reading", |_| true).await;
    assert_eq!(first.wal_per_second, None);
    assert!(first.archiver.enabled && first.lsn.0 > 0);
    assert_eq!((first.max_wal, first.archiver.behind), (Some(model::ByteSize(1 << 30)), None));
    assert_eq!(first.checkpoint_timeout, Some(Duration::from_secs(300)));
    setup
        .batch_execute("CREATE TABLE w AS SELECT generate_series(1, 50000) AS i; SELECT pg_switch_wal(); CHECKPOINT")
        .await
        .unwrap();
    let later = watch
        .wal("WAL, a checkpoint and a failed archive command", |reading| {
            reading.lsn > first.lsn
                && reading.checkpoints_requested > first.checkpoints_requested
                && reading.archiver.failing
                && reading.slots.first().is_some_and(|slot| slot.retained.0 > 1_000_000)
        })
        .await;
    assert!(later.archiver.failed > 0 && later.archiver.archived == 0 && later.archiver.last_archived.is_none());
    let slot = &later.slots[0];
    assert_eq!((slot.name.as_str(), slot.active), ("kept", false));
    let expected = (installation.major() >= 13).then_some("reserved");
    assert_eq!(slot.wal_status.as_deref(), expected);
    setup.batch_execute("ALTER SYSTEM SET archive_command = 'true'").await.unwrap();
    setup.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let archived = watch.wal("an archive that works", |reading| reading.archiver.behind.is_some()).await;
    assert!(archived.archiver.behind < Some(model::ByteSize(64 << 20)), "{:?}", archived.archiver);
    watch.stop().await;
}

/// At rest a minute costs 60 readings of activity, 6 of WAL and one of tables, which is two statements: 68 statements.
#[test]
fn the_number_of_statements_at_rest_is_bounded() {
    let Some(newest) = scratch::newest_installation().ok() else {
        println!("skipped: no PostgreSQL is installed (cargo xtask testbed)");
        return;
    };
    common::on_major(newest.major(), |installation| async move {
        let cluster = ScratchCluster::builder(&installation)
            .setting("log_statement", "all")
            .setting("log_line_prefix", "%a|")
            .start()
            .unwrap();
        // The server's own count of what we send, independent of ours.
        let logged = || {
            let log = std::fs::read_to_string(cluster.log_path()).unwrap();
            let ours = log.lines().filter(|line| line.starts_with("oxpecker|"));
            u64::try_from(ours.filter(|line| line.contains("statement:") || line.contains("execute ")).count()).unwrap()
        };
        let mut watch = Watch::start(collector::postgres::PgOptions::new(cluster.url("postgres")));
        let mut readings = [0u32; 3];
        let first = watch.activity("a first reading", |_| true).await;
        let last = watch
            .until("ten seconds", |observation| {
                match observation {
                    Observation::Reading(Reading::Activity(reading)) => {
                        readings[0] += 1;
                        return (reading.at.since(first.at) >= Duration::from_millis(10_500)).then(|| reading.clone());
                    }
                    Observation::Reading(Reading::Wal(_)) => readings[1] += 1,
                    Observation::Reading(Reading::Tables(_)) => readings[2] += 1,
                    _ => {}
                }
                None
            })
            .await;
        assert!((10..=12).contains(&readings[0]) && readings[1] == 2 && readings[2] == 1, "{readings:?}");
        let sent = last.own_cost.statements - first.own_cost.statements;
        assert_eq!(sent, u64::from(readings[0] + readings[1] + 2 * readings[2]));
        assert!(logged().abs_diff(last.own_cost.statements) <= 1, "{} logged, {:?}", logged(), last.own_cost);
        let share = last.own_cost.backend_cpu.unwrap().as_secs_f64() / last.at.since(first.at).as_secs_f64();
        println!("own backend: {:.3} % of a core, debug build of ours, {} statements", share * 100.0, sent);
        assert!(share < collector::postgres::OWN_SHARE, "{share}");
        watch.stop().await;
    });
}

/// Our backend's CPU time against a database with 1,000 tables; half a per cent of a core is the goal of the whole guard.
#[test]
fn a_thousand_tables_cost_the_server_little() {
    const MOST: f64 = 0.01;
    let Some(newest) = scratch::newest_installation().ok() else {
        println!("skipped: no PostgreSQL is installed (cargo xtask testbed)");
        return;
    };
    common::on_major(newest.major(), |installation| async move {
        let cluster = ScratchCluster::builder(&installation).setting("fsync", "off").start().unwrap();
        let create = "DO $$BEGIN FOR i IN 1..1000 LOOP
                          EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', i);
                          EXECUTE format('INSERT INTO t%s SELECT g FROM generate_series(1, 10) g', i);
                          EXECUTE format('DELETE FROM t%s WHERE id <= 5', i);
                      END LOOP; END$$";
        common::execute(&cluster, "postgres", create).await;
        let mut watch = Watch::start(collector::postgres::PgOptions::new(cluster.url("postgres")));
        let tables = watch.tables("a tables reading", |reading| reading.worst.len() == 20).await;
        assert!(tables.worst.iter().all(|table| table.dead > 0 && table.size.0 > 0));
        // From here on the session's caches are warm: what comes is what a minute costs, less one reading of tables.
        let first = watch.activity("a reading", |_| true).await;
        let last =
            watch.activity("eight seconds", |reading| reading.at.since(first.at) >= Duration::from_secs(8)).await;
        let window = last.at.since(first.at).as_secs_f64();
        let before = first.own_cost.backend_cpu.unwrap();
        let used = last.own_cost.backend_cpu.unwrap() - before;
        println!(
            "until the first tables reading {before:?}, then {:.3} % of a core",
            used.as_secs_f64() / window * 100.0
        );
        assert!(used.as_secs_f64() / window < MOST, "{used:?} in {window} s");
        watch.stop().await;
    });
}
