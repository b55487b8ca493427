//! Running servers: stock ones of each major version, one that is careless, one that hides things, and things that only look like a server.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on fails; what it saw is worth printing"
)]

mod common;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpListener,
    time::{Duration, Instant},
};

use audit::{Options, Report, facts::Collector, source};
use jiff::civil::date;
use pg_connect::Sql;
use scratch::{Installation, ScratchCluster};

fn audit(url: &str) -> Report {
    let sql = Sql::parse(url).unwrap();
    let server = source::live::ask(&sql, "main");
    let mut collector = Collector::new(date(2026, 11, 23));
    collector.host(source::host::look(server.as_ref().ok(), source::live::is_local(sql.target()), None));
    collector.server(server);
    audit::audit(collector, &Options::default())
}

fn newest() -> Option<Installation> {
    let found = scratch::installations().into_iter().find(|one| (13..=18).contains(&one.major()));
    if found.is_none() {
        println!("skipped: no PostgreSQL 13 to 18 is installed; `cargo xtask testbed` fetches them");
    }
    found
}

fn checks(report: &Report) -> BTreeSet<&str> {
    report.findings.iter().map(|finding| finding.check).collect()
}

fn run(url: &str, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = Sql::parse(url).unwrap().connect().await.unwrap();
        let driver = tokio::spawn(connection);
        for statement in statements {
            client.batch_execute(statement).await.unwrap();
        }
        drop(client);
        driver.await.unwrap().unwrap();
    });
}

/// What an expert would say of a stock server, and nothing that he would not.
fn assert_stock(installation: &Installation) {
    let cluster = ScratchCluster::builder(installation).initdb_args(["--locale=C"]).start().unwrap();
    let major = installation.major();
    let report = audit(&cluster.url("postgres"));
    println!("{}", audit::render::text(&report));
    let found = checks(&report);
    let mut expected: BTreeSet<&str> = ["no-timeouts", "log-too-quiet"].into();
    if major < 18 {
        expected.insert("no-checksums");
    }
    if major < 15 {
        expected.insert("end-of-life");
    }
    for check in &expected {
        assert!(found.contains(check), "{major}: {check} is not among {found:?}");
    }
    // What depends on the machine that the tests run on: its cores, memory, jobs, disks and the test server's version.
    let machine = [
        "stock-settings",
        "no-backup",
        "vacuum-outruns-cores",
        "oom-unprotected",
        "archive-off",
        "disk-nearly-full",
        "monitoring-on-what-it-monitors",
        "outdated-minor",
    ];
    let more: Vec<&&str> =
        found.iter().filter(|check| !expected.contains(*check) && !machine.contains(*check)).collect();
    assert!(more.is_empty(), "{major}: {more:?}");
    for open in &report.not_assessed {
        // A superuser on the same machine sees everything that is asked of a server.
        assert!(!open.what.contains("PostgreSQL/main") || open.what.starts_with("outdated-minor"), "{major}: {open:?}");
    }
    for finding in &report.findings {
        assert!(!finding.remedy.text().trim().is_empty() && !finding.evidence.is_empty(), "{finding:?}");
    }
}

#[test]
fn a_stock_server_gets_the_advice_of_an_expert() {
    if let Some(installation) = newest() {
        assert_stock(&installation);
    }
}

#[test]
fn slow_stock_servers_of_all_versions() {
    for major in 13..=18 {
        match scratch::installation(major) {
            Ok(installation) => assert_stock(&installation),
            Err(error) => println!("skipped: {error}"),
        }
    }
}

