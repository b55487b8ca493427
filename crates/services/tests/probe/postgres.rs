//! Real servers: accepting, recovering, rejecting.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
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

/// A server that shuts down, held in it by an archive_command that waits for a file to come; and one that was killed meanwhile.
#[tokio::test]
async fn a_shutdown_is_told_until_it_is_over() {
    let Some(installation) = newest() else { return };
    let go = tempfile::tempdir().unwrap();
    let open = go.path().join("go");
    // The server runs as another user where the tests run as root.
    fs::set_permissions(go.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let command = format!("while [ ! -e {0} ]; do sleep 0.1; done", open.display());
    let builder = ScratchCluster::builder(&installation).setting("archive_mode", "on");
    let cluster = builder.setting("archive_command", &command).start().unwrap();
    let (url, data) = (cluster.url("postgres"), cluster.data_dir());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let session = tokio::spawn(connection);
    client.batch_execute("CREATE TABLE t (); SELECT pg_switch_wal()").await.unwrap();
    let postmaster = Pid::from_raw(cluster.postmaster_pid().unwrap().try_into().unwrap()).unwrap();
    kill_process(postmaster, Signal::INT).unwrap();
    let deadline = Instant::now() + WITHIN;
    let said = loop {
        let said = ask(&url, Some(&data)).await;
        if said.answer == Answer::Stopping && said.progress.is_some() {
            break said;
        }
        assert!(Instant::now() < deadline, "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(said.progress.unwrap().phase, "shutting down");
    // From afar, by what it says; and where it says nothing at all, by its file.
    assert_eq!(ask(&url, None).await.answer, Answer::Stopping);
    let silent = tempfile::tempdir().unwrap();
    let elsewhere = format!("host={} user=postgres", silent.path().display());
    assert_eq!(ask(&elsewhere, Some(&data)).await.answer, Answer::Stopping);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = format!("host=127.0.0.1 port={} user=postgres", listener.local_addr().unwrap().port());
    let probe = Probe::Postgres(Box::new(Postgres::new(&mute, Some(&data)).unwrap()));
    assert_eq!(probe.ask(Duration::from_millis(300)).await.answer, Answer::Stopping);
    // Killed in the midst of it, it leaves a file that says "stopping", and nobody who does.
    kill_process(postmaster, Signal::KILL).unwrap();
    fs::write(&open, "").unwrap();
    let deadline = Instant::now() + WITHIN;
    loop {
        let said = ask(&url, Some(&data)).await;
        if matches!(said.answer, Answer::Unhealthy { .. }) {
            break;
        }
        assert!(Instant::now() < deadline, "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    assert_eq!(left.lines().nth(7).map(str::trim), Some("stopping"));
    drop((client, session));
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
