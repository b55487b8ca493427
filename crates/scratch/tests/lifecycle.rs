//! Against every PostgreSQL that is installed: a cluster lives, restarts, crashes, and leaves nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use scratch::{Installation, ScratchCluster, Storage, processes_below};
use tokio_postgres::NoTls;

/// One row, one column, as text.
fn query(url: &str, sql: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        let row = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.unwrap_or_default().to_owned()
    })
}

fn newest() -> Option<Installation> {
    let newest = scratch::newest_installation();
    if let Err(error) = &newest {
        println!("skipped: {error}");
    }
    newest.ok()
}

/// Starts, answers, restarts, crashes, and leaves nothing.
fn live_through(installation: &Installation) {
    println!("{} in {}", installation.version_num, installation.bin_dir.display());
    let mut cluster = ScratchCluster::builder(installation).setting("work_mem", "5MB").start().unwrap();
    let (directory, url) = (cluster.directory().to_owned(), cluster.url("postgres"));
    assert_eq!(query(&url, "show server_version_num"), installation.version_num.to_string());
    assert_eq!(query(&cluster.tcp_url("postgres"), "show work_mem"), "5MB");
    assert_eq!(query(&url, "select source from pg_settings where name = 'work_mem'"), "configuration file");
    query(&url, "create table t as select 1 as a");

    cluster.stop_fast().unwrap();
    assert_eq!(cluster.postmaster_pid(), None);
    assert_eq!(processes_below(&directory), []);
    cluster.start_again().unwrap();
    assert_eq!(query(&url, "select count(*) from t"), "1");
    assert!(cluster.start_again().is_err(), "it runs already");

    cluster.kill9().unwrap();
    assert_eq!(processes_below(&directory), []);
    cluster.start_again().unwrap();
    assert_eq!(query(&url, "select count(*) from t"), "1");
    assert!(!processes_below(&directory).is_empty(), "the check below can fail");

    drop(cluster);
    assert_eq!(processes_below(&directory), []);
    assert!(!directory.exists());
}

/// One test for each major version, so that each has its own time limit and two run at once.
macro_rules! lives_through {
    ($($name:ident: $major:literal,)*) => {
        $(#[test]
        fn $name() {
            match scratch::installation($major) {
                Ok(installation) => live_through(&installation),
                Err(error) => println!("skipped: {error}"),
            }
        })*
    };
}

lives_through! {
    version_12: 12,
    version_13: 13,
    version_14: 14,
    version_15: 15,
    version_16: 16,
    version_17: 17,
    version_18: 18,
}

#[test]
fn builds_beside_the_newest_of_their_major() {
    let all = scratch::installations();
    let others = all.iter().filter(|one| scratch::installation(one.major()).is_ok_and(|newest| newest != **one));
    let tried = others.map(live_through).count();
    if tried == 0 {
        println!("skipped: no major version is installed twice");
    }
}

#[test]
fn a_crashed_cluster_leaves_no_shared_memory() {
    let Some(installation) = newest() else { return };
    let segments = || {
        let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let ids = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned));
        ids.collect::<Vec<_>>()
    };
    let mut cluster = ScratchCluster::builder(&installation).start().unwrap();
    let pid_file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
    let id = pid_file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", cluster.postmaster_pid().unwrap())).unwrap();
    let posix =
        maps.split_whitespace().find(|word| word.starts_with("/dev/shm/PostgreSQL.")).map(PathBuf::from).unwrap();
    cluster.kill9().unwrap();
    assert!(segments().contains(&id) && posix.exists(), "a killed postmaster leaves them, or this test proves nothing");
    drop(cluster);
    assert!(!segments().contains(&id) && !posix.exists());
}

#[test]
fn settings_of_a_later_include_win_and_disappear_with_the_file() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation).setting("work_mem", "5MB").start().unwrap();
    let file = cluster.directory().join("throttle.conf");
    cluster.include_line(&file).unwrap();
    let reload = |expected: &str| {
        query(&cluster.url("postgres"), "select pg_reload_conf()");
        let deadline = Instant::now() + Duration::from_secs(10);
        while query(&cluster.url("postgres"), "show work_mem") != expected {
            assert!(Instant::now() < deadline, "work_mem is not {expected}");
        }
    };
    std::fs::write(&file, "work_mem = '7MB'\n").unwrap();
    cluster.give(&file).unwrap();
    reload("7MB");
    std::fs::remove_file(&file).unwrap();
    reload("5MB");
}