#[test]
fn a_careless_server_is_told_of_each_carelessness() {
    let Some(installation) = newest() else { return };
    let settings = [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("autovacuum", "off"),
        ("autovacuum_vacuum_cost_delay", "0"),
        ("superuser_reserved_connections", "0"),
        ("max_connections", "20"),
        ("max_prepared_transactions", "4"),
        ("archive_mode", "on"),
        ("archive_command", "true"),
        ("zero_damaged_pages", "on"),
        ("work_mem", "2GB"),
        ("autovacuum_work_mem", "100GB"),
    ];
    let builder = settings
        .iter()
        .fold(ScratchCluster::builder(&installation), |builder, (name, value)| builder.setting(*name, *value));
    let cluster = builder.start().unwrap();
    let url = cluster.url("postgres");
    run(&url, &["SELECT pg_create_physical_replication_slot('gone', true)", "ALTER SYSTEM SET max_connections = 21"]);
    // A line that the server has never had to start with.
    let file = cluster.data_dir().join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "no_such_setting = 1\n").unwrap();
    run(&url, &["SELECT pg_reload_conf()"]);
    let report = audit(&url);
    println!("{}", audit::render::text(&report));
    let found = checks(&report);
    for check in [
        "fsync-off",
        "full-page-writes-off",
        "autovacuum-off",
        "vacuum-outruns-cores",
        "no-reserved-connections",
        "archive-goes-nowhere",
        "damage-ignored",
        "slot-without-cap",
        "restart-would-fail",
        "connections-exceed-memory",
        "vacuum-memory",
    ] {
        assert!(found.contains(check), "{check} is not among {found:?}");
    }
    let fault = report.findings.iter().find(|finding| finding.check == "restart-would-fail").unwrap();
    assert!(fault.message.contains("no_such_setting"), "{}", fault.message);
    assert!(fault.evidence[0].place.file.ends_with("postgresql.auto.conf") && fault.evidence[0].place.line > 0);
    // Where a setting stands in a file, its line is the evidence.
    let fsync = report.findings.iter().find(|finding| finding.check == "fsync-off").unwrap();
    assert!(fsync.evidence[0].place.file.ends_with(".conf") && fsync.evidence[0].place.line > 0, "{fsync:?}");
}

#[test]
fn an_audit_changes_nothing() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation).setting("log_statement", "all").start().unwrap();
    audit(&cluster.url("postgres"));
    let log = std::fs::read_to_string(cluster.log_path()).unwrap();
    let statements: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("statement: ").map(|(_, text)| text)).collect();
    assert!(statements.len() > 10, "{log}");
    for statement in statements {
        let known = ["BEGIN TRANSACTION READ ONLY", "SELECT ", "ROLLBACK"];
        assert!(known.iter().any(|begin| statement.starts_with(begin)), "{statement}");
    }
}

#[test]
fn who_may_see_little_is_told_what_is_missing() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation).start().unwrap();
    run(&cluster.url("postgres"), &["CREATE ROLE little LOGIN"]);
    let url = cluster
        .url("postgres")
        .replace("user=postgres", "user=little")
        .replace("postgresql://postgres@", "postgresql://little@");
    assert!(url.contains("little"), "{url}");
    let report = audit(&url);
    println!("{}", audit::render::text(&report));
    let open = |what: &str| report.not_assessed.iter().find(|open| open.what == what).map(|open| open.why.as_str());
    for (check, why) in [
        ("connections-nearly-taken", "pg_monitor"),
        ("application-is-superuser", "pg_monitor"),
        ("restart-would-fail", "permission denied"),
        ("disk-nearly-full", "data_directory"),
    ] {
        assert!(open(check).is_some_and(|said| said.contains(why)), "{check}: {:?}", open(check));
    }
    assert!(checks(&report).contains("no-timeouts"), "what it may see is audited");
    assert!(!report.is_incomplete(), "a question without an answer is no broken input");
}

/// Something at a port that is no PostgreSQL, or half of one; with how the audit ended and how long it took.
fn with(talk: impl FnOnce(std::net::TcpStream) + Send + 'static) -> (Report, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            talk(stream);
        }
    });
    let begin = Instant::now();
    let report = audit(&format!("postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable&connect_timeout=2"));
    let took = begin.elapsed();
    thread.join().unwrap();
    (report, took)
}

fn why_no_server(report: &Report) -> String {
    assert_eq!(report.findings.len(), 0, "{:?}", checks(report));
    report.not_assessed.iter().find(|open| open.what == "the live database").unwrap().why.clone()
}

#[test]
fn no_server_is_not_assessed_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let report = audit(&format!("postgresql://postgres@127.0.0.1:{port}/postgres"));
    assert!(why_no_server(&report).contains("onnection refused"), "{report:?}");
    let (report, _) = with(|mut stream| {
        let mut byte = [0; 64];
        _ = stream.read(&mut byte);
        _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    });
    assert!(!why_no_server(&report).is_empty());
}

