//! Real servers: accepting, recovering, rejecting.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use scratch::{Installation, ScratchCluster};
use services::{
    health::{Answer, Progress},
    probe::{Postgres, Probe, Said},
};

/// As much as a busy machine may need.
const WITHIN: Duration = Duration::from_secs(30);

async fn ask(url: &str, data_dir: Option<&Path>) -> Said {
    Probe::Postgres(Box::new(Postgres::new(url, data_dir).unwrap())).ask(WITHIN).await
}

fn newest() -> Option<Installation> {
    scratch::newest_installation().map_err(|error| eprintln!("skipped: {error}")).ok()
}

#[tokio::test]
async fn a_server_that_accepts_or_does_not() {
    let Some(installation) = newest() else { return };
    let mut cluster = ScratchCluster::builder(&installation).setting("max_connections", "5").start().unwrap();
    let (socket, tcp, data) = (cluster.url("postgres"), cluster.tcp_url("postgres"), cluster.data_dir());
    let mut runs = Vec::new();
    for (url, data) in [(&socket, Some(&*data)), (&tcp, Some(&*data)), (&socket, None), (&tcp, None)] {
        let said = ask(url, data).await;
        assert_eq!(said.answer, Answer::Healthy);
        runs.push(said.run.unwrap());
    }
    assert!(runs[0] == runs[1] && runs[2] == runs[3], "the same run: {runs:?}");
    let Answer::Unhealthy { why } = ask(&cluster.url("no_such_database"), None).await.answer else { panic!() };
    assert!(why.contains("3D000"), "{why}");
    let unknown = cluster.url("postgres").replace("user=postgres", "user=nobody");
    let Answer::Unknown { why } = ask(&unknown, None).await.answer else { panic!() };
    assert!(why.contains("28000") && why.contains("hint: "), "{why}");
    // All places taken: alive, and of no use to anybody.
    let mut held = Vec::new();
    let full = loop {
        match tokio_postgres::connect(&tcp, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                held.push(client);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(full.code().unwrap().code(), "53300");
    let Answer::Unhealthy { why } = ask(&tcp, None).await.answer else { panic!() };
    assert!(why.contains("53300"), "{why}");
    drop(held);
    cluster.stop_fast().unwrap();
    for url in [&socket, &tcp] {
        let said = ask(url, Some(&data)).await;
        assert!(matches!(said.answer, Answer::Unhealthy { .. }), "{said:?}");
    }
    cluster.start_again().unwrap();
    for (before, data) in [(runs[0], Some(&*data)), (runs[2], None)] {
        let said = ask(&cluster.url("postgres"), data).await;
        assert!(said.answer == Answer::Healthy && said.run.is_some_and(|run| run != before), "another run: {said:?}");
    }
}

/// A server that replays, held still by a restore_command that waits for a file to come.
async fn recovery_is_told(installation: &Installation) {
    let mut cluster = ScratchCluster::builder(installation).start().unwrap();
    let (url, data) = (cluster.url("postgres"), cluster.data_dir());
    cluster.stop_fast().unwrap();
    let go = cluster.directory().join("go");
    let command = format!("while [ ! -e {0} ]; do sleep 0.1; done; false", go.display());
    let mut settings = fs::OpenOptions::new().append(true).open(data.join("postgresql.auto.conf")).unwrap();
    writeln!(settings, "restore_command = '{command}'\nhot_standby = on").unwrap();
    fs::write(data.join("recovery.signal"), "").unwrap();
    cluster.give(&data.join("recovery.signal")).unwrap();
    let starting = std::thread::spawn(move || {
        cluster.start_again().unwrap();
        cluster
    });
    let deadline = Instant::now() + WITHIN;
    let said = loop {
        let said = ask(&url, Some(&data)).await;
        if said.answer == Answer::Recovering && said.progress.is_some() {
            break said;
        }
        assert!(Instant::now() < deadline, "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(said.progress.unwrap().phase, "starting up");
    let remote = ask(&url, None).await;
    assert_eq!((remote.answer, remote.progress), (Answer::Recovering, None), "nobody tells from afar");
    fs::write(go, "").unwrap();
    let cluster = tokio::task::spawn_blocking(|| starting.join().unwrap()).await.unwrap();
    assert_eq!(ask(&url, Some(&data)).await.answer, Answer::Healthy);
    drop(cluster);
}

#[tokio::test]
async fn recovery_is_told_by_the_newest() {
    let Some(installation) = newest() else { return };
    recovery_is_told(&installation).await;
}

#[tokio::test]
async fn slow_recovery_is_told_by_all_majors() {
    for installation in scratch::installations() {
        recovery_is_told(&installation).await;
    }
}

fn startup(data: &Path) -> Option<(i32, String)> {
    let pid = fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().to_owned();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let title = fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
        title.contains(": startup").then(|| (child.parse().unwrap(), title))
    })
}

/// A crash with WAL to replay: killed, started, and stopped in the midst of its replay for us to look.
async fn crash_recovery_advances(installation: &Installation) {
    let builder = ScratchCluster::builder(installation);
    let builder = builder.setting("checkpoint_timeout", "1h").setting("max_wal_size", "4GB").setting("fsync", "off");
    let mut cluster = builder.start().unwrap();
    let (url, data) = (cluster.url("postgres"), cluster.data_dir());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    let fill = "CREATE TABLE t AS SELECT i, repeat('x', 300) AS x FROM generate_series(1, 200000) i; CREATE INDEX ON t (i); \
                UPDATE t SET i = i + 1; UPDATE t SET i = i + 1";
    client.batch_execute(fill).await.unwrap();
    cluster.kill9().unwrap();
    drop(client);
    let _ = driving.await;
    let starting = std::thread::spawn(move || {
        cluster.start_again().unwrap();
        cluster
    });
    let deadline = Instant::now() + WITHIN;
    let (pid, stopped_at) = loop {
        if let Some((pid, title)) = startup(&data)
            && title.contains("recovering")
        {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP);
            break (pid, title);
        }
        assert!(Instant::now() < deadline && !starting.is_finished(), "its replay was not seen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let pid = Pid::from_raw(pid).unwrap();
    let said = ask(&url, Some(&data)).await;
    assert_eq!(said.answer, Answer::Recovering, "{stopped_at}");
    let Some(Progress { phase, done }) = said.progress else { panic!("no progress at {stopped_at}") };
    assert_eq!(phase, "replaying WAL", "{stopped_at}");
    let later = loop {
        let _ = kill_process(pid, Signal::CONT);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = kill_process(pid, Signal::STOP);
        match ask(&url, Some(&data)).await {
            Said { answer: Answer::Recovering, progress: Some(progress), .. } if progress.phase == phase => {
                if progress.done > done {
                    break Some(progress.done);
                }
            }
            // It was quicker than we.
            _ => break None,
        }
        assert!(Instant::now() < deadline, "it doesn't advance");
    };
    let _ = kill_process(pid, Signal::CONT);
    let cluster = tokio::task::spawn_blocking(|| starting.join().unwrap()).await.unwrap();
    assert_eq!(ask(&url, Some(&data)).await.answer, Answer::Healthy);
    assert!(later.is_none_or(|later| later > done));
    drop(cluster);
}

#[tokio::test]
async fn slow_crash_recovery_advances_on_all_majors() {
    for installation in scratch::installations() {
        crash_recovery_advances(&installation).await;
    }
}