#[test]
fn a_template_is_copied_and_a_running_one_refused() {
    let Some(installation) = newest() else { return };
    let original = ScratchCluster::builder(&installation).start().unwrap();
    query(&original.url("postgres"), "create table t as select 42 as a");
    let refused = ScratchCluster::builder(&installation).template_of(original.data_dir()).start();
    assert!(matches!(refused, Err(scratch::ScratchError::Template { .. })), "{refused:?}");
    let template = original.into_data_dir().unwrap();
    let [one, two] =
        [(); 2].map(|()| ScratchCluster::builder(&installation).template_of(template.path()).start().unwrap());
    query(&one.url("postgres"), "drop table t");
    assert_eq!(query(&two.url("postgres"), "select a from t"), "42");
    assert_ne!(one.tcp_port(), two.tcp_port());
}

#[test]
fn affinity_and_tmpfs() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation).cpus(&[0]).tmpfs(true).start().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.postmaster_pid().unwrap())).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    match cluster.storage() {
        Storage::Tmpfs => assert!(cluster.data_dir().starts_with("/dev/shm")),
        Storage::Disk { why } => assert!(why.is_some(), "asked for tmpfs and not told why not"),
    }
    let greedy = ScratchCluster::builder(&installation).tmpfs(true).tmpfs_room(u64::MAX).start().unwrap();
    assert!(matches!(greedy.storage(), Storage::Disk { why: Some(_) }));
}

#[test]
fn what_keeps_a_server_from_starting_is_in_the_error() {
    let Some(installation) = newest() else { return };
    let error = ScratchCluster::builder(&installation).setting("max_connections", "lots").start().unwrap_err();
    assert!(error.to_string().contains("invalid value for parameter \"max_connections\""), "{error}");
}

#[test]
fn another_initdb_has_another_identity() {
    let Some(installation) = newest() else { return };
    let id =
        |cluster: &ScratchCluster| query(&cluster.url("postgres"), "select system_identifier from pg_control_system()");
    let fresh = ScratchCluster::builder(&installation).fresh().start().unwrap();
    let copied = ScratchCluster::builder(&installation).start().unwrap();
    assert_ne!(id(&fresh), id(&copied));
}

/// Not a test: the process that [`a_cluster_dies_with_its_killed_parent`] kills.
#[test]
#[ignore = "started by another test"]
fn holder() {
    let cluster = ScratchCluster::builder(&scratch::newest_installation().unwrap()).start().unwrap();
    println!("\nholding {} {}", cluster.postmaster_pid().unwrap(), cluster.directory().display());
    // Until killed.
    loop {
        std::thread::park();
    }
}

#[test]
fn a_cluster_dies_with_its_killed_parent() {
    let Some(installation) = newest() else { return };
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("holding ")).expect("the holder's report");
    let directory = PathBuf::from(line.split(' ').nth(2).unwrap());
    assert!(!processes_below(&directory).is_empty());
    parent.kill().unwrap();
    parent.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_below(&directory).is_empty() {
        assert!(Instant::now() < deadline, "still there: {:?}", processes_below(&directory));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The directory can't go by itself; the next cluster clears it away.
    assert!(directory.exists());
    drop(ScratchCluster::builder(&installation).start().unwrap());
    assert!(!directory.exists());
}

#[test]
fn a_cluster_that_was_left_runs_without_a_parent() {
    let Some(installation) = newest() else { return };
    let left = ScratchCluster::builder(&installation).start().unwrap().leave_running().unwrap();
    assert_eq!(query(&left.url, "select 1"), "1");
    let status = Command::new("kill").args(["-INT", &left.postmaster_pid.to_string()]).status().unwrap();
    assert!(status.success());
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes_below(&left.directory).iter().any(|process| process.command.contains("-D")) {
        assert!(Instant::now() < deadline, "still there: {:?}", processes_below(&left.directory));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::remove_dir_all(&left.directory).unwrap();
}
