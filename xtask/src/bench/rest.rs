//! What the guard costs at rest: its CPU and memory beside a database of 1,000 tables, and what its queries cost PostgreSQL.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use scratch::ScratchCluster;

use super::{program::Guard, report::Table};

/// Tables of the database.
const TABLES: u32 = 1_000;
/// Until the first, dearer readings are over.
const SETTLE: Duration = Duration::from_secs(15);
/// The measured time: the dearest reading comes once a minute.
const MEASURED: Duration = Duration::from_secs(120);
/// The goals.
const GOAL_CORE_PERCENT: f64 = 0.5;
const GOAL_RESIDENT_MIB: f64 = 15.0;

/// Measures and prints.
pub fn run(_: &super::Args) -> Result<()> {
    let installation = scratch::newest_installation()?;
    let cluster = ScratchCluster::builder(&installation).start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await?;
        let task = tokio::spawn(connection);
        let sql = format!(
            "do $$ begin for i in 1..{TABLES} loop
               execute format('create table t_%s (id bigint primary key, body text)', i);
               execute format('insert into t_%s select g, repeat(''x'', 100) from generate_series(1, 100) g', i);
               commit;
             end loop; end $$"
        );
        client.batch_execute(&sql).await.context("creating the tables")?;
        drop(client);
        task.await??;
        anyhow::Ok(())
    })?;
    let guard = Guard::start(&cluster.url("postgres"), "")?;
    std::thread::sleep(SETTLE);
    let (cpu_before, status_before) = (guard.cpu_seconds()?, guard.status()?);
    std::thread::sleep(MEASURED);
    let (cpu_after, status) = (guard.cpu_seconds()?, guard.status()?);
    let resident: Vec<(String, f64)> = guard.resident_mib()?;

    let own = |status: &serde_json::Value, key: &str| status["activity"]["own_cost"][key].clone();
    let seconds = |value: serde_json::Value| Some(value["secs"].as_f64()? + value["nanos"].as_f64()? / 1e9);
    let cpu_of_server =
        seconds(own(&status, "backend_cpu")).zip(seconds(own(&status_before, "backend_cpu"))).map(|(a, b)| a - b);
    let statements =
        own(&status, "statements").as_f64().zip(own(&status_before, "statements").as_f64()).map(|(a, b)| a - b);
    let measured = MEASURED.as_secs_f64();
    let core_percent = (cpu_after - cpu_before) / measured * 100.0;

    let mut table = Table::new(&["what", "measured", "goal", ""]);
    table.judged("guard's CPU, % of one core", core_percent, 2, GOAL_CORE_PERCENT);
    for (index, (name, mib)) in resident.iter().enumerate() {
        let what = format!("resident memory of {name}, MiB");
        if index == 0 { table.judged(&what, *mib, 1, GOAL_RESIDENT_MIB) } else { table.figure(&what, *mib, 1) }
    }
    match cpu_of_server {
        Some(cpu) => table.figure("CPU of its backend in PostgreSQL, % of one core", cpu / measured * 100.0, 3),
        None => table.row(&["CPU of its backend in PostgreSQL", "not visible here", "", ""]),
    }
    if let Some(statements) = statements {
        table.figure("statements a minute", statements / measured * 60.0, 0);
    }
    let version = fs::read_to_string(cluster.data_dir().join("PG_VERSION")).unwrap_or_default();
    table.print(&format!("Guard at rest, {TABLES} tables, PostgreSQL {}, {MEASURED:?} measured", version.trim()));
    Ok(())
}
