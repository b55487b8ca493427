//! Servers and machines as facts, made by hand: what no test can wait for (a month of transactions, a full disk) is here.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use audit::{
    Options, Report,
    facts::{
        Age, Answer, Archiver, Collector, Disk, FileFault, Host, Identity, LiveSetting, LiveSettings, OwnBackups,
        Postmaster, Prepared, RoleSetting, Sender, Server, Sessions, Slot,
    },
};
use jiff::civil::date;

const GIB: u64 = 1 << 30;

pub fn setting(name: &str, value: &str, unit: Option<&str>) -> LiveSetting {
    LiveSetting {
        name: name.to_owned(),
        setting: value.to_owned(),
        unit: unit.map(str::to_owned),
        source: "default".to_owned(),
        sourcefile: None,
        sourceline: None,
        pending_restart: false,
        boot_val: None,
        context: "sighup".to_owned(),
    }
}

fn settings(pairs: &[(&str, &str, Option<&str>)]) -> LiveSettings {
    LiveSettings::new("main".into(), pairs.iter().map(|(name, value, unit)| setting(name, value, *unit)).collect())
}

/// A server that an expert would leave as it is.
pub fn well_kept() -> (Server, Host, OwnBackups) {
    let server = Server {
        name: "main".into(),
        postmaster: Some(1),
        identity: Identity { version: 170_010, standby: false, role: "oxpecker".to_owned(), backend: 2 },
        settings: Ok(settings(&[
            ("max_connections", "60", None),
            ("superuser_reserved_connections", "3", None),
            ("reserved_connections", "0", None),
            ("shared_buffers", "524288", Some("8kB")),
            ("work_mem", "16384", Some("kB")),
            ("maintenance_work_mem", "524288", Some("kB")),
            ("autovacuum_work_mem", "-1", Some("kB")),
            ("autovacuum_max_workers", "3", None),
            ("autovacuum_vacuum_cost_delay", "2", Some("ms")),
            ("autovacuum_vacuum_cost_limit", "-1", None),
            ("vacuum_cost_limit", "200", None),
            ("vacuum_cost_delay", "0", Some("ms")),
            ("autovacuum", "on", None),
            ("track_counts", "on", None),
            ("idle_in_transaction_session_timeout", "300000", Some("ms")),
            ("statement_timeout", "0", Some("ms")),
            ("fsync", "on", None),
            ("full_page_writes", "on", None),
            ("data_checksums", "on", None),
            ("archive_mode", "off", None),
            ("archive_command", "(disabled)", None),
            ("max_slot_wal_keep_size", "10240", Some("MB")),
            ("max_wal_size", "1024", Some("MB")),
            ("zero_damaged_pages", "off", None),
            ("log_lock_waits", "on", None),
            ("log_checkpoints", "on", None),
            ("log_temp_files", "10240", Some("kB")),
            ("log_autovacuum_min_duration", "10000", Some("ms")),
            ("log_min_duration_statement", "1000", Some("ms")),
            ("shared_preload_libraries", "pg_stat_statements", None),
            ("data_directory", "/var/lib/postgresql/17/main", None),
        ])),
        role_settings: Ok(vec![RoleSetting {
            role: "app".to_owned(),
            database: String::new(),
            setting: "statement_timeout=30s".to_owned(),
        }]),
        slots: Ok(vec![Slot {
            name: "oxpecker".to_owned(),
            active: true,
            wal_status: Some("reserved".to_owned()),
            held: Some(1e6),
        }]),
        sessions: Ok(vec![Sessions {
            role: "app".to_owned(),
            database: "app".to_owned(),
            application: "site".to_owned(),
            superuser: false,
            count: 12,
            transaction: Some(0.2),
            idle_in_transaction: None,
        }]),
        archiver: Ok(Archiver { archived: 0, since_archived: None, failed: 0, since_failed: None }),
        senders: Ok(vec![Sender { application: "oxpecker receive".to_owned(), state: "streaming".to_owned() }]),
        ages: Ok(vec![Age { database: "app".to_owned(), transactions: 150_000_000, multixacts: 3_000 }]),
        prepared: Ok(vec![]),
        faults: Ok(vec![]),
    };
    let host = Host {
        cores: Ok(8),
        memory: Ok(32 * GIB),
        overcommit: Ok(2),
        postmaster: Ok(Postmaster {
            pid: 1,
            oom_score_adj: -900,
            cores: 8.0,
            cores_from: evidence("/proc/1/status", "8"),
            memory: None,
        }),
        disks: Ok(vec![
            Disk {
                role: "data",
                path: "/var/lib/postgresql/17/main".to_owned(),
                device: 1,
                size: 500 * GIB,
                free: 300 * GIB,
            },
            Disk {
                role: "wal",
                path: "/var/lib/postgresql/17/main/pg_wal".to_owned(),
                device: 1,
                size: 500 * GIB,
                free: 300 * GIB,
            },
            Disk { role: "repository", path: "/srv/backup".to_owned(), device: 2, size: 500 * GIB, free: 300 * GIB },
        ]),
        monitors: vec![],
        backup_jobs: vec![],
        pgbackrest: None,
    };
    let own = OwnBackups {
        place: "/srv/backup".to_owned(),
        cluster: "main".to_owned(),
        count: 9,
        newest: Some(3_600),
        proven: Some(7_200),
        max_age: Some(172_800),
    };
    (server, host, own)
}