#[test]
fn slow_a_server_that_hangs_is_left() {
    // It takes the connection and says nothing.
    let (report, took) = with(|mut stream| {
        let mut bytes = Vec::new();
        _ = stream.read_to_end(&mut bytes);
    });
    assert!(why_no_server(&report).contains("within"), "{}", why_no_server(&report));
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn slow_a_server_that_stops_half_way_is_audited_by_half() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation).start().unwrap();
    // Stopped after its settings: a proxy passes on so many bytes of the server's, then nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, server_port) = (listener.local_addr().unwrap().port(), cluster.tcp_port());
    let thread = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = std::net::TcpStream::connect(("127.0.0.1", server_port)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let up = std::thread::spawn(move || {
            _ = std::io::copy(&mut from_client, &mut to_server);
        });
        // Settings are some 80 kB of JSON, and nothing else is as large.
        let mut first = server.take(60_000);
        let mut to_client = client;
        _ = std::io::copy(&mut first, &mut to_client);
        up.join().unwrap();
    });
    let begin = Instant::now();
    let report = audit(&format!("postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"));
    let took = begin.elapsed();
    thread.join().unwrap();
    println!("{}", audit::render::text(&report));
    let silent: Vec<&str> = report
        .not_assessed
        .iter()
        .filter(|open| open.why.contains("stopped answering"))
        .map(|open| open.what.as_str())
        .collect();
    assert!(silent.contains(&"damage-ignored") && silent.contains(&"slot-without-cap"), "{silent:?}");
    // What it had said before is still judged.
    let version =
        report.findings.iter().any(|finding| finding.check == "outdated-minor" || finding.check == "end-of-life");
    assert!(version || report.not_assessed.iter().any(|open| open.what.starts_with("outdated-minor of")));
    assert!(took < Duration::from_secs(45), "{took:?}");
}

#[test]
fn a_well_kept_server_has_no_findings() {
    let report = common::audit(common::well_kept());
    assert_eq!(report.findings, [], "{}", audit::render::text(&report));
}

#[test]
fn what_nobody_can_wait_for_is_found_too() {
    let report = common::audit(common::neglected());
    println!("{}", audit::render::text(&report));
    let found = checks(&report);
    for check in [
        "wraparound-near",
        "abandoned-transaction",
        "archive-failing",
        "backup-old",
        "disk-nearly-full",
        "restart-changes-settings",
        "oom-unprotected",
    ] {
        assert!(found.contains(check), "{check} is not among {found:?}");
    }
    assert_eq!(report.worst(), Some(audit::Severity::Critical));
}

#[test]
fn remedies_fit_the_server() {
    let command = |change: &dyn Fn(&mut Vec<audit::facts::LiveSetting>, &mut u32), check: &str| {
        let (mut server, host, own) = common::neglected();
        let mut rows: Vec<_> = server.settings.as_ref().unwrap().all().cloned().collect();
        change(&mut rows, &mut server.identity.version);
        server.settings = Ok(audit::facts::LiveSettings::new("main".into(), rows));
        let report = common::audit((server, host, own));
        report
            .findings
            .into_iter()
            .find(|finding| finding.check == check)
            .map(|finding| finding.remedy.text().to_owned())
            .unwrap()
    };
    let plain = command(&|_, _| {}, "no-timeouts");
    assert!(
        plain.contains("ALTER SYSTEM SET idle_in_transaction_session_timeout = '5min'")
            && plain.contains("pg_reload_conf"),
        "{plain}"
    );
    let restart = command(
        &|rows, _| rows.iter_mut().for_each(|row| row.context = "postmaster".to_owned()),
        "no-reserved-connections",
    );
    assert!(restart.contains("restart") && !restart.contains("pg_reload_conf"), "{restart}");
    let line =
        command(&|rows, _| rows.iter_mut().for_each(|row| row.source = "command line".to_owned()), "no-timeouts");
    assert!(line.contains("where the server is started") && !line.contains("psql"), "{line}");
    let managed = command(
        &|rows, version| {
            rows.push(common::setting("allow_alter_system", "off", None));
            *version = 170_010;
        },
        "no-timeouts",
    );
    assert!(managed.contains("ALTER SYSTEM is switched off") && !managed.contains("psql"), "{managed}");
}

#[test]
fn a_standby_sends_on_what_only_its_primary_knows() {
    let (mut server, host, own) = common::neglected();
    server.identity.standby = true;
    let report = common::audit((server, host, own));
    assert!(!checks(&report).contains("no-backup"));
    assert!(
        report.not_assessed.iter().any(|open| open.what.starts_with("no-backup of") && open.why.contains("primary")),
        "{:?}",
        report.not_assessed
    );
}
