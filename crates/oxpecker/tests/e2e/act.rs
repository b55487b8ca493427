//! A guard that acts: it holds a vacuum that starves the database's core, and nothing of that outlives it, however it dies.

use std::{fs, time::Instant};

use model::EventKind;
use scratch::ScratchCluster;
use tokio_postgres::{Client, NoTls};

use crate::harness::{Guard, PATIENCE, Place, newest, run_in, said};

/// Rows of the table: enough that its vacuum, beside two busy queries on one core, outlasts the guard's decision.
const ROWS: u32 = 1_500_000;
/// The bound on how long a throttle may outlive a killed guard.
const LET_GO_WITHIN_S: u64 = 5;

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What the include file sets, comments left out.
fn settings_in(path: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn alone_a_storm_is_held_and_let_go_after_kill_9() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation)
        .cpus(&[0])
        .setting("autovacuum_naptime", "1s")
        .setting("autovacuum_vacuum_cost_delay", "0")
        .setting("fsync", "off")
        .setting("max_wal_size", "4GB")
        .start()
        .unwrap();
    let folder = cluster.directory().join("throttle");
    fs::create_dir(&folder).unwrap();
    cluster.give(&folder).unwrap();
    let include = folder.join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client
        .batch_execute(&format!(
            "select pg_reload_conf();
             create table big (id bigint, body text) with (autovacuum_enabled = false);
             insert into big select g, repeat('x', 60) from generate_series(1, {ROWS}) g;
             create index on big (id); create index on big (body, id);
             delete from big where id % 2 = 0"
        ))
        .await
        .unwrap();

    let place = Place::new();
    place.configure(&url, &format!("\n[autovacuum]\nmode = \"act\"\ninclude_file = {include:?}\n"));
    let guard = Guard::start(&place);
    place.await_status("a lever", |s| !s["governor"]["lever"].is_null());
    // Two queries that leave no core to spare; they end with their sessions.
    let mut hogs = Vec::new();
    for _ in 0..2 {
        let hog = connect(&url).await;
        let pid: i32 = hog.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        hogs.push((
            pid,
            tokio::spawn(async move { hog.batch_execute("select count(*) from generate_series(1, 4000000000)").await }),
        ));
        // The request must be on its way before this thread is blocked by waiting for the guard.
        tokio::task::yield_now().await;
    }
    client.batch_execute("alter table big set (autovacuum_enabled = true)").await.unwrap();
    let engaged = place.await_event("a hold", 0, |k| matches!(k, EventKind::ThrottleEngaged { .. }));
    let EventKind::ThrottleEngaged { tables, reason, .. } = engaged.kind else { unreachable!() };
    assert!(tables.iter().flatten().any(|t| t.0 == "public.big"), "{tables:?}: {reason}");

    guard.kill9();
    let killed = Instant::now();
    let sessions = "select count(*) from pg_stat_activity where application_name like 'oxpecker%'";
    loop {
        let left: i64 = client.query_one(sessions, &[]).await.unwrap().get(0);
        if left == 0 && settings_in(&include).is_empty() {
            break;
        }
        let elapsed = killed.elapsed();
        assert!(elapsed.as_secs() < LET_GO_WITHIN_S, "after {elapsed:?}: {left} sessions, {:?}", settings_in(&include));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let delay: String = client.query_one("show autovacuum_vacuum_cost_delay", &[]).await.unwrap().get(0);
    assert_eq!(delay, "0", "what the owner configured is in force");

    for (pid, hog) in hogs {
        client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
        assert!(hog.await.unwrap().is_err());
    }
    // Let go means that the very worker that was held goes on: its table is finished.
    let finished = "select count(*) from pg_stat_user_tables where relname = 'big' and last_autovacuum is not null";
    let waited = Instant::now();
    while client.query_one(finished, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(waited.elapsed() < PATIENCE, "the vacuum does not finish: {}", cluster.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let config = place.path().join("oxpecker.toml").display().to_string();
    let release = run_in(place.path(), &["--config", &config, "release"]);
    assert_eq!(release.status.code(), Some(0), "{}", said(&release));
}