/// One with every gap that only a running server can show.
pub fn neglected() -> (Server, Host, OwnBackups) {
    let (mut server, mut host, mut own) = well_kept();
    server.identity.version = 140_005;
    let mut rows: Vec<LiveSetting> = server.settings.as_ref().unwrap().all().cloned().collect();
    for row in &mut rows {
        let value = match row.name.as_str() {
            "superuser_reserved_connections" => "0",
            "max_slot_wal_keep_size" => "-1",
            "ignore_checksum_failure" | "zero_damaged_pages" => "on",
            "autovacuum_vacuum_cost_delay" => "0",
            "log_lock_waits" | "log_checkpoints" | "data_checksums" | "autovacuum" => "off",
            "log_temp_files" | "log_autovacuum_min_duration" => "-1",
            "idle_in_transaction_session_timeout" => "0",
            "max_connections" => "14",
            "archive_mode" => "on",
            "archive_command" => "",
            _ => continue,
        };
        value.clone_into(&mut row.setting);
        row.pending_restart = row.name == "max_connections";
    }
    server.settings = Ok(LiveSettings::new("main".into(), rows));
    server.role_settings = Ok(vec![]);
    server.slots = Ok(vec![
        Slot { name: "gone".to_owned(), active: false, wal_status: Some("extended".to_owned()), held: Some(9e9) },
        Slot { name: "lost".to_owned(), active: false, wal_status: Some("lost".to_owned()), held: None },
    ]);
    let sessions = server.sessions.as_mut().unwrap();
    sessions[0].idle_in_transaction = Some(90_000.0);
    sessions[0].superuser = true;
    server.archiver =
        Ok(Archiver { archived: 7, since_archived: Some(90_000.0), failed: 99, since_failed: Some(60.0) });
    server.senders = Ok(vec![]);
    server.ages = Ok(vec![Age { database: "app".to_owned(), transactions: 1_700_000_000, multixacts: 3_000 }]);
    server.prepared = Ok(vec![Prepared { name: "it's".to_owned(), age: 90_000.0 }]);
    server.faults = Ok(vec![FileFault {
        file: Some("/etc/postgresql/17/main/postgresql.conf".to_owned()),
        line: Some(7),
        name: Some("shared_bufers".to_owned()),
        error: "unrecognized configuration parameter".to_owned(),
    }]);
    host.overcommit = Ok(0);
    host.postmaster.as_mut().unwrap().oom_score_adj = 0;
    for disk in host.disks.as_mut().unwrap() {
        (disk.device, disk.free) = (1, GIB);
    }
    host.monitors = vec![("prometheus".to_owned(), 77)];
    (own.newest, own.proven) = (Some(900_000), None);
    (server, host, own)
}

pub fn audit((server, host, own): (Server, Host, OwnBackups)) -> Report {
    let mut collector = Collector::new(date(2026, 11, 23));
    collector.host(host);
    collector.server(Ok(server));
    collector.own_backups(Ok(own));
    audit::audit(collector, &Options::default())
}

fn evidence(file: &str, value: &str) -> audit::Evidence {
    audit::Evidence { place: audit::Place { file: file.into(), line: 1 }, value: value.to_owned() }
}

/// A network where nothing is as it should be.
pub fn wrong_answers() -> Report {
    let mut collector = Collector::new(date(2026, 11, 23));
    collector.add("expected-routes.txt", "a.example.org -> https://b.example.org\ngone.example.org\n");
    collector.add("site.env", "SENTRY_DSN=https://key@errors.example.org/1\n");
    let (questions, left_out) = collector.questions();
    let answers = questions.into_iter().map(|question| {
        let answer = match question.subject() {
            "a.example.org" => Ok(Answer {
                status: Some(200),
                expires: Some(date(2026, 11, 25)),
                untrusted: Some("UnknownIssuer".to_owned()),
                ..Answer::default()
            }),
            _ => Err("connection refused".to_owned()),
        };
        (question, answer)
    });
    collector.probes(answers.collect(), left_out);
    audit::audit(collector, &Options::default())
}
